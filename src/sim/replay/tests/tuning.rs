//! The search for settings: it looks at its own part of the recording alone, and changes what is worth it.

use super::*;
use std::time::Duration;

const DIALS: [Dial; 2] =
    [Dial { key: "scale_down.cooldown", values: &["2", "10", "40"] }, Dial { key: "scale_down.most_at_once", values: &["1", "5"] }];

/// What is decided by under changes; as the dials have them.
fn with(changes: &Changes) -> Option<Operator> {
    let mut settings = usual();
    settings.predictive.mode = crate::policy::PredictiveMode::On;
    for (key, value) in changes {
        let number: f64 = value.parse().ok()?;
        match *key {
            "scale_down.cooldown" => settings.scale_down.cooldown = Duration::from_secs_f64(60.0 * number),
            "scale_down.most_at_once" => settings.scale_down.most_at_once = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(operator(&settings))
}

const PARTS: Parts = Parts { taught: 720, searched: 2 * 1440, minutes: 3 * 1440 };

fn tuned(recording: &Recording) -> Tuned {
    let conditions = conditions(Boot::Fixed(120), 20.0, 1.0);
    let conditions = Conditions { operator: with(&Changes::new()).expect("it is valid"), ..conditions };
    tune(recording, &PARTS, &conditions, &DIALS, &with, &mut |_, _, _| {})
}

#[test]
fn what_is_held_out_never_influences_the_choice() {
    let recording = Shape::Bursty.days(3, 4).scaled(12.0);
    let mut other = recording.clone();
    other.values[PARTS.searched..].iter_mut().enumerate().for_each(|(at, value)| *value = (at % 3 > 0).then_some(40.0));
    let one = tuned(&recording);
    assert!(!one.changes.is_empty(), "{one:?}");
    assert_eq!(one, tuned(&other));
    // The same change a minute earlier is seen.
    other.values[PARTS.searched - 1] = Some(400.0);
    assert_ne!(one, tuned(&other));
}

#[test]
fn where_nothing_is_cheaper_nothing_is_changed() {
    let recording = Recording::whole(Shape::Daily.days(1, 1).start, &vec![5.0; 3 * 1440]);
    let tuned = tuned(&recording);
    assert!(tuned.changes.is_empty() && tuned.tried > 1, "{tuned:?}");
    assert_eq!(tuned.operator, with(&Changes::new()).expect("it is valid"));
}

#[test]
fn two_thirds_are_searched_on_and_a_week_of_them_at_most_only_teaches() {
    let days = |minutes| Parts::of(minutes).map(|it| (it.taught / 1440, it.searched / 1440));
    assert_eq!(days(14 * 1440), Ok((4, 9)));
    assert_eq!(days(28 * 1440 + 700), Ok((7, 18)));
    let error = days(14 * 1440 - 1).expect_err("it is too short").to_string();
    assert!(error.contains("13.9 days") && error.contains("14 or more"), "{error}");
}
