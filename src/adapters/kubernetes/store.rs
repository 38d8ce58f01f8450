//! What the watches have seen: the index, and the bells it rings.

use super::convert_pod::PodEntry;
use super::interner::Interner;
use super::signal::Signal;
use super::volumes::Volumes;
use super::watched::{Effect, Source, Watched};
use crate::model::snapshot::{DaemonSet, DisruptionBudget};
use crate::model::{ClusterView, Node, NodeName, PodKey};
use kube::runtime::watcher::Event;
use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// How many refused objects a view names.
const NAMED_REFUSALS: usize = 20;

/// Objects of one kind by namespace and name, those that made no sense as their reason.
#[derive(Debug)]
pub(super) struct Table<V> {
    live: BTreeMap<PodKey, Result<V, String>>,
    /// What a list has brought so far; it replaces `live` when it is complete.
    incoming: Option<BTreeMap<PodKey, Result<V, String>>>,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { live: BTreeMap::new(), incoming: None }
    }
}

impl<V> Table<V> {
    /// Gives an object that made sense.
    pub(super) fn get(&self, key: &PodKey) -> Option<&V> {
        self.live.get(key)?.as_ref().ok()
    }

    /// Puts an object in.
    #[cfg(test)]
    pub(super) fn insert(&mut self, key: PodKey, value: V) {
        self.live.insert(key, Ok(value));
    }

    fn values(&self) -> impl Iterator<Item = &V> {
        self.live.values().filter_map(|value| value.as_ref().ok())
    }

    fn refused(&self, source: Source) -> impl Iterator<Item = String> {
        self.live.iter().filter_map(move |(key, value)| {
            let why = value.as_ref().err()?;
            let slash = if key.namespace.is_empty() { "" } else { "/" };
            Some(format!("{} {}{slash}{}: {why}", source.singular(), key.namespace, key.name))
        })
    }
}

/// Where one watch stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Watch {
    /// Its first list is not complete.
    Starting,
    /// It delivers.
    Live,
    /// It does not, and why.
    Failing(String),
}

/// Where the watches stand together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Some have not listed everything yet.
    Starting(String),
    /// At least one does not deliver.
    Failing(String),
    /// All deliver.
    Healthy,
}

/// All objects that the watches have seen.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) pods: Table<PodEntry>,
    pub(super) nodes: Table<Node>,
    pub(super) budgets: Table<DisruptionBudget>,
    pub(super) daemon_sets: Table<DaemonSet>,
    pub(super) volumes: Volumes,
    /// How many volumes of each driver a node attaches.
    pub(super) attach_limits: Table<BTreeMap<String, u64>>,
    pub(super) interner: Interner,
    watches: BTreeMap<Source, Watch>,
    /// Those whose first list is still outstanding.
    unlisted: BTreeSet<Source>,
    /// The view of all this, until something changes.
    view: Option<Arc<ClusterView>>,
    /// Bells to ring once all watches deliver: before that no one could act on them.
    due: Effect,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            pods: Table::default(),
            nodes: Table::default(),
            budgets: Table::default(),
            daemon_sets: Table::default(),
            volumes: Volumes::default(),
            attach_limits: Table::default(),
            interner: Interner::default(),
            watches: Source::ALL.into_iter().map(|source| (source, Watch::Starting)).collect(),
            unlisted: Source::ALL.into_iter().filter(|source| source.is_vital()).collect(),
            view: None,
            due: Effect::default(),
        }
    }
}

impl Index {
    fn apply<K: Watched>(&mut self, event: Event<K>) {
        match event {
            Event::Init => K::table(self).incoming = Some(BTreeMap::new()),
            Event::InitApply(object) => {
                let key = key_of(&object);
                if let Some(entry) = object.entry(self) {
                    K::table(self).incoming.get_or_insert_default().insert(key, entry);
                }
            }
            Event::InitDone => {
                self.replace::<K>();
                if self.watches.insert(K::SOURCE, Watch::Live) != Some(Watch::Live) {
                    self.view = None;
                }
                self.unlisted.remove(&K::SOURCE);
            }
            Event::Apply(object) => {
                let key = key_of(&object);
                match object.entry(self) {
                    Some(entry) => self.put::<K>(key, entry),
                    None => self.remove::<K>(&key),
                }
            }
            Event::Delete(object) => self.remove::<K>(&key_of(&object)),
        }
    }

    fn put<K: Watched>(&mut self, key: PodKey, entry: Result<K::Entry, String>) {
        let (effect, changed) = match K::table(self).live.entry(key) {
            btree_map::Entry::Vacant(free) => {
                let new = free.insert(entry);
                (K::effect(None, new.as_ref().ok()), true)
            }
            btree_map::Entry::Occupied(mut taken) => {
                // Most updates, a heartbeat say, change nothing that is kept here.
                let changed = *taken.get() != entry;
                let effect = K::effect(taken.get().as_ref().ok(), entry.as_ref().ok());
                if changed {
                    *taken.get_mut() = entry;
                }
                (effect, changed)
            }
        };
        if changed {
            self.note(effect);
        }
    }

    fn remove<K: Watched>(&mut self, key: &PodKey) {
        if let Some(old) = K::table(self).live.remove(key) {
            self.note(K::effect(old.as_ref().ok(), None));
        }
    }

    /// Replaces what is known of a kind by what a complete list has brought.
    fn replace<K: Watched>(&mut self) {
        let table = K::table(self);
        let old = std::mem::replace(&mut table.live, table.incoming.take().unwrap_or_default());
        let mut effects = Effect::default();
        let mut changed = old.len() != table.live.len();
        for (key, new) in &table.live {
            let before = old.get(key);
            if before != Some(new) {
                changed = true;
                effects |= K::effect(before.and_then(|value| value.as_ref().ok()), new.as_ref().ok());
            }
        }
        for (_, gone) in old.iter().filter(|(key, _)| !table.live.contains_key(*key)) {
            changed = true;
            effects |= K::effect(gone.as_ref().ok(), None);
        }
        if changed {
            // While the list came in, page by page, volumes may have changed under the pods of its first pages.
            effects.volumes |= K::SOURCE == Source::Pods;
            self.note(effects);
        }
    }

    fn note(&mut self, effect: Effect) {
        self.view = None;
        self.due |= effect;
        if effect.volumes {
            self.resolve_volumes();
        }
    }

    /// Reckons anew where pods with claims may go. One that can be placed only now is urgent only now.
    fn resolve_volumes(&mut self) {
        let Self { pods, volumes, interner, due, .. } = self;
        for entry in pods.live.values_mut().filter_map(|entry| entry.as_mut().ok()) {
            let before = entry.pod.constraints.unmodelled.len();
            if entry.resolve(volumes, interner) {
                let after = &entry.pod.constraints.unmodelled;
                due.urgent |= before > 0 && after.is_empty() && entry.pod.wants_a_node();
            }
        }
    }

    fn health(&self) -> Health {
        for (source, watch) in self.watches.iter().filter(|(source, _)| source.is_vital()) {
            match watch {
                Watch::Starting | Watch::Live => {}
                Watch::Failing(why) => return Health::Failing(format!("the watch of {source} fails: {why}")),
            }
        }
        match self.unlisted.first() {
            Some(source) => Health::Starting(format!("the watch of {source} has not listed everything yet")),
            None => Health::Healthy,
        }
    }

    /// Gives all of it as one value, made only when something has changed.
    fn view(&mut self) -> Arc<ClusterView> {
        if let Some(view) = &self.view {
            return Arc::clone(view);
        }
        let refused = (self.pods.refused(Source::Pods))
            .chain(self.nodes.refused(Source::Nodes))
            .chain(self.budgets.refused(Source::Budgets))
            .chain(self.daemon_sets.refused(Source::DaemonSets))
            .chain(self.watches.iter().filter_map(missed));
        let view = Arc::new(ClusterView {
            refused: refused.take(NAMED_REFUSALS).collect(),
            refused_nodes: self.nodes.live.iter().filter(|(_, node)| node.is_err()).map(|(key, _)| NodeName::new(&key.name)).collect(),
            nodes: self.nodes.values().map(|node| (node.name.clone(), self.with_attach_limits(node))).collect(),
            pods: self.pods.values().map(|entry| Arc::clone(&entry.pod)).collect(),
            budgets: self.budgets.values().cloned().collect(),
            daemon_sets: self.daemon_sets.values().cloned().collect(),
        });
        self.view = Some(Arc::clone(&view));
        view
    }
}

/// Says what a watch does not deliver that the view can do without.
fn missed((source, watch): (&Source, &Watch)) -> Option<String> {
    match watch {
        Watch::Failing(why) if !source.is_vital() => Some(format!("the watch of {source} fails: {why}")),
        Watch::Starting | Watch::Live | Watch::Failing(_) => None,
    }
}

impl Index {
    fn with_attach_limits(&self, node: &Node) -> Node {
        let mut node = node.clone();
        let key = PodKey { namespace: String::new(), name: node.name.to_string() };
        node.allocatable.extended.extend(self.attach_limits.get(&key).cloned().unwrap_or_default());
        node
    }
}

fn key_of<K: Watched>(object: &K) -> PodKey {
    let meta = object.meta();
    PodKey { namespace: meta.namespace.clone().unwrap_or_default(), name: meta.name.clone().unwrap_or_default() }
}

/// The index behind its lock, with its bells.
#[derive(Debug)]
pub(super) struct Hub {
    index: Mutex<Index>,
    health: watch::Sender<Health>,
    /// Rings when a pod begins to want a node.
    pub(super) urgent: Signal,
    /// Rings when something changes that an operation may wait for.
    pub(super) changed: Signal,
}

impl Default for Hub {
    fn default() -> Self {
        let index = Index::default();
        let health = watch::Sender::new(index.health());
        Self { index: Mutex::new(index), health, urgent: Signal::default(), changed: Signal::default() }
    }
}

impl Hub {
    /// Takes in what a watch delivers.
    pub(super) fn apply<K: Watched>(&self, event: Event<K>) {
        let mut index = self.lock();
        index.apply(event);
        self.settle(&mut index);
    }

    /// Notes that a watch does not deliver, until its next list is complete.
    pub(super) fn failed(&self, source: Source, why: &str) {
        let mut index = self.lock();
        let failing = Watch::Failing(why.to_owned());
        let known = index.watches.insert(source, failing.clone());
        if known != Some(failing) {
            index.view = None;
            tracing::warn!(watch = %source, why, "a watch fails");
        }
        self.settle(&mut index);
    }

    /// Tells where the watches stand.
    #[cfg(test)]
    pub(super) fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// Waits until the first lists are complete or a watch fails.
    pub(super) async fn started(&self) {
        let mut health = self.health.subscribe();
        // The sender lives as long as `self`.
        let _ = health.wait_for(|health| !matches!(health, Health::Starting(_))).await;
    }

    /// Gives the view if all watches deliver, otherwise the reason.
    pub(super) fn view(&self) -> Result<Arc<ClusterView>, String> {
        let mut index = self.lock();
        match index.health() {
            Health::Starting(why) | Health::Failing(why) => Err(why),
            Health::Healthy => Ok(index.view()),
        }
    }

    /// Gives the view as it was when the watches last delivered, once they all have.
    pub(super) fn cached_view(&self) -> Option<Arc<ClusterView>> {
        let mut index = self.lock();
        index.unlisted.is_empty().then(|| index.view())
    }

    /// Lends the parts of the index that reading a pod needs.
    pub(super) fn with_volumes<T>(&self, read: impl FnOnce(&Volumes, &mut Interner) -> T) -> T {
        let mut index = self.lock();
        let Index { volumes, interner, .. } = &mut *index;
        read(volumes, interner)
    }

    /// Publishes the health, and rings what is due when someone can act on it.
    fn settle(&self, index: &mut Index) {
        let health = index.health();
        let healthy = health == Health::Healthy;
        let news = self.health.send_if_modified(|known| {
            let news = *known != health;
            *known = health;
            news
        });
        if !healthy {
            return;
        }
        if news {
            tracing::info!("all watches deliver");
        }
        let due = std::mem::take(&mut index.due);
        if due.urgent {
            self.urgent.ring();
        }
        if due.changed || news {
            self.changed.ring();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        // Nothing that holds the lock leaves the index half changed, even if it panics.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(super) mod tests;
