//! Changes of configuration under traffic.

use mcpmesh_ir::PolicyId;
use mcpmesh_ir::gateway::{Anonymous, LevelKind};
use mcpmesh_ir::policy::{Effect, To};
use serde_json::json;

use super::fake::{Catalogue, Fake, Speaks};
use super::harness::{Gate, soon, until};
use super::setup::{Setup, anyone, level, policy, rule, tools};

#[tokio::test]
async fn no_request_fails_while_configurations_change() {
    let fakes = [
        Fake::start(Speaks::Both, Catalogue::tools(&["echo"])).await,
        Fake::start(Speaks::Modern, Catalogue::tools(&["echo"])).await,
        Fake::start(Speaks::Legacy, Catalogue::tools(&["echo"])).await,
    ];
    let all: Vec<&Fake> = fakes.iter().collect();
    let full = Setup::open(&all).keys(&["alice"]);
    let gate = Gate::start(&full).await;
    assert_eq!(gate.modern(None).tools().await.len(), 3);
    let legacy = gate.legacy(Some("alice"), "2025-11-25").await;
    // The third server comes and goes, limits and timeouts of others change.
    let mut fewer = full.clone();
    fewer.servers.pop();
    let mut slower = full.clone();
    slower.servers[1].timeouts.total_ms += 1;
    slower.policies.push(policy("more", vec![rule("x", Effect::Deny, anyone(), tools(&["nothing"]))]));
    let configurations = [fewer, full.clone(), slower, full];
    let changing = async {
        for round in 0..40 {
            assert!(gate.proxy.apply(vec![configurations[round % 4].snapshot()]).is_empty());
            // One list a configuration: the change is in force and has been used.
            gate.modern(None).ask("tools/list", json!({})).await;
        }
    };
    let calling = (0..6).map(|worker| {
        let (gate, legacy) = (&gate, &legacy);
        async move {
            for call in 0..60 {
                let name = if call % 2 == 0 { "s0_echo" } else { "s1_echo" };
                let arguments = json!({"n": call});
                let answered = if worker % 2 == 0 {
                    gate.modern(Some("alice")).call(name, arguments.clone()).await
                } else {
                    let params = json!({"name": name, "arguments": arguments});
                    legacy.ask_as(worker * 1000 + call, "tools/call", params).await
                };
                let json = answered.json();
                assert_eq!(
                    json["result"]["content"][0]["text"],
                    arguments.to_string(),
                    "{worker} {call} {json}"
                );
            }
        }
    });
    soon("all calls", async { futures_util::join!(changing, futures_util::future::join_all(calling)) }).await;
}

#[tokio::test]
async fn a_revoked_key_loses_its_sessions_streams_and_listens_at_once() {
    let fake = Fake::start(Speaks::Both, Catalogue::tools(&["echo"])).await;
    let mut setup = Setup::open(&[&fake]).keys(&["alice", "bob"]);
    setup.anonymous = Anonymous::Deny;
    let gate = Gate::start(&setup).await;
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let mut opened = Vec::new();
    for owner in ["alice", "bob"] {
        let legacy = gate.legacy(Some(owner), "2025-11-25").await;
        assert_eq!(legacy.call("s0_echo", json!({})).await.status, 200);
        let stream = legacy.get(None).await;
        let mut listen = gate.modern(Some(owner)).open(owner, "subscriptions/listen", wanted.clone()).await;
        listen.expect("the acknowledgement").await;
        opened.push((legacy, stream, listen));
    }
    let mut without = setup.clone();
    without.keys.remove(0);
    assert!(gate.proxy.apply(vec![without.snapshot()]).is_empty());
    let (bob, mut bobs_stream, mut bobs_listen) = opened.pop().unwrap();
    let (alice, mut stream, mut listen) = opened.pop().unwrap();
    assert!(stream.next().await.is_none());
    let last = listen.expect("the listen's result").await;
    assert_eq!(last["id"], "alice");
    assert!(listen.next().await.is_none());
    assert_eq!(alice.call("s0_echo", json!({})).await.status, 401);
    assert_eq!(gate.modern(Some("alice")).call("s0_echo", json!({})).await.status, 401);
    assert_eq!(bob.call("s0_echo", json!({})).await.status, 200);
    // The key comes back, its sessions don't.
    assert!(gate.proxy.apply(vec![setup.snapshot()]).is_empty());
    assert_eq!(alice.call("s0_echo", json!({})).await.status, 404);
    fake.set(Catalogue::tools(&["echo", "b"]));
    fake.push(json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
    assert_eq!(bobs_stream.expect("the change").await["method"], "notifications/tools/list_changed");
    assert_eq!(bobs_listen.expect("the change").await["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn a_key_that_changes_hands_takes_nothing_along() {
    let fake = Fake::start(Speaks::Both, Catalogue::tools(&["echo"])).await;
    let setup = Setup::open(&[&fake]).keys(&["alice"]);
    let gate = Gate::start(&setup).await;
    let legacy = gate.legacy(Some("alice"), "2025-11-25").await;
    let mut stream = legacy.get(None).await;
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let mut listen = gate.modern(Some("alice")).open(1, "subscriptions/listen", wanted).await;
    listen.expect("the acknowledgement").await;
    let mut changed = setup.clone();
    changed.keys[0].owner = "mallory".into();
    assert!(gate.proxy.apply(vec![changed.snapshot()]).is_empty());
    assert_eq!(legacy.call("s0_echo", json!({})).await.status, 404);
    assert!(stream.next().await.is_none());
    assert_eq!(listen.expect("the listen's result").await["id"], 1);
}

#[tokio::test]
async fn a_policy_that_cannot_be_understood_closes_what_it_guards_and_nothing_else() {
    let fakes = [Fake::modern(&["echo"]).await, Fake::modern(&["echo"]).await];
    let all: Vec<&Fake> = fakes.iter().collect();
    let guard = policy("guard", vec![rule("x", Effect::Deny, anyone(), tools(&["nothing"]))]);
    let mut setup = Setup::open(&all);
    let good = setup.snapshot();
    // At one server's level.
    setup.elsewhere.push(guard.clone());
    setup.server_levels.insert("s0".into(), vec![level(LevelKind::Server, std::slice::from_ref(&guard))]);
    let mut snapshot = setup.snapshot();
    let gate = Gate::start(&Setup::open(&all)).await;
    let modern = gate.modern(None);
    assert_eq!(modern.tools().await, ["s0_echo", "s1_echo"]);
    let legacy = gate.legacy(None, "2025-11-25").await;
    let mut stream = legacy.get(None).await;
    assert!(gate.proxy.apply(vec![snapshot.clone()]).is_empty());
    assert_eq!(modern.tools().await, ["s0_echo", "s1_echo"]);
    for resource in snapshot.resources.iter_mut().filter(|one| one.name == "a/guard") {
        resource.requires.push("a-feature-of-tomorrow".into());
    }
    let rejected = gate.proxy.apply(vec![snapshot]);
    assert!(rejected.iter().any(|one| one.name == "a/guard"), "{rejected:?}");
    assert_eq!(modern.tools().await, ["s1_echo"]);
    assert_eq!(modern.call("s0_echo", json!({})).await.code(), -32602);
    assert_eq!(legacy.call("s0_echo", json!({})).await.code(), -32602);
    assert_eq!(modern.call("s1_echo", json!({})).await.status, 200);
    assert_eq!(stream.expect("the change").await["method"], "notifications/tools/list_changed");
    assert_eq!(fakes[0].calls().len(), 0);
    // At the gateway's level: everything.
    let mut closed = Setup::open(&all).policy(guard.clone());
    closed.spoiled = Some(guard.id);
    assert!(!gate.proxy.apply(vec![closed.snapshot()]).is_empty());
    assert!(modern.tools().await.is_empty());
    // The only policy that allows anything is rejected: nothing is allowed.
    let mut none = Setup::open(&all);
    none.spoiled = Some(PolicyId::new("a", "open"));
    assert!(!gate.proxy.apply(vec![none.snapshot()]).is_empty());
    assert!(modern.tools().await.is_empty());
    assert!(gate.proxy.apply(vec![good]).is_empty());
    assert_eq!(modern.tools().await, ["s0_echo", "s1_echo"]);
}

#[tokio::test]
async fn a_resource_that_is_no_longer_allowed_is_no_longer_told_of() {
    let uri = "mcpmesh://s0/file%3A%2F%2F%2Fa";
    let updated = |uri: &str, round: usize| {
        let params = json!({"uri": uri, "round": round});
        json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params})
    };
    let catalogue = Catalogue::tools(&["echo"]).resources(&["file:///a", "file:///b", "file:///never"]);
    for speaks in [Speaks::Modern, Speaks::Legacy] {
        let fake = Fake::start(speaks, catalogue.clone()).await;
        let never = rule(
            "never",
            Effect::Deny,
            anyone(),
            To { resources: vec!["file:///never".into()], ..To::default() },
        );
        let setup = Setup::open(&[&fake]).policy(policy("never", vec![never]));
        let gate = Gate::start(&setup).await;
        let b = "mcpmesh://s0/file%3A%2F%2F%2Fb";
        let mut told = if speaks == Speaks::Modern {
            let wanted = json!({"notifications": {"resourceSubscriptions": [uri, b]}});
            let mut listen = gate.modern(None).open(1, "subscriptions/listen", wanted).await;
            listen.expect("the acknowledgement").await;
            listen
        } else {
            let legacy = gate.legacy(None, "2025-11-25").await;
            for uri in [uri, b] {
                assert!(
                    legacy.ask("resources/subscribe", json!({"uri": uri})).await.json()["result"].is_object()
                );
            }
            legacy.get(None).await
        };
        // A modern server is listened to for its lists and for the client; a session has one stream for all.
        let streams = if speaks == Speaks::Modern { 2 } else { 1 };
        until("the proxy listens", || fake.listeners() >= streams).await;
        // A resource that this caller may not even know of is never told, whatever a server says.
        fake.push(updated("file:///never", 1));
        fake.push(updated("file:///a", 1));
        assert_eq!(told.expect("the update").await["params"]["uri"], uri);
        let mut closed = setup.clone();
        closed.policies.push(policy(
            "hide",
            vec![rule(
                "a",
                Effect::Deny,
                anyone(),
                To { resources: vec!["file:///a".into()], ..To::default() },
            )],
        ));
        assert!(gate.proxy.apply(vec![closed.snapshot()]).is_empty());
        let list = gate.modern(None).ask("resources/list", json!({})).await.names("resources", "uri");
        assert_eq!(list, [b]);
        fake.push(updated("file:///a", 2));
        fake.push(updated("file:///b", 2));
        loop {
            let next = told.expect("the other update").await;
            if next["params"]["uri"] == b {
                break;
            }
            // The first update may come in more than one of the server's sessions.
            assert_ne!(next["params"]["round"], 2, "{speaks:?} {next}");
            assert!(!next.to_string().contains("never"), "{speaks:?} {next}");
        }
    }
}
