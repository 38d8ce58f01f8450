//! Demands that are made up: four shapes that clusters have, the same from the same seed.

use super::recording::Recording;
use crate::policy::forecast::Minute;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use std::f64::consts::TAU;

/// A shape of demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// People who wake, work and sleep, less so at weekends.
    Daily,
    /// A daily curve under bursts that nobody announces.
    Bursty,
    /// A daily curve under jobs of each hour, each half hour and each night.
    Cron,
    /// A daily curve with a sale that multiplies it, twice a week at no fixed hour.
    FlashSale,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Daily, Self::Bursty, Self::Cron, Self::FlashSale];

    /// Gives the name it has on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Daily => "daily",
            Self::Bursty => "bursty",
            Self::Cron => "cron",
            Self::FlashSale => "flash-sale",
        }
    }

    /// Makes up so many days of it, which begin on a Monday.
    #[must_use]
    pub fn days(self, days: usize, seed: u64) -> Recording {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut drift = 0.0_f64;
        let mut burst = 0.0_f64;
        let mut values = Vec::with_capacity(days * 1440);
        for minute in 0..days * 1440 {
            let noise = random.random_range(-1.0..1.0_f64);
            drift = 0.97 * drift + 0.02 * noise;
            let base = daily(minute) * (1.0 + drift) + 0.02 * random.random_range(-1.0..1.0_f64);
            let value = match self {
                Self::Daily => base,
                Self::Bursty => {
                    // Some eight bursts a day, which fade over a quarter of an hour.
                    if random.random_bool(8.0 / 1440.0) {
                        burst += random.random_range(0.3..1.5_f64);
                    }
                    burst *= 0.93;
                    base + burst
                }
                Self::Cron => base + jobs(minute),
                Self::FlashSale => {
                    if minute.is_multiple_of(3 * 1440) {
                        burst = f64::from(random.random_range(0..2 * 1440_u16)) + minute as f64;
                    }
                    let since = minute as f64 - burst;
                    // Ten minutes to rise, an hour and a half to fade.
                    let sale = if since < 0.0 { 0.0 } else { 2.0 * (since / 10.0).min(1.0) * (-(since - 10.0).max(0.0) / 90.0).exp() };
                    base * (1.0 + sale)
                }
            };
            #[expect(clippy::cast_possible_truncation, reason = "a demand of a few units")]
            values.push(value.max(0.0) as f32);
        }
        // Monday, 5 January 2026.
        Recording::whole(Minute(29_459_520), &values)
    }
}

/// Runs from about 0.25 at night to 1 by day; 0.6 of it at weekends.
fn daily(minute: usize) -> f64 {
    let share = (minute % 1440) as f64 / 1440.0;
    let curve = 0.6 - 0.35 * (TAU * (share - 0.08)).cos() - 0.08 * (2.0 * TAU * share).cos();
    if minute / 1440 % 7 >= 5 { 0.6 * curve } else { curve }
}

fn jobs(minute: usize) -> f64 {
    let of_hour = minute % 60;
    let hourly = if of_hour < 6 { 0.8 } else { 0.0 };
    let half = if (30..33).contains(&of_hour) { 0.3 } else { 0.0 };
    let nightly = if (150..190).contains(&(minute % 1440)) { 1.2 } else { 0.0 };
    hourly + half + nightly
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_demand_and_another_one_another() {
        for shape in Shape::ALL {
            let one = shape.days(3, 1);
            assert_eq!(one.values.len(), 3 * 1440);
            assert!(one.values.iter().flatten().all(|value| value.is_finite() && *value >= 0.0));
            assert_eq!(one, shape.days(3, 1));
            assert_ne!(one, shape.days(3, 2));
        }
    }

    #[test]
    fn they_begin_on_a_monday() {
        let start = Shape::Daily.days(1, 0).start;
        let monday = jiff::Timestamp::from_second(start.0 * 60).expect("a time").to_zoned(jiff::tz::TimeZone::UTC);
        assert_eq!((monday.weekday(), monday.hour(), monday.minute()), (jiff::civil::Weekday::Monday, 0, 0));
    }
}
