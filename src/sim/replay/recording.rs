//! A demand that was recorded: read from a file, made whole where that is safe, refused where it is not.

use super::parquet_rows::{MAGIC, ParquetRows};
use super::pods;
use super::rows::Rows;
use crate::policy::forecast::Minute;
use jiff::Timestamp;
use std::fs::File;
use std::io::{BufReader, Read, Seek};

/// The header that a file must have.
const HEADER: [&str; 2] = ["timestamp", "value"];
/// A day that lies above the others so many times, or as far below them, is of another unit: a core has 1000 millicores.
const OTHER_UNIT: f64 = 100.0;
/// So many days in a row may be as quiet as that: a weekend.
const QUIET_DAYS: usize = 2;
/// More than ten years of minutes are refused: a time that was misread would fill the memory.
pub(super) const LONGEST: i64 = 10 * 366 * 1440;
/// More rows than these are refused: they are kept until all are read, forty bytes for each. Ten years of minutes are fewer.
pub(super) const MOST_ROWS: usize = 6_000_000;
/// A value so many times the median is of another unit, not of a burst.
const ABSURD: f64 = 1e6;

/// Larger values are refused: so many of them as a minute has can still be added up in single precision.
pub(super) const LARGEST: f64 = 1e30;

/// A demand, one value a minute, in whatever unit it was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// The minute of the first value.
    pub start: Minute,
    /// What was measured; `None` in a gap.
    pub values: Vec<Option<f32>>,
    /// What was found and put right.
    pub repairs: Repairs,
}

/// What was found in a file, and what was done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Repairs {
    /// Seconds between two rows, as most rows have it, at least one. A value stands until the next row; several in a minute are averaged.
    pub period_seconds: i64,
    /// Stretches without rows. In them policies see the last value, and nothing is counted.
    pub gaps: usize,
    /// Minutes in those stretches.
    pub missing_minutes: usize,
}

/// Why a file is no recording.
#[derive(Debug, thiserror::Error)]
#[error("{file}, {place}: {problem}")]
pub struct RecordingError {
    /// The file, or what the samples are of.
    pub file: String,
    /// The line or the row, from 1, or the sample's time.
    pub place: String,
    /// What is wrong there, and what would be right.
    pub problem: String,
}

/// A line, and what is wrong there and would be right.
pub(super) type Wrong = (u64, String);

/// What is known of a node, to count pods in nodes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PodsAsNodes {
    /// A node's cores over its memory, in the file's unit; `None` where memory does not count.
    pub cores_per_memory: Option<f64>,
    /// Why nobody knows how many cores a node has, and what would tell; `None` where it is known.
    pub no_cores: Option<String>,
}

/// A row with the line it stands in.
struct Row {
    line: u64,
    at: Timestamp,
    value: f64,
}

/// Gives the minute in which a millisecond since 1970 lies.
fn minute_of(milli: i64) -> i64 {
    Minute::of_second(milli.div_euclid(1000)).0
}

impl Recording {
    /// Reads rows of time and demand under the header `timestamp,value`; times are ISO 8601 with a zone or `Z`.
    ///
    /// # Errors
    /// When the header, a time or a value is not what it should be, time does not run forward, or there are no two rows.
    pub fn read(file: &str, source: impl Read) -> Result<Self, RecordingError> {
        Self::read_sized(file, source, &PodsAsNodes::default())
    }

    /// Reads rows of time and demand, as [`Self::read`] does, or of pods: under the header `start,end,cpu`, in the order of
    /// their starts, with times likewise and cores; their sum is the demand. Under `start,end,cpu,memory` it is what a node's
    /// cores would be that has room for both.
    ///
    /// # Errors
    /// As [`Self::read`]; also when a pod ends before it starts, pods are out of order, none runs for a week, nobody knows
    /// a node's cores, or only one of `cores_per_memory` and the column for memory is there.
    pub fn read_sized(file: &str, source: impl Read, node: &PodsAsNodes) -> Result<Self, RecordingError> {
        Self::read_rows(file, &mut csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(source), node)
    }

    /// Reads a file of such rows, CSV or Parquet, as its first bytes tell. In Parquet, times are timestamps in UTC, or text as
    /// in CSV.
    ///
    /// # Errors
    /// As [`Self::read_sized`]; also when the file cannot be read.
    pub fn read_file(name: &str, mut source: File, node: &PodsAsNodes) -> anyhow::Result<Self> {
        let mut magic = Vec::new();
        source.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic)?;
        source.rewind()?;
        if magic != MAGIC {
            return Ok(Self::read_sized(name, BufReader::new(source), node)?);
        }
        let mut rows = ParquetRows::open(source, MOST_ROWS).map_err(|wrong| at::<ParquetRows>(name, wrong))?;
        Ok(Self::read_rows(name, &mut rows, node)?)
    }

    pub(super) fn read_rows<R: Rows>(file: &str, rows: &mut R, node: &PodsAsNodes) -> Result<Self, RecordingError> {
        let wrong = |wrong| at::<R>(file, wrong);
        match (layout(rows, node.cores_per_memory.is_some()).map_err(wrong)?, &node.no_cores) {
            (Layout::Demand, _) => Self::assembled(&demand(rows, MOST_ROWS).map_err(wrong)?).map_err(wrong),
            (Layout::Pods, None) => pods::read(rows, node.cores_per_memory, MOST_ROWS).map_err(wrong),
            (Layout::Pods, Some(why)) => Err(wrong((1, format!("these are pods, which request cores: {why}")))),
        }
    }

    /// Makes one of samples in the order of their time.
    ///
    /// # Errors
    /// When there are no two of them, one is negative, one is of another unit, or all are zero: with the sample's time.
    pub fn of_samples(name: &str, samples: &[(Timestamp, f64)]) -> Result<Self, RecordingError> {
        let wrong = |place: String, problem: String| RecordingError { file: name.to_owned(), place, problem };
        if samples.len() < 2 {
            return Err(wrong("in all".to_owned(), format!("{} samples; expected two or more, one a minute", samples.len())));
        }
        let rows = samples.iter().zip(0..).map(|((at, value), line)| Row { line, at: *at, value: *value }).collect();
        let made = of_demand(rows, 0).and_then(|rows| Self::assembled(&rows));
        // Samples are counted as lines are.
        let at = |line: u64| usize::try_from(line).ok().and_then(|line| samples.get(line)).map_or(Timestamp::UNIX_EPOCH, |(at, _)| *at);
        made.map_err(|(line, problem)| wrong(format!("the sample of {}", at(line)), problem))
    }

    fn assembled(rows: &[Row]) -> Result<Self, Wrong> {
        let period = period(rows);
        let (first, last) = (&rows[0], &rows[rows.len() - 1]);
        let (begin, latest) = (first.at.as_millisecond(), last.at.as_millisecond());
        let (start, end) = (minute_of(begin), minute_of(latest + period - 1));
        if end - start >= LONGEST {
            let years = |minutes: i64| minutes as f64 / (365.25 * 1440.0);
            let (apart, stands) = (minute_of(latest) - start, years(end - start));
            let problem = if apart >= LONGEST {
                format!("{:.1} years after the first row; expected at most ten", years(apart))
            } else {
                let days = period / 86_400_000;
                format!(
                    "the rows are {days} days apart, so that this one stands until {stands:.1} years after the first; expected at most ten"
                )
            };
            return Err((last.line, problem));
        }
        let period_seconds = ((period + 500) / 1000).max(1);
        let mut repairs = Repairs { period_seconds, ..Repairs::default() };
        let length = usize::try_from(end - start + 1).unwrap_or(0);
        let (mut sums, mut numbers) = (vec![0.0_f64; length], vec![0_u32; length]);
        for (at, row) in rows.iter().enumerate() {
            let milli = row.at.as_millisecond();
            let next = rows.get(at + 1).map_or(milli + period, |next| next.at.as_millisecond());
            // Half a period of grace: scrapes come late now and then.
            let stands_until = if 2 * (next - milli) > 3 * period { milli + period } else { next };
            repairs.gaps += usize::from(stands_until < next);
            let begin = minute_of(milli) - start;
            let end = (minute_of(stands_until - 1) - start).max(begin);
            for minute in begin..=end {
                let minute = usize::try_from(minute).unwrap_or(0);
                // A minute belongs to the rows that begin in it, and to the one before only if there are none.
                if minute as i64 == begin || numbers[minute] == 0 {
                    sums[minute] += row.value;
                    numbers[minute] += 1;
                }
            }
        }
        #[expect(clippy::cast_possible_truncation, reason = "demand is measured to fewer digits than single precision has")]
        let mean = |(sum, number): (&f64, &u32)| (*number > 0).then(|| (sum / f64::from(*number)) as f32);
        let values: Vec<Option<f32>> = sums.iter().zip(&numbers).map(mean).collect();
        repairs.missing_minutes = values.iter().filter(|value| value.is_none()).count();
        if !values.iter().flatten().any(|value| *value > 0.0) {
            let is_zero = rows.iter().all(|row| row.value <= 0.0);
            let problem = if is_zero {
                "the demand is zero from beginning to end; expected some that is not"
            } else {
                "the demand is too small for single precision from beginning to end; expected values of 1e-37 or more, in another unit"
            };
            return Err((last.line, problem.into()));
        }
        Ok(Self { start: Minute(start), values, repairs })
    }

    /// Makes one of values without gaps.
    #[must_use]
    pub fn whole(start: Minute, values: &[f32]) -> Self {
        let repairs = Repairs { period_seconds: 60, ..Repairs::default() };
        Self { start, values: values.iter().copied().map(Some).collect(), repairs }
    }

    /// Gives the demand in nodes, scaled so that `nodes` suffice in 999 of 1000 minutes. None at all stays none.
    #[must_use]
    pub fn scaled(&self, nodes: f64) -> Self {
        self.scaled_by(self.values.len(), nodes)
    }

    /// Gives the demand in nodes, scaled so that `nodes` suffice in 99.9 % of its first minutes, `first` of them; the
    /// rest is scaled likewise and has no say.
    #[must_use]
    pub fn scaled_by(&self, first: usize, nodes: f64) -> Self {
        let mut known: Vec<f32> = self.values.iter().take(first).flatten().copied().collect();
        if known.is_empty() {
            return self.clone();
        }
        let at = (known.len() * 999 / 1000).min(known.len() - 1);
        let high = *known.select_nth_unstable_by(at, f32::total_cmp).1;
        // A demand that is zero all but a thousandth of the time is scaled by its peak.
        let high = if high > 0.0 { high } else { known.iter().copied().fold(f32::MIN_POSITIVE, f32::max) };
        self.divided(f64::from(high) / nodes)
    }

    /// Gives the demand in nodes that serve so much of it each.
    #[must_use]
    pub fn divided(&self, node_size: f64) -> Self {
        // A single quotient in double precision: 28.7 over 0.7 is 41, and not a little more.
        #[expect(clippy::cast_possible_truncation, reason = "demand is measured to fewer digits than single precision has")]
        let values = self.values.iter().map(|value| value.map(|value| (f64::from(value) / node_size) as f32)).collect();
        Self { values, ..self.clone() }
    }

    /// Gives its first minutes.
    #[must_use]
    pub fn first(&self, minutes: usize) -> Self {
        Self { values: self.values.iter().take(minutes).copied().collect(), ..self.clone() }
    }

    /// Gives what policies see: in a gap, the last value.
    #[must_use]
    pub fn carried(&self) -> Vec<f32> {
        let mut last = self.values.iter().flatten().next().copied().unwrap_or(0.0);
        let carry = |value: &Option<f32>| {
            last = value.unwrap_or(last);
            last
        };
        self.values.iter().map(carry).collect()
    }
}

/// Names the file and its place.
fn at<R: Rows>(file: &str, (line, problem): Wrong) -> RecordingError {
    RecordingError { file: file.to_owned(), place: format!("{} {line}", R::PLACE), problem }
}

/// What the rows of a file are.
enum Layout {
    Demand,
    Pods,
}

/// Tells by the header what the rows are; `sized` where memory is to count.
fn layout<R: Rows>(rows: &mut R, sized: bool) -> Result<Layout, Wrong> {
    let header = rows.header()?;
    let is = |expected: &[&str]| header.iter().eq(expected.iter());
    let [cpu, memory] = pods::HEADERS.map(is);
    let found = header.join(",");
    match () {
        () if memory && !sized => Err((1, "the pods have memory; expected a node's memory (--node-memory), or no such column".into())),
        () if memory || (cpu && !sized) => Ok(Layout::Pods),
        () if sized => Err((1, format!("the header is `{found}`; expected `start,end,cpu,memory`, since a node's memory is given"))),
        () if is(&HEADER) => Ok(Layout::Demand),
        () => {
            let found = if found.is_empty() { "the file is empty".to_owned() } else { format!("the header is `{found}`") };
            Err((1, format!("{found}; expected `timestamp,value`, or for pods `start,end,cpu` or `start,end,cpu,memory`")))
        }
    }
}

fn demand<R: Rows>(source: &mut R, most: usize) -> Result<Vec<Row>, Wrong> {
    let mut rows: Vec<Row> = Vec::new();
    let mut record = csv::StringRecord::new();
    while let Some(line) = source.next(&mut record)? {
        bounded(rows.len(), most, line, "values")?;
        let row = parse(&record, line).map_err(|problem| (line, problem))?;
        if let Some(last) = rows.last()
            && row.at <= last.at
        {
            let (what, place) = (if row.at == last.at { "the same time as" } else { "earlier than" }, R::PLACE);
            let problem = format!("the time `{}` is {what} that of {place} {}; expected times that run forward", &record[0], last.line);
            return Err((line, problem));
        }
        rows.push(row);
    }
    of_demand(rows, source.reached())
}

/// Refuses a row for which there is no room.
pub(super) fn bounded(rows: usize, most: usize, line: u64, what: &str) -> Result<(), Wrong> {
    if rows < most {
        return Ok(());
    }
    Err((line, format!("more than {most} {what}; expected at most so many, of a shorter time or thinned out")))
}

/// Looks whether there are enough rows, and whether all are demand in the same unit.
fn of_demand(rows: Vec<Row>, end: u64) -> Result<Vec<Row>, Wrong> {
    if rows.len() < 2 {
        return Err((end, format!("{} rows of demand; expected two or more", rows.len())));
    }
    if let Some(row) = rows.iter().find(|row| row.value < 0.0) {
        return Err((row.line, format!("the value {} is negative; expected a demand from 0 up", row.value)));
    }
    if let Some(row) = rows.iter().find(|row| row.value > LARGEST) {
        return Err((row.line, too_large(row.value)));
    }
    in_one_unit(rows.iter().map(|row| Dated { line: row.line, second: row.at.as_second(), value: row.value }), "value")?;
    Ok(rows)
}

/// A value with its line and its time, in seconds since 1970.
#[derive(Clone, Copy)]
pub(super) struct Dated {
    pub line: u64,
    pub second: i64,
    pub value: f64,
}

/// Looks whether all values, given in the order of their time, may be of the same unit.
pub(super) fn in_one_unit(values: impl Iterator<Item = Dated>, what: &str) -> Result<(), Wrong> {
    let positive: Vec<Dated> = values.filter(|it| it.value > 0.0).collect();
    if positive.is_empty() {
        return Ok(());
    }
    let median = median(&mut positive.iter().map(|it| it.value).collect::<Vec<_>>());
    if let Some(Dated { line, value, .. }) = positive.iter().find(|it| it.value > ABSURD * median) {
        return Err((*line, format!("the {what} {value} is a million times the median, {median}; expected all values in one unit")));
    }
    let days: Vec<&[Dated]> = positive.chunk_by(|one, other| day(one) == day(other)).collect();
    match turning_point(&days) {
        Some((Dated { line, .. }, there, elsewhere)) => Err((
            line,
            format!("from here on the {what} is about {there}, and about {elsewhere} on other days; expected all values in one unit"),
        )),
        None => Ok(()),
    }
}

fn day(of: &Dated) -> i64 {
    of.second.div_euclid(86_400)
}

/// Gives the lower median of some values.
fn median(values: &mut [f64]) -> f64 {
    let middle = (values.len() - 1) / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// Finds where days begin that are of another unit than most, with the median of the first of them and the usual one.
///
/// In another unit all of a day is larger or smaller, its peak as well: a burst leaves the median as it is, and a quiet day
/// with a job the peak.
fn turning_point(days: &[&[Dated]]) -> Option<(Dated, f64, f64)> {
    let values = |day: &[Dated]| day.iter().map(|it| it.value).collect::<Vec<_>>();
    let of_day = |day: &&[Dated]| (median(&mut values(day)), values(day).into_iter().fold(0.0, f64::max));
    let levels: Vec<(f64, f64)> = days.iter().map(of_day).collect();
    let usual = median(&mut levels.iter().map(|(median, _)| *median).collect::<Vec<_>>());
    let usual_peak = median(&mut levels.iter().map(|(_, peak)| *peak).collect::<Vec<_>>());
    let is_loud = |(median, peak): &(f64, f64)| *median >= OTHER_UNIT * usual && *peak >= OTHER_UNIT * usual_peak;
    let is_quiet = |(median, peak): &(f64, f64)| *median <= usual / OTHER_UNIT && *peak <= usual_peak / OTHER_UNIT;
    let is_more_than_a_weekend = |days: &[(f64, f64)]| days.iter().all(is_quiet) && days.len() > QUIET_DAYS;
    let loud = levels.iter().position(is_loud);
    let first = loud.or_else(|| levels.windows(QUIET_DAYS + 1).position(is_more_than_a_weekend))?;
    let there = levels[first].0;
    // The unit may have changed within the day before, which for the most part was still of the other.
    let between = (there * usual).sqrt();
    let is_there = |it: &&Dated| if there > usual { it.value > between } else { it.value < between };
    let begin = days[first.saturating_sub(1)..=first].iter().copied().flatten().find(is_there);
    Some((*begin.unwrap_or(&days[first][0]), there, usual))
}

/// Reads a time.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| format!("`{text}` is no time; expected one like `2026-01-31T13:45:00Z`"))
}

/// Reads a number that is finite, and no larger than can be added up.
pub(super) fn number(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    let number = number.ok_or_else(|| format!("`{text}` is no number; expected one from 0 up"))?;
    if number > LARGEST { Err(too_large(number)) } else { Ok(number) }
}

fn too_large(value: f64) -> String {
    format!("the value {value:e} is too large; expected at most {LARGEST:e}")
}

fn parse(record: &csv::StringRecord, line: u64) -> Result<Row, String> {
    if record.len() != 2 {
        return Err(format!("{} fields; expected two, a time and a value", record.len()));
    }
    Ok(Row { line, at: time(&record[0])?, value: number(&record[1])? })
}

/// Gives the milliseconds between rows, as their median has it.
fn period(rows: &[Row]) -> i64 {
    let mut steps: Vec<i64> = rows.windows(2).map(|pair| pair[1].at.as_millisecond() - pair[0].at.as_millisecond()).collect();
    let middle = (steps.len() - 1) / 2;
    (*steps.select_nth_unstable(middle).1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Recording, String> {
        Recording::read("demand.csv", text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_what_would_be_right() {
        let long = (0..9).fold("timestamp,value\n".to_owned(), |text, minute| text + &format!("2026-01-01T00:0{minute}:00Z,1\n"));
        let long = long + "2026-01-01T02:00:00Z,1e9\n";
        for (text, line, words) in [
            ("", 1, &["empty", "`timestamp,value`"][..]),
            ("time,cpu\n2026-01-01T00:00:00Z,1\n", 1, &["`time,cpu`", "`timestamp,value`"]),
            ("timestamp,value\n", 2, &["0 rows", "two or more"]),
            ("timestamp,value\n2026-01-01T00:00:00Z,1\n", 3, &["1 rows", "two or more"]),
            ("timestamp,value\n2026-01-01T00:01:00Z,1\n2026-01-01T00:00:00Z,1\n", 3, &["earlier than", "line 2", "forward"]),
            ("timestamp,value\n2026-01-01T00:01:00Z,1\n2026-01-01T00:01:00Z,2\n", 3, &["the same time", "line 2"]),
            ("timestamp,value\n2026-01-01T00:00:00Z,1\n2026-01-01T00:01:00Z,-3\n", 3, &["-3", "negative", "from 0 up"]),
            ("timestamp,value\n2026-01-01T00:00:00Z,NaN\n2026-01-01T00:01:00Z,1\n", 2, &["`NaN`", "no number"]),
            ("timestamp,value\n2026-01-01T00:00:00Z,4Gi\n2026-01-01T00:01:00Z,1\n", 2, &["`4Gi`", "no number"]),
            ("timestamp,value\nyesterday,1\n2026-01-01T00:01:00Z,1\n", 2, &["`yesterday`", "2026-01-31T13:45:00Z"]),
            ("timestamp,value\n2026-01-01T00:00:00Z,1,2\n2026-01-01T00:01:00Z,1\n", 2, &["3 fields"]),
            ("timestamp,value\n2026-01-01T00:00:00Z,0\n2026-01-01T00:01:00Z,0\n", 3, &["zero from beginning to end"]),
            (
                "timestamp,value\n1990-01-01T00:00:00Z,1\n1990-01-01T00:01:00Z,1\n2026-01-01T00:00:00Z,1\n",
                4,
                &["36.0 years", "at most ten"],
            ),
            ("timestamp,value\n2026-01-01T00:00:00Z,1\n2026-01-01T00:01:00Z,1e39\n", 3, &["1e39", "too large", "at most 1e30"]),
            ("timestamp,value\n2026-01-01T00:00:00Z,1e-60\n2026-01-01T00:01:00Z,1e-60\n", 3, &["too small", "1e-37 or more"]),
            ("timestamp,value\n2000-01-01T00:00:00Z,1\n2009-12-30T00:00:00Z,1\n", 3, &["3651 days apart", "20.0 years", "at most ten"]),
            (long.as_str(), 11, &["median", "one unit"]),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.starts_with(&format!("demand.csv, line {line}: ")), "{text}: {error}");
            assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
        }
    }

    /// Half-hourly values of so many days, those from row `from` to before row `to` multiplied.
    fn days(number: i64, from: i64, to: i64, factor: f64) -> String {
        let row = |at: i64| {
            let time = Timestamp::from_second(1_767_571_200 + 1800 * at).expect("a time");
            let value = f64::from(u8::try_from(2 + at % 7).expect("a digit")) * if (from..to).contains(&at) { factor } else { 1.0 };
            format!("{time},{value}\n")
        };
        (0..48 * number).fold("timestamp,value\n".to_owned(), |text, at| text + &row(at))
    }

    #[test]
    fn a_change_of_unit_is_refused_where_it_begins() {
        // From the twenty-first day at noon to the end, for four days, and from the beginning.
        for (from, to, factor) in [(984, 9999, 1000.0), (480, 672, 1000.0), (480, 672, 0.001), (0, 480, 0.001), (0, 480, 128.0)] {
            let error = read(&days(28, from, to, factor)).expect_err("it is of two units");
            assert!(error.starts_with(&format!("demand.csv, line {}: from here on the value is about ", from + 2)), "{error}");
            assert!(error.contains(", and about 5 on other days") && error.contains("one unit"), "{error}");
        }
        let error = read(&days(2, 48, 96, 1000.0)).expect_err("a day of each");
        assert!(error.starts_with("demand.csv, line 50: from here on the value is about 5000, and about 5 on"), "{error}");
    }

    #[test]
    fn bursts_quiet_weekends_and_growth_are_of_one_unit() {
        for text in [days(28, 480, 490, 1000.0), days(28, 480, 576, 0.001), days(28, 480, 9999, 50.0)] {
            assert!(read(&text).is_ok());
        }
    }

    #[test]
    fn gaps_are_counted_and_stay_gaps() {
        let text = "timestamp,value\n2026-01-01T00:00:00Z,1\n2026-01-01T00:01:00Z,2\n2026-01-01T00:02:00Z,3\n2026-01-01T00:06:00Z,4\n";
        let recording = read(text).expect("it can be read");
        assert_eq!(recording.values, [Some(1.0), Some(2.0), Some(3.0), None, None, None, Some(4.0)]);
        assert_eq!(recording.repairs, Repairs { period_seconds: 60, gaps: 1, missing_minutes: 3 });
        assert_eq!(recording.carried(), [1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 4.0]);
    }

    #[test]
    fn what_is_wrong_with_samples_is_named_with_their_time() {
        let minute = |minute: i64, value: f64| (Timestamp::from_second(1_767_571_200 + 60 * minute).expect("a time"), value);
        let error = |samples: &[(Timestamp, f64)]| Recording::of_samples("the past", samples).expect_err("it is wrong").to_string();
        let negative = error(&[minute(0, 1.0), minute(1, -2.0), minute(2, 1.0)]);
        assert!(negative.starts_with("the past, the sample of 2026-01-05T00:01:00Z: the value -2 is negative"), "{negative}");
        let zero = error(&[minute(0, 0.0), minute(1, 0.0)]);
        assert!(zero.starts_with("the past, the sample of 2026-01-05T00:01:00Z: the demand is zero"), "{zero}");
        assert_eq!(error(&[minute(0, 1.0)]), "the past, in all: 1 samples; expected two or more, one a minute");
        let mut unit: Vec<(Timestamp, f64)> = (0..5 * 1440).map(|at| minute(at, 2.0)).collect();
        unit[4 * 1440..].iter_mut().for_each(|(_, value)| *value = 2000.0);
        assert!(error(&unit).starts_with("the past, the sample of 2026-01-09T00:00:00Z: from here on"), "{}", error(&unit));
    }

    #[test]
    fn a_value_stands_until_the_next_and_several_in_a_minute_are_averaged() {
        let slow = read("timestamp,value\n2026-01-01T00:00:00Z,1\n2026-01-01T00:05:00+00:00,2\n").expect("it can be read");
        assert_eq!(slow.values, [[Some(1.0); 5], [Some(2.0); 5]].concat());
        let fast = "timestamp,value\n2026-01-01T00:00:00Z,1\n2026-01-01T00:00:30Z,3\n2026-01-01T00:01:00Z,5\n2026-01-01T00:01:30Z,7\n";
        assert_eq!(read(fast).expect("it can be read").values, [Some(2.0), Some(6.0)]);
        let faster =
            "timestamp,value\n2026-01-01T00:00:59Z,1\n2026-01-01T00:00:59.5Z,3\n2026-01-01T00:01:00Z,5\n2026-01-01T00:01:00.500Z,7\n";
        let faster = read(faster).expect("halves of a second are not the same time");
        assert_eq!((faster.values, faster.repairs.gaps), (vec![Some(2.0), Some(6.0)], 0));
        // A scrape that comes late is no gap.
        let late = "timestamp,value\n2026-01-01T00:00:00Z,1\n2026-01-01T00:01:00Z,2\n2026-01-01T00:02:20Z,3\n2026-01-01T00:03:00Z,4\n";
        let late = read(late).expect("it can be read");
        assert_eq!((late.values.len(), late.repairs.gaps), (4, 0));
    }

    #[test]
    fn scaling_makes_so_many_nodes_enough_in_999_of_1000_minutes() {
        let values: Vec<f32> = (0_u16..1000).map(f32::from).collect();
        let scaled = Recording::whole(Minute(0), &values).scaled(20.0);
        assert_eq!(scaled.values[999], Some(20.0));
        assert_eq!(scaled.values[0], Some(0.0));
    }
}
