//! Loads a configuration: the layers, the reading of each section, and what must agree across sections.

use super::problem::{Origin, Problem, Problems};
use super::reader::{Report, Section};
use super::{Config, layers, pools, sections};
use crate::policy::Settings;
use std::collections::BTreeMap;
use std::path::Path;

/// Loads the file, overridden by the environment (`NODE_FLEET__SECTION__KEY`).
///
/// # Errors
/// Every problem at once.
pub fn load(path: &Path, env: impl IntoIterator<Item = (String, String)>) -> Result<Config, Problems> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let origin = Origin::File { name: name.clone(), line: None };
        Problems(vec![Problem { key: String::new(), value: None, expected: format!("cannot be read: {error}"), origin }])
    })?;
    parse(&text, &name, env)
}

/// Reads a configuration from text; `name` stands for the file in what it says.
///
/// # Errors
/// Every problem at once.
pub fn parse(text: &str, name: &str, env: impl IntoIterator<Item = (String, String)>) -> Result<Config, Problems> {
    let env: BTreeMap<String, String> = env.into_iter().filter(|(variable, _)| variable.starts_with(layers::PREFIX)).collect();
    let (tree, problems) = layers::merged(text, name, env);
    if tree.is_empty() && !problems.is_empty() {
        return Err(Problems(problems));
    }
    let report = Report::new(name, problems);
    let config = read(&Section::root(&report, &tree));
    agree(&report, &config);
    let problems = report.into_problems();
    if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
}

fn read(root: &Section<'_>) -> Config {
    let prices = sections::prices(root);
    let (pool_settings, pool_launches) = pools::pools(root, &prices);
    let evaluation = sections::evaluation(root);
    let policy = Settings {
        metrics: pools::metrics(root, &pool_settings),
        pools: pool_settings,
        scale_up: sections::scale_up(root),
        scale_down: sections::scale_down(root),
        rest: sections::rest(root),
        interval: evaluation.interval,
        max_unready_share: evaluation.max_unready_share,
        min_coverage: evaluation.min_coverage,
        price_ceiling: evaluation.price_ceiling,
        replace_interrupted_while_paused: evaluation.replace_interrupted_while_paused,
        stray_grace: evaluation.stray_grace,
        critical_priority: evaluation.critical_priority,
        expendable_below: evaluation.expendable_below,
    };
    Config {
        cluster: sections::cluster(root),
        kubernetes: sections::kubernetes(root),
        prometheus: sections::prometheus(root),
        ledger: sections::ledger(root),
        notices: sections::notices(root),
        operations: sections::operations(root),
        http: sections::http(root),
        log: sections::log(root),
        pools: pool_launches,
        prices,
        policy,
    }
}

/// Finds contradictions between keys.
fn agree(report: &Report, config: &Config) {
    let interval = config.policy.interval;
    let (up, down) = (&config.policy.scale_up, &config.policy.scale_down);
    let interval_key = "evaluation.interval";
    let not_shorter = [
        ("scale_up.cpu_sustain", up.cpu_sustain),
        ("scale_up.memory_sustain", up.memory_sustain),
        ("scale_up.cooldown", up.cooldown),
        ("scale_down.sustain", down.sustain),
        ("scale_down.cooldown", down.cooldown),
    ];
    for (key, value) in not_shorter {
        if value < interval {
            report.contradiction(key, &[interval_key], format!("must not be shorter than {interval_key} ({interval:?})"));
        }
    }
    let below = [
        ("scale_up.cpu_target", up.cpu_target, "scale_up.cpu_above", up.cpu_above),
        ("scale_up.memory_target", up.memory_target, "scale_up.memory_above", up.memory_above),
        ("scale_down.cpu_below", down.cpu_below, "scale_up.cpu_target", up.cpu_target),
        ("scale_down.memory_below", down.memory_below, "scale_up.memory_target", up.memory_target),
    ];
    for (key, value, other, limit) in below {
        if value >= limit {
            report.contradiction(key, &[other], format!("must be below {other} ({limit})"));
        }
    }
    let ledger = &config.ledger;
    if ledger.heartbeat * 3 > ledger.lease / 2 {
        report.contradiction(
            "ledger.heartbeat",
            &["ledger.lease"],
            format!("must fit three times into half of ledger.lease ({:?})", ledger.lease),
        );
    }
    let left = (ledger.lease / 2).saturating_sub(ledger.heartbeat);
    if config.operations.request_timeout + crate::config::REQUEST_MARGIN > left {
        let expected =
            format!("must leave {:?} of what half of ledger.lease leaves after ledger.heartbeat ({left:?})", crate::config::REQUEST_MARGIN);
        report.contradiction("operations.request_timeout", &["ledger.lease", "ledger.heartbeat"], expected);
    }
    if config.policy.rest.first > config.policy.rest.longest {
        report.contradiction(
            "rest.first",
            &["rest.longest"],
            format!("must not be longer than rest.longest ({:?})", config.policy.rest.longest),
        );
    }
    if !config.http.listen.ip().is_loopback() && config.http.token.is_none() {
        report.contradiction("http.listen", &["http.token"], "must be a loopback address unless http.token is set".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: &str = super::layers::EXAMPLE;

    fn problems(change: impl Fn(&str) -> String) -> Vec<String> {
        match parse(&change(EXAMPLE), "fleet.toml", []) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.0.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn the_documented_example_is_fine() {
        let config = parse(EXAMPLE, "node-fleet.toml", []).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!((config.policy.pools[0].min, config.policy.pools[0].max), (2, 10));
        assert_eq!(config.policy.interval, std::time::Duration::from_mins(2));
        assert_eq!(config.policy.pools[0].schedules.len(), 1);
        assert_eq!(config.pools[0].instance_types.len(), 4);
        assert_eq!(config.pools[0].reserved_memory, crate::model::Bytes(512 << 20));
    }

    #[test]
    fn a_file_needs_only_what_has_no_default() {
        let text = r#"
            [cluster]
            id = "c"
            region = "eu-west-1"
            [prometheus]
            endpoints = ["http://127.0.0.1:9090"]
            [[pool]]
            name = "workers"
            launch_template = "lt-0123"
            subnets = ["subnet-1"]
            instance_types = ["m5.large"]
        "#;
        let config = parse(text, "f", []).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(config.policy.pools[0].max, 10);
        assert!(config.policy.pools[0].schedules.is_empty());
    }

    #[test]
    fn each_bad_value_names_its_key_and_what_would_be_right() {
        let rows = [
            ("max = 10", "max = 2.7", "pool.workers.max = 2.7", "whole number"),
            ("max = 10", "max = true", "pool.workers.max = true", "whole number"),
            ("max = 10", "max = \"007\"", "pool.workers.max = \"007\"", "whole number"),
            ("max = 10", "max = 1", "pool.workers.min = 2", "pool.workers.max"),
            ("cpu_above = 0.70", "cpu_above = 70", "scale_up.cpu_above = 70", "share"),
            ("cpu_above = 0.70", "cpu_above = 0.0", "scale_up.cpu_above = 0.0", "share"),
            ("cpu_below = 0.30", "cpu_below = 0.80", "scale_down.cpu_below = 0.8", "scale_up.cpu_target"),
            ("cooldown = \"5m\"", "cooldown = \"30s\"", "scale_up.cooldown = \"30s\"", "evaluation.interval"),
            ("cooldown = \"5m\"", "cooldown = 5", "scale_up.cooldown = 5", "unit"),
            ("cooldown = \"5m\"", "cool_down = \"5m\"", "scale_up.cool_down", "did you mean `cooldown`"),
            ("\"Europe/Berlin\"", "\"Mars/Olympus\"", "timezone = \"Mars/Olympus\"", "IANA"),
            ("\"0 21 * * *\"", "\"0 25 * * *\"", "start = \"0 25 * * *\"", "cron"),
            ("heartbeat = \"3s\"", "heartbeat = \"9s\"", "ledger.heartbeat = \"9s\"", "ledger.lease"),
            ("request_timeout = \"5s\"", "request_timeout = \"9s\"", "operations.request_timeout = \"9s\"", "ledger.lease"),
            ("id = \"example\"", "", "cluster.id", "missing"),
            ("\"m6i.xlarge\"]", "\"z9.huge\"]", "instance_types", "prices.on_demand"),
            ("listen = \"127.0.0.1:9477\"", "listen = \"0.0.0.0:9477\"", "http.listen", "loopback"),
            ("[notices]", "[notice]", "notice", "did you mean `notices`"),
        ];
        for (from, to, key, expected) in rows {
            let found = problems(|text| text.replacen(from, to, 1));
            assert!(found.iter().any(|line| line.contains(key) && line.contains(expected)), "{to}: {found:#?}");
            assert!(found.iter().all(|line| line.starts_with("fleet.toml")), "{to}: {found:#?}");
        }
    }

    #[test]
    fn all_problems_come_at_once_with_their_lines() {
        let found = problems(|text| {
            text.replacen("cpu_above = 0.70", "cpu_above = 7", 1).replacen("max = 10", "max = -1", 1).replacen(
                "[log]",
                "[log]\nlvel = 3",
                1,
            )
        });
        assert_eq!(found.len(), 3, "{found:#?}");
        let line = EXAMPLE.lines().position(|line| line.starts_with("cpu_above")).expect("the key") + 2;
        assert!(found.iter().any(|text| text.starts_with(&format!("fleet.toml:{line}: scale_up.cpu_above"))), "{found:#?}");
    }

    #[test]
    fn the_environment_overrides_and_its_faults_name_the_variable() {
        let with = |variable: &str, value: &str| parse(EXAMPLE, "f", [(variable.to_owned(), value.to_owned())]);
        assert_eq!(with("NODE_FLEET__POOL__WORKERS__MAX", "20").expect("it is fine").policy.pools[0].max, 20);
        for (variable, value) in
            [("NODE_FLEET__POOL__WORKERS__MAX", "007"), ("NODE_FLEET__SCALE_UP__COOLDOWN", "5"), ("NODE_FLEET__SCALE_UPP__X", "1")]
        {
            let problems = with(variable, value).expect_err(variable);
            assert_eq!(problems.0.len(), 1, "{problems}");
            assert!(problems.to_string().starts_with(variable), "{problems}");
        }
    }

    #[test]
    fn a_secret_in_the_file_is_refused_without_being_repeated() {
        let found =
            problems(|text| text.replacen("[ledger]", "[prometheus.auth]\nusername = \"u\"\npassword = \"canary-7f3a\"\n[ledger]", 1));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains("prometheus.auth.password") && !found[0].contains("canary"), "{found:#?}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(?s).{0,300}") {
            let _ = parse(&text, "f", []);
        }

        #[test]
        fn no_value_of_a_key_makes_it_panic(value in "[-0-9a-z\"\\[\\]{}.=, ]{0,12}", line in 0_usize..300) {
            let changed = |(index, text): (usize, &str)| match text.split_once(" = ") {
                Some((key, _)) if index == line => format!("{key} = {value}"),
                _ => text.to_owned(),
            };
            let text: Vec<String> = EXAMPLE.lines().enumerate().map(changed).collect();
            let _ = parse(&text.join("\n"), "f", []);
        }
    }
}
