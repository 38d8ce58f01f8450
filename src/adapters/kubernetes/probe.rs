//! Asks whether the API server is there, and what it lets node-fleet do.

use super::errors::ask;
use super::mutate::Requests;
use crate::ports::ClusterError;
use futures::future::join_all;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;

/// Verbs on one resource.
struct Permission {
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
}

/// All that node-fleet asks of the API server, besides `/readyz` and the question what it may do,
/// which everyone who is authenticated may ask. `packaging/kubernetes/rbac.yaml` grants exactly this.
const PERMISSIONS: [Permission; 10] = [
    Permission { group: "", resource: "nodes", verbs: &["get", "list", "watch", "patch", "delete"] },
    Permission { group: "", resource: "pods", verbs: &["list", "watch"] },
    Permission { group: "", resource: "pods/eviction", verbs: &["create"] },
    Permission { group: "", resource: "persistentvolumes", verbs: &["list", "watch"] },
    Permission { group: "", resource: "persistentvolumeclaims", verbs: &["list", "watch"] },
    Permission { group: "apps", resource: "daemonsets", verbs: &["list", "watch"] },
    Permission { group: "policy", resource: "poddisruptionbudgets", verbs: &["list", "watch"] },
    Permission { group: "storage.k8s.io", resource: "storageclasses", verbs: &["list", "watch"] },
    Permission { group: "storage.k8s.io", resource: "csinodes", verbs: &["list", "watch"] },
    Permission { group: "events.k8s.io", resource: "events", verbs: &["create"] },
];

impl Requests {
    /// Asks the API server whether it is ready, its own storage included.
    pub(super) async fn ready(&self) -> Result<(), ClusterError> {
        let call = "get /readyz";
        let request = hyper::Request::get("/readyz").body(Vec::new());
        let request = request.map_err(|error| ClusterError::Invalid { call, why: error.to_string() })?;
        ask(self.deadline, call, self.client.request_text(request)).await.map(drop)
    }

    /// Asks for each verb on each resource whether it is granted.
    pub(super) async fn permissions(&self) -> Vec<(String, Result<(), String>)> {
        let each = |permission: &'static Permission| permission.verbs.iter().map(move |verb| (permission, *verb));
        let reviews = PERMISSIONS.iter().flat_map(each).map(|(permission, verb)| async move {
            let dot = if permission.group.is_empty() { "" } else { "." };
            let what = format!("{verb} {}{dot}{}", permission.resource, permission.group);
            (what, self.is_granted(permission, verb).await)
        });
        join_all(reviews).await
    }

    async fn is_granted(&self, permission: &Permission, verb: &str) -> Result<(), String> {
        let (resource, subresource) = match permission.resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
            None => (permission.resource, None),
        };
        let attributes = ResourceAttributes {
            group: Some(permission.group.to_owned()),
            resource: Some(resource.to_owned()),
            subresource,
            verb: Some(verb.to_owned()),
            ..ResourceAttributes::default()
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..SelfSubjectAccessReviewSpec::default() },
            ..SelfSubjectAccessReview::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let call = "create selfsubjectaccessreviews";
        let answer = ask(self.deadline, call, api.create(&PostParams::default(), &review)).await.map_err(|error| error.to_string())?;
        match answer.status {
            Some(status) if status.allowed => Ok(()),
            Some(status) => Err(status.reason.filter(|reason| !reason.is_empty()).unwrap_or_else(|| "not granted".to_owned())),
            None => Err("the API server does not say".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mutate::fake::ApiServer;
    use super::*;
    use serde_json::json;
    use std::collections::BTreeSet;
    use std::time::Duration;

    const RBAC: &str = include_str!("../../../packaging/kubernetes/rbac.yaml");

    /// Reads the rules of the shipped role: three lines each, their lists as YAML writes them in one line.
    fn shipped() -> BTreeSet<(String, String, String)> {
        let lists = |key: &str| {
            let lines = RBAC.lines().map(|line| line.trim_start_matches([' ', '-'])).filter(move |line| line.starts_with(key));
            lines.map(move |line| serde_json::from_str::<Vec<String>>(&line[key.len()..]).expect("a list in one line")).collect::<Vec<_>>()
        };
        let (groups, resources, verbs) = (lists("apiGroups: "), lists("resources: "), lists("verbs: "));
        assert_eq!((groups.len(), verbs.len()), (resources.len(), resources.len()));
        let mut rules = BTreeSet::new();
        for ((groups, resources), verbs) in groups.iter().zip(&resources).zip(&verbs) {
            for (group, resource, verb) in
                groups.iter().flat_map(|g| resources.iter().flat_map(move |r| verbs.iter().map(move |v| (g, r, v))))
            {
                assert!(rules.insert((group.clone(), resource.clone(), verb.clone())), "{resource} {verb} is granted twice");
            }
        }
        rules
    }

    #[test]
    fn the_shipped_role_grants_exactly_what_is_used() {
        let used = PERMISSIONS.iter().flat_map(|p| p.verbs.iter().map(|v| (p.group.to_owned(), p.resource.to_owned(), (*v).to_owned())));
        assert_eq!(shipped(), used.collect());
        assert!(!RBAC.contains("nonResourceURLs") && !RBAC.contains("\"*\""));
    }

    #[tokio::test]
    async fn names_each_permission_that_is_missing() {
        let server = ApiServer::new(|request| {
            let asked = &request.body["spec"]["resourceAttributes"];
            let allowed = asked["subresource"] != json!("eviction");
            (201, json!({"spec": {}, "status": {"allowed": allowed, "reason": "no rule"}}))
        });
        let requests = Requests { client: server.client(), deadline: Duration::from_secs(1) };
        let permissions = requests.permissions().await;
        assert_eq!(permissions.len(), PERMISSIONS.iter().map(|permission| permission.verbs.len()).sum::<usize>());
        let missing: Vec<_> = permissions.into_iter().filter(|(_, granted)| granted.is_err()).collect();
        assert_eq!(missing, [("create pods/eviction".to_owned(), Err("no rule".to_owned()))]);
        assert!(server.asked().iter().all(|request| request.path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"));
    }
}
