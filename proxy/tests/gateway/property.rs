//! For any rules at any level, callers, hints and names: what is listed can be used, nothing else can, and no rename,
//! prefix or era changes a decision.

use std::collections::{BTreeMap, BTreeSet};

use mcpmesh_ir::catalog::Hints;
use mcpmesh_ir::gateway::{LevelKind, Naming};
use mcpmesh_ir::policy::{AccessRule, AnnotationMatch, Effect, IssuerMatch, Mode, Policy, Subject, To};
use mcpmesh_ir::server::ToolOverride;
use mcpmesh_ir::{PolicyId, ServerId};
use mcpmesh_proxy::mcp::uri;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use super::fake::{Catalogue, Fake, Speaks};
use super::harness::{Gate, soon};
use super::setup::{Setup, gateway_id, level};

/// What the two servers have, the second only the first half of it; with names that mimic prefixes.
const TOOLS: [&str; 6] = ["read", "write", "s1_read", "read_all", "x", "s0_write"];
const PROMPTS: [&str; 4] = ["read", "sum", "s1_read", "x"];
const RESOURCES: [&str; 4] = ["file:///a", "file:///b c", "other://x?y=1", "mcpmesh://s1/file%3A%2F%2F%2Fa"];
const RENAMES: [&str; 4] = ["read", "write", "renamed", "s0_x"];
const CALLERS: [Option<&str>; 3] = [None, Some("alice"), Some("bob")];

fn subject() -> impl Strategy<Value = Subject> {
    let issuer = prop_oneof![
        Just(IssuerMatch::Gateway(gateway_id())),
        Just(IssuerMatch::Namespace("a".into())),
        Just(IssuerMatch::Namespace("b".into())),
    ];
    let name = prop_oneof![Just("alice"), Just("bob"), Just("staff")].prop_map(str::to_owned);
    (0..5, name, issuer).prop_map(|(kind, name, issuer)| match kind {
        0 | 1 => Subject::Anyone {},
        2 => Subject::Authenticated { issuer },
        3 => Subject::User { name, issuer },
        _ => Subject::Group { name, issuer },
    })
}

fn some_of(words: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    prop_oneof![
        4 => Just(vec![]),
        1 => prop::collection::vec(prop::sample::select(words).prop_map(str::to_owned), 1..3),
    ]
}

fn said() -> impl Strategy<Value = Option<bool>> {
    prop_oneof![16 => Just(None), 1 => any::<bool>().prop_map(Some)]
}

fn to() -> impl Strategy<Value = To> {
    (
        some_of(&["a/s0", "a/s1", "a/*", "b/*"]),
        some_of(&["read", "r*", "*", "write", "s?_read", "renamed", "s0_read"]),
        some_of(&["read", "*", "s1_*", "sum"]),
        some_of(&["file:///a", "file:**", "**", "other://x*"]),
        some_of(&["tools/call", "prompts/get", "resources/read", "completion/complete"]),
        (said(), said()),
    )
        .prop_map(|(servers, tools, prompts, resources, methods, (read_only, destructive))| {
            let annotations = AnnotationMatch { read_only, destructive, ..AnnotationMatch::default() };
            To { servers, tools, prompts, resources, methods, annotations }
        })
}

fn policies(prefix: &'static str, most: usize) -> impl Strategy<Value = Vec<Policy>> {
    let effect = prop_oneof![5 => Just(Effect::Allow), 1 => Just(Effect::Deny)];
    let rule = (effect, prop::collection::vec(subject(), 1..3), to());
    let mode = prop_oneof![8 => Just(Mode::Enforce), 1 => Just(Mode::Audit)];
    let policy = (mode, prop::collection::vec(rule, 1..4));
    prop::collection::vec(policy, 0..=most).prop_map(move |all| {
        all.into_iter()
            .enumerate()
            .map(|(index, (mode, rules))| {
                let access = rules.into_iter().enumerate().map(|(number, (effect, from, to))| AccessRule {
                    name: format!("r{number}"),
                    effect,
                    from,
                    to,
                });
                let id = PolicyId::new("a", format!("{prefix}{index}"));
                Policy { id, mode, access: access.collect(), limits: vec![] }
            })
            .collect()
    })
}

type Renames = BTreeMap<(usize, &'static str), &'static str>;

/// One configuration, and the caller who is tried.
#[derive(Debug, Clone)]
struct Case {
    mesh: Vec<Policy>,
    gateway: Vec<Policy>,
    server: Vec<Policy>,
    pinned: BTreeMap<(usize, &'static str), Hints>,
    renames: Renames,
    naming: Naming,
    caller: Option<&'static str>,
}

fn case() -> impl Strategy<Value = Case> {
    let tool = || (0..2_usize, prop::sample::select(&TOOLS[..]));
    let hints = (said(), said()).prop_map(|(read_only_hint, destructive_hint)| Hints {
        read_only_hint,
        destructive_hint,
        ..Hints::default()
    });
    (
        policies("mesh", 1),
        policies("gateway", 2).prop_filter("a gateway that lets something through", |all| !all.is_empty()),
        policies("server", 1),
        prop::collection::btree_map(tool(), hints, 0..3),
        prop::collection::btree_map(tool(), prop::sample::select(&RENAMES[..]), 0..3),
        prop_oneof![Just(Naming::Always), Just(Naming::OnConflict)],
        prop::sample::select(&CALLERS[..]),
    )
        .prop_map(|(mesh, gateway, server, pinned, renames, naming, caller)| Case {
            mesh,
            gateway,
            server,
            pinned,
            renames,
            naming,
            caller,
        })
}

impl Case {
    /// The configuration, with its own names or with those that the servers give.
    fn setup(&self, base: &Setup, renamed: bool) -> Setup {
        let mut setup = base.clone().naming(if renamed { self.naming } else { Naming::Always });
        setup.mesh.clone_from(&self.mesh);
        setup.policies.clone_from(&self.gateway);
        setup.elsewhere.clone_from(&self.server);
        if !self.server.is_empty() {
            setup.server_levels.insert("s0".into(), vec![level(LevelKind::Server, &self.server)]);
        }
        let mut change = |(server, tool): (usize, &str), change: &dyn Fn(&mut ToolOverride)| {
            change(setup.servers[server].tools.overrides.entry(tool.to_owned()).or_default());
        };
        for (tool, hints) in &self.pinned {
            change(*tool, &|one| one.annotations = *hints);
        }
        for (tool, name) in self.renames.iter().filter(|_| renamed) {
            change(*tool, &|one| one.rename = Some((*name).to_owned()));
        }
        setup
    }

    /// Whether the renames give one name to two tools of one server: both are nobody's then.
    fn clashes(&self) -> bool {
        (0..2).any(|server| {
            let tools = has(server, &TOOLS);
            let names: BTreeSet<_> = tools
                .iter()
                .map(|tool| self.renames.get(&(server, *tool)).copied().unwrap_or(tool))
                .collect();
            names.len() < tools.len()
        })
    }
}

/// What a server has of all.
fn has<'a>(server: usize, all: &'a [&'static str]) -> &'a [&'static str] {
    if server == 0 { all } else { &all[..all.len() / 2] }
}

fn catalogue(server: usize) -> Catalogue {
    let mut catalogue = Catalogue::tools(has(server, &TOOLS))
        .prompts(has(server, &PROMPTS))
        .resources(has(server, &RESOURCES));
    catalogue.tools[0]["annotations"] = json!({"readOnlyHint": true});
    catalogue.tools[1]["annotations"] = json!({"destructiveHint": false});
    catalogue
}

/// One kind of object: how it is listed, how it is used.
#[derive(Debug)]
struct Kind {
    list: &'static str,
    member: &'static str,
    uses: &'static str,
    key: &'static str,
    objects: &'static [&'static str],
}

const KINDS: [Kind; 3] = [
    Kind { list: "tools/list", member: "tools", uses: "tools/call", key: "name", objects: &TOOLS },
    Kind { list: "prompts/list", member: "prompts", uses: "prompts/get", key: "name", objects: &PROMPTS },
    Kind {
        list: "resources/list",
        member: "resources",
        uses: "resources/read",
        key: "uri",
        objects: &RESOURCES,
    },
];

impl Kind {
    /// Every name that anything might answer to, and those that are listed.
    fn names(&self, listed: &BTreeSet<String>) -> BTreeSet<String> {
        let mut names = listed.clone();
        if self.key == "uri" {
            names.extend(self.objects.iter().map(|uri| (*uri).to_owned()));
            for (server, prefix) in ["s0", "s1"].iter().enumerate() {
                // A server may have more than it lists, and be read by rule; what it does list is what counts here.
                names.extend(has(server, self.objects).iter().map(|uri| uri::wrap(prefix, uri)));
            }
        } else {
            let bases = || self.objects.iter().chain(&RENAMES);
            names.extend(bases().map(|name| (*name).to_owned()));
            names.extend(
                ["s0", "s1"].iter().flat_map(|prefix| bases().map(move |name| format!("{prefix}_{name}"))),
            );
        }
        names
    }
}

/// Where a name led: which server's which object.
type Place = (usize, String);

/// Which objects of which servers a caller can reach, by asking the servers: `(kind, server, its own name for it)`.
async fn reached(gate: &Gate, fakes: &[Fake; 2], caller: Option<&str>) -> BTreeSet<(&'static str, Place)> {
    let modern = gate.modern(caller);
    let legacy = gate.legacy(caller, "2025-11-25").await;
    let mut all = BTreeSet::new();
    for kind in &KINDS {
        let names = |list: Vec<String>| list.into_iter().collect::<BTreeSet<_>>();
        let listed = names(modern.ask(kind.list, json!({})).await.names(kind.member, kind.key));
        let by_legacy = names(legacy.ask(kind.list, json!({})).await.names(kind.member, kind.key));
        assert_eq!(by_legacy, listed, "both eras list the same");
        let mut places: BTreeMap<String, Place> = BTreeMap::new();
        for (number, name) in kind.names(&listed).into_iter().enumerate() {
            fakes.iter().for_each(|fake| drop(fake.take()));
            let params = json!({kind.key: name});
            let answered = if number % 2 == 0 {
                modern.ask(kind.uses, params).await
            } else {
                legacy.ask(kind.uses, params).await
            };
            let place = asked(fakes, kind);
            assert_eq!(place.is_some(), answered.json()["result"].is_object(), "{name}: {answered:?}");
            assert!(place.is_some() || !listed.contains(&name), "{name} is listed and cannot be used");
            places.extend(place.map(|place| (name, place)));
        }
        let by_list: BTreeSet<_> = listed.iter().map(|name| places[name].clone()).collect();
        assert_eq!(by_list.len(), listed.len(), "nothing is listed twice");
        // Another spelling may lead to an object, never to one that is not listed.
        assert_eq!(places.into_values().collect::<BTreeSet<_>>(), by_list, "{kind:?}");
        all.extend(by_list.into_iter().map(|place| (kind.list, place)));
    }
    all
}

/// The one object that was asked of the servers since the last look.
fn asked(fakes: &[Fake; 2], kind: &Kind) -> Option<Place> {
    let mut places = fakes.iter().enumerate().flat_map(|(server, fake)| {
        let seen = fake.take().into_iter().filter(|seen| seen.method() == kind.uses);
        seen.map(move |seen| (server, seen.body["params"][kind.key].as_str().unwrap_or_default().to_owned()))
    });
    let place = places.next();
    assert_eq!(places.next(), None, "one request reaches one object");
    place
}

async fn known(gate: &Gate) {
    let mut servers = gate.proxy.servers();
    let known = servers.wait_for(|all| all.len() == 2 && all.iter().all(|one| one.tools > 0));
    soon("the servers are known", known).await.unwrap();
}

async fn holds(gate: &Gate, fakes: &[Fake; 2], base: &Setup, case: &Case) {
    let mut reach = Vec::new();
    for renamed in [false, true] {
        assert!(gate.proxy.apply(vec![case.setup(base, renamed).snapshot()]).is_empty());
        known(gate).await;
        reach.push(reached(gate, fakes, case.caller).await);
    }
    // Two tools that are renamed to one name are nobody's: names can only take away.
    assert!(reach[1].is_subset(&reach[0]), "{reach:?}");
    assert!(case.clashes() || reach[0] == reach[1], "{reach:?}");
}

#[test]
fn what_is_listed_can_be_used_and_the_reverse_under_any_rules_and_names() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (gate, fakes, base) = runtime.block_on(async {
        let fakes = [0, 1].map(|server| Fake::start(Speaks::Both, catalogue(server)));
        let [first, second] = fakes;
        let fakes = [first.await, second.await];
        let mut base = Setup::open(&[&fakes[0], &fakes[1]]).keys(&["alice", "bob"]);
        base.keys[0].groups = vec!["staff".to_owned()];
        let gate = Gate::start(&base).await;
        assert_eq!(base.servers[0].id, ServerId::new("a", "s0"));
        (gate, fakes, base)
    });
    let mut runner = TestRunner::new(Config { cases: 96, failure_persistence: None, ..Config::default() });
    let found = runner.run(&case(), |case| {
        runtime.block_on(holds(&gate, &fakes, &base, &case));
        Ok(())
    });
    found.unwrap();
}
