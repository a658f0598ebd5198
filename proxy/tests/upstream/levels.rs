//! `logging/setLevel`: a server sends what the most curious of those wants who listen in its session.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use mcpmesh_proxy::mcp::envelope::Method;
use mcpmesh_proxy::mcp::era::Era;
use mcpmesh_proxy::mcp::meta::{Capabilities, LogLevel};
use mcpmesh_proxy::upstream::*;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::fake::{
    self, Fake, Process, Processes, call, initialized, legacy, link, linked, ready, result, send,
};

fn modern(level: LogLevel) -> Outgoing {
    let mut request = call(Era::Modern);
    request.log_level = Some(level);
    request
}

/// The levels that processes were set to, with the number of the process.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<(usize, String)>>>);

impl Told {
    fn take(&self) -> Vec<(usize, String)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    async fn play(&self, number: usize, process: &mut Process, free: &Semaphore) {
        let mut level = None;
        while let Some(message) = process.read().await {
            match message["method"].as_str().unwrap_or_default() {
                "logging/setLevel" => {
                    let said = message["params"]["level"].as_str().unwrap().to_owned();
                    self.0.lock().unwrap().push((number, said.clone()));
                    level = Some(said);
                    process.result(&message, json!({})).await;
                }
                "tools/call" => {
                    if let Some(level) = &level {
                        let params = json!({"level": level, "data": "busy"});
                        let note =
                            json!({"jsonrpc": "2.0", "method": "notifications/message", "params": params});
                        process.say(&note.to_string()).await;
                    }
                    free.acquire().await.unwrap().forget();
                    process.legacy(&message).await;
                }
                _ => process.legacy(&message).await,
            }
        }
    }
}

/// Processes that say nothing before they are told a level, and calls that wait for `free`.
struct Playing {
    told: Told,
    free: Arc<Semaphore>,
    processes: Arc<Processes>,
    upstream: Arc<Upstream>,
}

impl Playing {
    /// Once the first process is ready; so many calls need not wait.
    async fn with_free(calls: usize) -> Self {
        let (told, free) = (Told::default(), Arc::new(Semaphore::new(calls)));
        let (tells, waits) = (told.clone(), Arc::clone(&free));
        let processes = Processes::new(move |number, mut process| {
            let (told, free) = (tells.clone(), Arc::clone(&waits));
            Box::pin(async move { told.play(number, &mut process, &free).await })
        });
        let upstream = processes.upstream();
        ready(&upstream).await;
        Self { told, free, processes, upstream }
    }
}

fn set(number: usize, level: &str) -> Vec<(usize, String)> {
    vec![(number, level.to_owned())]
}

#[tokio::test(start_paused = true)]
async fn a_process_that_calls_share_is_set_to_what_the_most_curious_of_them_wants() {
    let Playing { told, free, processes, upstream } = Playing::with_free(0).await;
    let mut curious = upstream.send(modern(LogLevel::Debug)).await.unwrap();
    let Some(Ok(Event::Notification { raw, .. })) = curious.next().await else { panic!("a log message") };
    assert_eq!(serde_json::from_slice::<Value>(&raw).unwrap()["params"]["level"], "debug");
    assert_eq!(told.take(), set(0, "debug"), "before the call");
    free.add_permits(1);
    let calm = send(&upstream, modern(LogLevel::Error));
    fake::drain(&mut curious).await.1.unwrap();
    free.add_permits(1);
    calm.await.unwrap();
    drop(curious);
    told.take();

    free.add_permits(100);
    send(&upstream, call(Era::Modern)).await.unwrap();
    assert_eq!(told.take(), [], "nobody wants anything of this one");
    for _ in 0..2 {
        send(&upstream, modern(LogLevel::Warning)).await.unwrap();
    }
    assert_eq!(told.take(), set(0, "warning"), "the curious one has gone; and it is said once");
    assert_eq!(processes.started(), 1);
}

#[tokio::test(start_paused = true)]
async fn less_is_set_only_when_nobody_listens_who_wants_more() {
    let Playing { told, free, upstream, .. } = Playing::with_free(0).await;
    let curious = upstream.send(modern(LogLevel::Debug)).await.unwrap();
    let calm = upstream.send(modern(LogLevel::Error)).await.unwrap();
    assert_eq!(told.take(), set(0, "debug"));
    drop((curious, calm));
    free.add_permits(100);

    // Clients with sessions listen for as long as these live.
    let (one, other) = (link("alice", b"{}"), link("alice", b"{}"));
    one.set_log_level(LogLevel::Info);
    other.set_log_level(LogLevel::Alert);
    for link in [&one, &other, &one] {
        send(&upstream, linked(link)).await.unwrap();
    }
    assert_eq!(told.take(), set(0, "info"));
    other.set_log_level(LogLevel::Notice);
    upstream.tell_level(&other).await;
    assert_eq!(told.take(), []);
    drop(one);
    send(&upstream, modern(LogLevel::Critical)).await.unwrap();
    assert_eq!(told.take(), set(0, "notice"));
    other.set_log_level(LogLevel::Debug);
    upstream.tell_level(&other).await;
    assert_eq!(told.take(), set(0, "debug"), "without a call");
}

#[tokio::test(start_paused = true)]
async fn a_process_of_its_own_is_set_to_its_clients_level_and_so_is_the_next_one() {
    let Playing { told, processes, upstream, .. } = Playing::with_free(100).await;
    let link = link("alice", br#"{"roots":{}}"#);
    link.set_log_level(LogLevel::Info);
    upstream.tell_level(&link).await;
    assert_eq!((told.take(), processes.started()), (vec![], 1), "nothing is started to be told that");
    send(&upstream, linked(&link)).await.unwrap();
    assert_eq!(told.take(), set(1, "info"));
    let mut asked = modern(LogLevel::Debug);
    asked.capabilities = Capabilities::new(Bytes::from_static(br#"{"sampling":{}}"#));
    send(&upstream, asked).await.unwrap();
    assert_eq!(told.take(), set(2, "debug"), "a modern client that can be asked has one for the call");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_a_client_has_not_used_is_not_set_to_its_level() {
    let Playing { told, upstream, .. } = Playing::with_free(100).await;
    let link = link("alice", b"{}");
    link.set_log_level(LogLevel::Debug);
    upstream.tell_level(&link).await;
    upstream.tell_level(&link).await;
    send(&upstream, modern(LogLevel::Critical)).await.unwrap();
    assert_eq!(told.take(), set(0, "critical"), "nobody is there who wants more");
    send(&upstream, linked(&link)).await.unwrap();
    assert_eq!(told.take(), set(0, "debug"), "now it has used it");
}

#[tokio::test(start_paused = true)]
async fn a_process_of_its_own_ends_with_the_server_though_its_client_spoke_of_it_before_its_first_call() {
    let Playing { processes, upstream, .. } = Playing::with_free(100).await;
    let link = link("alice", br#"{"roots":{}}"#);
    link.set_log_level(LogLevel::Info);
    upstream.tell_level(&link).await;
    upstream.notify(&link, &Method::NotificationsRootsListChanged, b"").await.unwrap();
    send(&upstream, linked(&link)).await.unwrap();
    assert_eq!(processes.living(), 2);
    upstream.stop();
    fake::until("both end", || processes.living() == 0).await;
    drop(link);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_what_a_server_is_told_for_another() {
    let (calls, set) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Semaphore::new(0)));
    let (seen, answers) = (Arc::clone(&calls), Arc::clone(&set));
    let processes = Processes::new(move |_, mut process| {
        let (seen, answers) = (Arc::clone(&seen), Arc::clone(&answers));
        Box::pin(async move {
            while let Some(message) = process.read().await {
                match message["method"].as_str().unwrap_or_default() {
                    // Never answered.
                    "logging/setLevel" => answers.add_permits(1),
                    "tools/call" => {
                        seen.lock().unwrap().push(message["params"]["arguments"]["of"].clone());
                        process.legacy(&message).await;
                    }
                    _ => process.legacy(&message).await,
                }
            }
        })
    });
    let upstream = processes.upstream();
    ready(&upstream).await;
    let call = |of: &str, level| {
        let mut request = modern(level);
        request.members = format!(r#""name":"echo","arguments":{{"of":"{of}"}}"#).into();
        request
    };
    let (asking, curious) = (Arc::clone(&upstream), call("curious", LogLevel::Debug));
    let curious = tokio::spawn(async move { send(&asking, curious).await });
    set.acquire().await.unwrap().forget();
    send(&upstream, call("calm", LogLevel::Error)).await.unwrap();
    assert_eq!(*calls.lock().unwrap(), ["calm"]);
    curious.await.unwrap().unwrap();
    assert_eq!(*calls.lock().unwrap(), ["calm", "curious"], "it makes its call without log messages");
}

/// A server of sessions that counts them.
async fn counting() -> Fake {
    let sessions = std::sync::atomic::AtomicUsize::new(0);
    Fake::start(move |seen| {
        let number = sessions.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Box::pin(async move {
            let mut answer = legacy(&seen);
            if seen.method() == "initialize" {
                answer.headers_mut().insert("mcp-session-id", format!("s-{number}").parse().unwrap());
            }
            answer
        })
    })
    .await
}

/// The levels that a server was told, and whether the last call came in the session that was told last.
fn told(fake: &Fake) -> (Vec<String>, bool) {
    let seen = fake.seen();
    let told: Vec<_> = seen.iter().filter(|seen| seen.method() == "logging/setLevel").collect();
    let call = seen.iter().rfind(|seen| seen.method() == "tools/call").unwrap();
    let same = told.last().is_some_and(|one| one.header("mcp-session-id") == call.header("mcp-session-id"));
    (told.iter().map(|one| one.body["params"]["level"].as_str().unwrap().to_owned()).collect(), same)
}

#[tokio::test]
async fn over_http_a_modern_clients_level_is_set_in_the_session_of_its_call() {
    let fake = counting().await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    send(&upstream, modern(LogLevel::Notice)).await.unwrap();
    send(&upstream, modern(LogLevel::Notice)).await.unwrap();
    assert_eq!(told(&fake), (vec!["notice".to_owned()], true));
    send(&upstream, call(Era::Modern)).await.unwrap();
    assert_eq!(told(&fake), (vec!["notice".to_owned()], false), "another session, where nobody wants any");
}

#[tokio::test]
async fn over_http_a_legacy_clients_level_is_set_in_its_own_session() {
    let fake = counting().await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    let link = link("alice", b"{}");
    send(&upstream, linked(&link)).await.unwrap();
    assert_eq!(told(&fake).0, [""; 0]);
    for (level, word) in [(LogLevel::Info, "info"), (LogLevel::Error, "error")] {
        link.set_log_level(level);
        upstream.tell_level(&link).await;
        send(&upstream, linked(&link)).await.unwrap();
        let (levels, same) = told(&fake);
        assert!(same && levels.last().is_some_and(|last| last == word), "{levels:?}");
    }
    assert_eq!(told(&fake).0.len(), 2);
}

#[tokio::test]
async fn a_server_that_has_no_log_messages_is_told_no_level() {
    let fake = Fake::start(|seen| {
        Box::pin(async move {
            if seen.method() != "initialize" {
                return legacy(&seen);
            }
            let mut said = initialized();
            said["capabilities"] = json!({"tools": {}});
            let mut answer = result(&seen, said);
            answer.headers_mut().insert("mcp-session-id", "s".parse().unwrap());
            answer
        })
    })
    .await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    send(&upstream, modern(LogLevel::Debug)).await.unwrap();
    assert_eq!(told(&fake).0, [""; 0]);
}
