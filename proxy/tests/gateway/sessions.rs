//! Legacy sessions: their life, their streams, what they are told, and what ends them.

use futures_util::{FutureExt, stream};
use mcpmesh_ir::gateway::Anonymous;
use serde_json::{Value, json};

use super::client::Legacy;
use super::fake::{self, Catalogue, Fake, Speaks, data, fed, tool};
use super::harness::{Gate, soon, until};
use super::setup::Setup;

const REVISIONS: [&str; 3] = ["2025-03-26", "2025-06-18", "2025-11-25"];

async fn gate() -> (Fake, Gate) {
    let fake = Fake::legacy(&["echo"]).await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    (fake, gate)
}

#[tokio::test]
async fn a_session_lives_from_initialize_to_delete() {
    let (fake, gate) = gate().await;
    for revision in REVISIONS {
        let legacy = gate.legacy(None, revision).await;
        assert!(legacy.session.len() >= 32 && legacy.session.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(legacy.tools().await, ["s0_echo"]);
        assert_eq!(
            legacy.call("s0_echo", json!({"a": 1})).await.json()["result"]["content"][0]["text"],
            r#"{"a":1}"#
        );
        assert_eq!(legacy.ask("ping", json!({})).await.json()["result"], json!({}));
        let mut stream = legacy.get(None).await;
        let upstream = fake.calls().last().unwrap().header("mcp-session-id").unwrap().to_owned();
        assert!(matches!(legacy.delete().await.as_u16(), 200 | 204));
        assert!(stream.next().await.is_none(), "its stream ends with it");
        let gone = legacy.ask_as("gone", "tools/list", json!({})).await;
        assert_eq!((gone.status.as_u16(), &gone.json()["id"]), (404, &json!("gone")));
        assert_eq!(legacy.delete().await, 404);
        assert_eq!(legacy.get(None).await.status, 404);
        fake.until("the end of the server's session", |seen| {
            seen.iter().any(|seen| seen.verb == "DELETE" && seen.header("mcp-session-id") == Some(&upstream))
        })
        .await;
    }
    let none = gate.post(&[], r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).await;
    assert_eq!(none.status, 400, "no session");
    let legacy = gate.legacy(None, "2025-11-25").await;
    for version in ["1999-01-01", "nonsense"] {
        let known = json!(["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"]);
        let headers = [("mcp-session-id", legacy.session.as_str()), ("mcp-protocol-version", version)];
        let answered = gate.post(&headers, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).await;
        assert_eq!((answered.status.as_u16(), answered.code()), (400, -32022), "{version}");
        assert_eq!(answered.json()["error"]["data"]["supported"], known);
    }
    for version in ["1999-01-01", "nonsense", "2026-07-28"] {
        for verb in ["GET", "DELETE"] {
            let session = ("mcp-session-id", legacy.session.as_str());
            let headers = [session, ("mcp-protocol-version", version), ("accept", "text/event-stream")];
            let answered = gate.ask(gate.request(verb, &headers, "")).await;
            assert_eq!((answered.status.as_u16(), answered.code()), (400, -32022), "{verb} {version}");
            let known = answered.json()["error"]["data"]["supported"].clone();
            assert!(known.as_array().is_some_and(|known| !known.contains(&json!(version))), "{known}");
        }
    }
    let twice = [("mcp-session-id", legacy.session.as_str()), ("mcp-session-id", legacy.session.as_str())];
    assert_eq!(gate.post(&twice, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).await.status, 400);
    // A version that has no sessions is answered with the newest that has.
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2026-07-28", "capabilities": {}}});
    assert_eq!(gate.post(&[], body.to_string()).await.json()["result"]["protocolVersion"], "2025-11-25");
}

#[tokio::test]
async fn a_second_stream_takes_over_and_no_message_comes_twice() {
    let (fake, gate) = gate().await;
    let legacy = gate.legacy(None, "2025-11-25").await;
    legacy.tools().await;
    let mut first = legacy.get(None).await;
    fake.set(Catalogue::tools(&["echo", "b"]));
    fake.push(json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
    let event = first.event().await.unwrap();
    let told: Value = serde_json::from_slice(&event.data).unwrap();
    assert_eq!(told["method"], "notifications/tools/list_changed");
    let mut second = legacy.get(None).await;
    assert!(first.next().await.is_none(), "the first is over");
    fake.set(Catalogue::tools(&["echo"]));
    fake.push(json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
    let next = second.event().await.unwrap();
    assert_ne!(next.id, event.id, "what the first one took does not come again");
    // Unless it is asked for: everything after an id comes, and nothing before it.
    let mut again = legacy.get(event.id.as_deref()).await;
    assert_eq!(again.event().await.unwrap().id, next.id);
    // Not 404, which would say that the session has ended; one that is yet to come would silence the stream until it does.
    for bad in ["0", "x-1", "99-1", "1-x", "-", "", "0-99999"] {
        assert_eq!(legacy.get(Some(bad)).await.status, 400, "{bad:?}");
    }
}

#[tokio::test]
async fn what_was_said_in_one_session_is_told_again_in_no_other() {
    let (fake, gate) = gate().await;
    let keys = Setup::open(&[&fake]).keys(&["alice", "bob"]);
    assert!(gate.proxy.apply(vec![keys.snapshot()]).is_empty());
    fake.hook(|seen| {
        (seen.method() == "tools/call").then(|| {
            let said = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "error", "data": "mine"}});
            let result = json!({"jsonrpc": "2.0", "id": seen.body["id"], "result": {"content": []}});
            let events = [said, result].map(|one| Ok(bytes::Bytes::from(data(&one))));
            async { fake::event_stream(stream::iter(events)) }.boxed()
        })
    });
    let mine = gate.legacy(Some("alice"), "2025-11-25").await;
    let mut call = mine.open(1, "tools/call", json!({"name": "s0_echo"})).await;
    let priming = call.event().await.unwrap().id.unwrap();
    assert_eq!(call.all().await.len(), 2);
    assert_eq!(mine.get(Some(&priming)).await.all().await.len(), 2, "its own session takes it up");
    for owner in ["alice", "bob"] {
        let other = gate.legacy(Some(owner), "2025-11-25").await;
        assert_eq!(other.get(Some(&priming)).await.status, 400, "{owner}'s other session");
        let stolen = Legacy { session: mine.session.clone(), ..other };
        let resumed = stolen.get(Some(&priming)).await;
        assert_eq!(
            resumed.status,
            if owner == "alice" { 200 } else { 404 },
            "possession is not authentication"
        );
    }
}

#[tokio::test]
async fn a_call_is_cancelled_by_its_number_however_that_is_spelled() {
    let (fake, gate) = gate().await;
    fake.hook(|seen| (seen.method() == "tools/call").then(|| std::future::pending().boxed()));
    let legacy = gate.legacy(None, "2025-11-25").await;
    let call = legacy.ask_as(120, "tools/call", json!({"name": "s0_echo"}));
    let rest = async {
        fake.until("the call", |seen| seen.iter().any(|seen| seen.method() == "tools/call")).await;
        let said = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1.20e2}}"#;
        assert_eq!(gate.post(&legacy.headers(), said).await.status, 202);
    };
    let (cancelled, ()) = soon("the call's end", async { futures_util::join!(call, rest) }).await;
    assert!(cancelled.body.is_empty(), "{cancelled:?}");
}

#[tokio::test]
async fn a_client_that_says_without_end_that_its_roots_changed_costs_a_server_one_message_at_a_time() {
    const CHANGED: &str = "notifications/roots/list_changed";
    let (fake, gate) = gate().await;
    let free = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let gatekeeper = std::sync::Arc::clone(&free);
    fake.hook(move |seen| {
        let free = std::sync::Arc::clone(&gatekeeper);
        let taken = async move {
            free.acquire().await.unwrap().forget();
            fake::status(202, "")
        };
        (seen.method() == CHANGED).then(|| taken.boxed())
    });
    let legacy = gate.legacy_with(None, "2025-11-25", json!({"roots": {"listChanged": true}})).await;
    legacy.call("s0_echo", json!({})).await;
    let told = |count: usize| {
        let of = |seen: &&fake::Seen| seen.method() == CHANGED;
        fake.until("the change", move |seen| seen.iter().filter(of).count() == count)
    };
    let change = async || assert_eq!(legacy.said(CHANGED, json!({})).await.status, 202);
    change().await;
    told(1).await;
    for _ in 0..50 {
        change().await;
    }
    assert_eq!(fake.of(CHANGED).len(), 1, "the server has not taken the first");
    free.add_permits(1);
    told(2).await;
    change().await;
    free.add_permits(1);
    told(3).await;
    free.add_permits(100);
    // Whatever is on its way comes before what is said after it.
    legacy.call("s0_echo", json!({})).await;
    assert_eq!(fake.of(CHANGED).len(), 3);
}

#[tokio::test]
async fn progress_comes_back_under_the_clients_own_token_and_type() {
    let progress = |token: &Value, at: usize| {
        data(&json!({"jsonrpc": "2.0", "method": "notifications/progress",
                     "params": {"progressToken": token, "progress": at, "total": 3}}))
    };
    for speaks in [Speaks::Modern, Speaks::Legacy] {
        let fake = Fake::start(speaks, Catalogue::tools(&["echo"])).await;
        fake.hook(move |seen| {
            (seen.method() == "tools/call").then(|| {
                let token = &seen.body["params"]["_meta"]["progressToken"];
                let result = json!({"jsonrpc": "2.0", "id": seen.body["id"], "result": {"resultType": "complete", "content": []}});
                let mut events = vec![];
                if !token.is_null() {
                    events.extend([progress(token, 1), progress(&json!("not-mine"), 7), progress(token, 2)]);
                }
                events.extend([data(&result), progress(token, 3)]);
                let events = events.into_iter().map(|event| Ok(bytes::Bytes::from(event)));
                async { fake::event_stream(stream::iter(events.collect::<Vec<_>>())) }.boxed()
            })
        });
        let gate = Gate::start(&Setup::open(&[&fake])).await;
        let legacy = gate.legacy(None, "2025-11-25").await;
        let modern = gate.modern(None);
        for token in [json!(7), json!("7"), json!("\u{e9}\"")] {
            let params = json!({"name": "s0_echo", "arguments": {}, "_meta": {"progressToken": token}});
            for mut events in [
                modern.open(1, "tools/call", params.clone()).await,
                legacy.open(1, "tools/call", params.clone()).await,
            ] {
                let all = events.all().await;
                let tokens: Vec<_> =
                    all.iter().filter_map(|one| one["params"].get("progressToken")).collect();
                assert_eq!(tokens, [&token, &token], "{all:?}");
                assert_eq!(all.len(), 3, "{all:?}");
                assert_eq!(all[2]["id"], 1);
            }
        }
        let tokens: Vec<_> =
            fake.calls().iter().map(|seen| seen.body["params"]["_meta"]["progressToken"].clone()).collect();
        let unique: std::collections::HashSet<String> = tokens.iter().map(ToString::to_string).collect();
        assert_eq!(unique.len(), 6, "{tokens:?}");
        // Nobody asked, nobody is told.
        let plain = modern.call("s0_echo", json!({})).await;
        assert!(plain.json()["result"].is_object());
    }
}

#[tokio::test]
async fn a_cancelled_call_is_cancelled_at_the_server_and_only_that_one() {
    for speaks in [Speaks::Modern, Speaks::Legacy] {
        let fake = Fake::start(speaks, Catalogue::tools(&["hang", "slow"])).await;
        let (feed, body) = fed();
        let body = parking_lot::Mutex::new(Some(body));
        fake.hook(move |seen| match seen.body["params"]["name"].as_str()? {
            "hang" => Some(std::future::pending().boxed()),
            _ => {
                let body = body.lock().take()?;
                Some(async { fake::json_stream(body) }.boxed())
            }
        });
        let gate = Gate::start(&Setup::open(&[&fake])).await;
        let legacy = gate.legacy(None, "2025-11-25").await;
        let hang = legacy.ask_as("h", "tools/call", json!({"name": "s0_hang"}));
        let slow = legacy.ask_as(1, "tools/call", json!({"name": "s0_slow"}));
        let rest = async {
            fake.until("both calls", |seen| {
                seen.iter().filter(|seen| seen.method() == "tools/call").count() == 2
            })
            .await;
            // The id of a running call is taken.
            assert_eq!(legacy.ask_as("h", "tools/call", json!({"name": "s0_slow"})).await.code(), -32600);
            let spelled = |text: &str| {
                r#"{"jsonrpc":"2.0","id":ID,"method":"tools/call","params":{"name":"s0_slow"}}"#
                    .replace("ID", text)
            };
            let again = gate.post(&legacy.headers(), spelled(r#""\u0068""#)).await;
            assert_eq!(again.code(), -32600, "however it is spelled");
            // The last is the other call's id, spelled otherwise.
            for id in [r#""unknown""#, r#""1""#, r#""H""#, "10", "1.5", "null", "{}", r#""\u0068""#] {
                let said =
                    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":ID}}"#;
                assert_eq!(gate.post(&legacy.headers(), said.replace("ID", id)).await.status, 202);
            }
            let calls = fake.calls();
            let of = |name: &str| {
                calls.iter().find(|seen| seen.body["params"]["name"] == name).unwrap().body["id"].clone()
            };
            if speaks == Speaks::Legacy {
                let id = of("hang");
                fake.until("the cancellation", |seen| {
                    seen.iter().any(|seen| {
                        seen.method() == "notifications/cancelled" && seen.body["params"]["requestId"] == id
                    })
                })
                .await;
            }
            let answer = json!({"jsonrpc": "2.0", "id": of("slow"), "result": {"resultType": "complete", "content": []}});
            feed.send(Ok(answer.to_string())).unwrap();
            drop(feed);
        };
        let (hung, slow, ()) = soon("both calls", async { futures_util::join!(hang, slow, rest) }).await;
        assert!(hung.body.is_empty(), "nothing is said of a cancelled call: {hung:?}");
        assert_eq!(slow.json()["id"], 1);
        assert!(slow.json()["result"].is_object());
        assert!(fake.of("notifications/cancelled").len() <= 1);
    }
}

#[tokio::test]
async fn log_messages_come_from_the_level_that_was_asked_for() {
    let levels = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
    for speaks in [Speaks::Modern, Speaks::Legacy] {
        let fake = Fake::start(speaks, Catalogue::tools(&["echo"])).await;
        fake.hook(move |seen| {
            (seen.method() == "tools/call").then(|| {
                let said = levels.iter().map(|level| {
                    data(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": level, "data": level}}))
                });
                let result = json!({"jsonrpc": "2.0", "id": seen.body["id"], "result": {"resultType": "complete", "content": []}});
                let events: Vec<_> = said.chain([data(&result)]).map(|event| Ok(bytes::Bytes::from(event))).collect();
                async { fake::event_stream(stream::iter(events)) }.boxed()
            })
        });
        let gate = Gate::start(&Setup::open(&[&fake])).await;
        let (modern, legacy) = (gate.modern(None), gate.legacy(None, "2025-11-25").await);
        let plain = modern.ask("tools/call", json!({"name": "s0_echo"})).await;
        assert_eq!(
            plain.header("content-type"),
            Some("application/json"),
            "a modern client that asks for none gets none"
        );
        for (at, level) in levels.iter().enumerate() {
            assert_eq!(
                legacy.ask("logging/setLevel", json!({"level": level})).await.json()["result"],
                json!({})
            );
            let params = json!({"name": "s0_echo", "_meta": {"io.modelcontextprotocol/logLevel": level}});
            let heard = [
                modern.open(1, "tools/call", params).await.all().await,
                legacy.open(1, "tools/call", json!({"name": "s0_echo"})).await.all().await,
            ];
            for all in heard {
                assert_eq!(all.len(), levels.len() - at + 1, "{speaks:?} {level} {all:?}");
            }
        }
        assert_eq!(legacy.ask("logging/setLevel", json!({"level": "loud"})).await.code(), -32602);
        let loud = json!({"name": "s0_echo", "_meta": {"io.modelcontextprotocol/logLevel": "loud"}});
        assert_eq!(modern.ask("tools/call", loud).await.code(), -32602);
    }
}

#[tokio::test]
async fn a_batch_is_answered_as_one_in_its_revision_and_refused_in_all_others() {
    let (fake, gate) = gate().await;
    let batch = json!([
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "s0_echo", "arguments": {"n": 1}}},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 99}},
        {"jsonrpc": "2.0", "id": "two", "method": "tools/list"},
        {"jsonrpc": "2.0", "id": 3, "method": "nonsense"},
    ]);
    let old = gate.legacy(None, "2025-03-26").await;
    let answered = old.post(batch.clone()).await.json();
    let ids: Vec<_> = answered.as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, [json!(1), json!("two"), json!(3)], "{answered}");
    assert_eq!(answered[0]["result"]["content"][0]["text"], r#"{"n":1}"#);
    assert_eq!(answered[2]["error"]["code"], -32601);
    let silent = json!([{"jsonrpc": "2.0", "method": "notifications/initialized"}]);
    assert_eq!(old.post(silent).await.status, 202);
    for revision in ["2025-06-18", "2025-11-25"] {
        let refused = gate.legacy(None, revision).await.post(batch.clone()).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (400, -32600), "{revision}");
    }
    assert_eq!(fake.calls().len(), 1);
}

#[tokio::test]
async fn a_cancelled_call_leaves_nothing_in_the_answer_of_its_batch() {
    let (fake, gate) = gate().await;
    fake.hook(|seen| (seen.method() == "tools/call").then(|| std::future::pending().boxed()));
    let old = gate.legacy(None, "2025-03-26").await;
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "s0_echo"}});
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}});
    let ping = json!({"jsonrpc": "2.0", "id": 2, "method": "ping"});
    for batch in [json!([call, cancel, ping]), json!([ping, call, cancel])] {
        let answered = old.post(batch).await;
        assert_eq!(answered.json(), json!([{"jsonrpc": "2.0", "id": 2, "result": {}}]));
    }
    let nothing = old.post(json!([call, cancel])).await;
    assert_eq!((nothing.status.as_u16(), nothing.body.len()), (202, 0));
}

#[tokio::test]
async fn headers_speak_of_every_message_of_a_batch() {
    let (fake, gate) = gate().await;
    let old = gate.legacy(None, "2025-03-26").await;
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "s0_echo"}});
    let modern = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    let modern = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {"_meta": modern}});
    let start = json!({"jsonrpc": "2.0", "id": 3, "method": "initialize", "params": {"protocolVersion": "2025-03-26"}});
    for (header, batch, code) in [
        (("mcp-protocol-version", "1999-01-01"), json!([call]), -32022),
        (("mcp-protocol-version", "2026-07-28"), json!([call]), -32600),
        (("mcp-protocol-version", "2025-11-25"), json!([call]), -32600),
        (("mcp-method", "ping"), json!([call]), -32020),
        (("mcp-name", "s0_other"), json!([call]), -32020),
        (("x-nothing", ""), json!([call, modern]), -32020),
        (("x-nothing", ""), json!([call, start]), -32600),
    ] {
        let headers = [("mcp-session-id", old.session.as_str()), header];
        let refused = gate.post(&headers, batch.to_string()).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (400, code), "{header:?} {batch}");
    }
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn of_a_long_batch_a_few_messages_are_answered_at_a_time() {
    let (fake, gate) = gate().await;
    let free = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let gatekeeper = std::sync::Arc::clone(&free);
    fake.hook(move |seen| {
        (seen.method() == "tools/call").then_some(())?;
        let (free, answer) =
            (std::sync::Arc::clone(&gatekeeper), fake::result(&seen, json!({"content": []})));
        let answer = async move { free.acquire().await.map(|_| answer).unwrap() };
        Some(answer.boxed())
    });
    let old = gate.legacy(None, "2025-03-26").await;
    let call =
        |id: u32| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "s0_echo"}});
    let batch = Value::Array((0..40).map(call).collect());
    let others = async {
        fake.until("some calls", |seen| {
            seen.iter().filter(|seen| seen.method() == "tools/call").count() == 8
        })
        .await;
        old.ask("ping", json!({})).await;
        assert_eq!(fake.calls().len(), 8);
        free.add_permits(1);
    };
    let (answered, ()) = tokio::join!(old.post(batch), others);
    let answered = answered.json();
    let ids: Vec<_> = answered.as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, (0..40).map(Value::from).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_servers_question_reaches_its_client_and_the_answer_its_server() {
    let (fake, gate) = gate().await;
    let (feed, body) = fed();
    let body = parking_lot::Mutex::new(Some(body));
    fake.hook(move |seen| {
        (seen.method() == "tools/call").then_some(())?;
        let body = body.lock().take()?;
        Some(async { fake::event_stream(body) }.boxed())
    });
    let client = gate.legacy_with(None, "2025-11-25", json!({"elicitation": {}})).await;
    let stranger = gate.legacy(None, "2025-11-25").await;
    let question = json!({"jsonrpc": "2.0", "id": 5, "method": "elicitation/create", "params": {"message": "name?", "requestedSchema": {"type": "object"}}});
    feed.send(Ok(data(&question))).unwrap();
    let mut events = client.open("c", "tools/call", json!({"name": "s0_echo"})).await;
    let asked = events.expect("the question").await;
    assert_eq!(
        (&asked["method"], &asked["params"]["message"]),
        (&json!("elicitation/create"), &json!("name?"))
    );
    assert_ne!(asked["id"], 5, "under an id of the gateway's");
    let answer =
        json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept", "content": {"n": 1}}});
    // The same id in another session is nothing.
    assert_eq!(stranger.post(answer.clone()).await.status, 202);
    assert!(fake.seen().iter().all(|seen| seen.body.get("result").is_none()));
    assert_eq!(client.post(answer.clone()).await.status, 202);
    fake.until("the answer", |seen| {
        seen.iter().any(|seen| seen.body["id"] == 5 && seen.body["result"]["content"]["n"] == 1)
    })
    .await;
    assert_eq!(client.post(answer).await.status, 202, "a second answer is taken and dropped");
    let done = json!({"jsonrpc": "2.0", "id": fake.calls()[0].body["id"], "result": {"content": []}});
    feed.send(Ok(data(&done))).unwrap();
    assert_eq!(events.expect("the result").await["id"], "c");
    let answers = fake.seen().iter().filter(|seen| seen.body["result"]["action"] == "accept").count();
    assert_eq!(answers, 1);
}

#[tokio::test]
async fn calls_of_one_session_run_side_by_side() {
    let fake = Fake::start(Speaks::Legacy, Catalogue::tools(&["echo"])).await;
    let arrived = std::sync::Arc::new(tokio::sync::Barrier::new(8));
    fake.hook(move |seen| {
        (seen.method() == "tools/call").then(|| {
            let arrived = std::sync::Arc::clone(&arrived);
            async move {
                arrived.wait().await;
                fake::result(&seen, json!({"content": [], "n": seen.body["params"]["arguments"]["n"]}))
            }
            .boxed()
        })
    });
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let legacy = gate.legacy(None, "2025-06-18").await;
    let asks =
        (0..8).map(|n| legacy.ask_as(n, "tools/call", json!({"name": "s0_echo", "arguments": {"n": n}})));
    for (n, answered) in soon("all", futures_util::future::join_all(asks)).await.iter().enumerate() {
        assert_eq!((&answered.json()["id"], &answered.json()["result"]["n"]), (&json!(n), &json!(n)));
    }
}

#[tokio::test]
async fn a_changed_list_is_told_to_every_stream_whatever_era_the_server_speaks() {
    for speaks in [Speaks::Modern, Speaks::Legacy] {
        let fake = Fake::start(speaks, Catalogue::tools(&["a"])).await;
        let gate = Gate::start(&Setup::open(&[&fake])).await;
        let legacy = gate.legacy(None, "2025-11-25").await;
        assert_eq!(legacy.tools().await, ["s0_a"]);
        let mut stream = legacy.get(None).await;
        let wanted = json!({"notifications": {"toolsListChanged": true}});
        let mut listen = gate.modern(None).open(5, "subscriptions/listen", wanted).await;
        let ack = listen.expect("the acknowledgement").await;
        assert_eq!(ack["params"]["notifications"], json!({"toolsListChanged": true}));
        assert_eq!(ack["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 5);
        let other = json!({"notifications": {"promptsListChanged": true}});
        let mut deaf = gate.modern(None).open("p", "subscriptions/listen", other).await;
        deaf.expect("the acknowledgement").await;
        until("the proxy listens", || fake.listeners() > 0).await;
        fake.set(Catalogue { tools: vec![tool("a"), tool("b")], ..Catalogue::default() }.prompts(&[]));
        fake.push(json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
        assert_eq!(stream.expect("the change").await["method"], "notifications/tools/list_changed");
        let told = listen.expect("the change").await;
        assert_eq!(told["method"], "notifications/tools/list_changed");
        assert_eq!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 5);
        assert_eq!(legacy.tools().await, ["s0_a", "s0_b"]);
        fake.set(Catalogue::tools(&["a", "b"]).prompts(&["p"]));
        fake.push(json!({"jsonrpc": "2.0", "method": "notifications/prompts/list_changed"}));
        let told = deaf.expect("the change of prompts").await;
        assert_eq!(told["method"], "notifications/prompts/list_changed", "and nothing of tools before");
    }
}

/// The answer reaches the client before the call's task has ended: the id must be free by then. With the id given
/// back after the answer, one in some thousand of these is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_id_may_be_used_again_as_soon_as_it_is_answered() {
    let fake = Fake::legacy(&["echo"]).await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let session = gate.legacy(None, "2025-11-25").await;
    for _ in 0..500 {
        assert_eq!(session.call("s0_echo", json!({})).await.status, 200);
    }
}

#[tokio::test]
async fn a_caller_with_too_many_sessions_loses_its_own_idle_ones_and_no_others() {
    let fake = Fake::legacy(&["echo"]).await;
    let gate = Gate::with(&Setup::open(&[&fake]), |options| options.bounds.sessions = 20).await;
    let in_use = gate.legacy(None, "2025-11-25").await;
    let _stream = in_use.get(None).await;
    let idle = gate.legacy(None, "2025-11-25").await;
    let new = gate.legacy(None, "2025-11-25").await;
    assert_eq!(idle.call("s0_echo", json!({})).await.status, 404);
    assert_eq!(in_use.call("s0_echo", json!({})).await.status, 200);
    let _other = new.get(None).await;
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25", "capabilities": {}}});
    let refused = gate.post(&[], body.to_string()).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, 50300));
    until("it is logged", || gate.log.text().contains(r#""status":503"#)).await;
    let recorded = gate.log.lines().into_iter().rfind(|line| line["status"] == 503).unwrap();
    assert_eq!((&recorded["method"], &recorded["outcome"]), (&json!("initialize"), &json!("limited")));
    new.delete().await;
    assert_eq!(gate.post(&[], body.to_string()).await.status, 200);
}

#[tokio::test]
async fn an_expired_key_ends_what_it_opened() {
    let fake = Fake::start(Speaks::Both, Catalogue::tools(&["echo"])).await;
    let mut setup = Setup::open(&[&fake]).keys(&["alice"]);
    setup.anonymous = Anonymous::Deny;
    let gate = Gate::start(&setup).await;
    let legacy: Legacy<'_> = gate.legacy(Some("alice"), "2025-11-25").await;
    let mut stream = legacy.get(None).await;
    assert_eq!(stream.status, 200);
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let mut listen = gate.modern(Some("alice")).open(5, "subscriptions/listen", wanted).await;
    listen.expect("the acknowledgement").await;
    // Only now: what has to be opened before it expires has all the time that it takes.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    setup.keys[0].expires = Some(i64::try_from(now.as_secs()).unwrap() + 1);
    assert!(gate.proxy.apply(vec![setup.snapshot()]).is_empty());
    assert!(stream.next().await.is_none());
    assert_eq!(listen.next().await.unwrap()["id"], 5);
    assert_eq!(legacy.call("s0_echo", json!({})).await.status, 401);
}
