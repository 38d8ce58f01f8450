//! The report as one page that needs no network: its data, the library that plots them, and the script that asks it to.
//!
//! The plots are uPlot's, whose files lie in `report/uplot` as its package has them; a test of the page holds them against
//! it. Its policy names what may run by digests, so that markup that should ever come into it from a recording does not.

use crate::sim::replay::{Day, Headroomed, Rates, Repairs, SideBySide, Step, Trajectory};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// The document, with a `{{name}}` where each part belongs.
const FRAME: &str = include_str!("report/page.html");
const STYLE: &str = include_str!("report/page.css");
const SCRIPT: &str = include_str!("report/page.js");
const PLOTS: &str = include_str!("report/plots.js");
const LIBRARY: &str = include_str!("report/uplot/uPlot.iife.min.js");
const LIBRARY_STYLE: &str = include_str!("report/uplot/uPlot.min.css");
const LIBRARY_LICENCE: &str = include_str!("report/uplot/LICENSE");
/// So many turns are listed.
const STEPS_SHOWN: usize = 500;

/// What the page shows.
#[derive(Debug, Serialize)]
pub(super) struct Page<'a> {
    /// The sentence on top.
    pub summary: &'a str,
    /// The demand's name.
    pub demand: &'a str,
    /// What was found in the recording and put right.
    pub repairs: Repairs,
    /// What a node-minute of waiting is worth.
    pub price_of_waiting: f64,
    /// What nodes cost.
    pub rates: Rates,
    /// What else it depends on.
    pub conditions: super::Circumstances<'a>,
    /// All policies.
    pub found: &'a SideBySide,
}

#[derive(Serialize)]
struct Data<'a> {
    #[serde(flatten)]
    page: &'a Page<'a>,
    /// The first minute that counts, since 1970.
    start: i64,
    bin_minutes: usize,
    /// The highest demand of each interval.
    highest: Vec<Option<f64>>,
    trajectories: Vec<Columns<'a>>,
    /// Demand, what was expected, and the two quantiles, each a column; none where no forecast was made.
    band: Option<[Vec<Option<f64>>; 4]>,
    headrooms: &'a [Headroomed],
    steps_in_all: usize,
    steps: Vec<Step>,
}

/// A policy's nodes, and what it came to day by day.
#[derive(Serialize)]
struct Columns<'a> {
    policy: &'a str,
    leads: bool,
    nodes: Vec<(Option<u32>, usize)>,
    days: &'a [Day],
}

impl<'a> From<&'a Trajectory> for Columns<'a> {
    fn from(Trajectory { policy, leads, nodes, days }: &'a Trajectory) -> Self {
        Self { policy, leads: *leads, nodes: runs(nodes), days }
    }
}

/// Writes a column that seldom changes as its values and how often each comes in a row.
fn runs(column: &[Option<u32>]) -> Vec<(Option<u32>, usize)> {
    column.chunk_by(|one, next| one == next).map(|run| (run[0], run.len())).collect()
}

/// Leaves hundredths of a node: more is neither seen nor told.
fn rounded(value: f32) -> f64 {
    (f64::from(value) * 100.0).round() / 100.0
}

/// Makes the page.
///
/// # Errors
/// When what was found is no JSON.
pub(super) fn page(page: &Page<'_>) -> anyhow::Result<String> {
    let course = &page.found.course;
    // Minutes of steps are counted from the first that counts, as those of the plots are.
    let counted = course.steps.iter().filter(|step| step.minute >= course.warm_up);
    let steps: Vec<Step> = counted.map(|step| Step { minute: step.minute - course.warm_up, ..*step }).collect();
    let column = |at: usize| course.band.iter().map(|said| said.map(|said| rounded(said[at]))).collect();
    let data = Data {
        page,
        start: course.start,
        bin_minutes: course.bin_minutes,
        highest: course.demand.iter().map(|demand| demand.map(rounded)).collect(),
        trajectories: course.trajectories.iter().map(Columns::from).collect(),
        band: course.band.iter().any(Option::is_some).then(|| std::array::from_fn(column)),
        headrooms: &course.headrooms,
        steps_in_all: steps.len(),
        steps: steps.into_iter().rev().take(STEPS_SHOWN).collect(),
    };
    // Within a script element nothing but `<` can end it.
    let (json, policy) = (serde_json::to_string(&data)?.replace('<', "\\u003c"), policy());
    // The data come last: what stands in them is not looked through for names of parts.
    let parts = [
        ("{{policy}}", policy.as_str()),
        ("{{licence}}", LIBRARY_LICENCE),
        ("{{library style}}", LIBRARY_STYLE),
        ("{{style}}", STYLE),
        ("{{library}}", LIBRARY),
        ("{{plots}}", PLOTS),
        ("{{script}}", SCRIPT),
        ("{{data}}", &json),
    ];
    Ok(parts.into_iter().fold(FRAME.to_owned(), |text, (name, part)| text.replacen(name, part, 1)))
}

/// What a browser may do with the page: run and style it with what the program put there, and nothing else.
fn policy() -> String {
    let digests = |parts: &[&str]| {
        let digest = |part: &&str| format!(" 'sha256-{}'", STANDARD.encode(Sha256::digest(part.as_bytes())));
        parts.iter().map(digest).collect::<String>()
    };
    format!(
        "default-src 'none'; script-src{}; style-src{}; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        digests(&[LIBRARY, PLOTS, SCRIPT]),
        digests(&[LIBRARY_STYLE, STYLE])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_that_seldom_changes_is_written_as_its_changes() {
        let column = [None, Some(2), Some(2), None, None, Some(3)];
        assert_eq!(runs(&column), [(None, 1), (Some(2), 2), (None, 2), (Some(3), 1)]);
        assert_eq!([0.0, 1.004, 12.345_678].map(|it| rounded(it).to_string()), ["0", "1", "12.35"]);
    }

    #[test]
    fn the_policy_lets_exactly_these_styles_and_scripts_run() {
        for (begin, end, parts) in
            [("<script>", "</script>", vec![LIBRARY, PLOTS, SCRIPT]), ("<style>", "</style>", vec![LIBRARY_STYLE, STYLE])]
        {
            assert_eq!((FRAME.matches(begin).count(), FRAME.matches("style=").count()), (parts.len(), 0));
            for part in parts {
                assert!(policy().contains(&STANDARD.encode(Sha256::digest(part.as_bytes()))), "{begin}");
                assert!(!part.contains(end) && !part.contains("{{"), "{begin} holds one part, as it is");
            }
        }
        assert!(policy().starts_with("default-src 'none';") && !policy().contains("unsafe"));
        assert!(!LIBRARY_LICENCE.contains("-->") && LIBRARY_LICENCE.contains("Permission is hereby granted"));
    }
}
