//! What the daemon may do, and what it does with it.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::Api;
use serde_json::Value;

use super::fleet::{SOON, fleet, interrupted_shop};
use crate::bed::Bed;
use crate::configuration::Configuration;
use crate::exporter::Load;
use crate::wait::{Seen, until};

/// A verb on a resource: API group, resource with its subresource, verb.
type Right = (String, String, String);

/// The life of a node, by the API server's own log: the daemon uses each right of the shipped role, asks for no other, and
/// is refused nothing.
pub async fn each_is_used_and_no_other(bed: &mut Bed) -> Result<()> {
    let before = fs::read_to_string(bed.control_plane.audit_log()).unwrap_or_default().len();
    bed.exporter.set_load_of_all(Load::Fixed { cpu: 0.4, memory: 0.4 });
    let configuration = Configuration { on_demand_base: 0, spot_share: 1.0, scale_down: false, ..Configuration::default() };
    let daemon = fleet(bed, &configuration).await?;
    interrupted_shop(bed, &daemon).await?;

    let role: ClusterRole = Api::all(bed.cluster.client.clone()).get("node-fleet").await?;
    let granted = granted(&role);
    let used = until("each right to be used", SOON, async || {
        let text = fs::read_to_string(bed.control_plane.audit_log()).context("the API server's audit log")?;
        let used = used(text.get(before..).context("an audit log that shrinks")?)?;
        let unused: Vec<&Right> = granted.difference(&used).collect();
        Ok(if unused.is_empty() { Seen::Done(used) } else { Seen::NotYet(format!("unused: {unused:?}")) })
    })
    .await?;
    let beyond: Vec<&Right> = used.difference(&granted).collect();
    ensure!(beyond.is_empty(), "not granted by the role: {beyond:?}");
    println!("  {} rights, each of them used", granted.len());
    Ok(())
}

fn granted(role: &ClusterRole) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for rule in role.rules.iter().flatten() {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                rights.extend(rule.verbs.iter().map(|verb| (group.clone(), resource.clone(), verb.clone())));
            }
        }
    }
    rights
}

/// Reads what was done; a refusal is an error. What everybody may do who is authenticated is left out.
fn used(log: &str) -> Result<BTreeSet<Right>> {
    let mut rights = BTreeSet::new();
    // The last line may be half written.
    for line in log.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let event: Value = serde_json::from_str(line).context("a line of the audit log")?;
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        ensure!(event["responseStatus"]["code"] != 403, "refused: {line}");
        let (group, resource, verb) = (text("/objectRef/apiGroup"), text("/objectRef/resource"), text("/verb"));
        if resource.is_empty() || group == "authorization.k8s.io" {
            continue;
        }
        let subresource = text("/objectRef/subresource");
        rights.insert((group, if subresource.is_empty() { resource } else { format!("{resource}/{subresource}") }, verb));
    }
    Ok(rights)
}
