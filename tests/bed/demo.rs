//! The demonstration: a workload grows and shrinks, and the terminal tells what becomes of it as it happens.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::bed::Bed;
use crate::cluster::{has_taint, is_cordoned, is_ready, is_running, unschedulable_since};
use crate::configuration::Configuration;
use crate::workload::Workload;

const WORKLOAD: &str = "shop";

/// What happens to the workload, and for how long it is watched afterwards.
const ACTS: [(&str, usize, u64); 3] =
    [("a small workload: 4 pods of half a core", 4, 30), ("the load grows: 16 pods", 16, 30), ("the load falls: 4 pods", 4, 120)];

/// Runs the three acts.
pub async fn run(bed: &mut Bed) -> Result<()> {
    let configuration = Configuration::default().toml(bed);
    let prepared = bed.run_command(&configuration, &["check", "--config", "{config}", "--create-table"]).await?;
    if prepared.code != 0 {
        bail!("node-fleet check: {}{}", prepared.stdout, prepared.stderr);
    }
    let mut daemon = bed.start_daemon("nodefleet", &configuration)?;
    println!("node-fleet runs: {}/api/v1/status and {}/metrics", daemon.url(), daemon.url());
    daemon.ready(Duration::from_secs(30)).await?;
    let mut story = Story { started: Instant::now(), seen: BTreeMap::new(), told: BTreeSet::new() };
    for (headline, pods, seconds) in ACTS {
        println!("\n{headline}");
        bed.cluster.apply(&Workload::new(WORKLOAD, pods, "500m", "256Mi")).await?;
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            daemon.process().must_run()?;
            story.look(bed).await?;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
    let code = daemon.terminate(Duration::from_secs(10)).await?;
    println!("\nnode-fleet was asked to end and did, with code {code}");
    Ok(())
}

/// What was told so far, so that only news is told.
struct Story {
    started: Instant,
    seen: BTreeMap<String, String>,
    told: BTreeSet<usize>,
}

impl Story {
    async fn look(&mut self, bed: &Bed) -> Result<()> {
        for call in bed.proxy.calls() {
            let is_told = matches!(call.action.as_str(), "CreateFleet" | "TerminateInstances") && call.status.is_some();
            if is_told && self.told.insert(call.number) {
                let instances = call.parameters.iter().filter(|(key, _)| key.starts_with("InstanceId.")).map(|(_, id)| id);
                let named: Vec<&String> = call.instances.iter().chain(instances).collect();
                self.tell(&format!("EC2: {} {named:?}", call.action));
            }
        }
        let workers = bed.cluster.workers().await?;
        let gone: Vec<String> = self.seen.keys().filter(|name| !workers.contains_key(*name) && *name != WORKLOAD).cloned().collect();
        for name in gone {
            self.seen.remove(&name);
            self.tell(&format!("node {name} is gone"));
        }
        for (name, node) in &workers {
            let mut state = if is_ready(node) { "Ready".to_owned() } else { "not Ready".to_owned() };
            if is_cordoned(node) {
                state.push_str(", cordoned");
            }
            if has_taint(node, "node.kubernetes.io/unreachable") {
                state.push_str(", unreachable");
            }
            self.news(name, &format!("node {name} is {state}"));
        }
        let pods = bed.cluster.pods(WORKLOAD).await?;
        let running = pods.iter().filter(|pod| is_running(pod)).count();
        let stuck = pods.iter().filter(|pod| unschedulable_since(pod).is_some()).count();
        self.news(WORKLOAD, &format!("{running} of {} pods run, {stuck} find no node", pods.len()));
        Ok(())
    }

    fn news(&mut self, about: &str, text: &str) {
        if self.seen.insert(about.to_owned(), text.to_owned()).as_deref() != Some(text) {
            self.tell(text);
        }
    }

    fn tell(&self, text: &str) {
        println!("{:6.1} s  {text}", self.started.elapsed().as_secs_f64());
    }
}
