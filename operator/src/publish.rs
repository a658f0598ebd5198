//! What the proxies of each fleet are to have: one writer, and a subscriber for each stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use mcpmesh_compiler::ByNamespace;
use mcpmesh_ir::push::{Have, Resource};
use mcpmesh_ir::{Fleet, FleetId, ServerId, Watermark};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::observers::Observers;

/// How far the compiled state of the cluster goes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Marks {
    /// The latest changes: what a proxy is told.
    pub(crate) changed: Watermark,
    /// What we have read, bookmarks included: what a proxy's watermark is compared with.
    pub(crate) seen: Watermark,
}

impl Marks {
    /// Whether a proxy has what we have not read yet. Kinds that we don't watch say nothing: an earlier installation,
    /// or one over other namespaces, did.
    pub(crate) fn is_behind(&self, proxy: &Watermark) -> bool {
        let mut known = proxy.clone();
        known.versions.retain(|kind, _| self.seen.versions.contains_key(kind));
        self.seen.is_behind(&known)
    }
}

/// A fleet's configuration and what each of its proxies is told besides.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) revision: String,
    /// How many proxies share the limits.
    pub(crate) size: u32,
    /// The servers to observe, by pod.
    pub(crate) observe: Arc<BTreeMap<String, Arc<BTreeSet<ServerId>>>>,
    /// When we were told of the change that led to this.
    pub(crate) since: Instant,
    /// What leads here from the configuration before: made once for all proxies of the fleet.
    pub(crate) step: Option<Arc<Step>>,
}

/// The difference between two configurations of a fleet, as it travels.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) from: Arc<Fleet>,
    pub(crate) changed: Vec<Resource>,
    pub(crate) removed: Vec<Have>,
}

impl Step {
    /// From one configuration to another.
    pub(crate) fn between(from: &Arc<Fleet>, to: &Fleet) -> Self {
        let difference = to.difference_from(from);
        Self::new(from, difference)
    }

    /// From what somebody has who lacks this.
    pub(crate) fn new(from: &Arc<Fleet>, difference: mcpmesh_ir::fleet::Difference) -> Self {
        let removed = difference.removed.into_iter().map(|key| Have {
            kind: key.kind.to_string(),
            name: key.name,
            version: String::new(),
        });
        Self {
            from: from.clone(),
            changed: difference.changed.iter().map(Resource::from).collect(),
            removed: removed.collect(),
        }
    }
}

impl Published {
    fn empty(id: FleetId) -> Self {
        let fleet = Fleet::new(id, []);
        let revision = fleet.revision();
        let (size, observe, since) = (0, Arc::default(), Instant::now());
        Self { fleet: Arc::new(fleet), revision, size, observe, since, step: None }
    }

    /// Puts another configuration in place. False: it is the same.
    fn replace(&mut self, fleet: &Arc<Fleet>, since: Instant) -> bool {
        if Arc::ptr_eq(&self.fleet, fleet) {
            return false;
        }
        let revision = fleet.revision();
        if self.revision == revision {
            return false;
        }
        self.step = Some(Arc::new(Step::between(&self.fleet, fleet)));
        (self.fleet, self.revision, self.since) = (fleet.clone(), revision, since);
        true
    }
}

/// All fleets.
#[derive(Debug)]
pub(crate) struct Publisher {
    fleets: Mutex<BTreeMap<FleetId, watch::Sender<Published>>>,
    /// What the fleets were published from.
    last: Mutex<ByNamespace>,
    /// None: nothing is compiled yet.
    marks: watch::Sender<Option<Marks>>,
}

impl Default for Publisher {
    fn default() -> Self {
        Self { fleets: Mutex::default(), last: Mutex::default(), marks: watch::Sender::new(None) }
    }
}

impl Publisher {
    /// Puts new configurations in place of the old ones. A fleet that is there no more has an empty one. Costs one
    /// comparison for each namespace in which nothing changed.
    pub(crate) fn publish(&self, compiled: &ByNamespace, marks: Marks, since: Instant) {
        {
            let mut last = self.last.lock();
            let mut known = self.fleets.lock();
            for (name, new) in compiled {
                let old = last.get(name);
                if old.is_some_and(|old| Arc::ptr_eq(old, new)) {
                    continue;
                }
                let gone = old.into_iter().flat_map(|old| old.fleets.keys());
                gone.filter(|id| !new.fleets.contains_key(id)).for_each(|id| empty(&mut known, id, since));
                for (id, fleet) in &new.fleets {
                    let sender = known
                        .entry(id.clone())
                        .or_insert_with(|| watch::Sender::new(Published::empty(id.clone())));
                    sender.send_if_modified(|published| published.replace(fleet, since));
                }
            }
            for old in last.iter().filter(|(name, _)| !compiled.contains_key(*name)).map(|(_, old)| old) {
                old.fleets.keys().for_each(|id| empty(&mut known, id, since));
            }
            last.clone_from(compiled);
        }
        self.marks.send_replace(Some(marks));
    }

    /// Sets what depends on who is connected, and wakes only those for whom it changed.
    pub(crate) fn assign(&self, sizes: &BTreeMap<FleetId, u32>, mut observers: Observers) {
        let mut known = self.fleets.lock();
        // Nobody listens to them any more.
        known.retain(|_, sender| sender.receiver_count() > 0 || !sender.borrow().fleet.resources.is_empty());
        for (id, sender) in &*known {
            let size = sizes.get(id).copied().unwrap_or_default();
            let observe = observers.remove(id).unwrap_or_default();
            sender.send_if_modified(|published| {
                let as_before = published.size == size
                    && published.observe.len() == observe.len()
                    && published
                        .observe
                        .iter()
                        .zip(&observe)
                        .all(|((pod, old), (other, new))| pod == other && **old == *new);
                if !as_before {
                    let observe = observe.into_iter().map(|(pod, servers)| (pod, Arc::new(servers)));
                    (published.size, published.observe) = (size, Arc::new(observe.collect()));
                }
                !as_before
            });
        }
    }

    /// A fleet's configuration from now on.
    pub(crate) fn subscribe(&self, id: &FleetId) -> watch::Receiver<Published> {
        let mut known = self.fleets.lock();
        known
            .entry(id.clone())
            .or_insert_with(|| watch::Sender::new(Published::empty(id.clone())))
            .subscribe()
    }

    /// What a fleet is to have now.
    pub(crate) fn current(&self, id: &FleetId) -> Option<Published> {
        Some(self.fleets.lock().get(id)?.borrow().clone())
    }

    /// How far the published state goes.
    pub(crate) fn marks(&self) -> watch::Receiver<Option<Marks>> {
        self.marks.subscribe()
    }

    /// Whether anything is published.
    pub(crate) fn is_ready(&self) -> bool {
        self.marks.borrow().is_some()
    }

    /// The revision of a fleet.
    pub(crate) fn revision(&self, id: &FleetId) -> Option<String> {
        self.fleets.lock().get(id).map(|sender| sender.borrow().revision.clone())
    }
}

/// A fleet that is there no more has nothing.
fn empty(known: &mut BTreeMap<FleetId, watch::Sender<Published>>, id: &FleetId, since: Instant) {
    let Some(sender) = known.get(id) else { return };
    if sender.receiver_count() == 0 {
        known.remove(id);
        return;
    }
    let nothing = Arc::new(Fleet::new(id.clone(), []));
    sender.send_if_modified(|published| published.replace(&nothing, since));
}

#[cfg(test)]
mod tests {
    use mcpmesh_compiler::Compiled;
    use mcpmesh_ir::{GatewayId, SecretId};

    use super::*;

    fn id() -> FleetId {
        FleetId::Gateway(GatewayId::new("a", "gw"))
    }

    fn fleets(owner: &str) -> ByNamespace {
        let key = mcpmesh_ir::ApiKey {
            secret: SecretId::new("a", "k"),
            sha256: String::new(),
            owner: owner.to_owned(),
            groups: Vec::new(),
            expires: None,
        };
        let fleet = Arc::new(Fleet::new(id(), [mcpmesh_ir::Resource::new("a/k", &key).unwrap()]));
        let compiled = Compiled { fleets: BTreeMap::from([(id(), fleet)]), ..Compiled::default() };
        BTreeMap::from([("a".to_owned(), Arc::new(compiled))])
    }

    fn mark(version: u64) -> Watermark {
        Watermark { epoch: "e".to_owned(), versions: BTreeMap::from([("McpPolicy".to_owned(), version)]) }
    }

    #[test]
    fn only_a_difference_wakes_a_subscriber() {
        let publisher = Publisher::default();
        publisher.publish(&fleets("x"), Marks::default(), Instant::now());
        let mut subscriber = publisher.subscribe(&id());
        subscriber.borrow_and_update();
        publisher.publish(&fleets("x"), Marks::default(), Instant::now());
        assert!(!subscriber.has_changed().unwrap());
        publisher.publish(&fleets("y"), Marks::default(), Instant::now());
        assert!(subscriber.has_changed().unwrap());
    }

    #[test]
    fn a_fleet_that_is_gone_becomes_empty_for_whoever_still_listens() {
        let publisher = Publisher::default();
        publisher.publish(&fleets("x"), Marks::default(), Instant::now());
        let subscriber = publisher.subscribe(&id());
        publisher.publish(&BTreeMap::new(), Marks::default(), Instant::now());
        assert!(subscriber.borrow().fleet.resources.is_empty());
    }

    #[test]
    fn bookmarks_count_as_read_and_kinds_that_nobody_watches_do_not_count() {
        let marks = Marks { changed: mark(5), seen: mark(20) };
        assert!(!marks.is_behind(&mark(20)));
        assert!(marks.is_behind(&mark(21)));
        let mut other = mark(20);
        other.versions.insert("Later".to_owned(), 99);
        assert!(!marks.is_behind(&other));
    }
}
