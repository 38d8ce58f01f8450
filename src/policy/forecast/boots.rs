//! How far ahead a purchase must be made.

use std::time::Duration;

/// So many launches must have shown how long a boot takes.
const NEEDED: usize = 3;

/// Gives the time within which nine in ten of the launches joined, from their seconds; `None` while there were too few.
#[must_use]
pub fn boot_time(boots: &[u32]) -> Option<Duration> {
    let mut took = boots.to_vec();
    took.sort_unstable();
    let place = (took.len() * 9).div_ceil(10).saturating_sub(1);
    took.get(place).filter(|_| took.len() >= NEEDED).map(|seconds| Duration::from_secs(u64::from(*seconds)))
}

/// Gives the whole minutes from the evaluation that asks for a node to the one that can count on it: the boot as the
/// launches show it, or else `expected`, and an evaluation more, since a node that is asked for one evaluation too late
/// is there one evaluation later.
#[must_use]
pub fn lead_time(boots: &[u32], expected: Duration, interval: Duration) -> usize {
    let lead = boot_time(boots).unwrap_or(expected).saturating_add(interval);
    usize::try_from(lead.as_secs().div_ceil(60)).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_time_is_that_within_which_nine_in_ten_joined() {
        for (boots, expected) in
            [(&[][..], None), (&[60, 60], None), (&[60, 300, 90], Some(300)), (&[50, 40, 30, 20, 10, 60, 70, 80, 90, 900], Some(90))]
        {
            assert_eq!(boot_time(boots), expected.map(Duration::from_secs), "{boots:?}");
        }
    }

    #[test]
    fn a_purchase_is_made_a_boot_and_an_evaluation_ahead() {
        let minutes = |boots: &[u32], interval| lead_time(boots, Duration::from_mins(2), Duration::from_secs(interval));
        assert_eq!((minutes(&[], 120), minutes(&[], 60), minutes(&[61, 61, 61], 60), minutes(&[170; 5], 120)), (4, 3, 3, 5));
    }
}
