//! A real Prometheus that scrapes the bed's exporter every second.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::processes::{Process, free_port};
use crate::tools::Tools;
use crate::wait::{Seen, until};

/// The server; it can be stopped and started again on the same port.
pub struct Prometheus {
    program: PathBuf,
    promtool: PathBuf,
    folder: PathBuf,
    /// What it always scrapes.
    base: String,
    port: u16,
    process: Option<Process>,
    client: reqwest::Client,
}

impl Prometheus {
    /// Writes the configuration and starts the server.
    pub fn start(tools: &Tools, folder: &Path, exporter: &str, client: &reqwest::Client) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let (program, promtool) = (tools.prometheus.clone(), tools.promtool.clone());
        let (base, port) = (configuration(exporter), free_port()?);
        let mut server = Self { program, promtool, folder: folder.to_owned(), base, port, process: None, client: client.clone() };
        server.configure("", &[])?;
        Ok(server)
    }

    /// Starts it anew with more jobs (YAML) and with rules, which are evaluated every second; with none it is as at first.
    pub fn configure(&mut self, jobs: &str, rules: &[PathBuf]) -> Result<()> {
        let mut files = String::from("rule_files:\n");
        for rule in rules {
            let name = rule.file_name().context("a file of rules")?.to_string_lossy().into_owned();
            let text = fs::read_to_string(rule).with_context(|| rule.display().to_string())?;
            let often = text.lines().map(|line| if line.trim_start().starts_with("interval:") { "    interval: 1s" } else { line });
            fs::write(self.folder.join(&name), often.collect::<Vec<_>>().join("\n"))?;
            files.push_str(&format!("- {name}\n"));
        }
        let more = if rules.is_empty() { "" } else { &files };
        fs::write(self.folder.join("prometheus.yml"), format!("{}{jobs}{more}", self.base))?;
        self.restart()
    }

    /// Makes it what it was at first, and starts it where it was stopped.
    pub fn reset(&mut self) -> Result<()> {
        let is_base = fs::read_to_string(self.folder.join("prometheus.yml"))? == self.base;
        if is_base && self.process.is_some() { Ok(()) } else { self.configure("", &[]) }
    }

    /// Puts samples of the past into its storage, as text in the format of OpenMetrics, and starts it anew.
    pub async fn backfill(&mut self, samples: &str) -> Result<()> {
        let (text, blocks) = (self.folder.join("past.txt"), self.folder.join("data"));
        fs::write(&text, samples)?;
        self.stop();
        // Blocks of two hours, as is its default, would be 336.
        let arguments = ["tsdb", "create-blocks-from", "--max-block-duration=744h", "openmetrics"];
        let output = Command::new(&self.promtool).args(arguments).args([&text, &blocks]).output().await?;
        ensure!(output.status.success(), "promtool: {}", String::from_utf8_lossy(&output.stderr));
        self.restart()?;
        self.ready().await
    }

    /// The rules that are loaded, as Prometheus tells of them.
    pub async fn all_rules(&self) -> Result<Vec<Value>> {
        let body: Value = self.client.get(format!("{}/api/v1/rules", self.url())).send().await?.json().await?;
        let groups = body["data"]["groups"].as_array().with_context(|| format!("no rules: {body}"))?;
        Ok(groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect())
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its process, for signals; none while it is stopped.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Kills the server: connections are refused from now on.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts the server again with the data that it had.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        let arguments = [
            format!("--config.file={}", self.folder.join("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", self.folder.join("data").display()),
            format!("--web.listen-address=127.0.0.1:{}", self.port),
            "--storage.tsdb.retention.time=40d".to_owned(),
            "--log.level=warn".to_owned(),
        ];
        self.process = Some(Process::start("prometheus", &self.program, &arguments, &[], &self.folder.join("prometheus.log"))?);
        Ok(())
    }

    /// Waits until it answers queries.
    pub async fn ready(&mut self) -> Result<()> {
        let url = format!("{}/-/ready", self.url());
        let Self { process, client, .. } = self;
        until("Prometheus to be ready", Duration::from_secs(30), async || {
            process.as_mut().context("it is stopped")?.must_run()?;
            let status = client.get(&url).send().await?.status();
            Ok(if status.is_success() { Seen::Done(()) } else { Seen::NotYet(status.to_string()) })
        })
        .await
    }

    /// Runs an instant query and gives `data.result`.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let answer = self.client.get(format!("{}/api/v1/query", self.url())).query(&[("query", expression)]).send().await?;
        let mut body: Value = answer.json().await?;
        ensure!(body["status"] == "success", "query {expression}: {body}");
        Ok(body["data"]["result"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }

    /// The value of the series of one node, when the query has one.
    pub async fn value_of_node(&self, expression: &str, node: &str) -> Result<Option<f64>> {
        let result = self.query(expression).await?;
        let sample = result.iter().find(|series| series["metric"]["node"] == node);
        Ok(sample.and_then(|series| series["value"][1].as_str()).and_then(|text| text.parse().ok()))
    }
}

fn configuration(exporter: &str) -> String {
    format!(
        "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  evaluation_interval: 1s\n\
         scrape_configs:\n\
         - job_name: node\n  http_sd_configs:\n  - url: {exporter}/targets\n    refresh_interval: 1s\n\
         - job_name: application\n  metrics_path: /application\n  static_configs:\n  - targets: ['{}']\n",
        exporter.trim_start_matches("http://")
    )
}
