//! What all event streams to clients have in common, and what may be said on them.

use futures_util::{FutureExt, StreamExt, stream};
use mcpmesh_ir::policy::{Effect, To};
use mcpmesh_proxy::Options;
use mcpmesh_proxy::workers::Workers;
use serde_json::json;

use super::client::Events;
use super::fake::{self, Catalogue, Fake, Speaks, data};
use super::harness::Gate;
use super::setup::{Setup, anyone, policy, rule};

/// Nothing on the way may hold the stream back, nor take it for dead while nothing is said.
async fn stays_alive(what: &str, mut events: Events, first: bool) {
    assert_eq!(events.headers["content-type"], "text/event-stream", "{what}");
    assert_eq!(events.headers["x-accel-buffering"], "no", "{what}");
    if first {
        events.expect("what begins the stream").await;
    }
    tokio::time::pause();
    for _ in 0..3 {
        assert_eq!(events.raw().await, ":\n\n", "{what}");
    }
    tokio::time::resume();
}

#[tokio::test]
async fn a_stream_on_which_nothing_is_said_is_kept_alive_whatever_it_is() {
    for speaks in [Speaks::Modern, Speaks::Legacy] {
        let fake = Fake::start(speaks, Catalogue::tools(&["slow"])).await;
        fake.hook(|seen| {
            let token = seen.body["params"]["_meta"].get("progressToken")?;
            let params = json!({"progressToken": token, "progress": 1});
            let first =
                data(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}));
            let events = stream::iter([Ok(bytes::Bytes::from(first))]).chain(stream::pending());
            Some(async { fake::event_stream(events) }.boxed())
        });
        // Where the clock of the test is the proxy's.
        let here = |options: &mut Options| options.workers = Workers::none();
        let gate = Gate::with(&Setup::open(&[&fake]), here).await;
        let (modern, legacy) = (gate.modern(None), gate.legacy(None, "2025-11-25").await);
        assert_eq!(legacy.tools().await, ["s0_slow"]);
        let params = json!({"name": "s0_slow", "arguments": {}, "_meta": {"progressToken": 1}});
        stays_alive("a modern call", modern.open(1, "tools/call", params.clone()).await, true).await;
        stays_alive("a legacy call", legacy.open(1, "tools/call", params).await, true).await;
        let wanted = json!({"notifications": {"toolsListChanged": true}});
        stays_alive("a listen", modern.open(1, "subscriptions/listen", wanted).await, true).await;
        stays_alive("a GET", legacy.get(None).await, false).await;
    }
}

#[tokio::test]
async fn a_call_tells_only_of_resources_that_were_subscribed_to_and_may_be_read() {
    let updated = |name: &str| {
        let params = json!({"uri": format!("file:///{name}")});
        data(&json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params}))
    };
    let catalogue =
        Catalogue::tools(&["say"]).resources(&["file:///wanted", "file:///other", "file:///lost"]);
    let fake = Fake::start(Speaks::Legacy, catalogue).await;
    fake.hook(move |seen| {
        (seen.method() == "tools/call").then_some(())?;
        let result = json!({"jsonrpc": "2.0", "id": seen.body["id"], "result": {"content": []}});
        let said = [updated("other"), updated("lost"), updated("wanted"), data(&result)];
        let said = said.map(|event| Ok(bytes::Bytes::from(event)));
        Some(async { fake::event_stream(stream::iter(said)) }.boxed())
    });
    let setup = Setup::open(&[&fake]);
    let gate = Gate::start(&setup).await;
    let legacy = gate.legacy(None, "2025-11-25").await;
    for name in ["wanted", "lost"] {
        let uri = format!("mcpmesh://s0/file%3A%2F%2F%2F{name}");
        let answered = legacy.ask("resources/subscribe", json!({"uri": uri})).await;
        assert!(answered.json()["result"].is_object(), "{answered:?}");
    }
    // It was allowed when it was subscribed to.
    let lost = To { resources: vec!["file:///lost".into()], ..To::default() };
    let setup = setup.policy(policy("lost", vec![rule("lost", Effect::Deny, anyone(), lost)]));
    assert!(gate.proxy.apply(vec![setup.snapshot()]).is_empty());
    let all = legacy.open(7, "tools/call", json!({"name": "s0_say", "arguments": {}})).await.all().await;
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(all[0]["params"]["uri"], "mcpmesh://s0/file%3A%2F%2F%2Fwanted");
    assert_eq!(all[1]["id"], 7);
}
