//! kwok: plays the kubelet of every node that carries the bed's annotation.

use std::path::Path;

use anyhow::Result;

use crate::processes::{Process, free_port};
use crate::tools::{Tools, in_repository};

/// Nodes with this annotation and value `fake` are kept alive by kwok.
pub const ANNOTATION: &str = "kwok.x-k8s.io/node";

/// Starts kwok against the cluster of `kubeconfig`.
pub fn start(tools: &Tools, folder: &Path, kubeconfig: &Path) -> Result<Process> {
    let arguments = vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        "--manage-all-nodes=false".to_owned(),
        format!("--manage-nodes-with-annotation-selector={ANNOTATION}=fake"),
        "--node-lease-duration-seconds=40".to_owned(),
        "--node-ip=127.0.0.1".to_owned(),
        format!("--server-address=127.0.0.1:{}", free_port()?),
        format!("--config={}", in_repository("tests/bed/kwok/stages.yaml").display()),
    ];
    Process::start("kwok", &tools.kwok, &arguments, &[], &folder.join("kwok.log"))
}
