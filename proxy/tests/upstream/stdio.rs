//! Processes: the probe and how old ones take it, restarts, shared and own processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use mcpmesh_proxy::mcp::envelope::Method;
use mcpmesh_proxy::mcp::era::{Era, Revision};
use mcpmesh_proxy::mcp::meta::Capabilities;
use mcpmesh_proxy::upstream::*;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::fake::{self, Process, Processes, call, drain, hearing, link, linked, observe, ready, send, tool};

/// How long anything is waited for that must come.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn an_old_process_is_initialized_after_its_error_and_its_chatter_is_skipped() {
    let processes = Processes::new(|_, mut process| {
        Box::pin(async move {
            process.say("Server v1 listening on stdio").await;
            process.say("{\"level\":\"info\"}").await;
            process.play_legacy().await;
        })
    });
    let upstream = processes.upstream();
    let seen = ready(&upstream).await;
    assert_eq!(seen.eras, Eras { modern: false, legacy: Some(Revision::V2025_11_25) });
    assert_eq!(seen.lists.tools[0].key, "echo");
    assert!(send(&upstream, call(Era::Modern)).await.unwrap()["result"].is_object());
    assert_eq!(processes.started(), 1);
    drop(upstream);
    fake::until("the process ends with the upstream", || processes.living() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_modern_process_serves_all_calls_and_is_told_of_cancellations() {
    let (heard, mut hears) = mpsc::unbounded_channel();
    let processes = Processes::new(move |_, mut process| {
        let heard = heard.clone();
        Box::pin(async move {
            while let Some(message) = process.read().await {
                match message["method"].as_str().unwrap() {
                    "server/discover" => {
                        let said =
                            json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}});
                        process.result(&message, said).await;
                    }
                    "tools/list" => process.result(&message, json!({"tools": [tool("echo")]})).await,
                    "tools/call" => {
                        let token = &message["params"]["_meta"]["progressToken"];
                        let params = json!({"progressToken": token, "progress": 1});
                        let said =
                            json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params});
                        process.say(&said.to_string()).await;
                    }
                    _ => heard.send(message).unwrap(),
                }
            }
        })
    });
    let upstream = processes.upstream();
    assert_eq!(ready(&upstream).await.eras, Eras { modern: true, legacy: None });
    let asking = || {
        let mut request = call(Era::Legacy);
        request.wants_progress = true;
        upstream.send(request)
    };
    let (first, second) = tokio::join!(asking(), asking());
    let (mut first, mut second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.era(), Era::Modern);
    for reply in [&mut first, &mut second] {
        let id = reply.upstream_id();
        let Some(Ok(Event::Notification { raw, .. })) = reply.next().await else { panic!("progress") };
        let said: Value = serde_json::from_slice(&raw).unwrap();
        assert_eq!(said["params"]["progressToken"], id, "each call hears its own");
    }
    let id = second.upstream_id();
    drop(second);
    let cancelled = hears.recv().await.unwrap();
    assert_eq!(cancelled["method"], "notifications/cancelled");
    assert_eq!(cancelled["params"]["requestId"], id);
}

#[tokio::test(start_paused = true)]
async fn a_modern_process_that_asks_something_is_never_answered() {
    let (heard, mut hears) = mpsc::unbounded_channel();
    let processes = Processes::new(move |_, mut process| {
        let heard = heard.clone();
        Box::pin(async move {
            while let Some(message) = process.read().await {
                match message["method"].as_str() {
                    Some("server/discover") => {
                        let said =
                            json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}});
                        process.result(&message, said).await;
                    }
                    Some("tools/list") => process.result(&message, json!({"tools": [tool("echo")]})).await,
                    Some("tools/call") => {
                        let large = "x".repeat(2 << 20);
                        for (method, note) in
                            [("ping", ""), ("roots/list", ""), ("elicitation/create", large.as_str())]
                        {
                            let ask = json!({"jsonrpc": "2.0", "id": "q", "method": method, "params": {"message": note}});
                            process.say(&ask.to_string()).await;
                        }
                        process.result(&message, json!({"resultType": "complete", "content": []})).await;
                        heard.send(message).unwrap();
                    }
                    _ => heard.send(message).unwrap(),
                }
            }
        })
    });
    let upstream = processes.upstream();
    ready(&upstream).await;
    for _ in 0..3 {
        let (before, answered) = drain(&mut upstream.send(call(Era::Modern)).await.unwrap()).await;
        assert!(before.is_empty() && answered.unwrap()["result"].is_object());
    }
    for _ in 0..3 {
        assert_eq!(hears.recv().await.unwrap()["method"], "tools/call", "and nothing between the calls");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_process_is_initialized() {
    let processes = Processes::new(|_, mut process| {
        Box::pin(async move {
            while let Some(message) = process.read().await {
                if message["method"] != "server/discover" {
                    process.legacy(&message).await;
                }
            }
        })
    });
    let seen = ready(&processes.upstream()).await;
    assert_eq!(seen.eras.legacy, Some(Revision::V2025_11_25));
    assert_eq!(processes.started(), 1, "silence costs no restart");
}

#[tokio::test(start_paused = true)]
async fn a_slow_modern_process_may_answer_the_probe_late() {
    let processes = Processes::new(|_, mut process| {
        Box::pin(async move {
            tokio::time::sleep(std::time::Duration::from_secs(20)).await;
            while let Some(message) = process.read().await {
                match message["method"].as_str().unwrap() {
                    "server/discover" => {
                        let said = json!({"supportedVersions": ["2026-07-28"], "capabilities": {}});
                        process.result(&message, said).await;
                    }
                    _ => process.error(&message, -32601).await,
                }
            }
        })
    });
    assert!(ready(&processes.upstream()).await.eras.modern);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_exits_on_the_probe_is_started_again_and_never_probed_again() {
    let probes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&probes);
    let processes = Processes::new(move |_, mut process| {
        let count = Arc::clone(&count);
        Box::pin(async move {
            while let Some(message) = process.read().await {
                match message["method"].as_str().unwrap() {
                    "server/discover" => {
                        count.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                    "tools/call" => return,
                    _ => process.legacy(&message).await,
                }
            }
        })
    });
    let upstream = processes.upstream();
    ready(&upstream).await;
    assert_eq!(processes.started(), 2);
    // It crashes on a call: the call fails, the catalogue stays, a new process comes by itself.
    let failed = send(&upstream, call(Era::Legacy)).await.unwrap_err();
    assert_eq!((failed.kind, failed.executed), (Kind::Reset, true));
    let gone = observe(&upstream, |one| matches!(one.state, State::Failed { .. })).await;
    assert_eq!(gone.lists.tools.len(), 1, "the last lists stand");
    let back = ready(&upstream).await;
    assert_eq!(back.generation, gone.generation, "nothing changed");
    assert_eq!((processes.started(), probes.load(Ordering::Relaxed)), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_keeps_crashing_is_restarted_with_growing_pauses() {
    let processes = Processes::new(|_, _| Box::pin(async {}));
    let upstream = processes.upstream();
    observe(&upstream, |one| matches!(one.state, State::Failed { .. })).await;
    tokio::time::sleep(std::time::Duration::from_secs(300)).await;
    let started = processes.started();
    assert!((12..=60).contains(&started), "{started} starts in five minutes");
    let refused = send(&upstream, call(Era::Legacy)).await.unwrap_err();
    assert!(matches!(refused.kind, Kind::Connect(_)) && !refused.executed);
}

#[tokio::test(start_paused = true)]
async fn only_a_client_that_can_be_asked_gets_a_process_of_its_own() {
    let processes = Processes::new(|_, mut process| Box::pin(async move { process.play_legacy().await }));
    let upstream = processes.upstream();
    ready(&upstream).await;
    let calling = async |link: &Arc<SessionLink>| send(&upstream, linked(link)).await.unwrap();
    let plain = link("alice", b"{}");
    calling(&plain).await;
    assert_eq!(processes.started(), 1);
    let asked = link("alice", br#"{"sampling":{}}"#);
    calling(&asked).await;
    calling(&asked).await;
    assert_eq!((processes.started(), processes.living()), (2, 2));
    drop(asked);
    fake::until("its process ends with the link", || processes.living() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_question_during_a_modern_clients_call_belongs_to_that_call() {
    let processes = Processes::new(|_, mut process| {
        Box::pin(async move {
            while let Some(message) = process.read().await {
                if message["method"] == "tools/call" {
                    process.say(r#"{"jsonrpc":"2.0","id":0,"method":"ping"}"#).await;
                    assert_eq!(
                        process.read().await.unwrap(),
                        json!({"jsonrpc": "2.0", "id": 0, "result": {}})
                    );
                    let ask =
                        json!({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": {}});
                    process.say(&ask.to_string()).await;
                    let answer = process.read().await.unwrap();
                    process.result(&message, json!({"heard": answer["result"]})).await;
                } else {
                    process.legacy(&message).await;
                }
            }
        })
    });
    let upstream = processes.upstream();
    ready(&upstream).await;
    let asking = async |text: &'static str| {
        let mut request = call(Era::Modern);
        request.capabilities = Capabilities::new(Bytes::from_static(br#"{"elicitation":{}}"#));
        let mut reply = upstream.send(request).await.unwrap();
        let Some(Ok(Event::Request { id, method, .. })) = reply.next().await else { panic!("a question") };
        assert_eq!((id.as_json(), method), (&b"\"q\""[..], Method::ElicitationCreate));
        let answer = format!(r#"{{"jsonrpc":"2.0","id":"q","result":"{text}"}}"#);
        reply.answerer().unwrap().send(answer.into()).await.unwrap();
        assert_eq!(drain(&mut reply).await.1.unwrap()["result"]["heard"], text);
    };
    tokio::join!(asking("one"), asking("two"));
    assert_eq!(processes.started(), 3, "one process for each call that can be asked");
    asking("three").await;
    assert_eq!(processes.started(), 3, "and they are used again");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_too_large_fails_its_call_only() {
    let processes = Processes::new(|_, mut process| {
        Box::pin(async move {
            let mut large = true;
            while let Some(message) = process.read().await {
                if message["method"] == "tools/call" && std::mem::take(&mut large) {
                    process.result(&message, json!("x".repeat(100_000))).await;
                } else {
                    process.legacy(&message).await;
                }
            }
        })
    });
    let mut config = Config::new(mcpmesh_ir::ServerId::new("ns", "stdio"), Endpoint::Workload);
    config.max_response_bytes = 10_000;
    let connector: Arc<dyn Connector> = Arc::clone(&processes) as _;
    let upstream = Upstream::start(config, Deps { connector: Some(connector), ..Deps::default() });
    ready(&upstream).await;
    assert_eq!(send(&upstream, call(Era::Legacy)).await.unwrap_err().kind, Kind::TooLarge);
    assert!(send(&upstream, call(Era::Legacy)).await.is_ok());
    assert_eq!(processes.started(), 1);
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_the_processes_of_links_too_and_updates_of_the_shared_one_are_heard() {
    let processes = Processes::new(|_, mut process| {
        Box::pin(async move {
            while let Some(message) = process.read().await {
                if message["method"] == "resources/subscribe" {
                    let params = json!({"uri": "file:///a"});
                    let note = json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params});
                    process.say(&note.to_string()).await;
                    process.result(&message, json!({})).await;
                } else {
                    process.legacy(&message).await;
                }
            }
        })
    });
    let upstream = processes.upstream();
    ready(&upstream).await;
    let mut updates = upstream.updates();
    let members = Bytes::from_static(br#""uri":"file:///a""#);
    let mut reply =
        upstream.send(Outgoing::new(Era::Legacy, Method::ResourcesSubscribe, members)).await.unwrap();
    let (before, answer) = drain(&mut reply).await;
    assert!(before.is_empty() && answer.is_ok(), "an update belongs to no call");
    assert!(String::from_utf8_lossy(&updates.recv().await.unwrap()).contains("file:///a"));

    let (link, _hears) = hearing("alice", br#"{"roots":{}}"#);
    send(&upstream, linked(&link)).await.unwrap();
    assert_eq!(processes.living(), 2);
    upstream.stop();
    drop(reply);
    fake::until("all processes end", || processes.living() == 0).await;
    drop(link);
}

/// A workload that listens on a port: the connector only knows where.
struct Port(url::Url);

impl Connector for Port {
    fn connect(
        &self,
        _: &mcpmesh_ir::ServerId,
    ) -> futures_util::future::BoxFuture<'static, Result<Connected, ConnectError>> {
        let url = self.0.clone();
        Box::pin(async move { Ok(Connected::Http { url, guard: Box::new(()) }) })
    }
}

#[tokio::test]
async fn a_workload_on_a_port_is_spoken_to_over_http() {
    let fake = fake::Fake::start(|seen| Box::pin(async move { fake::modern(&seen) })).await;
    let connector = Arc::new(Port(format!("http://{}/mcp", fake.address).parse().unwrap()));
    let config = Config::new(mcpmesh_ir::ServerId::new("ns", "port"), Endpoint::Workload);
    let upstream = Upstream::start(config, Deps { connector: Some(connector), ..Deps::default() });
    assert!(ready(&upstream).await.eras.modern);
    assert!(send(&upstream, call(Era::Modern)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_process_that_comes_back_is_told_again_what_is_subscribed_to() {
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    let processes = Processes::new(move |number, mut process| {
        let heard = Arc::clone(&heard);
        Box::pin(async move {
            while let Some(message) = process.read().await {
                if message["method"] == "resources/subscribe" {
                    heard.lock().unwrap().push((number, message["params"]["uri"].clone()));
                    process.result(&message, json!({})).await;
                    continue;
                }
                process.legacy(&message).await;
                if message["method"] == "tools/call" {
                    return;
                }
            }
        })
    });
    let upstream = processes.upstream();
    ready(&upstream).await;
    // One that shares the process of all, and one that has its own.
    let mut links = Vec::new();
    for declared in [&b"{}"[..], br#"{"roots":{}}"#] {
        let (link, hears) = hearing("alice", declared);
        let members = Bytes::from_static(br#""uri":"file:///a""#);
        let mut request = Outgoing::new(Era::Legacy, Method::ResourcesSubscribe, members);
        request.name = Some("file:///a".into());
        request.session = Some(Arc::clone(&link));
        send(&upstream, request).await.unwrap();
        links.push((link, hears));
    }
    for (link, hears) in &mut links {
        let before = asked.lock().unwrap().len();
        // The process answers, and ends.
        let _ = send(&upstream, linked(link)).await;
        let told = tokio::time::timeout(PATIENCE, hears.recv()).await.unwrap().unwrap();
        assert!(
            matches!(&told.event, Event::Notification { method: Method::NotificationsResourcesUpdated, raw }
            if raw.ends_with(br#"{"uri":"file:///a"}}"#)),
            "{told:?}"
        );
        let again = asked.lock().unwrap().split_off(before);
        assert!(again.iter().all(|(number, uri)| *number >= 2 && uri == "file:///a"), "{again:?}");
        assert_eq!(again.len(), 1, "{again:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_clients_subscription_in_a_shared_process_does_not_end_with_anothers() {
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    let processes = Processes::new(move |_, mut process| {
        let heard = Arc::clone(&heard);
        Box::pin(async move {
            while let Some(message) = process.read().await {
                match message["method"].as_str() {
                    Some(method) if method.ends_with("subscribe") => {
                        heard.lock().unwrap().push(method.to_owned());
                        process.result(&message, json!({})).await;
                    }
                    _ => process.legacy(&message).await,
                }
            }
        })
    });
    let upstream = processes.upstream();
    ready(&upstream).await;
    let links: Vec<_> = (0..2).map(|_| link("alice", b"{}")).collect();
    for method in [Method::ResourcesSubscribe, Method::ResourcesUnsubscribe] {
        for link in &links {
            let members = Bytes::from_static(br#""uri":"file:///a""#);
            let mut request = Outgoing::new(Era::Legacy, method.clone(), members);
            request.name = Some("file:///a".into());
            request.session = Some(Arc::clone(link));
            assert_eq!(send(&upstream, request).await.unwrap()["result"], json!({}));
        }
    }
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked, ["resources/subscribe", "resources/subscribe", "resources/unsubscribe"]);
}

/// A modern process that tells of each resource once when it is subscribed to; the first one then crashes.
async fn tells_once(number: usize, mut process: Process, heard: Arc<std::sync::Mutex<Vec<(usize, Value)>>>) {
    while let Some(message) = process.read().await {
        let filter = &message["params"]["notifications"];
        match message["method"].as_str() {
            Some("server/discover") => {
                let capabilities = json!({"resources": {"subscribe": true}});
                let said = json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
                    "capabilities": capabilities});
                process.result(&message, said).await;
            }
            Some("resources/list") => process.result(&message, json!({"resources": []})).await,
            Some("resources/templates/list") => {
                process.result(&message, json!({"resourceTemplates": []})).await;
            }
            Some("subscriptions/listen") => {
                heard.lock().unwrap().push((number, filter["resourceSubscriptions"].clone()));
                let meta = json!({"io.modelcontextprotocol/subscriptionId": message["id"]});
                let confirmed = json!({"_meta": meta, "notifications": filter});
                let updated = json!({"_meta": meta, "uri": "file:///a"});
                for (method, params) in [
                    ("notifications/subscriptions/acknowledged", confirmed),
                    ("notifications/resources/updated", updated),
                ] {
                    let said = json!({"jsonrpc": "2.0", "method": method, "params": params});
                    process.say(&said.to_string()).await;
                }
                if number == 0 {
                    return;
                }
            }
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_at_a_modern_process_outlives_it() {
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    let processes =
        Processes::new(move |number, process| Box::pin(tells_once(number, process, Arc::clone(&heard))));
    let upstream = processes.upstream();
    ready(&upstream).await;
    let mut subscription = upstream.subscribe(vec!["file:///a".to_owned()], None);
    assert_eq!(subscription.settle(PATIENCE).await, ["file:///a"]);
    // What the process said before its end, what may have been missed, and what the next one says.
    for _ in 0..3 {
        let told = tokio::time::timeout(PATIENCE, subscription.next()).await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&told).contains("file:///a"));
    }
    assert_eq!(*asked.lock().unwrap(), [(0, json!(["file:///a"])), (1, json!(["file:///a"]))]);
}
