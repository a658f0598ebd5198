//! Deadlines, breakers, sizes: what a bad server can not do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use mcpmesh_proxy::mcp::envelope::Method;
use mcpmesh_proxy::mcp::era::Era;
use mcpmesh_proxy::upstream::*;
use serde_json::json;

use super::fake::{self, Fake, call, data, event_stream, events, modern, observe, ready, send, status};

#[tokio::test]
async fn a_hung_server_delays_no_other_and_its_breaker_opens() {
    let hung = Fake::start(|seen| {
        Box::pin(async move {
            if seen.method() == "tools/call" { std::future::pending().await } else { modern(&seen) }
        })
    })
    .await;
    let good = Fake::start(|seen| Box::pin(async move { modern(&seen) })).await;
    let mut config = hung.config("/mcp", Transport::Auto);
    config.timeouts.first_byte = Duration::from_millis(300);
    let (hung, good) = (Upstream::start(config, Deps::default()), good.upstream());
    tokio::join!(ready(&hung), ready(&good));
    let hanging = async {
        let mut last = None;
        for _ in 0..6 {
            last = Some(send(&hung, call(Era::Modern)).await.unwrap_err());
        }
        last.unwrap()
    };
    let working = async {
        for _ in 0..50 {
            send(&good, call(Era::Modern)).await.unwrap();
        }
    };
    let (last, ()) = tokio::join!(hanging, working);
    assert_eq!(last.kind, Kind::CircuitOpen);
    assert!(last.retry_after.is_some() && !last.executed);
}

#[tokio::test]
async fn a_call_that_is_late_may_have_run() {
    let fake = Fake::start(|seen| {
        Box::pin(async move {
            if seen.method() == "tools/call" { std::future::pending().await } else { modern(&seen) }
        })
    })
    .await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    let mut request = call(Era::Modern);
    request.deadline = Some(Duration::from_millis(50));
    let late = send(&upstream, request).await.unwrap_err();
    assert_eq!((late.kind, late.executed), (Kind::Timeout(Phase::Total), true));
}

#[tokio::test]
async fn an_event_without_an_end_is_cut_at_the_limit() {
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let fake = Fake::start(move |seen| {
        let count = Arc::clone(&count);
        Box::pin(async move {
            if seen.method() != "tools/call" {
                return modern(&seen);
            }
            // A gigabyte of `data: xxxx` without a newline.
            let chunk = Bytes::from(vec![b'x'; 64 << 10]);
            event_stream(stream::iter((0..16_384).map(move |_| {
                count.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                Ok(chunk.clone())
            })))
        })
    })
    .await;
    let mut config = fake.config("/mcp", Transport::Auto);
    config.max_response_bytes = 1 << 20;
    let upstream = Upstream::start(config, Deps::default());
    ready(&upstream).await;
    let cut = send(&upstream, call(Era::Modern)).await.unwrap_err();
    assert_eq!((cut.kind, cut.executed), (Kind::TooLarge, true));
    assert!(sent.load(Ordering::Relaxed) < 64 << 20, "the server was stopped, not drained");
}

#[tokio::test]
async fn a_json_body_is_handed_on_unread_and_cut_at_the_limit() {
    let fake = Fake::start(|seen| {
        Box::pin(async move {
            if seen.method() != "tools/call" {
                return modern(&seen);
            }
            let mut answer = event_stream(stream::repeat_with(|| Ok(Bytes::from(vec![b' '; 64 << 10]))));
            answer.headers_mut().insert("content-type", "application/json".parse().unwrap());
            answer
        })
    })
    .await;
    let mut config = fake.config("/mcp", Transport::Auto);
    config.max_response_bytes = 1 << 20;
    let upstream = Upstream::start(config, Deps::default());
    ready(&upstream).await;
    let mut reply = upstream.send(call(Era::Modern)).await.unwrap();
    let Some(Ok(Event::Response(Body::Stream(body)))) = reply.next().await else { panic!("a stream") };
    assert_eq!(Body::Stream(body).collect().await.unwrap_err().kind, Kind::TooLarge);
}

#[tokio::test]
async fn a_completion_has_a_limit_of_its_own_and_a_result_that_long_passes() {
    for (padding, most) in [(1 << 19, true), (1 << 21, false)] {
        for streamed in [false, true] {
            let fake = Fake::start(move |seen| {
                Box::pin(async move {
                    let message = json!({"jsonrpc": "2.0", "id": seen.body["id"], "result": {"completion":
                        {"values": ["x".repeat(padding)]}}});
                    match seen.method() {
                        "completion/complete" | "tools/call" if streamed => events(vec![data(&message)]),
                        "completion/complete" | "tools/call" => fake::json(200, &message),
                        _ => modern(&seen),
                    }
                })
            })
            .await;
            let upstream = fake.upstream();
            ready(&upstream).await;
            let completion = Outgoing::new(Era::Modern, Method::CompletionComplete, Bytes::new());
            match send(&upstream, completion).await {
                Ok(answer) => assert!(most && answer["result"].is_object(), "{padding}"),
                Err(error) => assert_eq!((error.kind, most), (Kind::TooLarge, false)),
            }
            assert!(send(&upstream, call(Era::Modern)).await.unwrap()["result"].is_object());
        }
    }
}

#[tokio::test]
async fn a_compressed_answer_is_not_unpacked() {
    let fake = Fake::start(|seen| {
        Box::pin(async move {
            let mut answer = modern(&seen);
            if seen.method() == "tools/call" {
                answer.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
            }
            answer
        })
    })
    .await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    assert!(matches!(send(&upstream, call(Era::Modern)).await.unwrap_err().kind, Kind::Protocol(_)));
}

#[tokio::test]
async fn the_egress_rule_is_held_at_connect() {
    let fake = Fake::start(|seen| Box::pin(async move { modern(&seen) })).await;
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0x7f.1", "2130706433"] {
        let mut config = fake.config("/mcp", Transport::Auto);
        let url = format!("http://{host}:{}/mcp", fake.address.port());
        config.endpoint = Endpoint::Remote { url: url.parse().unwrap(), transport: Transport::Auto };
        config.egress = mcpmesh_ir::EgressRule::default();
        let upstream = Upstream::start(config, Deps::default());
        let seen = observe(&upstream, |one| matches!(one.state, State::Failed { .. })).await;
        let State::Failed { reason, .. } = &seen.state else { panic!() };
        assert!(reason.contains("egress"), "{host}: {reason}");
    }
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn more_calls_than_may_wait_are_refused_at_once() {
    let fake = Fake::start(|seen| {
        Box::pin(async move {
            if seen.method() == "tools/call" { std::future::pending().await } else { modern(&seen) }
        })
    })
    .await;
    let mut config = fake.config("/mcp", Transport::Auto);
    config.max_in_flight = 1;
    let upstream = Upstream::start(config, Deps::default());
    ready(&upstream).await;
    let calls =
        futures_util::future::select_all((0..3).map(|_| Box::pin(send(&upstream, call(Era::Modern)))));
    let (first, ..) = calls.await;
    assert_eq!(first.unwrap_err().kind, Kind::Overloaded);
}

#[tokio::test]
async fn nobody_waits_for_ever_for_a_server_that_never_was_there() {
    let fake = Fake::start(|_| Box::pin(async { status(503, "") })).await;
    let mut config = fake.config("/mcp", Transport::Auto);
    config.timeouts.connect = Duration::from_millis(200);
    let upstream = Upstream::start(config, Deps::default());
    let failed = send(&upstream, call(Era::Modern)).await.unwrap_err();
    assert!(matches!(failed.kind, Kind::Connect(_)) && !failed.executed, "{failed}");
    upstream.stop();
    assert!(!send(&upstream, call(Era::Modern)).await.unwrap_err().executed);
}
