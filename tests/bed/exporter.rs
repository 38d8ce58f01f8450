//! `node_exporter` of every node at once: counters that run in real time at a utilisation of the bed's choosing.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Where the utilisation of a node comes from.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// Fractions of the node's CPU and memory, 0 to 1.
    Fixed { cpu: f64, memory: f64 },
    /// The requests of the pods that run on the node, times `factor`.
    Requests { factor: f64 },
}

/// What is wrong with the metrics of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ailment {
    /// Not among the targets: no series at all.
    Absent,
    /// Each scrape is answered with 500: the series end.
    Failing,
    /// Each scrape hangs.
    Hanging,
    /// The same samples again and again, with the time at which they froze.
    Frozen,
    /// Samples that go on, each so many seconds old.
    Late(u32),
    /// A memory that is no number.
    NotANumber,
}

/// What a node of the cluster is, as the exporter needs to know it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    pub cpus: u32,
    pub memory_bytes: u64,
    /// What the pods that run there ask for, as fractions of the machine.
    pub requested_cpu: f64,
    pub requested_memory: f64,
}

/// The exporter's server.
#[derive(Clone)]
pub struct Exporter {
    shared: Arc<Mutex<Shared>>,
    address: SocketAddr,
}

struct Shared {
    nodes: BTreeMap<String, Counters>,
    loads: BTreeMap<String, Load>,
    load_of_others: Load,
    ailments: BTreeMap<String, Ailment>,
    ailment_of_all: Option<Ailment>,
    gauges: BTreeMap<String, f64>,
}

/// The counters of one node, integrated up to `at`.
struct Counters {
    machine: Machine,
    at: Instant,
    busy_seconds: f64,
    idle_seconds: f64,
    frozen: Option<String>,
}

impl Exporter {
    /// Serves on a free port for as long as the process lives.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Shared {
            nodes: BTreeMap::new(),
            loads: BTreeMap::new(),
            load_of_others: Load::Requests { factor: 1.0 },
            ailments: BTreeMap::new(),
            ailment_of_all: None,
            gauges: BTreeMap::new(),
        };
        let exporter = Self { shared: Arc::new(Mutex::new(shared)), address };
        let router = Router::new()
            .route("/targets", get(targets))
            .route("/nodes/{node}/metrics", get(node_metrics))
            .route("/application", get(application))
            .with_state(exporter.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(exporter)
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the load of one node.
    pub fn set_load(&self, node: &str, load: Load) {
        self.with(|shared| {
            shared.settle();
            shared.loads.insert(node.to_owned(), load);
        });
    }

    /// Sets the load of every node, and of those to come.
    pub fn set_load_of_all(&self, load: Load) {
        self.with(|shared| {
            shared.settle();
            shared.loads.clear();
            shared.load_of_others = load;
        });
    }

    /// Makes the metrics of one node ill, or well again.
    pub fn set_ailment(&self, node: &str, ailment: Option<Ailment>) {
        self.with(|shared| match ailment {
            Some(ailment) => drop(shared.ailments.insert(node.to_owned(), ailment)),
            None => drop(shared.ailments.remove(node)),
        });
    }

    /// Makes the metrics of every node ill, or well again.
    pub fn set_ailment_of_all(&self, ailment: Option<Ailment>) {
        self.with(|shared| {
            shared.ailments.clear();
            shared.ailment_of_all = ailment;
        });
    }

    /// Sets a gauge of the application, such as `queue_depth`, or removes it.
    pub fn set_gauge(&self, name: &str, value: Option<f64>) {
        self.with(|shared| match value {
            Some(value) => drop(shared.gauges.insert(name.to_owned(), value)),
            None => drop(shared.gauges.remove(name)),
        });
    }

    /// Takes over which nodes there are; counters of nodes that stay run on.
    pub fn set_machines(&self, machines: &BTreeMap<String, Machine>) {
        self.with(|shared| {
            shared.settle();
            shared.nodes.retain(|name, _| machines.contains_key(name));
            for (name, machine) in machines {
                let counters = shared.nodes.entry(name.clone()).or_insert_with(|| Counters::new(*machine));
                counters.machine = *machine;
            }
        });
    }

    /// Everything as at the start.
    pub fn reset(&self) {
        self.set_load_of_all(Load::Requests { factor: 1.0 });
        self.set_ailment_of_all(None);
        self.with(|shared| shared.gauges.clear());
    }

    fn with<T>(&self, act: impl FnOnce(&mut Shared) -> T) -> T {
        act(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shared {
    /// Brings every counter up to now, at the load that was in force until now.
    fn settle(&mut self) {
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        for name in names {
            let load = self.load_of(&name);
            if let Some(counters) = self.nodes.get_mut(&name) {
                counters.advance(load);
            }
        }
    }

    fn load_of(&self, node: &str) -> Load {
        self.loads.get(node).copied().unwrap_or(self.load_of_others)
    }

    fn ailment_of(&self, node: &str) -> Option<Ailment> {
        self.ailments.get(node).copied().or(self.ailment_of_all)
    }

    fn text(&mut self, node: &str) -> Option<String> {
        let (load, ailment) = (self.load_of(node), self.ailment_of(node));
        let counters = self.nodes.get_mut(node)?;
        let is_frozen = ailment == Some(Ailment::Frozen);
        if is_frozen && let Some(text) = &counters.frozen {
            return Some(text.clone());
        }
        counters.advance(load);
        let text = match ailment {
            Some(Ailment::Frozen) => counters.text(load, Some(0)),
            Some(Ailment::Late(seconds)) => counters.text(load, Some(seconds)),
            Some(Ailment::NotANumber) => counters.text(Load::Fixed { cpu: counters.utilisation(load).0, memory: f64::NAN }, None),
            Some(Ailment::Absent | Ailment::Failing | Ailment::Hanging) | None => counters.text(load, None),
        };
        counters.frozen = is_frozen.then(|| text.clone());
        Some(text)
    }
}

impl Counters {
    fn new(machine: Machine) -> Self {
        Self { machine, at: Instant::now(), busy_seconds: 1_000.0, idle_seconds: 10_000.0, frozen: None }
    }

    fn advance(&mut self, load: Load) {
        let elapsed = self.at.elapsed().as_secs_f64();
        self.at = Instant::now();
        let (cpu, _) = self.utilisation(load);
        self.busy_seconds += elapsed * cpu;
        self.idle_seconds += elapsed * (1.0 - cpu);
    }

    fn utilisation(&self, load: Load) -> (f64, f64) {
        let (cpu, memory) = match load {
            Load::Fixed { cpu, memory } => (cpu, memory),
            Load::Requests { factor } => (self.machine.requested_cpu * factor, self.machine.requested_memory * factor),
        };
        (cpu.clamp(0.0, 1.0), memory.clamp(0.0, 1.0))
    }

    /// The text format of `node_exporter`; with an age in seconds, as it was then, at this load, and with that time.
    fn text(&self, load: Load, age: Option<u32>) -> String {
        let (cpu, memory) = self.utilisation(load);
        let seconds = f64::from(age.unwrap_or(0));
        let (busy, idle) = (self.busy_seconds - seconds * cpu, self.idle_seconds - seconds * (1.0 - cpu));
        let stamp = age.map(|age| format!(" {}", Timestamp::now().as_millisecond() - i64::from(age) * 1000)).unwrap_or_default();
        let mut text = String::from("# TYPE node_cpu_seconds_total counter\n");
        for index in 0..self.machine.cpus {
            let shares = [("idle", idle), ("user", busy * 0.7), ("system", busy * 0.2)];
            let rest = [("iowait", busy * 0.1), ("irq", 0.0), ("nice", 0.0), ("softirq", 0.0), ("steal", 0.0)];
            for (mode, seconds) in shares.into_iter().chain(rest) {
                let _ = writeln!(text, "node_cpu_seconds_total{{cpu=\"{index}\",mode=\"{mode}\"}} {seconds:.6}{stamp}");
            }
        }
        let total = self.machine.memory_bytes as f64;
        let gauges = [
            ("node_memory_MemTotal_bytes", total),
            ("node_memory_MemAvailable_bytes", total * (1.0 - memory)),
            ("node_load1", cpu * f64::from(self.machine.cpus)),
        ];
        for (name, value) in gauges {
            let _ = writeln!(text, "# TYPE {name} gauge\n{name} {value}{stamp}");
        }
        text
    }
}

async fn targets(State(exporter): State<Exporter>) -> Json<Value> {
    let address = exporter.address.to_string();
    let list = exporter.with(|shared| {
        let present = shared.nodes.keys().filter(|node| shared.ailment_of(node) != Some(Ailment::Absent));
        let target = |node: &String| {
            let labels = json!({"node": node, "instance": format!("{node}:9100"), "__metrics_path__": format!("/nodes/{node}/metrics")});
            json!({"targets": [address], "labels": labels})
        };
        present.map(target).collect::<Vec<_>>()
    });
    Json(Value::Array(list))
}

async fn node_metrics(State(exporter): State<Exporter>, Path(node): Path<String>) -> Response {
    match exporter.with(|shared| shared.ailment_of(&node)) {
        Some(Ailment::Failing | Ailment::Absent) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Some(Ailment::Hanging) => tokio::time::sleep(Duration::from_secs(60)).await,
        Some(Ailment::Frozen | Ailment::Late(_) | Ailment::NotANumber) | None => {}
    }
    match exporter.with(|shared| shared.text(&node)) {
        Some(text) => text.into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn application(State(exporter): State<Exporter>) -> String {
    exporter.with(|shared| {
        let line = |(name, value): (&String, &f64)| format!("# TYPE {name} gauge\n{name} {value}\n");
        shared.gauges.iter().map(line).collect()
    })
}
