//! Recorded demand: a CSV file of times and values becomes one value a minute.

use jiff::Timestamp;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the first line of a recording says.
const HEADER: [&str; 2] = ["timestamp", "value"];
/// A recording of more minutes than ten years have is none.
const MOST_MINUTES: usize = 10 * 366 * 24 * 60;
const MINUTE: i64 = 60;
const DAY: i64 = 24 * 60 * MINUTE;
/// The epoch was a Thursday, at midnight.
const MONDAY_TO_EPOCH: i64 = 3 * DAY;

/// Demand over time, in whatever unit it was recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// The first minute.
    pub begin: Timestamp,
    /// One value a minute; `None` where nothing was recorded.
    pub minutes: Vec<Option<f64>>,
}

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file.
    #[error("{} cannot be read: {why}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// What stands in it.
    #[error("{}:{line}:{column}: {problem}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What is wrong there, and what would be right.
        problem: String,
    },
}

impl Trace {
    /// Reads a recording: `timestamp,value`, times in ISO 8601 that grow, values of at least 0.
    ///
    /// A value holds for as long as values are apart as a rule; what is missing then is a gap.
    ///
    /// # Errors
    /// When the file cannot be read, or what stands at one place of it is not what it should be.
    pub fn read(path: &Path) -> Result<Self, TraceError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| TraceError::Unreadable { path: path.to_owned(), why: error.to_string() })?;
        Self::parse(&text, path)
    }

    /// Reads a recording from its text; `path` is its name in errors.
    ///
    /// # Errors
    /// When what stands at one place of it is not what it should be.
    pub fn parse(text: &str, path: &Path) -> Result<Self, TraceError> {
        let malformed = |record: usize, field: usize, problem: String| {
            let (line, column) = place(text, record, field);
            TraceError::Malformed { path: path.to_owned(), line, column, problem }
        };
        let byte = |position: &csv::Position| usize::try_from(position.byte()).unwrap_or(usize::MAX);
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
        let mut samples: Vec<(Timestamp, f64)> = Vec::new();
        let mut begin = 0;
        for (number, record) in reader.records().enumerate() {
            let record = record.map_err(|error| {
                let begin = error.position().map_or(begin, byte);
                malformed(begin, 0, format!("{error}; expected is a line of CSV in UTF-8"))
            })?;
            begin = record.position().map_or(begin, byte);
            let field = |index: usize| record.get(index).unwrap_or_default();
            if number == 0 {
                if record.iter().ne(HEADER) {
                    let found = record.iter().collect::<Vec<_>>().join(",");
                    return Err(malformed(begin, 0, format!("the header is `{found}`; expected is `{}`", HEADER.join(","))));
                }
                continue;
            }
            if record.len() != HEADER.len() {
                return Err(malformed(begin, 0, format!("{} fields; expected are 2, `{}`", record.len(), HEADER.join(","))));
            }
            let at: Timestamp = field(0)
                .parse()
                .map_err(|_| malformed(begin, 0, format!("`{}` is no time; expected is one like 2026-03-02T12:00:00Z", field(0))))?;
            if let Some((before, _)) = samples.last().filter(|(before, _)| at <= *before) {
                return Err(malformed(begin, 0, format!("{at} does not come after {before}; expected are times that grow")));
            }
            let value = field(1).parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0);
            let value =
                value.ok_or_else(|| malformed(begin, 1, format!("`{}` is no demand; expected is a number of at least 0", field(1))))?;
            samples.push((at, value));
            if minute(samples[0].0, at) >= MOST_MINUTES {
                return Err(malformed(
                    begin,
                    0,
                    format!("{at} is more than ten years after the beginning; expected is a shorter recording"),
                ));
            }
        }
        if samples.len() < 2 {
            return Err(malformed(begin, 0, format!("{} values; expected are at least 2", samples.len())));
        }
        Ok(Self::resample(&samples))
    }

    fn resample(samples: &[(Timestamp, f64)]) -> Self {
        let begin = samples[0].0;
        let length = samples.last().map_or(0, |(at, _)| minute(begin, *at)) + 1;
        let mut sums = vec![(0.0, 0.0); length];
        for (at, value) in samples {
            let (sum, number) = &mut sums[minute(begin, *at)];
            *sum += value;
            *number += 1.0;
        }
        let mut apart: Vec<usize> = samples.windows(2).map(|pair| minute(pair[0].0, pair[1].0)).collect();
        apart.sort_unstable();
        let holds = apart[apart.len() / 2].max(1);
        let mut minutes = Vec::with_capacity(length + holds);
        let mut held = (0.0, 0);
        for (sum, number) in sums.into_iter().chain(std::iter::repeat_n((0.0, 0.0), holds - 1)) {
            if number > 0.0 {
                held = (sum / number, holds);
            }
            minutes.push((held.1 > 0).then_some(held.0));
            held.1 = held.1.saturating_sub(1);
        }
        Self { begin, minutes }
    }

    /// Gives the time of the week at which it begins, from Monday, 0:00 UTC.
    #[must_use]
    pub fn phase(&self) -> Duration {
        Duration::from_secs((self.begin.as_second() + MONDAY_TO_EPOCH).rem_euclid(7 * DAY).unsigned_abs())
    }

    /// Gives the value below which this share of all values lies.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let mut values: Vec<f64> = self.minutes.iter().flatten().copied().collect();
        values.sort_unstable_by(f64::total_cmp);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index")]
        let place = (share.clamp(0.0, 1.0) * values.len().saturating_sub(1) as f64).round() as usize;
        values.get(place).copied().unwrap_or(0.0)
    }

    /// Gives the values multiplied by a factor; a gap has the value before it.
    #[must_use]
    pub fn filled(&self, factor: f64) -> Vec<f64> {
        let mut last = 0.0;
        let mut fill = |value: &Option<f64>| {
            last = value.map_or(last, |value| value * factor);
            last
        };
        self.minutes.iter().map(&mut fill).collect()
    }
}

/// Gives the line and the column of a field, both from 1; `record` is where its record begins, blank lines before it
/// included.
fn place(text: &str, record: usize, field: usize) -> (usize, usize) {
    let rest = text.get(record..).unwrap_or_default().trim_start_matches(['\r', '\n']);
    let before = &text[..text.len() - rest.len()];
    let fields = || rest.lines().next().unwrap_or_default().split(',');
    let skipped: usize = fields().take(field).map(|it| it.chars().count() + 1).sum();
    let blanks = fields().nth(field).map_or(0, |it| it.chars().take_while(|letter| letter.is_whitespace()).count());
    (before.matches('\n').count() + 1, skipped + blanks + 1)
}

/// Gives the whole minutes from `begin` to `at`, which is not before it.
fn minute(begin: Timestamp, at: Timestamp) -> usize {
    usize::try_from((at.as_second() - begin.as_second()) / MINUTE).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Trace, String> {
        Trace::parse(text, Path::new("load.csv")).map_err(|error| error.to_string())
    }

    #[test]
    fn values_hold_until_the_next_and_gaps_stay_gaps() {
        let trace =
            parse("timestamp,value\n2026-03-02T00:00:00Z,1\n2026-03-02T00:02:00Z,2.5\n2026-03-02T00:10:00Z,4\n2026-03-02T00:12:00Z,0\n");
        let expected = [1.0, 1.0, 2.5, 2.5, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 4.0, 4.0, 0.0, 0.0];
        let expected = expected.map(|value| (value >= 0.0).then_some(value)).to_vec();
        assert_eq!(trace.as_ref().map(|trace| &trace.minutes), Ok(&expected));
        assert_eq!(trace.map(|trace| trace.filled(2.0)[5]), Ok(5.0));
    }

    #[test]
    fn samples_within_a_minute_are_averaged() {
        let trace = parse("timestamp,value\n2026-03-02T00:00:00Z,1\n2026-03-02T00:00:30Z,3\n2026-03-02T00:01:00Z,5\n");
        assert_eq!(trace.map(|trace| trace.minutes), Ok(vec![Some(2.0), Some(5.0)]));
    }

    #[test]
    fn an_error_names_the_place_and_what_is_expected() {
        let wrong = [
            ("time,load\n", "load.csv:1:1: the header is `time,load`; expected is `timestamp,value`"),
            ("timestamp,value\n", "load.csv:1:1: 0 values; expected are at least 2"),
            ("timestamp,value\nnoon,1\n", "load.csv:2:1: `noon` is no time; expected is one like 2026-03-02T12:00:00Z"),
            ("timestamp,value\n2026-03-02T00:00:00Z,-1\n", "load.csv:2:22: `-1` is no demand; expected is a number of at least 0"),
            ("timestamp,value\n2026-03-02T00:00:00Z,NaN\n", "load.csv:2:22: `NaN` is no demand; expected is a number of at least 0"),
            ("timestamp,value\n2026-03-02T00:00:00Z,  -1\n", "load.csv:2:24: `-1` is no demand; expected is a number of at least 0"),
            ("timestamp,value\r\n\r\n  2026-03-02T00:00:00Z ,x\r\n", "load.csv:3:25: `x` is no demand; expected is a number of at least 0"),
            ("timestamp,value\n\n noon,1\n", "load.csv:3:2: `noon` is no time; expected is one like 2026-03-02T12:00:00Z"),
            ("timestamp,value\n2026-03-02T00:00:00Z,1,2\n", "load.csv:2:1: 3 fields; expected are 2, `timestamp,value`"),
            (
                "timestamp,value\n2026-03-02T00:01:00Z,1\n2026-03-02T00:00:00Z,1\n",
                "load.csv:3:1: 2026-03-02T00:00:00Z does not come after 2026-03-02T00:01:00Z; expected are times that grow",
            ),
        ];
        for (text, expected) in wrong {
            assert_eq!(parse(text), Err(expected.to_owned()));
        }
        let missing = Trace::read(Path::new("/nowhere/load.csv")).expect_err("there is none").to_string();
        assert!(missing.starts_with("/nowhere/load.csv cannot be read: "), "{missing}");
    }

    #[test]
    fn a_recording_begins_at_its_time_of_the_week() {
        let phase = |begin: &str| Trace { begin: begin.parse().expect("a time"), minutes: Vec::new() }.phase();
        assert_eq!(phase("2026-03-02T00:00:00Z"), Duration::ZERO);
        assert_eq!(phase("2026-03-07T14:30:05Z"), Duration::from_secs((5 * 24 + 14) * 3600 + 30 * 60 + 5));
        assert_eq!(phase("1970-01-01T01:00:00Z"), Duration::from_hours(3 * 24 + 1));
        assert_eq!(phase("1969-12-28T23:00:00Z"), Duration::from_hours(6 * 24 + 23));
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let trace = Trace { begin: Timestamp::UNIX_EPOCH, minutes: vec![Some(3.0), None, Some(1.0), Some(2.0)] };
        assert_eq!([0.0, 0.5, 1.0].map(|share| trace.quantile(share).to_string()), ["1", "2", "3"]);
    }
}
