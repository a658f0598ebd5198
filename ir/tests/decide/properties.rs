//! What holds for every set of policies, judged for every caller and object of a small world.

use std::collections::BTreeMap;

use mcpmesh_ir::catalog::Hints;
use mcpmesh_ir::gateway::{Attachment, Level, LevelKind};
use mcpmesh_ir::policy::{
    AccessRule, AnnotationMatch, Dimension, Effect, Identity, IssuerMatch, Limit, Mode, Object, Policy,
    Prepared, Rate, Reason, Subject, Target, To, Verdict, decide,
};
use mcpmesh_ir::{GatewayId, PolicyId, ServerId};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::world::{World, anonymous, gateway_id, key_holder, own_namespace, policy_id, token_holder};

const POLICIES: [&str; 4] = ["p0", "p1", "p2", "p3"];

fn issuer() -> impl Strategy<Value = IssuerMatch> {
    select(vec![
        own_namespace(),
        IssuerMatch::Namespace("other".to_owned()),
        IssuerMatch::Gateway(gateway_id()),
        IssuerMatch::Issuer("https://i.example".to_owned()),
        IssuerMatch::IssuerAt { issuer: "https://i.example".to_owned(), gateway: gateway_id() },
    ])
}

fn subject() -> impl Strategy<Value = Subject> {
    prop_oneof![
        Just(Subject::Anyone {}),
        issuer().prop_map(|issuer| Subject::Authenticated { issuer }),
        (select(vec!["alice", "bob"]), issuer())
            .prop_map(|(name, issuer)| Subject::User { name: name.to_owned(), issuer }),
        (select(vec!["red", "blue"]), issuer())
            .prop_map(|(name, issuer)| Subject::Group { name: name.to_owned(), issuer }),
    ]
}

fn globs(choices: &[&str]) -> impl Strategy<Value = Vec<String>> + use<> {
    let choices: Vec<String> = choices.iter().map(|&choice| choice.to_owned()).collect();
    let some = vec(select(choices), 1..3);
    prop_oneof![3 => Just(Vec::new()), 1 => some]
}

fn hint() -> impl Strategy<Value = Option<bool>> {
    prop_oneof![4 => Just(None), 1 => any::<bool>().prop_map(Some)]
}

prop_compose! {
    fn object_match()(
        servers in globs(&["team/*", "*/a", "team/b"]),
        tools in globs(&["get_*", "*", "set"]),
        prompts in globs(&["*", "none"]),
        resources in globs(&["file://*"]),
        methods in globs(&["tools/call", "prompts/get"]),
        read_only in hint(),
        destructive in hint(),
    ) -> To {
        let annotations = AnnotationMatch { read_only, destructive, ..AnnotationMatch::default() };
        To { servers, tools, prompts, resources, methods, annotations }
    }
}

fn access() -> impl Strategy<Value = AccessRule> {
    let effect = prop_oneof![3 => Just(Effect::Allow), 1 => Just(Effect::Deny)];
    (effect, vec(subject(), 1..3), object_match()).prop_map(|(effect, from, to)| AccessRule {
        name: "rule".to_owned(),
        effect,
        from,
        to,
    })
}

fn policies() -> impl Strategy<Value = BTreeMap<PolicyId, Policy>> {
    let mode = prop_oneof![3 => Just(Mode::Enforce), 1 => Just(Mode::Audit)];
    vec((mode, vec(access(), 0..4)), POLICIES.len()).prop_map(|policies| {
        let named = POLICIES.iter().zip(policies);
        let policy = |(name, (mode, access)): (&&str, _)| {
            (policy_id(name), Policy { id: policy_id(name), mode, access, limits: Vec::new() })
        };
        named.map(policy).collect()
    })
}

fn some_policies() -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(POLICIES.to_vec(), 0..=POLICIES.len())
}

fn world() -> impl Strategy<Value = World> {
    (policies(), some_policies(), vec(option::of(some_policies()), 3)).prop_map(
        |(policies, gateway, servers)| {
            let mut world = World::new(&gateway, &[], policies.into_values().collect());
            for (attachment, names) in world.gateway.servers.iter_mut().zip(servers) {
                let own = names.map(|names| crate::world::level(LevelKind::Server, &names));
                attachment.levels = own.into_iter().collect();
            }
            world
        },
    )
}

/// A limit on everything, of whomever, by whatever.
fn limit() -> impl Strategy<Value = Limit> {
    let all = vec![Dimension::Principal, Dimension::Group, Dimension::Tool, Dimension::Server];
    let requests = Rate { count: 1, window_ms: 1000, burst: 1 };
    (vec(subject(), 0..4), subsequence(all, 0..=4)).prop_map(move |(from, per)| Limit {
        name: "limit".to_owned(),
        from,
        to: To::default(),
        per,
        requests,
    })
}

fn callers() -> Vec<Identity> {
    vec![
        anonymous(),
        Identity::anonymous(GatewayId::new("other", "main")),
        key_holder(gateway_id(), "alice", &["red"]),
        key_holder(gateway_id(), "bob", &["red", "blue"]),
        key_holder(GatewayId::new("other", "main"), "alice", &["red"]),
        token_holder("https://i.example", "alice", &[]),
        token_holder("https://j.example", "bob", &["blue"]),
    ]
}

fn objects() -> Vec<(&'static str, Object<'static>)> {
    let reads = Hints { read_only_hint: Some(true), ..Hints::default() };
    let tool = |name, pinned, claimed| ("tools/call", Object::Tool { name, pinned, claimed });
    vec![
        tool("get_a", Hints::default(), Hints::default()),
        tool("get_b", reads, Hints::default()),
        tool("set", Hints::default(), reads),
        ("prompts/get", Object::Prompt { name: "x" }),
        ("resources/read", Object::Resource { uri: "file:///x" }),
        ("completion/complete", Object::Prompt { name: "x" }),
    ]
}

/// Every caller's decision on every object, as verdicts and reasons.
fn judge(world: &World) -> Vec<(Verdict, Reason)> {
    judge_callers(world, &callers())
}

fn judge_callers(world: &World, callers: &[Identity]) -> Vec<(Verdict, Reason)> {
    let prepared: Prepared = world.prepare();
    let servers: Vec<&ServerId> = world.gateway.servers.iter().map(|attachment| &attachment.server).collect();
    let mut all = Vec::new();
    for identity in callers {
        let caller = prepared.caller(identity.clone());
        for server in &servers {
            for (method, object) in objects() {
                let decision = decide(&prepared, &caller, &Target { server, method, object });
                all.push((decision.verdict, decision.reason));
            }
        }
    }
    all
}

fn verdicts(world: &World) -> Vec<Verdict> {
    judge(world).into_iter().map(|(verdict, _)| verdict).collect()
}

/// No call that `less` lets pass is refused by `more`.
fn at_most(less: &World, more: &World) -> bool {
    let pairs = verdicts(less).into_iter().zip(verdicts(more));
    pairs.into_iter().all(|(less, more)| less == Verdict::Deny || more == Verdict::Allow)
}

fn each_level(world: &mut World, mut change: impl FnMut(&mut Level)) {
    let servers = world.gateway.servers.iter_mut().flat_map(|Attachment { levels, .. }| levels);
    world.gateway.levels.iter_mut().chain(servers).for_each(&mut change);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_servers_policies_only_take_away(world in world()) {
        let mut without = world.clone();
        without.gateway.servers.iter_mut().for_each(|attachment| attachment.levels.clear());
        prop_assert!(at_most(&world, &without));
    }

    #[test]
    fn a_level_more_only_takes_away(world in world(), names in some_policies()) {
        let mut more = world.clone();
        more.gateway.levels.insert(0, crate::world::level(LevelKind::Mesh, &names));
        prop_assert!(at_most(&more, &world));
    }

    #[test]
    fn another_deny_never_allows(world in world(), deny in access(), into in select(POLICIES.to_vec())) {
        let mut more = world.clone();
        if let Some(policy) = more.policies.get_mut(&policy_id(into)) {
            policy.access.push(AccessRule { effect: Effect::Deny, ..deny });
        }
        prop_assert!(at_most(&more, &world));
    }

    #[test]
    fn audit_policies_never_change_an_answer(world in world()) {
        let mut without = world.clone();
        without.policies.retain(|_, policy| policy.mode == Mode::Enforce);
        let kept = without.policies.clone();
        each_level(&mut without, |level| level.policies.retain(|id| kept.contains_key(id)));
        prop_assert_eq!(judge(&world), judge(&without));
    }

    #[test]
    fn the_order_of_rules_and_policies_never_changes_an_answer(world in world(), turn in 0usize..4) {
        let mut turned = world.clone();
        for policy in turned.policies.values_mut() {
            policy.access.reverse();
            let by = turn.min(policy.access.len());
            policy.access.rotate_left(by);
        }
        each_level(&mut turned, |level| level.policies.reverse());
        prop_assert_eq!(judge(&world), judge(&turned));
    }

    #[test]
    fn unauthenticated_callers_match_only_anyone(world in world()) {
        let mut bare = world.clone();
        for rule in bare.policies.values_mut().flat_map(|policy| &mut policy.access) {
            rule.from.retain(|subject| *subject == Subject::Anyone {});
        }
        let nobody = [anonymous(), Identity::anonymous(GatewayId::new("other", "main"))];
        prop_assert_eq!(judge_callers(&world, &nobody), judge_callers(&bare, &nobody));
    }

    #[test]
    fn prefixes_naming_and_listeners_never_change_an_answer(world in world(), prefix in "[a-z]{1,8}") {
        let mut renamed = world.clone();
        for (index, attachment) in renamed.gateway.servers.iter_mut().enumerate() {
            attachment.prefix = format!("{prefix}-{index}");
        }
        renamed.gateway.naming = mcpmesh_ir::gateway::Naming::OnConflict;
        prop_assert_eq!(judge(&world), judge(&renamed));
    }

    #[test]
    fn a_closed_level_is_a_deny_for_all_below_it(world in world()) {
        let mut closed = world.clone();
        closed.gateway.levels.iter_mut().for_each(|level| level.closed = Some(policy_id("broken")));
        prop_assert!(verdicts(&closed).into_iter().all(|verdict| verdict == Verdict::Deny));
    }

    #[test]
    fn a_policy_that_is_gone_never_allows(world in world(), lost in select(POLICIES.to_vec())) {
        let mut less = world.clone();
        less.policies.remove(&policy_id(lost));
        prop_assert!(at_most(&less, &world));
    }

    #[test]
    fn callers_of_one_class_get_the_same_answers(world in world()) {
        let prepared = world.prepare();
        let mut answers = BTreeMap::new();
        for identity in callers() {
            let class = prepared.caller(identity.clone()).class().to_vec();
            let answer = judge_callers(&world, &[identity]);
            prop_assert_eq!(answers.entry(class).or_insert_with(|| answer.clone()), &answer);
        }
    }

    #[test]
    fn whom_a_limit_means_has_a_bucket_and_nobody_else(limit in limit()) {
        // An Allow for the same callers says whom it means.
        let from = if limit.from.is_empty() { vec![Subject::Anyone {}] } else { limit.from.clone() };
        let same = AccessRule { from, ..crate::world::rule(Effect::Allow) };
        let policy = Policy { limits: vec![limit], ..crate::world::policy("p0", Mode::Enforce, vec![same]) };
        let world = World::new(&["p0"], &[], vec![policy]);
        let prepared = world.prepare();
        for identity in callers() {
            let caller = prepared.caller(identity);
            for Attachment { server, .. } in &world.gateway.servers {
                for (method, object) in objects() {
                    let target = Target { server, method, object };
                    let meant = decide(&prepared, &caller, &target).allowed();
                    prop_assert_eq!(prepared.charges(&caller, &target).next().is_some(), meant, "{:?}", caller);
                }
            }
        }
    }

    #[test]
    fn a_policy_survives_its_wire_form(world in world()) {
        for (id, policy) in &world.policies {
            let resource = mcpmesh_ir::Resource::new(id.to_string(), policy);
            let decoded = resource.and_then(|resource| resource.decode::<Policy>());
            prop_assert!(decoded.is_ok_and(|decoded| decoded == *policy));
        }
    }
}
