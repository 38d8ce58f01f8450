//! moto: EC2, SQS, EventBridge and Secrets Manager in memory, behind the bed's proxy.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::processes::{Process, free_port};
use crate::tools::Tools;
use crate::wait::{Seen, until};

/// The running server.
pub struct Moto {
    pub process: Process,
    /// `http://127.0.0.1:PORT`
    pub url: String,
    client: reqwest::Client,
}

impl Moto {
    /// Starts the server and leaves it to come up; see [`Moto::ready`].
    pub fn start(tools: &Tools, folder: &Path, client: &reqwest::Client) -> Result<Self> {
        let port = free_port()?;
        let arguments = ["-H".to_owned(), "127.0.0.1".to_owned(), "-p".to_owned(), port.to_string()];
        let process = Process::start("moto", &tools.moto, &arguments, &[], &folder.join("moto.log"))?;
        Ok(Self { process, url: format!("http://127.0.0.1:{port}"), client: client.clone() })
    }

    /// Waits until it answers.
    pub async fn ready(&mut self) -> Result<()> {
        let Self { process, url, client } = self;
        until("moto to answer", Duration::from_secs(60), async || {
            process.must_run()?;
            client.get(format!("{url}/moto-api/")).send().await?;
            Ok(Seen::Done(()))
        })
        .await
    }

    /// Forgets every resource.
    pub async fn reset(&self) -> Result<()> {
        let answer = self.client.post(format!("{}/moto-api/reset", self.url)).send().await?;
        ensure!(answer.status().is_success(), "moto's reset answered {}", answer.status());
        Ok(())
    }
}
