//! Amounts as Kubernetes writes them, to be compared and multiplied. Pure.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// One mebibyte.
const MI: u128 = 1 << 20;

/// Thousandths of what a quantity says: `250m` is 250, `1Ki` is 1,024,000. `None` for what the API server would not take, and
/// for amounts below zero, which no resource has.
pub fn milli(quantity: &Quantity) -> Option<u128> {
    let text = quantity.0.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '+')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (times, divisor) = scale(suffix)?;
    let (whole, part) = number
        .trim_start_matches('+')
        .split_once('.')
        .unwrap_or((number.trim_start_matches('+'), ""));
    let digits = format!("{whole}{part}");
    let digits: u128 = digits.parse().ok()?;
    let below = 10_u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let value = digits.checked_mul(times)?.checked_mul(1000)?;
    // Rounded up, as Kubernetes does.
    Some(value.div_ceil(below.checked_mul(divisor)?))
}

/// What a suffix multiplies and divides by.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    let binary = |power: u32| Some((1024_u128.pow(power), 1));
    let decimal = |power: u32| Some((1000_u128.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => decimal(1),
        "M" => decimal(2),
        "G" => decimal(3),
        "T" => decimal(4),
        "P" => decimal(5),
        "E" => decimal(6),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_u128.checked_pow(exponent.unsigned_abs())?;
            Some(if exponent < 0 { (1, power) } else { (power, 1) })
        }
    }
}

/// Bytes as a quantity, rounded up to whole mebibytes.
pub fn mebibytes(bytes: u128) -> Quantity {
    Quantity(format!("{}Mi", bytes.div_ceil(MI)))
}

/// A factor of two decimals, like the `1.5` of `spec.retryMemoryFactor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Factor {
    hundredths: u128,
}

impl Factor {
    /// Reads `1.5`; `None` for what is not above 1 or has more than two decimals.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) || whole.len() > 4 || part.len() > 2 {
            return None;
        }
        let hundredths = format!("{whole}{part:0<2}").parse().ok()?;
        (hundredths > 100).then_some(Self { hundredths })
    }

    /// `value`, multiplied so many times.
    pub fn apply(self, value: u128, times: u32) -> u128 {
        (0..times).fold(value, |value, _| value.saturating_mul(self.hundredths) / 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_in_every_form() {
        for (text, expected) in [
            ("1", Some(1000)),
            ("250m", Some(250)),
            ("0.25", Some(250)),
            (".5", Some(500)),
            ("1.", Some(1000)),
            ("+2", Some(2000)),
            ("1k", Some(1_000_000)),
            ("1Ki", Some(1_024_000)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("4Gi", Some(4_294_967_296_000)),
            ("1e3", Some(1_000_000)),
            ("1E3", Some(1_000_000)),
            ("1E", Some(1_000_000_000_000_000_000_000)),
            ("5e-1", Some(500)),
            ("1n", Some(1)),
            ("", None),
            ("-1", None),
            ("1gb", None),
            ("1.2.3", None),
            ("1e99", None),
        ] {
            assert_eq!(milli(&Quantity(text.to_owned())), expected, "{text:?}");
        }
    }

    #[test]
    fn a_factor_has_two_decimals_and_is_above_one() {
        for (text, times, expected) in [
            ("1.5", 1, Some(150)),
            ("1.5", 2, Some(225)),
            ("1.05", 1, Some(105)),
            ("2", 3, Some(800)),
            ("2.50", 0, Some(100)),
            ("1", 1, None),
            ("0.5", 1, None),
            ("1.555", 1, None),
            ("-2", 1, None),
            ("1,5", 1, None),
            ("", 1, None),
        ] {
            let applied = Factor::parse(text).map(|factor| factor.apply(100, times));
            assert_eq!(applied, expected, "{text:?}");
        }
    }

    #[test]
    fn bytes_are_written_in_whole_mebibytes() {
        assert_eq!(mebibytes(1_610_612_736).0, "1536Mi");
        assert_eq!(mebibytes(1).0, "1Mi");
    }
}
