//! Sizes and times as people read them.

use std::time::Duration;

/// `12.3MB`.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes}B"),
        1_000..1_000_000 => format!("{:.1}kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1}MB", bytes as f64 / 1e6),
        _ => format!("{:.2}GB", bytes as f64 / 1e9),
    }
}

/// `0.3s`, `12.3s`, `3m05s`, `1h02m`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => {
            // Cut, not rounded: 59.96 s are not yet a minute.
            let tenths = time.as_millis() / 100;
            format!("{}.{}s", tenths / 10, tenths % 10)
        }
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_short() {
        for (millis, text) in [
            (0, "0.0s"),
            (349, "0.3s"),
            (12_340, "12.3s"),
            (59_990, "59.9s"),
            (60_000, "1m00s"),
            (185_000, "3m05s"),
            (3_725_000, "1h02m"),
            (360_000_000, "100h00m"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
        for (bytes, text) in [
            (999, "999B"),
            (1_500, "1.5kB"),
            (12_300_000, "12.3MB"),
            (2_500_000_000, "2.50GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
