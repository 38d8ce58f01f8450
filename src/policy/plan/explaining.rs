//! Why it is so, for people: the same model that decides is asked once more.

use super::{Turn, plan};
use crate::model::explanation::{Explanation, Question};
use crate::model::plan::{Hold, Unplaceable};
use crate::model::snapshot::Observed;
use crate::model::{Action, Memory, NodeName, Operation, Plan, Pod, PodKey, PoolName, Snapshot};
use crate::policy::buying::Buyer;
use crate::policy::fit::Board;
use crate::policy::scale_down::{Chooser, forbids};
use crate::policy::settings::Settings;
use jiff::Timestamp;

/// Answers a question about what a turn would decide now; `None` when there is no such pod or node.
#[must_use]
pub fn explain(settings: &Settings, snapshot: &Snapshot, memory: &Memory, question: &Question, now: Timestamp) -> Option<Explanation> {
    let (cluster, instances) = match (&snapshot.cluster, &snapshot.instances) {
        (Observed::Known { value: cluster, .. }, Observed::Known { value: instances, .. }) => (cluster, instances),
        (Observed::Unknown(why), _) => return Some(Explanation::new(question, format!("Kubernetes is not seen: {why}"), [])),
        (_, Observed::Unknown(why)) => return Some(Explanation::new(question, format!("EC2 is not seen: {why}"), [])),
    };
    let (decided, _) = plan(settings, snapshot, memory, now);
    let turn = Turn::new(settings, snapshot, cluster, instances, now);
    match question {
        Question::Pod(key) => turn.explain_pod(question, key, &decided, memory),
        Question::Node(name) => turn.explain_node(question, name, &decided, memory),
        Question::Offers => Some(turn.explain_offers(question, &decided, memory)),
    }
}

impl<'a> Turn<'a> {
    fn explain_pod(&self, question: &Question, key: &PodKey, decided: &Plan, memory: &'a Memory) -> Option<Explanation> {
        let pod = self.cluster.pods.iter().find(|pod| pod.key == *key)?;
        if let Some(node) = &pod.node {
            let protects = forbids(self.settings, pod, &self.cluster.budgets);
            let protects = protects.map(|why| (node.to_string(), format!("the node is not given back for economy: {why}")));
            return Some(Explanation::new(question, format!("it is on node {node}"), protects));
        }
        if !pod.wants_a_node() {
            return Some(Explanation::new(question, format!("it buys no node: {}", waits_for_something_else(pod)), []));
        }
        let mut board = Board::default();
        let existing = self.set_up(&mut board);
        let mut buyer = self.buyer(memory);
        let promises = self.add_booting(&mut board, &buyer);
        let shape = board.shape(pod);
        let mut places = Vec::new();
        let mut things = Vec::new();
        for index in 0..board.nodes() {
            let bin = board.bin(index);
            let name = bin.name.map_or_else(|| "a node on its way".to_owned(), |name| format!("node {name}"));
            if index < existing && !bin.open {
                things.push((name, "takes no new pods now: cordoned, not Ready, starting or on its way out".to_owned()));
                continue;
            }
            match board.fits(shape, index) {
                Ok(()) => places.push(name),
                Err(why) => things.push((name, why.to_string())),
            }
        }
        let offers = buyer.explain(&mut board, Some(shape));
        things.extend(offers.into_iter().map(|(offer, outcome)| match outcome {
            Ok(()) => (offer, "would take it and can be bought".to_owned()),
            Err(why) => (offer, why),
        }));
        let buys = decided.actions.iter().find(|action| match action {
            Action::Launch(order) => order.pods.contains(key),
            Action::Retire(_) => false,
        });
        let verdict = if pod.priority < self.settings.expendable_below {
            let below = self.settings.expendable_below;
            format!("its priority {} is below evaluation.expendable_below ({below}): it buys no node", pod.priority)
        } else if let Some(action) = buys {
            format!("the next turn {action}")
        } else if let Some(Unplaceable { why, .. }) = decided.unplaceable.iter().find(|other| other.pod == *key) {
            why.clone()
        } else if promises.contains_key(key) {
            let of_it = |operation: &&Operation| matches!(operation, Operation::Launch(launch) if launch.order.pods.contains(key));
            let operation = self.snapshot.operations.values().filter(|operation| !operation.is_over()).find(of_it);
            let id = operation.map(|operation| operation.id().to_string()).unwrap_or_default();
            format!("its node is on its way (operation {id})")
        } else if let Some(place) = places.first() {
            format!("{place} has room for it, so it buys none")
        } else if let Some(hold) = held(decided) {
            format!("nothing is bought for it now: {hold}")
        } else {
            "other pods come first; what is left does not hold it yet".to_owned()
        };
        things.extend(places.into_iter().map(|place| (place, "has room for it".to_owned())));
        Some(Explanation::new(question, verdict, things))
    }

    fn explain_node(&self, question: &Question, name: &NodeName, decided: &Plan, memory: &'a Memory) -> Option<Explanation> {
        let node = self.cluster.nodes.get(name)?;
        let pods = self.cluster.pods.iter().filter(|pod| pod.node.as_ref() == Some(name));
        let protects = pods.filter_map(|pod| Some((pod.key.to_string(), forbids(self.settings, pod, &self.cluster.budgets)?)));
        let goes = decided.actions.iter().find_map(|action| match action {
            Action::Retire(order) if order.node.as_ref().is_some_and(|gone| gone.name == *name) => Some(order.reason.to_string()),
            Action::Retire(_) | Action::Launch(_) => None,
        });
        let pool = self.settings.pools.iter().find(|pool| {
            let members = self.fleet.pool(&pool.name);
            members.iter().any(|member| member.node.is_some_and(|of_member| of_member.name == node.name))
        });
        let verdict = match (goes, pool) {
            (Some(reason), _) => format!("the next turn gives it back: {reason}"),
            (None, None) => "no pool of this fleet owns it: it is never touched".to_owned(),
            (None, Some(pool)) => {
                let prices = &self.prices;
                let chooser = Chooser { settings: self.settings, cluster: self.cluster, fleet: &self.fleet, prices, memory, now: self.now };
                match (chooser.may_go_alone(pool, name), finding(decided, &pool.name)) {
                    (Err(why), _) => format!("it stays: {why}"),
                    (Ok(()), Some(hold)) => format!("it could go, but pool {} gives nothing back now: {hold}", pool.name),
                    (Ok(()), None) => "it could go; nodes that cost more for less disruption go first".to_owned(),
                }
            }
        };
        Some(Explanation::new(question, verdict, protects))
    }

    fn explain_offers(&self, question: &Question, decided: &Plan, memory: &'a Memory) -> Explanation {
        let offers = self.buyer(memory).explain(&mut Board::default(), None);
        let open = offers.iter().filter(|(_, outcome)| outcome.is_ok()).count();
        let hold = held(decided).map(|hold| format!("; pods wait: {hold}")).unwrap_or_default();
        let verdict = format!("{open} of {} offers can be bought now{hold}", offers.len());
        let things = offers.into_iter().map(|(offer, outcome)| (offer, outcome.err().unwrap_or_else(|| "can be bought".to_owned())));
        Explanation::new(question, verdict, things)
    }

    fn buyer(&self, memory: &'a Memory) -> Buyer<'a> {
        Buyer::new(self.settings, self.offers, &self.prices, &self.cluster.daemon_sets, memory, &self.fleet, self.now)
    }
}

fn waits_for_something_else(pod: &Pod) -> String {
    match pod {
        Pod { terminating_since: Some(since), .. } => format!("it has been ending since {since}"),
        Pod { gated: true, .. } => "it waits for its scheduling gates".to_owned(),
        Pod { nominated_node: Some(node), .. } => format!("preemption makes room for it on node {node}"),
        Pod { phase, .. } => format!("the scheduler has not marked it Unschedulable (its phase is {phase:?})"),
    }
}

/// Gives what keeps waiting pods from buying nodes.
fn held(decided: &Plan) -> Option<&Hold> {
    let of_pods = |pool: &'_ crate::model::PoolReport| pool.findings.iter().position(|finding| finding.rule.as_str() == "pending_pods");
    let in_pools = decided.pools.iter().find_map(|pool| pool.findings[of_pods(pool)?].hold.as_ref());
    in_pools.or(decided.holds.first())
}

/// Gives why a pool gives nothing back.
fn finding<'p>(decided: &'p Plan, pool: &PoolName) -> Option<&'p Hold> {
    let report = decided.pools.iter().find(|report| report.pool == *pool)?;
    report.findings.iter().find(|finding| finding.rule.as_str() == "scale_down")?.hold.as_ref()
}
