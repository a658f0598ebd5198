//! What a proxy has of its fleet's configuration: every resource as it came, whether this version knows it or not.
//!
//! Pure: updates in, the configuration to apply out. What is unknown is kept and rejected alone, so that a later
//! version that boots from the same disk finds it.

use std::collections::BTreeMap;

use bytes::Bytes;
use mcpmesh_ir::push::{Have, Hello, Rejection, Resource, Update};
use mcpmesh_ir::{Fleet, FleetId, GatewayId, ResourceKind, Watermark};

/// An update that would bring back what is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the update was compiled from an earlier state of the cluster than what is in force")]
pub(super) struct Behind;

/// Type and name, as on the wire.
type Key = (String, String);

/// A resource as it came and as this version reads it.
struct Entry {
    wire: Resource,
    read: Result<mcpmesh_ir::Resource, String>,
}

impl Entry {
    fn new(mut wire: Resource) -> Self {
        // It is a part of what was read from the stream, and would keep all of that.
        wire.body = Bytes::copy_from_slice(&wire.body);
        let read = mcpmesh_ir::Resource::try_from(wire.clone()).map_err(|error| whole(&error));
        let read = read.and_then(|resource| match resource.kind {
            ResourceKind::Gateway if resource.name.parse::<GatewayId>().is_err() => {
                Err(format!("{:?} is no gateway's name", resource.name))
            }
            _ => Ok(resource),
        });
        Self { wire, read }
    }
}

/// An error with its causes: it goes to a status, not to a log that would add them.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// See the module. Not `Debug`: bodies may be Secrets'.
pub(super) struct Held {
    fleet: FleetId,
    entries: BTreeMap<Key, Entry>,
    watermark: Watermark,
    /// As the operator names what is here; empty before the first update.
    revision: String,
    fleet_size: u32,
}

impl Held {
    /// Nothing yet.
    pub(super) fn new(fleet: FleetId) -> Self {
        let (entries, watermark, revision) = Default::default();
        Self { fleet, entries, watermark, revision, fleet_size: 0 }
    }

    /// Takes a whole update or, when it is behind, nothing of it.
    pub(super) fn take(&mut self, update: Update) -> Result<(), Behind> {
        let Update {
            sequence: _,
            revision,
            watermark,
            changed,
            removed,
            fleet_size,
            observe: _,
            same_observe: _,
            roots: _,
        } = update;
        if let Some(watermark) = watermark.map(Watermark::from) {
            if watermark.is_behind(&self.watermark) {
                return Err(Behind);
            }
            self.watermark = watermark;
        }
        for Have { kind, name, version: _ } in removed {
            self.entries.remove(&(kind, name));
        }
        for resource in changed {
            self.entries.insert((resource.kind.clone(), resource.name.clone()), Entry::new(resource));
        }
        self.revision = revision;
        self.fleet_size = fleet_size;
        Ok(())
    }

    /// Everything is to come again. The watermark stays: what was revoked stays revoked.
    pub(super) fn forget_resources(&mut self) {
        self.entries.clear();
    }

    /// Whether what is here is what its revision names. Unknown where this version cannot read all of it.
    pub(super) fn agrees(&self) -> bool {
        let unreadable = self.entries.values().any(|entry| entry.read.is_err());
        unreadable || self.revision.is_empty() || self.fleet().revision() == self.revision
    }

    /// The first message of a stream.
    pub(super) fn hello(&self, pod: &str) -> Hello {
        let have = |Entry { wire, .. }: &Entry| Have {
            kind: wire.kind.clone(),
            name: wire.name.clone(),
            version: wire.version.clone(),
        };
        Hello {
            fleet: self.fleet.to_string(),
            pod: pod.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            watermark: Some(self.watermark.clone().into()),
            have: self.entries.values().map(have).collect(),
        }
    }

    /// What can be applied.
    pub(super) fn fleet(&self) -> Fleet {
        let readable = self.entries.values().filter_map(|entry| entry.read.as_ref().ok());
        let fleet = Fleet::new(self.fleet.clone(), readable.cloned());
        Fleet { watermark: self.watermark.clone(), ..fleet }
    }

    /// What this version cannot read.
    pub(super) fn unreadable(&self) -> impl Iterator<Item = Rejection> {
        self.entries.values().filter_map(|Entry { wire, read }| {
            let reason = read.as_ref().err()?.clone();
            Some(Rejection { kind: wire.kind.clone(), name: wire.name.clone(), reason })
        })
    }

    /// The revision in force.
    pub(super) fn revision(&self) -> &str {
        &self.revision
    }

    /// How many proxies share the fleet's limits, at least 1.
    pub(super) fn fleet_size(&self) -> u32 {
        self.fleet_size.max(1)
    }

    /// All of it as one update from nothing: what is kept on disk.
    pub(super) fn whole(&self) -> Update {
        Update {
            sequence: 0,
            revision: self.revision.clone(),
            watermark: Some(self.watermark.clone().into()),
            changed: self.entries.values().map(|entry| entry.wire.clone()).collect(),
            removed: Vec::new(),
            fleet_size: self.fleet_size,
            observe: Vec::new(),
            same_observe: false,
            roots: String::new(),
        }
    }
}

#[cfg(test)]
mod tests;
