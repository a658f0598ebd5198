//! For any rules, callers and names: what is listed can be called, nothing else can, and no rename, prefix or era
//! changes a decision.

use std::collections::{BTreeMap, BTreeSet};

use mcpmesh_ir::gateway::Naming;
use mcpmesh_ir::policy::{AccessRule, Effect, IssuerMatch, Mode, Policy, Subject, To};
use mcpmesh_ir::server::ToolOverride;
use mcpmesh_ir::{PolicyId, ServerId};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use super::fake::{Catalogue, Fake, Speaks};
use super::harness::{Gate, until};
use super::setup::{Setup, gateway_id};

/// What two of the servers have; overlapping, with names that mimic prefixes.
const TOOLS: [&str; 5] = ["read", "write", "s1_read", "read_all", "x"];
const RENAMES: [&str; 4] = ["read", "write", "renamed", "s0_x"];
const CALLERS: [Option<&str>; 3] = [None, Some("alice"), Some("bob")];

fn subject() -> impl Strategy<Value = Subject> {
    let issuer = prop_oneof![
        Just(IssuerMatch::Gateway(gateway_id())),
        Just(IssuerMatch::Namespace("a".into())),
        Just(IssuerMatch::Namespace("b".into())),
    ];
    (0..4, issuer).prop_map(|(kind, issuer)| match kind {
        0 => Subject::Anyone {},
        1 => Subject::Authenticated { issuer },
        2 => Subject::User { name: "alice".into(), issuer },
        _ => Subject::User { name: "bob".into(), issuer },
    })
}

fn some_of(words: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop::sample::select(words).prop_map(str::to_owned), 0..3)
}

fn access() -> impl Strategy<Value = AccessRule> {
    let to = (
        some_of(&["a/s0", "a/s1", "a/*", "b/*"]),
        some_of(&["read", "r*", "*", "write", "s?_read", "renamed", "s0_read"]),
    );
    let effect = prop_oneof![3 => Just(Effect::Allow), 1 => Just(Effect::Deny)];
    (effect, prop::collection::vec(subject(), 1..3), to).prop_map(|(effect, from, (servers, tools))| {
        AccessRule { name: String::new(), effect, from, to: To { servers, tools, ..To::default() } }
    })
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let mode = prop_oneof![4 => Just(Mode::Enforce), 1 => Just(Mode::Audit)];
    prop::collection::vec((mode, prop::collection::vec(access(), 1..4)), 1..3).prop_map(|all| {
        all.into_iter()
            .enumerate()
            .map(|(index, (mode, mut access))| {
                for (rule, number) in access.iter_mut().zip(0..) {
                    rule.name = format!("r{number}");
                }
                Policy { id: PolicyId::new("a", format!("p{index}")), mode, access, limits: vec![] }
            })
            .collect()
    })
}

type Overrides = Vec<(usize, &'static str, &'static str)>;

fn overrides() -> impl Strategy<Value = Overrides> {
    prop::collection::vec(
        (0..2_usize, prop::sample::select(&TOOLS[..]), prop::sample::select(&RENAMES[..])),
        0..3,
    )
}

/// Which tools of which servers each caller can reach, by asking the servers.
async fn reached(gate: &Gate, fakes: &[Fake; 2], caller: Option<&str>) -> BTreeSet<(usize, String)> {
    let modern = gate.modern(caller);
    let legacy = gate.legacy(caller, "2025-11-25").await;
    let listed: BTreeSet<String> = modern.tools().await.into_iter().collect();
    assert_eq!(legacy.tools().await.into_iter().collect::<BTreeSet<_>>(), listed, "both eras list the same");
    // Every name that anything might answer to.
    let bases = || TOOLS.iter().chain(&RENAMES);
    let mut names: BTreeSet<String> = bases().map(|name| (*name).to_owned()).collect();
    names.extend(["s0", "s1"].iter().flat_map(|prefix| bases().map(move |name| format!("{prefix}_{name}"))));
    names.extend(listed.iter().cloned());
    let mut reached = BTreeMap::new();
    for name in names {
        let before = [fakes[0].calls().len(), fakes[1].calls().len()];
        let answers = [modern.call(&name, json!({})).await, legacy.call(&name, json!({})).await];
        let ok = answers.each_ref().map(|answer| answer.json()["result"].is_object());
        assert_eq!(ok[0], ok[1], "{name}: both eras decide the same");
        let mut of = Vec::new();
        for (server, fake) in fakes.iter().enumerate() {
            of.extend(
                fake.calls()[before[server]..]
                    .iter()
                    .map(|seen| (server, seen.body["params"]["name"].as_str().unwrap().to_owned())),
            );
        }
        assert_eq!(of.len(), if ok[0] { 2 } else { 0 }, "{name}: an error is never executed");
        if ok[0] {
            assert_eq!(of[0], of[1], "{name}: both eras lead to the same tool");
            reached.insert(name, of[0].clone());
        } else {
            assert!(!listed.contains(&name), "{name} is listed and cannot be called");
        }
    }
    let by_list: BTreeSet<_> = listed.iter().map(|name| reached[name].clone()).collect();
    assert_eq!(by_list.len(), listed.len(), "no tool is listed twice");
    // Another spelling may lead to a tool, never to one that is not listed.
    let all: BTreeSet<_> = reached.into_values().collect();
    assert_eq!(all, by_list);
    by_list
}

#[tokio::test]
async fn what_is_listed_can_be_called_and_the_reverse_under_any_rules_and_names() {
    let fakes = [
        Fake::start(Speaks::Both, Catalogue::tools(&TOOLS)).await,
        Fake::start(Speaks::Both, Catalogue::tools(&TOOLS[..3])).await,
    ];
    let plain = Setup::open(&[&fakes[0], &fakes[1]]).keys(&["alice", "bob"]);
    let gate = Gate::start(&plain).await;
    let mut servers = gate.proxy.servers();
    servers.wait_for(|all| all.iter().all(|one| one.tools > 0)).await.unwrap();
    let mut runner = TestRunner::new(Config::default());
    for _ in 0..12 {
        let (policies, overrides) = (policies(), overrides()).new_tree(&mut runner).unwrap().current();
        let mut first: Option<Vec<BTreeSet<(usize, String)>>> = None;
        for (naming, renamed) in [(Naming::Always, false), (Naming::Always, true), (Naming::OnConflict, true)]
        {
            let mut setup = plain.clone().naming(naming);
            setup.policies.clone_from(&policies);
            for (server, tool, rename) in overrides.iter().filter(|_| renamed) {
                let change = ToolOverride { rename: Some((*rename).to_owned()), ..ToolOverride::default() };
                setup.servers[*server].tools.overrides.insert((*tool).to_owned(), change);
            }
            assert!(gate.proxy.apply(vec![setup.snapshot()]).is_empty());
            until("the servers stay known", || gate.proxy.servers().borrow().iter().all(|one| one.tools > 0))
                .await;
            let mut all = Vec::new();
            for caller in CALLERS {
                all.push(reached(&gate, &fakes, caller).await);
            }
            // Two tools that are renamed to one name are nobody's: names can only take away.
            match &first {
                None => first = Some(all),
                Some(first) => {
                    for (mine, plain) in all.iter().zip(first) {
                        assert!(mine.is_subset(plain), "{policies:?} {overrides:?} {mine:?} {plain:?}");
                        let clash = overrides_clash(&overrides);
                        assert!(clash || mine == plain, "{policies:?} {overrides:?} {mine:?} {plain:?}");
                    }
                }
            }
        }
    }
    assert_eq!(plain.servers[0].id, ServerId::new("a", "s0"));
}

/// Whether the renames give one name to two tools of one server.
fn overrides_clash(overrides: &Overrides) -> bool {
    (0..2).any(|server| {
        let tools: &[&str] = if server == 0 { &TOOLS } else { &TOOLS[..3] };
        let renames: BTreeMap<_, _> = overrides
            .iter()
            .filter(|one| one.0 == server)
            .map(|(_, tool, rename)| (*tool, *rename))
            .collect();
        let names: BTreeSet<_> =
            tools.iter().map(|tool| renames.get(tool).copied().unwrap_or(tool)).collect();
        names.len() < tools.len()
    })
}
