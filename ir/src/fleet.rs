//! What the proxies of one fleet get: a gateway's, or the sidecars' of a server that the installation runs.
//!
//! A fleet's configuration is a flat set of resources with one or more [`crate::Gateway`]s among them. Differences
//! between two of them are all that ever travels (decisions.md 10 and 11).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::{GatewayId, NotAnId, ServerId};
use crate::resource::{Resource, ResourceKind, Version};
use crate::snapshot::Snapshot;

/// The trust domain of the certificates that the proxies of a mesh show each other.
pub const TRUST_DOMAIN: &str = "mcpmesh";

/// Whose proxies these are. On the wire: `gateway/namespace/name` or `server/namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum FleetId {
    /// The proxies of an McpGateway.
    Gateway(GatewayId),
    /// The sidecars of an McpServer.
    Server(ServerId),
}

impl FleetId {
    /// The namespace that the proxies run in, and whose Secrets they may hold.
    #[must_use]
    pub fn namespace(&self) -> &str {
        match self {
            Self::Gateway(id) => &id.namespace,
            Self::Server(id) => &id.namespace,
        }
    }

    /// `metadata.name` of the object.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Gateway(id) => &id.name,
            Self::Server(id) => &id.name,
        }
    }

    /// The name in a proxy's certificate: a SPIFFE id, as a URI subject alternative name.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("spiffe://{TRUST_DOMAIN}/{self}")
    }

    /// The fleet that a certificate's URI names.
    #[must_use]
    pub fn from_uri(uri: &str) -> Option<Self> {
        let domain = uri.strip_prefix("spiffe://")?.strip_prefix(TRUST_DOMAIN)?;
        domain.strip_prefix('/')?.parse().ok()
    }
}

impl fmt::Display for FleetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(id) => write!(f, "gateway/{id}"),
            Self::Server(id) => write!(f, "server/{id}"),
        }
    }
}

impl FromStr for FleetId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        match text.split_once('/') {
            Some(("gateway", id)) => Ok(Self::Gateway(id.parse()?)),
            Some(("server", id)) => Ok(Self::Server(id.parse()?)),
            _ => Err(NotAnId::new(text)),
        }
    }
}

impl TryFrom<String> for FleetId {
    type Error = NotAnId;

    fn try_from(text: String) -> Result<Self, NotAnId> {
        text.parse()
    }
}

impl From<FleetId> for String {
    fn from(id: FleetId) -> Self {
        id.to_string()
    }
}

/// Which state of the cluster a configuration was compiled from: comparable within one epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    /// The uid of namespace kube-system; empty on one machine.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub epoch: String,
    /// The highest resourceVersion that was seen, by kind of object, compared as numbers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, u64>,
}

impl Watermark {
    /// Whether this one has not seen something that `other` has. Another epoch is another cluster: never behind.
    #[must_use]
    pub fn is_behind(&self, other: &Self) -> bool {
        self.epoch == other.epoch
            && other.versions.iter().any(|(kind, seen)| self.versions.get(kind).is_none_or(|own| own < seen))
    }
}

/// A resource by kind and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ResourceKey {
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: ResourceKind,
    /// Its name.
    pub name: String,
}

impl ResourceKey {
    /// The key of a resource.
    #[must_use]
    pub fn of(resource: &Resource) -> Self {
        Self { kind: resource.kind, name: resource.name.clone() }
    }
}

/// A fleet's whole configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    /// Whose it is.
    pub id: FleetId,
    /// What it was compiled from.
    #[serde(default)]
    pub watermark: Watermark,
    /// In canonical order (kind, then name), each once.
    pub resources: Vec<Resource>,
}

/// From one configuration of a fleet to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// New resources and new versions of known ones.
    pub changed: Vec<Resource>,
    /// What is there no more.
    pub removed: Vec<ResourceKey>,
}

impl Difference {
    /// True when both are the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

impl Fleet {
    /// Sorts the resources into canonical order and keeps each once.
    #[must_use]
    pub fn new(id: FleetId, resources: impl IntoIterator<Item = Resource>) -> Self {
        let sorted: BTreeMap<ResourceKey, Resource> =
            resources.into_iter().map(|resource| (ResourceKey::of(&resource), resource)).collect();
        Self { id, watermark: Watermark::default(), resources: sorted.into_values().collect() }
    }

    /// A name for the content: equal for equal resources, wherever they were compiled. 16 hex digits.
    #[must_use]
    pub fn revision(&self) -> String {
        let mut hash = Sha256::new();
        for resource in &self.resources {
            for part in [&resource.kind.to_string(), &resource.name, resource.version.as_str()] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part.as_bytes());
            }
        }
        let mut hex = hex::encode(hash.finalize());
        hex.truncate(16);
        hex
    }

    /// What somebody who has these versions lacks.
    #[must_use]
    pub fn difference(&self, have: &BTreeMap<ResourceKey, Version>) -> Difference {
        let is_new = |resource: &&Resource| have.get(&ResourceKey::of(resource)) != Some(&resource.version);
        let keys: BTreeSet<ResourceKey> = self.resources.iter().map(ResourceKey::of).collect();
        Difference {
            changed: self.resources.iter().filter(is_new).cloned().collect(),
            removed: have.keys().filter(|key| !keys.contains(key)).cloned().collect(),
        }
    }

    /// What leads here from another configuration of the fleet. Both are in canonical order: one walk through them.
    #[must_use]
    pub fn difference_from(&self, old: &Self) -> Difference {
        let mut difference = Difference::default();
        let (mut old, mut new) = (old.resources.iter().peekable(), self.resources.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return difference,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => (old.kind, &old.name).cmp(&(new.kind, &new.name)),
            };
            let (before, now) =
                (old.next_if(|_| order != Ordering::Greater), new.next_if(|_| order != Ordering::Less));
            match (before, now) {
                (Some(before), None) => difference.removed.push(ResourceKey::of(before)),
                (Some(before), Some(now)) if before.version == now.version => {}
                (_, Some(now)) => difference.changed.push(now.clone()),
                (None, None) => return difference,
            }
        }
    }

    /// The versions of what is here.
    #[must_use]
    pub fn versions(&self) -> BTreeMap<ResourceKey, Version> {
        self.resources.iter().map(|one| (ResourceKey::of(one), one.version.clone())).collect()
    }

    /// This configuration with a difference applied to it.
    #[must_use]
    pub fn with(&self, difference: Difference) -> Self {
        let gone: BTreeSet<_> = difference.removed.into_iter().collect();
        let kept = self.resources.iter().filter(|one| !gone.contains(&ResourceKey::of(one))).cloned();
        Self {
            watermark: self.watermark.clone(),
            ..Self::new(self.id.clone(), kept.chain(difference.changed))
        }
    }

    /// A snapshot for each gateway among the resources: that gateway and everything that is none. A gateway whose
    /// name is no id is left out.
    #[must_use]
    pub fn snapshots(&self) -> Vec<Snapshot> {
        let (gateways, others): (Vec<_>, Vec<_>) =
            self.resources.iter().partition(|resource| resource.kind == ResourceKind::Gateway);
        let snapshot = |gateway: &Resource| {
            let id: GatewayId = gateway.name.parse().ok()?;
            let mine = std::iter::once(gateway).chain(others.iter().copied()).cloned().collect();
            Some(Snapshot::new(id, mine))
        };
        gateways.into_iter().filter_map(snapshot).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ApiKey, SecretId};

    fn resource(name: &str, owner: &str) -> Resource {
        let key = ApiKey {
            secret: SecretId::new("a", name),
            sha256: String::new(),
            owner: owner.to_owned(),
            groups: Vec::new(),
            expires: None,
        };
        Resource::new(format!("a/{name}"), &key).unwrap()
    }

    fn fleet(resources: &[Resource]) -> Fleet {
        Fleet::new(FleetId::Gateway(GatewayId::new("a", "gw")), resources.iter().cloned())
    }

    #[test]
    fn a_fleet_survives_its_text_and_its_certificate() {
        for id in [FleetId::Gateway(GatewayId::new("a", "gw")), FleetId::Server(ServerId::new("a", "s"))] {
            assert_eq!(id.to_string().parse(), Ok(id.clone()));
            assert_eq!(FleetId::from_uri(&id.uri()), Some(id));
        }
        for other in [
            "spiffe://other/gateway/a/b",
            "spiffe://mcpmeshgateway/a/b",
            "gateway/a/b",
            "spiffe://mcpmesh/pod/a/b",
        ] {
            assert_eq!(FleetId::from_uri(other), None, "{other}");
        }
    }

    #[test]
    fn a_difference_leads_from_one_to_the_other() {
        let (old, new) = (
            fleet(&[resource("kept", "x"), resource("changed", "x"), resource("gone", "x")]),
            fleet(&[resource("kept", "x"), resource("changed", "y"), resource("added", "x")]),
        );
        let difference = new.difference(&old.versions());
        assert_eq!(difference, new.difference_from(&old));
        assert_eq!(difference.changed.len(), 2);
        assert_eq!(difference.removed.len(), 1);
        let reached = old.with(difference);
        assert_eq!(reached, new);
        assert_eq!(reached.revision(), new.revision());
        assert_ne!(old.revision(), new.revision());
        assert!(new.difference(&new.versions()).is_empty());
    }

    #[test]
    fn only_the_same_epoch_can_be_behind() {
        let mark = |epoch: &str, version| Watermark {
            epoch: epoch.to_owned(),
            versions: BTreeMap::from([("McpPolicy".to_owned(), version)]),
        };
        assert!(mark("a", 9).is_behind(&mark("a", 10)));
        assert!(!mark("a", 10).is_behind(&mark("a", 9)));
        assert!(!mark("b", 1).is_behind(&mark("a", 9)));
        assert!(Watermark { epoch: "a".to_owned(), ..Watermark::default() }.is_behind(&mark("a", 1)));
    }
}
