//! What is looked at in the past of a demand to tell the minutes that come.

use super::calendar::Calendar;
use super::history::Minute;
use jiff::tz::TimeZone;
use std::collections::VecDeque;

/// How far ahead is looked, in minutes; shorter than the hour whose cron jobs are looked up.
pub(super) const FARTHEST: usize = 30;
/// How many numbers describe a moment and a horizon.
pub(super) const WIDTH: usize = 28;
/// How many numbers describe how uncertain a forecast is.
pub(super) const DOUBTS: usize = 10;

const DAY: usize = 1440;
/// A week of days.
const WEEK: usize = 7;
/// So many days make the daily profile; the median over them shrugs off an outage or a sale.
const DAYS: usize = 7;
/// So many hours are searched for what comes at the same minute of each.
const HOURS: usize = 8;

/// What days and hours before say of one minute.
#[derive(Debug, Clone, Copy, Default)]
struct Season {
    /// Median over the days before of the smoothed demand at this minute.
    profile: f64,
    /// Mean distance of those days from the median.
    spread: f64,
    /// How far this minute sticks out of its surroundings, as the median of the days before.
    day_peak: f64,
    /// The same, as the mean of its absolute values.
    day_roughness: f64,
    /// How far this minute of the hour stuck out an hour ago, in the mean of three, as the median of eight.
    hour_peak: f64,
    hour_peak_3: f64,
    hour_peak_8: f64,
    hour_roughness: f64,
    yesterday: f64,
    yesterday_smooth: f64,
    last_week_smooth: f64,
    /// Whether there is a day, and a week, to compare with.
    has_day: bool,
    has_week: bool,
}

/// Sums over the past and the seasons of the minutes to come, kept up to date minute by minute.
#[derive(Debug, Clone)]
pub(super) struct Past {
    calendar: Calendar,
    /// The latest minute.
    latest: Minute,
    /// `sums[i]` is the sum of the levels before index `i`, counted from some origin.
    sums: VecDeque<f64>,
    /// Seasons of the latest minute and the `FARTHEST` after it.
    seasons: VecDeque<Season>,
    recent: Recent,
}

/// The last hour, as far as it is common to all horizons.
#[derive(Debug, Clone, Copy, Default)]
struct Recent {
    level: f64,
    before: f64,
    mean_3: f64,
    mean_10: f64,
    mean_60: f64,
    mean_day: f64,
    ten_ago: f64,
    highest_10: f64,
    lowest_10: f64,
    highest_60: f64,
    lowest_60: f64,
}

impl Past {
    /// Makes one that knows nothing yet of a demand that lives by the clock of a zone.
    pub(super) fn new(zone: TimeZone) -> Self {
        let calendar = Calendar::new(zone);
        Self { calendar, latest: Minute(0), sums: VecDeque::new(), seasons: VecDeque::new(), recent: Recent::default() }
    }

    /// Lets the days of the minutes to come be those of a zone.
    pub(super) fn set_zone(&mut self, zone: &TimeZone) {
        self.calendar.set(zone);
    }

    /// Finds the place among `levels` that is so many days before the one at `at`, by the clock; `None` before the first.
    pub(super) fn days_before(&self, levels: &[f32], at: usize, days: usize) -> Option<usize> {
        let minute = self.latest.0 + at as i64 - (levels.len() as i64 - 1);
        at.checked_sub(self.calendar.back(minute, days)).filter(|at| *at < levels.len())
    }

    /// Takes one more level, the last of `levels`, of minute `latest`. Older ones may have been dropped at the front
    /// meanwhile.
    pub(super) fn advance(&mut self, levels: &[f32], latest: Minute) {
        self.latest = latest;
        self.calendar.look_up(latest);
        let total = self.sums.back().copied().unwrap_or(0.0);
        if self.sums.is_empty() {
            self.sums.push_back(0.0);
        }
        self.sums.push_back(total + f64::from(levels[levels.len() - 1]));
        while self.sums.len() > levels.len() + 1 {
            self.sums.pop_front();
        }
        let now = levels.len() - 1;
        if self.seasons.is_empty() {
            self.seasons = (0..=FARTHEST).map(|ahead| self.season(levels, now + ahead)).collect();
        } else {
            self.seasons.pop_front();
            self.seasons.push_back(self.season(levels, now + FARTHEST));
        }
        self.recent = self.look_back(levels);
    }

    /// Gives the mean of the levels from `from` to before `to`, as far as there are any.
    fn mean(&self, from: usize, to: usize) -> f64 {
        (self.sums[to] - self.sums[from]) / (to - from).max(1) as f64
    }

    /// Gives the mean over the minutes within `reach` of `at`, all of them known.
    fn around(&self, at: usize, reach: usize) -> f64 {
        self.mean(at.saturating_sub(reach), (at + reach + 1).min(self.sums.len() - 1))
    }

    fn season(&self, levels: &[f32], at: usize) -> Season {
        let known = self.sums.len() - 1;
        let sticks_out = |at: usize| f64::from(levels[at]) - self.around(at, 15);
        let mut season = Season::default();
        let mut smooth = Sample::<DAYS>::default();
        let mut peaks = Sample::<DAYS>::default();
        for day in (1..=DAYS).filter_map(|days| self.days_before(levels, at, days)) {
            smooth.add(self.around(day, 2));
            peaks.add(sticks_out(day));
        }
        if let Some(day) = self.days_before(levels, at, 1) {
            (season.yesterday, season.yesterday_smooth, season.has_day) = (f64::from(levels[day]), self.around(day, 2), true);
        }
        if let Some(week) = self.days_before(levels, at, WEEK) {
            (season.last_week_smooth, season.has_week) = (self.around(week, 2), true);
        }
        season.day_roughness = peaks.mean_absolute();
        season.day_peak = if peaks.number >= 3 { peaks.median() } else { 0.0 };
        season.profile = smooth.median();
        season.spread = smooth.mean_distance(season.profile);
        let mut hours = Sample::<HOURS>::default();
        for (number, hour) in (1..=HOURS).filter_map(|hours| at.checked_sub(hours * 60)).enumerate() {
            if hour + 16 <= known {
                hours.add(sticks_out(hour));
            }
            if number == 2 {
                season.hour_peak_3 = hours.sum() / 3.0;
            }
        }
        season.hour_peak = hours.values[0];
        season.hour_roughness = hours.mean_absolute();
        season.hour_peak_8 = if hours.number == HOURS { hours.median() } else { 0.0 };
        season
    }

    fn look_back(&self, levels: &[f32]) -> Recent {
        let number = levels.len();
        let level = |ago: usize| f64::from(levels[(number - 1).saturating_sub(ago)]);
        let mean = |minutes: usize| self.mean(number.saturating_sub(minutes), number);
        let extremes = |minutes: usize| {
            let window = &levels[number.saturating_sub(minutes)..];
            window.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)))
        };
        let ((lowest_10, highest_10), (lowest_60, highest_60)) = (extremes(10), extremes(60));
        Recent {
            level: level(0),
            before: level(1),
            mean_3: mean(3),
            mean_10: mean(10),
            mean_60: mean(60),
            mean_day: mean(DAY),
            ten_ago: level(10),
            highest_10: f64::from(highest_10),
            lowest_10: f64::from(lowest_10),
            highest_60: f64::from(highest_60),
            lowest_60: f64::from(lowest_60),
        }
    }

    /// Describes the latest minute and the one `ahead` of it. Everything is a difference to the latest level, so that
    /// weights of zero say "as it is", and what is missing says nothing.
    pub(super) fn describe(&self, levels: &[f32], ahead: usize) -> [f64; WIDTH] {
        let (recent, now, then) = (&self.recent, &self.seasons[0], &self.seasons[ahead]);
        let level = recent.level;
        let around = [ahead - 1, (ahead + 1).min(FARTHEST)].map(|at| self.seasons[at].hour_peak_3);
        let day = |value: f64| if then.has_day { value } else { 0.0 };
        let week = |value: f64| if then.has_week { value } else { 0.0 };
        let ago = |minutes: usize| levels.len().checked_sub(1 + minutes).map_or(level, |at| f64::from(levels[at]));
        [
            1.0,
            level,
            level - recent.before,
            level - recent.mean_3,
            level - recent.mean_10,
            level - recent.mean_60,
            level - recent.ten_ago,
            recent.highest_10 - level,
            recent.highest_60 - level,
            level - recent.lowest_10,
            recent.mean_day - level,
            day(then.profile - now.profile),
            day(then.profile - level),
            then.day_peak,
            now.day_peak,
            day(then.yesterday_smooth - now.yesterday_smooth),
            day(then.yesterday - level),
            day(then.yesterday - now.yesterday),
            week(then.last_week_smooth - now.last_week_smooth),
            week(then.last_week_smooth - level),
            then.hour_peak,
            then.hour_peak_3,
            then.hour_peak_8,
            now.hour_peak_3,
            now.hour_peak_8,
            around[0].max(then.hour_peak_3).max(around[1]),
            ago(60 - ahead) - ago(60),
            ago(60 - ahead) - level,
        ]
    }

    /// Describes how uncertain the minute `ahead` is, given the forecast for it and how wrong forecasts lately were.
    pub(super) fn doubts(&self, ahead: usize, forecast: f64, error_lately: f64, error_long: f64) -> [f64; DOUBTS] {
        let (recent, then) = (&self.recent, &self.seasons[ahead]);
        [
            1.0,
            forecast,
            error_lately,
            error_long,
            (recent.level - recent.before).abs(),
            recent.highest_10 - recent.lowest_10,
            recent.highest_60 - recent.lowest_60,
            then.spread,
            then.day_roughness,
            then.hour_roughness,
        ]
    }
}

/// A handful of values of which the median is asked.
struct Sample<const N: usize> {
    values: [f64; N],
    number: usize,
}

impl<const N: usize> Default for Sample<N> {
    fn default() -> Self {
        Self { values: [0.0; N], number: 0 }
    }
}

impl<const N: usize> Sample<N> {
    fn add(&mut self, value: f64) {
        self.values[self.number] = value;
        self.number += 1;
    }

    fn known(&self) -> &[f64] {
        &self.values[..self.number]
    }

    fn sum(&self) -> f64 {
        self.known().iter().sum()
    }

    fn median(&self) -> f64 {
        let mut sorted = self.values;
        let sorted = &mut sorted[..self.number];
        sorted.sort_unstable_by(f64::total_cmp);
        match sorted.len() {
            0 => 0.0,
            odd if odd % 2 == 1 => sorted[odd / 2],
            even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
        }
    }

    fn mean_absolute(&self) -> f64 {
        self.mean_distance(0.0)
    }

    fn mean_distance(&self, from: f64) -> f64 {
        self.known().iter().map(|value| (value - from).abs()).sum::<f64>() / self.number.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_season_is_what_days_have_in_common_and_what_sticks_out_of_the_hours() {
        let mut levels = vec![14.0_f32; 2 * DAY];
        levels[..DAY / 2].fill(10.0);
        // A job of each hour, which grows from the third hour before to the last one by steps of thirty-one.
        for (hours, height) in [(1, 93.0), (2, 62.0), (3, 31.0)] {
            levels[2 * DAY - hours * 60] += height;
        }
        let mut past = Past::new(TimeZone::UTC);
        past.latest = Minute(2 * DAY as i64 - 1);
        past.sums.push_back(0.0);
        for (at, level) in levels.iter().enumerate() {
            past.sums.push_back(past.sums[at] + f64::from(*level));
        }
        let season = past.season(&levels, 2 * DAY);
        let found = [season.profile, season.spread, season.hour_peak, season.hour_peak_3, season.hour_peak_8, season.hour_roughness];
        for (found, expected) in found.into_iter().zip([12.0, 2.0, 90.0, 60.0, 0.0, 22.5]) {
            assert!((found - expected).abs() < 1e-9, "{found} {expected}: {season:?}");
        }
    }
}
