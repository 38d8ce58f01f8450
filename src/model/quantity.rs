//! Reads quantities as Kubernetes writes them: `500m`, `1.5`, `2Gi`, `1e3`, `128974848`.

use super::{Bytes, MilliCpu};

/// Says why a text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a Kubernetes quantity: {why} (right would be `500m`, `2`, `1.5Gi`)")]
pub struct QuantityError {
    /// The text as it came.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Parses an amount of CPU, rounded up to the next thousandth as the scheduler does.
///
/// # Errors
/// When the text is no quantity, is negative, or is beyond what a `u64` holds.
pub fn cpu(text: &str) -> Result<MilliCpu, QuantityError> {
    scaled(text, 1000).map(MilliCpu)
}

/// Parses an amount of memory, storage or an extended resource, rounded up to the next unit.
///
/// # Errors
/// When the text is no quantity, is negative, or is beyond what a `u64` holds.
pub fn bytes(text: &str) -> Result<Bytes, QuantityError> {
    scaled(text, 1).map(Bytes)
}

/// Computes `ceil(value * scale)` exactly, in integers: no quantity passes through a float.
fn scaled(text: &str, scale: u128) -> Result<u64, QuantityError> {
    let fail = |why| QuantityError { text: text.chars().take(64).collect(), why };
    let trimmed = text.strip_prefix('+').unwrap_or(text);
    if trimmed.starts_with('-') {
        return Err(fail("it is negative"));
    }
    let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, suffix) = trimmed.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return Err(fail("it has no digits"));
    }
    if fraction.contains('.') {
        return Err(fail("it has two points"));
    }
    if whole.len() + fraction.len() > 30 {
        return Err(fail("it has too many digits"));
    }
    let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| fail("it has no digits"))?;
    let (times, over) = factor(suffix).ok_or_else(|| fail("its suffix is unknown"))?;
    let too_large = || fail("it is too large");
    let fraction_length = u32::try_from(fraction.len()).map_err(|_| too_large())?;
    let divisor = 10_u128.checked_pow(fraction_length).and_then(|d| d.checked_mul(over)).ok_or_else(too_large)?;
    let product = digits.checked_mul(times).and_then(|p| p.checked_mul(scale)).ok_or_else(too_large)?;
    u64::try_from(product.div_ceil(divisor)).map_err(|_| too_large())
}

/// Gives the factor and the divisor that a suffix stands for.
fn factor(suffix: &str) -> Option<(u128, u128)> {
    let power = |exponent: u32| 10_u128.checked_pow(exponent);
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (power(6)?, 1),
        "G" => (power(9)?, 1),
        "T" => (power(12)?, 1),
        "P" => (power(15)?, 1),
        "E" => (power(18)?, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E'])?;
            match digits.strip_prefix('-') {
                Some(negative) => (1, power(negative.parse().ok()?)?),
                None => (power(digits.strip_prefix('+').unwrap_or(digits).parse().ok()?)?, 1),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_form_that_kubernetes_writes() {
        for (text, milli) in
            [("1", 1000), ("500m", 500), ("1.5", 1500), ("0.0001", 1), ("1e3", 1_000_000), ("100u", 1), ("+2", 2000), (".5", 500)]
        {
            assert_eq!(cpu(text), Ok(MilliCpu(milli)), "{text}");
        }
        for (text, expected) in [
            ("1Ki", 1024),
            ("1.5Gi", 1_610_612_736),
            ("128974848", 128_974_848),
            ("129e6", 129_000_000),
            ("129M", 129_000_000),
            ("1E", 1_000_000_000_000_000_000),
            ("1500m", 2),
        ] {
            assert_eq!(bytes(text), Ok(Bytes(expected)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_quantity_and_names_it() {
        for text in ["", "-1", "1.2.3", "abc", "1GiB", "1e", "e5", "16Ei", "1e99", "٣"] {
            let error = bytes(text).expect_err(text);
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_whatever_the_text(text in ".{0,80}") {
            let _ = cpu(&text);
            let _ = bytes(&text);
        }

        #[test]
        fn reads_back_whole_milli_cores(amount in 0_u64..1_000_000_000) {
            prop_assert_eq!(cpu(&format!("{amount}m")), Ok(MilliCpu(amount)));
        }
    }
}
