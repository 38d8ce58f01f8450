//! What the daemon of a replay is told: the operator's configuration, or the shipped defaults.

use crate::config::{Config, parse};
use crate::model::offer::HourlyPrice;
use crate::policy::ForecastRule;
use crate::sim::replay::{Changes, Operator, Rates};
use anyhow::Context;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// The shipped defaults around what has none. The bounds are out of the way, as those of the imitations are.
const DEFAULTS: &str = r#"
[cluster]
id = "replay"
region = "us-east-1"
[prometheus]
endpoints = ["http://127.0.0.1:9090"]
[[pool]]
name = "workers"
launch_template = "workers"
subnets = ["subnet-0123456789abcdef0"]
instance_types = ["m5.xlarge"]
min = 0
max = 10000
[[forecast]]
name = "demand"
pool = "workers"
query = "demand"
per_node = 1.0
"#;
/// The list price of an m5.xlarge in us-east-1 in 2025, where the configuration prices none of the pool's types.
const PRICE: f64 = 0.192;

/// Whose configuration decides.
#[derive(Debug, clap::Args)]
pub(super) struct Configured {
    /// Your configuration decides for node-fleet: rests, thresholds, evaluation, bounds. Alone it is also where the demand
    /// comes from: the past of its `[[forecast]]` rule, read from its Prometheus.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Which `[[forecast]]`, where the configuration has several.
    #[arg(long, value_name = "NAME", requires = "config")]
    pub(super) rule: Option<String>,
}

/// A configuration that was read, with the rule whose demand is replayed.
pub(super) struct Told {
    text: String,
    env: Vec<(String, String)>,
    /// Its file.
    pub name: String,
    /// What it says.
    pub config: Config,
    /// The rule.
    pub rule: ForecastRule,
}

impl Configured {
    /// Reads the file, or takes the defaults. An exit code instead ends the command: what is wrong was told.
    ///
    /// # Errors
    /// When the file cannot be read, or has no such rule.
    pub(super) fn read(&self) -> anyhow::Result<Result<Told, ExitCode>> {
        let (text, name, env) = match &self.config {
            Some(path) => {
                let name = path.display().to_string();
                let text = std::fs::read_to_string(path).with_context(|| format!("--config {name}"))?;
                (text, name, super::super::environment().collect())
            }
            None => (DEFAULTS.to_owned(), "the shipped defaults".to_owned(), Vec::new()),
        };
        let config = match parse(&text, &name, env.iter().cloned()) {
            Ok(config) => config,
            Err(problems) => {
                writeln!(std::io::stderr().lock(), "{problems}")?;
                return Ok(Err(ExitCode::FAILURE));
            }
        };
        let rule = rule(&config, &name, self.rule.as_deref())?.clone();
        Ok(Ok(Told { text, env, name, config, rule }))
    }
}

impl Told {
    /// Reads the same configuration with some keys changed, as the environment changes them; `None` where it would not be
    /// a valid one.
    pub(super) fn with(&self, changes: &Changes) -> Option<Self> {
        let variable = |key: &str| format!("NODE_FLEET__{}", key.to_uppercase().replace('.', "__"));
        let overrides: Vec<(String, String)> = changes.iter().map(|(key, value)| (variable(key), (*value).to_owned())).collect();
        let is_changed = |name: &str| overrides.iter().any(|(variable, _)| variable.eq_ignore_ascii_case(name));
        let env = self.env.iter().filter(|(name, _)| !is_changed(name)).cloned();
        let config = parse(&self.text, &self.name, env.chain(overrides.iter().cloned())).ok()?;
        let (text, name, env, rule) = (self.text.clone(), self.name.clone(), self.env.clone(), self.rule.clone());
        Some(Self { text, env, name, config, rule })
    }

    /// Reads the same configuration with more in its file.
    #[cfg(test)]
    pub(super) fn followed_by(&self, more: &str) -> Result<Config, crate::config::Problems> {
        parse(&format!("{}{more}", self.text), &self.name, [])
    }

    /// Gives what a replay can show of it.
    ///
    /// # Errors
    /// When the longest boot exceeds `operations.join_timeout`: every node would be given back before it serves.
    pub(super) fn operator(&self, cpu_use: f64, longest_boot: u32) -> anyhow::Result<Operator> {
        let limit = self.config.policy.join_timeout;
        if u64::from(longest_boot) > limit.as_secs() {
            anyhow::bail!(
                "--boot: a boot of {longest_boot}s exceeds operations.join_timeout ({limit:?}), after which a node is given back; expected a shorter boot or a longer join_timeout"
            );
        }
        let operator = Operator::new(&self.config.policy, &self.rule.pool, &self.rule.name);
        let mut operator = operator.with_context(|| format!("{}: forecast.{} names no pool", self.name, self.rule.name))?;
        operator.cpu_use = cpu_use;
        operator.window = usize::try_from(self.config.prometheus.rate_window.as_secs().div_ceil(60)).unwrap_or(1).max(1);
        Ok(operator)
    }

    /// Says why the rule does not tell how many cores a node has: its query counts something else. `None` where it counts
    /// cores, as far as its words tell.
    pub(super) fn no_cores(&self) -> Option<String> {
        let ForecastRule { name, query, per_node, .. } = &self.rule;
        (!query.to_lowercase().contains("cpu")).then(|| {
            format!("forecast.{name}.per_node = {per_node} is in the unit of `{query}`, which does not name the CPU; expected --node-size with a node's cores")
        })
    }

    /// Gives what nodes cost: `on_demand` dollars an hour, or the configured price of the pool's first type that has one, on
    /// spot the configured share of it; and on which market the pool buys how many.
    pub(super) fn rates(&self, on_demand: Option<f64>) -> Rates {
        let on_demand = on_demand.unwrap_or_else(|| self.node_price());
        let spot = self.config.prices.spot_ratio * on_demand;
        match self.config.policy.pools.iter().find(|pool| pool.name == self.rule.pool) {
            Some(pool) => Rates { on_demand, spot, on_demand_base: pool.on_demand_base, spot_share: pool.spot_share },
            None => Rates::on_demand_only(on_demand),
        }
    }

    fn node_price(&self) -> f64 {
        let pool = self.config.pools.iter().find(|pool| pool.pool == self.rule.pool);
        let types = pool.map_or(&[][..], |pool| &pool.instance_types);
        let price = types.iter().find_map(|name| self.config.prices.on_demand.get(name));
        price.copied().map_or(PRICE, HourlyPrice::dollars)
    }
}

/// Finds the rule: the one that is named, or the only one.
fn rule<'c>(config: &'c Config, file: &str, name: Option<&str>) -> anyhow::Result<&'c ForecastRule> {
    let rules = &config.policy.forecasts;
    let names = rules.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = match (name, rules.as_slice()) {
        (None, [only]) => Some(only),
        (None, _) => None,
        (Some(name), rules) => rules.iter().find(|rule| rule.name.as_str() == name),
    };
    found.with_context(|| match (name, rules.len()) {
        (_, 0) => format!("{file} has no [[forecast]]; expected one, with the query of the demand"),
        (Some(name), _) => format!("--rule {name}: expected one of {names}"),
        (None, _) => format!("expected --rule with one of {names}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_is_not_there_is_named_with_those_that_are() {
        let example = include_str!("../../../config/node-fleet.toml");
        let added = "[[forecast]]\nname = \"cores\"\npool = \"workers\"\nquery = \"q\"\nper_node = 1.0\n";
        let parse = |text: &str| crate::config::parse(text, "f", []).unwrap_or_else(|problems| panic!("{problems}"));
        let (none, one) = (parse(example), parse(&format!("{example}\n{added}")));
        let two = parse(&format!("{example}\n{added}{}", added.replace("cores", "orders")));
        let told =
            |config: &Config, name| rule(config, "f.toml", name).map(|rule| rule.name.to_string()).map_err(|error| error.to_string());
        assert!(told(&none, None).is_err_and(|error| error.contains("f.toml has no [[forecast]]")));
        assert_eq!(told(&one, None), Ok("cores".to_owned()));
        assert_eq!(told(&two, Some("orders")), Ok("orders".to_owned()));
        assert_eq!(told(&two, Some("order")), Err("--rule order: expected one of cores, orders".to_owned()));
        assert_eq!(told(&two, None), Err("expected --rule with one of cores, orders".to_owned()));
    }
}
