use std::collections::BTreeMap;

use mcpmesh_ir::gateway::{Anonymous, Attachment, Gateway, Level, LevelKind, Naming};
use mcpmesh_ir::policy::{Identity, Issuer, IssuerMatch, Limit, Mode, Object, Policy, Subject, To};
use mcpmesh_ir::{GatewayId, PolicyId, ServerId};

use super::*;

fn limit(per: &[Dimension], from: Vec<Subject>, count: u32) -> Limit {
    let requests = Rate { count, window_ms: 3_600_000, burst: count };
    Limit { name: "l".to_owned(), from, to: To::default(), per: per.to_vec(), requests }
}

fn prepared(limit: Limit, mode: Mode) -> Prepared {
    let id = PolicyId::new("a", "p");
    let server = |name: &str| Attachment {
        server: ServerId::new("a", name),
        prefix: name.to_owned(),
        levels: vec![Level { kind: LevelKind::Server, policies: vec![id.clone()], closed: None }],
    };
    let gateway = Gateway {
        id: GatewayId::new("a", "gw"),
        uid: "u".to_owned(),
        listeners: vec![],
        servers: vec![server("s"), server("t")],
        naming: Naming::Always,
        anonymous: Anonymous::Allow,
        api_keys: vec![],
        token_issuers: Vec::new(),
        peers: Vec::new(),
        levels: vec![Level { kind: LevelKind::Gateway, policies: vec![id.clone()], closed: None }],
    };
    let policy = Policy { id: id.clone(), mode, access: vec![], limits: vec![limit] };
    Prepared::new(&gateway, &BTreeMap::from([(id, policy)])).0
}

fn caller(prepared: &Prepared, user: &str, groups: &[&str]) -> Caller {
    prepared.caller(Identity {
        gateway: GatewayId::new("a", "gw"),
        issuer: Issuer::ApiKey,
        user: Some(user.to_owned()),
        groups: groups.iter().map(ToString::to_string).collect(),
    })
}

fn granted(limiter: &Limiter, prepared: &Prepared, caller: &Caller, server: &str, tool: &str) -> bool {
    let server = ServerId::new("a", server);
    let object = Object::Tool { name: tool, pinned: Default::default(), claimed: Default::default() };
    let target = Target { server: &server, method: "tools/call", object };
    limiter.charge(prepared, caller, &target).refused.is_none()
}

#[test]
fn a_policy_on_two_levels_of_a_call_is_charged_once() {
    let prepared = prepared(limit(&[], vec![], 2), Mode::Enforce);
    let limiter = Registry::default().limiter(&prepared);
    let alice = caller(&prepared, "alice", &[]);
    let answers: Vec<_> = (0..3).map(|_| granted(&limiter, &prepared, &alice, "s", "x")).collect();
    assert_eq!(answers, [true, true, false]);
}

#[test]
fn buckets_are_kept_apart_by_each_dimension() {
    let cases: [(&[Dimension], bool, bool, bool); 5] = [
        (&[], false, false, false),
        (&[Dimension::Principal], true, false, false),
        (&[Dimension::Server], false, true, false),
        (&[Dimension::Tool], false, true, true),
        (&[Dimension::Principal, Dimension::Tool], true, true, true),
    ];
    for (per, other_user, other_server, other_tool) in cases {
        let prepared = prepared(limit(per, vec![], 1), Mode::Enforce);
        let limiter = Registry::default().limiter(&prepared);
        let (alice, bob) = (caller(&prepared, "alice", &[]), caller(&prepared, "bob", &[]));
        assert!(granted(&limiter, &prepared, &alice, "s", "x"));
        assert_eq!(granted(&limiter, &prepared, &bob, "s", "x"), other_user, "{per:?}");
        assert_eq!(granted(&limiter, &prepared, &alice, "t", "x"), other_server, "{per:?}");
        assert_eq!(granted(&limiter, &prepared, &alice, "s", "y"), other_tool, "{per:?}");
    }
}

#[test]
fn a_limit_per_group_charges_each_named_group_that_the_caller_is_in() {
    let group =
        |name: &str| Subject::Group { name: name.to_owned(), issuer: IssuerMatch::Namespace("a".to_owned()) };
    let prepared = prepared(limit(&[Dimension::Group], vec![group("f"), group("g")], 1), Mode::Enforce);
    let limiter = Registry::default().limiter(&prepared);
    assert!(granted(&limiter, &prepared, &caller(&prepared, "both", &["f", "g"]), "s", "x"));
    assert!(!granted(&limiter, &prepared, &caller(&prepared, "other", &["g"]), "s", "x"));
    assert!(granted(&limiter, &prepared, &caller(&prepared, "stranger", &["h"]), "s", "x"));
}

#[test]
fn a_group_that_is_named_twice_is_charged_once() {
    let group = |issuer: IssuerMatch| Subject::Group { name: "f".to_owned(), issuer };
    let here = || IssuerMatch::Namespace("a".to_owned());
    let from = vec![group(here()), group(here()), group(IssuerMatch::Gateway(GatewayId::new("a", "gw")))];
    let prepared = prepared(limit(&[Dimension::Group], from, 2), Mode::Enforce);
    let limiter = Registry::default().limiter(&prepared);
    let alice = caller(&prepared, "alice", &["f"]);
    let answers: Vec<_> = (0..3).map(|_| granted(&limiter, &prepared, &alice, "s", "x")).collect();
    assert_eq!(answers, [true, true, false]);
}

#[test]
fn an_audit_limit_records_and_never_refuses() {
    let prepared = prepared(limit(&[], vec![], 1), Mode::Audit);
    let limiter = Registry::default().limiter(&prepared);
    let alice = caller(&prepared, "alice", &[]);
    let server = ServerId::new("a", "s");
    let target = Target { server: &server, method: "tools/call", object: Object::Prompt { name: "p" } };
    let _first = limiter.charge(&prepared, &alice, &target);
    let second = limiter.charge(&prepared, &alice, &target);
    assert!(second.refused.is_none());
    assert_eq!(second.audited.len(), 1);
}

#[test]
fn buckets_outlive_a_configuration_that_says_the_same_and_end_with_the_last_that_does() {
    let registry = Registry::default();
    let first = prepared(limit(&[], vec![], 1), Mode::Enforce);
    let limiter = registry.limiter(&first);
    assert!(granted(&limiter, &first, &caller(&first, "alice", &[]), "s", "x"));
    let same = prepared(limit(&[], vec![], 1), Mode::Enforce);
    let carried = registry.limiter(&same);
    drop(limiter);
    registry.tidy();
    assert!(!granted(&carried, &same, &caller(&same, "alice", &[]), "s", "x"));
    drop(carried);
    registry.tidy();
    assert!(registry.known.lock().buckets.is_empty());
}

#[test]
fn a_proxy_grants_its_share_of_the_burst_and_a_change_of_the_fleet_fills_no_bucket() {
    let registry = Registry::default();
    let prepared = prepared(limit(&[], vec![], 10), Mode::Enforce);
    let limiter = registry.limiter(&prepared);
    let alice = caller(&prepared, "alice", &[]);
    let grants =
        |limiter: &Limiter| (0..20).take_while(|_| granted(limiter, &prepared, &alice, "s", "x")).count();
    registry.share(3);
    assert_eq!(grants(&limiter), 3);
    // One token of ten is left: a lone proxy may spend it, and nothing more.
    registry.share(1);
    assert_eq!(grants(&limiter), 1);
    registry.share(40);
    assert_eq!(grants(&limiter), 0);
    let other = Registry::default();
    other.share(40);
    assert_eq!(grants(&other.limiter(&prepared)), 1);
}
