//! A demand's history in few bytes, for the ledger.
//!
//! A version, the first minute, and each minute's value in single precision, NaN where there is none; the values' bytes
//! stand in four planes, since those of one plane resemble each other, and all is deflated. 28 days are 160 KB at most,
//! whatever the demand does: less than a record of DynamoDB may have.

use super::history::{DemandHistory, KEPT, Minute};
use miniz_oxide::deflate::compress_to_vec_zlib;
use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;

const VERSION: u8 = 1;
/// The version and the first minute.
const HEAD: usize = 9;
/// No history is longer, nor is one read that would be.
const LONGEST: usize = HEAD + 4 * (KEPT + 1440);
const EFFORT: u8 = 6;

/// Bytes that are no history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is no history of a demand: {0}")]
pub struct Damaged(String);

impl DemandHistory {
    /// Packs it.
    #[must_use]
    pub fn pack(&self) -> Vec<u8> {
        let first = self.first().map_or(0, |minute| minute.0);
        let values: Vec<f32> = (first..).take(self.span()).map(|minute| self.get(Minute(minute)).map_or(f32::NAN, single)).collect();
        let mut bytes = vec![VERSION];
        bytes.extend(first.to_le_bytes());
        for plane in 0..4 {
            bytes.extend(values.iter().map(|value| value.to_le_bytes()[plane]));
        }
        compress_to_vec_zlib(&bytes, EFFORT)
    }

    /// Unpacks one.
    ///
    /// # Errors
    /// When the bytes are damaged, of a later version, or of something else.
    pub fn unpack(packed: &[u8]) -> Result<Self, Damaged> {
        let bytes = decompress_to_vec_zlib_with_limit(packed, LONGEST).map_err(|error| Damaged(error.to_string()))?;
        let Some((head, planes)) = bytes.split_first_chunk::<HEAD>().filter(|(_, planes)| planes.len().is_multiple_of(4)) else {
            return Err(Damaged(format!("{} bytes are no whole minutes", bytes.len())));
        };
        let [version, first @ ..] = *head;
        if version != VERSION {
            return Err(Damaged(format!("it is of version {version}, and this build knows version {VERSION}")));
        }
        let (first, minutes) = (i64::from_le_bytes(first), planes.len() / 4);
        let value = |at: usize| f32::from_le_bytes(std::array::from_fn(|plane| planes[plane * minutes + at]));
        let mut history = Self::default();
        for (minute, value) in (first..).zip((0..minutes).map(value)).filter(|(_, value)| !value.is_nan()) {
            history.observe(Minute(minute), f64::from(value)).map_err(|refused| Damaged(refused.to_string()))?;
        }
        Ok(history)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it was kept in single precision")]
fn single(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn history(values: &[(i64, f64)]) -> DemandHistory {
        let mut history = DemandHistory::default();
        for (minute, value) in values {
            history.observe(Minute(*minute), *value).expect("it is in order");
        }
        history
    }

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked_as_it_was(
            first in -1_000_000_i64..1_000_000_000,
            minutes in prop::collection::vec((1_i64..200, 0.0_f64..1e12), 0..300),
        ) {
            let mut at = first;
            let values: Vec<_> = minutes.into_iter().map(|(step, value)| { at += step; (at, value) }).collect();
            let history = history(&values);
            prop_assert_eq!(DemandHistory::unpack(&history.pack()), Ok(history));
        }

        #[test]
        fn bytes_from_anywhere_are_refused_and_break_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(DemandHistory::unpack(&bytes).is_err());
            let _ = DemandHistory::unpack(&compress_to_vec_zlib(&bytes, 1));
        }
    }

    #[test]
    fn the_worst_28_days_fit_into_a_record_and_usual_ones_are_far_smaller() {
        let minutes = i64::try_from(KEPT + 1439).expect("it fits");
        // A generator of Knuth's, so that nothing can be foreseen.
        let random =
            |minute: i64| f64::from(u32::try_from(minute.wrapping_mul(6_364_136_223_846_793_005).rem_euclid(1 << 32)).expect("masked"));
        let worst = history(&(0..minutes).map(|minute| (minute, random(minute))).collect::<Vec<_>>());
        let usual = history(&(0..minutes).map(|minute| (minute, (random(minute / 10) / 1e9).round() / 4.0 + 8.0)).collect::<Vec<_>>());
        let [worst, usual] = [worst, usual].map(|history| history.pack().len());
        assert!(worst < 170_000 && usual < 30_000, "{worst} and {usual} bytes");
    }

    #[test]
    fn a_later_version_is_refused_by_name() {
        let mut bytes = vec![2];
        bytes.extend(0_i64.to_le_bytes());
        let refused = DemandHistory::unpack(&compress_to_vec_zlib(&bytes, 1)).expect_err("it is of version 2");
        assert_eq!(refused.to_string(), "it is no history of a demand: it is of version 2, and this build knows version 1");
    }
}
