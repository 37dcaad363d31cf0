//! One word of `EXPOSE`, after expansion.

/// A container port, written `80/tcp`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

/// Why a word is not a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid EXPOSE port {spec:?}: {reason}")]
pub struct PortError {
    /// The word.
    pub spec: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Reads one word: a port or a range, with an optional protocol; host parts are accepted and dropped.
pub fn parse(spec: &str) -> Result<Vec<Port>, PortError> {
    Err(PortError { spec: spec.to_owned(), reason: "not implemented".to_owned() })
}
