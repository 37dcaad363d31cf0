//! Amounts of storage as Kubernetes writes them. Pure.

/// The bytes of a quantity such as `10Gi`, `1.5G` or `1e9`; `None` for what is none, or is less than nothing. Fractions
/// of a byte are rounded up, as the API server does.
pub fn bytes(text: &str) -> Option<u64> {
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const DECIMAL: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let factor = if suffix.is_empty() {
        1
    } else if let Some(power) = BINARY.iter().position(|known| *known == suffix) {
        1_u128 << (10 * (power + 1))
    } else if let Some(power) = DECIMAL.iter().position(|known| *known == suffix) {
        10_u128.pow(3 * (u32::try_from(power).ok()? + 1))
    } else {
        10_u128.checked_pow(suffix.strip_prefix(['e', 'E'])?.parse().ok()?)?
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let part = |text: &str| {
        if text.is_empty() {
            Some(0)
        } else {
            text.parse::<u128>().ok()
        }
    };
    let whole = part(whole)?.checked_mul(factor)?;
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let fraction = part(fraction)?.checked_mul(factor)?.div_ceil(scale);
    u64::try_from(whole.checked_add(fraction)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_the_api_server_reads_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1024", Some(1024)),
            ("10Gi", Some(10 << 30)),
            ("1.5Gi", Some(3 << 29)),
            ("0.1Ki", Some(103)),
            ("5G", Some(5_000_000_000)),
            ("2k", Some(2000)),
            ("1e3", Some(1000)),
            ("2E", Some(2_000_000_000_000_000_000)),
            ("", None),
            (".", None),
            ("Gi", None),
            ("-1Gi", None),
            ("10gb", None),
            ("1.2.3", None),
            ("99999999999Ei", None),
            ("1e99", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
