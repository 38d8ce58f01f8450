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

/// Gives the whole minutes from a launch to the node that serves, as the launches show it, or else as is `expected`.
///
/// What must be bought in one evaluation since the next one's nodes come later is for who decides to say: pods that wait
/// are bought for at once, and their nodes come after the boot alone.
#[must_use]
pub fn boot_minutes(boots: &[u32], expected: Duration) -> usize {
    whole_minutes(boot_time(boots).unwrap_or(expected)).max(1)
}

/// Counts the minutes that have begun within a time.
pub(super) fn whole_minutes(time: Duration) -> usize {
    usize::try_from(time.as_secs().div_ceil(60)).unwrap_or(usize::MAX)
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
    fn a_boot_takes_each_minute_that_it_has_begun() {
        let minutes = |boots: &[u32]| boot_minutes(boots, Duration::from_mins(2));
        assert_eq!((minutes(&[]), minutes(&[61, 61, 61]), minutes(&[170; 5]), minutes(&[0; 3])), (2, 2, 3, 1));
    }
}
