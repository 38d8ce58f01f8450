//! The test bed: node-fleet's own process against a real control plane, a real
//! Prometheus, and the interfaces of AWS, all on loopback.
//!
//! `tests/run bed [NAME...]` installs its servers and runs it. Scenarios run one
//! after another in one bed, which is reset between them.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test program that tells what it does")]
#![allow(clippy::disallowed_methods, reason = "the bed lives in real time")]
#![allow(clippy::large_futures, reason = "scenarios run one at a time and are polled from the main thread")]
#![allow(clippy::format_push_string, reason = "texts for people, written once")]
#![allow(clippy::cast_precision_loss, reason = "bytes and cores as shares of a machine")]
#![allow(clippy::duration_suboptimal_units, reason = "limits are compared in seconds")]
#![allow(dead_code, reason = "the harness offers more than the scenarios at hand use")]

mod aws;
mod bed;
mod bench;
mod cluster;
mod configuration;
mod control_plane;
mod daemon;
mod demo;
mod dynamodb;
mod events;
mod exporter;
mod joiner;
mod kwok;
mod ledger;
mod moto;
mod offers;
mod processes;
mod prometheus;
mod proxy;
mod scenarios;
mod tools;
mod usage;
mod wait;
mod workload;
mod wrong_clock;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::bed::{Bed, start_timed};
use crate::scenarios::Scenario;

const USAGE: &str = "usage: bed [--list | demo | bench [MEASUREMENT...] | NAME...]  (a NAME may be a part of a scenario's name)";

#[tokio::main]
async fn main() -> ExitCode {
    // Every client of the bed takes this one; none brings its own.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(arguments: &[String]) -> Result<bool> {
    match arguments.first().map(String::as_str) {
        Some("--list") => {
            for scenario in scenarios::ALL {
                println!("{}", scenario.name);
            }
            Ok(true)
        }
        Some("demo") => demonstrate().await,
        Some("bench") => measure(&arguments[1..]).await,
        Some(flag) if flag.starts_with('-') => bail!("{USAGE}"),
        _ => run(&chosen(arguments)?).await,
    }
}

async fn measure(names: &[String]) -> Result<bool> {
    let (mut bed, _) = start_timed().await?;
    let result = bench::run(&mut bed, names).await;
    finish(bed, result)
}

async fn demonstrate() -> Result<bool> {
    println!("starting the bed: control plane, kwok, Prometheus, DynamoDB, EC2, SQS");
    let (mut bed, took) = start_timed().await?;
    println!("the bed is up after {:.1} s", took.as_secs_f64());
    let result = demo::run(&mut bed).await;
    finish(bed, result)
}

/// Stops the bed, and keeps its folder when something went wrong.
fn finish(mut bed: Bed, result: Result<()>) -> Result<bool> {
    if result.is_err() {
        println!("{}", bed.evidence());
        println!("all logs are kept in {}", bed.keep_folder().display());
    }
    bed.stop();
    result.map(|()| true)
}

fn chosen(names: &[String]) -> Result<Vec<&'static Scenario>> {
    if let Some(unknown) = names.iter().find(|name| !scenarios::ALL.iter().any(|scenario| scenario.name.contains(name.as_str()))) {
        bail!("no scenario is called {unknown}; --list names them");
    }
    let is_chosen = |scenario: &&Scenario| names.is_empty() || names.iter().any(|name| scenario.name.contains(name.as_str()));
    Ok(scenarios::ALL.iter().filter(is_chosen).collect())
}

async fn run(scenarios: &[&Scenario]) -> Result<bool> {
    println!("starting the bed: control plane, kwok, Prometheus, DynamoDB, EC2, SQS");
    let (mut bed, took) = start_timed().await?;
    println!("the bed is up after {:.1} s; its logs are in {}", took.as_secs_f64(), bed.folder().display());
    let mut passed = 0;
    let mut failed = Vec::new();
    for (index, scenario) in scenarios.iter().enumerate() {
        if index > 0
            && let Err(error) = bed.reset().await
        {
            // Nothing that would come now could be believed.
            println!("{}", bed.evidence());
            let told = format!("scenario {} FAILED: the bed could not be reset before it: {error:#}", scenario.name);
            println!("{told}");
            failed.push(told);
            break;
        }
        println!("scenario {} ...", scenario.name);
        let started = Instant::now();
        let result = one(scenario, &mut bed).await;
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                passed += 1;
                println!("scenario {} ok in {seconds:.1} s", scenario.name);
            }
            Err(error) => {
                println!("{}", bed.evidence());
                let told = format!("scenario {} FAILED in {seconds:.1} s: {error:#}", scenario.name);
                println!("{told}");
                failed.push(told);
            }
        }
    }
    if !failed.is_empty() {
        println!("all logs are kept in {}", bed.keep_folder().display());
    }
    bed.stop();
    let not_run = scenarios.len() - passed - failed.len();
    let rest = if not_run > 0 { format!(", {not_run} not run") } else { String::new() };
    println!("{passed} passed, {} failed{rest}", failed.len());
    // What went wrong is the last that is said: the rest is long.
    for told in &failed {
        println!("  {told}");
    }
    Ok(failed.is_empty())
}

async fn one(scenario: &Scenario, bed: &mut Bed) -> Result<()> {
    match tokio::time::timeout(scenario.limit(), (scenario.run)(bed)).await {
        Ok(result) => result,
        Err(_) => bail!("not over after {} s", scenario.limit().as_secs()),
    }
}
