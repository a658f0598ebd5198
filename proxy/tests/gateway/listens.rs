//! `subscriptions/listen` of modern clients: what is confirmed, shared, bounded, and opened again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use super::client::{Events, Modern};
use super::fake::{self, Answer, Catalogue, Fake, Seen, Speaks, data, fed};
use super::harness::{Gate, until};
use super::setup::Setup;

const UPDATED: &str = "notifications/resources/updated";

fn uri(server: usize, name: &str) -> String {
    format!("mcpmesh://s{server}/file%3A%2F%2F%2F{name}")
}

fn updated(name: &str) -> Value {
    json!({"jsonrpc": "2.0", "method": UPDATED, "params": {"uri": format!("file:///{name}")}})
}

/// What a `subscriptions/listen` for resources asks for.
fn asked(seen: &Seen) -> Option<Vec<String>> {
    let uris = &seen.body["params"]["notifications"]["resourceSubscriptions"];
    (seen.method() == "subscriptions/listen").then_some(())?;
    Some(uris.as_array()?.iter().map(|uri| uri.as_str().unwrap().to_owned()).collect())
}

fn acknowledged(seen: &Seen, uris: &[&str]) -> String {
    let meta = json!({"io.modelcontextprotocol/subscriptionId": seen.body["id"]});
    let params = json!({"_meta": meta, "notifications": {"resourceSubscriptions": uris}});
    let method = "notifications/subscriptions/acknowledged";
    data(&json!({"jsonrpc": "2.0", "method": method, "params": params}))
}

/// Confirms these and stays open.
fn confirms(seen: &Seen, uris: &[&str]) -> Answer {
    let first = Ok(bytes::Bytes::from(acknowledged(seen, uris)));
    fake::event_stream(stream::iter([first]).chain(stream::pending()))
}

/// A modern server with these resources, which answers subscriptions to them by `answer`, or as servers do.
async fn server(
    names: &[&str],
    answer: impl Fn(&Seen, &[String]) -> Option<Answer> + Send + Sync + 'static,
) -> Fake {
    let uris: Vec<String> = names.iter().map(|name| format!("file:///{name}")).collect();
    let uris: Vec<&str> = uris.iter().map(String::as_str).collect();
    let fake = Fake::start(Speaks::Modern, Catalogue::default().resources(&uris)).await;
    fake.hook(move |seen| {
        let answer = answer(&seen, &asked(&seen)?)?;
        Some(async { answer }.boxed())
    });
    fake
}

/// Opens and says what was confirmed.
async fn listen(client: &Modern<'_>, id: &str, uris: &[String]) -> (Events, Vec<String>) {
    let wanted = json!({"notifications": {"toolsListChanged": true, "resourceSubscriptions": uris}});
    let mut events = client.open(id, "subscriptions/listen", wanted).await;
    let first = events.expect("the acknowledgement").await;
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged", "{first}");
    let confirmed = &first["params"]["notifications"];
    assert_eq!(confirmed["toolsListChanged"], true);
    let uris = confirmed["resourceSubscriptions"].as_array().cloned().unwrap_or_default();
    let mut uris: Vec<_> = uris.iter().map(|uri| uri.as_str().unwrap().to_owned()).collect();
    uris.sort();
    (events, uris)
}

/// The next resource that the client is told of.
async fn told(events: &mut Events, id: &str) -> Value {
    let message = events.expect("an update").await;
    assert_eq!(message["method"], UPDATED, "{message}");
    assert_eq!(message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], id);
    message["params"]["uri"].clone()
}

fn listens(fake: &Fake) -> Vec<Vec<String>> {
    fake.seen().iter().filter_map(asked).collect()
}

#[tokio::test]
async fn only_what_a_server_confirms_is_confirmed_to_the_client() {
    let some = server(&["a", "b"], |seen, _| Some(confirms(seen, &["file:///b"]))).await;
    let none = server(&["a"], |seen, _| Some(confirms(seen, &[]))).await;
    let unknown = server(&["a"], |seen, _| {
        Some(fake::error(404, seen, json!({"code": -32601, "message": "Method not found"})))
    })
    .await;
    let invalid =
        server(&["a"], |seen, _| Some(fake::error(200, seen, json!({"code": -32602, "message": "no"}))))
            .await;
    let broken = server(&["a"], |_, _| Some(fake::status(500, ""))).await;
    let good = server(&["a"], |_, _| None).await;
    let gate = Gate::start(&Setup::open(&[&some, &none, &unknown, &invalid, &broken, &good])).await;
    let wanted: Vec<_> = (0..6).map(|server| uri(server, "a")).chain([uri(0, "b")]).collect();
    let (mut events, confirmed) = listen(&gate.modern(None), "l", &wanted).await;
    assert_eq!(confirmed, [uri(0, "b"), uri(5, "a")]);
    good.push(updated("a"));
    assert_eq!(told(&mut events, "l").await, uri(5, "a"));
}

#[tokio::test]
async fn a_stream_tells_nothing_but_what_was_asked_for_under_the_id_that_asked() {
    let fake = server(&["a"], |_, _| None).await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let client = gate.modern(None);
    let wanted = json!({"notifications": {"resourceSubscriptions": [uri(0, "a")]}});
    // Several at once; each under its own id, in its own JSON type.
    let ids = [json!(5), json!("5"), json!(9_007_199_254_740_993_u64), json!("\u{e9}\"\\")];
    let mut open = Vec::new();
    for id in &ids {
        let mut events = client.open(id.clone(), "subscriptions/listen", wanted.clone()).await;
        open.push((events.expect("the acknowledgement").await, events));
    }
    let said = |method: &str, params: Value| json!({"jsonrpc": "2.0", "method": method, "params": params});
    for noise in [
        said("notifications/progress", json!({"progressToken": 1, "progress": 1})),
        said("notifications/message", json!({"level": "error", "data": "no"})),
        said("notifications/tools/list_changed", json!({})),
        said(UPDATED, json!({"uri": "file:///other"})),
        said("notifications/made/up", json!({})),
        json!({"jsonrpc": "2.0", "id": 1, "method": "roots/list"}),
    ] {
        fake.push(noise);
    }
    fake.push(updated("a"));
    for (id, (first, events)) in ids.iter().zip(&mut open) {
        let second = events.expect("the update").await;
        assert_eq!((&second["method"], &second["params"]["uri"]), (&json!(UPDATED), &json!(uri(0, "a"))));
        for message in [&*first, &second] {
            assert_eq!(&message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], id);
        }
        let honoured = &first["params"]["notifications"];
        assert_eq!(honoured, &wanted["notifications"], "no more than was asked for");
    }
}

#[tokio::test]
async fn a_client_that_reads_no_stream_cannot_listen() {
    let fake = Fake::start(Speaks::Both, Catalogue::tools(&["t"])).await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let legacy = gate.legacy(None, "2025-11-25").await;
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    for (accept, status) in [
        ("application/json", 406),
        ("text/event-stream;q=0.5", 200),
        ("text/*", 200),
        ("*/*", 200),
        ("application/json, text/event-stream", 200),
    ] {
        let mut listen = gate.modern(None).request("l", "subscriptions/listen", &wanted);
        listen.headers_mut().insert("accept", accept.parse().unwrap());
        let mut get = gate.request("GET", &legacy.headers(), "");
        get.headers_mut().insert("accept", accept.parse().unwrap());
        for (request, id) in [(listen, json!("l")), (get, json!(null))] {
            let answer = gate.send(request).await;
            assert_eq!(answer.status(), status, "{accept}");
            if status == 406 {
                let answered = super::harness::whole(answer).await;
                assert_eq!((answered.code(), &answered.json()["id"]), (-32600, &id));
                assert!(answered.json()["error"]["message"].as_str().unwrap().contains("text/event-stream"));
            }
        }
    }
    // Whoever says nothing takes everything.
    let mut listen = gate.modern(None).request("l", "subscriptions/listen", &wanted);
    listen.headers_mut().remove("accept");
    assert_eq!(gate.send(listen).await.status(), 200);
}

#[tokio::test]
async fn a_server_that_does_not_answer_keeps_no_other_server_from_being_confirmed() {
    let hung = server(&["a"], |_, _| None).await;
    hung.hook(|seen| asked(&seen).map(|_| std::future::pending().boxed()));
    let good = server(&["a"], |_, _| None).await;
    let gate = Gate::with(&Setup::open(&[&hung, &hung, &good]), |options| {
        options.bounds.list_grace = Duration::from_millis(500);
    })
    .await;
    let client = gate.modern(None);
    let known = || async { client.ask("resources/list", json!({})).await.names("resources", "uri").len() };
    super::harness::soon("all servers are known", async { while known().await < 3 {} }).await;
    let wanted: Vec<_> = (0..3).map(|server| uri(server, "a")).collect();
    let (mut events, confirmed) = listen(&client, "l", &wanted).await;
    assert_eq!(confirmed, [uri(2, "a")]);
    good.push(updated("a"));
    assert_eq!(told(&mut events, "l").await, uri(2, "a"));
}

#[tokio::test]
async fn a_subscription_that_its_server_ended_is_opened_again_and_what_was_missed_is_told() {
    let feeds: Arc<Mutex<Vec<UnboundedSender<_>>>> = Arc::default();
    let open = Arc::clone(&feeds);
    let fake = server(&["a", "b"], move |seen, uris| {
        let (feed, body) = fed();
        let uris: Vec<_> = uris.iter().map(String::as_str).collect();
        feed.send(Ok(acknowledged(seen, &uris))).unwrap();
        open.lock().push(feed);
        Some(fake::event_stream(body))
    })
    .await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let wanted = [uri(0, "a"), uri(0, "b")];
    let (mut events, confirmed) = listen(&gate.modern(None), "l", &wanted).await;
    assert_eq!(confirmed, wanted);
    feeds.lock().pop().unwrap();
    until("it is opened again", || !feeds.lock().is_empty()).await;
    let mut missed = [told(&mut events, "l").await, told(&mut events, "l").await];
    missed.sort_by_key(Value::to_string);
    assert_eq!(missed, wanted);
    feeds.lock()[0].send(Ok(data(&updated("b")))).unwrap();
    assert_eq!(told(&mut events, "l").await, uri(0, "b"));
    assert_eq!(listens(&fake), [["file:///a", "file:///b"], ["file:///a", "file:///b"]]);
}

#[tokio::test]
async fn a_stream_ends_when_a_server_takes_back_what_it_confirmed() {
    let feeds: Arc<Mutex<Vec<UnboundedSender<_>>>> = Arc::default();
    let open = Arc::clone(&feeds);
    let fake = server(&["a"], move |seen, _| {
        if !open.lock().is_empty() {
            return Some(confirms(seen, &[]));
        }
        let (feed, body) = fed();
        feed.send(Ok(acknowledged(seen, &["file:///a"]))).unwrap();
        open.lock().push(feed.clone());
        // The stream is over with the last of its feeds.
        drop(feed);
        Some(fake::event_stream(body))
    })
    .await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let (mut events, confirmed) = listen(&gate.modern(None), "l", &[uri(0, "a")]).await;
    assert_eq!(confirmed, [uri(0, "a")]);
    feeds.lock()[0].send(Err(())).unwrap();
    let last = events.expect("the last word").await;
    assert_eq!((&last["id"], &last["result"]["resultType"]), (&json!("l"), &json!("complete")));
    assert!(events.next().await.is_none());
    // A server that is not there any more has nothing to say either.
    let good = server(&["a"], |_, _| None).await;
    let gate = Gate::start(&Setup::open(&[&good])).await;
    let (mut events, _) = listen(&gate.modern(None), "m", &[uri(0, "a")]).await;
    assert!(gate.proxy.apply(vec![Setup::open(&[]).snapshot()]).is_empty());
    assert_eq!(events.expect("the last word").await["id"], "m");
}

#[tokio::test]
async fn subscriptions_share_a_stream_of_their_server_and_one_caller_has_so_many_of_them() {
    const MOST: usize = 20;
    let fake = server(&["a"], |_, _| None).await;
    let setup = Setup::open(&[&fake]).keys(&["alice", "bob"]);
    let gate = Gate::with(&setup, |options| options.bounds.listens = MOST).await;
    let (alice, bob) = (gate.modern(Some("alice")), gate.modern(Some("bob")));
    let mut open = Vec::new();
    for _ in 0..MOST {
        open.push(listen(&alice, "l", &[uri(0, "a")]).await);
    }
    let wanted = json!({"notifications": {"resourceSubscriptions": [uri(0, "a")]}});
    let refused = alice.ask("subscriptions/listen", wanted.clone()).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (429, 42900), "{refused:?}");
    open.push(listen(&bob, "l", &[uri(0, "a")]).await);
    fake.push(updated("a"));
    for (events, confirmed) in &mut open {
        assert_eq!(*confirmed, [uri(0, "a")]);
        assert_eq!(told(events, "l").await, uri(0, "a"));
    }
    assert_eq!(listens(&fake), [["file:///a"]]);
    // Who leaves makes room.
    open.remove(0);
    let again = async {
        loop {
            let answer = gate.send(alice.request("l", "subscriptions/listen", &wanted)).await;
            if answer.status() == 200 {
                return;
            }
        }
    };
    super::harness::soon("there is room", again).await;
    drop(open);
    // With the last subscription the server's stream ends; only that for its lists stays.
    until("the stream ends", || fake.listeners() <= 1).await;
}

#[tokio::test]
async fn a_wider_stream_takes_the_place_of_the_one_before_and_what_is_refused_spoils_nothing() {
    let fake = server(&["a", "b", "bad"], |seen, uris| {
        let bad = uris.iter().any(|uri| uri.ends_with("bad"));
        bad.then(|| fake::error(200, seen, json!({"code": -32602, "message": "no"})))
    })
    .await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let client = gate.modern(None);
    let (mut a, _) = listen(&client, "a", &[uri(0, "a")]).await;
    let (mut b, confirmed) = listen(&client, "b", &[uri(0, "b")]).await;
    assert_eq!(confirmed, [uri(0, "b")]);
    let (_bad, confirmed) = listen(&client, "c", &[uri(0, "bad")]).await;
    assert!(confirmed.is_empty(), "{confirmed:?}");
    assert_eq!(
        listens(&fake),
        [vec!["file:///a"], vec!["file:///a", "file:///b"], vec!["file:///a", "file:///b", "file:///bad"]]
    );
    // That for the lists, and one for all resources.
    until("the first stream is over", || fake.listeners() == 2).await;
    fake.push(updated("b"));
    fake.push(updated("a"));
    assert_eq!(told(&mut a, "a").await, uri(0, "a"), "what another subscribed to is not told");
    assert_eq!(told(&mut b, "b").await, uri(0, "b"));
}

#[tokio::test]
async fn what_changes_while_a_stream_is_opened_is_told_on_it() {
    let (feed, body) = fed();
    let body = Mutex::new(Some(body));
    let uris = ["file:///a"];
    let fake = server(&["a"], move |_, _| body.lock().take().map(fake::event_stream)).await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let modern = gate.modern(None);
    assert_eq!(modern.tools().await, [""; 0]);
    let wanted = json!({"notifications": {"toolsListChanged": true, "resourceSubscriptions": [uri(0, "a")]}});
    let open = modern.open(1, "subscriptions/listen", wanted);
    let change = async {
        fake.until("the subscription", |seen| seen.iter().any(|seen| asked(seen).is_some())).await;
        until("its own stream is open", || fake.listeners() > 0).await;
        fake.set(Catalogue::tools(&["new"]).resources(&uris));
        fake.push(json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
        while modern.tools().await.is_empty() {}
        let asked_for = fake.seen().into_iter().rfind(|seen| asked(seen).is_some()).unwrap();
        feed.send(Ok(acknowledged(&asked_for, &uris))).unwrap();
    };
    let (mut stream, ()) = futures_util::join!(open, change);
    let confirmed = stream.expect("the acknowledgement").await;
    assert_eq!(confirmed["params"]["notifications"]["resourceSubscriptions"], json!([uri(0, "a")]));
    assert_eq!(stream.expect("the change").await["method"], "notifications/tools/list_changed");
}
