//! node-fleet itself, as its own process with its own token, access key, ports and log.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::offers::REGION;
use crate::processes::{Process, free_port};
use crate::wait::{Seen, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_node-fleet");
/// How long the kernel may take to stop all threads of a process.
const STANDS_STILL: Duration = Duration::from_secs(5);

/// Where a daemon finds the world.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The proxy.
    pub aws: String,
    pub kubeconfig: PathBuf,
    /// The folder for this daemon's files.
    pub folder: PathBuf,
}

/// A running daemon. Dropping it kills it.
pub struct Daemon {
    pub name: String,
    process: Process,
    client: reqwest::Client,
    port: u16,
    socket: PathBuf,
}

impl Daemon {
    /// Starts `node-fleet run` with this configuration.
    ///
    /// Its address and its socket are set by the environment, over the file. Its
    /// access key ([`access_key`]) is its name in the call log.
    pub fn start(name: &str, configuration: &str, around: &Surroundings, environment: &[(&str, String)]) -> Result<Self> {
        let (file, socket, port) = prepare(name, configuration, around)?;
        let mut all = base_environment(name, around);
        all.push(("NODE_FLEET__HTTP__LISTEN", format!("127.0.0.1:{port}")));
        all.push(("NODE_FLEET__HTTP__SOCKET", socket.to_string_lossy().into_owned()));
        all.extend_from_slice(environment);
        let arguments = ["run".to_owned(), "--config".to_owned(), file.to_string_lossy().into_owned()];
        let process = Process::start(name, Path::new(PROGRAM), &arguments, &all, &around.folder.join(format!("{name}.log")))?;
        Ok(Self { name: name.to_owned(), process, client: reqwest::Client::new(), port, socket })
    }

    /// Its process: signals, exit code, log.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The file with its log.
    pub fn log(&self) -> &Path {
        self.process.log()
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The Unix socket of its changes.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Kills it as a power cut does.
    pub fn kill(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)
    }

    /// Stops it in the middle of everything, as a hypervisor does.
    pub async fn freeze(&self) -> Result<()> {
        self.process.signal(Signal::SIGSTOP)?;
        // Until its threads have heard of it they go on.
        until("all threads to stand still", STANDS_STILL, async || {
            let running = self.process.threads()?.into_iter().filter(|state| *state != 'T').count();
            Ok(if running == 0 { Seen::Done(()) } else { Seen::NotYet(format!("{running} go on")) })
        })
        .await
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        self.process.signal(Signal::SIGCONT)
    }

    /// Asks it to end, waits, and gives the exit code.
    pub async fn terminate(&mut self, limit: Duration) -> Result<i32> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.ended(limit).await
    }

    /// Makes it read its configuration again.
    pub fn reload(&self) -> Result<()> {
        self.process.signal(Signal::SIGHUP)
    }

    /// The status and body of a GET.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        let request = self.client.get(format!("{}{path}", self.url())).timeout(Duration::from_secs(5));
        let answer = request.send().await.with_context(|| format!("GET {path} of {}", self.name))?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// The body of a GET that must succeed, as JSON.
    pub async fn get_json(&self, path: &str) -> Result<Value> {
        let (status, body) = self.get(path).await?;
        ensure!(status == 200, "GET {path} of {}: {status} {body}", self.name);
        serde_json::from_str(&body).with_context(|| format!("GET {path}: {body}"))
    }

    /// The value of one sample of `/metrics`; `labels` must all stand in its line.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Result<Option<f64>> {
        let (_, body) = self.get("/metrics").await?;
        let is_sample = |line: &&str| {
            let rest = line.strip_prefix(name).unwrap_or_default();
            rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label))
        };
        Ok(body.lines().find(is_sample).and_then(|line| line.rsplit(' ').next()?.parse().ok()))
    }

    /// POSTs to its Unix socket and gives status and body.
    pub async fn post(&self, path: &str, body: &str) -> Result<(u16, String)> {
        let exchange = async {
            let stream = UnixStream::connect(&self.socket).await.with_context(|| format!("connect to {}", self.socket.display()))?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            let request = Request::post(path).header("host", "localhost").header("content-type", "application/json");
            let answer = sender.send_request(request.body(Full::new(Bytes::from(body.to_owned())))?).await?;
            let status = answer.status().as_u16();
            let bytes = answer.into_body().collect().await?.to_bytes();
            Ok::<_, anyhow::Error>((status, String::from_utf8_lossy(&bytes).into_owned()))
        };
        let limited = tokio::time::timeout(Duration::from_secs(10), exchange).await;
        limited.with_context(|| format!("POST {path} of {}: no answer in 10 s", self.name))?
    }

    /// Waits until `/healthz` answers with 200; fails at once when it has ended.
    pub async fn healthy(&mut self, limit: Duration) -> Result<()> {
        self.answers("/healthz", limit).await
    }

    /// Waits until `/readyz` answers with 200.
    pub async fn ready(&mut self, limit: Duration) -> Result<()> {
        self.answers("/readyz", limit).await
    }

    async fn answers(&mut self, path: &str, limit: Duration) -> Result<()> {
        let url = format!("{}{path}", self.url());
        let Self { name, process, client, .. } = self;
        let waited = until(&format!("{path} of {name}"), limit, async || {
            if let Some(code) = process.exit_code()? {
                return Ok(Seen::Done(Err(code)));
            }
            let status = client.get(&url).timeout(Duration::from_secs(2)).send().await?.status();
            Ok(if status.is_success() { Seen::Done(Ok(())) } else { Seen::NotYet(status.to_string()) })
        })
        .await?;
        match waited {
            Ok(()) => Ok(()),
            Err(code) => self.process.must_run().with_context(|| format!("waiting for {path}, code {code}")),
        }
    }

    /// Waits until its status, as JSON, passes the test.
    pub async fn wait_for_status<T>(&self, what: &str, limit: Duration, test: impl Fn(&Value) -> Option<T>) -> Result<T> {
        until(&format!("{}: {what}", self.name), limit, async || {
            let status = self.get_json("/api/v1/status").await?;
            Ok(test(&status).map_or_else(|| Seen::NotYet(format!("{status:.400}")), Seen::Done))
        })
        .await
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes * 1024)
    }
}

/// What a finished command said.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A replay of weeks by a debug build takes half a minute.
const COMMAND_LIMIT: Duration = Duration::from_secs(300);

/// Runs another command of node-fleet (`check`, `status`) to its end; `{config}` stands for the file.
pub async fn command(name: &str, configuration: &str, arguments: &[&str], around: &Surroundings) -> Result<Outcome> {
    let (file, ..) = prepare(name, configuration, around)?;
    let arguments = arguments.iter().map(|argument| argument.replace("{config}", &file.to_string_lossy()));
    let mut command = tokio::process::Command::new(PROGRAM);
    command.args(arguments).envs(base_environment(name, around)).kill_on_drop(true);
    let output = tokio::time::timeout(COMMAND_LIMIT, command.output()).await.with_context(|| format!("no end in {COMMAND_LIMIT:?}"))??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Outcome { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) })
}

/// The secret key of every daemon; nothing on the bed checks it.
pub const SECRET_KEY: &str = "canary-of-aws";

/// The access key of a daemon: its name in letters and digits, as DynamoDB Local wants it.
pub fn access_key(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).collect()
}

fn prepare(name: &str, configuration: &str, around: &Surroundings) -> Result<(PathBuf, PathBuf, u16)> {
    fs::create_dir_all(&around.folder)?;
    let file = around.folder.join(format!("{name}.toml"));
    fs::write(&file, configuration)?;
    Ok((file, around.folder.join(format!("{name}.sock")), free_port()?))
}

fn base_environment(name: &str, around: &Surroundings) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ENDPOINT_URL", around.aws.clone()),
        ("AWS_ENDPOINT_URL_DYNAMODB", around.aws.clone()),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_ACCESS_KEY_ID", access_key(name)),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("KUBECONFIG", around.kubeconfig.to_string_lossy().into_owned()),
        ("NO_COLOR", "1".to_owned()),
    ]
}
