use mcpmesh_compiler::Cluster;
use mcpmesh_ir::FleetId;
use serde_json::json;

use super::*;

fn policy(namespace: &str, spec: &Value) -> McpPolicy {
    let metadata = json!({"name": "p", "namespace": namespace});
    let object =
        json!({"apiVersion": "mcpmesh.io/v1alpha1", "kind": "McpPolicy", "metadata": metadata, "spec": spec});
    closing(&object).unwrap()
}

/// The policies that close gateway `a/gw`, beside an unreadable policy of that spec in a namespace.
fn closed(namespace: &str, spec: &Value) -> Vec<PolicyId> {
    let gateway = json!({
        "apiVersion": "mcpmesh.io/v1alpha1", "kind": "McpGateway", "metadata": {"name": "gw", "namespace": "a"},
        "spec": {},
    });
    let mut inputs = Inputs::default();
    inputs.install.cluster = Some(Cluster { operator_namespace: "mesh".to_owned(), ..Cluster::default() });
    inputs
        .of_mut("a")
        .gateways
        .insert(GatewayId::new("a", "gw"), Arc::new(serde_json::from_value(gateway).unwrap()));
    inputs
        .of_mut(namespace)
        .policies
        .insert(PolicyId::new(namespace, "p"), Arc::new(policy(namespace, spec)));
    let compiled = mcpmesh_compiler::compile(&inputs);
    let fleet = &compiled.fleets[&FleetId::Gateway(GatewayId::new("a", "gw"))];
    let body: mcpmesh_ir::Gateway = fleet.resources[0].decode().unwrap();
    body.levels.into_iter().filter_map(|level| level.closed).collect()
}

#[test]
fn a_policy_that_cannot_be_read_closes_its_targets() {
    let gateway = |name: &str| json!({"targetRefs": [{"kind": "McpGateway", "name": name}], "later": true});
    assert_eq!(closed("a", &gateway("gw")), [PolicyId::new("a", "p")]);
    assert_eq!(closed("a", &gateway("other")), []);
}

#[test]
fn without_readable_targets_the_whole_namespace_is_closed() {
    for targets in [json!([{"kind": "Later", "name": "gw"}]), json!([]), json!("gw")] {
        assert_eq!(closed("a", &json!({"targetRefs": targets})), [PolicyId::new("a", "p")]);
    }
    assert_eq!(closed("a", &json!({"later": true})), [PolicyId::new("a", "p")]);
}

#[test]
fn a_policy_of_the_mesh_level_that_cannot_be_read_closes_the_namespaces_that_it_selects() {
    let select = |namespace: &str| json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
    let spec = |selector: Value| json!({"namespaceSelector": selector, "later": true});
    assert_eq!(closed("mesh", &spec(select("a"))), [PolicyId::new("mesh", "p")]);
    assert_eq!(closed("mesh", &spec(select("b"))), []);
    assert_eq!(closed("mesh", &spec(json!({"matchLater": true}))), [PolicyId::new("mesh", "p")]);
    let unsaid = json!({"matchExpressions": [{"key": "team", "operator": "In"}]});
    assert_eq!(closed("mesh", &spec(unsaid)), [PolicyId::new("mesh", "p")]);
}

#[test]
fn a_policy_that_only_watches_closes_nothing_when_it_cannot_be_read() {
    assert_eq!(closed("a", &json!({"mode": "Audit", "later": true})), []);
    assert_eq!(closed("a", &json!({"mode": "Later"})), [PolicyId::new("a", "p")]);
}
