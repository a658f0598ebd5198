//! The samples and the quickstart do what their comments say.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail like the test")]

use std::fs;
use std::path::Path;

use mcpmesh_compiler::{Compiled, Install, Memo, compile, manifest};
use mcpmesh_ir::catalog::Hints;
use mcpmesh_ir::policy::{Identity, Issuer, Object, Prepared, Target, decide};
use mcpmesh_ir::{Gateway, GatewayId, Policy, ResourceKind, Server, ServerId, Snapshot};

/// The compiled gateway of some files under `manifests`.
fn gateway(files: &[&str], id: &GatewayId) -> Snapshot {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
    let texts: Vec<_> = files.iter().map(|file| fs::read_to_string(folder.join(file)).unwrap()).collect();
    let parsed = manifest::parse("sample.yaml", &texts.join("\n---\n"));
    let (inputs, _) = manifest::gather(&parsed.objects, Install::default());
    let mut compiled = compile(&inputs);
    assert_eq!(compiled, Compiled::whole(&Memo::default().compile(&inputs)));
    compiled.snapshots.remove(id).unwrap_or_else(|| panic!("no {id}"))
}

fn caller(gateway: &GatewayId, user: &str, groups: &[&str]) -> Identity {
    let groups = groups.iter().map(|&group| group.to_owned()).collect();
    Identity { gateway: gateway.clone(), issuer: Issuer::ApiKey, user: Some(user.to_owned()), groups }
}

/// Whether a caller may call a tool that says nothing of itself, by the server's own name of it.
fn may(snapshot: &Snapshot, identity: &Identity, server: &str, tool: &str) -> bool {
    let gateway: Gateway = snapshot.of_kind(ResourceKind::Gateway).next().unwrap().decode().unwrap();
    let policies = snapshot.of_kind(ResourceKind::Policy).map(|policy| policy.decode::<Policy>().unwrap());
    let (prepared, _) =
        Prepared::new(&gateway, &policies.map(|policy| (policy.id.clone(), policy)).collect());
    let id: ServerId = server.parse().unwrap();
    let server = snapshot.of_kind(ResourceKind::Server).find(|server| server.name == id.to_string()).unwrap();
    let server: Server = server.decode().unwrap();
    let pinned = server.tools.overrides.get(tool).map_or(Hints::default(), |tool| tool.annotations);
    let object = Object::Tool { name: tool, pinned, claimed: Hints::default() };
    let target = Target { server: &id, method: "tools/call", object };
    decide(&prepared, &prepared.caller(identity.clone()), &target).allowed()
}

#[test]
fn the_quickstart_shows_one_call_that_is_allowed_and_one_that_is_denied() {
    let files = ["quickstart/servers.yaml", "quickstart/gateway.yaml", "quickstart/policy.yaml"];
    let id = GatewayId::new("default", "main");
    let snapshot = gateway(&files, &id);
    let demo = caller(&id, "demo", &["visitors"]);
    assert!(may(&snapshot, &demo, "default/everything", "echo"));
    assert!(may(&snapshot, &demo, "default/time", "get_current_time"));
    assert!(!may(&snapshot, &demo, "default/everything", "get-env"));
    assert!(!may(&snapshot, &Identity::anonymous(id), "default/everything", "echo"));
}

#[test]
fn only_finance_may_call_payments_and_everyone_else_may_read() {
    let id = GatewayId::new("shop", "main");
    let snapshot = gateway(&["samples/finance-only.yaml"], &id);
    let (alice, bob) = (caller(&id, "alice", &["finance"]), caller(&id, "bob", &[]));
    assert!(
        may(&snapshot, &alice, "shop/payments", "pay")
            && may(&snapshot, &alice, "shop/payments", "get_balance")
    );
    assert!(
        !may(&snapshot, &bob, "shop/payments", "pay") && may(&snapshot, &bob, "shop/payments", "get_balance")
    );
    assert!(!may(&snapshot, &Identity::anonymous(id), "shop/payments", "get_balance"));
}

#[test]
fn each_of_two_gateways_has_its_own_callers() {
    let (agents, engineers) = (GatewayId::new("default", "agents"), GatewayId::new("default", "engineers"));
    let files = ["samples/two-gateways.yaml"];
    let erin = caller(&engineers, "erin", &["engineers"]);
    assert!(may(&gateway(&files, &engineers), &erin, "default/deploy", "roll_out"));
    assert!(!may(&gateway(&files, &engineers), &caller(&engineers, "x", &[]), "default/deploy", "roll_out"));
    let snapshot = gateway(&files, &agents);
    assert!(may(&snapshot, &caller(&agents, "crawler", &[]), "default/docs", "read"));
    assert_eq!(snapshot.of_kind(ResourceKind::Server).count(), 1);
    assert_eq!(snapshot.of_kind(ResourceKind::ApiKey).count(), 1);
}

#[test]
fn a_rename_leaves_rules_alone() {
    let id = GatewayId::new("default", "main");
    let snapshot = gateway(&["samples/renamed-tools.yaml"], &id);
    let anyone = Identity::anonymous(id);
    assert!(may(&snapshot, &anyone, "default/code-host-production", "search_repositories"));
    assert!(!may(&snapshot, &anyone, "default/code-host-production", "search"));
}

#[test]
fn an_owner_takes_away_from_what_another_namespace_allows() {
    let id = GatewayId::new("team-a", "main");
    let snapshot = gateway(&["samples/shared-across-namespaces.yaml"], &id);
    let anyone = Identity::anonymous(id);
    assert!(may(&snapshot, &anyone, "shared/translate", "translate"));
    assert!(!may(&snapshot, &anyone, "shared/translate", "admin_reset"));
}

#[test]
fn an_audit_rule_refuses_nobody() {
    let id = GatewayId::new("default", "main");
    let snapshot = gateway(&["samples/audit-before-enforce.yaml"], &id);
    assert!(may(&snapshot, &Identity::anonymous(id), "default/database", "drop_table"));
}
