//! Streamable HTTP: eras, odd answers, streams.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use mcpmesh_proxy::mcp::envelope::Method;
use mcpmesh_proxy::mcp::era::{Era, Revision};
use mcpmesh_proxy::mcp::meta::Capabilities;
use mcpmesh_proxy::upstream::*;
use serde_json::json;

use super::fake::{
    self, Fake, call, data, drain, error, events, fed, json, legacy, modern, ready, result, send, status,
};

#[tokio::test]
async fn a_modern_server_is_observed_and_called_without_a_session() {
    let fake = Fake::start(|seen| Box::pin(async move { modern(&seen) })).await;
    let upstream = fake.upstream();
    let seen = ready(&upstream).await;
    assert_eq!(seen.eras, Eras { modern: true, legacy: None });
    assert_eq!(seen.lists.tools[0].key, "echo");
    assert_eq!(seen.instructions.as_deref(), Some("be nice"));
    assert_eq!((seen.lists.ttl_ms, seen.lists.cache_scope), (9, CacheScope::Public));
    assert_eq!(seen.server_info.as_deref(), Some(&br#"{"name":"fake","version":"1"}"#[..]));

    let mut request = call(Era::Modern);
    request.capabilities = Capabilities::new(Bytes::from_static(br#"{"roots":{}}"#));
    request.wants_progress = true;
    request.param_headers = vec![(HeaderName::from_static("mcp-param-x"), HeaderValue::from_static("eu"))];
    let mut reply = upstream.send(request).await.unwrap();
    let id = reply.upstream_id();
    let (before, answer) = drain(&mut reply).await;
    assert!(before.is_empty());
    assert_eq!(answer.unwrap()["id"], id);
    let sent = fake.seen().pop().unwrap();
    assert_eq!(sent.header("mcp-method"), Some("tools/call"));
    assert_eq!(sent.header("mcp-name"), Some("echo"));
    assert_eq!(sent.header("mcp-param-x"), Some("eu"));
    assert_eq!(sent.header("accept"), Some("application/json, text/event-stream"));
    let meta = &sent.body["params"]["_meta"];
    assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], json!({"roots": {}}));
    assert_eq!(meta["progressToken"], id);
    assert!(sent.header("mcp-session-id").is_none());
}

#[tokio::test]
async fn a_typescript_server_of_sessions_is_known_by_its_answer_and_not_by_its_words() {
    let fake = Fake::start(|seen| Box::pin(async move { legacy(&seen) })).await;
    let upstream = fake.upstream();
    let seen = ready(&upstream).await;
    assert_eq!(seen.eras, Eras { modern: false, legacy: Some(Revision::V2025_11_25) });

    // A modern client on it: pooled session, no modern keys.
    let mut reply = upstream.send(call(Era::Modern)).await.unwrap();
    assert_eq!(reply.era(), Era::Legacy);
    assert!(drain(&mut reply).await.1.unwrap()["result"].is_object());
    let sent = fake.seen().pop().unwrap();
    assert_eq!(sent.header("mcp-session-id"), Some("s-1"));
    assert_eq!(sent.header("mcp-protocol-version"), Some("2025-11-25"));
    assert!(sent.header("mcp-method").is_none());
    assert!(sent.body["params"].get("_meta").is_none());
    let opened = fake.methods().iter().filter(|method| *method == "POST initialize").count();
    assert_eq!(opened, 1, "the session that was found with serves on");
}

#[tokio::test]
async fn a_server_of_both_eras_answers_each_client_in_its_own() {
    let fake = Fake::start(|seen| {
        Box::pin(async move { if seen.is_modern() { modern(&seen) } else { legacy(&seen) } })
    })
    .await;
    let upstream = fake.upstream();
    let both = Eras { modern: true, legacy: Some(Revision::V2025_11_25) };
    fake::observe(&upstream, |one| one.eras == both).await;
    assert_eq!(upstream.send(call(Era::Modern)).await.unwrap().era(), Era::Modern);
    assert_eq!(upstream.send(call(Era::Legacy)).await.unwrap().era(), Era::Legacy);
    fake::until("the probe's session is ended", || fake.methods().contains(&"DELETE".to_owned())).await;
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_origin_only() {
    let other = Fake::start(|seen| Box::pin(async move { modern(&seen) })).await;
    let elsewhere = format!("http://{}/mcp", other.address);
    let fake = Fake::start(move |seen| {
        let elsewhere = elsewhere.clone();
        Box::pin(async move {
            let to = match seen.path.as_str() {
                "/mcp" => "/mcp/",
                "/away" => elsewhere.as_str(),
                _ => return modern(&seen),
            };
            let mut answer = status(307, "");
            answer.headers_mut().insert("location", to.parse().unwrap());
            answer
        })
    })
    .await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    assert!(send(&upstream, call(Era::Modern)).await.is_ok());
    let detours = fake.seen().iter().filter(|seen| seen.path == "/mcp").count();
    assert_eq!(detours, 1, "the new place is remembered");

    let away = Upstream::start(fake.config("/away", Transport::Auto), Deps::default());
    fake::observe(&away, |one| matches!(one.state, State::Failed { .. })).await;
    assert!(other.seen().is_empty(), "credentials stay on their origin");
}

#[tokio::test]
async fn inconclusive_statuses_decide_nothing_about_the_era() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let fake = Fake::start(move |seen| {
        let nth = count.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            match nth {
                0 => status(503, "starting"),
                1 => status(401, ""),
                _ => modern(&seen),
            }
        })
    })
    .await;
    let upstream = fake.upstream();
    let seen = ready(&upstream).await;
    assert!(seen.eras.modern);
    let methods = fake.methods();
    assert_eq!(methods[..3], ["POST server/discover", "POST server/discover", "POST server/discover"]);
}

#[tokio::test]
async fn a_handshake_under_another_id_is_none_and_a_refusal_under_any_is_one() {
    let under = |seen: &fake::Seen, member: &str, value: serde_json::Value| {
        let id = seen.body["id"].as_u64().unwrap() + 7;
        json(200, &json!({"jsonrpc": "2.0", "id": id, member: value}))
    };
    let discovered = json!({"supportedVersions": ["2026-07-28"], "capabilities": {}});
    let fake = Fake::start(move |seen| {
        let answer = match seen.method() {
            "server/discover" => under(&seen, "result", discovered.clone()),
            _ => legacy(&seen),
        };
        Box::pin(async move { answer })
    })
    .await;
    let upstream = fake.upstream();
    let seen = fake::observe(&upstream, |one| matches!(one.state, State::Failed { .. })).await;
    assert!(format!("{:?}", seen.state).contains("another request"), "{:?}", seen.state);
    let fake = Fake::start(move |seen| {
        let answer = match seen.method() {
            "server/discover" => under(&seen, "error", json!({"code": -32601, "message": "no"})),
            _ => legacy(&seen),
        };
        Box::pin(async move { answer })
    })
    .await;
    assert!(ready(&fake.upstream()).await.eras.legacy.is_some());
}

#[tokio::test]
async fn events_come_in_order_and_the_connection_serves_on() {
    let fake = Fake::start(|seen| {
        Box::pin(async move {
            if seen.method() != "tools/call" {
                return modern(&seen);
            }
            let id = &seen.body["id"];
            let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": id, "progress": 1}});
            let answer = json!({"jsonrpc": "2.0", "id": id, "result": {}});
            let text = format!(": hello\n\nid: 1\ndata:\n\n{}{}", data(&progress), data(&answer));
            // Chunk boundaries anywhere.
            events(text.as_bytes().chunks(7).map(|part| String::from_utf8(part.to_vec()).unwrap()).collect())
        })
    })
    .await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    for _ in 0..3 {
        let (before, answer) = drain(&mut upstream.send(call(Era::Modern)).await.unwrap()).await;
        assert!(matches!(&before[..], [Event::Notification { method: Method::NotificationsProgress, .. }]));
        assert!(answer.unwrap()["result"].is_object());
    }
}

#[tokio::test]
async fn a_dropped_reply_closes_the_modern_stream() {
    let (closed, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let fake = Fake::start(move |seen| {
        let closed = closed.clone();
        Box::pin(async move {
            if seen.method() != "tools/call" {
                return modern(&seen);
            }
            let (feed, answer) = fed();
            feed.send(data(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}})))
                .unwrap();
            tokio::spawn(async move {
                feed.closed().await;
                closed.send(()).unwrap();
            });
            answer
        })
    })
    .await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    let mut reply = upstream.send(call(Era::Modern)).await.unwrap();
    assert!(matches!(reply.next().await, Some(Ok(Event::Notification { .. }))));
    drop(reply);
    hears.recv().await.expect("the server sees the end");
    assert!(!fake.methods().contains(&"POST notifications/cancelled".to_owned()));
}

#[tokio::test]
async fn an_error_status_with_a_json_rpc_error_is_an_answer_with_the_calls_id() {
    let fake = Fake::start(|seen| {
        Box::pin(async move {
            match (seen.method(), seen.body["params"]["name"].as_str()) {
                ("tools/call", Some("null")) => json(
                    400,
                    &json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32602, "message": "x"}}),
                ),
                ("tools/call", Some("page")) => status(502, "<html>secret inner address</html>"),
                ("tools/call", Some("limit")) => {
                    let mut answer = status(429, "");
                    answer.headers_mut().insert("retry-after", "7".parse().unwrap());
                    answer
                }
                ("tools/call", Some("html")) => status(200, "<html>"),
                ("tools/call", Some("empty")) => status(202, ""),
                _ => modern(&seen),
            }
        })
    })
    .await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    let named = |name: &str| {
        Outgoing::new(Era::Modern, Method::ToolsCall, Bytes::from(format!(r#""name":"{name}""#)))
    };
    let mut reply = upstream.send(named("null")).await.unwrap();
    let id = reply.upstream_id();
    let answer = drain(&mut reply).await.1.unwrap();
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(id), &json!(-32602)));
    let bad = send(&upstream, named("page")).await.unwrap_err();
    assert_eq!((bad.kind.clone(), bad.executed), (Kind::Status(502), true));
    assert!(!format!("{bad} {bad:?}").contains("secret"), "no echo of bodies");
    let limit = send(&upstream, named("limit")).await.unwrap_err();
    assert_eq!((limit.executed, limit.retry_after.map(|after| after.as_secs())), (false, Some(7)));
    for odd in ["html", "empty"] {
        assert!(matches!(send(&upstream, named(odd)).await.unwrap_err().kind, Kind::Protocol(_)));
    }
}

#[tokio::test]
async fn a_header_mismatch_reads_the_tools_again_and_retries_once() {
    let region = Arc::new(Mutex::new("Old"));
    let current = Arc::clone(&region);
    let fake = Fake::start(move |seen| {
        let current = *current.lock().unwrap();
        Box::pin(async move {
            let schema = json!({"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": current}}});
            match seen.method() {
                "tools/list" => result(&seen, json!({"tools": [{"name": "echo", "inputSchema": schema}]})),
                "tools/call" if seen.headers.get(format!("mcp-param-{current}")).is_none() => {
                    error(400, &seen, json!({"code": -32020, "message": "Header mismatch"}))
                }
                _ => modern(&seen),
            }
        })
    })
    .await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    *region.lock().unwrap() = "New";
    let mut request = call(Era::Modern);
    request.members = Bytes::from_static(br#""name":"echo","arguments":{"region":"eu"}"#);
    request.param_headers = vec![(HeaderName::from_static("mcp-param-old"), HeaderValue::from_static("eu"))];
    assert!(send(&upstream, request).await.unwrap()["result"].is_object());
    assert_eq!(fake.seen().pop().unwrap().header("mcp-param-new"), Some("eu"));
}

#[tokio::test]
async fn tools_whose_headers_cannot_be_built_are_left_out() {
    let fake = Fake::start(|seen| {
        Box::pin(async move {
            let bad =
                json!({"type": "object", "properties": {"a": {"type": "string", "x-mcp-header": "a b"}}});
            match seen.method() {
                "tools/list" => {
                    result(&seen, json!({"tools": [fake::tool("echo"), {"name": "bad", "inputSchema": bad}]}))
                }
                _ => modern(&seen),
            }
        })
    })
    .await;
    let seen = ready(&fake.upstream()).await;
    assert_eq!(seen.lists.tools.iter().map(|tool| &tool.key[..]).collect::<Vec<_>>(), ["echo"]);
}

#[tokio::test]
async fn secrets_go_out_and_show_nowhere() {
    let fake = Fake::start(|seen| Box::pin(async move { modern(&seen) })).await;
    let mut config = fake.config("/mcp", Transport::Auto);
    let mut secret = HeaderValue::from_static("Bearer canary");
    secret.set_sensitive(true);
    config.headers.push((http::header::AUTHORIZATION, secret));
    assert!(!format!("{config:?}").contains("canary"));
    let upstream = Upstream::start(config, Deps::default());
    ready(&upstream).await;
    assert_eq!(fake.seen()[0].header("authorization"), Some("Bearer canary"));
    assert!(!format!("{upstream:?}").contains("canary"));
}

#[tokio::test]
async fn a_changed_list_is_announced_on_a_subscription_and_read_again() {
    let tools = Arc::new(Mutex::new(vec!["echo"]));
    let ring = Arc::new(Mutex::new(None));
    let (current, bell) = (Arc::clone(&tools), Arc::clone(&ring));
    let fake = Fake::start(move |seen| {
        let (current, bell) = (current.lock().unwrap().clone(), Arc::clone(&bell));
        Box::pin(async move {
            match seen.method() {
                "server/discover" => result(&seen, json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {"listChanged": true}}})),
                "tools/list" => result(&seen, json!({"tools": current.iter().map(|name| fake::tool(name)).collect::<Vec<_>>()})),
                "subscriptions/listen" => {
                    let (feed, answer) = fed();
                    *bell.lock().unwrap() = Some((feed, seen.body["id"].clone()));
                    answer
                }
                _ => modern(&seen),
            }
        })
    })
    .await;
    let upstream = fake.upstream();
    let first = ready(&upstream).await;
    fake::until("a subscription", || ring.lock().unwrap().is_some()).await;
    tools.lock().unwrap().push("second");
    let (feed, id) = ring.lock().unwrap().take().unwrap();
    let asked = fake.seen().into_iter().find(|seen| seen.method() == "subscriptions/listen").unwrap();
    assert_eq!(asked.body["params"]["notifications"]["toolsListChanged"], true);
    let _second = upstream.subscribe(vec!["file:///a".to_owned()], None);
    let listens = || fake.seen().into_iter().filter(|seen| seen.method() == "subscriptions/listen");
    fake::until("a second subscription", || listens().count() == 2).await;
    let asked = listens().last().unwrap();
    assert_eq!(asked.body["params"]["notifications"]["resourceSubscriptions"], json!(["file:///a"]));
    let meta = json!({"io.modelcontextprotocol/subscriptionId": id});
    feed.send(data(
        &json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {"_meta": meta}}),
    ))
    .unwrap();
    let second = fake::observe(&upstream, |one| one.lists.tools.len() == 2).await;
    assert!(second.generation > first.generation);
}

#[tokio::test]
async fn a_server_that_turns_legacy_is_found_out_again_within_the_call() {
    let old = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let turned = Arc::clone(&old);
    let fake = Fake::start(move |seen| {
        let turned = turned.load(Ordering::Relaxed);
        Box::pin(async move {
            match (turned, seen.is_modern()) {
                (false, _) => modern(&seen),
                (true, true) => {
                    let data = json!({"supported": ["2025-11-25"], "requested": "2026-07-28"});
                    error(400, &seen, json!({"code": -32022, "message": "Unsupported", "data": data}))
                }
                (true, false) => legacy(&seen),
            }
        })
    })
    .await;
    let upstream = fake.upstream();
    assert!(ready(&upstream).await.eras.modern);
    old.store(true, Ordering::Relaxed);
    let mut reply = upstream.send(call(Era::Modern)).await.unwrap();
    assert_eq!(reply.era(), Era::Legacy);
    assert!(drain(&mut reply).await.1.is_ok());
    fake::observe(&upstream, |one| !one.eras.modern).await;
}

#[tokio::test]
async fn a_server_that_dies_is_noticed_by_a_call_and_its_lists_stand() {
    let fake = Fake::start(|seen| Box::pin(async move { modern(&seen) })).await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    drop(fake);
    // The pooled connection may break first, the next one is refused.
    while !matches!(send(&upstream, call(Era::Modern)).await.unwrap_err().kind, Kind::Connect(_)) {}
    let gone = fake::observe(&upstream, |one| matches!(one.state, State::Failed { .. })).await;
    assert_eq!(gone.lists.tools.len(), 1);
}
