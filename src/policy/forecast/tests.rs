//! The forecaster as a whole, on demands whose law is known.

use super::*;
use jiff::Timestamp;
use std::f64::consts::TAU;

const SETTINGS: ForecastSettings = ForecastSettings { node: 1.0, boot: 2, price_of_waiting: 20.0, rests: Rests::NONE, zone: TimeZone::UTC };

/// A number between -1 and 1 that looks random and is the same each time.
fn noise(minute: i64) -> f64 {
    let mut bits = minute.cast_unsigned().wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((bits ^ (bits >> 29)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

fn daily(minute: i64) -> f64 {
    6.0 - 3.0 * (TAU * minute as f64 / 1440.0).cos() + 0.5 * noise(minute)
}

fn hourly_jobs(minute: i64) -> f64 {
    2.2 + 0.3 * noise(minute) + if minute % 60 < 5 { 4.0 } else { 0.0 }
}

fn bursts(minute: i64) -> f64 {
    let since = minute - minute / 97 * 97;
    let size = 3.0 * (1.0 + noise(minute / 97 * 97 + 7));
    4.0 + 0.4 * noise(minute) + size * (-(since as f64) / 8.0).exp()
}

fn observed(demand: fn(i64) -> f64, minutes: std::ops::Range<i64>) -> Forecaster {
    let mut forecaster = Forecaster::new(SETTINGS);
    minutes.for_each(|minute| forecaster.observe(Minute(minute), demand(minute)).expect("minutes run forward"));
    forecaster
}

#[test]
fn quantiles_cover_what_they_promise_on_each_kind_of_demand() {
    for (name, demand) in [("daily", daily as fn(i64) -> f64), ("jobs", hourly_jobs), ("bursts", bursts)] {
        let mut forecaster = observed(demand, 0..1440);
        let (mut covered, mut minutes) = ([0.0; 2], 0.0);
        for minute in 1440..3 * 1440 {
            let expected = forecaster.expect(3).expect("it has learnt");
            let value = demand(expected.minute.0);
            minutes += 1.0;
            covered[0] += f64::from(u8::from(value <= expected.quantile_90));
            covered[1] += f64::from(u8::from(value <= expected.quantile_95));
            forecaster.observe(Minute(minute), demand(minute)).expect("minutes run forward");
        }
        for (covered, level) in covered.iter().zip(SCORED) {
            assert!((covered / minutes - level).abs() < 0.015, "{name} at {level}: {}", covered / minutes);
        }
    }
}

#[test]
fn a_quiet_weekend_does_not_demote_a_forecast_before_monday() {
    for quiet in [0.0, 0.4, 3.0] {
        let demand = |minute: i64| {
            let (day, hour) = (minute.div_euclid(1440) % 7, minute.rem_euclid(1440) / 60);
            if day < 5 && (8..17).contains(&hour) { 9.0 + 0.5 * noise(minute) } else { quiet }
        };
        let mut forecaster = Forecaster::new(ForecastSettings { price_of_waiting: 60.0, ..SETTINGS });
        for minute in 0..15 * 1440 {
            forecaster.observe(Minute(minute), demand(minute)).expect("minutes run forward");
            let (day, minute_of_day) = (minute.div_euclid(1440), minute.rem_euclid(1440));
            if day > 0 && day % 7 == 0 && minute_of_day == 7 * 60 + 50 {
                assert_eq!(forecaster.standing(Minute(minute + 1)), Standing::Trusted, "{quiet} by night, day {day}");
            }
        }
    }
}

#[test]
fn what_is_scored_is_what_is_bought_for() {
    let rests = Rests { every: 5, ..Rests::NONE };
    let mut forecaster = Forecaster::new(ForecastSettings { rests, ..SETTINGS });
    (0..1440).for_each(|minute| forecaster.observe(Minute(minute), daily(minute)).expect("minutes run forward"));
    // The latest minute is one behind; a boot takes two, and the next evaluation is five away.
    assert_eq!(forecaster.advise(Minute(1440)).expected.map(|expected| expected.minute), Some(Minute(1439 + 1 + 2 + 5)));
    assert_eq!(forecaster.said.len(), 8);
}

#[test]
fn a_job_of_each_hour_is_bought_for_before_it_comes() {
    let mut forecaster = observed(hourly_jobs, 0..2 * 1440);
    let mut bought_in_time = 0;
    for minute in 2 * 1440..3 * 1440 {
        // The job begins at the full hour; nodes that serve it then are launched two minutes before.
        if minute % 60 == 58 {
            let advice = forecaster.advise(Minute(minute));
            bought_in_time += usize::from(advice.want.expect("it speaks").buy >= 6);
            assert_eq!(advice.standing, Standing::Trusted);
        }
        forecaster.observe(Minute(minute), hourly_jobs(minute)).expect("minutes run forward");
    }
    assert!(bought_in_time >= 23, "{bought_in_time} of 24");
}

#[test]
fn it_says_when_it_will_be_ready_and_when_it_is_blind() {
    let mut forecaster = Forecaster::new(SETTINGS);
    let nothing = forecaster.advise(Minute(0));
    assert_eq!((nothing.want, nothing.standing), (None, Standing::Learning { ready_at: None }));
    for minute in 0..100 {
        forecaster.observe(Minute(minute), 3.5).expect("minutes run forward");
    }
    let early = forecaster.advise(Minute(100));
    assert_eq!(early.standing, Standing::Learning { ready_at: Some(Minute(359 + 240)) });
    // Reactive, until it has learnt: enough for what there is.
    assert!(early.want.is_some_and(|want| (4..=5).contains(&want.buy)), "{early}");
    assert!(early.following.iter().all(|following| !following.way.is_predictive()));
    let blind = forecaster.advise(Minute(111));
    assert_eq!((blind.want, blind.standing), (None, Standing::Blind { latest: Minute(99) }));
    assert_eq!(blind.to_string(), "no demand is known since 1970-01-01T01:39:00Z");
}

#[test]
fn a_wrecked_forecast_is_demoted_within_a_day_and_does_no_harm() {
    let mut forecaster = observed(daily, 0..3 * 1440);
    assert_eq!(forecaster.advise(Minute(3 * 1440)).standing, Standing::Trusted);
    forecaster.wreck(0.3);
    let demoted = (3 * 1440..4 * 1440).find(|minute| {
        forecaster.observe(Minute(*minute), daily(*minute)).expect("minutes run forward");
        forecaster.advise(Minute(minute + 1)).standing == Standing::Demoted
    });
    let demoted = demoted.expect("it is demoted within a day");
    let mut short = 0.0;
    for minute in demoted + 1..demoted + 1440 {
        let advice = forecaster.advise(Minute(minute));
        assert!(advice.following.iter().all(|following| !following.way.is_predictive()), "{advice}");
        short += (daily(minute) - f64::from(advice.want.expect("it speaks").hold)).max(0.0);
        forecaster.observe(Minute(minute), daily(minute)).expect("minutes run forward");
    }
    assert!(short < 0.02 * 1440.0 * 6.0, "{short} node-minutes short");
    assert!(forecaster.advise(Minute(demoted + 1440)).to_string().contains("stands back"));
}

#[test]
fn what_is_said_of_a_minute_does_not_depend_on_what_comes_after() {
    let mut one = observed(bursts, 0..1000);
    let mut other = observed(|minute| if minute < 900 { bursts(minute) } else { 50.0 }, 0..900);
    let mut replayed = observed(bursts, 0..900);
    assert_eq!(other.advise(Minute(900)), replayed.advise(Minute(900)));
    for minute in 900..1000 {
        replayed.observe(Minute(minute), bursts(minute)).expect("minutes run forward");
        other.observe(Minute(minute), 50.0).expect("minutes run forward");
    }
    assert_eq!(one.advise(Minute(1000)), replayed.advise(Minute(1000)));
    assert_ne!(one.advise(Minute(1000)).want, other.advise(Minute(1000)).want);
    assert!(one.observe(Minute(999), 1.0).is_err());
}

#[test]
fn whoever_observes_the_history_again_knows_the_same() {
    let mut one = Forecaster::new(SETTINGS);
    for minute in (0..1200).filter(|minute| !(500..560).contains(minute)) {
        one.observe(Minute(minute), daily(minute)).expect("minutes run forward");
    }
    let text = serde_json::to_string(one.history()).expect("a history is a value");
    let history: DemandHistory = serde_json::from_str(&text).expect("and can be read");
    let other = Forecaster::from_history(SETTINGS, &history);
    assert_eq!(one.advise(Minute(1200)), other.advise(Minute(1200)));
}

#[test]
fn a_gap_teaches_nothing_and_is_survived() {
    let mut forecaster = observed(daily, 0..1440);
    let before = forecaster.record().minutes;
    forecaster.observe(Minute(1800), daily(1800)).expect("minutes run forward");
    assert!(forecaster.record().minutes <= before + 1, "a gap is not scored");
    let want = forecaster.advise(Minute(1801)).want.expect("it speaks");
    assert!(f64::from(want.buy) >= daily(1800).floor() && f64::from(want.buy) < 15.0, "{want:?}");
    // After a silence longer than is kept it begins anew.
    forecaster.observe(Minute(100 * 1440), 2.0).expect("minutes run forward");
    assert!(matches!(forecaster.advise(Minute(100 * 1440 + 1)).standing, Standing::Learning { ready_at: Some(_) }));
}

#[test]
fn a_dearer_wait_never_means_fewer_nodes_on_average() {
    let mut sums = Vec::new();
    for price_of_waiting in [5.0, 20.0, 200.0] {
        let mut forecaster = Forecaster::new(ForecastSettings { price_of_waiting, ..SETTINGS });
        let mut sum = 0;
        for minute in 0..1440 {
            forecaster.observe(Minute(minute), bursts(minute)).expect("minutes run forward");
            sum += forecaster.advise(Minute(minute + 1)).want.expect("it speaks").hold;
        }
        sums.push(sum);
    }
    assert!(sums.is_sorted(), "{sums:?}");
}

#[test]
fn settings_may_change_while_it_runs() {
    let mut forecaster = observed(daily, 0..1440);
    forecaster.set(ForecastSettings { boot: 5, ..SETTINGS });
    for minute in 1440..1600 {
        forecaster.observe(Minute(minute), daily(minute)).expect("minutes run forward");
    }
    let expected = forecaster.advise(Minute(1600)).expected.expect("it speaks");
    assert_eq!(expected.minute, Minute(1606));
    forecaster.set(ForecastSettings { node: 4.0, ..SETTINGS });
    forecaster.observe(Minute(1600), daily(1600)).expect("minutes run forward");
    let want = forecaster.advise(Minute(1601)).want.expect("it speaks");
    assert!((1..=4).contains(&want.buy), "{want:?}");
}

#[test]
fn what_is_needed_before_the_next_purchase_can_be_made_is_bought_in_this_one() {
    // Six nodes are needed for some minutes around the eighth.
    let outlook = |ahead: &usize| {
        let needed = if (7..=10).contains(ahead) { 6.0 } else { 2.0 };
        Outlook { centre: needed, size: 1.0, quantiles: [needed; LEVELS.len()] }
    };
    let outlooks: Vec<Outlook> = predictor::HORIZONS.iter().map(outlook).collect();
    for (up, bought) in [(0, 2), (2, 2), (4, 6), (100, 6)] {
        let rests = Rests { up, ..Rests::NONE };
        let scene = Scene {
            highest: highest(&[2.0]),
            node: 1.0,
            boot: 2,
            replaced_in: 3,
            price: 20.0,
            rests,
            is_due: true,
            outlooks: &outlooks,
            ladder: None,
        };
        let want = scene.want(Way::Quantiles { buy: 0.9, hold: 0.9 });
        assert_eq!(want.buy, bought, "a rest of {up} minutes");
    }
}

/// An office that opens at eight in Berlin, every day of the week.
fn office(minute: i64) -> f64 {
    let zone = TimeZone::get("Europe/Berlin").expect("it is known");
    let hour = Timestamp::from_second(minute * 60).expect("a time").to_zoned(zone).hour();
    2.0 + 0.1 * noise(minute) + if (8..18).contains(&hour) { 8.0 } else { 0.0 }
}

/// Counts the days after a change of the clock on which twenty minutes after `opening` (in UTC) were seen coming ten
/// minutes before they came, and those on which an hour after or before that was.
fn seen_coming(zone: &str, change: &str, opening: i64) -> (usize, usize) {
    let zone = TimeZone::get(zone).expect("it is known");
    let change = Minute::of_second(change.parse::<Timestamp>().expect("a time").as_second()).0;
    let mut forecaster = Forecaster::new(ForecastSettings { zone, ..SETTINGS });
    let (mut right, mut wrong) = (0, 0);
    for minute in change - 10 * 1440..change + 2 * 1440 {
        forecaster.observe(Minute(minute), office(minute)).expect("minutes run forward");
        if minute < change {
            continue;
        }
        let rises = forecaster.expect(20).is_some_and(|expected| expected.centre > office(minute) + 4.0);
        match (minute + 10).rem_euclid(1440) - opening {
            0 => right += usize::from(rises),
            -60 | 60 => wrong += usize::from(rises),
            _ => {}
        }
    }
    (right, wrong)
}

#[test]
fn what_comes_at_a_time_of_the_clock_comes_at_it_when_the_clock_is_set() {
    // Eight in Berlin is seven in UTC in winter and six in summer.
    assert_eq!(seen_coming("Europe/Berlin", "2026-03-29T00:00:00Z", 6 * 60), (2, 0), "forward");
    assert_eq!(seen_coming("Europe/Berlin", "2026-10-25T00:00:00Z", 7 * 60), (2, 0), "back");
    let (right, _) = seen_coming("UTC", "2026-03-29T00:00:00Z", 6 * 60);
    assert!(right < 2, "by another clock it takes days to be learnt");
}

#[test]
fn another_zone_is_followed_from_then_on() {
    let mut forecaster = observed(daily, 0..3 * 1440);
    let before = forecaster.expect(20);
    forecaster.set(ForecastSettings { zone: TimeZone::get("Asia/Tokyo").expect("it is known"), ..SETTINGS });
    assert_eq!(forecaster.expect(20), before, "Tokyo knows no daylight saving, and a day is a day");
    forecaster.observe(Minute(3 * 1440), daily(3 * 1440)).expect("it is later");
    assert_eq!(forecaster.expect(20), observed(daily, 0..3 * 1440 + 1).expect(20));
}

/// Gives how far the forecasts of a day were off in the mean, three minutes ahead, after nine days of a demand.
fn error_of_day_ten(demand: impl Fn(i64) -> f64) -> f64 {
    let mut forecaster = Forecaster::new(SETTINGS);
    let mut error = 0.0;
    for minute in 0..10 * 1440 {
        forecaster.observe(Minute(minute), demand(minute)).expect("minutes run forward");
        if minute >= 9 * 1440 {
            error += (forecaster.expect(3).expect("it has learnt").centre - demand(minute + 3)).abs();
        }
    }
    error / 1440.0
}

#[test]
fn an_outage_and_a_lasting_step_spoil_no_forecast_of_the_day_after() {
    let day_eight = 8 * 1440;
    let usual = error_of_day_ten(daily);
    let outage = |minute: i64| if (day_eight + 540..day_eight + 900).contains(&minute) { 0.01 } else { 1.0 };
    let after = error_of_day_ten(|minute| outage(minute) * daily(minute));
    assert!(after < 1.15 * usual, "{after} after an outage of six hours, {usual} without");
    let twice = error_of_day_ten(|minute| 2.0 * daily(minute));
    let step = |minute: i64| if minute < day_eight + 600 { 1.0 } else { 2.0 };
    let after = error_of_day_ten(|minute| step(minute) * daily(minute));
    assert!(after < 1.15 * twice, "{after} after a step to twice the demand, {twice} where it was always so");
}
