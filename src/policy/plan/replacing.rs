//! Which nodes are replaced although they could stay: what takes their place is bought first, and they go once it is there.

use super::giving_back::{order, vetoed};
use super::{Refusal, Turn, Verdicts};
use crate::model::memory::{Memory, Succession};
use crate::model::offer::HourlyPrice;
use crate::model::plan::{Finding, Hold, LaunchReason, ReplacementCause, RetireReason};
use crate::model::{
    Action, InstanceType, LaunchOrder, LaunchState, Market, Node, NodeName, OfferKey, Operation, OperationId, PoolName, RuleName, Zone,
};
use crate::policy::buying::Empty;
use crate::policy::fit::Board;
use crate::policy::fleet::{Member, count};
use crate::policy::learn::GIVEN_UP;
use crate::policy::pending::{self, Waiting};
use crate::policy::rules::{NoLoad, PoolLoad};
use crate::policy::scale_down::{Chooser, REFUSALS_TOLD, lacks_on_demand, load};
use crate::policy::settings::{PoolSettings, Replacement};
use jiff::{SignedDuration, Timestamp};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

/// How many nodes are looked at in a turn: half of them the most pressing, half of them the others by turns.
const LOOKED_AT: usize = 16;
/// So long the node and its successors are paid for together.
const TOGETHER: Duration = Duration::from_mins(10);
/// Beyond the time in which its successors may join, a node is to go within this time, or stays.
const TO_GO: SignedDuration = SignedDuration::from_hours(1);
/// The journal keeps launches that are over for longer than this.
const JOURNAL_REMEMBERS: SignedDuration = SignedDuration::from_mins(10);
/// A node in another zone may cost so many times as much.
const DEARER_FOR_BALANCE: f64 = 1.05;
/// So much of its greatest age a node may miss, so that not all go on one day.
const JITTER: f64 = 0.1;

/// What speaks for the pool's rest, and against it.
struct Ground<'v> {
    load: &'v Result<PoolLoad, NoLoad>,
    /// What a rule says against removals.
    veto: Option<Hold>,
}

impl Ground<'_> {
    fn bad_data(&self) -> Option<Hold> {
        self.veto.clone().filter(|veto| matches!(veto, Hold::BadData { .. }))
    }
}

/// What an exchange rests on.
struct Sound<'v, 'a> {
    load: &'v PoolLoad,
    known: &'a Memory,
    /// A rule wants as many nodes as there are.
    wanted: bool,
}

/// A node that may go, and what may speak for it.
struct Candidate<'t, 'a> {
    member: &'t Member<'a>,
    node: &'a Node,
    causes: Vec<ReplacementCause>,
}

/// What takes a node's place.
struct Exchange {
    cause: ReplacementCause,
    evidence: String,
    /// What is to be bought first; nothing when there is room already.
    orders: Vec<LaunchOrder>,
    /// Offers that are not bought for it, each with its reason (bounded).
    passed_over: Vec<String>,
}

/// Why a node is not replaced.
enum Stays {
    /// It should be, and cannot.
    Refused(String),
    /// It would be done for its own sake alone, and is not worth it or cannot be.
    NotWorthIt(String),
}

impl<'a> Turn<'a> {
    /// Goes on with the replacement of each pool, or begins one.
    pub(super) fn replace(&mut self, known: &'a Memory, memory: &mut Memory, verdicts: &Verdicts) {
        self.recall(memory);
        for pool in &self.settings.pools {
            if self.settings.replacement.is_none() && pool.max_node_age.is_none() && memory.successions.is_empty() {
                continue;
            }
            let rule = RuleName::from("replacement");
            let (load, pool_verdicts) = &verdicts[&pool.name];
            let ground = Ground { load, veto: vetoed(pool_verdicts) };
            let due = memory.successions.iter().find(|(_, succession)| succession.pool == pool.name && !succession.failed);
            let due = due.map(|(name, succession)| (name.clone(), succession.clone()));
            let mut passed_over = Vec::new();
            let outcome = match &due {
                Some((name, succession)) => self.go_on(pool, name, succession, &ground, memory),
                None => self.begin(pool, &ground, known, memory, &mut passed_over),
            };
            let finding = match outcome {
                Ok(actions) => {
                    let wants = actions.iter().map(|action| match action {
                        Action::Launch(order) => i64::from(order.count),
                        Action::Retire(_) => -1,
                    });
                    let finding = Finding { rule, evidence: words(&actions), wants: wants.sum(), hold: None, passed_over };
                    self.plan.actions.extend(actions);
                    finding
                }
                Err((evidence, hold)) => Finding { rule, evidence, wants: 0, hold, passed_over },
            };
            if let Some(report) = self.plan.pools.iter_mut().find(|report| report.pool == pool.name) {
                report.findings.push(finding);
            }
        }
    }

    /// The journal knows better than the memory which successors there are: one that died between its two writes has
    /// left a launch that nobody remembers, or a memory of one that never was.
    fn recall(&self, memory: &mut Memory) {
        memory.successions.retain(|_, succession| self.settings.pools.iter().any(|pool| pool.name == succession.pool));
        let mut launched = BTreeMap::new();
        for operation in self.snapshot.operations.values() {
            if let Operation::Launch(launch) = operation
                && let LaunchReason::Successor { node, cause, evidence } = &launch.order.reason
            {
                let came = match &launch.state {
                    LaunchState::Journalled | LaunchState::Joining { .. } => true,
                    LaunchState::Done { joined, .. } => !joined.is_empty(),
                    LaunchState::Failed { .. } => false,
                };
                launched.insert(node, (launch, *cause, evidence, came));
            }
        }
        memory.successions.retain(|node, succession| {
            succession.failed || launched.contains_key(node) || self.now.duration_since(succession.since) > JOURNAL_REMEMBERS
        });
        for (node, (launch, cause, evidence, came)) in launched {
            let stays = self.fleet.pool(&launch.order.pool).iter().any(|member| member.serves() && is_node(member, node));
            if came && stays && !memory.successions.contains_key(node) {
                let succession = self.succession(&launch.order.pool, cause, evidence.clone(), launch.created);
                memory.successions.insert(node.clone(), succession);
            }
        }
    }

    fn succession(&self, pool: &PoolName, cause: ReplacementCause, evidence: String, since: Timestamp) -> Succession {
        let joining = SignedDuration::try_from(self.settings.join_timeout).unwrap_or(SignedDuration::MAX);
        let until = since + joining.saturating_add(TO_GO);
        Succession { pool: pool.clone(), cause, evidence, since, failed: false, until }
    }

    /// Gives a node back whose successors are there.
    fn go_on(
        &self,
        pool: &PoolSettings,
        name: &NodeName,
        succession: &Succession,
        ground: &Ground<'_>,
        memory: &mut Memory,
    ) -> Result<Vec<Action>, Refusal> {
        let evidence = format!("node {name}: {}", succession.evidence);
        let hold = |hold| Err((evidence.clone(), Some(hold)));
        if !self.fleet.pool(&pool.name).iter().any(|member| member.leaving.is_none() && is_node(member, name)) {
            memory.successions.remove(name);
            return Err((format!("node {name} has gone"), None));
        }
        if let Some(operation) = self.successors_of(name) {
            return hold(Hold::Underway { operation });
        }
        if self.now > succession.until {
            let given_up = Succession { failed: true, until: self.now + GIVEN_UP, ..succession.clone() };
            memory.successions.insert(name.clone(), given_up);
            return Err((format!("node {name} could not go in time, and stays"), None));
        }
        if !self.settings.scale_down.enabled {
            return Err(("scale-down is switched off".into(), None));
        }
        let load = self.sound(ground.load)?;
        if self.snapshot.pause.is_some() {
            return Err((evidence, None));
        }
        if let Some(bad) = ground.bad_data() {
            return hold(bad);
        }
        let min = pool.bounds(self.now).min;
        if self.carrying(pool) <= min {
            return hold(Hold::AtMinimum { min });
        }
        if let Some(why) = self.unrest(pool).or_else(|| self.over_budget(pool, succession.cause)) {
            return hold(why);
        }
        let goes = self.chooser(memory).may_go_alone(pool, name, &[]);
        let goes = goes.and_then(|(member, node)| self.is_replaced(load, &node.allocatable).map(|()| (member, node)));
        let (member, node) = goes.map_err(|why| (evidence, Some(Hold::NoCandidate { why: vec![format!("{name}: {why}")] })))?;
        memory.successions.remove(name);
        memory.pools.entry(pool.name.clone()).or_default().last_down = Some(self.now);
        let reason = RetireReason::Replaced { cause: succession.cause, evidence: succession.evidence.clone() };
        Ok(vec![Action::Retire(order(pool, member, node, reason))])
    }

    /// Finds a node that is worth replacing, and buys what takes its place. Tells besides what was passed over (bounded).
    fn begin(
        &self,
        pool: &PoolSettings,
        ground: &Ground<'_>,
        known: &'a Memory,
        memory: &mut Memory,
        passed_over: &mut Vec<String>,
    ) -> Result<Vec<Action>, Refusal> {
        if !self.settings.scale_down.enabled {
            return Err(("scale-down is switched off".into(), None));
        }
        let load = self.sound(ground.load)?;
        let nothing = || "no node is worth replacing".to_owned();
        if self.snapshot.pause.is_some() {
            return Err((nothing(), None));
        }
        let acts = self.plan.actions.iter().any(|action| match action {
            // What is bought for another pool counts towards the same ceiling.
            Action::Launch(_) => true,
            Action::Retire(order) => order.pool == pool.name,
        });
        if acts {
            return Err(("the fleet changes in this turn".into(), None));
        }
        if let Some(bad) = ground.bad_data() {
            return Err((nothing(), Some(bad)));
        }
        let kept = memory.pools.get(&pool.name).cloned().unwrap_or_default();
        if let Some(why) = self.unrest(pool).or_else(|| self.cooling(&kept)) {
            return Err((nothing(), Some(why)));
        }
        let (mut held, mut found) = (None, None);
        let mut refusals = Vec::new();
        let chooser = self.chooser(memory);
        let candidates = self.worth_a_look(pool, &chooser);
        for (candidate, cause) in candidates.iter().flat_map(|candidate| candidate.causes.iter().map(move |cause| (candidate, *cause))) {
            if let Some(why) = self.over_budget(pool, cause) {
                held = held.or(Some(why));
                continue;
            }
            match self.exchange(pool, candidate, cause, &Sound { load, known, wanted: ground.veto.is_some() }, &chooser) {
                Ok(exchange) => {
                    found = Some((candidate.member.clone(), candidate.node, exchange));
                    break;
                }
                Err(Stays::NotWorthIt(why)) => passed_over.push(format!("{}: not as {}: {why}", candidate.node.name, cause.name())),
                Err(Stays::Refused(why)) => refusals.push(format!("{}: it is {}, but {why}", candidate.node.name, cause.name())),
            }
        }
        refusals.truncate(REFUSALS_TOLD);
        passed_over.truncate(REFUSALS_TOLD);
        if let Some((member, node, exchange)) = found {
            // Nothing holds the rule, so that these are told here.
            passed_over.extend(refusals);
            passed_over.extend(exchange.passed_over.iter().cloned());
            return Ok(self.start(pool, member, node, exchange, memory));
        }
        let refused = (!refusals.is_empty()).then_some(Hold::NoCandidate { why: refusals });
        Err((nothing(), held.or(refused)))
    }

    fn start(&self, pool: &PoolSettings, member: Member<'a>, node: &Node, exchange: Exchange, memory: &mut Memory) -> Vec<Action> {
        let Exchange { cause, evidence, orders, .. } = exchange;
        if orders.is_empty() {
            memory.pools.entry(pool.name.clone()).or_default().last_down = Some(self.now);
            return vec![Action::Retire(order(pool, member, node, RetireReason::Replaced { cause, evidence }))];
        }
        memory.successions.insert(node.name.clone(), self.succession(&pool.name, cause, evidence, self.now));
        orders.into_iter().map(Action::Launch).collect()
    }

    /// Lists nodes that may go with the causes for which they might, the most pressing first.
    fn worth_a_look<'t>(&'t self, pool: &PoolSettings, chooser: &'t Chooser<'t, 'a>) -> Vec<Candidate<'t, 'a>> {
        let zones = self.zones(pool);
        let fewest = zones.values().min().copied().unwrap_or(0);
        let cheapest = |only: Option<Market>| {
            let of_pool = self.offers.iter().filter(|offer| offer.pool == pool.name && only.is_none_or(|only| offer.key.market == only));
            of_pool.map(|offer| offer.price).min()
        };
        let (cheapest, cheapest_on_demand) = (cheapest(None), cheapest(Some(Market::OnDemand)));
        let pods = &self.pods;
        let mut candidates = Vec::new();
        for (member, node) in chooser.replaceable(pool) {
            let price = self.prices.get(&member.offer()).copied();
            let overdue = pool.max_node_age.map(|most| self.now.duration_since(node.created) - jittered(most, member));
            let overdue = overdue.filter(SignedDuration::is_positive);
            let mut causes = Vec::new();
            let rule = self.settings.replacement.as_ref();
            let at_risk = member.id.as_ref().is_some_and(|id| chooser.memory.at_risk.contains_key(id));
            if at_risk && rule.is_some_and(|rule| rule.recommended) {
                causes.push(ReplacementCause::Recommended);
            }
            if overdue.is_some() {
                causes.push(ReplacementCause::Expired);
            }
            if rule.is_some_and(|rule| rule.drifted) && self.drift(pool, member).is_some() {
                causes.push(ReplacementCause::Drifted);
            }
            if let Some(replacement) = rule {
                let cheapest = if lacks_on_demand(&self.fleet, pool, member) { cheapest_on_demand } else { cheapest };
                if price.zip(cheapest).is_some_and(|(price, cheapest)| cheapest < price) {
                    causes.push(ReplacementCause::Cheaper);
                }
                if replacement.balances_zones && zones.get(&member.zone).is_some_and(|here| *here >= fewest + 2) {
                    causes.push(ReplacementCause::Rebalanced);
                }
            }
            let used = load(node, pods.get(&node.name).map_or(&[][..], Vec::as_slice));
            let waste = price.map_or(0.0, HourlyPrice::dollars) * (1.0 - used);
            if !causes.is_empty() && !chooser.memory.successions.contains_key(&node.name) {
                // The most pressing cause first, then the oldest.
                let rank = (Reverse(causes[0]), overdue);
                candidates.push((rank, waste, Candidate { member, node, causes }));
            }
        }
        candidates.sort_by(|one, other| {
            other.0.cmp(&one.0).then_with(|| other.1.total_cmp(&one.1)).then_with(|| one.2.node.name.cmp(&other.2.node.name))
        });
        let mut candidates: Vec<_> = candidates.into_iter().map(|(_, _, candidate)| candidate).collect();
        let mut others = candidates.split_off(candidates.len().min(LOOKED_AT / 2));
        let first = self.by_turns(others.len());
        others.rotate_left(first);
        candidates.extend(others.into_iter().take(LOOKED_AT - LOOKED_AT / 2));
        candidates
    }

    /// Gives where to begin with so many candidates, so that each comes round however many there are.
    fn by_turns(&self, candidates: usize) -> usize {
        let interval = i64::try_from(self.settings.interval.as_secs()).unwrap_or(i64::MAX).max(1);
        let turn = usize::try_from(self.now.as_second() / interval).unwrap_or(0);
        turn.wrapping_mul(LOOKED_AT - LOOKED_AT / 2).checked_rem(candidates).unwrap_or(0)
    }

    /// Finds what would take the node's place.
    ///
    /// # Errors
    /// Why the node stays.
    fn exchange(
        &self,
        pool: &PoolSettings,
        candidate: &Candidate<'_, 'a>,
        cause: ReplacementCause,
        sound: &Sound<'_, 'a>,
        chooser: &Chooser<'_, 'a>,
    ) -> Result<Exchange, Stays> {
        let Candidate { member, node, .. } = *candidate;
        let for_itself = matches!(cause, ReplacementCause::Cheaper | ReplacementCause::Rebalanced);
        // What is done for its own sake alone is not missed.
        let stays = |why: String| if for_itself { Stays::NotWorthIt(why) } else { Stays::Refused(why) };
        let mut board = Board::making_way(self.settings.expendable_below);
        let ready = self.set_up(&mut board);
        let Some(home) = self.cluster.nodes.keys().position(|name| *name == node.name) else { return Err(stays("it has gone".to_owned())) };
        let below = self.settings.expendable_below;
        let leave = board.clear(home).into_iter().filter(|pod| pod.must_find_a_place(below) && pod.terminating_since.is_none());
        let leave: Vec<Waiting<'a>> = leave.map(|pod| Waiting { pod, leaves: Some(&node.name) }).collect();
        let moves = leave.len();
        board.set_open(home, false);
        let mut buyer = self.buyer(sound.known);
        buyer.disregard(&pool.name, member);
        // Nodes that boot are there for their own pods, and are counted with the others once these have come.
        let promises = Vec::new();
        let (settings, bought_from, now) = (self.settings, board.nodes(), self.now);
        let context = pending::Context { settings, promises: &promises, ready: &ready, bought_from, now, asked: None };
        let outcome = pending::place_cheaply(context, &mut board, &mut buyer, leave);
        if !outcome.serves_all() {
            let hold = outcome.held.get(&pool.name).map_or_else(|| "no offer would take them".to_owned(), |(_, hold)| hold.to_string());
            return Err(stays(format!("its pods need a node that cannot be had: {hold}")));
        }
        let is_busy = self.is_replaced(sound.load, &node.allocatable).is_err();
        let keeps_number = sound.wanted || is_busy || self.carrying(pool) <= pool.bounds(self.now).min;
        if buyer.bill().1 == 0 && !for_itself && keeps_number {
            let opened = buyer.open_any(&mut board, pool, &LaunchReason::BelowMinimum, |_| 1.0);
            if let Err(hold) = opened {
                return Err(stays(format!("nothing can take its place: {hold}")));
            }
        }
        let nodes = buyer.nodes();
        if nodes.iter().any(|node| node.offer.pool != pool.name) {
            return Err(stays("its pods would go to another pool".to_owned()));
        }
        // On-demand that cannot be had just now is no reason to give up what the pool must have of it.
        let keeps_market = nodes.iter().any(|node| node.offer.key.market == Market::OnDemand);
        if for_itself && !keeps_market && lacks_on_demand(&self.fleet, pool, member) {
            return Err(stays("the pool needs it for its base or its share of on-demand".to_owned()));
        }
        let evidence = match (cause, &self.settings.replacement) {
            (ReplacementCause::Recommended, _) => Ok("EC2 recommends it".to_owned()),
            (ReplacementCause::Expired, _) => self.expired(pool, member, node).ok_or_else(|| "it is young enough".to_owned()),
            (ReplacementCause::Drifted, _) => self.drift(pool, member).ok_or_else(|| "it is what a launch would be".to_owned()),
            (ReplacementCause::Cheaper, Some(rule)) => self.cheaper(rule, member, moves, &nodes),
            (ReplacementCause::Rebalanced, Some(_)) => self.rebalanced(pool, member, &nodes),
            (ReplacementCause::Cheaper | ReplacementCause::Rebalanced, None) => Err("the rule is off".to_owned()),
        };
        let evidence = evidence.map_err(stays)?;
        let mut gone = node.allocatable.clone();
        for bought in &nodes {
            gone.subtract(&bought.offer.allocatable);
        }
        let goes = self.is_replaced(sound.load, &gone).and_then(|()| chooser.may_go_alone(pool, &node.name, &nodes).map(|_| ()));
        goes.map_err(stays)?;
        let reason = LaunchReason::Successor { node: node.name.clone(), cause, evidence: evidence.clone() };
        let mut orders = buyer.orders(&board);
        for order in &mut orders {
            order.reason = reason.clone();
            order.pods.clear();
            if for_itself {
                self.keep_cheap(order, self.dearest(cause, member, &nodes));
            }
        }
        let passed_over = buyer.passed_over(&board, &orders.iter().collect::<Vec<_>>());
        Ok(Exchange { cause, evidence, orders, passed_over })
    }

    fn expired(&self, pool: &PoolSettings, member: &Member<'_>, node: &Node) -> Option<String> {
        let most = pool.max_node_age?;
        let age = self.now.duration_since(node.created);
        let hours = |duration: SignedDuration| duration.as_hours();
        (age > jittered(most, member)).then(|| {
            let most = SignedDuration::try_from(most).unwrap_or(SignedDuration::MAX);
            format!("it is {} hours old, and may be {}", hours(age), hours(most))
        })
    }

    /// Says from what the member was launched, if a launch would take something else now.
    fn drift(&self, pool: &PoolSettings, member: &Member<'_>) -> Option<String> {
        let (has, now) = (member.instance?.template.as_ref()?, self.snapshot.templates.get(&pool.name)?);
        (has != now).then(|| format!("it comes from the launch template {has}, and the pool has {now}"))
    }

    /// The saving, for as long as it may last, must be worth more than the disruption.
    ///
    /// # Errors
    /// Why it is not.
    fn cheaper(&self, rule: &Replacement, member: &Member<'_>, moves: usize, nodes: &[Rc<Empty<'_>>]) -> Result<String, String> {
        let old = self.price_of(member)?;
        if nodes.is_empty() {
            return Err("its pods have room on nodes that stay, so that it may go without a successor".to_owned());
        }
        let new = price_of_all(nodes);
        let hours = |duration: Duration| duration.as_secs_f64() / 3600.0;
        let costs = f64::from(count(moves)) * rule.price_of_a_move + new * hours(TOGETHER);
        let saves = (old - new) * hours(rule.saving_lasts);
        let words = format!("its {moves} pods have room for ${new:.4} instead of ${old:.4} an hour");
        if saves > costs && new <= old * (1.0 - rule.least_saving) {
            return Ok(words);
        }
        Err(format!(
            "{words}: it saves ${:.4}, and costs ${costs:.4} (at least {:.0} % are wanted)",
            saves.max(0.0),
            rule.least_saving * 100.0
        ))
    }

    /// Says from which zone to which the node goes.
    ///
    /// # Errors
    /// Why it does not.
    fn rebalanced(&self, pool: &PoolSettings, member: &Member<'_>, nodes: &[Rc<Empty<'_>>]) -> Result<String, String> {
        let old = self.price_of(member)?;
        let [node] = nodes else { return Err(format!("{} nodes would take its place", nodes.len())) };
        let (offer, new) = (node.offer, price_of_all(nodes));
        if new > old * DEARER_FOR_BALANCE {
            return Err(format!("{} at ${new:.4} an hour would take the place of ${old:.4}", offer.key));
        }
        let zones = self.zones(pool);
        let of = |zone: &Zone| zones.get(zone).copied().unwrap_or(0);
        let (here, there) = (of(&member.zone), of(&offer.key.zone));
        let words = format!("zone {} has {here} nodes and zone {} has {there}", member.zone, offer.key.zone);
        if here >= there + 2 { Ok(words) } else { Err(words) }
    }

    fn price_of(&self, member: &Member<'_>) -> Result<f64, String> {
        self.prices.get(&member.offer()).map(|price| price.dollars()).ok_or_else(|| "its price is not known".to_owned())
    }

    /// Gives what a successor may cost at most where EC2 chooses among types; `None` is no more than was reckoned with.
    fn dearest(&self, cause: ReplacementCause, member: &Member<'_>, nodes: &[Rc<Empty<'_>>]) -> Option<f64> {
        let ([_], Some(rule)) = (nodes, &self.settings.replacement) else { return None };
        let share = if cause == ReplacementCause::Cheaper { 1.0 - rule.least_saving } else { DEARER_FOR_BALANCE };
        self.prices.get(&member.offer()).map(|price| price.dollars() * share)
    }

    /// Takes types from the order that cost too much.
    fn keep_cheap(&self, order: &mut LaunchOrder, dearest: Option<f64>) {
        let price = |instance_type: &InstanceType| {
            let key = OfferKey { instance_type: instance_type.clone(), zone: order.zone.clone(), market: order.market };
            self.prices.get(&key).copied()
        };
        let Some(chosen) = order.instance_types.first().and_then(price) else { return };
        let may = |known: HourlyPrice| known <= chosen || dearest.is_some_and(|dearest| known.dollars() <= dearest);
        let kept: Vec<InstanceType> = order.instance_types.iter().filter(|name| price(name).is_some_and(may)).cloned().collect();
        order.price = kept.iter().filter_map(price).max().unwrap_or(chosen);
        order.instance_types = kept;
    }

    /// Counts the pool's nodes that stay in each zone in which it may have some.
    fn zones(&self, pool: &PoolSettings) -> BTreeMap<&Zone, u32> {
        let offered = self.offers.iter().filter(|offer| offer.pool == pool.name).map(|offer| (&offer.key.zone, 0));
        let mut zones: BTreeMap<&Zone, u32> = offered.collect();
        for member in self.fleet.pool(&pool.name).iter().filter(|member| member.leaving.is_none()) {
            *zones.entry(&member.zone).or_default() += 1;
        }
        zones
    }

    fn over_budget(&self, pool: &PoolSettings, cause: ReplacementCause) -> Option<Hold> {
        let allowed = pool.allows(cause.name(), self.fleet.staying(&pool.name), self.now);
        (allowed == 0).then(|| Hold::Budget { reason: cause.name().into() })
    }

    /// Names the launch of the node's successors while it is under way.
    fn successors_of(&self, node: &NodeName) -> Option<OperationId> {
        self.snapshot.operations.values().find_map(|operation| match operation {
            Operation::Launch(launch) if !operation.is_over() => match &launch.order.reason {
                LaunchReason::Successor { node: replaced, .. } if replaced == node => Some(launch.id.clone()),
                _ => None,
            },
            Operation::Launch(_) | Operation::Retire(_) => None,
        })
    }
}

/// Gives the age at which the member is replaced: the greatest, less a part that is the instance's own.
fn jittered(most: Duration, member: &Member<'_>) -> SignedDuration {
    let mut hasher = DefaultHasher::new();
    member.id.hash(&mut hasher);
    let part = f64::from(u8::try_from(hasher.finish() % 256).unwrap_or(0)) / 256.0;
    SignedDuration::try_from(most.mul_f64(1.0 - JITTER * part)).unwrap_or(SignedDuration::MAX)
}

fn price_of_all(nodes: &[Rc<Empty<'_>>]) -> f64 {
    nodes.iter().map(|node| node.offer.price.dollars()).sum()
}

fn is_node(member: &Member<'_>, name: &NodeName) -> bool {
    member.node.is_some_and(|node| node.name == *name)
}

fn words(actions: &[Action]) -> String {
    actions.first().map(ToString::to_string).unwrap_or_default()
}
