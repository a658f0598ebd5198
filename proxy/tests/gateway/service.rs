//! A server behind the addresses of a Service.

use std::net::SocketAddr;

use mcpmesh_ir::server::{Endpoint, Lock, Transport};
use mcpmesh_proxy::catalog::digest;
use serde_json::json;

use super::fake::{Catalogue, Fake, Speaks, tool};
use super::harness::Gate;
use super::setup::Setup;

fn service(fakes: &[&Fake], dead: Option<SocketAddr>) -> Setup {
    let mut setup = Setup::open(&fakes[..1]);
    setup.servers[0].endpoint = Endpoint::Service {
        addresses: dead.into_iter().chain(fakes.iter().map(|fake| fake.address)).collect(),
        host: "s0.a.svc:8080".to_owned(),
        path: "/mcp".to_owned(),
        transport: Transport::StreamableHttp,
        mesh: None,
    };
    setup
}

fn calls(fake: &Fake) -> usize {
    fake.seen().iter().filter(|seen| seen.method() == "tools/call").count()
}

/// A port that nobody listens on.
async fn dead() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn calls_are_spread_and_a_dead_address_is_left_for_the_others() {
    let one = Fake::start(Speaks::Modern, Catalogue::tools(&["read"])).await;
    let two = Fake::start(Speaks::Modern, Catalogue::tools(&["read"])).await;
    let gate = Gate::start(&service(&[&one, &two], Some(dead().await))).await;
    for _ in 0..12 {
        let answered = gate.modern(None).call("s0_read", json!({})).await;
        assert!(answered.json()["result"].is_object(), "{answered:?}");
    }
    assert!(calls(&one) > 0 && calls(&two) > 0, "{} {}", calls(&one), calls(&two));
    assert_eq!(one.seen()[0].header("host"), Some("s0.a.svc:8080"));
}

#[tokio::test]
async fn a_session_stays_at_its_address_and_moves_when_that_is_gone() {
    let one = Fake::start(Speaks::Legacy, Catalogue::tools(&["read"])).await;
    let two = Fake::start(Speaks::Legacy, Catalogue::tools(&["read"])).await;
    let gate = Gate::start(&service(&[&one, &two], None)).await;
    let client = gate.legacy(None, "2025-11-25").await;
    for _ in 0..4 {
        assert!(client.call("s0_read", json!({})).await.json()["result"].is_object());
    }
    assert_eq!(calls(&one).min(calls(&two)), 0, "all in one session");
    let (stays, goes) = if calls(&one) > 0 { (two, one) } else { (one, two) };
    drop(goes);
    let mut moved = false;
    for _ in 0..10 {
        moved = client.call("s0_read", json!({})).await.json()["result"].is_object();
        if moved {
            break;
        }
    }
    assert!(moved && calls(&stays) > 0);
}

#[tokio::test]
async fn addresses_change_under_a_running_client() {
    let one = Fake::start(Speaks::Modern, Catalogue::tools(&["read"])).await;
    let two = Fake::start(Speaks::Modern, Catalogue::tools(&["read"])).await;
    let gate = Gate::start(&service(&[&one], None)).await;
    assert!(gate.modern(None).call("s0_read", json!({})).await.json()["result"].is_object());
    gate.proxy.apply(vec![service(&[&two], None).snapshot()]);
    let before = calls(&one);
    for _ in 0..4 {
        assert!(gate.modern(None).call("s0_read", json!({})).await.json()["result"].is_object());
    }
    assert_eq!((calls(&one), calls(&two)), (before, 4));
    let mut nowhere = service(&[&two], None);
    if let Endpoint::Service { addresses, .. } = &mut nowhere.servers[0].endpoint {
        addresses.clear();
    }
    gate.proxy.apply(vec![nowhere.snapshot()]);
    let answered = gate.modern(None).call("s0_read", json!({})).await;
    assert_eq!(answered.status, 503);
    assert!(answered.json()["error"]["message"].as_str().unwrap().contains("no instance"), "{answered:?}");
    gate.proxy.apply(vec![service(&[&one], None).snapshot()]);
    assert!(gate.modern(None).call("s0_read", json!({})).await.json()["result"].is_object());
}

#[tokio::test]
async fn a_tool_that_a_lock_does_not_pin_is_not_there() {
    let fake = Fake::start(Speaks::Modern, Catalogue::tools(&["kept", "changed", "added"])).await;
    let mut setup = Setup::open(&[&fake]);
    let pin = |name: &str| digest(tool(name).to_string().as_bytes());
    let tools = [("kept".to_owned(), pin("kept")), ("changed".to_owned(), pin("kept"))];
    setup.servers[0].lock = Some(Lock { tools: tools.into() });
    let gate = Gate::start(&setup).await;
    assert_eq!(gate.modern(None).tools().await, ["s0_kept"]);
    for gone in ["s0_changed", "s0_added"] {
        assert_eq!(gate.modern(None).call(gone, json!({})).await.code(), -32602, "{gone}");
    }
    let metrics = gate.metrics().await;
    assert!(metrics.contains("mcpmesh_quarantined_tools{gateway=\"a/gw\",server=\"a/s0\"} 2"), "{metrics}");
    setup.servers[0].lock = None;
    gate.proxy.apply(vec![setup.snapshot()]);
    assert_eq!(gate.modern(None).tools().await.len(), 3);
}
