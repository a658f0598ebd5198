//! What `/metrics` says after real calls, and where the time of a call goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use mcpmesh_ir::policy::{Effect, Mode};
use mcpmesh_proxy::Options;
use mcpmesh_proxy::workers::Workers;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use super::fake::{self, Catalogue, Fake, Speaks};
use super::harness::{Gate, Sink, is_whole, soon};
use super::setup::{Setup, anyone, limit, policy, rule, tools};

/// The value of the one sample with this name and these labels, in any order.
fn sample(metrics: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let mut found = metrics.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, inside) = series.split_once('{').unwrap_or((series, "}"));
        let inside: Vec<_> = inside.trim_end_matches('}').split(',').filter(|one| !one.is_empty()).collect();
        let wanted = labels.iter().map(|(key, value)| format!("{key}=\"{value}\""));
        let same =
            inside.len() == labels.len() && wanted.into_iter().all(|one| inside.contains(&one.as_str()));
        (found == name && same).then(|| value.parse().unwrap())
    });
    let first = found.next();
    assert!(found.next().is_none(), "{name} {labels:?} twice");
    first
}

const OPERATIONS: &str = "mcp_server_operation_duration_seconds_count";

/// A server with tools that work and fail, under rules and limits that bite and others that only watch.
async fn measured() -> (Fake, Setup) {
    let fake =
        Fake::start(Speaks::Both, Catalogue::tools(&["echo", "fails", "breaks", "hidden", "rare"])).await;
    fake.hook(|seen| {
        (seen.method() == "tools/call").then_some(())?;
        let value = match seen.body["params"]["name"].as_str()? {
            "fails" => fake::result(&seen, json!({"resultType": "complete", "content": [], "isError": true})),
            "breaks" => fake::error(200, &seen, json!({"code": -32000, "message": "no"})),
            _ => return None,
        };
        Some(async { value }.boxed())
    });
    let mut limits = policy("limits", vec![]);
    limits.limits = vec![mcpmesh_ir::policy::Limit { to: tools(&["rare"]), ..limit("one", vec![], 1) }];
    let watch = rule("watch", Effect::Deny, anyone(), tools(&["fails"]));
    let mut audit = policy("audit", vec![watch]);
    audit.limits = vec![mcpmesh_ir::policy::Limit { to: tools(&["echo"]), ..limit("quiet", vec![], 2) }];
    audit.mode = Mode::Audit;
    let hide = policy("hide", vec![rule("hidden", Effect::Deny, anyone(), tools(&["hidden"]))]);
    let setup = Setup::open(&[&fake]).policy(hide).policy(limits).policy(audit);
    (fake, setup)
}

#[tokio::test]
async fn each_call_is_counted_under_its_outcome_its_decision_and_its_limit() {
    let (_fake, setup) = measured().await;
    let gate = Gate::start(&setup).await;
    let (modern, legacy) = (gate.modern(None), gate.legacy(None, "2025-11-25").await);
    modern.tools().await;
    let calls = ["echo", "echo", "echo", "fails", "breaks", "hidden", "rare", "rare", "absent"];
    for name in calls {
        modern.call(&format!("s0_{name}"), json!({})).await;
    }
    legacy.call("s0_echo", json!({})).await;
    modern.ask("tools/nonsense", json!({})).await;
    let metrics = gate.metrics().await;
    let operations = |method: &str, server: &str, outcome: &str| {
        let labels =
            [("gateway", "a/gw"), ("server", server), ("mcp_method_name", method), ("outcome", outcome)];
        sample(&metrics, OPERATIONS, &labels)
    };
    for (outcome, server, count) in [
        ("ok", "a/s0", 5.0),
        ("tool_error", "a/s0", 1.0),
        ("upstream_error", "a/s0", 1.0),
        ("denied", "a/s0", 1.0),
        ("limited", "a/s0", 1.0),
        ("unknown", "", 1.0),
    ] {
        assert_eq!(operations("tools/call", server, outcome), Some(count), "{outcome}: {metrics}");
    }
    assert_eq!(operations("tools/list", "", "ok"), Some(1.0), "{metrics}");
    assert_eq!(operations("_other", "", "invalid"), Some(1.0), "{metrics}");
    assert_eq!(operations("initialize", "", "ok"), Some(1.0), "{metrics}");
    let of_server = [("gateway", "a/gw"), ("server", "a/s0")];
    for (name, labels) in [
        ("mcpmesh_upstream_duration_seconds_count", &of_server[..]),
        ("mcpmesh_gateway_duration_seconds_count", &of_server[..1]),
    ] {
        assert_eq!(
            sample(&metrics, name, labels),
            Some(7.0),
            "only those that a server was asked: {metrics}"
        );
    }
    for (name, policy, verdict, reason, count) in [
        ("mcpmesh_decisions_total", "a/open", "allow", "allowed", 8.0),
        ("mcpmesh_decisions_total", "a/hide", "deny", "denied_by_rule", 1.0),
        ("mcpmesh_audit_decisions_total", "a/audit", "deny", "denied_by_rule", 1.0),
    ] {
        let labels = [("gateway", "a/gw"), ("policy", policy), ("verdict", verdict), ("reason", reason)];
        assert_eq!(sample(&metrics, name, &labels), Some(count), "{name} {policy}: {metrics}");
    }
    for (policy, limit, enforced, count) in
        [("a/limits", "one", "true", 1.0), ("a/audit", "quiet", "false", 2.0)]
    {
        let labels = [("gateway", "a/gw"), ("policy", policy), ("limit", limit), ("enforced", enforced)];
        let found = sample(&metrics, "mcpmesh_limit_exceeded_total", &labels);
        assert_eq!(found, Some(count), "{limit}: {metrics}");
    }
    assert_eq!(sample(&metrics, "mcpmesh_requests_in_flight", &[]), Some(0.0));
    assert_eq!(sample(&metrics, "mcpmesh_panics_total", &[]), Some(0.0));
}

/// A log whose next line fails.
fn failing_log() -> (Arc<AtomicBool>, tracing::subscriber::DefaultGuard) {
    let fails = Arc::new(AtomicBool::new(false));
    let armed = Arc::clone(&fails);
    let subscriber = tracing_subscriber::fmt().with_writer(move || {
        assert!(!armed.swap(false, Ordering::Relaxed), "the test wants this");
        Sink::default()
    });
    (fails, tracing::subscriber::set_default(subscriber.finish()))
}

#[tokio::test]
async fn a_panic_ends_its_own_request_with_500_and_is_counted() {
    let fake = Fake::start(Speaks::Both, Catalogue::tools(&["echo", "hidden"])).await;
    let hide = policy("hide", vec![rule("hidden", Effect::Deny, anyone(), tools(&["hidden"]))]);
    // Where the log of the test is the proxy's.
    let here = |options: &mut Options| options.workers = Workers::none();
    let gate = Gate::with(&Setup::open(&[&fake]).policy(hide), here).await;
    let (modern, legacy) = (gate.modern(None), gate.legacy(None, "2025-11-25").await);
    assert_eq!((modern.tools().await.len(), legacy.tools().await.len()), (1, 1));
    let (fails, _logged) = failing_log();
    // A denial is told in the log.
    fails.store(true, Ordering::Relaxed);
    let ended = modern.call("s0_hidden", json!({})).await;
    assert_eq!((ended.status.as_u16(), ended.code()), (500, -32603), "{ended:?}");
    assert_eq!(sample(&gate.metrics().await, "mcpmesh_panics_total", &[]), Some(1.0));
    fails.store(true, Ordering::Relaxed);
    let ended = legacy.ask_as("mine", "tools/call", json!({"name": "s0_hidden"})).await;
    assert_eq!((ended.status.as_u16(), ended.code()), (500, -32603), "{ended:?}");
    assert_eq!(ended.json()["id"], "mine");
    let metrics = gate.metrics().await;
    assert_eq!(sample(&metrics, "mcpmesh_panics_total", &[]), Some(2.0));
    assert_eq!(sample(&metrics, "mcpmesh_requests_in_flight", &[]), Some(0.0));
    // Everything else goes on, in the session too.
    assert_eq!(modern.call("s0_hidden", json!({})).await.code(), -32602);
    assert!(
        legacy.ask_as("mine", "tools/call", json!({"name": "s0_echo"})).await.json()["result"].is_object()
    );
}

/// Lets this time pass, for the proxy too.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

/// The head of a modern call of `s0_echo`.
fn head(more: &str, body: &str) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nMCP-Protocol-Version: 2026-07-28\r\n\
         Mcp-Method: tools/call\r\nMcp-Name: s0_echo\r\n{more}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
}

/// What the only call of a tool took: in all, of its server, of the gateway.
async fn seconds(gate: &Gate) -> [f64; 3] {
    let metrics = gate.metrics().await;
    let of_server = [("gateway", "a/gw"), ("server", "a/s0")];
    let of_call = [of_server[0], of_server[1], ("mcp_method_name", "tools/call"), ("outcome", "ok")];
    [
        sample(&metrics, "mcp_server_operation_duration_seconds_sum", &of_call),
        sample(&metrics, "mcpmesh_upstream_duration_seconds_sum", &of_server),
        sample(&metrics, "mcpmesh_gateway_duration_seconds_sum", &of_server[..1]),
    ]
    .map(|sum| sum.unwrap_or_else(|| panic!("{metrics}")))
}

#[tokio::test]
async fn our_own_time_is_neither_the_clients_who_sends_nor_the_servers_who_answers() {
    let fake = Fake::modern(&["echo"]).await;
    let free = Arc::new(Semaphore::new(0));
    let waiting = Arc::clone(&free);
    fake.hook(move |seen| {
        (seen.method() == "tools/call").then_some(())?;
        let (free, answer) =
            (Arc::clone(&waiting), fake::result(&seen, json!({"resultType": "complete", "content": []})));
        Some(async move { free.acquire_owned().await.map(|_| answer).unwrap() }.boxed())
    });
    // Where the clock of the test is the proxy's.
    let gate = Gate::with(&Setup::open(&[&fake]), |options| options.workers = Workers::none()).await;
    let modern = gate.modern(None);
    modern.tools().await;
    let params = json!({"name": "s0_echo", "arguments": {}});
    let body = modern.message(&json!(1), "tools/call", &params).to_string();
    let head = head("Expect: 100-continue", &body);
    let mut client = TcpStream::connect(gate.proxy.data_addr()).await.unwrap();
    client.write_all(head.as_bytes()).await.unwrap();
    // The gateway asks for the body once it has the head.
    let mut go_on = [0; 25];
    soon("leave to go on", client.read_exact(&mut go_on)).await.unwrap();
    pass(10).await;
    client.write_all(body.as_bytes()).await.unwrap();
    fake.until("the call", |seen| seen.iter().any(|seen| seen.method() == "tools/call")).await;
    pass(7).await;
    free.add_permits(1);
    let mut answer = Vec::new();
    while !is_whole(&answer) {
        assert!(soon("the answer", client.read_buf(&mut answer)).await.unwrap() > 0);
    }
    let [total, upstream, own] = seconds(&gate).await;
    assert!(total >= 17.0 && upstream >= 7.0, "{total} {upstream}");
    assert!(total - upstream >= 10.0, "the client's time is not the server's: {total} {upstream}");
    assert!(own < 7.0, "{own}");
}

#[tokio::test]
async fn while_a_client_is_slow_to_read_nobody_waits_for_the_server() {
    // More than all buffers on the way to the client hold.
    const LONG: usize = 12 << 20;
    let fake = Fake::modern(&["echo"]).await;
    fake.hook(|seen| {
        (seen.method() == "tools/call").then_some(())?;
        let content = json!([{"type": "text", "text": "x".repeat(LONG)}]);
        let answer = fake::result(&seen, json!({"resultType": "complete", "content": content}));
        Some(async { answer }.boxed())
    });
    // Where the clock of the test is the proxy's.
    let gate = Gate::with(&Setup::open(&[&fake]), |options| options.workers = Workers::none()).await;
    let modern = gate.modern(None);
    modern.tools().await;
    let params = json!({"name": "s0_echo", "arguments": {}});
    let body = modern.message(&json!(1), "tools/call", &params).to_string();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    let mut client = socket.connect(gate.proxy.data_addr()).await.unwrap();
    client.write_all(format!("{}{body}", head("Connection: close", &body)).as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    soon("the beginning", client.read_exact(&mut answer)).await.unwrap();
    // A clock that stands goes on by itself once there is nothing else to do: no buffer takes any more.
    tokio::time::pause();
    let forever = std::future::pending::<()>();
    assert!(tokio::time::timeout(Duration::from_secs(20), forever).await.is_err());
    tokio::time::resume();
    soon("the rest", client.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200") && answer.len() > LONG, "{}", answer.len());
    let [total, upstream, own] = seconds(&gate).await;
    assert!(total >= 20.0, "{total}");
    assert!(upstream < 20.0 && own < 20.0, "{upstream} {own}");
}
