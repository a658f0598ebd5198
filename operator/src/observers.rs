//! How many proxies share a fleet's limits, and which of them observes which server: one for each (decisions.md 15).
//!
//! Both come from what every replica sees alike, the ready pods of the fleets' Services, so that replicas agree.

use std::collections::{BTreeMap, BTreeSet};

use mcpmesh_ir::{FleetId, GatewayId, ServerId};

use crate::watch::Key;
use mcpmesh_compiler::child::base_name;

/// Who is there.
pub(crate) struct Pods<'a> {
    /// Ready pods by Service.
    pub(crate) ready: &'a BTreeMap<Key, BTreeSet<String>>,
    /// Pods that are connected to this replica.
    pub(crate) connected: &'a BTreeMap<FleetId, Vec<String>>,
}

/// The servers to observe, by fleet and pod.
pub(crate) type Observers = BTreeMap<FleetId, BTreeMap<String, BTreeSet<ServerId>>>;

impl Pods<'_> {
    fn ready(&self, fleet: &FleetId) -> Option<&BTreeSet<String>> {
        self.ready.get(&(fleet.namespace().to_owned(), base_name(fleet))).filter(|pods| !pods.is_empty())
    }

    fn connected(&self, fleet: &FleetId) -> &[String] {
        self.connected.get(fleet).map(Vec::as_slice).unwrap_or_default()
    }

    /// How many proxies a fleet has.
    fn size(&self, fleet: &FleetId) -> u32 {
        let ready = self.ready(fleet).map_or(0, BTreeSet::len);
        u32::try_from(ready.max(self.connected(fleet).len())).unwrap_or(u32::MAX)
    }

    /// The fleet's first ready pod; before any is ready, the first that is connected here.
    fn first<'f>(&self, fleets: &'f [FleetId]) -> Option<(&'f FleetId, String)> {
        let ready = fleets.iter().find_map(|fleet| Some((fleet, self.ready(fleet)?.first()?.clone())));
        ready.or_else(|| {
            fleets.iter().find_map(|fleet| Some((fleet, self.connected(fleet).iter().min()?.clone())))
        })
    }
}

/// Sizes of these fleets.
pub(crate) fn sizes(fleets: &BTreeSet<FleetId>, pods: &Pods<'_>) -> BTreeMap<FleetId, u32> {
    fleets.iter().map(|fleet| (fleet.clone(), pods.size(fleet))).collect()
}

/// The observer of each server that stands behind a gateway or has a fleet of its own: that fleet's, else a gateway's.
pub(crate) fn observers(
    fleets: &BTreeSet<FleetId>,
    attached: &BTreeMap<GatewayId, Vec<ServerId>>,
    pods: &Pods<'_>,
) -> Observers {
    let mut candidates: BTreeMap<&ServerId, Vec<FleetId>> = BTreeMap::new();
    for fleet in fleets {
        if let FleetId::Server(id) = fleet {
            candidates.insert(id, vec![fleet.clone()]);
        }
    }
    for (gateway, servers) in attached {
        for server in servers {
            if !fleets.contains(&FleetId::Server(server.clone())) {
                candidates.entry(server).or_default().push(FleetId::Gateway(gateway.clone()));
            }
        }
    }
    let mut observers = Observers::new();
    for (server, candidates) in candidates {
        if let Some((fleet, pod)) = pods.first(&candidates) {
            observers.entry(fleet.clone()).or_default().entry(pod).or_default().insert(server.clone());
        }
    }
    observers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(name: &str) -> FleetId {
        FleetId::Gateway(GatewayId::new("a", name))
    }

    fn attached() -> BTreeMap<GatewayId, Vec<ServerId>> {
        ["one", "two"].map(|name| (GatewayId::new("a", name), vec![ServerId::new("a", "s")])).into()
    }

    #[test]
    fn one_ready_pod_observes_and_it_is_the_same_for_every_replica() {
        let key = ("a".to_owned(), "two-mcpgateway".to_owned());
        let ready = BTreeMap::from([(key, BTreeSet::from(["p1".to_owned(), "p2".to_owned()]))]);
        let fleets = BTreeSet::from([gateway("one"), gateway("two")]);
        for connected in [BTreeMap::new(), BTreeMap::from([(gateway("one"), vec!["other".to_owned()])])] {
            let pods = Pods { ready: &ready, connected: &connected };
            let found = observers(&fleets, &attached(), &pods);
            assert_eq!(found[&gateway("two")]["p1"], BTreeSet::from([ServerId::new("a", "s")]));
            assert_eq!(found.len(), 1);
            assert_eq!(sizes(&fleets, &pods)[&gateway("two")], 2);
        }
    }

    #[test]
    fn before_any_pod_is_ready_a_connected_one_observes() {
        let connected = BTreeMap::from([(gateway("one"), vec!["b".to_owned(), "a".to_owned()])]);
        let fleets = BTreeSet::from([gateway("one"), gateway("two")]);
        let pods = Pods { ready: &BTreeMap::new(), connected: &connected };
        assert!(observers(&fleets, &attached(), &pods)[&gateway("one")].contains_key("a"));
    }

    #[test]
    fn a_servers_own_proxies_observe_it() {
        let own = FleetId::Server(ServerId::new("a", "s"));
        let fleets = BTreeSet::from([gateway("one"), own.clone()]);
        let connected =
            BTreeMap::from([(gateway("one"), vec!["g".to_owned()]), (own.clone(), vec!["s".to_owned()])]);
        let pods = Pods { ready: &BTreeMap::new(), connected: &connected };
        assert_eq!(observers(&fleets, &attached(), &pods).into_keys().collect::<Vec<_>>(), [own]);
    }
}
