//! Servers that list more to clients that can be asked something.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;
use serde_json::{Value, json};

use super::client::Modern;
use super::fake::{Catalogue, Fake, Seen, Speaks, result, tool};
use super::harness::Gate;
use super::setup::Setup;

/// A server that has `asks` only for clients that take samplings, and `more` for them once it is told to.
async fn server(speaks: Speaks) -> (Fake, Arc<AtomicBool>) {
    let fake = Fake::start(speaks, Catalogue::tools(&["plain"])).await;
    let more = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&more);
    fake.hook(move |seen| answer(&seen, told.load(Ordering::Relaxed)).map(|answer| async { answer }.boxed()));
    (fake, more)
}

fn answer(seen: &Seen, more: bool) -> Option<super::fake::Answer> {
    let params = &seen.body["params"];
    let declared = &params["_meta"]["io.modelcontextprotocol/clientCapabilities"];
    match seen.method() {
        "initialize" if params["capabilities"]["sampling"].is_object() => {
            let mut answer = result(
                seen,
                json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {"listChanged": true}},
                       "serverInfo": {"name": "old", "version": "1"}}),
            );
            answer.headers_mut().insert("mcp-session-id", "samples".parse().unwrap());
            Some(answer)
        }
        "tools/list"
            if declared["sampling"].is_object() || seen.header("mcp-session-id") == Some("samples") =>
        {
            let mut tools = vec![tool("plain"), tool("asks")];
            tools.extend(more.then(|| tool("more")));
            Some(result(
                seen,
                json!({"resultType": "complete", "tools": tools, "ttlMs": 9, "cacheScope": "public"}),
            ))
        }
        _ => None,
    }
}

fn sampling() -> Value {
    json!({"sampling": {}})
}

#[tokio::test]
async fn a_client_sees_what_its_servers_list_to_those_that_declare_the_same_and_nobody_else_does() {
    let (modern, _) = server(Speaks::Modern).await;
    let (legacy, _) = server(Speaks::Legacy).await;
    let gate = Gate::start(&Setup::open(&[&modern, &legacy])).await;
    let everyones = ["s0_plain", "s1_plain"];
    let plain = gate.modern(None);
    assert_eq!(plain.tools().await, everyones);
    // The very first list of such a client is right, and the server of the other era is asked nothing.
    let asked = Modern { capabilities: sampling(), ..plain.clone() };
    assert_eq!(asked.tools().await, ["s0_plain", "s0_asks", "s1_plain"]);
    let session = gate.legacy_with(None, "2025-11-25", sampling()).await;
    assert_eq!(session.tools().await, ["s0_plain", "s1_plain", "s1_asks"]);
    // What can be asked tells, not what else is declared.
    let other =
        Modern { capabilities: json!({"extensions": {}, "experimental": {"x": {}}}), ..plain.clone() };
    assert_eq!(other.tools().await, everyones);
    assert_eq!(gate.legacy(None, "2025-11-25").await.tools().await, everyones);
    // What is listed can be called, and nothing else.
    assert_eq!(asked.call("s0_asks", json!({})).await.status, 200);
    assert_eq!(session.call("s1_asks", json!({})).await.status, 200);
    for (client, name) in [(&plain, "s0_asks"), (&asked, "s1_asks"), (&other, "s0_asks")] {
        assert_eq!(client.call(name, json!({})).await.code(), -32602, "{name}");
    }
    assert_eq!(session.call("s0_asks", json!({})).await.code(), -32602);
    assert_eq!((modern.calls().len(), legacy.calls().len()), (1, 1));
}

#[tokio::test]
async fn a_change_that_only_some_clients_see_is_told_to_them() {
    for speaks in [Speaks::Modern, Speaks::Legacy] {
        let (fake, more) = server(speaks).await;
        let gate = Gate::start(&Setup::open(&[&fake])).await;
        let plain = gate.modern(None);
        assert_eq!(plain.tools().await, ["s0_plain"]);
        let session = gate.legacy_with(None, "2025-11-25", sampling()).await;
        let mut told = match speaks {
            Speaks::Legacy => {
                assert_eq!(session.tools().await, ["s0_plain", "s0_asks"]);
                session.get(None).await
            }
            Speaks::Modern | Speaks::Both => {
                let client = Modern { capabilities: sampling(), ..plain.clone() };
                assert_eq!(client.tools().await, ["s0_plain", "s0_asks"]);
                let wanted = json!({"notifications": {"toolsListChanged": true}});
                let mut told = client.open(1, "subscriptions/listen", wanted).await;
                told.expect("the acknowledgement").await;
                told
            }
        };
        more.store(true, Ordering::Relaxed);
        super::harness::until("the gateway listens", || fake.listeners() > 0).await;
        fake.push(json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
        assert_eq!(told.expect("the change").await["method"], "notifications/tools/list_changed");
        let seen = match speaks {
            Speaks::Legacy => session.tools().await,
            Speaks::Modern | Speaks::Both => {
                Modern { capabilities: sampling(), ..plain.clone() }.tools().await
            }
        };
        assert_eq!(seen, ["s0_plain", "s0_asks", "s0_more"]);
        assert_eq!(plain.tools().await, ["s0_plain"]);
    }
}

#[tokio::test]
async fn a_configuration_is_in_force_for_every_audience_at_once() {
    let (fake, _) = server(Speaks::Modern).await;
    let setup = Setup::open(&[&fake]);
    let gate = Gate::start(&setup).await;
    let client = Modern { capabilities: sampling(), ..gate.modern(None) };
    assert_eq!(client.tools().await, ["s0_plain", "s0_asks"]);
    let mut closed = setup.clone();
    closed.policies.clear();
    for _ in 0..20 {
        assert!(gate.proxy.apply(vec![closed.snapshot()]).is_empty());
        assert!(client.tools().await.is_empty());
        assert!(gate.proxy.apply(vec![setup.snapshot()]).is_empty());
        assert_eq!(client.tools().await, ["s0_plain", "s0_asks"]);
    }
}
