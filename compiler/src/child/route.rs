//! The HTTPRoute (gateway.networking.k8s.io/v1) from a Gateway of the Gateway API to a gateway's Service.

use std::collections::BTreeSet;

use mcpmesh_crds::ProxyRoute;
use mcpmesh_ir::FleetId;
use mcpmesh_ir::gateway::Listener;
use serde_json::{Value, json};

use super::Child;
use super::name::{base_name, labels};

/// None when no listener is plain: to one with TLS, a route could not say whom to trust.
pub(super) fn route(fleet: &FleetId, given: &ProxyRoute, listeners: &[Listener]) -> Option<Child> {
    let plain: Vec<&Listener> = listeners.iter().filter(|listener| listener.tls.is_none()).collect();
    let mut paths = BTreeSet::new();
    // Of two listeners with one path, the route leads to the first.
    let rules: Vec<Value> = plain
        .iter()
        .filter(|listener| paths.insert(&listener.path))
        .map(|listener| rule(fleet, listener))
        .collect();
    if rules.is_empty() {
        return None;
    }
    let mut spec = json!({ "parentRefs": given.parent_refs, "rules": rules });
    let hostnames = hostnames(given, &plain);
    if !hostnames.is_empty() {
        spec["hostnames"] = json!(hostnames);
    }
    Some(Child::HttpRoute(Box::new(json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": { "name": base_name(fleet), "namespace": fleet.namespace(), "labels": labels(fleet) },
        "spec": spec,
    }))))
}

fn rule(fleet: &FleetId, listener: &Listener) -> Value {
    json!({
        "matches": [{ "path": { "type": "Exact", "value": listener.path } }],
        "backendRefs": [{ "name": base_name(fleet), "port": listener.port }],
    })
}

/// Those of the route, else those that all listeners insist on.
fn hostnames(given: &ProxyRoute, listeners: &[&Listener]) -> BTreeSet<String> {
    if !given.hostnames.is_empty() {
        return given.hostnames.iter().cloned().collect();
    }
    let insisted: Option<BTreeSet<String>> =
        listeners.iter().map(|listener| listener.hostname.clone()).collect();
    insisted.unwrap_or_default()
}
