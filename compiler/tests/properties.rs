//! What holds for every set of objects: compiling has no memory, names decide nothing, a memo changes nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use mcpmesh_compiler::{Cluster, ClusterIssuer, Compiled, Inputs, Install, Memo, Service, compile, manifest};
use mcpmesh_ir::catalog::Hints;
use mcpmesh_ir::policy::{Identity, Issuer, Object, Prepared, Target, decide};
use mcpmesh_ir::{EgressRule, Fleet, Gateway, GatewayId, Policy, ResourceKind, Server, ServerId, Snapshot};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

/// Documents to draw folders from: good ones, wrong ones, several namespaces, with and without exports.
const DOCUMENTS: [&str; 25] = [
    "kind: McpServer\nmetadata: {name: a}\nspec: {package: {registry: Npm, name: a, version: 1.0.0}}",
    "kind: McpServer\nmetadata: {name: b, labels: {tier: gold}}\nspec: {remote: {url: 'https://b.example.com/'}}",
    "kind: McpServer\nmetadata: {name: a, namespace: lib}\nspec: {package: {registry: Npm, name: a, version: 1.0.0}, exportTo: {namespaces: {from: All}}}",
    "kind: McpServer\nmetadata: {name: c, namespace: lib}\nspec: {remote: {url: 'https://c.example.com/'}, credentials: {headers: [{name: X-Key, secretKeyRef: {name: s, key: k}}]}}",
    "kind: McpServer\nmetadata: {name: broken}\nspec: {tools: {include: ['[']}}",
    "kind: McpGateway\nmetadata: {name: main}\nspec: {servers: {namespaces: {from: All}}, authentication: {apiKeys: {}}}",
    "kind: McpGateway\nmetadata: {name: gold}\nspec: {servers: {selector: {matchLabels: {tier: gold}}, refs: [{name: a, prefix: x}]}}",
    "kind: McpGateway\nmetadata: {name: main, namespace: lib}\nspec: {authentication: {anonymous: Allow}}",
    "kind: McpPolicy\nmetadata: {name: p}\nspec: {targetRefs: [{kind: Namespace, name: default}], access: [{name: r, effect: Allow, from: [{authenticated: {}}]}]}",
    "kind: McpPolicy\nmetadata: {name: q}\nspec: {targetRefs: [{kind: McpServer, name: a}], access: [{name: r, effect: Deny, from: [{group: red}], to: {tools: ['set*']}}]}",
    "kind: McpPolicy\nmetadata: {name: broken}\nspec: {targetRefs: [{kind: McpGateway, name: gold}], access: [{name: r, effect: Allow, from: []}]}",
    "kind: McpPolicy\nmetadata: {name: p, namespace: lib}\nspec: {targetRefs: [{kind: McpServer, name: a}], limits: [{name: l, requests: {count: 1, window: 1s}}]}",
    "kind: Secret\nmetadata: {name: s, namespace: lib}\nstringData: {k: value-one}",
    "kind: Secret\nmetadata: {name: key, labels: {mcpmesh.io/api-key: 'true'}, annotations: {mcpmesh.io/owner: alice}}\nstringData: {key: 0123456789abcdef}",
    "kind: ConfigMap\nmetadata: {name: c}\ndata: {k: one}",
    "kind: McpServer\nmetadata: {name: g}\nspec: {package: {registry: Npm, name: g, version: 1.0.0, env: [{name: K, valueFrom: {configMapKeyRef: {name: c, key: k}}}]}}",
    "kind: Namespace\nmetadata: {name: lib, labels: {x: y}}",
    "kind: McpServer\nmetadata: {name: d}\nspec: {service: {name: d, port: 80}}",
    "kind: McpServer\nmetadata: {name: e, namespace: lib}\nspec: {service: {name: e, port: 80}, exportTo: {namespaces: {from: All}}, lock: {mode: Enforce}}",
    "kind: McpServer\nmetadata: {name: f, namespace: lib}\nspec: {package: {registry: Npm, name: f, version: 1.0.0}, authentication: {anonymous: Allow, apiKeys: {}, serviceAccounts: {}}}",
    "kind: McpPolicy\nmetadata: {name: f, namespace: lib}\nspec: {targetRefs: [{kind: McpServer, name: f}], access: [{name: r, effect: Allow, from: [{anyone: {}}]}]}",
    "kind: McpGateway\nmetadata: {name: lib}\nspec: {servers: {refs: [{name: a, namespace: lib}]}, authentication: {serviceAccounts: {}}}",
    "kind: McpPolicy\nmetadata: {name: floor, namespace: mcpmesh-system}\nspec: {namespaceSelector: {matchLabels: {x: y}}, access: [{name: r, effect: Deny, from: [{group: red}], to: {servers: [a]}}]}",
    "kind: McpPolicy\nmetadata: {name: all, namespace: mcpmesh-system}\nspec: {namespaceSelector: {}, access: [{name: r, effect: Allow, from: [{serviceAccount: {name: bot}}, {authenticated: {}}]}]}",
    "kind: McpPolicy\nmetadata: {name: broken, namespace: mcpmesh-system}\nspec: {namespaceSelector: {matchLabels: {x: y}}, access: [{name: r, effect: Allow, from: []}]}",
];

fn text(documents: &[&str]) -> String {
    let text = |document: &&str| {
        let core = ["Secret", "ConfigMap", "Namespace"]
            .iter()
            .any(|kind| document.starts_with(&format!("kind: {kind}\n")));
        format!("apiVersion: {}\n{document}\n", if core { "v1" } else { "mcpmesh.io/v1alpha1" })
    };
    documents.iter().map(text).collect::<Vec<_>>().join("---\n")
}

fn inputs(documents: &[&str], up: bool) -> Inputs {
    let parsed = manifest::parse("in.yaml", &text(documents));
    assert_eq!(parsed.diagnostics, []);
    let remotes = if up { EgressRule::private() } else { EgressRule::default() };
    let install = Install { implied_gateway: up, remotes, version_key: [1; 32], ..Install::default() };
    manifest::gather(&parsed.objects, install).0
}

fn bytes(compiled: &Compiled) -> String {
    let fleets: Vec<&Fleet> = compiled.fleets.values().map(AsRef::as_ref).collect();
    let text =
        serde_json::to_string(&(snapshots(compiled), fleets, workloads(compiled), &compiled.diagnostics));
    format!("{text:?}{:?}{:?}", compiled.policy_targets, compiled.attached)
}

/// As the operator's, with addresses behind the Services of both namespaces.
fn in_cluster(documents: &[&str], addresses: [u8; 2]) -> Inputs {
    let mut inputs = inputs(documents, false);
    let issuer = ClusterIssuer { issuer: "https://issuer.test".to_owned(), keys: "{}".to_owned() };
    inputs.install.cluster = Some(Cluster {
        operator_namespace: "mcpmesh-system".to_owned(),
        token_issuer: Some(issuer),
        ..Cluster::default()
    });
    let service = |last: u8, port| {
        let address = SocketAddr::from(([10, 0, 0, last], port));
        Arc::new(Service { ports: BTreeMap::from([(port, vec![address])]) })
    };
    let [first, second] = addresses;
    for (namespace, name, last, port) in
        [("default", "d", first, 80), ("lib", "e", second, 80), ("lib", "a-mcpserver", second, 17080)]
    {
        inputs.of_mut(namespace).services.insert(name.to_owned(), service(last, port));
    }
    inputs
}

fn snapshots(compiled: &Compiled) -> Vec<&Snapshot> {
    compiled.snapshots.values().collect()
}

fn workloads(compiled: &Compiled) -> Vec<&mcpmesh_compiler::Workload> {
    compiled.workloads.values().map(AsRef::as_ref).collect()
}

fn folder() -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(DOCUMENTS.to_vec(), 0..=DOCUMENTS.len())
}

/// Every caller's verdict on every tool of every attached server, by the servers' own names.
fn verdicts(snapshot: &Snapshot) -> BTreeMap<(ServerId, String, String), bool> {
    let decode = |kind| snapshot.of_kind(kind);
    let gateway = decode(ResourceKind::Gateway).find_map(|resource| resource.decode::<Gateway>().ok());
    let policies = decode(ResourceKind::Policy).filter_map(|resource| resource.decode::<Policy>().ok());
    let policies = policies.map(|policy| (policy.id.clone(), policy)).collect();
    let servers = decode(ResourceKind::Server).filter_map(|resource| resource.decode::<Server>().ok());
    let servers: BTreeMap<_, _> = servers.map(|server| (server.id.clone(), server)).collect();
    let Some(gateway) = gateway else { return BTreeMap::new() };
    let (prepared, rejected) = Prepared::new(&gateway, &policies);
    assert!(rejected.is_empty(), "what compiles can be prepared");
    let mut all = BTreeMap::new();
    for (id, server) in &servers {
        for (user, groups) in [("", vec![]), ("alice", vec!["finance"]), ("bob", vec![])] {
            let caller = prepared.caller(identity(&gateway.id, user, &groups));
            for tool in ["get_balance", "pay", "refund"] {
                let pinned =
                    server.tools.overrides.get(tool).map_or(Hints::default(), |tool| tool.annotations);
                let object = Object::Tool { name: tool, pinned, claimed: Hints::default() };
                let target = Target { server: id, method: "tools/call", object };
                let key = (id.clone(), user.to_owned(), tool.to_owned());
                all.insert(key, decide(&prepared, &caller, &target).allowed());
            }
        }
    }
    all
}

/// The same of a whole fleet, by its gateways.
fn judged(fleet: &Fleet) -> BTreeMap<(GatewayId, (ServerId, String, String)), bool> {
    let snapshots = fleet.snapshots();
    let of = |snapshot: &Snapshot| {
        let gateway = snapshot.gateway.clone();
        verdicts(snapshot).into_iter().map(move |(asked, allowed)| ((gateway.clone(), asked), allowed))
    };
    snapshots.iter().flat_map(of).collect()
}

fn identity(gateway: &GatewayId, user: &str, groups: &[&str]) -> Identity {
    if user.is_empty() {
        return Identity::anonymous(gateway.clone());
    }
    Identity {
        gateway: gateway.clone(),
        issuer: Issuer::ApiKey,
        user: Some(user.to_owned()),
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
    }
}

/// Two servers under the given prefixes, with one tool shown under the given name.
fn shop(prefixes: [&str; 2], shown: &str, naming: &str) -> BTreeMap<(ServerId, String, String), bool> {
    let server = |name: &str| {
        format!(
            "kind: McpServer\nmetadata: {{name: {name}}}\nspec: {{package: {{registry: Npm, name: a, version: 1.0.0}}, tools: {{overrides: \
             [{{name: pay, as: {shown}}}, {{name: get_balance, annotations: {{readOnlyHint: true}}}}]}}}}"
        )
    };
    let [one, two] = prefixes;
    let gateway = format!(
        "kind: McpGateway\nmetadata: {{name: main}}\nspec: {{naming: {{prefix: {naming}}}, servers: {{refs: [{{name: payments, prefix: {one}}}, \
         {{name: accounts, prefix: {two}}}]}}}}"
    );
    let policy = "kind: McpPolicy\nmetadata: {name: p}\nspec: {targetRefs: [{kind: McpGateway, name: main}], access: [\
        {name: finance, effect: Allow, from: [{group: finance}], to: {servers: [payments], tools: [pay, 'get_*']}}, \
        {name: read, effect: Allow, from: [{authenticated: {}}], to: {annotations: {readOnlyHint: true}}}, \
        {name: never, effect: Deny, from: [{anyone: {}}], to: {servers: [accounts], tools: [pay]}}]}";
    let documents = [server("payments"), server("accounts"), gateway, policy.to_owned()];
    let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
    let compiled = compile(&inputs(&documents, false));
    compiled.snapshots.values().next().map(verdicts).unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn equal_inputs_give_equal_bytes_in_whatever_order_they_are_read(folder in folder(), up: bool, turn in 0usize..16) {
        let mut turned = folder.clone();
        let by = turn.min(turned.len());
        turned.rotate_left(by);
        prop_assert_eq!(bytes(&compile(&inputs(&folder, up))), bytes(&compile(&inputs(&turned, up))));
    }

    #[test]
    fn a_memo_gives_what_a_full_compile_gives(folders in proptest::collection::vec(folder(), 1..6), up: bool) {
        let mut memo = Memo::default();
        for folder in folders {
            let inputs = inputs(&folder, up);
            prop_assert_eq!(bytes(&Compiled::whole(&memo.compile(&inputs))), bytes(&compile(&inputs)));
        }
    }

    #[test]
    fn a_memo_gives_what_a_full_compile_gives_in_a_cluster(
        steps in proptest::collection::vec((folder(), any::<[bool; 2]>()), 1..6)
    ) {
        let mut memo = Memo::default();
        let mut last = Inputs::default();
        for (folder, [one, two]) in steps {
            // What did not change stays the same Arc, as a watch leaves it.
            let mut inputs = in_cluster(&folder, [u8::from(one) + 1, u8::from(two) + 1]);
            for (namespace, objects) in &mut inputs.namespaces {
                for (id, server) in &mut Arc::make_mut(objects).servers {
                    if let Some(old) = last.of(namespace).servers.get(id).filter(|old| *old == server) {
                        *server = old.clone();
                    }
                }
                if let Some(old) = last.namespaces.get(namespace).filter(|old| *old == objects) {
                    *objects = old.clone();
                }
            }
            prop_assert_eq!(bytes(&Compiled::whole(&memo.compile(&inputs))), bytes(&compile(&inputs)));
            last = inputs;
        }
    }

    #[test]
    fn nothing_of_a_namespace_is_in_anothers_fleets_but_what_it_exports(folder in folder()) {
        let compiled = compile(&in_cluster(&folder, [1, 2]));
        for (id, fleet) in &compiled.fleets {
            for resource in &fleet.resources {
                let (namespace, name) = resource.name.split_once('/').unwrap_or_default();
                let exported = namespace == "lib" && match resource.kind {
                    ResourceKind::Server => ["a", "e"].contains(&name),
                    // It is judged where the server is reached, unless a sidecar does.
                    ResourceKind::Policy => name != "p",
                    _ => false,
                };
                let mesh = namespace == "mcpmesh-system" && resource.kind == ResourceKind::Policy;
                prop_assert!(namespace == id.namespace() || exported || mesh, "{id}: {} {}", resource.kind, resource.name);
            }
        }
    }

    #[test]
    fn a_mesh_level_only_takes_away(folder in folder()) {
        let is_mesh = |document: &&str| document.contains("namespace: mcpmesh-system");
        let without: Vec<&str> = folder.iter().copied().filter(|document| !is_mesh(document)).collect();
        let (with, without) = (compile(&in_cluster(&folder, [1, 2])), compile(&in_cluster(&without, [1, 2])));
        for (id, fleet) in &with.fleets {
            let before = judged(&without.fleets[id]);
            for (asked, allowed) in judged(fleet) {
                prop_assert!(!allowed || before[&asked], "{id}: {asked:?}");
            }
        }
    }

    #[test]
    fn a_tenants_policy_on_a_server_only_takes_away_below_a_mesh_level(folder in folder()) {
        let is_servers = |document: &&str| document.contains("kind: McpServer, name");
        let without: Vec<&str> = folder.iter().copied().filter(|document| !is_servers(document)).collect();
        let (with, without) = (compile(&in_cluster(&folder, [1, 2])), compile(&in_cluster(&without, [1, 2])));
        for (id, fleet) in &with.fleets {
            let before = judged(&without.fleets[id]);
            // Past the gateways the server's level stands where a gateway's would: it must allow.
            let past = |(gateway, _): &(GatewayId, _)| gateway.name.ends_with(":direct");
            for (asked, allowed) in judged(fleet).into_iter().filter(|(asked, _)| !past(asked)) {
                prop_assert!(!allowed || before[&asked], "{id}: {asked:?}");
            }
        }
    }

    #[test]
    fn a_memo_sees_every_single_change(folder in folder(), changed in select(DOCUMENTS.to_vec())) {
        let mut memo = Memo::default();
        let before = inputs(&folder, true);
        memo.compile(&before);
        let mut other = folder.clone();
        match other.iter().position(|document| *document == changed) {
            Some(index) => _ = other.remove(index),
            None => other.push(changed),
        }
        let mut after = inputs(&other, true);
        prop_assert_eq!(bytes(&Compiled::whole(&memo.compile(&after))), bytes(&compile(&after)));
        for secret in after.namespaces.values_mut().flat_map(|objects| Arc::make_mut(objects).secrets.values_mut()) {
            Arc::make_mut(secret).data.values_mut().for_each(|value| value.push(b'x'));
        }
        for map in after.namespaces.values_mut().flat_map(|objects| Arc::make_mut(objects).config_maps.values_mut()) {
            Arc::make_mut(map).data.values_mut().for_each(|value| value.push('x'));
        }
        prop_assert_eq!(bytes(&Compiled::whole(&memo.compile(&after))), bytes(&compile(&after)));
    }

    #[test]
    fn names_decide_nothing(one in "[a-z]{1,8}", two in "[0-9]{1,8}", shown in "[a-z]{1,8}_[a-z]{1,8}", conflict: bool) {
        let plain = shop(["payments", "accounts"], "pay", "Always");
        prop_assert!(plain.values().any(|allowed| *allowed) && plain.values().any(|allowed| !allowed));
        prop_assert_eq!(&plain, &shop([&format!("p{one}"), &format!("n{two}")], &shown, if conflict { "OnConflict" } else { "Always" }));
    }

    #[test]
    fn even_names_that_mimic_another_tool_decide_nothing(shown in select(vec!["get_balance", "refund", "payments_pay"])) {
        let plain = shop(["payments", "accounts"], "pay", "Always");
        prop_assert_eq!(plain, shop(["accounts", "payments"], shown, "Always"));
    }

    #[test]
    fn no_text_makes_reading_or_compiling_fail(arbitrary in ".{0,200}", folder in folder(), cut in 0usize..2000, junk in "[\\x00-\\x7f]{0,8}") {
        let _ = manifest::parse("in.yaml", &arbitrary);
        let mut whole = text(&folder);
        let at = whole.floor_char_boundary(cut.min(whole.len()));
        whole.insert_str(at, &junk);
        let parsed = manifest::parse("in.yaml", &whole);
        let (inputs, _) = manifest::gather(&parsed.objects, Install::default());
        let mut compiled = compile(&inputs);
        manifest::locate(&parsed.objects, &mut compiled.diagnostics);
        prop_assert!(compiled.diagnostics.iter().all(|finding| finding.location.is_some()));
    }
}
