//! A recording of pods: from when to when each ran, and what it requested.

use super::recording::{Dated, LONGEST, Recording, Repairs, Wrong, bounded, in_one_unit, number, time};
use super::rows::Rows;
use crate::policy::forecast::Minute;

/// The headers that a file of pods may have.
pub(super) const HEADERS: [&[&str]; 2] = [&["start", "end", "cpu"], &["start", "end", "cpu", "memory"]];
/// Without any pod for longer than this, in seconds, a part of the recording is missing: missing is not zero.
const LONGEST_SILENCE: i64 = 7 * 86_400;

/// A pod with the line it stands in.
struct Pod {
    line: u64,
    /// Seconds since 1970.
    start: i64,
    end: i64,
    /// Cores.
    cpu: f64,
    /// In the unit of the file.
    memory: f64,
}

/// Reads rows of pods in the order of their starts, and adds up what they request: cores, one value a minute, in the mean
/// over the minute. With memory it is what a node's cores would be that has as much memory as is requested, where that is more;
/// `cores_per_memory` is a node's cores over its memory. More pods than `most` are refused, since all of them are kept.
///
/// # Errors
/// The line, what is wrong there, and what would be right: a time, a number, an order that is not kept, a pod that ends
/// before it starts, a week without any pod, requests in several units, too many pods, or none.
pub(super) fn read<R: Rows>(rows: &mut R, cores_per_memory: Option<f64>, most: usize) -> Result<Recording, Wrong> {
    let (mut pods, mut latest): (Vec<Pod>, i64) = (Vec::new(), i64::MIN);
    let mut record = csv::StringRecord::new();
    let fields = 3 + usize::from(cores_per_memory.is_some());
    while let Some(line) = rows.next(&mut record)? {
        bounded(pods.len(), most, line, "pods")?;
        let pod = parse(&record, fields, line).map_err(|problem| (line, problem))?;
        let first = pods.first().map_or(pod.start, |first| first.start);
        if let Some(last) = pods.last()
            && pod.start < last.start
        {
            let problem = format!(
                "the start `{}` is earlier than that of {} {}; expected pods in the order of their starts",
                &record[0],
                R::PLACE,
                last.line
            );
            return Err((line, problem));
        }
        if !pods.is_empty() && pod.start - latest > LONGEST_SILENCE {
            let days = (pod.start - latest) / 86_400;
            return Err((
                line,
                format!("no pod runs in the {days} days before `{}`; expected pods in each week, or two recordings", &record[0]),
            ));
        }
        if (pod.end - first) / 60 >= LONGEST {
            return Err((line, format!("the end `{}` is more than ten years after the first start; expected at most ten", &record[1])));
        }
        latest = latest.max(pod.end);
        pods.push(pod);
    }
    let end = rows.reached();
    let Some(first) = pods.first() else { return Err((end, "0 pods; expected one or more".into())) };
    let start = Minute::of_second(first.start);
    let dated = |of: fn(&Pod) -> f64| pods.iter().map(move |pod| Dated { line: pod.line, second: pod.start, value: of(pod) });
    in_one_unit(dated(|pod| pod.cpu), "cpu")?;
    in_one_unit(dated(|pod| pod.memory), "memory")?;
    let minutes = usize::try_from(Minute::of_second(latest - 1).0 - start.0 + 1).unwrap_or(0).max(1);
    let requested =
        |of: fn(&Pod) -> f64| added_up(pods.iter().map(|pod| (pod.start - 60 * start.0, pod.end - 60 * start.0, of(pod))), minutes);
    let mut cores = requested(|pod| pod.cpu);
    if let Some(cores_per_memory) = cores_per_memory {
        let memory = requested(|pod| pod.memory);
        cores.iter_mut().zip(memory).for_each(|(cores, memory)| *cores = cores.max(memory * cores_per_memory));
    }
    #[expect(clippy::cast_possible_truncation, reason = "demand is measured to fewer digits than single precision has")]
    let values: Vec<Option<f32>> = cores.into_iter().map(|cores| Some(cores as f32)).collect();
    if !values.iter().flatten().any(|value| *value > 0.0) {
        return Err((end, "no pod requests anything while it runs; expected some that do".into()));
    }
    Ok(Recording { start, values, repairs: Repairs { period_seconds: 60, ..Repairs::default() } })
}

fn parse(record: &csv::StringRecord, fields: usize, line: u64) -> Result<Pod, String> {
    if record.len() != fields {
        return Err(format!("{} fields; expected {fields}, as in the header", record.len()));
    }
    let (start, end) = (time(&record[0])?.as_second(), time(&record[1])?.as_second());
    if end < start {
        return Err(format!("the pod ends at `{}`, before it starts at `{}`; expected an end that is not earlier", &record[1], &record[0]));
    }
    let request = |field: &str, what: &str| {
        let value = number(field)?;
        if value < 0.0 { Err(format!("the {what} {value} is negative; expected a request from 0 up")) } else { Ok(value) }
    };
    let memory = record.get(3).map_or(Ok(0.0), |field| request(field, "memory"))?;
    Ok(Pod { line, start, end, cpu: request(&record[2], "cpu")?, memory })
}

/// Adds up what is there from one second to another, in the mean over each of so many minutes.
fn added_up(spans: impl Iterator<Item = (i64, i64, f64)>, minutes: usize) -> Vec<f64> {
    // What begins and ends within a minute counts by its share; what is there for the whole of minutes is kept as steps.
    let (mut parts, mut steps) = (vec![0.0_f64; minutes + 1], vec![0.0_f64; minutes + 1]);
    let at = |second: i64| usize::try_from(second / 60).unwrap_or(0).min(minutes);
    for (start, end, value) in spans {
        let share = |seconds: i64| value * seconds as f64 / 60.0;
        let (first, last) = (at(start), at(end));
        if first == last {
            parts[first] += share(end - start);
        } else {
            parts[first] += share(60 - start % 60);
            parts[last] += share(end % 60);
            steps[first + 1] += value;
            steps[last] -= value;
        }
    }
    let mut level = 0.0;
    let sum = |(part, step): (&f64, &f64)| {
        level += step;
        // Sums of many requests do not come back to zero to the last bit.
        let there = level + part;
        if there < 1e-9 { 0.0 } else { there }
    };
    parts.iter().zip(&steps).take(minutes).map(sum).collect()
}

#[cfg(test)]
mod tests {
    use super::super::recording::PodsAsNodes;
    use super::*;

    fn read(text: &str, cores_per_memory: Option<f64>) -> Result<Recording, String> {
        let node = PodsAsNodes { cores_per_memory, no_cores: None };
        Recording::read_sized("pods.csv", text.as_bytes(), &node).map_err(|error| error.to_string())
    }

    #[test]
    fn what_pods_request_is_added_up_by_the_minute() {
        let text = "start,end,cpu\n2026-01-01T00:00:00Z,2026-01-01T00:03:00Z,2\n2026-01-01T00:00:30Z,2026-01-01T00:02:15Z,4\n2026-01-01T00:04:10Z,2026-01-01T00:04:40Z,1\n";
        let recording = read(text, None).expect("it can be read");
        assert_eq!(recording.values, [4.0, 6.0, 3.0, 0.0, 0.5].map(Some));
        assert_eq!(recording.start, Minute::of_second(1_767_225_600));
    }

    #[test]
    fn more_pods_than_there_is_room_for_are_refused_at_the_first_that_is_too_many() {
        let rows = "2026-01-01T00:00:00Z,2026-01-01T01:00:00Z,2\n".repeat(4);
        let read = |most| {
            let text = format!("start,end,cpu\n{rows}");
            let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
            reader.headers().expect("there is a header");
            super::read(&mut reader, None, most).map(|recording| recording.values.len())
        };
        assert_eq!(read(4), Ok(60));
        let (line, problem) = read(3).expect_err("they are four");
        assert!(line == 5 && problem.contains("more than 3 pods; expected at most so many"), "{line}: {problem}");
    }

    #[test]
    fn pods_are_no_nodes_where_nobody_knows_a_nodes_cores() {
        let node = PodsAsNodes { cores_per_memory: None, no_cores: Some("expected --node-size".into()) };
        let read = |text: &str| Recording::read_sized("f.csv", text.as_bytes(), &node).map_err(|error| error.to_string());
        let pods = read("start,end,cpu\n2026-01-01T00:00:00Z,2026-01-01T01:00:00Z,2\n");
        assert_eq!(pods, Err("f.csv, line 1: these are pods, which request cores: expected --node-size".to_owned()));
        assert!(read("timestamp,value\n2026-01-01T00:00:00Z,1\n2026-01-01T00:01:00Z,1\n").is_ok(), "a demand needs no cores");
    }

    #[test]
    fn the_scarcer_of_cores_and_memory_counts() {
        let text = "start,end,cpu,memory\n2026-01-01T00:00:00Z,2026-01-01T00:01:00Z,2,4\n2026-01-01T00:01:00Z,2026-01-01T00:02:00Z,1,16\n";
        // Nodes of 4 cores and 16 of memory: half a node by cores, then a whole one by memory.
        let nodes = read(text, Some(4.0 / 16.0)).expect("it can be read").divided(4.0);
        assert_eq!(nodes.values, [0.5, 1.0].map(Some));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_what_would_be_right() {
        let head = "start,end,cpu\n2026-01-01T00:00:00Z,2026-01-01T01:00:00Z,2\n";
        let many = (0..9).fold(head.to_owned(), |text, _| text + "2026-01-01T00:10:00Z,2026-01-01T00:20:00Z,1\n");
        for (rows, line, words) in [
            ("2026-01-01T00:00:00Z,2026-01-01T01:00:00Z\n", 3, &["2 fields", "expected 3"][..]),
            ("now,2026-01-01T01:00:00Z,1\n", 3, &["`now`", "no time"]),
            ("2026-01-01T00:00:00Z,,1\n", 3, &["``", "no time"]),
            ("2026-01-01T00:00:00Z,2026-01-01T01:00:00Z,500m\n", 3, &["`500m`", "no number"]),
            ("2026-01-01T00:00:00Z,2026-01-01T01:00:00Z,-1\n", 3, &["cpu -1", "negative"]),
            ("2026-01-01T00:30:00Z,2026-01-01T00:20:00Z,1\n", 3, &["ends at", "before it starts", "not earlier"]),
            ("2025-12-31T00:30:00Z,2026-01-01T00:20:00Z,1\n", 3, &["earlier than that of line 2", "order of their starts"]),
            ("2026-01-10T00:30:00Z,2026-01-10T00:40:00Z,1\n", 3, &["8 days", "two recordings"]),
            ("2026-01-01T00:30:00Z,2056-01-10T00:40:00Z,1\n", 3, &["ten years"]),
        ] {
            let error = read(&format!("{head}{rows}"), None).expect_err(rows);
            assert!(error.starts_with(&format!("pods.csv, line {line}: ")), "{error}");
            assert!(words.iter().all(|word| error.contains(word)), "{rows}: {error}");
        }
        let large = read(&format!("{head}2026-01-01T00:30:00Z,2026-01-01T00:40:00Z,1e308\n"), None).expect_err("it is too large");
        assert!(large.starts_with("pods.csv, line 3: the value 1e308 is too large"), "{large}");
        let absurd = read(&format!("{many}2026-01-01T00:30:00Z,2026-01-01T00:40:00Z,1e9\n"), None).expect_err("it is absurd");
        assert!(absurd.starts_with("pods.csv, line 12: the cpu 1000000000 is a million times the median"), "{absurd}");
        assert!(read("start,end,cpu\n", None).is_err_and(|error| error.contains("0 pods")));
        let asleep = "start,end,cpu\n2026-01-01T00:00:00Z,2026-01-01T00:00:00Z,2\n";
        assert!(read(asleep, None).is_err_and(|error| error.contains("requests anything")));
        let memory = "start,end,cpu,memory\n";
        assert!(read(memory, None).is_err_and(|error| error.contains("line 1") && error.contains("--node-memory")));
        assert!(read(head, Some(1.0)).is_err_and(|error| error.contains("line 1") && error.contains("`start,end,cpu,memory`")));
    }
}
