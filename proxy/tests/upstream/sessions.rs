//! Legacy sessions over Streamable HTTP: links, their own streams, lost sessions, resumption.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Method as Verb;
use mcpmesh_proxy::mcp::envelope::Method;
use mcpmesh_proxy::mcp::era::{Era, Revision};
use mcpmesh_proxy::mcp::meta::Capabilities;
use mcpmesh_proxy::upstream::*;
use serde_json::json;

use super::fake::{
    self, Fake, call, data, drain, events, fed, hearing, json, legacy, linked, ready, send, status,
};

#[tokio::test]
async fn a_link_has_a_session_and_a_stream_of_its_own_that_end_with_it() {
    let streams = Arc::new(Mutex::new(Vec::new()));
    let open = Arc::clone(&streams);
    let fake = Fake::start(move |seen| {
        let open = Arc::clone(&open);
        Box::pin(async move {
            if seen.verb != Verb::GET {
                return legacy(&seen);
            }
            let (feed, answer) = fed();
            open.lock().unwrap().push(feed);
            answer
        })
    })
    .await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    fake::until("the observer's stream", || streams.lock().unwrap().len() == 1).await;
    let (link, mut hears) = hearing("alice", br#"{"roots":{}}"#);
    send(&upstream, linked(&link)).await.unwrap();
    let opened = fake.seen().into_iter().rfind(|seen| seen.method() == "initialize").unwrap();
    assert_eq!(opened.body["params"]["capabilities"], json!({"roots": {}}));
    fake::until("the link's stream", || streams.lock().unwrap().len() == 2).await;

    let feed = streams.lock().unwrap()[1].clone();
    feed.send(data(&json!({"jsonrpc": "2.0", "id": 5, "method": "roots/list"}))).unwrap();
    let said = hears.recv().await.unwrap();
    assert_eq!(said.server.name, "fake");
    assert!(matches!(said.event, Event::Request { method: Method::RootsList, .. }));
    said.answerer
        .send(Bytes::from_static(br#"{"jsonrpc":"2.0","id":5,"result":{"roots":[]}}"#))
        .await
        .unwrap();
    assert_eq!(fake.seen().pop().unwrap().body["id"], 5);
    feed.send(data(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}}))).unwrap();
    let said = hears.recv().await.unwrap();
    assert!(matches!(said.event, Event::Notification { method: Method::NotificationsMessage, .. }));

    upstream.notify(&link, &Method::NotificationsRootsListChanged, b"").await.unwrap();
    assert_eq!(fake.seen().pop().unwrap().method(), "notifications/roots/list_changed");
    drop(link);
    fake::until("the session is deleted", || fake.methods().contains(&"DELETE".to_owned())).await;
    fake::until("its stream closes", || feed.is_closed()).await;
}

#[tokio::test]
async fn a_server_that_asks_without_end_and_takes_no_answer_costs_a_bounded_number_of_them() {
    let (streams, answers) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let taken = Arc::new(tokio::sync::Semaphore::new(0));
    let (open, count, takes) = (Arc::clone(&streams), Arc::clone(&answers), Arc::clone(&taken));
    let fake = Fake::start(move |seen| {
        let (open, count, takes) = (Arc::clone(&open), Arc::clone(&count), Arc::clone(&takes));
        Box::pin(async move {
            if seen.verb == Verb::GET {
                let (feed, answer) = fed();
                open.lock().unwrap().push(feed);
                return answer;
            }
            if seen.verb != Verb::POST || seen.body.get("method").is_some() {
                return legacy(&seen);
            }
            count.fetch_add(1, Ordering::Relaxed);
            takes.acquire().await.unwrap().forget();
            status(202, "")
        })
    })
    .await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    fake::until("the observer's stream", || streams.lock().unwrap().len() == 1).await;
    let feed = streams.lock().unwrap()[0].clone();
    let ask = |id: &str| feed.send(data(&json!({"jsonrpc": "2.0", "id": id, "method": "ping"}))).unwrap();
    let lists = || fake.methods().iter().filter(|method| *method == "POST tools/list").count();
    let before = lists();
    (0..2000).for_each(|_| ask("many"));
    // What comes after them shows that all of them have been heard.
    feed.send(data(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}))).unwrap();
    fake::until("the list is read again", || lists() > before).await;
    fake::until("as many answers as may wait", || answers.load(Ordering::Relaxed) >= 256).await;
    taken.add_permits(1 << 20);
    let of = |seen: &fake::Seen| seen.body["id"] == "last";
    fake::until("there is room again", || {
        ask("last");
        fake.seen().iter().any(of)
    })
    .await;
    let many = fake.seen().iter().filter(|seen| seen.body["id"] == "many").count();
    assert_eq!(many, 256);
}

#[tokio::test]
async fn a_changed_list_on_the_observers_stream_is_read_again() {
    let streams = Arc::new(Mutex::new(Vec::new()));
    let count = Arc::new(AtomicUsize::new(1));
    let (open, tools) = (Arc::clone(&streams), Arc::clone(&count));
    let fake = Fake::start(move |seen| {
        let (open, tools) = (Arc::clone(&open), Arc::clone(&tools));
        Box::pin(async move {
            if seen.method() == "tools/list" {
                let listed: Vec<_> =
                    (0..tools.load(Ordering::Relaxed)).map(|nth| fake::tool(&format!("t{nth}"))).collect();
                return fake::result(&seen, json!({"tools": listed}));
            }
            if seen.verb != Verb::GET {
                return legacy(&seen);
            }
            let (feed, answer) = fed();
            open.lock().unwrap().push(feed);
            answer
        })
    })
    .await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    fake::until("a stream", || streams.lock().unwrap().len() == 1).await;
    count.store(3, Ordering::Relaxed);
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    streams.lock().unwrap()[0].send(data(&changed)).unwrap();
    assert_eq!(fake::observe(&upstream, |one| one.lists.tools.len() == 3).await.state, State::Ready);
}

#[tokio::test]
async fn a_forgotten_session_is_opened_again_once_whatever_the_status() {
    for code in [404, 400] {
        let forgotten = Arc::new(AtomicUsize::new(0));
        let known = Arc::clone(&forgotten);
        let fake = Fake::start(move |seen| {
            let known = Arc::clone(&known);
            Box::pin(async move {
                if seen.method() == "tools/call" && known.fetch_add(1, Ordering::Relaxed) == 0 {
                    let message = "Bad Request: No valid session ID provided";
                    let error = json!({"code": -32000, "message": message});
                    return json(code, &json!({"jsonrpc": "2.0", "error": error, "id": null}));
                }
                legacy(&seen)
            })
        })
        .await;
        let upstream = fake.upstream();
        ready(&upstream).await;
        let (link, _hears) = hearing("alice", b"{}");
        assert!(send(&upstream, linked(&link)).await.unwrap()["result"].is_object());
        let methods = fake.methods();
        assert_eq!(methods.iter().filter(|method| *method == "POST tools/call").count(), 2);
        assert_eq!(methods.iter().filter(|method| *method == "POST initialize").count(), 3);
        assert!(!methods.contains(&"POST notifications/cancelled".to_owned()));
    }
}

#[tokio::test]
async fn a_broken_stream_is_taken_up_where_it_broke_off() {
    let fake = Fake::start(|seen| {
        Box::pin(async move {
            if seen.verb == Verb::GET {
                return match seen.header("last-event-id") {
                    Some("e-1") => {
                        // Its id is not the point here: there is one open call.
                        let answer = json!({"jsonrpc": "2.0", "id": null, "result": {"late": true}});
                        events(vec![format!("id: e-2\n{}", data(&answer))])
                    }
                    _ => status(405, ""),
                };
            }
            if seen.method() == "tools/call" {
                return events(vec!["id: e-1\nretry: 1\ndata:\n\n"]);
            }
            legacy(&seen)
        })
    })
    .await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    assert_eq!(send(&upstream, call(Era::Legacy)).await.unwrap()["result"]["late"], true);
}

#[tokio::test]
async fn a_server_that_closes_the_stream_after_each_event_is_polled_until_it_answers() {
    const POLLS: usize = 20;
    let fake = Fake::start(|seen| {
        Box::pin(async move {
            let last =
                seen.header("last-event-id").and_then(|id| id.strip_prefix("e-")?.parse::<usize>().ok());
            match last {
                // The answer to the one call that is open.
                Some(POLLS) => {
                    events(vec![data(&json!({"jsonrpc": "2.0", "id": null, "result": {"late": true}}))])
                }
                Some(last) => {
                    let note = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}});
                    events(vec![format!("id: e-{}\nretry: 1\n{}", last + 1, data(&note))])
                }
                None if seen.method() == "tools/call" => {
                    events(vec!["id: e-1\nretry: 1\ndata:\n\n".to_owned()])
                }
                None => legacy(&seen),
            }
        })
    })
    .await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    let (said, answer) = drain(&mut upstream.send(call(Era::Legacy)).await.unwrap()).await;
    assert_eq!((said.len(), &answer.unwrap()["result"]["late"]), (POLLS - 1, &json!(true)));
}

#[tokio::test]
async fn a_server_that_only_makes_us_resume_is_given_up_and_its_call_cancelled() {
    let fake = Fake::start(|seen| {
        Box::pin(async move {
            let resumed = seen.header("last-event-id").is_some();
            if resumed || seen.method() == "tools/call" {
                return events(vec!["id: e-1\nretry: 0\ndata:\n\n"]);
            }
            legacy(&seen)
        })
    })
    .await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    let failed = send(&upstream, call(Era::Legacy)).await.unwrap_err();
    assert_eq!((failed.kind, failed.executed), (Kind::Reset, true));
    fake::until("the call is cancelled", || {
        fake.methods().contains(&"POST notifications/cancelled".to_owned())
    })
    .await;
    let resumed = fake.seen().iter().filter(|seen| seen.header("last-event-id").is_some()).count();
    assert!((2..30).contains(&resumed), "{resumed}");
}

#[tokio::test]
async fn a_stream_without_ids_that_breaks_is_a_reset_of_a_call_that_may_have_run() {
    let fake = Fake::start(|seen| {
        Box::pin(async move {
            if seen.method() == "tools/call" { events(vec![": only a comment\n\n"]) } else { legacy(&seen) }
        })
    })
    .await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    let failed = send(&upstream, call(Era::Legacy)).await.unwrap_err();
    assert_eq!((failed.kind, failed.executed), (Kind::Reset, true));
}

#[tokio::test]
async fn a_dropped_reply_cancels_in_the_session_and_a_detached_one_does_not() {
    let fake = Fake::start(|seen| {
        Box::pin(async move {
            if seen.method() != "tools/call" {
                return legacy(&seen);
            }
            let (feed, answer) = fed();
            let note = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}});
            feed.send(data(&note)).unwrap();
            tokio::spawn(async move { feed.closed().await });
            answer
        })
    })
    .await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    let kept = upstream.send(call(Era::Legacy)).await.unwrap();
    kept.detach();
    let dropped = upstream.send(call(Era::Legacy)).await.unwrap();
    let id = dropped.upstream_id();
    drop(dropped);
    let cancels = || {
        fake.seen().into_iter().filter(|seen| seen.method() == "notifications/cancelled").collect::<Vec<_>>()
    };
    fake::until("a cancellation", || !cancels().is_empty()).await;
    assert_eq!(cancels().len(), 1);
    assert_eq!(cancels()[0].body["params"]["requestId"], id);
}

/// A server whose sessions are numbered. Calls of `wait` never end; a session in which one was cancelled answers nothing
/// any more, but a ping if it `answers_pings`.
async fn poisoned_by_cancels(answers_pings: bool) -> Fake {
    let (opened, dead) = (AtomicUsize::new(0), Mutex::new(std::collections::BTreeSet::new()));
    Fake::start(move |seen| {
        let session = seen.header("mcp-session-id").unwrap_or_default().to_owned();
        let answer = match seen.method() {
            "initialize" => {
                let mut answer = legacy(&seen);
                let name = format!("s-{}", opened.fetch_add(1, Ordering::Relaxed));
                answer.headers_mut().insert("mcp-session-id", name.parse().unwrap());
                answer
            }
            "notifications/cancelled" => {
                dead.lock().unwrap().insert(session);
                legacy(&seen)
            }
            "ping" if answers_pings => legacy(&seen),
            "tools/call" if seen.body["params"]["arguments"]["wait"] == true => {
                let (feed, answer) = fed();
                tokio::spawn(async move { feed.closed().await });
                answer
            }
            _ if seen.verb == Verb::POST && dead.lock().unwrap().contains(&session) => {
                events::<String>(Vec::new())
            }
            _ => legacy(&seen),
        };
        Box::pin(async move { answer })
    })
    .await
}

/// Gives up a call in the session that callers share, and returns the name of the session.
async fn given_up(upstream: &Upstream, fake: &Fake) -> String {
    let members = Bytes::from_static(br#""name":"echo","arguments":{"wait":true}"#);
    drop(upstream.send(Outgoing::new(Era::Modern, Method::ToolsCall, members)).await.unwrap());
    fake::until("a ping", || fake.methods().contains(&"POST ping".to_owned())).await;
    let ping = fake.seen().into_iter().find(|seen| seen.method() == "ping").unwrap();
    ping.header("mcp-session-id").unwrap().to_owned()
}

#[tokio::test]
async fn a_shared_session_that_dies_of_a_cancel_is_replaced_before_others_fail_in_it() {
    let fake = poisoned_by_cancels(false).await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    let died = given_up(&upstream, &fake).await;
    let ended = |seen: &fake::Seen| seen.verb == Verb::DELETE && seen.header("mcp-session-id") == Some(&died);
    fake::until("the dead session is ended", || fake.seen().iter().any(ended)).await;
    send(&upstream, call(Era::Modern)).await.unwrap();
    let call = fake.seen().into_iter().rfind(|seen| seen.method() == "tools/call").unwrap();
    assert_ne!(call.header("mcp-session-id"), Some(&*died));
}

#[tokio::test]
async fn a_session_that_answers_after_a_cancel_is_kept() {
    let fake = poisoned_by_cancels(true).await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    let session = given_up(&upstream, &fake).await;
    // It answers pings only.
    send(&upstream, call(Era::Modern)).await.unwrap_err();
    let call = fake.seen().into_iter().rfind(|seen| seen.method() == "tools/call").unwrap();
    assert_eq!(call.header("mcp-session-id"), Some(&*session));
    assert!(
        !fake
            .seen()
            .iter()
            .any(|seen| seen.verb == Verb::DELETE && seen.header("mcp-session-id") == Some(&session))
    );
}

#[tokio::test]
async fn a_server_that_names_an_older_version_instead_of_choosing_it_gets_it() {
    let fake = Fake::start(|seen| {
        Box::pin(async move {
            if seen.method() != "initialize" {
                return legacy(&seen);
            }
            let requested = seen.body["params"]["protocolVersion"].clone();
            if requested != "2025-03-26" {
                let data = json!({"supported": ["2024-11-05", "2025-03-26"], "requested": requested});
                return fake::error(
                    200,
                    &seen,
                    json!({"code": -32602, "message": "Unsupported", "data": data}),
                );
            }
            let said = json!({"protocolVersion": requested, "capabilities": {"tools": {}}, "serverInfo": {}});
            let mut answer = fake::result(&seen, said);
            answer.headers_mut().insert("mcp-session-id", "s".parse().unwrap());
            answer
        })
    })
    .await;
    let upstream = fake.upstream();
    assert_eq!(ready(&upstream).await.eras.legacy, Some(Revision::V2025_03_26));
    let sent = fake.seen().into_iter().find(|seen| seen.method() == "tools/list").unwrap();
    assert!(sent.header("mcp-protocol-version").is_none(), "the header is younger than that");
}

#[tokio::test]
async fn a_question_on_the_sessions_stream_reaches_the_call_that_waits_for_headers() {
    let streams = Arc::new(Mutex::new(Vec::new()));
    let (open, answered) = (Arc::clone(&streams), Arc::new(tokio::sync::Notify::new()));
    let bell = Arc::clone(&answered);
    let fake = Fake::start(move |seen| {
        let (open, bell) = (Arc::clone(&open), Arc::clone(&bell));
        Box::pin(async move {
            if seen.verb == Verb::GET {
                let (feed, answer) = fed();
                open.lock().unwrap().push(feed);
                return answer;
            }
            if seen.method() == "tools/call" {
                let ask = json!({"jsonrpc": "2.0", "id": 9, "method": "elicitation/create", "params": {}});
                // On each open stream: only the caller's own session may take it.
                let feed = open.lock().unwrap().last().cloned().unwrap();
                feed.send(data(&ask)).unwrap();
                bell.notified().await;
                return legacy(&seen);
            }
            if seen.body["result"].is_object() {
                bell.notify_one();
                return status(202, "");
            }
            legacy(&seen)
        })
    })
    .await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    let mut request = call(Era::Modern);
    request.capabilities = Capabilities::new(Bytes::from_static(br#"{"elicitation":{"form":{}}}"#));
    // The session must have its stream before the call, as a real server's would.
    let warm = async {
        let mut list = Outgoing::new(Era::Modern, Method::ToolsList, Bytes::new());
        list.capabilities = request.capabilities.clone();
        send(&upstream, list).await.unwrap();
        fake::until("two streams", || streams.lock().unwrap().len() == 2).await;
    };
    warm.await;
    let mut reply = upstream.send(request).await.unwrap();
    let Some(Ok(Event::Request { method: Method::ElicitationCreate, .. })) = reply.next().await else {
        panic!("the question")
    };
    let answer = Bytes::from_static(br#"{"jsonrpc":"2.0","id":9,"result":{"action":"decline"}}"#);
    reply.answerer().unwrap().send(answer).await.unwrap();
    assert!(drain(&mut reply).await.1.unwrap()["result"].is_object());
}
