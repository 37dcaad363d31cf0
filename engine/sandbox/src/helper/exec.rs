//! The last act of the runtime's init process: becoming the step's command.

use std::{
    collections::HashMap,
    ffi::CString,
    fs::File,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    rc::Rc,
};

use libcontainer::{
    oci_spec::runtime::Spec,
    workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError},
};
use rustix::process::Signal;

use super::Failure;
use crate::sys;

/// Runs the command with the environment in its own order, and tells the helper when it cannot be run.
#[derive(Clone)]
pub(super) struct StepExecutor {
    /// Where a failure goes. Closed by a successful exec, which is how the helper learns of it.
    pub(super) failures: Rc<File>,
}

impl StepExecutor {
    fn report(&self, failure: &Failure) {
        if let Ok(json) = serde_json::to_vec(failure) {
            let _ = (&*self.failures).write_all(&json);
        }
    }
}

impl Executor for StepExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let Some(process) = spec.process().as_ref() else {
            return Err(ExecutorError::InvalidArg);
        };
        let argv = process.args().clone().unwrap_or_default();
        let env = process.env().clone().unwrap_or_default();
        let Some(program) = argv.first() else {
            return Err(ExecutorError::InvalidArg);
        };
        let reason = match find(program, &env) {
            Ok(path) => {
                // If the helper is killed, the step is too: nobody would wait for it. (Its parent is the helper, which has one
                // thread, so the signal cannot come for a thread that ends.)
                let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
                let c_strings =
                    |list: &[String]| list.iter().map(|text| CString::new(text.as_bytes())).collect();
                match (c_strings(&argv), c_strings(&env)) {
                    (Ok::<Vec<_>, _>(argv), Ok::<Vec<_>, _>(env)) => {
                        explain(&path, &sys::exec(&path, &argv, &env))
                    }
                    _ => "an argument or variable contains a NUL byte".to_owned(),
                }
            }
            Err(reason) => reason,
        };
        self.report(&Failure::Program {
            program: program.clone(),
            reason: reason.clone(),
        });
        Err(ExecutorError::Other(reason))
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        // `exec` finds out, and reports with more words.
        Ok(())
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The environment is given to execve as the step has it.
        Ok(())
    }
}

/// Looks a program up as a shell would: a name with a slash is a path, any other is searched in PATH.
pub(crate) fn find(program: &str, env: &[String]) -> Result<PathBuf, String> {
    if program.contains('/') {
        return Ok(PathBuf::from(program));
    }
    let path = env
        .iter()
        .rev()
        .find_map(|variable| variable.strip_prefix("PATH="))
        .unwrap_or("");
    let mut not_executable = None;
    for dir in path.split(':') {
        let candidate = Path::new(if dir.is_empty() { "." } else { dir }).join(program);
        match std::fs::metadata(&candidate) {
            Ok(metadata) if !metadata.is_file() => {}
            Ok(metadata) if metadata.permissions().mode() & 0o111 != 0 => return Ok(candidate),
            Ok(_) => not_executable = Some(candidate),
            Err(_) => {}
        }
    }
    Err(match not_executable {
        Some(path) => format!("permission denied: {} is not executable", path.display()),
        None => format!("executable file not found in $PATH ({path})"),
    })
}

fn explain(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound if path.exists() => {
            format!(
                "no such file or directory: {} is there, but not the interpreter or loader that it names",
                path.display()
            )
        }
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            "exec format error: not a program for this architecture, or a script without a `#!` line"
                .to_owned()
        }
        _ => error.to_string(),
    }
}
