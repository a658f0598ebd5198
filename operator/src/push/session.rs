//! One proxy's stream without its wires: what to send next, and what an acknowledgement means.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcpmesh_ir::fleet::ResourceKey;
use mcpmesh_ir::push::{Ack, Have, Hello, Update};
use mcpmesh_ir::{Fleet, ServerId, Version, Watermark};

use crate::publish::{Marks, Published, Step};

/// What a proxy has and what it was sent. At most one update is on its way: changes meanwhile become one.
#[derive(Debug)]
pub(super) struct Session {
    pod: String,
    have: What,
    /// What it has of types that this version does not know.
    unknown: Vec<Have>,
    /// The proxy's own watermark: what it is told never goes below.
    floor: Watermark,
    sequence: u64,
    outstanding: Option<Outstanding>,
    last: Option<Told>,
}

/// What a proxy has.
#[derive(Debug)]
enum What {
    /// As it said when it came.
    Said(BTreeMap<ResourceKey, Version>),
    /// What it was told last.
    Told(Arc<Fleet>),
}

#[derive(Debug)]
struct Outstanding {
    sequence: u64,
    /// When we were told of the change; none for what a proxy gets because it has come.
    since: Option<Instant>,
}

/// An update that was on its way is in force.
#[derive(Debug)]
pub(super) struct InForce {
    /// How long it took from our being told of the change.
    pub(super) took: Option<Duration>,
}

/// What was told last, but for the resources.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    revision: String,
    size: u32,
    observe: Arc<BTreeSet<ServerId>>,
    roots: String,
}

impl Session {
    pub(super) fn new(hello: &Hello) -> Self {
        let (mut have, mut unknown) = (BTreeMap::new(), Vec::new());
        for one in &hello.have {
            match one.kind.parse() {
                Ok(kind) => {
                    let key = ResourceKey { kind, name: one.name.clone() };
                    have.insert(key, Version::from(one.version.clone()));
                }
                Err(_) => unknown.push(Have { version: String::new(), ..one.clone() }),
            }
        }
        Self {
            pod: hello.pod.clone(),
            have: What::Said(have),
            unknown,
            floor: hello.watermark.clone().map(Watermark::from).unwrap_or_default(),
            sequence: 0,
            outstanding: None,
            last: None,
        }
    }

    /// Whether the proxy knows more than these marks.
    pub(super) fn is_ahead_of(&self, marks: &Marks) -> bool {
        marks.is_behind(&self.floor)
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.outstanding.is_some()
    }

    /// Whether the proxy was told to observe a server.
    pub(super) fn observes(&self, server: &ServerId) -> bool {
        self.last.as_ref().is_some_and(|last| last.observe.contains(server))
    }

    /// The next update, if there is something to say. The first one always is.
    pub(super) fn next(&mut self, published: &Published, marks: &Marks, roots: &str) -> Option<Update> {
        if self.outstanding.is_some() {
            return None;
        }
        let told = Told {
            revision: published.revision.clone(),
            size: published.size,
            observe: published.observe.get(&self.pod).cloned().unwrap_or_default(),
            roots: roots.to_owned(),
        };
        if self.last.as_ref() == Some(&told) {
            return None;
        }
        let step = self.step(published);
        let removed = self.unknown.drain(..).chain(step.removed.iter().cloned()).collect();
        self.have = What::Told(published.fleet.clone());
        self.sequence += 1;
        self.outstanding = Some(Outstanding {
            sequence: self.sequence,
            // Other roots, observers or sizes are no change of an object's.
            since: self.last.as_ref().filter(|last| last.revision != told.revision).map(|_| published.since),
        });
        self.floor = highest(&self.floor, &marks.changed);
        let same_observe = self.last.as_ref().is_some_and(|last| last.observe == told.observe);
        let observe: &BTreeSet<ServerId> = if same_observe { &BTreeSet::new() } else { &told.observe };
        let update = Update {
            sequence: self.sequence,
            revision: told.revision.clone(),
            watermark: Some(self.floor.clone().into()),
            changed: step.changed.clone(),
            removed,
            fleet_size: told.size,
            observe: observe.iter().map(ToString::to_string).collect(),
            same_observe,
            roots: told.roots.clone(),
        };
        self.last = Some(told);
        Some(update)
    }

    /// What leads from what the proxy has to what is published.
    fn step(&self, published: &Published) -> Arc<Step> {
        let made = published.step.as_ref();
        match &self.have {
            What::Said(have) => Arc::new(Step::new(&published.fleet, published.fleet.difference(have))),
            What::Told(told) => match made.filter(|made| Arc::ptr_eq(&made.from, told)) {
                Some(made) => made.clone(),
                None => Arc::new(Step::between(told, &published.fleet)),
            },
        }
    }

    /// None when this answers no update that is on its way.
    pub(super) fn acknowledged(&mut self, ack: &Ack) -> Option<InForce> {
        let outstanding = self.outstanding.take_if(|one| one.sequence == ack.sequence)?;
        Some(InForce { took: outstanding.since.map(|since| since.elapsed()) })
    }
}

/// What both have seen. Marks of another epoch are of another cluster and count no more.
fn highest(old: &Watermark, new: &Watermark) -> Watermark {
    let mut highest = new.clone();
    if old.epoch == new.epoch {
        for (kind, version) in &old.versions {
            let known = highest.versions.entry(kind.clone()).or_default();
            *known = (*known).max(*version);
        }
    }
    highest
}

#[cfg(test)]
mod tests {
    use mcpmesh_ir::{ApiKey, FleetId, GatewayId, Resource, SecretId};

    use super::*;

    fn mark(version: u64) -> Watermark {
        Watermark { epoch: "e".to_owned(), versions: BTreeMap::from([("McpPolicy".to_owned(), version)]) }
    }

    fn marks(version: u64) -> Marks {
        Marks { changed: mark(version), seen: mark(version + 10) }
    }

    fn published(owner: &str) -> Published {
        let key = ApiKey {
            secret: SecretId::new("a", "k"),
            sha256: String::new(),
            owner: owner.to_owned(),
            groups: Vec::new(),
            expires: None,
        };
        let fleet =
            Fleet::new(FleetId::Gateway(GatewayId::new("a", "gw")), [Resource::new("a/k", &key).unwrap()]);
        let revision = fleet.revision();
        let observed = Arc::new(BTreeSet::from([ServerId::new("a", "s")]));
        let observe = Arc::new(BTreeMap::from([("pod".to_owned(), observed)]));
        Published { fleet: Arc::new(fleet), revision, size: 1, observe, since: Instant::now(), step: None }
    }

    fn session(have: Vec<Have>, version: u64) -> Session {
        Session::new(&Hello {
            pod: "pod".to_owned(),
            watermark: Some(mark(version).into()),
            have,
            ..Hello::default()
        })
    }

    fn have(published: &Published) -> Vec<Have> {
        let one = |(key, version): (ResourceKey, Version)| Have {
            kind: key.kind.to_string(),
            name: key.name,
            version: version.as_str().to_owned(),
        };
        published.fleet.versions().into_iter().map(one).collect()
    }

    fn ack(sequence: u64) -> Ack {
        Ack { sequence, ..Ack::default() }
    }

    #[test]
    fn the_first_update_comes_though_nothing_changed_and_carries_no_resource() {
        let published = published("x");
        let mut session = session(have(&published), 1);
        let update = session.next(&published, &marks(1), "root").unwrap();
        assert!(update.changed.is_empty() && update.removed.is_empty());
        assert_eq!(update.observe, ["a/s"]);
        assert!(session.observes(&ServerId::new("a", "s")));
        session.acknowledged(&ack(1)).unwrap();
        assert!(session.next(&published, &marks(1), "root").is_none());
    }

    #[test]
    fn other_roots_are_told_at_once_and_are_no_change_of_configuration() {
        let published = published("x");
        let mut session = session(have(&published), 1);
        assert_eq!(session.next(&published, &marks(1), "old").unwrap().roots, "old");
        session.acknowledged(&ack(1)).unwrap();
        let update = session.next(&published, &marks(1), "old and new").unwrap();
        assert_eq!((update.roots.as_str(), update.changed.len()), ("old and new", 0));
        assert!(session.acknowledged(&ack(2)).unwrap().took.is_none());
    }

    #[test]
    fn a_change_is_as_long_in_a_large_fleet_as_in_a_small_one() {
        let key = |name: &str, owner: &str| ApiKey {
            secret: SecretId::new("a", name),
            sha256: String::new(),
            owner: owner.to_owned(),
            groups: Vec::new(),
            expires: None,
        };
        let of = |count: usize, owner: &str| {
            let all = (0..count).map(|number| format!("{number:04}"));
            let all = all.map(|name| key(&name, if name == "0000" { owner } else { "x" }));
            let all = all.map(|key| Resource::new(key.secret.to_string(), &key).unwrap());
            let fleet = Fleet::new(FleetId::Gateway(GatewayId::new("a", "gw")), all);
            let observed = (0..count).map(|number| ServerId::new("a", number.to_string())).collect();
            let observe = Arc::new(BTreeMap::from([("pod".to_owned(), Arc::new(observed))]));
            Published { revision: fleet.revision(), fleet: Arc::new(fleet), observe, ..published("x") }
        };
        let length = |count: usize| {
            let mut session = session(Vec::new(), 1);
            assert_eq!(session.next(&of(count, "x"), &marks(1), "root").unwrap().changed.len(), count);
            session.acknowledged(&ack(1)).unwrap();
            let update = session.next(&of(count, "y"), &marks(2), "root").unwrap();
            assert_eq!(update.changed.len(), 1);
            prost::Message::encoded_len(&update)
        };
        assert_eq!(length(2), length(500));
    }

    #[test]
    fn changes_while_an_update_is_on_its_way_become_one() {
        let mut session = session(Vec::new(), 1);
        assert_eq!(session.next(&published("x"), &marks(1), "root").unwrap().changed.len(), 1);
        assert!(session.next(&published("y"), &marks(2), "root").is_none());
        assert!(session.acknowledged(&ack(7)).is_none(), "an acknowledgement of something else");
        assert!(
            session.acknowledged(&ack(1)).unwrap().took.is_none(),
            "it was sent because the proxy has come"
        );
        let update = session.next(&published("z"), &marks(3), "root").unwrap();
        assert_eq!((update.sequence, update.changed.len()), (2, 1));
        assert!(session.acknowledged(&ack(2)).unwrap().took.is_some());
    }

    #[test]
    fn a_type_of_a_later_version_is_removed() {
        let later = Have { kind: "Later".to_owned(), name: "a/l".to_owned(), version: "v".to_owned() };
        let update = session(vec![later], 1).next(&published("x"), &marks(1), "root").unwrap();
        assert_eq!(update.removed[0].kind, "Later");
    }

    #[test]
    fn a_watermark_never_goes_down_on_its_way_through_a_fresh_replica() {
        let mut session = session(Vec::new(), 15);
        assert!(session.is_ahead_of(&marks(4)));
        assert!(!session.is_ahead_of(&marks(8)), "8 changed, 18 read");
        let update = session.next(&published("x"), &marks(8), "root").unwrap();
        assert_eq!(Watermark::from(update.watermark.unwrap()), mark(15));
    }
}
