//! Why it is so, for people: the same model that decides is asked once more.

use super::{Imagined, Turn, plan};
use crate::model::explanation::{Explanation, Question};
use crate::model::plan::{Finding, Hold, RetireReason};
use crate::model::snapshot::Observed;
use crate::model::{Action, Memory, NodeName, Plan, Pod, PodKey, PoolName, Snapshot};
use crate::policy::audit::audit;
use crate::policy::budgets::Budgets;
use crate::policy::buying::Buyer;
use crate::policy::fit::Board;
use crate::policy::fleet::Fleet;
use crate::policy::pending::{self, Fate};
use crate::policy::rules;
use crate::policy::scale_down::{Which, forbids};
use crate::policy::settings::{PoolSettings, Settings};
use jiff::Timestamp;

/// Answers a question about what a turn would decide now; `None` when there is no such pod or node.
#[must_use]
pub fn explain(settings: &Settings, snapshot: &Snapshot, memory: &Memory, question: &Question, now: Timestamp) -> Option<Explanation> {
    let (cluster, at, instances) = match (&snapshot.cluster, &snapshot.instances) {
        (Observed::Known { value: cluster, at }, Observed::Known { value: instances, .. }) => (cluster, *at, instances),
        (Observed::Unknown(why), _) => return Some(Explanation::new(question, now, format!("Kubernetes is not seen: {why}"), [])),
        (_, Observed::Unknown(why)) => return Some(Explanation::new(question, now, format!("EC2 is not seen: {why}"), [])),
    };
    let imagined = Imagined::new(settings, snapshot, cluster, memory, now);
    let mut turn = Turn::new(settings, snapshot, cluster, instances, Fleet::new(settings, snapshot), &imagined, now);
    let (verdict, things) = match question {
        Question::Pod(key) => turn.explain_pod(key, memory)?,
        Question::Node(name) => turn.explain_node(name, memory)?,
        Question::Offers => turn.explain_offers(memory),
    };
    Some(Explanation::new(question, at, verdict, things))
}

/// How many orders of the next turn are told.
const ORDERS_TOLD: usize = 5;

/// A sentence, and the things that it rests on, each with its reason.
type Answer = (String, Vec<(String, String)>);

impl<'a> Turn<'a> {
    fn explain_pod(&self, key: &PodKey, memory: &'a Memory) -> Option<Answer> {
        let pod: &'a Pod = self.cluster.pods.iter().find(|pod| pod.key == *key)?;
        if let Some(node) = pod.node.as_ref().filter(|_| !self.waiting().iter().any(|entry| entry.pod.key == *key)) {
            let protects = forbids(self.settings, pod, &Budgets::of(&self.cluster.budgets));
            let protects = protects.map(|why| (node.to_string(), format!("the node is not given back for economy: {why}")));
            return Some((format!("it is on node {node}"), protects.into_iter().collect()));
        }
        if pod.node.is_none() && !pod.wants_a_node() {
            return Some((format!("it buys no node: {}", waits_for_something_else(pod)), Vec::new()));
        }
        let mut board = Board::default();
        let ready = self.set_up(&mut board);
        let existing = ready.len();
        let mut buyer = self.buyer(memory);
        let promises = self.add_booting(&mut board, &buyer);
        let things = things(pod, &mut board.clone(), &mut buyer.clone(), existing);
        let on_their_way = board.nodes();
        let waiting = self.wanting_room();
        let (settings, now) = (self.settings, self.now);
        let context = pending::Context { settings, promises: &promises, ready: &ready, bought_from: on_their_way, now, asked: Some(key) };
        let outcome = pending::place_cheaply(context, &mut board, &mut buyer, waiting);
        let verdict = match outcome.fate {
            Some(Fate::Placed(index)) if index < existing => {
                let name = board.bin(index).name.map(ToString::to_string).unwrap_or_default();
                let refused = if pending::disagrees(pod, ready[index], self.now) { "; the scheduler does not see it so" } else { "" };
                format!("node {name} has room for it, so it buys none{refused}")
            }
            Some(Fate::Placed(index)) if index < on_their_way => "its node is on its way".to_owned(),
            Some(Fate::Placed(index)) => {
                let offer = buyer.offer_of(index).map(ToString::to_string).unwrap_or_default();
                format!("the next turn buys {offer} for it")
            }
            Some(Fate::Never(why)) => pending::never(&why),
            Some(Fate::Held(pool, hold)) => format!("pool {pool} buys nothing for it now: {hold}"),
            None => match &self.snapshot.pause {
                Some(pause) => format!("nothing is bought now: paused by {}: {}", pause.by, pause.reason),
                None => {
                    format!("its priority {} is below expendable_below ({}): it buys no node", pod.priority, self.settings.expendable_below)
                }
            },
        };
        Some((verdict, things))
    }

    fn explain_node(&self, name: &NodeName, memory: &'a Memory) -> Option<Answer> {
        let node = self.cluster.nodes.get(name)?;
        let pods = self.cluster.pods.iter().filter(|pod| pod.node.as_ref() == Some(name));
        let budgets = Budgets::of(&self.cluster.budgets);
        let protects = pods.filter_map(|pod| Some((pod.key.to_string(), forbids(self.settings, pod, &budgets)?))).collect();
        let in_pool = |pool: &'a PoolSettings| {
            let mut members = self.fleet.pool(&pool.name).iter();
            members.find(|member| member.node.is_some_and(|of_member| of_member.name == *name)).map(|member| (pool, member))
        };
        let found = self.settings.pools.iter().find_map(in_pool);
        if let Some(retire) = found.and_then(|(_, member)| member.leaving) {
            return Some((format!("it is leaving (operation {}): {}", retire.id, retire.order.reason), protects));
        }
        let (decided, _) = plan(self.settings, self.snapshot, memory, self.now);
        let refused = audit(self.settings, self.snapshot, &decided, self.now);
        let verdict = match (refused.first(), going(&decided, name), found) {
            (Some(why), ..) => format!("nothing is done now, for the audit refuses the turn's plan: {why}"),
            (None, Some(reason), ..) => format!("the next turn gives it back: {reason}"),
            (None, None, Some((pool, _))) => self.why_it_stays(&decided, pool, name, memory),
            (None, None, None) if node.control_plane => "it is a server: servers are never touched".to_owned(),
            (None, None, None) => "no instance of this fleet stands behind it: a node of somebody else is never touched".to_owned(),
        };
        Some((verdict, protects))
    }

    fn why_it_stays(&self, decided: &Plan, pool: &PoolSettings, name: &NodeName, memory: &'a Memory) -> String {
        let decision = finding(decided, &pool.name);
        let alone = self.chooser(memory).may_go_alone(pool, name, &[]).map(|_| ());
        if let Err(why) = alone.and_then(|()| self.in_turn(pool, name, memory, decision)) {
            return format!("it stays: {why}");
        }
        match decision {
            Some(Finding { wants, .. }) if *wants < 0 => "it could go; others go first, with less disruption for each dollar".to_owned(),
            Some(Finding { hold: Some(hold), .. }) => format!("it could go, but pool {} gives nothing back now: {hold}", pool.name),
            Some(Finding { evidence, .. }) => format!("it could go, but pool {} gives nothing back now: {evidence}", pool.name),
            None => "it could go, but nothing is decided now".to_owned(),
        }
    }

    /// Tells whether the node would be refused among those that the turn has chosen from.
    fn in_turn(&self, pool: &PoolSettings, name: &NodeName, memory: &'a Memory, decision: Option<&Finding>) -> Result<(), String> {
        let most = match decision {
            Some(Finding { wants, .. }) if *wants < 0 => wants.unsigned_abs(),
            Some(Finding { hold: Some(Hold::NoCandidate { .. }), .. }) => 1,
            Some(_) | None => return Ok(()),
        };
        let load = rules::pool_load(self.settings, self.fleet.pool(&pool.name), &self.snapshot.utilisation);
        let Ok(load) = self.sound(&load) else { return Ok(()) };
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let bounds = pool.bounds(self.now);
        let which = Which { most, ..self.which(self.fleet.staying(&pool.name) > bounds.max, bounds) };
        let chosen = self.chooser(memory).choose(pool, which, |gone| self.is_spared(load, gone));
        let refusals = chosen.map_or_else(|refusals| refusals, |choice| choice.passed_over);
        let of_node = format!("{name}: ");
        refusals.iter().find_map(|line| line.strip_prefix(&of_node)).map_or(Ok(()), |why| Err(why.to_owned()))
    }

    fn explain_offers(&mut self, memory: &'a Memory) -> Answer {
        if let Observed::Unknown(why) = &self.snapshot.offers {
            return (format!("what can be bought is not known: {why}"), Vec::new());
        }
        let offers = self.buyer(memory).explain(&mut Board::default(), None);
        let open = offers.iter().filter(|(_, outcome)| outcome.is_ok()).count();
        let mut next = memory.clone();
        let verdicts = self.judge(&mut next);
        let basket = self.choose(memory, &mut next, &verdicts);
        let passed_over = basket.passed_over();
        let paused = self.snapshot.pause.as_ref();
        let paused = paused.map(|pause| format!("; nothing is bought while paused by {}: {}", pause.by, pause.reason)).unwrap_or_default();
        let buys: String =
            basket.orders.into_iter().map(|order| format!("; the next turn {}", Action::Launch(order))).take(ORDERS_TOLD).collect();
        let verdict = format!("{open} of {} offers can be bought{paused}{buys}", offers.len());
        let says = |index: usize, outcome: Result<(), String>| match (outcome, passed_over.get(&index)) {
            (Err(why), _) => why,
            (Ok(()), Some(why)) => format!("can be bought; not in the next turn: {why}"),
            (Ok(()), None) => "can be bought".to_owned(),
        };
        (verdict, offers.into_iter().enumerate().map(|(index, (offer, outcome))| (offer, says(index, outcome))).collect())
    }

    pub(super) fn buyer(&self, memory: &'a Memory) -> Buyer<'a> {
        Buyer::new(self.settings, self.offers, &self.prices, self.daemons, memory, &self.fleet, self.now)
    }
}

/// Lists what every node and every offer says to a pod, the other pods that wait left aside.
fn things<'a>(pod: &'a Pod, board: &mut Board<'a>, buyer: &mut Buyer<'a>, existing: usize) -> Vec<(String, String)> {
    let shape = board.shape(pod);
    let mut things = Vec::new();
    for index in 0..board.nodes() {
        let bin = board.bin(index);
        let name = bin.name.map_or_else(|| "a node on its way".to_owned(), |name| format!("node {name}"));
        let says = if index < existing && !bin.is_open() {
            "takes no new pods now: cordoned, not Ready, starting or on its way out".to_owned()
        } else {
            board.fits(shape, index).map_or_else(|why| why.to_string(), |()| "would take it, were it for this pod alone".to_owned())
        };
        things.push((name, says));
    }
    let says = |outcome: Result<(), String>| outcome.err().unwrap_or_else(|| "would take it and can be bought".to_owned());
    things.extend(buyer.explain(board, Some(shape)).into_iter().map(|(offer, outcome)| (offer, says(outcome))));
    things
}

fn waits_for_something_else(pod: &Pod) -> String {
    match pod {
        Pod { terminating_since: Some(since), .. } => format!("it has been ending since {since}"),
        Pod { gated: true, .. } => "it waits for its scheduling gates".to_owned(),
        Pod { nominated_node: Some(node), .. } => format!("preemption makes room for it on node {node}"),
        Pod { phase, .. } => format!("the scheduler has not marked it Unschedulable (its phase is {phase:?})"),
    }
}

/// Gives the reason for which a plan gives a node back, if it does.
fn going<'p>(decided: &'p Plan, name: &NodeName) -> Option<&'p RetireReason> {
    decided.actions.iter().find_map(|action| match action {
        Action::Retire(order) if order.node.as_ref().is_some_and(|gone| gone.name == *name) => Some(&order.reason),
        Action::Retire(_) | Action::Launch(_) => None,
    })
}

/// Gives what a plan says of giving nodes of a pool back.
fn finding<'p>(decided: &'p Plan, pool: &PoolName) -> Option<&'p Finding> {
    let report = decided.pools.iter().find(|report| report.pool == *pool)?;
    report.findings.iter().find(|finding| finding.rule.as_str() == "scale_down")
}
