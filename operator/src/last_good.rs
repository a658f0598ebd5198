//! The copy of each fleet's configuration in a Secret of its namespace, which new pods boot from while every operator is
//! away (decisions.md 12). At most one write for each fleet in half a minute, none at rest. A change that concerns many
//! fleets is copied for one after the other: what is in force comes first. Where it does not fit, and where a fleet has
//! no configuration any more, the copy is emptied: an old one would bring back what was revoked.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use mcpmesh_compiler::child::{labels, last_good_name};
use mcpmesh_ir::FleetId;
use mcpmesh_ir::push::{self, LAST_GOOD_KEY, LastGood, Update};
use prost::Message;
use serde_json::{Value, json};

use crate::apply::{ChildRef, Write, owner};
use crate::publish::{Published, Publisher};
use crate::watch::{Bucket, Key};
use crate::world::{SecretMeta, World};

/// Between two copies of one fleet.
const APART: Duration = Duration::from_secs(30);

/// From a change to its copy, and how much longer it may be: fleets differ in that.
const AFTER: Duration = Duration::from_secs(5);
const SPREAD_MILLIS: u64 = 10_000;

/// Most bytes of a copy: a Secret may have 1 MiB.
const LARGEST: usize = 900 * 1024;

/// Whose copy a Secret is, and of which revision; empty: of none.
const FLEET: &str = "mcpmesh.io/fleet";
const REVISION: &str = "mcpmesh.io/revision";

/// What a last-good Secret says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copied {
    pub(crate) fleet: FleetId,
    pub(crate) revision: String,
}

impl Copied {
    /// Of a Secret with these annotations.
    pub(crate) fn of(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let (fleet, revision) = (annotations.get(FLEET)?.parse().ok()?, annotations.get(REVISION)?.clone());
        Some(Self { fleet, revision })
    }
}

/// When copies were written, and since when those that are there are old.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    written: BTreeMap<FleetId, Instant>,
    old: BTreeMap<FleetId, Instant>,
}

impl Copies {
    /// Notes a write.
    pub(crate) fn note(&mut self, fleet: FleetId, now: Instant) {
        self.written.retain(|_, at| now.saturating_duration_since(*at) < APART);
        self.old.remove(&fleet);
        self.written.insert(fleet, now);
    }

    /// The fleets of which a copy is to be written now; true: others wait for their time. `wanted`: the revisions of
    /// the fleets that have a configuration; `kept`: what the Secrets say of themselves.
    pub(crate) fn due(
        &mut self,
        mut wanted: BTreeMap<FleetId, String>,
        kept: &[(Key, Copied)],
        now: Instant,
    ) -> (Vec<FleetId>, bool) {
        for ((namespace, name), Copied { fleet, revision }) in kept {
            let is_own = fleet.namespace() == namespace && last_good_name(fleet) == *name;
            match wanted.get(fleet) {
                _ if !is_own => {}
                Some(new) if new == revision => {
                    wanted.remove(fleet);
                    self.old.remove(fleet);
                }
                Some(_) => _ = self.old.entry(fleet.clone()).or_insert(now),
                None if revision.is_empty() => {}
                None => _ = wanted.insert(fleet.clone(), String::new()),
            }
        }
        let (wait, due): (Vec<_>, Vec<_>) = wanted.into_keys().partition(|fleet| self.waits(fleet, now));
        (due, !wait.is_empty())
    }

    /// A fleet without any copy does not.
    fn waits(&self, fleet: &FleetId, now: Instant) -> bool {
        let since = |of: &BTreeMap<FleetId, Instant>| Some(now.saturating_duration_since(*of.get(fleet)?));
        since(&self.written).is_some_and(|time| time < APART)
            || since(&self.old).is_some_and(|time| time < after(fleet))
    }
}

/// From a change of a fleet to its copy.
fn after(fleet: &FleetId) -> Duration {
    let mut hasher = DefaultHasher::new();
    fleet.hash(&mut hasher);
    AFTER + Duration::from_millis(hasher.finish() % SPREAD_MILLIS)
}

/// The last-good Secrets that are there in a namespace.
pub(crate) fn kept(namespace: &str, secrets: &Bucket<SecretMeta>) -> Vec<(Key, Copied)> {
    let all = secrets.iter();
    let copies = all.filter_map(|(name, meta)| Some((name, meta.last_good.clone()?)));
    copies.map(|(name, copied)| ((namespace.to_owned(), name.clone()), copied)).collect()
}

/// The copy of a fleet as a write; none: its object is gone, and the copy goes with it.
pub(crate) fn write(fleet: &FleetId, world: &World, publisher: &Publisher, now: SystemTime) -> Option<Write> {
    let owner = owner(fleet, world)?;
    // Before the configuration: the copy is at least as new as it says.
    let marks = publisher.marks().borrow().clone().unwrap_or_default();
    let published = publisher.current(fleet).filter(|one| !one.fleet.resources.is_empty());
    let at = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut manifest = manifest(fleet, published.as_ref(), marks.changed.into(), at);
    manifest["metadata"]["ownerReferences"] = json!([owner]);
    let (namespace, name) = (fleet.namespace().to_owned(), last_good_name(fleet));
    if let Some(live) = world.secrets.get(&namespace, &name) {
        // A leader that was paused meanwhile conflicts with whoever wrote since.
        manifest["metadata"]["resourceVersion"] = json!(live.version);
    }
    Some(Write::Apply(ChildRef { kind: "Secret", namespace, name }, manifest))
}

fn manifest(fleet: &FleetId, published: Option<&Published>, watermark: push::Watermark, at: u64) -> Value {
    let packed = published.and_then(|published| pack(fleet, published, watermark, at));
    if packed.is_none() && published.is_some() {
        tracing::warn!(%fleet, "the configuration does not fit into a Secret: new pods need an operator");
    }
    let revision = published.map(|published| published.revision.as_str()).unwrap_or_default();
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {
            "name": last_good_name(fleet), "namespace": fleet.namespace(), "labels": labels(fleet),
            "annotations": {FLEET: fleet, REVISION: revision},
        },
        "data": {LAST_GOOD_KEY: BASE64_STANDARD.encode(packed.unwrap_or_default())},
    })
}

/// None: it does not fit.
fn pack(fleet: &FleetId, published: &Published, watermark: push::Watermark, at: u64) -> Option<Vec<u8>> {
    let update = Update {
        revision: published.revision.clone(),
        watermark: Some(watermark),
        changed: published.fleet.resources.iter().map(push::Resource::from).collect(),
        fleet_size: published.size,
        ..Update::default()
    };
    let copy = LastGood { fleet: fleet.to_string(), update: Some(update), at };
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(&copy.encode_to_vec()).ok()?;
    packer.finish().ok().filter(|packed| packed.len() <= LARGEST)
}

#[cfg(test)]
mod tests;
