//! DynamoDB Local: real conditions and real transactions, in memory.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::processes::{Process, free_port};
use crate::tools::Tools;
use crate::wait::{Seen, until};

/// The running server.
pub struct DynamoDb {
    pub process: Process,
    /// `http://127.0.0.1:PORT`
    pub url: String,
}

impl DynamoDb {
    /// Starts the server and leaves it to come up; see [`DynamoDb::ready`].
    pub fn start(tools: &Tools, folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let jars = tools.dynamodb.display();
        let arguments = [
            "-Xmx256m".to_owned(),
            "-XX:TieredStopAtLevel=1".to_owned(),
            format!("-Djava.library.path={jars}"),
            "-cp".to_owned(),
            format!("{jars}/*"),
            "com.amazonaws.services.dynamodbv2.local.main.ServerRunner".to_owned(),
            "-inMemory".to_owned(),
            // One database whatever the access key: each daemon of the bed signs with its own.
            "-sharedDb".to_owned(),
            "-port".to_owned(),
            port.to_string(),
        ];
        let process = Process::start("dynamodb", Path::new("java"), &arguments, &[], &folder.join("dynamodb.log"))?;
        Ok(Self { process, url: format!("http://127.0.0.1:{port}") })
    }

    /// Waits until it answers; a Java machine takes a second or two.
    pub async fn ready(&mut self, client: &reqwest::Client) -> Result<()> {
        let Self { process, url } = self;
        until("DynamoDB Local to answer", Duration::from_secs(60), async || {
            process.must_run()?;
            client.get(url.as_str()).send().await?;
            Ok(Seen::Done(()))
        })
        .await
    }
}
