//! The daemon's configuration in the bed: the shipped defaults, with a clock that runs 24 times as fast.

use crate::bed::Bed;
use crate::ledger::TABLE;
use crate::offers::{INSTANCE_TYPES, InstanceType, REGION};

/// A configuration in the making; its fields are the settings that scenarios change.
#[derive(Clone, Debug)]
pub struct Configuration {
    pub min: u32,
    pub max: u32,
    pub on_demand_base: u32,
    pub spot_share: f64,
    /// `roll-back` or `force`.
    pub on_drain_timeout: String,
    pub instance_types: Vec<String>,
    pub interval: String,
    /// How long a threshold must be exceeded: 4 minutes become 10 s.
    pub up_sustain: String,
    pub down_sustain: String,
    pub up_cooldown: String,
    pub down_cooldown: String,
    pub min_node_age: String,
    pub join_timeout: String,
    pub drain_timeout: String,
    pub lease: String,
    pub heartbeat: String,
    /// The deadline of one request to the ledger.
    pub ledger_timeout: String,
    /// The window of `rate()`.
    pub rate_window: String,
    /// Another address of Prometheus than the bed's own.
    pub prometheus: Option<String>,
    pub scale_down: bool,
    /// Nodes are replaced by cheaper ones: only where a scenario is about it.
    pub replacement: bool,
    /// EC2 and the price list are asked for prices, and the table is wrong: otherwise the table holds, in all zones.
    pub read_prices: bool,
    /// How long an offer that failed rests first.
    pub offer_rest: String,
    /// How long a node whose drain failed is left alone.
    pub node_rest: String,
    /// More tables, as TOML: `[[metric]]`, `[[pool.schedule]]`.
    pub more: String,
}

impl Default for Configuration {
    fn default() -> Self {
        let text = str::to_owned;
        Self {
            min: 2,
            max: 10,
            on_demand_base: 1,
            spot_share: 0.7,
            on_drain_timeout: text("roll-back"),
            instance_types: vec![text("t3.medium"), text("t3.large"), text("m5.large")],
            interval: text("5s"),
            up_sustain: text("10s"),
            down_sustain: text("25s"),
            up_cooldown: text("12s"),
            down_cooldown: text("25s"),
            min_node_age: text("10s"),
            join_timeout: text("20s"),
            drain_timeout: text("15s"),
            lease: text("8s"),
            heartbeat: text("1s"),
            ledger_timeout: text("900ms"),
            rate_window: text("10s"),
            prometheus: None,
            scale_down: true,
            replacement: false,
            read_prices: false,
            offer_rest: text("10s"),
            node_rest: text("15s"),
            more: String::new(),
        }
    }
}

impl Configuration {
    /// Nothing is bought for CPU within a scenario: for those that count what they buy for pods that fill their nodes.
    #[must_use]
    pub fn blind_to_cpu(self) -> Self {
        Self { up_sustain: "10m".to_owned(), ..self }
    }

    /// Removals within seconds: for scenarios about what becomes of them, not about when they come.
    #[must_use]
    pub fn hasty(self) -> Self {
        let text = str::to_owned;
        Self {
            interval: text("1s"),
            down_sustain: text("3s"),
            down_cooldown: text("2s"),
            up_cooldown: text("2s"),
            up_sustain: text("5s"),
            min_node_age: text("2s"),
            ..self
        }
    }

    /// The shortest lease that three heartbeats and a request fit into.
    #[must_use]
    pub fn short_lease(self) -> Self {
        Self { lease: "7s".to_owned(), heartbeat: "1s".to_owned(), ..self }
    }

    /// The lease as it is shipped.
    #[must_use]
    pub fn shipped_lease(self) -> Self {
        Self { lease: "20s".to_owned(), heartbeat: "3s".to_owned(), ledger_timeout: "2s".to_owned(), ..self }
    }

    /// The file for a daemon in this bed.
    pub fn toml(&self, bed: &Bed) -> String {
        let list = |items: &mut dyn Iterator<Item = &String>| items.map(|item| format!("\"{item}\"")).collect::<Vec<_>>().join(", ");
        let wrong = if self.read_prices { 2.0 } else { 1.0 };
        let price = |(name, kind): (&String, &InstanceType)| format!("\"{name}\" = {}", kind.on_demand * wrong);
        let prices = INSTANCE_TYPES.iter().map(price).collect::<Vec<_>>().join("\n");
        let [world, rules] = [self.world(bed), self.rules()];
        format!(
            "{world}{rules}\
             [[pool]]\nname = \"workers\"\nlaunch_template = \"{}\"\nsubnets = [{}]\ninstance_types = [{}]\n\
             min = {}\nmax = {}\non_demand_base = {}\nspot_share = {:?}\non_drain_timeout = \"{}\"\n\
             reserved_cpu = \"100m\"\nreserved_memory = \"600Mi\"\nmax_pods = 110\n{}\n\
             [prices]\nas_of = \"2025-06-01\"\nread_on_demand = {}\nread_spot = {}\nspot_ratio = 0.35\n[prices.on_demand]\n{prices}",
            bed.account.launch_template_name,
            list(&mut bed.account.subnets.values()),
            list(&mut self.instance_types.iter()),
            self.min,
            self.max,
            self.on_demand_base,
            self.spot_share,
            self.on_drain_timeout,
            self.more,
            self.read_prices,
            self.read_prices,
        )
    }

    fn world(&self, bed: &Bed) -> String {
        format!(
            "[cluster]\nid = \"{}\"\nregion = \"{REGION}\"\n[kubernetes]\ntimeout = \"2s\"\n\
             [prometheus]\nendpoints = [\"{}\"]\ntimeout = \"2s\"\nmax_sample_age = \"5s\"\nrate_window = \"{}\"\nnode_label = \"node\"\n\
             [ledger]\ntable = \"{TABLE}\"\nlease = \"{}\"\nheartbeat = \"{}\"\ntimeout = \"{}\"\n\
             [notices]\nqueue_url = \"{}\"\nwait = \"5s\"\n\
             [operations]\nrequest_timeout = \"2s\"\njoin_timeout = \"{}\"\ndrain_timeout = \"{}\"\nretry = \"500ms\"\n\
             interruption_margin = \"5s\"\n[log]\nlevel = \"info\"\nformat = \"text\"\n",
            bed.cluster_id,
            self.prometheus.clone().unwrap_or_else(|| bed.prometheus.url()),
            self.rate_window,
            self.lease,
            self.heartbeat,
            self.ledger_timeout,
            bed.account.queue_url,
            self.join_timeout,
            self.drain_timeout,
        )
    }

    fn rules(&self) -> String {
        format!(
            "[evaluation]\ninterval = \"{}\"\nstray_grace = \"5s\"\n\
             [scale_up]\ncpu_sustain = \"{}\"\nmemory_sustain = \"{}\"\ncooldown = \"{}\"\n\
             [scale_down]\nenabled = {}\nsustain = \"{}\"\ncooldown = \"{}\"\nlongest_cooldown = \"{}\"\nmin_node_age = \"{}\"\n\
             [replacement]\nenabled = {}\n[rest]\nfirst = \"{}\"\nlongest = \"1m\"\nnode = \"{}\"\n",
            self.interval,
            self.up_sustain,
            self.up_sustain,
            self.up_cooldown,
            self.scale_down,
            self.down_sustain,
            self.down_cooldown,
            self.down_cooldown,
            self.min_node_age,
            self.replacement,
            self.offer_rest,
            self.node_rest,
        )
    }
}
