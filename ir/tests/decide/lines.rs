//! decisions.md 2 to 5, line by line.

use mcpmesh_ir::catalog::Hints;
use mcpmesh_ir::gateway::LevelKind;
use mcpmesh_ir::policy::{
    AccessRule, AnnotationMatch, Effect, IssuerMatch, Mode, Object, Reason, Subject, Target, To, decide,
};
use mcpmesh_ir::{GatewayId, ServerId};

use crate::world::{
    World, anonymous, gateway_id, key_holder, level, own_namespace, policy, policy_id, rule, server,
    token_holder,
};

fn to(rule: AccessRule, to: To) -> AccessRule {
    AccessRule { to, ..rule }
}

fn from(rule: AccessRule, subject: Subject) -> AccessRule {
    AccessRule { from: vec![subject], ..rule }
}

fn texts(items: &[&str]) -> Vec<String> {
    items.iter().map(|&item| item.to_owned()).collect()
}

/// One enforced policy with one rule at the gateway.
fn with(access: AccessRule) -> World {
    World::new(&["p"], &[], vec![policy("p", Mode::Enforce, vec![access])])
}

// 2. Default deny lives at the gateway's level.

#[test]
fn without_a_policy_nothing_is_allowed() {
    assert!(!World::new(&[], &[], vec![]).may(&anonymous(), "a", "t"));
}

#[test]
fn an_allow_at_the_gateway_lets_through_and_one_at_the_server_alone_does_not() {
    let open = || policy("p", Mode::Enforce, vec![rule(Effect::Allow)]);
    assert!(World::new(&["p"], &[], vec![open()]).may(&anonymous(), "a", "t"));
    assert!(!World::new(&[], &["p"], vec![open()]).may(&anonymous(), "a", "t"));
}

#[test]
fn a_server_level_with_allow_rules_needs_a_match_and_one_without_does_not() {
    let open = || policy("open", Mode::Enforce, vec![rule(Effect::Allow)]);
    let only = |tool: &str, effect| {
        let tools = To { tools: texts(&[tool]), ..To::default() };
        policy("own", Mode::Enforce, vec![to(rule(effect), tools)])
    };
    let allows = World::new(&["open"], &["own"], vec![open(), only("x", Effect::Allow)]);
    assert!(allows.may(&anonymous(), "a", "x") && !allows.may(&anonymous(), "a", "y"));
    let denies = World::new(&["open"], &["own"], vec![open(), only("x", Effect::Deny)]);
    assert!(!denies.may(&anonymous(), "a", "x") && denies.may(&anonymous(), "a", "y"));
}

#[test]
fn a_deny_wins_at_any_level() {
    let both = || policy("p", Mode::Enforce, vec![rule(Effect::Allow), rule(Effect::Deny)]);
    assert!(!World::new(&["p"], &[], vec![both()]).may(&anonymous(), "a", "t"));
    let policies = vec![
        policy("p", Mode::Enforce, vec![rule(Effect::Allow)]),
        policy("q", Mode::Enforce, vec![rule(Effect::Deny)]),
    ];
    assert!(!World::new(&["p"], &["q"], policies).may(&anonymous(), "a", "t"));
}

#[test]
fn an_audit_policy_is_recorded_and_never_answers() {
    let policies = vec![
        policy("p", Mode::Enforce, vec![rule(Effect::Allow)]),
        policy("q", Mode::Audit, vec![rule(Effect::Deny)]),
    ];
    let world = World::new(&["p", "q"], &[], policies);
    assert!(world.may(&anonymous(), "a", "t"));
    let prepared = world.prepare();
    let caller = prepared.caller(anonymous());
    let target = Target { server: &server("a"), method: "prompts/get", object: Object::Prompt { name: "t" } };
    let note = decide(&prepared, &caller, &target).audit;
    assert_eq!(note.map(|note| note.reason), Some(Reason::DeniedByRule));
    let alone = World::new(&["q"], &[], vec![policy("q", Mode::Audit, vec![rule(Effect::Allow)])]);
    assert!(!alone.may(&anonymous(), "a", "t"), "an Audit Allow lets nobody in");
}

#[test]
fn a_mesh_level_narrows_what_the_gateway_allows() {
    let x = To { tools: texts(&["x"]), ..To::default() };
    let policies = vec![
        policy("open", Mode::Enforce, vec![rule(Effect::Allow)]),
        policy("mesh", Mode::Enforce, vec![to(rule(Effect::Allow), x)]),
    ];
    let mut world = World::new(&["open"], &[], policies);
    world.gateway.levels.insert(0, level(LevelKind::Mesh, &["mesh"]));
    assert!(world.may(&anonymous(), "a", "x") && !world.may(&anonymous(), "a", "y"));
}

#[test]
fn a_closed_level_lets_nothing_pass_and_an_absent_policy_closes_its_level() {
    let mut world = with(rule(Effect::Allow));
    world.gateway.servers[0].levels = vec![level(LevelKind::Server, &["absent"])];
    assert!(!world.may(&anonymous(), "a", "t") && world.may(&anonymous(), "b", "t"));
    world.gateway.levels[0].closed = Some(policy_id("broken"));
    assert!(!world.may(&anonymous(), "b", "t"));
}

#[test]
fn a_policy_with_a_bad_glob_closes_its_level_unless_it_only_audits() {
    let bad = || to(rule(Effect::Deny), To { tools: texts(&["["]), ..To::default() });
    let good = || policy("open", Mode::Enforce, vec![rule(Effect::Allow)]);
    let enforced = vec![good(), policy("bad", Mode::Enforce, vec![bad()])];
    assert!(!World::new(&["open", "bad"], &[], enforced).may(&anonymous(), "a", "t"));
    let audited = vec![good(), policy("bad", Mode::Audit, vec![bad()])];
    assert!(World::new(&["open", "bad"], &[], audited).may(&anonymous(), "a", "t"));
}

#[test]
fn a_server_that_is_not_attached_is_unknown() {
    assert!(!with(rule(Effect::Allow)).may(&anonymous(), "elsewhere", "t"));
}

// 4. Identity carries its issuer.

#[test]
fn a_bare_user_or_group_matches_only_callers_of_a_gateway_of_that_namespace() {
    let stranger = GatewayId::new("other", "main");
    for subject in [
        Subject::User { name: "alice".to_owned(), issuer: own_namespace() },
        Subject::Group { name: "finance".to_owned(), issuer: own_namespace() },
        Subject::Authenticated { issuer: own_namespace() },
    ] {
        let world = with(from(rule(Effect::Allow), subject));
        assert!(world.may(&key_holder(gateway_id(), "alice", &["finance"]), "a", "t"));
        assert!(world.may(&token_holder("https://i.example", "alice", &["finance"]), "a", "t"));
        assert!(!world.may(&key_holder(stranger.clone(), "alice", &["finance"]), "a", "t"));
        assert!(!world.may(&anonymous(), "a", "t"));
    }
}

#[test]
fn an_issuer_matches_its_tokens_and_no_keys() {
    let issuer = IssuerMatch::Issuer("https://i.example".to_owned());
    let world = with(from(rule(Effect::Allow), Subject::User { name: "alice".to_owned(), issuer }));
    assert!(world.may(&token_holder("https://i.example", "alice", &[]), "a", "t"));
    assert!(!world.may(&token_holder("https://j.example", "alice", &[]), "a", "t"));
    assert!(!world.may(&token_holder("https://i.example", "bob", &[]), "a", "t"));
    assert!(!world.may(&key_holder(gateway_id(), "alice", &[]), "a", "t"));
}

/// decisions.md 4: naming the issuer trusts every gateway that may come; naming the gateway, too, trusts that one.
#[test]
fn an_issuer_at_a_gateway_matches_the_tokens_that_this_gateway_verified() {
    let issuer = || "https://i.example".to_owned();
    let mut foreign = token_holder("https://i.example", "alice", &[]);
    foreign.gateway = GatewayId::new("tenant-b", "gw");
    let user = |issuer| Subject::User { name: "alice".to_owned(), issuer };
    let anywhere = with(from(rule(Effect::Allow), user(IssuerMatch::Issuer(issuer()))));
    assert!(anywhere.may(&foreign, "a", "t"));
    let bare = with(from(rule(Effect::Allow), user(own_namespace())));
    assert!(
        !bare.may(&foreign, "a", "t"),
        "a rule without an issuer believes gateways of its namespace only"
    );
    let at =
        |gateway| with(from(rule(Effect::Allow), user(IssuerMatch::IssuerAt { issuer: issuer(), gateway })));
    assert!(!at(gateway_id()).may(&foreign, "a", "t"));
    assert!(at(foreign.gateway.clone()).may(&foreign, "a", "t"));
    let key = key_holder(foreign.gateway.clone(), "alice", &[]);
    assert!(!at(foreign.gateway).may(&key, "a", "t"));
}

#[test]
fn a_gateway_matches_its_keys_and_no_tokens() {
    let issuer = IssuerMatch::Gateway(gateway_id());
    let world = with(from(rule(Effect::Allow), Subject::Authenticated { issuer }));
    assert!(world.may(&key_holder(gateway_id(), "alice", &[]), "a", "t"));
    assert!(!world.may(&key_holder(GatewayId::new("team", "second"), "alice", &[]), "a", "t"));
    assert!(!world.may(&token_holder("https://i.example", "alice", &[]), "a", "t"));
}

#[test]
fn one_name_of_two_issuers_is_two_principals() {
    let by_key = key_holder(gateway_id(), "alice", &[]).principal();
    let by_token = token_holder("https://i.example", "alice", &[]).principal();
    assert_ne!(by_key, by_token);
}

// 5. What a rule matches.

const PROMPT: Object<'_> = Object::Prompt { name: "x" };
const RESOURCE: Object<'_> = Object::Resource { uri: "file:///x/y" };

#[test]
fn servers_and_objects_and_methods_must_all_match() {
    let world = with(to(
        rule(Effect::Allow),
        To {
            servers: texts(&["team/a"]),
            tools: texts(&["x"]),
            methods: texts(&["tools/call"]),
            ..To::default()
        },
    ));
    assert!(world.may(&anonymous(), "a", "x"));
    assert!(!world.may(&anonymous(), "a", "y"));
    assert!(!world.may(&anonymous(), "b", "x"));
    assert!(!world.may(&anonymous(), "other/a", "x"));
    let reads = with(to(rule(Effect::Allow), To { methods: texts(&["resources/read"]), ..To::default() }));
    assert!(!reads.may(&anonymous(), "a", "x"));
    assert!(reads.may_use(&anonymous(), "a", "resources/read", RESOURCE));
}

#[test]
fn without_objects_a_rule_speaks_of_all_three_kinds_and_with_one_kind_of_that_alone() {
    let all = with(rule(Effect::Allow));
    let tools = with(to(rule(Effect::Allow), To { tools: texts(&["*"]), ..To::default() }));
    for (method, object) in [("prompts/get", PROMPT), ("resources/read", RESOURCE)] {
        assert!(all.may_use(&anonymous(), "a", method, object));
        assert!(!tools.may_use(&anonymous(), "a", method, object));
    }
    let two = To { tools: texts(&["x"]), prompts: texts(&["x"]), ..To::default() };
    let two = with(to(rule(Effect::Allow), two));
    assert!(two.may(&anonymous(), "a", "x") && two.may_use(&anonymous(), "a", "prompts/get", PROMPT));
    assert!(!two.may_use(&anonymous(), "a", "resources/read", RESOURCE));
}

#[test]
fn completion_follows_from_the_object_that_it_names() {
    let prompts = To { prompts: texts(&["x"]), methods: texts(&["prompts/get"]), ..To::default() };
    let world = with(to(rule(Effect::Allow), prompts));
    assert!(world.may_use(&anonymous(), "a", "completion/complete", PROMPT));
    assert!(!world.may_use(&anonymous(), "a", "completion/complete", RESOURCE));
}

#[test]
fn a_star_stays_inside_its_side_of_a_server_name_and_crosses_slashes_in_a_uri() {
    let servers = |glob: &str| with(to(rule(Effect::Allow), To { servers: texts(&[glob]), ..To::default() }));
    assert!(
        servers("team/*").may(&anonymous(), "a", "x") && !servers("team/*").may(&anonymous(), "other/a", "x")
    );
    assert!(!servers("*").may(&anonymous(), "a", "x"));
    let uris = with(to(rule(Effect::Allow), To { resources: texts(&["file://*"]), ..To::default() }));
    assert!(uris.may_use(&anonymous(), "a", "resources/read", RESOURCE));
}

fn tool(pinned: Hints, claimed: Hints) -> Object<'static> {
    Object::Tool { name: "x", pinned, claimed }
}

fn read_only(value: bool) -> Hints {
    Hints { read_only_hint: Some(value), ..Hints::default() }
}

#[test]
fn in_an_allow_an_annotation_counts_only_when_it_is_pinned() {
    let annotations = AnnotationMatch { read_only: Some(true), ..AnnotationMatch::default() };
    let world = with(to(rule(Effect::Allow), To { annotations, ..To::default() }));
    let may = |pinned, claimed| world.may_use(&anonymous(), "a", "tools/call", tool(pinned, claimed));
    assert!(may(read_only(true), Hints::default()));
    assert!(may(read_only(true), read_only(false)));
    assert!(!may(Hints::default(), read_only(true)));
    assert!(!world.may_use(&anonymous(), "a", "prompts/get", PROMPT), "only tools have annotations");
}

#[test]
fn in_a_deny_what_the_server_claims_counts_where_nothing_is_pinned_and_silence_is_destructive() {
    let annotations = AnnotationMatch { destructive: Some(true), ..AnnotationMatch::default() };
    let deny = to(rule(Effect::Deny), To { annotations, ..To::default() });
    let world = World::new(&["p"], &[], vec![policy("p", Mode::Enforce, vec![rule(Effect::Allow), deny])]);
    let may = |pinned, claimed| world.may_use(&anonymous(), "a", "tools/call", tool(pinned, claimed));
    let destructive = |value| Hints { destructive_hint: Some(value), ..Hints::default() };
    assert!(!may(Hints::default(), Hints::default()));
    assert!(!may(Hints::default(), destructive(true)));
    assert!(may(Hints::default(), destructive(false)));
    assert!(may(destructive(false), destructive(true)));
    assert!(may(read_only(true), Hints::default()), "what only reads cannot destroy");
}

#[test]
fn a_decision_names_its_rule() {
    let world = with(rule(Effect::Allow));
    let prepared = world.prepare();
    let caller = prepared.caller(anonymous());
    let id = ServerId::new("team", "a");
    let decision = decide(&prepared, &caller, &Target { server: &id, method: "prompts/get", object: PROMPT });
    let named = decision.rule.map(|rule| (rule.policy.to_string(), rule.rule.map(str::to_owned), rule.level));
    assert_eq!(named, Some(("team/p".to_owned(), Some("rule".to_owned()), LevelKind::Gateway)));
}
