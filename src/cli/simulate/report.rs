//! The report as one page that needs no network: its data, and the script that draws them.

use crate::sim::replay::{Rates, Repairs, SideBySide, Step, Trajectory};
use serde::Serialize;

/// The page; `@DATA@` stands for what was found.
const PAGE: &str = include_str!("report.html");
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
    trajectories: &'a [Trajectory],
    band: &'a [Option<[f32; 4]>],
    headrooms: &'a [crate::sim::replay::Headroomed],
    steps_in_all: usize,
    steps: Vec<Step>,
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
    let data = Data {
        page,
        start: course.start,
        bin_minutes: course.bin_minutes,
        trajectories: &course.trajectories,
        band: &course.band,
        headrooms: &course.headrooms,
        steps_in_all: steps.len(),
        steps: steps.into_iter().rev().take(STEPS_SHOWN).collect(),
    };
    // Within a script element nothing but `<` can end it.
    let json = serde_json::to_string(&data)?.replace('<', "\\u003c");
    Ok(PAGE.replace("@DATA@", &json))
}
