//! HTTP+SSE (2024-11-05), found and forced.

use std::sync::{Arc, Mutex};

use http::Method as Verb;
use mcpmesh_proxy::mcp::era::{Era, Revision};
use mcpmesh_proxy::upstream::*;
use serde_json::json;
use tokio::sync::mpsc::UnboundedSender;

use super::fake::{self, Answer, Fake, Seen, call, data, fed, observe, ready, send, status, tool};

type Stream = Arc<Mutex<Option<UnboundedSender<String>>>>;

/// A server of 2024-11-05: GET /sse, POST /messages.
fn old(seen: &Seen, stream: &Stream, endpoint: &str) -> Answer {
    if seen.verb == Verb::GET {
        let (feed, answer) = fed();
        feed.send(format!("event: endpoint\ndata: {endpoint}\n\n")).unwrap();
        *stream.lock().unwrap() = Some(feed);
        return answer;
    }
    if !seen.path.starts_with("/messages") {
        return status(405, "Method Not Allowed");
    }
    let result = match seen.method() {
        "initialize" => {
            json!({"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}, "serverInfo": {"name": "o", "version": "1"}})
        }
        "tools/list" => json!({"tools": [tool("echo")]}),
        "tools/call" => json!({"content": []}),
        _ => return status(202, "Accepted"),
    };
    let message = json!({"jsonrpc": "2.0", "id": seen.body["id"], "result": result});
    let text = format!("event: message\r\n{}", data(&message));
    let _ = stream.lock().unwrap().as_ref().unwrap().send(text);
    status(202, "Accepted")
}

async fn server(endpoint: &'static str) -> (Fake, Stream) {
    let stream = Stream::default();
    let handle = Arc::clone(&stream);
    let fake = Fake::start(move |seen| {
        let stream = Arc::clone(&handle);
        Box::pin(async move { old(&seen, &stream, endpoint) })
    });
    (fake.await, stream)
}

#[tokio::test]
async fn is_found_behind_a_405_and_called_over_its_stream() {
    let (fake, _stream) = server("/messages?session=1").await;
    let upstream = Upstream::start(fake.config("/sse", Transport::Auto), Deps::default());
    let seen = ready(&upstream).await;
    assert_eq!(seen.eras, Eras { modern: false, legacy: Some(Revision::V2024_11_05) });
    let (one, two) = tokio::join!(send(&upstream, call(Era::Modern)), send(&upstream, call(Era::Legacy)));
    assert!(one.unwrap()["result"].is_object() && two.unwrap()["result"].is_object());
    assert_eq!(fake.seen().pop().unwrap().path, "/messages?session=1");
}

#[tokio::test]
async fn can_be_forced_which_spares_the_probe() {
    let (fake, _stream) = server("/messages").await;
    let upstream = Upstream::start(fake.config("/sse", Transport::Sse), Deps::default());
    ready(&upstream).await;
    assert!(!fake.methods().contains(&"POST server/discover".to_owned()));
}

#[tokio::test]
async fn an_endpoint_on_another_origin_is_refused() {
    let (fake, _stream) = server("http://127.0.0.2:1/messages").await;
    let upstream = Upstream::start(fake.config("/sse", Transport::Sse), Deps::default());
    let seen = observe(&upstream, |one| matches!(one.state, State::Failed { .. })).await;
    let State::Failed { reason, .. } = &seen.state else { panic!() };
    assert!(reason.contains("another origin"), "{reason}");
}

#[tokio::test]
async fn a_lost_stream_fails_its_calls_and_is_opened_again() {
    let (fake, stream) = server("/messages").await;
    let upstream = Upstream::start(fake.config("/sse", Transport::Sse), Deps::default());
    let first = ready(&upstream).await;
    drop(stream.lock().unwrap().take());
    observe(&upstream, |one| matches!(one.state, State::Failed { .. })).await;
    let again = ready(&upstream).await;
    assert_eq!(first.generation, again.generation);
    assert!(send(&upstream, call(Era::Legacy)).await.is_ok());
    drop(fake);
}

#[tokio::test]
async fn a_post_that_is_refused_fails_its_call_only() {
    let stream = Stream::default();
    let handle = Arc::clone(&stream);
    let fake = Fake::start(move |seen| {
        let stream = Arc::clone(&handle);
        Box::pin(async move {
            if seen.method() == "tools/call" { status(500, "") } else { old(&seen, &stream, "/messages") }
        })
    })
    .await;
    let upstream = Upstream::start(fake.config("/sse", Transport::Sse), Deps::default());
    ready(&upstream).await;
    assert_eq!(send(&upstream, call(Era::Legacy)).await.unwrap_err().kind, Kind::Status(500));
    fake::until("still there", || upstream.observation().borrow().state == State::Ready).await;
}
