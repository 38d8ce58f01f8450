//! How the answers of the HTTP API are read: strictly, and without trust in any of it.

use super::super::quoted;
use super::Failure;
use jiff::Timestamp;
use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// A longer text is no number of Prometheus'.
const LONGEST_NUMBER: usize = 64;
/// An answer with more series is not about the nodes of a fleet.
const MOST_SERIES: usize = 10_000;

/// What a query gave.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// One value, of nothing in particular.
    Scalar(Sample),
    /// A value each of some series.
    Vector(Vec<Sample>),
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub labels: BTreeMap<String, String>,
    /// As a number; may be NaN or infinite.
    pub value: f64,
    /// As Prometheus wrote it.
    pub text: String,
    /// When the query was evaluated, in seconds since 1970.
    pub evaluated: f64,
}

#[derive(Deserialize)]
struct Envelope<T> {
    status: String,
    data: Option<T>,
    #[serde(rename = "errorType")]
    error_type: Option<String>,
    error: Option<String>,
    warnings: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Scalar((f64, String)),
    Vector(#[serde(deserialize_with = "at_most::<_, _, MOST_SERIES>")] Vec<Series>),
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Range {
    Matrix(#[serde(deserialize_with = "at_most::<_, _, 1>")] Vec<Course>),
}

/// The values of one series over a time.
#[derive(Deserialize)]
struct Course {
    values: Vec<(f64, String)>,
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

/// Reads a list, up to the most entries that are believed.
fn at_most<'de, T: Deserialize<'de>, D: Deserializer<'de>, const MOST: usize>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct AtMost<T, const MOST: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for AtMost<T, MOST> {
        type Value = Vec<T>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list of series")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut read = Vec::new();
            while let Some(entry) = list.next_element()? {
                if read.len() == MOST {
                    return Err(A::Error::custom(format_args!("it has more than {MOST} series")));
                }
                read.push(entry);
            }
            Ok(read)
        }
    }

    deserializer.deserialize_seq(AtMost::<T, MOST>(PhantomData))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeInfo {
    start_time: String,
}

/// Reads the answer to a query.
pub(super) fn parse(body: &[u8]) -> Result<Answer, Failure> {
    match data(body)? {
        Data::Scalar(value) => Ok(Answer::Scalar(sample(BTreeMap::new(), value)?)),
        Data::Vector(series) => {
            let samples = series.into_iter().map(|one| sample(one.metric, one.value)).collect::<Result<_, _>>()?;
            Ok(Answer::Vector(samples))
        }
    }
}

/// Reads the answer to a query over a time, which must give one series or none. What is no finite number is left out.
pub(super) fn course(body: &[u8]) -> Result<Vec<(Timestamp, f64)>, Failure> {
    let Range::Matrix(mut series) = data(body)?;
    let values = series.pop().map(|one| one.values).unwrap_or_default();
    let mut read = Vec::with_capacity(values.len());
    for (at, text) in values {
        let value = sample(BTreeMap::new(), (at, text))?.value;
        let at = timestamp(at).ok_or_else(|| Failure::Nonsense(format!("the time {at}")))?;
        if value.is_finite() {
            read.push((at, value));
        }
    }
    Ok(read)
}

/// Reads what an answer consists of; the API's own errors are failures.
fn data<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    let nonsense = |error: serde_json::Error| Failure::Nonsense(quoted(&format!("an answer that cannot be read: {error}")));
    let envelope: Envelope<T> = serde_json::from_slice(body).map_err(nonsense)?;
    if envelope.status != "success" {
        let kind = envelope.error_type.unwrap_or_else(|| "no type".to_owned());
        let why = quoted(&format!("{kind}: {}", envelope.error.unwrap_or_default()));
        return Err(if kind == "bad_data" { Failure::Refused(why) } else { Failure::Unreachable(why) });
    }
    // A part of the data is missing; which part it does not say.
    if let Some(warning) = envelope.warnings.iter().flatten().next() {
        return Err(Failure::Nonsense(quoted(&format!("an answer with a warning: {warning}"))));
    }
    envelope.data.ok_or_else(|| Failure::Nonsense("a success without data".to_owned()))
}

fn sample(labels: BTreeMap<String, String>, (evaluated, text): (f64, String)) -> Result<Sample, Failure> {
    let value = if text.len() <= LONGEST_NUMBER { text.parse().ok() } else { None };
    let value = value.ok_or_else(|| Failure::Nonsense(quoted(&format!("`{text}` where a number belongs"))))?;
    Ok(Sample { labels, value, text, evaluated })
}

/// Tells whether the body is an error of the API, and not a page of something in between.
pub(super) fn is_api_error(body: &[u8]) -> bool {
    serde_json::from_slice::<Envelope<IgnoredAny>>(body).is_ok_and(|envelope| envelope.status == "error")
}

/// Reads since when Prometheus runs.
pub(super) fn start(body: &[u8]) -> Option<Timestamp> {
    let envelope: Envelope<RuntimeInfo> = serde_json::from_slice(body).ok()?;
    envelope.data.filter(|_| envelope.status == "success")?.start_time.parse().ok()
}

/// Turns seconds since 1970 into a time, to the millisecond as Prometheus keeps it.
#[expect(clippy::cast_possible_truncation, reason = "a time that is out of range is none for jiff either")]
pub(super) fn timestamp(seconds: f64) -> Option<Timestamp> {
    if seconds.is_finite() { Timestamp::from_millisecond((seconds * 1000.0).round() as i64).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn vectors_and_scalars_are_read_with_infos_ignored() {
        let vector =
            br#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"node":"a"},"value":[1700000000.5,"0.25"]}]},
            "warnings":[],"infos":["i"]}"#;
        let Ok(Answer::Vector(samples)) = parse(vector) else { panic!("a vector") };
        assert_eq!((samples[0].value, samples[0].labels["node"].as_str()), (0.25, "a"));
        let scalar = br#"{"status":"success","data":{"resultType":"scalar","result":[1,"NaN"]}}"#;
        assert!(matches!(parse(scalar), Ok(Answer::Scalar(sample)) if sample.value.is_nan()));
    }

    #[test]
    fn an_answer_with_a_warning_may_be_a_part_and_counts_as_none() {
        let partial = br#"{"status":"success","data":{"resultType":"vector","result":[]},"warnings":["one store is down"]}"#;
        let Err(Failure::Nonsense(why)) = parse(partial) else { panic!("partial") };
        assert!(why.contains("one store is down"), "{why}");
    }

    #[test]
    fn an_answer_with_too_many_series_is_refused() {
        let of = |number| {
            let series = vec![r#"{"metric":{},"value":[1,"1"]}"#; number].join(",");
            parse(format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{series}]}}}}"#).as_bytes())
        };
        assert!(matches!(of(MOST_SERIES), Ok(Answer::Vector(samples)) if samples.len() == MOST_SERIES));
        assert!(matches!(of(MOST_SERIES + 1), Err(Failure::Nonsense(why)) if why.contains("10000 series")));
    }

    #[test]
    fn what_is_no_answer_is_an_error_of_the_right_kind() {
        type Row = (&'static [u8], fn(&Failure) -> bool);
        let rows: [Row; 7] = [
            (b"", |it| matches!(it, Failure::Nonsense(_))),
            (b"<html>", |it| matches!(it, Failure::Nonsense(_))),
            (br#"{"status":"success"}"#, |it| matches!(it, Failure::Nonsense(_))),
            (br#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#, |it| matches!(it, Failure::Nonsense(_))),
            (br#"{"status":"success","data":{"resultType":"scalar","result":[1,"many"]}}"#, |it| matches!(it, Failure::Nonsense(_))),
            (br#"{"status":"error","errorType":"bad_data","error":"parse error"}"#, |it| matches!(it, Failure::Refused(_))),
            (br#"{"status":"error","errorType":"timeout","error":"late"}"#, |it| matches!(it, Failure::Unreachable(_))),
        ];
        for (body, right) in rows {
            let failure = parse(body).expect_err("no answer");
            assert!(right(&failure), "{failure:?}");
        }
    }

    #[test]
    fn a_course_is_one_series_without_what_is_no_number() {
        let of =
            |result: &str| course(format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{result}]}}}}"#).as_bytes());
        let at = |second| Timestamp::from_second(second).expect("a time");
        let one = r#"{"metric":{},"values":[[60,"1.5"],[120,"NaN"],[180,"+Inf"],[240,"2"]]}"#;
        assert_eq!(of(one).expect("one series"), [(at(60), 1.5), (at(240), 2.0)]);
        assert_eq!(of("").expect("no series"), []);
        for wrong in [&format!("{one},{one}"), r#"{"metric":{},"values":[[60,"many"]]}"#, r#"{"metric":{},"values":[[1e300,"1"]]}"#] {
            assert!(matches!(of(wrong), Err(Failure::Nonsense(_))), "{wrong}");
        }
        let refused = br#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
        assert!(matches!(course(refused), Err(Failure::Refused(_))));
    }

    #[test]
    fn times_are_read_to_the_millisecond_or_not_at_all() {
        assert_eq!(timestamp(1_700_000_000.123).map(Timestamp::as_millisecond), Some(1_700_000_000_123));
        for nonsense in [f64::NAN, f64::INFINITY, 1e300, -1e300] {
            assert_eq!(timestamp(nonsense), None, "{nonsense}");
        }
        let info = br#"{"status":"success","data":{"startTime":"2026-03-01T12:00:00.5Z","CWD":"/"}}"#;
        assert_eq!(start(info).map(Timestamp::as_second), Some(1_772_366_400));
        assert_eq!(start(b"404 page not found"), None);
        assert_eq!(start(br#"{"status":"success","data":{"startTime":"yesterday"}}"#), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&body);
            let _ = start(&body);
        }

        #[test]
        fn no_answer_of_nearly_the_right_shape_makes_it_panic(
            status in "(success|error|.{0,5})", kind in "(vector|scalar|matrix|string)", time in any::<f64>(), value in "(NaN|[+-]?Inf|.{0,80})", label in ".{0,12}",
        ) {
            let series = serde_json::json!([{"metric": {"node": label}, "value": [time, value]}]);
            let result = if kind == "vector" { series } else { serde_json::json!([time, value]) };
            let body = serde_json::json!({"status": status, "data": {"resultType": kind, "result": result}}).to_string();
            let _ = parse(body.as_bytes());
        }

        #[test]
        fn any_time_is_a_time_or_none(seconds in any::<f64>()) {
            let _ = timestamp(seconds);
        }
    }
}
