//! `resources/subscribe` of legacy clients: what becomes of it when its server goes away and comes back.

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

/// What a legacy server keeps of its sessions.
#[derive(Default)]
struct Memory {
    /// The streams of sessions, by their ids.
    streams: Vec<(String, UnboundedSender<Result<String, ()>>)>,
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
