//! `resources/subscribe` of legacy clients: at servers of either era, and when those go away and come back.

use std::sync::Arc;

use futures_util::FutureExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use super::fake::{self, Catalogue, Fake, Seen, Speaks, data, fed};
use super::harness::{Gate, until};
use super::setup::Setup;

fn uri(name: &str) -> String {
    format!("mcpmesh://s0/file%3A%2F%2F%2F{name}")
}

fn updated(name: &str) -> String {
    let params = json!({"uri": format!("file:///{name}")});
    data(&json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params}))
}

fn session(seen: &Seen) -> String {
    seen.header("mcp-session-id").unwrap_or_default().to_owned()
}

/// Says something on a stream.
type Feed = UnboundedSender<Result<String, ()>>;

/// What a legacy server keeps of its sessions.
#[derive(Default)]
struct Memory {
    /// The streams of sessions, by their ids.
    streams: Vec<(String, Feed)>,
    forgotten: Vec<String>,
}

/// A legacy server whose streams the test feeds, and which forgets sessions.
async fn server() -> (Fake, Arc<Mutex<Memory>>) {
    let catalogue = Catalogue::default().resources(&["file:///a", "file:///b", "file:///c"]);
    let fake = Fake::start(Speaks::Legacy, catalogue).await;
    let memory: Arc<Mutex<Memory>> = Arc::default();
    let kept = Arc::clone(&memory);
    fake.hook(move |seen| {
        let mut memory = kept.lock();
        let answer = if memory.forgotten.contains(&session(&seen)) {
            fake::status(404, "")
        } else if seen.verb == "GET" {
            let (feed, body) = fed();
            memory.streams.push((session(&seen), feed));
            fake::event_stream(body)
        } else {
            return None;
        };
        Some(async { answer }.boxed())
    });
    (fake, memory)
}

fn subscribed(fake: &Fake) -> Vec<(String, Value)> {
    let seen = fake.of("resources/subscribe");
    seen.iter().map(|seen| (session(seen), seen.body["params"]["uri"].clone())).collect()
}

#[tokio::test]
async fn a_subscription_outlives_the_session_of_its_server_and_a_broken_stream() {
    for forgets in [true, false] {
        let (fake, memory) = server().await;
        let gate = Gate::start(&Setup::open(&[&fake])).await;
        let legacy = gate.legacy(None, "2025-11-25").await;
        for (method, name) in
            [("subscribe", "a"), ("subscribe", "b"), ("subscribe", "c"), ("unsubscribe", "b")]
        {
            let answered = legacy.ask(&format!("resources/{method}"), json!({"uri": uri(name)})).await;
            assert!(answered.json()["result"].is_object(), "{answered:?}");
        }
        let first = subscribed(&fake)[0].0.clone();
        until("its stream is open", || memory.lock().streams.iter().any(|(id, _)| *id == first)).await;
        let mut told = legacy.get(None).await;
        {
            let mut memory = memory.lock();
            let ids: Vec<_> = memory.streams.drain(..).map(|(id, _)| id).collect();
            if forgets {
                memory.forgotten = ids;
            }
        }
        // Nobody calls: a client that only listens is told, too.
        for name in ["a", "c"] {
            assert_eq!(told.expect("what may have been missed").await["params"]["uri"], uri(name));
        }
        let again = subscribed(&fake).split_off(3);
        let second = again[0].0.clone();
        assert_eq!(forgets, first != second);
        assert_eq!(again, [(second.clone(), json!("file:///a")), (second.clone(), json!("file:///c"))]);
        until("its stream is open", || memory.lock().streams.iter().any(|(id, _)| *id == second)).await;
        {
            let memory = memory.lock();
            let (_, feed) = memory.streams.iter().rfind(|(id, _)| *id == second).unwrap();
            feed.send(Ok(updated("b"))).unwrap();
            feed.send(Ok(updated("c"))).unwrap();
        }
        assert_eq!(told.expect("the update").await["params"]["uri"], uri("c"));
        assert_eq!(subscribed(&fake).len(), 5, "once is enough");
    }
}

#[tokio::test]
async fn a_legacy_client_subscribes_at_a_modern_server_as_at_any_other() {
    let catalogue = Catalogue::default().resources(&["file:///a", "file:///b", "file:///c"]);
    let fake = Fake::start(Speaks::Modern, catalogue).await;
    let ended: Arc<Mutex<Vec<Feed>>> = Arc::default();
    let streams = Arc::clone(&ended);
    fake.hook(move |seen| {
        let uris = &seen.body["params"]["notifications"]["resourceSubscriptions"];
        let uris: Vec<_> = uris.as_array()?.iter().filter(|uri| *uri != "file:///b").cloned().collect();
        let meta = json!({"io.modelcontextprotocol/subscriptionId": seen.body["id"]});
        let params = json!({"_meta": meta, "notifications": {"resourceSubscriptions": uris}});
        let method = "notifications/subscriptions/acknowledged";
        let (feed, body) = fed();
        feed.send(Ok(data(&json!({"jsonrpc": "2.0", "method": method, "params": params})))).unwrap();
        streams.lock().push(feed);
        Some(async { fake::event_stream(body) }.boxed())
    });
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let (one, other) = (gate.legacy(None, "2025-11-25").await, gate.legacy(None, "2025-06-18").await);
    for (legacy, name) in [(&one, "a"), (&one, "c"), (&other, "a")] {
        let answered = legacy.ask("resources/subscribe", json!({"uri": uri(name)})).await;
        assert_eq!(answered.json()["result"], json!({}), "{answered:?}");
    }
    let refused = one.ask("resources/subscribe", json!({"uri": uri("b")})).await;
    assert_eq!(refused.code(), -32602, "what the server does not confirm: {refused:?}");
    assert!(fake.of("resources/subscribe").is_empty(), "a modern server does not know the method");
    let (mut ones, mut others) = (one.get(None).await, other.get(None).await);
    let say = |name: &str| ended.lock().last().unwrap().send(Ok(updated(name))).unwrap();
    for name in ["b", "c", "a"] {
        say(name);
    }
    assert_eq!(ones.expect("the update").await["params"]["uri"], uri("c"));
    assert_eq!(ones.expect("the update").await["params"]["uri"], uri("a"));
    assert_eq!(others.expect("the update").await["params"]["uri"], uri("a"));
    let answered = one.ask("resources/unsubscribe", json!({"uri": uri("a")})).await;
    assert_eq!(answered.json()["result"], json!({}), "{answered:?}");
    // The stream ends, and what may have been missed is told.
    let before = std::mem::take(&mut *ended.lock());
    drop(before);
    assert_eq!(others.expect("what may have been missed").await["params"]["uri"], uri("a"));
    assert_eq!(ones.expect("what may have been missed").await["params"]["uri"], uri("c"));
}

#[tokio::test]
async fn a_subscription_is_taken_over_when_its_servers_configuration_changes() {
    for speaks in [Speaks::Modern, Speaks::Legacy] {
        let fake = Fake::start(speaks, Catalogue::default().resources(&["file:///a"])).await;
        let mut setup = Setup::open(&[&fake]);
        let gate = Gate::start(&setup).await;
        let legacy = gate.legacy(None, "2025-11-25").await;
        let answered = legacy.ask("resources/subscribe", json!({"uri": uri("a")})).await;
        assert_eq!(answered.json()["result"], json!({}), "{answered:?}");
        let mut told = legacy.get(None).await;
        setup.servers[0].timeouts.total_ms += 1;
        assert!(gate.proxy.apply(vec![setup.snapshot()]).is_empty());
        // Its lists change, too, until the server has been asked anew.
        loop {
            let message = told.expect("what may have been missed").await;
            if message["method"] == "notifications/resources/updated" {
                break assert_eq!(message["params"]["uri"], uri("a"), "{speaks:?}");
            }
        }
    }
}
