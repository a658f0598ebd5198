//! What servers ask legacy clients, what they say of it later, and what they are told when nobody can be asked.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use super::client::Legacy;
use super::fake::{self, Fake, data, fed};
use super::harness::{Gate, soon, until};
use super::setup::Setup;

/// The next call is answered by what is said here.
fn scripted(fake: &Fake) -> impl Fn(Value) + use<> {
    let (feed, body): (UnboundedSender<Result<String, ()>>, _) = fed();
    let body = Mutex::new(Some(body));
    fake.hook(move |seen| {
        (seen.method() == "tools/call").then_some(())?;
        let body = body.lock().take()?;
        Some(async { fake::event_stream(body) }.boxed())
    });
    move |message| feed.send(Ok(data(&message))).unwrap()
}

fn done(fake: &Fake) -> Value {
    json!({"jsonrpc": "2.0", "id": fake.calls().last().unwrap().body["id"], "result": {"content": []}})
}

fn question(id: impl Into<Value>, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": params})
}

fn form(id: impl Into<Value>) -> Value {
    question(id, "elicitation/create", json!({"message": "?", "requestedSchema": {"type": "object"}}))
}

/// The messages of a call that ends as soon as it has come.
async fn ended(fake: &Fake, client: &Legacy<'_>, say: impl Fn(Value)) -> Vec<Value> {
    let opened = client.open(1, "tools/call", json!({"name": "s0_ask"}));
    let rest = async {
        fake.until("the call", |seen| seen.iter().any(|seen| seen.method() == "tools/call")).await;
        say(done(fake));
    };
    let (mut events, ()) = futures_util::join!(opened, rest);
    events.all().await
}

async fn told(fake: &Fake, id: Value) -> Value {
    let of = |seen: &fake::Seen| seen.method().is_empty() && seen.body["id"] == id;
    fake.until(&format!("an answer to {id}"), |seen| seen.iter().any(of)).await;
    fake.seen().into_iter().find(of).unwrap().body
}

#[tokio::test]
async fn a_client_is_asked_only_for_what_it_declared_and_the_server_is_told_so() {
    let url = json!({"mode": "url", "url": "https://a.test", "elicitationId": "e", "message": "?"});
    let tools = json!({"messages": [], "maxTokens": 1, "tools": []});
    let questions = [
        ("roots/list", json!({})),
        ("sampling/createMessage", json!({"messages": [], "maxTokens": 1})),
        ("sampling/createMessage", tools),
        ("elicitation/create", json!({"message": "?", "requestedSchema": {"type": "object"}})),
        (
            "elicitation/create",
            json!({"mode": "form", "message": "?", "requestedSchema": {"type": "object"}}),
        ),
        ("elicitation/create", url),
        ("elicitation/create", json!({"mode": "other", "message": "?"})),
        ("tasks/get", json!({"taskId": "t"})),
    ];
    let fake = Fake::legacy(&["ask"]).await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    for (capabilities, allowed) in [
        (json!({}), &[][..]),
        (json!({"roots": {}}), &[0]),
        (json!({"sampling": {}, "tasks": {"requests": {}}}), &[1]),
        (json!({"sampling": {"tools": {}}}), &[1, 2]),
        (json!({"elicitation": {}}), &[3, 4]),
        (json!({"elicitation": {"url": {}}}), &[5]),
    ] {
        let client = gate.legacy_with(None, "2025-11-25", capabilities.clone()).await;
        let say = scripted(&fake);
        let id = |at: usize| json!(format!("{capabilities}-{at}"));
        for (at, (method, params)) in questions.iter().enumerate() {
            say(question(id(at), method, params.clone()));
        }
        say(question(id(99), "ping", json!({})));
        let heard = ended(&fake, &client, say).await;
        // A result alone comes as JSON.
        assert_eq!(heard.len(), if allowed.is_empty() { 0 } else { allowed.len() + 1 }, "{heard:?}");
        for (at, asked) in allowed.iter().zip(&heard) {
            assert_eq!((&asked["method"], &asked["params"]), (&json!(questions[*at].0), &questions[*at].1));
        }
        for at in (0..questions.len()).filter(|at| !allowed.contains(at)) {
            let code = told(&fake, id(at)).await["error"]["code"].as_i64().unwrap();
            let other_mode = capabilities["elicitation"].is_object() && questions[at].0.starts_with("elicit");
            assert_eq!(code, if other_mode { -32602 } else { -32601 }, "{capabilities} {at}");
        }
        assert_eq!(told(&fake, id(99)).await["result"], json!({}));
        client.delete().await;
        fake.take();
    }
}

#[tokio::test]
async fn a_client_that_reads_no_stream_is_not_asked_and_its_server_knows_at_once() {
    let fake = Fake::legacy(&["ask"]).await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let client = gate.legacy_with(None, "2025-11-25", json!({"elicitation": {}})).await;
    let say = scripted(&fake);
    say(form(5));
    let body = question(1, "tools/call", json!({"name": "s0_ask"}));
    let headers = [("accept", "application/json"), ("mcp-session-id", client.session.as_str())];
    let call = gate.post(&headers, body.to_string());
    let rest = async {
        assert_eq!(told(&fake, json!(5)).await["error"]["code"], -32601);
        say(done(&fake));
    };
    let (answered, ()) = soon("the answer", async { futures_util::join!(call, rest) }).await;
    assert_eq!(answered.json()["id"], 1);
}

#[tokio::test]
async fn questions_that_nobody_answers_make_room_and_their_server_is_told() {
    let fake = Fake::legacy(&["ask"]).await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let client = gate.legacy_with(None, "2025-11-25", json!({"elicitation": {}})).await;
    let say = scripted(&fake);
    (0..258).for_each(|id| say(form(id)));
    let mut events = client.open(1, "tools/call", json!({"name": "s0_ask"})).await;
    let mut asked = Vec::new();
    for _ in 0..258 {
        asked.push(events.expect("a question").await["id"].clone());
    }
    for id in [0, 1] {
        assert_eq!(told(&fake, json!(id)).await["error"]["code"], -32603);
    }
    answer(&client, &asked[0]).await;
    answer(&client, &asked[257]).await;
    assert!(told(&fake, json!(257)).await["result"].is_object());
    assert_eq!(fake.seen().iter().filter(|seen| seen.method().is_empty() && seen.verb == "POST").count(), 3);
}

async fn answer(client: &Legacy<'_>, id: &Value) {
    client.post(json!({"jsonrpc": "2.0", "id": id, "result": {"action": "decline"}})).await;
}

/// A session in which the server can speak outside of any call, the server's name of it, and its voice there.
async fn listening<'g>(
    fake: &Fake,
    gate: &'g Gate,
    capabilities: Value,
) -> (Legacy<'g>, String, UnboundedSender<Result<String, ()>>) {
    let voices: Arc<Mutex<HashMap<String, _>>> = Arc::default();
    let kept = Arc::clone(&voices);
    fake.hook(move |seen| {
        (seen.verb == "GET").then(|| {
            let (feed, body) = fed();
            kept.lock().insert(seen.header("mcp-session-id").unwrap().to_owned(), feed);
            async { fake::event_stream(body) }.boxed()
        })
    });
    let client = gate.legacy_with(None, "2025-11-25", capabilities).await;
    client.call("s0_ask", json!({})).await;
    let session = fake.calls().last().unwrap().header("mcp-session-id").unwrap().to_owned();
    until("the session's stream", || voices.lock().contains_key(&session)).await;
    let voice = voices.lock().remove(&session).unwrap();
    fake.take();
    (client, session, voice)
}

#[tokio::test]
async fn outside_of_calls_too_a_client_is_asked_only_for_what_it_declared() {
    for declared in [true, false] {
        let fake = Fake::legacy(&["ask"]).await;
        let gate = Gate::start(&Setup::open(&[&fake])).await;
        let capabilities = if declared { json!({"roots": {}}) } else { json!({"sampling": {}}) };
        let (client, session, voice) = listening(&fake, &gate, capabilities).await;
        voice.send(Ok(data(&question("aside", "roots/list", json!({}))))).unwrap();
        if declared {
            let asked = client.get(None).await.expect("the question").await;
            assert_eq!(asked["method"], "roots/list");
            let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": []}});
            client.post(answer).await;
        }
        let of =
            |seen: &fake::Seen| seen.body["id"] == "aside" && seen.header("mcp-session-id") == Some(&session);
        fake.until("the answer", |seen| seen.iter().any(of)).await;
        let answer = fake.seen().into_iter().find(of).unwrap().body;
        assert_eq!(answer["result"].is_object(), declared, "{answer}");
        assert_eq!(answer["error"]["code"] == -32601, !declared, "{answer}");
    }
}

#[tokio::test]
async fn what_is_said_of_a_question_later_reaches_the_other_end_under_its_own_names() {
    let fake = Fake::legacy(&["ask"]).await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let both = json!({"elicitation": {"form": {}, "url": {}}});
    let (client, session, voice) = listening(&fake, &gate, both).await;
    let mut stream = client.get(None).await;
    let cancelled = |id: Value| json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id, "reason": "r"}});
    let complete = json!({"jsonrpc": "2.0", "method": "notifications/elicitation/complete",
                          "params": {"elicitationId": "e"}});
    let mut asking = form("q");
    asking["params"]["_meta"]["progressToken"] = json!(7);
    for aside in [true, false] {
        let say = scripted(&fake);
        let mut call = None;
        if !aside {
            say(asking.clone());
            call = Some(client.open(1, "tools/call", json!({"name": "s0_ask"})).await);
        }
        let say = |message: Value| if aside { voice.send(Ok(data(&message))).unwrap() } else { say(message) };
        if aside {
            say(asking.clone());
        }
        let heard = call.as_mut().unwrap_or(&mut stream);
        let asked = heard.expect("the question").await;
        assert_eq!(asked["params"]["_meta"]["progressToken"], asked["id"]);
        let progress = json!({"progressToken": asked["id"], "progress": 1, "message": "typing"});
        client.said("notifications/progress", json!({"progressToken": "gw-0", "progress": 1})).await;
        client.said("notifications/progress", progress).await;
        fake.until("the client's progress", |seen| {
            seen.iter().any(|seen| {
                seen.body["params"] == json!({"progressToken": 7, "progress": 1, "message": "typing"})
                    && seen.header("mcp-session-id") == Some(&session)
            })
        })
        .await;
        assert_eq!(fake.of("notifications/progress").len(), 1, "of no other question");
        say(cancelled(json!("another")));
        say(cancelled(json!("q")));
        let told = heard.expect("the cancellation").await;
        assert_eq!(told["params"], json!({"requestId": asked["id"], "reason": "r"}));
        say(complete.clone());
        assert_eq!(heard.expect("the completion").await, complete);
        answer(&client, &asked["id"]).await;
        assert!(
            fake.seen()
                .iter()
                .all(|seen| { seen.body["id"] != "q" || seen.header("mcp-session-id") != Some(&session) })
        );
        if let Some(mut call) = call {
            say(done(&fake));
            assert_eq!(call.expect("the result").await["id"], 1);
        }
        fake.take();
    }
    let other = gate.legacy_with(None, "2025-11-25", json!({"elicitation": {}})).await;
    let say = scripted(&fake);
    say(complete.clone());
    assert_eq!(ended(&fake, &other, say).await.len(), 0, "it opens no URLs");
}
