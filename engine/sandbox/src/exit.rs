//! How a step ended.

use serde::{Deserialize, Serialize};

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Exit {
    /// It ended by itself with this code; 0 is success.
    Code(i32),
    /// It was ended by this signal.
    Signal(i32),
    /// The kernel killed it, or a process of it, for want of memory.
    Oom,
    /// [`crate::Killer::kill`] ended it.
    Cancelled,
}

impl Exit {
    /// Whether the step succeeded.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    /// The code that a shell would show: the step's own, or 128 and the signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
            Self::Oom | Self::Cancelled => 137,
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code: {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::Oom => f.write_str("out of memory: the kernel killed the process"),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}
