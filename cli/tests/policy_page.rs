//! What docs/mcppolicy.md promises of its first example, decided and charged as a gateway does it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::collections::BTreeMap;

use mcpmesh_compiler::{Install, compile, manifest};
use mcpmesh_ir::catalog::Hints;
use mcpmesh_ir::policy::{Caller, Identity, Issuer, Object, Prepared, Target, decide};
use mcpmesh_ir::resource::Body;
use mcpmesh_ir::{Gateway, Policy, Server, ServerId, Snapshot};
use mcpmesh_proxy::limit::Registry;

const PAGE: &str = include_str!("../../docs/mcppolicy.md");

fn example() -> Snapshot {
    let (_, block) = PAGE.split_once("```yaml\n").unwrap();
    let (block, _) = block.split_once("```\n").unwrap();
    // Nothing comes back into the bucket however long a test takes.
    assert!(block.contains("window: 1m"));
    let parsed = manifest::parse("mcppolicy.md", &block.replace("window: 1m", "window: 1000h"));
    assert_eq!(parsed.diagnostics, []);
    let (inputs, wrong) = manifest::gather(&parsed.objects, Install::default());
    assert_eq!(wrong, []);
    compile(&inputs).snapshots.into_values().next().unwrap()
}

fn all<B: Body>(snapshot: &Snapshot) -> Vec<B> {
    snapshot.of_kind(B::KIND).map(|resource| resource.decode().unwrap()).collect()
}

/// The example as it is in force at its gateway.
struct Mesh {
    prepared: Prepared,
    gateway: Gateway,
    payments: Server,
}

impl Mesh {
    fn new() -> Self {
        let snapshot = example();
        let gateway = all::<Gateway>(&snapshot).pop().unwrap();
        let policies: BTreeMap<_, _> =
            all::<Policy>(&snapshot).into_iter().map(|policy| (policy.id.clone(), policy)).collect();
        let (prepared, rejected) = Prepared::new(&gateway, &policies);
        assert!(rejected.is_empty());
        Self { prepared, gateway, payments: all(&snapshot).pop().unwrap() }
    }

    fn caller(&self, user: Option<&str>, groups: &[&str]) -> Caller {
        let mut identity = Identity::anonymous(self.gateway.id.clone());
        if let Some(user) = user {
            identity.issuer = Issuer::ApiKey;
            identity.user = Some(user.to_owned());
            identity.groups = groups.iter().map(|&group| group.to_owned()).collect();
        }
        self.prepared.caller(identity)
    }

    /// A tool of payments, with the hints that the McpServer pins; the server claims that all are harmless.
    fn with_target<T>(&self, tool: &str, then: impl FnOnce(&Target<'_>) -> T) -> T {
        let pinned =
            self.payments.tools.overrides.get(tool).map_or(Hints::default(), |tool| tool.annotations);
        let claimed = Hints { read_only_hint: Some(true), ..Hints::default() };
        let object = Object::Tool { name: tool, pinned, claimed };
        then(&Target { server: &ServerId::new("default", "payments"), method: "tools/call", object })
    }

    fn may(&self, caller: &Caller, tool: &str) -> bool {
        self.with_target(tool, |target| decide(&self.prepared, caller, target).allowed())
    }
}

#[test]
fn finance_may_do_all_and_everyone_else_with_a_key_may_read() {
    let mesh = Mesh::new();
    let tools = ["get_balance", "list_payments", "send_payment"];
    let allowed = |caller: &Caller| tools.map(|tool| mesh.may(caller, tool));
    assert_eq!(allowed(&mesh.caller(Some("ann"), &["finance"])), [true, true, true]);
    assert_eq!(allowed(&mesh.caller(Some("bob"), &["sales"])), [true, true, false]);
    assert_eq!(allowed(&mesh.caller(None, &[])), [false, false, false]);
}

#[test]
fn the_eleventh_call_of_a_minute_is_refused_to_each_of_finance_alone() {
    let mesh = Mesh::new();
    let limiter = Registry::default().limiter(&mesh.prepared);
    let [ann, eve] = ["ann", "eve"].map(|user| mesh.caller(Some(user), &["finance"]));
    let bob = mesh.caller(Some("bob"), &[]);
    let refused = |caller: &Caller, tool: &str| {
        let charged = mesh.with_target(tool, |target| limiter.charge(&mesh.prepared, caller, target));
        charged.refused.map(|exceeded| exceeded.limit)
    };
    for call in 1..=10 {
        let tool = if call % 2 == 0 { "send_payment" } else { "get_balance" };
        assert_eq!(refused(&ann, tool), None, "call {call}");
    }
    assert_eq!(refused(&ann, "send_payment").as_deref(), Some("ten-a-minute"));
    assert_eq!(refused(&eve, "send_payment"), None);
    for call in 1..=20 {
        assert_eq!(refused(&bob, "get_balance"), None, "call {call}");
    }
}
