//! Child processes of the bed: each with its log file, none outliving the bed.

use std::fs::{self, File, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running child. Dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with its output appended to `log`.
    ///
    /// `setpriv` lets the kernel kill the child when the bed dies, even by
    /// SIGKILL. The kernel ties that to the thread that starts the child, so this
    /// is called from scenarios (the main thread), never from a blocking task.
    pub fn start(name: &str, program: &Path, arguments: &[String], environment: &[(&str, String)], log: &Path) -> Result<Self> {
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder)?;
        }
        let output = OpenOptions::new().create(true).append(true).open(log).with_context(|| format!("open {}", log.display()))?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .current_dir(log.parent().unwrap_or(Path::new("/")))
            .envs(environment.iter().map(|(key, value)| (*key, value.as_str())))
            .stdin(Stdio::null())
            .stdout(duplicate(&output)?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("start {name}: {}", program.display()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file with its standard output and error.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id()).context("process id")?;
        kill(Pid::from_raw(id), signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    /// The state of each of its threads, as the kernel tells it: `R`, `S`, `D`, `T` and so on.
    pub fn threads(&self) -> Result<Vec<char>> {
        let mut states = Vec::new();
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id())).context("the threads")? {
            // A thread may end between the two looks.
            let Ok(stat) = std::fs::read_to_string(thread?.path().join("stat")) else { continue };
            // The name in brackets may hold anything.
            let after = stat.rsplit_once(')').map(|(_, after)| after).context("a thread's state")?;
            states.push(after.trim_start().chars().next().context("a thread's state")?);
        }
        Ok(states)
    }

    /// The exit code once it has ended; a signal counts as 128 and its number.
    pub fn exit_code(&mut self) -> Result<Option<i32>> {
        use std::os::unix::process::ExitStatusExt;
        Ok(self.child.try_wait()?.map(|status| status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())))
    }

    /// An error with the end of the log when the process has ended by itself.
    pub fn must_run(&mut self) -> Result<()> {
        match self.exit_code()? {
            None => Ok(()),
            Some(code) => bail!("{} ended with code {code}; end of its log:\n{}", self.name, tail(&self.log, 15)),
        }
    }

    /// Waits until the process has ended and gives its exit code.
    pub async fn ended(&mut self, limit: Duration) -> Result<i32> {
        let started = Instant::now();
        loop {
            if let Some(code) = self.exit_code()? {
                return Ok(code);
            }
            if started.elapsed() > limit {
                bail!("waited {:.1} s for {} to end; it still runs", limit.as_secs_f64(), self.name);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks the process to end, and kills it when it has not gone in time.
    pub fn stop(&mut self, patience: Duration) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // SIGCONT first: a stopped process answers to nothing else but SIGKILL.
        let _ = self.signal(Signal::SIGCONT);
        let _ = self.signal(Signal::SIGTERM);
        let started = Instant::now();
        while started.elapsed() < patience {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn duplicate(file: &File) -> Result<File> {
    file.try_clone().context("duplicate the log's handle")
}

/// A loopback port that nothing listens on.
///
/// Another process may take it before it is used; the servers of the bed start
/// at once and fail loudly then.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("ask for a free port")?;
    Ok(listener.local_addr()?.port())
}

/// The last lines of a file.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
