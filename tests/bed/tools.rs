//! Where the servers of the bed are on this machine: the environment says so.

use std::env;
use std::path::PathBuf;

use anyhow::{Result, bail};

/// The programs that the bed starts.
pub struct Tools {
    /// etcd, API server, scheduler and controllers in one binary.
    pub control_plane: PathBuf,
    /// The kubelet of nodes that do not exist.
    pub kwok: PathBuf,
    /// The folder with DynamoDB Local and what it needs.
    pub dynamodb: PathBuf,
    /// `moto_server`.
    pub moto: PathBuf,
    /// The Prometheus server.
    pub prometheus: PathBuf,
    /// Its checking tool.
    pub promtool: PathBuf,
    /// The load generator.
    pub k6: PathBuf,
}

impl Tools {
    /// Reads the environment that `tests/run` sets, and names all that is missing.
    pub fn from_environment() -> Result<Self> {
        let mut missing = Vec::new();
        let mut find = |variable: &str| {
            let path = env::var_os(variable).map(PathBuf::from).unwrap_or_default();
            if !path.exists() {
                missing.push(format!("{variable}={}", path.display()));
            }
            path
        };
        let tools = Self {
            control_plane: find("NODE_FLEET_BED_CONTROL_PLANE"),
            kwok: find("NODE_FLEET_BED_KWOK"),
            dynamodb: find("NODE_FLEET_BED_DYNAMODB"),
            moto: find("NODE_FLEET_BED_MOTO"),
            prometheus: find("NODE_FLEET_BED_PROMETHEUS"),
            promtool: find("NODE_FLEET_BED_PROMTOOL"),
            k6: find("NODE_FLEET_BED_K6"),
        };
        if missing.is_empty() {
            return Ok(tools);
        }
        bail!("the bed needs servers that are not there ({}); `tests/run bed` installs them and sets these variables", missing.join(", "))
    }
}

/// A file of this repository: the one that cargo runs the tests of, which need not be the one they were built in.
pub fn in_repository(path: &str) -> PathBuf {
    env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from).join(path)
}
