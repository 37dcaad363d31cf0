//! `STOPSIGNAL`: names and numbers of Linux signals.

const NAMES: [&str; 37] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX", "UNUSED",
];

/// Whether a text names a signal: a number other than 0, or a name with or without `SIG`, in any case.
pub(super) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if NAMES.contains(&name) {
        return true;
    }
    let in_range = |prefix: &str, most: u32| {
        name.strip_prefix(prefix)
            .and_then(|number| number.parse::<u32>().ok())
            .is_some_and(|n| n >= 1 && n <= most)
    };
    in_range("RTMIN+", 15) || in_range("RTMAX-", 14)
}

#[cfg(test)]
mod tests {
    use super::is_signal;

    #[test]
    fn signals_have_names_and_numbers() {
        for good in ["SIGKILL", "term", "9", "SIGRTMIN+3", "RTMAX-14", "sigusr1"] {
            assert!(is_signal(good), "{good}");
        }
        for bad in ["NOPE", "", "0", "SIGRTMIN+16", "RTMAX-15", "SIG"] {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}
