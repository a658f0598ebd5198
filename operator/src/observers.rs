//! How many proxies share a fleet's limits, and which of them observes which server: one for each (decisions.md 15).
//!
//! Both come from what every replica sees alike, the ready pods of the fleets' Services, so that replicas agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mcpmesh_compiler::child::base_name;
use mcpmesh_compiler::{ByNamespace, Compiled};
use mcpmesh_ir::{FleetId, ServerId};

use crate::inputs::Found;

/// Who is there.
pub(crate) struct Pods<'a> {
    /// With the ready pods by Service.
    pub(crate) found: &'a BTreeMap<String, Arc<Found>>,
    /// Pods that are connected to this replica.
    pub(crate) connected: &'a BTreeMap<FleetId, Vec<String>>,
}

/// The servers to observe, by fleet and pod.
pub(crate) type Observers = BTreeMap<FleetId, BTreeMap<String, BTreeSet<ServerId>>>;

impl Pods<'_> {
    fn ready(&self, fleet: &FleetId) -> Option<&BTreeSet<String>> {
        let found = self.found.get(fleet.namespace())?;
        found.pods.get(&base_name(fleet)).filter(|pods| !pods.is_empty())
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

/// Whether sizes and observers may be others than before: only what changed is looked at.
pub(crate) fn may_differ(
    (before, found_before): (&ByNamespace, &BTreeMap<String, Arc<Found>>),
    (now, found): (&ByNamespace, &BTreeMap<String, Arc<Found>>),
) -> bool {
    let shape = |one: &Compiled, other: &Compiled| {
        one.fleets.keys().eq(other.fleets.keys()) && one.gateways == other.gateways
    };
    before.len() != now.len()
        || found_before.len() != found.len()
        || now.iter().any(|(name, now)| {
            before.get(name).is_none_or(|before| !Arc::ptr_eq(before, now) && !shape(before, now))
        })
        || found.iter().any(|(name, now)| {
            found_before.get(name).is_none_or(|old| !Arc::ptr_eq(old, now) && old.pods != now.pods)
        })
}

/// Sizes of all fleets.
pub(crate) fn sizes(compiled: &ByNamespace, pods: &Pods<'_>) -> BTreeMap<FleetId, u32> {
    let fleets = compiled.values().flat_map(|of| of.fleets.keys());
    fleets.map(|fleet| (fleet.clone(), pods.size(fleet))).collect()
}

/// The observer of each server that stands behind a gateway or has a fleet of its own: that fleet's, else a gateway's.
pub(crate) fn observers(compiled: &ByNamespace, pods: &Pods<'_>) -> Observers {
    let mut observers = Observers::new();
    let mut assign = |server: &ServerId, candidates: &[FleetId]| {
        if let Some((fleet, pod)) = pods.first(candidates) {
            observers.entry(fleet.clone()).or_default().entry(pod).or_default().insert(server.clone());
        }
    };
    for of in compiled.values() {
        for fleet in of.fleets.keys() {
            if let FleetId::Server(id) = fleet {
                assign(id, std::slice::from_ref(fleet));
            }
        }
        for (server, gateways) in &of.gateways {
            if !of.fleets.contains_key(&FleetId::Server(server.clone())) {
                let candidates: Vec<_> = gateways.iter().cloned().map(FleetId::Gateway).collect();
                assign(server, &candidates);
            }
        }
    }
    observers
}

#[cfg(test)]
mod tests {
    use mcpmesh_ir::{Fleet, GatewayId};

    use super::*;

    fn gateway(name: &str) -> FleetId {
        FleetId::Gateway(GatewayId::new("a", name))
    }

    /// One server behind two gateways; and these fleets.
    fn compiled(fleets: &[FleetId]) -> ByNamespace {
        let gateways = ["one", "two"].map(|name| GatewayId::new("a", name));
        let fleet = |id: &FleetId| (id.clone(), Arc::new(Fleet::new(id.clone(), [])));
        let compiled = Compiled {
            gateways: BTreeMap::from([(ServerId::new("a", "s"), gateways.to_vec())]),
            fleets: fleets.iter().map(fleet).collect(),
            ..Compiled::default()
        };
        BTreeMap::from([("a".to_owned(), Arc::new(compiled))])
    }

    #[test]
    fn one_ready_pod_observes_and_it_is_the_same_for_every_replica() {
        let ready = BTreeSet::from(["p1".to_owned(), "p2".to_owned()]);
        let pods = BTreeMap::from([("two-mcpgateway".to_owned(), ready)]);
        let found = Arc::new(Found { pods, ..Found::default() });
        let found = BTreeMap::from([("a".to_owned(), found)]);
        let compiled = compiled(&[gateway("one"), gateway("two")]);
        for connected in [BTreeMap::new(), BTreeMap::from([(gateway("one"), vec!["other".to_owned()])])] {
            let pods = Pods { found: &found, connected: &connected };
            let chosen = observers(&compiled, &pods);
            assert_eq!(chosen[&gateway("two")]["p1"], BTreeSet::from([ServerId::new("a", "s")]));
            assert_eq!(chosen.len(), 1);
            assert_eq!(sizes(&compiled, &pods)[&gateway("two")], 2);
        }
    }

    #[test]
    fn before_any_pod_is_ready_a_connected_one_observes() {
        let connected = BTreeMap::from([(gateway("one"), vec!["b".to_owned(), "a".to_owned()])]);
        let pods = Pods { found: &BTreeMap::new(), connected: &connected };
        let compiled = compiled(&[gateway("one"), gateway("two")]);
        assert!(observers(&compiled, &pods)[&gateway("one")].contains_key("a"));
    }

    #[test]
    fn a_servers_own_proxies_observe_it() {
        let own = FleetId::Server(ServerId::new("a", "s"));
        let compiled = compiled(&[gateway("one"), own.clone()]);
        let connected =
            BTreeMap::from([(gateway("one"), vec!["g".to_owned()]), (own.clone(), vec!["s".to_owned()])]);
        let pods = Pods { found: &BTreeMap::new(), connected: &connected };
        assert_eq!(observers(&compiled, &pods).into_keys().collect::<Vec<_>>(), [own]);
    }

    #[test]
    fn only_other_fleets_gateways_or_pods_make_other_observers() {
        let none = BTreeMap::new();
        let (one, again) = (compiled(&[gateway("one")]), compiled(&[gateway("one")]));
        assert!(!may_differ((&one, &none), (&again, &none)));
        assert!(may_differ((&one, &none), (&compiled(&[gateway("two")]), &none)));
        let pods = BTreeMap::from([("s".to_owned(), BTreeSet::from(["p".to_owned()]))]);
        let found = |pods| BTreeMap::from([("a".to_owned(), Arc::new(Found { pods, ..Found::default() }))]);
        assert!(may_differ((&one, &found(BTreeMap::new())), (&one, &found(pods))));
    }
}
