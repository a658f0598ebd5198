//! What proxies say, by what it is said of, and which namespaces it concerns when it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use mcpmesh_compiler::{ByNamespace, ObjectKind, ObjectRef};
use mcpmesh_ir::catalog::Observed;
use mcpmesh_ir::push::{ProxyReport, Rejection};
use mcpmesh_ir::{FleetId, ResourceKind, ServerId};

/// What one proxy has in force.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Word {
    pub(crate) pod: String,
    pub(crate) revision: String,
    pub(crate) rejections: Vec<Rejection>,
}

/// What an observer saw, as it came and as it reads.
#[derive(Debug, Clone)]
struct Heard {
    body: Bytes,
    seen: Arc<Observed>,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Words {
    proxies: BTreeMap<FleetId, Vec<Word>>,
    /// Proxies' words by the object that caused them, each once.
    rejections: BTreeMap<ObjectRef, BTreeSet<String>>,
    observed: BTreeMap<ServerId, Heard>,
}

impl Words {
    /// From reports. What is said again is not read again.
    pub(crate) fn new(reports: Vec<ProxyReport>, before: &Self) -> Self {
        let mut words = Self::default();
        for report in reports {
            let Ok(fleet) = report.fleet.parse::<FleetId>() else { continue };
            for rejection in &report.rejections {
                if let Some(object) = cause(&fleet, rejection) {
                    words.rejections.entry(object).or_default().insert(rejection.reason.clone());
                }
            }
            for observation in report.observations {
                let Ok(server) = observation.server.parse() else { continue };
                words.observe(server, observation.body, before);
            }
            let ProxyReport { pod, revision, rejections, .. } = report;
            words.proxies.entry(fleet).or_default().push(Word { pod, revision, rejections });
        }
        words
    }

    /// While an observer changes there may be two words of one server: the one that knows more counts.
    fn observe(&mut self, server: ServerId, body: Bytes, before: &Self) {
        let known = before.observed.get(&server).filter(|known| is_same(&known.body, &body));
        let heard = match known {
            Some(known) => known.clone(),
            None => match serde_json::from_slice(&body) {
                Ok(seen) => Heard { body, seen: Arc::new(seen) },
                Err(_) => return,
            },
        };
        let better = self.observed.get(&server).is_none_or(|old| weight(&heard.seen) >= weight(&old.seen));
        if better {
            self.observed.insert(server, heard);
        }
    }

    /// The proxies of a fleet.
    pub(crate) fn proxies(&self, fleet: &FleetId) -> &[Word] {
        self.proxies.get(fleet).map(Vec::as_slice).unwrap_or_default()
    }

    /// Fleets with proxies.
    pub(crate) fn fleets(&self) -> impl Iterator<Item = &FleetId> {
        self.proxies.keys()
    }

    /// What proxies say against an object; none: nothing.
    pub(crate) fn rejected(&self, object: &ObjectRef) -> Option<String> {
        let reasons = self.rejections.get(object)?;
        Some(reasons.iter().map(String::as_str).collect::<Vec<_>>().join("; "))
    }

    /// What is known of a server.
    pub(crate) fn observed(&self, server: &ServerId) -> Option<&Observed> {
        self.observed.get(server).map(|heard| &*heard.seen)
    }

    /// How many proxies a fleet has connected, how many of them have this revision without rejecting any of it, and
    /// how many resources they reject.
    pub(crate) fn in_sync(&self, fleet: &FleetId, revision: Option<&str>) -> (usize, usize, usize) {
        let proxies = self.proxies(fleet);
        let synced = proxies
            .iter()
            .filter(|proxy| Some(proxy.revision.as_str()) == revision && proxy.rejections.is_empty());
        let rejected = proxies.iter().map(|proxy| proxy.rejections.len()).max().unwrap_or_default();
        (proxies.len(), synced.count(), rejected)
    }

    /// The namespaces of whose objects something else is said than before.
    pub(crate) fn concern(&self, before: &Self, compiled: &ByNamespace) -> BTreeSet<String> {
        let mut namespaces: BTreeSet<String> = BTreeSet::new();
        let fleets = differing(&self.proxies, &before.proxies, PartialEq::eq);
        namespaces.extend(fleets.map(|fleet| fleet.namespace().to_owned()));
        let objects = differing(&self.rejections, &before.rejections, PartialEq::eq);
        namespaces.extend(objects.map(|object| object.namespace.clone()));
        let same = |one: &Heard, other: &Heard| Arc::ptr_eq(&one.seen, &other.seen);
        for server in differing(&self.observed, &before.observed, same) {
            let gateways = compiled.get(&server.namespace).and_then(|of| of.gateways.get(server));
            namespaces.extend(gateways.into_iter().flatten().map(|gateway| gateway.namespace.clone()));
            namespaces.insert(server.namespace.clone());
        }
        namespaces
    }
}

/// What is said again is most often the very bytes.
fn is_same(one: &Bytes, other: &Bytes) -> bool {
    (one.as_ptr(), one.len()) == (other.as_ptr(), other.len()) || one == other
}

/// Keys that only one of two maps has, or with different values.
fn differing<'m, K: Ord, V>(
    one: &'m BTreeMap<K, V>,
    other: &'m BTreeMap<K, V>,
    same: impl Fn(&V, &V) -> bool + 'm,
) -> impl Iterator<Item = &'m K> {
    let changed = one.iter().filter(move |(key, value)| other.get(key).is_none_or(|old| !same(value, old)));
    let gone = other.keys().filter(|key| !one.contains_key(key));
    changed.map(|(key, _)| key).chain(gone)
}

fn weight(seen: &Observed) -> u8 {
    use mcpmesh_ir::catalog::ObservedState::{Connecting, Failed, Ready};
    match seen.state {
        Connecting => 0,
        Failed { .. } => 1,
        Ready => 2,
    }
}

/// The object that a rejected resource was compiled from. Resources are named after it.
fn cause(fleet: &FleetId, rejection: &Rejection) -> Option<ObjectRef> {
    let kind = match (rejection.kind.parse().ok()?, fleet) {
        (ResourceKind::Gateway | ResourceKind::TokenIssuer, FleetId::Gateway(id)) => {
            return Some(ObjectRef::new(ObjectKind::McpGateway, &id.namespace, &id.name));
        }
        // The pseudo-gateways of a server's own fleet are the server's.
        (ResourceKind::Gateway | ResourceKind::TokenIssuer, FleetId::Server(id)) => {
            return Some(ObjectRef::new(ObjectKind::McpServer, &id.namespace, &id.name));
        }
        (ResourceKind::Server, _) => ObjectKind::McpServer,
        (ResourceKind::Policy, _) => ObjectKind::McpPolicy,
        (ResourceKind::ApiKey | ResourceKind::Secret, _) => ObjectKind::Secret,
    };
    let (namespace, name) = rejection.name.split_once('/')?;
    Some(ObjectRef::new(kind, namespace, name))
}

#[cfg(test)]
mod tests {
    use mcpmesh_ir::push::Observation;

    use super::*;

    fn report(fleet: &str, revision: &str, saw: &[(&str, &str)]) -> ProxyReport {
        let observation = |(server, body): &(&str, &str)| Observation {
            server: (*server).to_owned(),
            body: body.as_bytes().to_vec().into(),
        };
        ProxyReport {
            fleet: fleet.to_owned(),
            pod: "p".to_owned(),
            revision: revision.to_owned(),
            observations: saw.iter().map(observation).collect(),
            ..ProxyReport::default()
        }
    }

    #[test]
    fn an_acknowledgement_concerns_its_namespace_and_no_other() {
        let reports =
            |revision: &str| vec![report("gateway/a/g", revision, &[]), report("gateway/b/g", "r", &[])];
        let before = Words::new(reports("r"), &Words::default());
        let now = Words::new(reports("s"), &before);
        assert_eq!(now.concern(&before, &ByNamespace::new()), BTreeSet::from(["a".to_owned()]));
        let again = Words::new(reports("s"), &now);
        assert!(again.concern(&now, &ByNamespace::new()).is_empty());
    }
}
