//! Draws what goes wrong in a world, and when.

use super::super::streams::{self, Purpose};
use super::{Fault, Planned};
use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

/// Faults begin in this part of the time, so that there is peace before and after.
const TROUBLED: (f64, f64) = (0.05, 0.55);

/// Draws up to five faults of those that may come, all of them over when peace comes.
pub fn faults(seed: u64, hours: f64, peace: Duration, allowed: &[Fault]) -> Vec<Planned> {
    let mut random = streams::open(seed, Purpose::Faults);
    if allowed.is_empty() {
        return Vec::new();
    }
    let number = random.random_range(1..=5);
    let mut planned: Vec<Planned> = (0..number)
        .filter_map(|_| {
            let fault = *allowed.choose(&mut random)?;
            let at = Duration::from_secs_f64(hours * 3600.0 * random.random_range(TROUBLED.0..TROUBLED.1));
            Some(Planned { fault, at, lasts: lasts(fault, &mut random).min(peace.saturating_sub(at)) })
        })
        .collect();
    planned.sort_by_key(|planned| planned.at);
    let mut apart: Vec<Planned> = Vec::new();
    for next in planned {
        let clash = |earlier: &Planned| earlier.at + earlier.lasts >= next.at && touches(earlier.fault) == touches(next.fault);
        if !apart.iter().any(clash) {
            apart.push(next);
        }
    }
    apart
}

/// Names what a fault sets, where another one that sets it at the same time would be undone with it. Every other
/// fault is in its own way only.
fn touches(fault: Fault) -> Fault {
    match fault {
        Fault::WatchGap => Fault::StaleList,
        Fault::ManyUnready | Fault::FlappingNode => Fault::NetworkBroke,
        Fault::CapacityInOneOffer | Fault::ZoneFailover => Fault::NoSpotAnywhere,
        Fault::RestartWhilePaused => Fault::PauseInOperation,
        other => other,
    }
}

/// Draws how long a fault lasts: for minutes, for hours where it waits for something that is rare, for seconds
/// where it is over at once.
fn lasts(fault: Fault, random: &mut ChaCha8Rng) -> Duration {
    let (minute, hour) = (60, 3600);
    let seconds = match fault {
        Fault::LeaderPaused => 15..90,
        Fault::LockDeleted | Fault::Killed | Fault::AddressRecycled | Fault::OtherActor | Fault::InstanceGone | Fault::NodeObjectGone => {
            1..minute
        }
        Fault::CrashBeforeLaunch
        | Fault::CrashAfterLaunch
        | Fault::CrashInDrain
        | Fault::LaunchLanded
        | Fault::TokenMismatch
        | Fault::PartialFill
        | Fault::NeverJoins
        | Fault::HostnameReused
        | Fault::RemovalRepeated
        | Fault::TerminateNotFound
        | Fault::BudgetNever
        | Fault::StuckTerminating
        | Fault::UndeletableMessage
        | Fault::LateMessage
        | Fault::DuplicateMessage
        | Fault::ForgedMessage
        | Fault::DescribeLag
        | Fault::VcpuQuota
        | Fault::NoSpotAnywhere
        | Fault::CapacityInOneOffer
        | Fault::ZoneFailover => hour / 2..5 * hour,
        Fault::ClockRunsFast | Fault::WallClockJumps => 5 * minute..2 * hour,
        Fault::PrometheusDown
        | Fault::EmptyVector
        | Fault::NotANumber
        | Fault::StaleSample
        | Fault::PartialScrape
        | Fault::NetworkBroke
        | Fault::OscillatingLoad
        | Fault::PrometheusRestart
        | Fault::HugeAnswer
        | Fault::StaleList
        | Fault::WatchGap
        | Fault::ApiServerDown
        | Fault::PatchConflict
        | Fault::RequestLimit
        | Fault::AccessDenied
        | Fault::FlappingNode
        | Fault::ManyUnready
        | Fault::SpotStorm
        | Fault::QueueOutage
        | Fault::LedgerOutage
        | Fault::RenewalLanded
        | Fault::Partition
        | Fault::MetadataDown
        | Fault::BadReload
        | Fault::PauseInOperation
        | Fault::RestartWhilePaused
        | Fault::AdminFlood
        | Fault::TagStripped
        | Fault::VersionSkew => minute..40 * minute,
    };
    Duration::from_secs(random.random_range(seconds))
}
