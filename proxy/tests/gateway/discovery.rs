//! What `server/discover`, `initialize` and lists say of a federation: whose instructions, what works, for how long.

use std::time::Duration;

use futures_util::FutureExt;
use mcpmesh_ir::policy::{Effect, To};
use mcpmesh_proxy::workers::Workers;
use serde_json::{Value, json};

use super::fake::{self, Catalogue, Fake, Speaks};
use super::harness::Gate;
use super::setup::{Setup, anyone, policy, rule, user};

/// A modern server with these instructions.
async fn instructed(text: impl Into<String>) -> Fake {
    let (fake, text) = (Fake::modern(&["echo"]).await, text.into());
    fake.hook(move |seen| {
        (seen.method() == "server/discover").then_some(())?;
        let said = json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
                          "capabilities": {"tools": {}}, "instructions": text});
        Some(async move { fake::result(&seen, said) }.boxed())
    });
    fake
}

/// What clients of both eras are told.
async fn instructions(gate: &Gate, owner: Option<&str>) -> Value {
    let modern = gate.modern(owner).ask("server/discover", json!({})).await.json();
    let legacy = gate.legacy(owner, "2025-11-25").await.initialize(&json!({})).await.json();
    let said = modern["result"]["instructions"].clone();
    assert_eq!(legacy["result"]["instructions"], said);
    said
}

#[tokio::test]
async fn instructions_stand_under_their_servers_names_for_those_who_may_use_something_of_it() {
    let fakes = [instructed("Be nice.\nAlways.").await, instructed("Of \u{202e}secrets").await];
    let only = |server: &str| To { servers: vec![format!("a/{server}")], ..To::default() };
    let mut setup = Setup::open(&[&fakes[0], &fakes[1]]).keys(&["alice", "bob"]);
    setup.policies = vec![policy(
        "rules",
        vec![
            rule("s0", Effect::Allow, anyone(), only("s0")),
            rule("s1", Effect::Allow, user("alice"), only("s1")),
        ],
    )];
    let gate = Gate::start(&setup).await;
    let everyones = "## s0\nBe nice.\nAlways.\n";
    assert_eq!(instructions(&gate, Some("alice")).await, format!("{everyones}## s1\nOf secrets\n"));
    for owner in [Some("bob"), None] {
        assert_eq!(instructions(&gate, owner).await, everyones, "{owner:?}");
    }
    let gate = Gate::start(&Setup::open(&[&fakes[0]])).await;
    assert_eq!(instructions(&gate, None).await, "Be nice.\nAlways.", "of the only server");
}

#[tokio::test]
async fn instructions_have_16_kib_at_most_and_are_never_cut_in_the_middle() {
    const MOST: usize = 16 * 1024;
    let heading = "## s0\n\n".len();
    let short = "## s2\nshort\n".len();
    for (first, second, shown) in [
        (MOST - heading, 1, [true, false, false]),
        // One that is too long takes no other's place.
        (MOST - heading - short, short, [true, false, true]),
        (MOST - heading + 1, 1, [false, true, true]),
    ] {
        let fakes = [
            instructed("1".repeat(first)).await,
            instructed("2".repeat(second)).await,
            instructed("short").await,
        ];
        let gate = Gate::start(&Setup::open(&[&fakes[0], &fakes[1], &fakes[2]])).await;
        let said = instructions(&gate, None).await;
        let said = said.as_str().unwrap();
        let texts = ["1".repeat(first), "2".repeat(second), "short".to_owned()];
        let parts = texts.iter().zip(shown).enumerate().filter(|(_, (_, shown))| *shown);
        let expected: String = parts.map(|(number, (text, _))| format!("## s{number}\n{text}\n")).collect();
        assert!(expected.len() <= MOST);
        assert_eq!(said, expected);
    }
}

#[tokio::test]
async fn subscribing_is_offered_where_it_is_honoured() {
    for (speaks, modern, legacy) in
        [(Speaks::Legacy, false, true), (Speaks::Modern, true, true), (Speaks::Both, true, true)]
    {
        let fake = Fake::start(speaks, Catalogue::tools(&[]).resources(&["file:///x"])).await;
        let gate = Gate::start(&Setup::open(&[&fake])).await;
        let uri = "mcpmesh://s0/file%3A%2F%2F%2Fx";
        let client = gate.modern(None);
        let offered = client.ask("server/discover", json!({})).await.json();
        let offered = &offered["result"]["capabilities"]["resources"];
        assert_eq!(offered.get("subscribe"), modern.then_some(Value::Bool(true)).as_ref(), "{speaks:?}");
        assert_eq!(offered["listChanged"], true);
        let wanted = json!({"notifications": {"resourceSubscriptions": [uri]}});
        let mut listen = client.open(1, "subscriptions/listen", wanted).await;
        let honoured = listen.expect("the acknowledgement").await["params"]["notifications"].clone();
        assert_eq!(honoured.get("resourceSubscriptions").is_some(), modern, "{speaks:?} {honoured}");
        let client = gate.legacy(None, "2025-11-25").await;
        let offered = client.initialize(&json!({})).await.json();
        let offered = &offered["result"]["capabilities"]["resources"];
        assert_eq!(offered.get("subscribe"), legacy.then_some(Value::Bool(true)).as_ref(), "{speaks:?}");
        let answered = client.ask("resources/subscribe", json!({"uri": uri})).await.json();
        assert_eq!(answered["result"].is_object(), legacy, "{speaks:?} {answered}");
    }
}

#[tokio::test]
async fn a_list_says_for_how_long_yet_it_is_fresh() {
    let fake = Fake::modern(&["echo"]).await;
    fake.hook(|seen| {
        let said = match seen.method() {
            "server/discover" => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
                                        "capabilities": {"tools": {}}, "ttlMs": 10_000, "cacheScope": "public"}),
            "tools/list" => json!({"resultType": "complete", "tools": [fake::tool("echo")], "ttlMs": 10_000,
                                   "cacheScope": "public"}),
            _ => return None,
        };
        Some(async move { fake::result(&seen, said) }.boxed())
    });
    let setup = Setup::open(&[&fake]);
    // Where the clock of the test is the proxy's.
    let gate = Gate::with(&setup, |options| options.workers = Workers::none()).await;
    let modern = gate.modern(None);
    modern.tools().await;
    let ttl = || async {
        let mut all = Vec::new();
        for method in ["tools/list", "server/discover"] {
            let answered = modern.ask(method, json!({})).await.json();
            assert_eq!(answered["result"]["cacheScope"], "private");
            all.push(answered["result"]["ttlMs"].as_u64().unwrap());
        }
        assert!(all[1] <= all[0], "{all:?}");
        all[1]
    };
    let first = ttl().await;
    // Steps after which the client's connection is not closed yet.
    for passed in [7_000, 14_000] {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(7)).await;
        tokio::time::resume();
        let left = ttl().await;
        assert!(left <= first.saturating_sub(passed), "{left} of {first} after {passed} ms");
    }
    assert_eq!(fake.of("tools/list").len(), 1, "the list was not read again");
}
