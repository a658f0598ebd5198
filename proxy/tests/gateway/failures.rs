//! failures.md: what happens when servers, clients or the process itself end in the middle.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::fake::{self, Catalogue, Fake, Speaks, data, fed};
use super::harness::{Gate, soon, until};
use super::setup::{Setup, server};

#[tokio::test]
async fn a_hanging_server_costs_its_own_callers_one_error_and_nobody_else_anything() {
    for speaks in [Speaks::Modern, Speaks::Legacy] {
        let hangs = Fake::start(speaks, Catalogue::tools(&["x"])).await;
        hangs.hook(|seen| (seen.method() == "tools/call").then(|| std::future::pending().boxed()));
        let fine = Fake::modern(&["x"]).await;
        let mut setup = Setup::open(&[&hangs, &fine]);
        setup.servers[0].timeouts.first_byte_ms = 1_500;
        let gate = Gate::start(&setup).await;
        let modern = gate.modern(None);
        let legacy = gate.legacy(None, "2025-11-25").await;
        let params = json!({"name": "s0_x", "arguments": {}});
        let hanging = async {
            let ask = gate.ask(modern.request("c-1", "tools/call", &params));
            futures_util::join!(ask, legacy.ask_as("c-2", "tools/call", params.clone()))
        };
        let (tell, mut told) = watch::channel(false);
        let others = async {
            hangs
                .until("the hanging calls", |seen| {
                    seen.iter().filter(|seen| seen.method() == "tools/call").count() == 2
                })
                .await;
            for _ in 0..20 {
                assert_eq!(modern.call("s1_x", json!({})).await.status, 200);
                assert_eq!(legacy.call("s1_x", json!({})).await.status, 200);
            }
            assert_eq!(modern.tools().await, ["s0_x", "s1_x"]);
            tell.send_replace(true);
        };
        let ((one, two), ()) = futures_util::join!(hanging, others);
        soon("the others", told.wait_for(|done| *done)).await.unwrap();
        for (answered, id) in [(one, "c-1"), (two, "c-2")] {
            assert_eq!((answered.code(), &answered.json()["id"]), (-32603, &json!(id)), "{speaks:?}");
        }
    }
}

#[tokio::test]
async fn a_server_that_breaks_off_is_never_taken_for_one_that_finished() {
    let fake = Fake::modern(&["json", "events", "first"]).await;
    let (json_feed, json_body) = fed();
    let (event_feed, event_body) = fed();
    let (first_feed, first_body) = fed();
    let bodies = parking_lot::Mutex::new((Some(json_body), Some(event_body), Some(first_body)));
    fake.hook(move |seen| {
        let mut bodies = bodies.lock();
        match seen.body["params"]["name"].as_str()? {
            "json" => {
                let body = bodies.0.take()?;
                Some(async { fake::json_stream(body) }.boxed())
            }
            "events" => {
                let body = bodies.1.take()?;
                Some(async { fake::event_stream(body) }.boxed())
            }
            _ => {
                let body = bodies.2.take()?;
                Some(async { fake::json_stream(body) }.boxed())
            }
        }
    });
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let modern = gate.modern(None);
    // In the middle of a body that is on its way: the client's breaks off, too.
    json_feed
        .send(Ok(format!(r#"{{"jsonrpc":"2.0","result":{{"content":[],"x":"{}"#, "y".repeat(1000))))
        .unwrap();
    let sent = gate.send(modern.request(1, "tools/call", &json!({"name": "s0_json"}))).await;
    assert_eq!(sent.status(), 200);
    json_feed.send(Err(())).unwrap();
    let read = soon("the broken body", http_body_util::BodyExt::collect(sent.into_body())).await;
    assert!(read.is_err(), "a part is not taken for all");
    // In the middle of events: an error under the client's id, then the end.
    let progress =
        json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "error", "data": 1}});
    event_feed.send(Ok(data(&progress))).unwrap();
    let params = json!({"name": "s0_events", "_meta": {"io.modelcontextprotocol/logLevel": "info"}});
    let mut events = modern.open("e", "tools/call", params).await;
    assert_eq!(events.expect("the log message").await["params"]["data"], 1);
    event_feed.send(Err(())).unwrap();
    let last = events.expect("the error").await;
    assert_eq!((&last["id"], &last["error"]["code"]), (&json!("e"), &json!(-32603)));
    assert!(events.next().await.is_none());
    // Before the first byte of a body: an error.
    first_feed.send(Err(())).unwrap();
    let answered = modern.call("s0_first", json!({})).await;
    assert_eq!(answered.code(), -32603);
    assert_eq!(fake.calls().len(), 3, "no call was sent twice");
}

#[tokio::test]
async fn a_response_that_ends_in_the_middle_is_recorded_as_its_servers_error() {
    let fake = Fake::modern(&["short"]).await;
    let (feed, body) = fed();
    let body = parking_lot::Mutex::new(Some(body));
    fake.hook(move |seen| {
        let body = body.lock().take_if(|_| seen.method() == "tools/call")?;
        Some(async { fake::json_stream(body) }.boxed())
    });
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    feed.send(Ok(format!(r#"{{"jsonrpc":"2.0","result":{{"x":"{}"#, "y".repeat(1000)))).unwrap();
    let request = gate.modern(None).request(1, "tools/call", &json!({"name": "s0_short"}));
    let sent = gate.send(request).await;
    drop(feed);
    let read = soon("the broken body", http_body_util::BodyExt::collect(sent.into_body())).await;
    assert!(read.is_err(), "a part is not taken for all");
    until("it is logged", || gate.log.text().contains("tools/call")).await;
    let recorded = gate.log.lines().into_iter().rfind(|line| line["method"] == "tools/call").unwrap();
    assert_eq!(recorded["outcome"], "upstream_error");
}

#[tokio::test]
async fn the_access_log_has_the_status_that_the_client_was_sent() {
    let fake = Fake::modern(&["gone"]).await;
    fake.hook(|seen| {
        (seen.method() == "tools/call").then_some(())?;
        let answer = fake::error(404, &seen, json!({"code": -32601, "message": "Method not found"}));
        Some(async { answer }.boxed())
    });
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let answered = gate.modern(None).call("s0_gone", json!({})).await;
    assert_eq!((answered.status.as_u16(), answered.code()), (404, -32601));
    until("it is logged", || gate.log.text().contains("tools/call")).await;
    let recorded = gate.log.lines().into_iter().rfind(|line| line["method"] == "tools/call").unwrap();
    assert_eq!((&recorded["outcome"], &recorded["status"]), (&json!("upstream_error"), &json!(404)));
}

#[tokio::test]
async fn a_server_that_says_when_to_come_again_is_quoted_in_both_eras_and_opens_no_circuit() {
    let fake = Fake::modern(&["limited", "starting", "down"]).await;
    fake.hook(|seen| {
        (seen.method() == "tools/call").then_some(())?;
        let (code, after) = match seen.body["params"]["name"].as_str()? {
            "limited" => (429, Some("7")),
            "starting" => (503, Some("99999")),
            _ => (503, None),
        };
        let mut answer = fake::status(code, "");
        if let Some(after) = after {
            answer.headers_mut().insert("retry-after", after.parse().unwrap());
        }
        Some(async { answer }.boxed())
    });
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let (modern, legacy) = (gate.modern(None), gate.legacy(None, "2025-11-25").await);
    // More than it takes to open a circuit.
    for _ in 0..20 {
        assert_eq!(modern.call("s0_limited", json!({})).await.status, 429);
    }
    for (name, status, code, after) in [
        ("s0_limited", 429, 42900, Some("7")),
        ("s0_starting", 503, 50300, Some("3600")),
        ("s0_down", 200, -32603, None),
    ] {
        for answered in [modern.call(name, json!({})).await, legacy.call(name, json!({})).await] {
            assert_eq!((answered.status.as_u16(), answered.code()), (status, code), "{name}");
            assert_eq!(answered.header("retry-after"), after, "{name}");
            let precise = answered.json()["error"]["data"]["retryAfterMs"].as_u64();
            assert_eq!(precise, after.map(|after| after.parse::<u64>().unwrap() * 1000), "{name}");
        }
    }
}

#[tokio::test]
async fn one_bad_server_of_many_is_named_and_the_others_work() {
    let fakes = [Fake::modern(&["x"]).await, Fake::legacy(&["x"]).await, Fake::modern(&["x"]).await];
    let mut setup = Setup::open(&[&fakes[0], &fakes[1], &fakes[2]]);
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    setup.servers.push(server("refuses", "http://127.0.0.1:1/mcp"));
    setup.servers.push(server("silent", &format!("http://{}/mcp", silent.local_addr().unwrap())));
    setup.servers[4].timeouts.first_byte_ms = 500;
    let gate = Gate::start(&setup).await;
    assert_eq!(gate.modern(None).tools().await, ["s0_x", "s1_x", "s2_x"]);
    for name in ["s0_x", "s1_x", "s2_x"] {
        assert_eq!(gate.modern(None).call(name, json!({})).await.status, 200);
    }
    let mut servers = gate.proxy.servers();
    let failed = |servers: &Vec<mcpmesh_proxy::proxy::ServerStatus>| {
        let failed = servers.iter().filter(|one| mcpmesh_proxy::proxy::word(&one.state) == "failed");
        failed.map(|one| one.id.name.clone()).collect::<Vec<_>>() == ["refuses", "silent"]
    };
    soon("the failed state", servers.wait_for(failed)).await.unwrap();
    let metrics = gate.metrics().await;
    assert!(metrics.contains(r#"mcpmesh_server_state{server="a/refuses",state="failed"} 1"#), "{metrics}");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408_and_one_that_is_cut_off_reaches_nobody() {
    let fake = Fake::modern(&["x"]).await;
    let gate = Gate::with(&Setup::open(&[&fake]), |options| {
        options.bounds.request_time = Duration::from_millis(300);
    })
    .await;
    assert_eq!(gate.modern(None).tools().await, ["s0_x"]);
    let head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{";
    let answer = gate.raw(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let mut stream = TcpStream::connect(gate.proxy.data_addr()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    let _ = soon("the end", stream.read_to_string(&mut answer)).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(fake.calls().len(), 0);
}

#[tokio::test]
async fn a_body_that_trickles_has_no_more_time_than_one_that_stops() {
    let gate = Gate::with(&Setup::open(&[]), |options| {
        options.bounds.request_time = Duration::from_millis(300);
    })
    .await;
    let mut stream = TcpStream::connect(gate.proxy.data_addr()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    // Without a pause, and yet for longer than the time there is.
    let trickle = tokio::spawn(async move {
        let mut sent: u32 = 0;
        while sent < 4_000_000 && write.write_all(b" ").await.is_ok() {
            sent += 1;
            tokio::task::yield_now().await;
        }
        sent
    });
    let mut status = [0; 12];
    soon("an answer", read.read_exact(&mut status)).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 408");
    let mut rest = Vec::new();
    let _ = soon("the end of the connection", read.read_to_end(&mut rest)).await;
    assert!(soon("the last byte", trickle).await.unwrap() < 4_000_000);
}

#[tokio::test]
async fn what_is_over_the_limits_is_refused_before_the_rest_of_it_has_come() {
    let gate = Gate::start(&Setup::open(&[])).await;
    let head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4000000\r\n\r\n";
    let keys: Vec<String> = (0..150_000).map(|key| format!("\"{key}\":1,")).collect();
    for (begins, said) in [("[".repeat(100), "deep"), (format!("{{{}", keys.concat()), "members")] {
        let answer = gate.raw(format!("{head}{begins}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("connection: close"), "{answer}");
        assert!(answer.contains("-32600") && answer.contains(said), "{answer}");
    }
}

/// Told when the server's stream to the proxy ends.
struct Dropped(Arc<watch::Sender<bool>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// A server whose call says one thing, then waits for the test; whether its stream was closed from outside.
async fn waiting(
    speaks: Speaks,
) -> (Fake, tokio::sync::mpsc::UnboundedSender<Result<String, ()>>, Arc<watch::Sender<bool>>) {
    let fake = Fake::start(speaks, Catalogue::tools(&["wait", "x"])).await;
    let (feed, body) = fed();
    let closed = Arc::new(watch::Sender::new(false));
    let guard = Dropped(Arc::clone(&closed));
    let body = parking_lot::Mutex::new(Some((body, guard)));
    fake.hook(move |seen| {
        if seen.body["params"]["name"] != "wait" {
            return None;
        }
        let (body, guard) = body.lock().take()?;
        let body = body.map(move |chunk| {
            let _held = &guard;
            chunk
        });
        Some(async { fake::event_stream(body) }.boxed())
    });
    (fake, feed, closed)
}

fn log_message() -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "error", "data": "begun"}})
}

#[tokio::test]
async fn a_modern_client_that_leaves_cancels_its_call() {
    for speaks in [Speaks::Modern, Speaks::Legacy] {
        let (fake, feed, closed) = waiting(speaks).await;
        let gate = Gate::start(&Setup::open(&[&fake])).await;
        let modern = gate.modern(None);
        feed.send(Ok(data(&log_message()))).unwrap();
        let params = json!({"name": "s0_wait", "_meta": {"io.modelcontextprotocol/logLevel": "info"}});
        let mut events = modern.open(1, "tools/call", params).await;
        assert_eq!(events.expect("the log message").await["params"]["data"], "begun");
        drop(events);
        if speaks == Speaks::Modern {
            soon("the closing of the server's stream", closed.subscribe().wait_for(|closed| *closed))
                .await
                .unwrap();
        } else {
            let id = fake.calls()[0].body["id"].clone();
            fake.until("the cancellation", |seen| {
                seen.iter().any(|seen| {
                    seen.method() == "notifications/cancelled" && seen.body["params"]["requestId"] == id
                })
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_modern_client_that_leaves_before_the_first_byte_cancels_too() {
    let (fake, _feed, closed) = waiting(Speaks::Modern).await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    assert_eq!(gate.modern(None).tools().await, ["s0_wait", "s0_x"]);
    let request = gate.modern(None).message(&json!(1), "tools/call", &json!({"name": "s0_wait"})).to_string();
    let mut stream = TcpStream::connect(gate.proxy.data_addr()).await.unwrap();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nMCP-Protocol-Version: 2026-07-28\r\n\
         Mcp-Method: tools/call\r\nMcp-Name: s0_wait\r\nContent-Length: {}\r\n\r\n{request}",
        request.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    fake.until("the call", |seen| seen.iter().any(|seen| seen.method() == "tools/call")).await;
    drop(stream);
    soon("the closing of the server's stream", closed.subscribe().wait_for(|closed| *closed)).await.unwrap();
    until("it is logged", || gate.log.text().contains("cancelled")).await;
}

#[tokio::test]
async fn a_legacy_client_that_leaves_has_not_cancelled_and_finds_its_answer_later() {
    for speaks in [Speaks::Modern, Speaks::Legacy] {
        let (fake, feed, closed) = waiting(speaks).await;
        let gate = Gate::start(&Setup::open(&[&fake])).await;
        let legacy = gate.legacy(None, "2025-11-25").await;
        legacy.ask("logging/setLevel", json!({"level": "info"})).await;
        feed.send(Ok(data(&log_message()))).unwrap();
        let mut events = legacy.open("r", "tools/call", json!({"name": "s0_wait"})).await;
        let priming = events.event().await.unwrap();
        assert!(priming.data.is_empty() && priming.id.is_some(), "2025-11-25 begins with an id");
        let begun = events.event().await.unwrap();
        drop(events);
        assert_eq!(legacy.call("s0_x", json!({})).await.status, 200);
        let id = fake.calls()[0].body["id"].clone();
        let answer = json!({"jsonrpc": "2.0", "id": id, "result": {"resultType": "complete", "content": [], "late": true}});
        feed.send(Ok(data(&answer))).unwrap();
        let mut again = legacy.get(begun.id.as_deref()).await;
        let last = again.expect("the late answer").await;
        assert_eq!((&last["id"], &last["result"]["late"]), (&json!("r"), &json!(true)), "{speaks:?}");
        assert!(again.next().await.is_none(), "the call's stream ends with its answer");
        // From the very beginning, everything comes again in order.
        let all = legacy.get(priming.id.as_deref()).await.all().await;
        assert_eq!(all.len(), 2);
        assert!(!*closed.borrow() || fake.of("notifications/cancelled").is_empty());
        assert!(fake.of("notifications/cancelled").is_empty(), "{speaks:?}");
    }
}

#[tokio::test]
async fn a_process_that_leaves_serves_on_and_sends_every_client_to_another_connection() {
    let fake = Fake::start(Speaks::Modern, Catalogue::tools(&["read"])).await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let asked = b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    assert!(!gate.raw(asked).await.to_lowercase().contains("connection: close"));
    gate.proxy.leave();
    let last = gate.raw_to_end(asked).await.to_lowercase();
    assert!(last.starts_with("http/1.1 404") && last.contains("connection: close"), "{last}");
    assert_eq!(gate.modern(None).tools().await, ["s0_read"], "it serves on");
}

#[tokio::test]
async fn a_drain_finishes_calls_ends_listens_with_a_result_and_takes_nothing_new() {
    let (fake, feed, _closed) = waiting(Speaks::Both).await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let address = gate.proxy.data_addr();
    let modern = gate.modern(None);
    let legacy = gate.legacy(None, "2025-11-25").await;
    let mut listen =
        modern.open("l", "subscriptions/listen", json!({"notifications": {"toolsListChanged": true}})).await;
    listen.expect("the acknowledgement").await;
    let mut stream = legacy.get(None).await;
    let call = gate.ask(modern.request("c", "tools/call", &json!({"name": "s0_wait"})));
    let rest = async {
        fake.until("the call", |seen| seen.iter().any(|seen| seen.method() == "tools/call")).await;
        let drain = gate.proxy.drain(Duration::from_secs(50));
        let finish = async {
            let last = listen.expect("the listen's result").await;
            assert_eq!(last["id"], "l");
            assert_eq!(last["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "l");
            assert!(listen.next().await.is_none());
            assert!(stream.next().await.is_none());
            until("no connection is taken", || std::net::TcpStream::connect(address).is_err()).await;
            let id = fake.calls()[0].body["id"].clone();
            let answer =
                json!({"jsonrpc": "2.0", "id": id, "result": {"resultType": "complete", "content": []}});
            feed.send(Ok(data(&answer))).unwrap();
        };
        futures_util::join!(drain, finish)
    };
    let (answered, _) = soon("the drain", async { futures_util::join!(call, rest) }).await;
    assert_eq!(answered.json()["id"], "c");
    assert!(answered.json()["result"].is_object());
}
