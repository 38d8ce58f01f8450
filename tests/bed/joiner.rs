//! The K3s agent of every instance: joins the cluster a boot time after the instance runs, or does not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::cluster::{Cluster, NodeSpec};
use crate::offers::INSTANCE_TYPES;
use crate::proxy::Proxy;
use crate::proxy::xml::Element;

const POLL: Duration = Duration::from_millis(200);

/// An instance as EC2 (moto itself) knows it.
#[derive(Clone, Debug)]
pub struct Instance {
    pub id: String,
    pub state: String,
    pub kind: String,
    pub zone: String,
    pub address: String,
    pub is_spot: bool,
    pub tags: BTreeMap<String, String>,
}

impl Instance {
    /// The name of its node.
    pub fn node_name(&self) -> String {
        format!("worker-{}", self.id)
    }

    /// Pending or running.
    pub fn is_alive(&self) -> bool {
        matches!(self.state.as_str(), "pending" | "running")
    }

    fn is_worker(&self) -> bool {
        self.tags.get("Role").is_some_and(|role| role == "k3s-worker")
    }
}

/// What becomes of a new instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boot {
    /// It joins after this time.
    After(Duration),
    /// It runs and never joins.
    Never,
}

/// The bed's joiner.
#[derive(Clone)]
pub struct Joiner {
    proxy: Proxy,
    cluster: Cluster,
    plan: Arc<Mutex<Plan>>,
}

struct Plan {
    boot: Duration,
    rules: Vec<Rule>,
    agents: BTreeMap<String, Agent>,
    paused: bool,
}

struct Rule {
    test: Box<dyn Fn(&Instance) -> bool + Send>,
    remaining: usize,
    boot: Boot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Agent {
    Booting { until: Option<Instant> },
    Joined,
    Gone,
}

impl Joiner {
    /// Looks at EC2 every 200 ms for as long as the process lives.
    pub fn start(proxy: Proxy, cluster: Cluster, boot: Duration) -> Self {
        let plan = Plan { boot, rules: Vec::new(), agents: BTreeMap::new(), paused: false };
        let joiner = Self { proxy, cluster, plan: Arc::new(Mutex::new(plan)) };
        let worker = joiner.clone();
        tokio::spawn(async move {
            loop {
                let began = Instant::now();
                // A turn fails when a server of the bed is down; the next one tries again.
                let _ = worker.turn().await;
                // A large fleet takes moto long to list: it must have time for the daemon, too.
                tokio::time::sleep(POLL.max(began.elapsed() * 3)).await;
            }
        });
        joiner
    }

    /// How long instances boot from now on.
    pub fn set_boot(&self, boot: Duration) {
        self.with(|plan| plan.boot = boot);
    }

    /// The next `times` instances that pass the test boot in another way.
    pub fn boot_next(&self, times: usize, boot: Boot, test: impl Fn(&Instance) -> bool + Send + 'static) {
        self.with(|plan| plan.rules.push(Rule { test: Box::new(test), remaining: times, boot }));
    }

    /// The next `times` instances never join.
    pub fn never_join(&self, times: usize) {
        self.boot_next(times, Boot::Never, |_| true);
    }

    /// Stops creating and changing nodes, or goes on.
    pub fn pause(&self, paused: bool) {
        self.with(|plan| plan.paused = paused);
    }

    /// Forgets all rules and instances.
    pub fn reset(&self, boot: Duration) {
        self.with(|plan| *plan = Plan { boot, rules: Vec::new(), agents: BTreeMap::new(), paused: false });
    }

    /// Every instance that EC2 knows, the terminated ones too, in order of id.
    pub async fn instances(&self) -> Result<Vec<Instance>> {
        let mut found = Vec::new();
        let mut token = String::new();
        loop {
            let mut parameters = BTreeMap::from([("MaxResults".to_owned(), "1000".to_owned())]);
            if !token.is_empty() {
                parameters.insert("NextToken".to_owned(), token.clone());
            }
            let answer = self.proxy.upstream().ec2("DescribeInstances", &parameters).await?;
            ensure!(answer.is_success(), "DescribeInstances: {}", answer.text());
            let root = Element::parse(&answer.text())?;
            let reservations = root.items("reservationSet").iter();
            found.extend(reservations.flat_map(|reservation| reservation.items("instancesSet")).map(read_instance));
            root.at(&["nextToken"]).clone_into(&mut token);
            if token.is_empty() {
                found.sort_by(|left: &Instance, right| left.id.cmp(&right.id));
                return Ok(found);
            }
        }
    }

    /// The workers that run or are about to.
    pub async fn living_workers(&self) -> Result<Vec<Instance>> {
        let mut all = self.instances().await?;
        all.retain(|instance| instance.is_worker() && instance.is_alive());
        Ok(all)
    }

    /// Those of them that carry this cluster's tag.
    pub async fn living_workers_of(&self, cluster: &str) -> Result<Vec<Instance>> {
        let mut own = self.living_workers().await?;
        own.retain(|instance| instance.tags.get("node-fleet.io/cluster").is_some_and(|tag| tag == cluster));
        Ok(own)
    }

    async fn turn(&self) -> Result<()> {
        let instances = self.instances().await?;
        for instance in instances.iter().filter(|instance| instance.is_worker()) {
            match self.next_step(instance) {
                Step::Wait => {}
                Step::Join => {
                    self.cluster.create_node(&node_of(instance)).await?;
                    self.set(instance, Agent::Joined);
                }
                Step::Vanish => {
                    self.cluster.lose_node(&instance.node_name()).await?;
                    self.set(instance, Agent::Gone);
                }
            }
        }
        Ok(())
    }

    fn next_step(&self, instance: &Instance) -> Step {
        let runs = instance.state == "running" && self.proxy.runs(&instance.id);
        self.with(|plan| {
            if plan.paused {
                return Step::Wait;
            }
            match plan.agents.get(&instance.id) {
                None if runs => {
                    let until = match plan.boot_of(instance) {
                        Boot::After(time) => Some(Instant::now() + time),
                        Boot::Never => None,
                    };
                    plan.agents.insert(instance.id.clone(), Agent::Booting { until });
                    Step::Wait
                }
                Some(Agent::Booting { until: Some(until) }) if runs && Instant::now() >= *until => Step::Join,
                Some(Agent::Joined) if !instance.is_alive() => Step::Vanish,
                None | Some(Agent::Booting { .. } | Agent::Joined | Agent::Gone) => Step::Wait,
            }
        })
    }

    fn set(&self, instance: &Instance, agent: Agent) {
        self.with(|plan| plan.agents.insert(instance.id.clone(), agent));
    }

    fn with<T>(&self, act: impl FnOnce(&mut Plan) -> T) -> T {
        act(&mut self.plan.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

enum Step {
    Wait,
    Join,
    Vanish,
}

impl Plan {
    fn boot_of(&mut self, instance: &Instance) -> Boot {
        match self.rules.iter_mut().find(|rule| rule.remaining > 0 && (rule.test)(instance)) {
            Some(rule) => {
                rule.remaining -= 1;
                rule.boot
            }
            None => Boot::After(self.boot),
        }
    }
}

fn read_instance(item: &Element) -> Instance {
    let text = |path: &[&str]| item.at(path).to_owned();
    let pair = |tag: &Element| (tag.at(&["key"]).to_owned(), tag.at(&["value"]).to_owned());
    Instance {
        id: text(&["instanceId"]),
        state: text(&["instanceState", "name"]),
        kind: text(&["instanceType"]),
        zone: text(&["placement", "availabilityZone"]),
        address: text(&["privateIpAddress"]),
        is_spot: item.at(&["instanceLifecycle"]) == "spot",
        tags: item.items("tagSet").iter().map(pair).collect(),
    }
}

/// The node that the agent of an instance registers.
fn node_of(instance: &Instance) -> NodeSpec {
    let kind = INSTANCE_TYPES.get(&instance.kind).copied();
    let mut labels = BTreeMap::from([
        ("node.kubernetes.io/instance-type".to_owned(), instance.kind.clone()),
        ("topology.kubernetes.io/zone".to_owned(), instance.zone.clone()),
        ("node-fleet.io/market".to_owned(), if instance.is_spot { "spot" } else { "on-demand" }.to_owned()),
    ]);
    if let Some(pool) = instance.tags.get("node-fleet.io/pool") {
        labels.insert("node-fleet.io/pool".to_owned(), pool.clone());
    }
    NodeSpec {
        name: instance.node_name(),
        provider_id: format!("aws:///{}/{}", instance.zone, instance.id),
        address: instance.address.clone(),
        labels,
        taints: Vec::new(),
        cpus: kind.map_or(2, |kind| kind.vcpu),
        memory_mib: kind.map_or(4096, |kind| kind.memory_mib),
    }
}
