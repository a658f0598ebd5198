//! What the proxies of each fleet are to have: one writer, and a subscriber for each stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use mcpmesh_ir::{Fleet, FleetId, ServerId, Watermark};
use parking_lot::Mutex;
use tokio::sync::watch;

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
    pub(crate) observe: BTreeMap<String, BTreeSet<ServerId>>,
    /// When we were told of the change that led to this.
    pub(crate) since: Instant,
}

impl Published {
    fn empty(id: FleetId) -> Self {
        let fleet = Fleet::new(id, []);
        let revision = fleet.revision();
        Self { fleet: Arc::new(fleet), revision, size: 0, observe: BTreeMap::new(), since: Instant::now() }
    }

    fn says_the_same(&self, other: &Self) -> bool {
        (&self.revision, self.size, &self.observe) == (&other.revision, other.size, &other.observe)
    }
}

/// All fleets.
#[derive(Debug)]
pub(crate) struct Publisher {
    fleets: Mutex<BTreeMap<FleetId, watch::Sender<Published>>>,
    /// None: nothing is compiled yet.
    marks: watch::Sender<Option<Marks>>,
}

impl Default for Publisher {
    fn default() -> Self {
        Self { fleets: Mutex::default(), marks: watch::Sender::new(None) }
    }
}

impl Publisher {
    /// Puts new configurations in place of the old ones. A fleet that is there no more has an empty one.
    pub(crate) fn publish(&self, fleets: BTreeMap<FleetId, Arc<Fleet>>, marks: Marks, since: Instant) {
        {
            let mut known = self.fleets.lock();
            known.retain(|id, sender| fleets.contains_key(id) || sender.receiver_count() > 0);
            let gone: Vec<FleetId> = known.keys().filter(|id| !fleets.contains_key(id)).cloned().collect();
            let empty = gone.into_iter().map(|id| (id.clone(), Arc::new(Fleet::new(id, []))));
            for (id, fleet) in fleets.into_iter().chain(empty) {
                let sender =
                    known.entry(id.clone()).or_insert_with(|| watch::Sender::new(Published::empty(id)));
                // The compile keeps what did not change: most of ten thousand need not be hashed.
                if Arc::ptr_eq(&sender.borrow().fleet, &fleet) {
                    continue;
                }
                let revision = fleet.revision();
                sender.send_if_modified(|published| {
                    let changed = published.revision != revision;
                    published.fleet = fleet;
                    if changed {
                        (published.revision, published.since) = (revision, since);
                    }
                    changed
                });
            }
        }
        self.marks.send_replace(Some(marks));
    }

    /// Sets what depends on who is connected, and wakes only those for whom it changed.
    pub(crate) fn assign(
        &self,
        sizes: &BTreeMap<FleetId, u32>,
        mut observers: BTreeMap<FleetId, BTreeMap<String, BTreeSet<ServerId>>>,
    ) {
        for (id, sender) in &*self.fleets.lock() {
            let size = sizes.get(id).copied().unwrap_or_default();
            let observe = observers.remove(id).unwrap_or_default();
            sender.send_if_modified(|published| {
                let new = Published { size, observe, ..published.clone() };
                let changed = !published.says_the_same(&new);
                *published = new;
                changed
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

    /// The revision of every fleet that has one.
    pub(crate) fn revisions(&self) -> BTreeMap<FleetId, String> {
        let known = self.fleets.lock();
        known.iter().map(|(id, sender)| (id.clone(), sender.borrow().revision.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use mcpmesh_ir::{GatewayId, Resource, SecretId};

    use super::*;

    fn id() -> FleetId {
        FleetId::Gateway(GatewayId::new("a", "gw"))
    }

    fn fleets(owner: &str) -> BTreeMap<FleetId, Arc<Fleet>> {
        let key = mcpmesh_ir::ApiKey {
            secret: SecretId::new("a", "k"),
            sha256: String::new(),
            owner: owner.to_owned(),
            groups: Vec::new(),
            expires: None,
        };
        BTreeMap::from([(id(), Arc::new(Fleet::new(id(), [Resource::new("a/k", &key).unwrap()])))])
    }

    fn mark(version: u64) -> Watermark {
        Watermark { epoch: "e".to_owned(), versions: BTreeMap::from([("McpPolicy".to_owned(), version)]) }
    }

    #[test]
    fn only_a_difference_wakes_a_subscriber() {
        let publisher = Publisher::default();
        publisher.publish(fleets("x"), Marks::default(), Instant::now());
        let mut subscriber = publisher.subscribe(&id());
        subscriber.borrow_and_update();
        publisher.publish(fleets("x"), Marks::default(), Instant::now());
        assert!(!subscriber.has_changed().unwrap());
        publisher.publish(fleets("y"), Marks::default(), Instant::now());
        assert!(subscriber.has_changed().unwrap());
    }

    #[test]
    fn a_fleet_that_is_gone_becomes_empty_for_whoever_still_listens() {
        let publisher = Publisher::default();
        publisher.publish(fleets("x"), Marks::default(), Instant::now());
        let subscriber = publisher.subscribe(&id());
        publisher.publish(BTreeMap::new(), Marks::default(), Instant::now());
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
