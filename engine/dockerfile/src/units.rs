//! Numbers with units as flags have them: Go's durations and booleans, memory sizes.

/// Reads `1h2m3.5s` as nanoseconds.
pub(crate) fn duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| c != '.' && !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(invalid());
        }
        let end = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let scale: i128 = match unit {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        let whole: i128 = if whole.is_empty() {
            0
        } else {
            whole.parse().map_err(|_| invalid())?
        };
        total = whole
            .checked_mul(scale)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(invalid)?;
        // What does not fit into 18 digits is less than a nanosecond of any unit.
        let fraction = &fraction[..fraction.len().min(18)];
        if !fraction.is_empty() {
            let digits: i128 = fraction.parse().map_err(|_| invalid())?;
            total += digits * scale / 10_i128.pow(fraction.len() as u32);
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

/// Reads a boolean as Go's `strconv.ParseBool`.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Reads a memory size in bytes: a number, perhaps with a fraction, and `b`, `k`, `m`, `g`, `t` or `p` (also `kb`,
/// `kib`), all powers of 1024.
pub(crate) fn memory(text: &str) -> Option<i64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.')? + 1;
    let number: f64 = text[..end].parse().ok()?;
    let unit = text[end..]
        .strip_prefix(' ')
        .unwrap_or(&text[end..])
        .to_ascii_lowercase();
    let (letter, rest) = match unit.chars().next() {
        None => return in_range(number),
        Some(letter) => (letter, &unit[letter.len_utf8()..]),
    };
    let scale = match (letter, rest) {
        ('b', "") => 1_u64,
        ('k', "" | "b" | "ib") => 1 << 10,
        ('m', "" | "b" | "ib") => 1 << 20,
        ('g', "" | "b" | "ib") => 1 << 30,
        ('t', "" | "b" | "ib") => 1 << 40,
        ('p', "" | "b" | "ib") => 1 << 50,
        _ => return None,
    };
    in_range(number * scale as f64)
}

fn in_range(number: f64) -> Option<i64> {
    (number >= 0.0 && number < i64::MAX as f64).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        assert_eq!(duration("1h2m3.5s"), Ok(3_723_500_000_000));
        assert_eq!(duration("0"), Ok(0));
        assert_eq!(duration("-1.5ms"), Ok(-1_500_000));
        assert_eq!(duration(".5s"), Ok(500_000_000));
        assert_eq!(
            duration("5"),
            Err("time: missing unit in duration \"5\"".to_owned())
        );
        assert_eq!(
            duration("5d"),
            Err("time: unknown unit \"d\" in duration \"5d\"".to_owned())
        );
        for bad in ["", "s", ".s", "x", "1.1.1s", "99999999999999h", "-"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_sizes_are_powers_of_1024() {
        assert_eq!(memory("10m"), Some(10 << 20));
        assert_eq!(memory("1.5 GiB"), Some(3 << 29));
        assert_eq!(memory("12"), Some(12));
        for bad in ["", "zz", "m", "1x", "-1", "1mm", "999999999p"] {
            assert_eq!(memory(bad), None, "{bad}");
        }
    }
}
