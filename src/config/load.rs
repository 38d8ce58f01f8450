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
    let operations = sections::operations(root);
    let metrics = pools::metrics(root, &pool_settings);
    let policy = Settings {
        forecasts: pools::forecasts(root, &pool_settings, &metrics),
        predictive: sections::predictive(root),
        metrics,
        pools: pool_settings,
        scale_up: sections::scale_up(root),
        scale_down: sections::scale_down(root),
        consolidation: sections::consolidation(root),
        replacement: sections::replacement(root),
        rest: sections::rest(root),
        interval: evaluation.interval,
        max_unready_share: evaluation.max_unready_share,
        min_coverage: evaluation.min_coverage,
        price_ceiling: evaluation.price_ceiling,
        replace_interrupted_while_paused: evaluation.replace_interrupted_while_paused,
        stray_grace: evaluation.stray_grace,
        unhealthy_after: evaluation.unhealthy_after,
        join_timeout: operations.join_timeout,
        startup_taints: evaluation.startup_taints,
        critical_priority: evaluation.critical_priority,
        expendable_below: evaluation.expendable_below,
    };
    Config {
        cluster: sections::cluster(root),
        kubernetes: sections::kubernetes(root),
        prometheus: sections::prometheus(root),
        ledger: sections::ledger(root),
        notices: sections::notices(root),
        operations,
        http: sections::http(root),
        log: sections::log(root),
        slack: sections::slack(root),
        cloudwatch: sections::cloudwatch(root),
        pools: pool_launches,
        prices,
        policy,
    }
}

/// Finds contradictions between keys.
fn agree(report: &Report, config: &Config) {
    agree_on_rules(report, config);
    agree_on_deadlines(report, config);
    if !config.http.listen.ip().is_loopback() && config.http.token.is_none() {
        report.contradiction("http.listen", &["http.token"], "must be a loopback address unless http.token is set".into());
    }
}

fn agree_on_rules(report: &Report, config: &Config) {
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
    let consolidation = config.policy.consolidation.iter();
    let not_shorter = not_shorter.into_iter().chain(consolidation.map(|rule| ("consolidation.sustain", rule.sustain)));
    let metrics = config.policy.metrics.iter().map(|rule| (format!("metric.{}.sustain", rule.name), rule.sustain));
    for (key, value) in not_shorter.map(|(key, value)| (key.to_owned(), value)).chain(metrics) {
        if value < interval {
            report.contradiction(&key, &[interval_key], format!("must not be shorter than {interval_key} ({interval:?})"));
        }
    }
    let below = [
        ("scale_up.cpu_target", up.cpu_target, "scale_up.cpu_above", up.cpu_above),
        ("scale_up.memory_target", up.memory_target, "scale_up.memory_above", up.memory_above),
        ("scale_down.cpu_below", down.cpu_below, "scale_up.cpu_target", up.cpu_target),
        ("scale_down.memory_below", down.memory_below, "scale_up.memory_target", up.memory_target),
    ];
    let consolidation = config.policy.consolidation.iter().flat_map(|rule| {
        [
            ("consolidation.cpu_below", rule.cpu_below, "scale_up.cpu_target", up.cpu_target),
            ("consolidation.memory_below", rule.memory_below, "scale_up.memory_target", up.memory_target),
        ]
    });
    for (key, value, other, limit) in below.into_iter().chain(consolidation) {
        if value >= limit {
            report.contradiction(key, &[other], format!("must be below {other} ({limit})"));
        }
    }
    let (expendable, critical) = (config.policy.expendable_below, config.policy.critical_priority);
    if expendable > critical {
        let other = "evaluation.critical_priority";
        report.contradiction("evaluation.expendable_below", &[other], format!("must not be above {other} ({critical})"));
    }
    let rest = &config.policy.rest;
    if down.longest_cooldown < down.cooldown {
        report.contradiction(
            "scale_down.longest_cooldown",
            &["scale_down.cooldown"],
            format!("must not be shorter than scale_down.cooldown ({:?})", down.cooldown),
        );
    }
    if rest.first > rest.longest {
        report.contradiction("rest.first", &["rest.longest"], format!("must not be longer than rest.longest ({:?})", rest.longest));
    }
    if rest.stopped < rest.longest {
        report.contradiction("rest.stopped", &["rest.longest"], format!("must not be shorter than rest.longest ({:?})", rest.longest));
    }
}

fn agree_on_deadlines(report: &Report, config: &Config) {
    let ledger = &config.ledger;
    if ledger.heartbeat * 3 > ledger.lease / 2 {
        report.contradiction(
            "ledger.heartbeat",
            &["ledger.lease"],
            format!("must fit three times into half of ledger.lease ({:?})", ledger.lease),
        );
    }
    if ledger.timeout >= ledger.heartbeat {
        let expected = format!("must be shorter than ledger.heartbeat ({:?})", ledger.heartbeat);
        report.contradiction("ledger.timeout", &["ledger.heartbeat"], expected);
    }
    let request_timeout = config.operations.request_timeout;
    let left = (ledger.lease / 2).saturating_sub(ledger.heartbeat);
    if request_timeout + crate::config::REQUEST_MARGIN > left {
        let expected =
            format!("must leave {:?} of what half of ledger.lease leaves after ledger.heartbeat ({left:?})", crate::config::REQUEST_MARGIN);
        report.contradiction("operations.request_timeout", &["ledger.lease", "ledger.heartbeat"], expected);
    }
    // Before a request is sent, the lease is held against this deadline alone, whichever system it goes to.
    if config.kubernetes.timeout > request_timeout {
        let expected = format!("must not be longer than operations.request_timeout ({request_timeout:?})");
        report.contradiction("kubernetes.timeout", &["operations.request_timeout"], expected);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{AtOnce, ForecastRule, PredictiveMode};
    use proptest::prelude::*;

    const EXAMPLE: &str = super::layers::EXAMPLE;
    /// What the example shows without meaning it: tables that an operator may add. They stand at its end.
    const ADDED: &str = r#"
        [[pool.schedule]]
        start = "30 20 * * *"
        end = "0 9 * * *"
        timezone = "Europe/Paris"
        min = 2
        max = 2

        [[pool.headroom]]
        pods = 2
        cpu = "500m"
        memory = "512Mi"

        [[pool.headroom]]
        pods = 4
        cpu = "1"
        memory = "1Gi"
        start = "0 7 * * 1-5"
        end = "0 19 * * 1-5"
        timezone = "Europe/Paris"

        [[pool.disruption]]
        nodes = 1

        [[pool.disruption]]
        share = 0.1
        reasons = ["cheaper", "consolidated"]
        start = "0 8 * * 1-5"
        end = "0 18 * * 1-5"
        timezone = "Europe/Paris"

        [[metric]]
        name = "queue_depth"
        pool = "workers"
        query = "sum(queue)"
        per_node = 500.0
        sustain = "4m"

        [[forecast]]
        name = "cores"
        pool = "workers"
        query = "sum(requests)"
        per_node = 7.25
    "#;

    fn problems(change: impl Fn(&str) -> String) -> Vec<String> {
        match parse(&change(&format!("{EXAMPLE}{ADDED}")), "fleet.toml", []) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.0.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn the_documented_example_is_fine() {
        let config = parse(EXAMPLE, "node-fleet.toml", []).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!((config.policy.pools[0].min, config.policy.pools[0].max), (2, 10));
        assert_eq!(config.policy.interval, std::time::Duration::from_mins(2));
        assert!(config.policy.pools[0].schedules.is_empty(), "a schedule is an example, no default");
        assert_eq!(config.policy.join_timeout, config.operations.join_timeout);
        assert_eq!(config.policy.unhealthy_after, std::time::Duration::from_mins(15));
        assert_eq!(config.policy.rest.stopped, std::time::Duration::from_hours(24));
        let taints: Vec<_> = config.policy.startup_taints.iter().map(String::as_str).collect();
        let expected = [
            "ebs.csi.aws.com/agent-not-ready",
            "efs.csi.aws.com/agent-not-ready",
            "node.cilium.io/agent-not-ready",
            "node.cloudprovider.kubernetes.io/uninitialized",
        ];
        assert_eq!(taints, expected);
        assert_eq!(config.pools[0].instance_types.len(), 4);
        assert_eq!(config.pools[0].reserved_memory, crate::model::Bytes(512 << 20));
    }

    #[test]
    fn what_an_operator_adds_is_read() {
        let config = parse(&format!("{EXAMPLE}{ADDED}"), "f", []).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!((config.policy.pools[0].schedules.len(), config.policy.metrics.len()), (1, 1));
        let forecast = ForecastRule { name: "cores".into(), pool: "workers".into(), query: "sum(requests)".into(), per_node: 7.25 };
        assert_eq!(config.policy.forecasts, [forecast]);
        let predictive = config.policy.predictive;
        assert_eq!((predictive.mode, predictive.price_of_waiting), (PredictiveMode::Auto, 20.0));
        assert_eq!(predictive.zone, jiff::tz::TimeZone::UTC);
        let zone = ("NODE_FLEET__PREDICTIVE__TIMEZONE".to_owned(), "Europe/Berlin".to_owned());
        let moved = parse(EXAMPLE, "f", [zone]).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(moved.policy.predictive.zone.iana_name(), Some("Europe/Berlin"));
        let [always, by_day] = &config.policy.pools[0].headroom[..] else { panic!("two of them") };
        assert_eq!((always.pods, always.each.cpu.0, always.each.memory.0, always.schedule.is_none()), (2, 500, 512 << 20, true));
        assert_eq!((by_day.pods, by_day.each.cpu.0, by_day.schedule.is_some()), (4, 1000, true));
        let [always, by_day] = &config.policy.pools[0].disruption[..] else { panic!("two of them") };
        assert_eq!((always.nodes, &always.reasons, always.schedule.is_none()), (AtOnce::Nodes(1), &None, true));
        let reasons = Some(["cheaper", "consolidated"].map(ToOwned::to_owned).into());
        assert_eq!((by_day.nodes, &by_day.reasons, by_day.schedule.is_some()), (AtOnce::Share(0.1), &reasons, true));
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
        assert_eq!(config.policy.startup_taints.len(), 4);
        let bare = text.replace("[prometheus]", "[evaluation]\nstartup_taints = []\n[prometheus]");
        assert!(parse(&bare, "f", []).is_ok_and(|config| config.policy.startup_taints.is_empty()), "a list replaces the default");
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
            ("timezone = \"UTC\"", "timezone = \"Mars\"", "slack.timezone = \"Mars\"", "IANA"),
            ("daily_report = \"0 8 * * *\"", "daily_report = \"8\"", "slack.daily_report = \"8\"", "cron"),
            ("namespace = \"node-fleet\"", "namespace = \"AWS/EC2\"", "cloudwatch.namespace = \"AWS/EC2\"", "AWS/"),
            ("interval = \"60s\"", "interval = \"5s\"", "cloudwatch.interval = \"5s\"", "30s"),
            ("interval = \"60s\"", "interval = \"121s\"", "cloudwatch.interval = \"121s\"", "2m"),
            ("\"Europe/Paris\"", "\"Mars/Olympus\"", "timezone = \"Mars/Olympus\"", "IANA"),
            ("\"30 20 * * *\"", "\"0 25 * * *\"", "start = \"0 25 * * *\"", "cron"),
            ("heartbeat = \"3s\"", "heartbeat = \"9s\"", "ledger.heartbeat = \"9s\"", "ledger.lease"),
            ("request_timeout = \"5s\"", "request_timeout = \"9s\"", "operations.request_timeout = \"9s\"", "ledger.lease"),
            ("timeout = \"2s\"", "timeout = \"3s\"", "ledger.timeout = \"3s\"", "ledger.heartbeat"),
            ("request_timeout = \"5s\"", "request_timeout = \"4s\"", "kubernetes.timeout = \"5s\"", "operations.request_timeout"),
            ("stopped = \"24h\"", "stopped = \"30m\"", "rest.stopped = \"30m\"", "rest.longest"),
            (
                "per_node = 500.0\n        sustain = \"4m\"",
                "per_node = 500.0\n        sustain = \"1m\"",
                "metric.queue_depth.sustain = \"1m\"",
                "evaluation.interval",
            ),
            ("expendable_below = -10", "expendable_below = 2000000000", "evaluation.expendable_below", "evaluation.critical_priority"),
            ("unhealthy_after = \"15m\"", "unhealthy_after = 15", "evaluation.unhealthy_after = 15", "unit"),
            ("\"node.cilium.io/agent-not-ready\"", "\"a=b:NoSchedule\"", "evaluation.startup_taints", "key"),
            ("nodes = 1\n", "nodes = -1\n", "pool.workers.disruption", "whole number"),
            ("nodes = 1\n", "nodes = 1\n        share = 0.5\n", "disruption", "exactly one of nodes and share"),
            ("share = 0.1", "share = 10", "disruption", "share"),
            ("[\"cheaper\", \"consolidated\"]", "[\"cheap\"]", "disruption", "above_maximum, cheaper, consolidated"),
            ("saving_lasts = \"12h\"", "saving_lasts = 12", "replacement.saving_lasts = 12", "unit"),
            ("price_of_a_move = 0.002", "price_of_a_move = -1", "replacement.price_of_a_move = -1", "dollars"),
            ("mode = \"auto\"", "mode = \"perhaps\"", "predictive.mode = \"perhaps\"", "\"off\" or \"shadow\" or \"auto\" or \"on\""),
            (
                "price_of_waiting = \"balanced\"",
                "price_of_waiting = \"cheap\"",
                "predictive.price_of_waiting",
                "\"careful\" or a number from 1 to 1000",
            ),
            ("price_of_waiting = \"balanced\"", "price_of_waiting = 0", "predictive.price_of_waiting = 0", "from 1 to 1000"),
            ("local time.\ntimezone = \"UTC\"", "local time.\ntimezone = \"Mars\"", "predictive.timezone = \"Mars\"", "IANA"),
            ("per_node = 7.25", "per_node = 0", "forecast.cores.per_node = 0", "above 0"),
            ("name = \"cores\"", "name = \"queue_depth\"", "forecast.queue_depth.name", "another rule"),
            ("name = \"cores\"", "name = \"cpu\"", "forecast.cpu.name", "another rule"),
            ("retry = \"1s\"", "retry = \"1m\"", "operations.retry = \"1m\"", "5s"),
            ("wait = \"20s\"", "wait = \"0s\"", "notices.wait = \"0s\"", "1s"),
            ("interval = \"2m\"", "interval = \"1500ms\"", "evaluation.interval = \"1500ms\"", "whole seconds"),
            ("rate_window = \"5m\"", "rate_window = \"1500ms\"", "prometheus.rate_window = \"1500ms\"", "whole seconds"),
            ("wait = \"20s\"", "wait = \"1500ms\"", "notices.wait = \"1500ms\"", "whole seconds"),
            ("\"http://127.0.0.1:9090\"", "\"ftp://127.0.0.1\"", "prometheus.endpoints", "http or https"),
            ("id = \"example\"", "", "cluster.id", "missing"),
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
    fn every_type_without_a_price_is_named() {
        let unknown = |text: &str| text.replacen("\"m5.xlarge\", \"m6i.xlarge\"]", "\"y8.big\", \"z9.huge\"]", 1);
        assert!(problems(unknown).is_empty(), "the price list may know them");
        let found = problems(|text| unknown(text).replacen("read_on_demand = true", "read_on_demand = false", 1));
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].contains("prices.on_demand.\"y8.big\"") && found[1].contains("prices.on_demand.\"z9.huge\""), "{found:#?}");
    }

    #[test]
    fn an_endpoint_with_a_password_is_refused_without_being_repeated() {
        for endpoint in ["http://ops:canary-7f3a@metrics.internal", "ops:canary-7f3a@metrics.internal:9090", "https://canary-7f3a@m/"] {
            let found = problems(|text| text.replacen("http://127.0.0.1:9090", endpoint, 1));
            assert_eq!(found.len(), 2, "it is the only endpoint: {found:#?}");
            assert!(found.iter().all(|line| line.contains("prometheus.endpoints") && !line.contains("canary")), "{found:#?}");
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
