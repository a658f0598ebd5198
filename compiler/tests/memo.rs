//! What one change costs, counted in what is made anew: nothing that grows with the number of namespaces.

use std::sync::Arc;

use mcpmesh_compiler::{ByNamespace, Cluster, Inputs, Install, Memo, manifest};
use mcpmesh_ir::ServerId;

/// Namespaces with a gateway, a policy and some servers each.
fn inputs(namespaces: usize, servers: usize) -> Inputs {
    let head = "apiVersion: mcpmesh.io/v1alpha1\nkind:";
    let mut text = String::new();
    for team in 0..namespaces {
        text.push_str(&format!(
            "---\n{head} McpGateway\nmetadata: {{name: main, namespace: t{team}}}\nspec: {{}}\n---\n\
             {head} McpPolicy\nmetadata: {{name: p, namespace: t{team}}}\nspec: {{targetRefs: [{{kind: McpGateway, name: main}}]}}\n"
        ));
        for number in 0..servers {
            text.push_str(&format!(
                "---\n{head} McpServer\nmetadata: {{name: s{number}, namespace: t{team}}}\n\
                 spec: {{package: {{registry: Npm, name: a, version: 1.0.0}}}}\n"
            ));
        }
    }
    let install = Install { cluster: Some(Cluster::default()), ..Install::default() };
    manifest::gather(&manifest::parse("in.yaml", &text).objects, install).0
}

/// How many namespaces, fleets and resources differ.
fn made_anew(before: &ByNamespace, after: &ByNamespace) -> (usize, usize, usize) {
    let namespaces = after.iter().filter(|(name, of)| !Arc::ptr_eq(&before[*name], of)).count();
    let fleets = after
        .iter()
        .flat_map(|(name, of)| of.fleets.iter().map(|(id, fleet)| (&before[name].fleets[id], fleet)));
    let fleets: Vec<_> = fleets.filter(|(old, new)| !Arc::ptr_eq(old, new)).collect();
    let changed = fleets.iter().map(|(old, new)| new.difference_from(old).changed.len()).sum();
    (namespaces, fleets.len(), changed)
}

#[test]
fn one_server_makes_its_namespace_its_gateways_fleet_and_its_own_anew_however_many_there_are() {
    for (namespaces, servers) in [(2, 3), (20, 10)] {
        let mut inputs = inputs(namespaces, servers);
        let mut memo = Memo::default();
        let before = memo.compile(&inputs);
        assert_eq!(made_anew(&before, &memo.compile(&inputs)), (0, 0, 0));
        let id = ServerId::new("t1", "s1");
        let server = inputs.of_mut("t1").servers.get_mut(&id).unwrap();
        Arc::make_mut(server).spec.tools =
            Some(mcpmesh_crds::Tools { exclude: vec!["x".to_owned()], ..Default::default() });
        let after = memo.compile(&inputs);
        // The gateway's fleet and the sidecar's; the server's resource in each.
        assert_eq!(made_anew(&before, &after), (1, 2, 2));
    }
}

#[test]
fn the_status_of_every_object_makes_nothing_anew() {
    let mut inputs = inputs(5, 5);
    let mut memo = Memo::default();
    let before = memo.compile(&inputs);
    for objects in inputs.namespaces.values_mut() {
        for server in Arc::make_mut(objects).servers.values_mut() {
            Arc::make_mut(server).metadata.resource_version = Some("2".to_owned());
        }
    }
    assert_eq!(made_anew(&before, &memo.compile(&inputs)), (0, 0, 0));
}
