//! Processes of one client's own: how many there may be, and when they end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use mcpmesh_ir::ServerId;
use mcpmesh_proxy::mcp::envelope::Method;
use mcpmesh_proxy::mcp::era::{Era, Revision};
use mcpmesh_proxy::mcp::meta::Capabilities;
use mcpmesh_proxy::metrics::{Label, Metrics};
use mcpmesh_proxy::session::{Session, Sessions, Terms};
use mcpmesh_proxy::upstream::*;
use serde_json::json;
use tokio::sync::{Notify, Semaphore};

use super::fake::{self, Processes, call, linked, ready, send};

/// Of one caller, and of all together.
const MOST: [usize; 2] = [16, 32];
const DECLARED: &[u8] = br#"{"roots":{}}"#;

/// A client that can be asked.
fn link(caller: &str) -> Arc<SessionLink> {
    fake::link(caller, DECLARED)
}

async fn calling(upstream: &Upstream, link: &Arc<SessionLink>) -> Result<(), Error> {
    send(upstream, linked(link)).await.map(drop)
}

fn playing() -> Arc<Processes> {
    Processes::new(|_, mut process| {
        Box::pin(async move {
            while let Some(message) = process.read().await {
                if message["method"] == "resources/subscribe" {
                    process.result(&message, json!({})).await;
                } else {
                    process.legacy(&message).await;
                }
            }
        })
    })
}

#[tokio::test(start_paused = true)]
async fn clients_that_can_be_asked_start_a_bounded_number_of_processes() {
    let processes = playing();
    let upstream = processes.upstream();
    ready(&upstream).await;
    let sessions = |caller: &'static str| (0..40).map(move |_| link(caller)).collect::<Vec<_>>();
    let (alice, bob, carol) = (sessions("alice"), sessions("bob"), sessions("carol"));
    for (link, number) in alice.iter().zip(0..) {
        let called = calling(&upstream, link).await;
        assert_eq!(called.is_ok(), number < MOST[0], "{number}: {called:?}");
        if let Err(error) = called {
            assert_eq!((error.kind, error.executed), (Kind::Crowded, false));
            assert_eq!(error.retry_after, Some(Duration::from_secs(60)));
        }
    }
    assert!(calling(&upstream, &alice[0]).await.is_ok(), "what is there is used");
    for link in &bob {
        let _ = calling(&upstream, link).await;
    }
    assert_eq!(processes.started(), 1 + MOST[1], "the one that all share, and theirs");
    assert_eq!(calling(&upstream, &carol[0]).await.unwrap_err().kind, Kind::Crowded);

    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(calling(&upstream, &carol[0]).await.unwrap_err().kind, Kind::Crowded, "those are others'");
    for link in &alice[..8] {
        calling(&upstream, link).await.unwrap();
    }
    calling(&upstream, &alice[39]).await.unwrap();
    fake::until("the one makes room that was not used for longest", || processes.living() == 1 + MOST[1])
        .await;
    let started = processes.started();
    for link in &alice[..8] {
        calling(&upstream, link).await.unwrap();
    }
    assert_eq!(processes.started(), started, "those that were used are still there");
    drop(bob);
    fake::until("they end with their sessions", || processes.living() == 1 + MOST[0]).await;
    calling(&upstream, &carol[0]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn processes_that_crashed_take_no_room_from_those_that_come_in_their_place() {
    let crash = Arc::new(Notify::new());
    let crashing = Arc::clone(&crash);
    let processes = Processes::new(move |number, mut process| {
        let crash = Arc::clone(&crashing);
        Box::pin(async move {
            tokio::select! {
                () = process.play_legacy() => {}
                // Not the one that all share.
                () = crash.notified(), if number > 0 => {}
            }
        })
    });
    let upstream = processes.upstream();
    ready(&upstream).await;
    let links: Vec<_> = (0..MOST[0]).map(|_| link("alice")).collect();
    for round in 1..=3 {
        for link in &links {
            calling(&upstream, link).await.unwrap();
        }
        assert_eq!(processes.started(), 1 + round * MOST[0]);
        crash.notify_waiters();
        fake::until("all crash", || processes.living() == 1).await;
    }
}

/// Processes that are gone when `free` says so, however long ago they were told to end.
struct Slow {
    processes: Arc<Processes>,
    free: Arc<Semaphore>,
}

impl Connector for Slow {
    fn connect(&self, server: &ServerId) -> BoxFuture<'static, Result<Connected, ConnectError>> {
        let (connecting, free) = (self.processes.connect(server), Arc::clone(&self.free));
        Box::pin(async move {
            let mut connected = connecting.await?;
            if let Connected::Stdio { ended, .. } = &mut connected {
                let told = std::mem::replace(ended, Box::pin(async {}));
                *ended = Box::pin(async move {
                    told.await;
                    free.acquire().await.unwrap().forget();
                });
            }
            Ok(connected)
        })
    }
}

fn slow(processes: &Arc<Processes>) -> (Arc<Upstream>, Arc<Semaphore>) {
    let free = Arc::new(Semaphore::new(0));
    let slow = Slow { processes: Arc::clone(processes), free: Arc::clone(&free) };
    let deps = Deps { connector: Some(Arc::new(slow)), ..Deps::default() };
    (Upstream::start(Config::new(ServerId::new("ns", "slow"), Endpoint::Workload), deps), free)
}

#[tokio::test(start_paused = true)]
async fn a_process_that_nobody_wants_any_more_keeps_its_room_until_it_has_ended() {
    let processes = playing();
    let (upstream, free) = slow(&processes);
    ready(&upstream).await;
    for _ in 0..MOST[0] {
        calling(&upstream, &link("alice")).await.unwrap();
    }
    fake::until("all are told to end", || processes.living() == 1).await;
    let next = link("alice");
    assert_eq!(calling(&upstream, &next).await.unwrap_err().kind, Kind::Crowded);
    assert_eq!(processes.started(), 1 + MOST[0]);
    calling(&upstream, &link("bob")).await.unwrap();
    let (called, ()) = tokio::join!(calling(&upstream, &next), async { free.add_permits(1) });
    called.unwrap();
    assert_eq!(processes.started(), 3 + MOST[0], "it waited for the end of one");
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_cancelled_before_their_process_answers_start_no_more_than_others() {
    let processes = Processes::new(|number, mut process| {
        Box::pin(async move {
            if number == 0 {
                process.play_legacy().await;
            }
            while process.read().await.is_some() {}
        })
    });
    let (upstream, _free) = slow(&processes);
    ready(&upstream).await;
    for number in 0..MOST[0] {
        let link = link("alice");
        tokio::select! {
            called = calling(&upstream, &link) => panic!("{called:?}"),
            () = fake::until("it starts", || processes.started() == 2 + number) => {}
        }
    }
    assert_eq!(calling(&upstream, &link("alice")).await.unwrap_err().kind, Kind::Crowded);
    assert_eq!(processes.started(), 1 + MOST[0]);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_busy_makes_no_room() {
    let processes = Processes::new(|number, mut process| {
        Box::pin(async move {
            while let Some(message) = process.read().await {
                // Each but the one that all share works without end.
                if number == 0 || message["method"] != "tools/call" {
                    process.legacy(&message).await;
                }
            }
        })
    });
    let upstream = processes.upstream();
    ready(&upstream).await;
    let links: Vec<_> = (0..=MOST[0]).map(|_| link("alice")).collect();
    let mut busy = Vec::new();
    for link in &links[..MOST[0]] {
        busy.push(upstream.send(linked(link)).await.unwrap());
    }
    tokio::time::advance(Duration::from_secs(100)).await;
    assert_eq!(calling(&upstream, &links[MOST[0]]).await.unwrap_err().kind, Kind::Crowded);
    assert_eq!(processes.living(), 1 + MOST[0]);
}

#[tokio::test(start_paused = true)]
async fn the_process_of_a_client_that_is_away_ends_and_another_comes_with_its_next_call() {
    let processes = playing();
    let upstream = processes.upstream();
    ready(&upstream).await;
    let (metrics, sessions) = (Metrics::default(), Sessions::default());
    let open = |id: &str| {
        let terms = Terms {
            id: id.to_owned(),
            expires: u64::MAX,
            revision: Revision::V2025_11_25,
            principal: "alice".to_owned(),
            capabilities: Capabilities::new(Bytes::from_static(DECLARED)),
        };
        let session = Session::new(terms, link("alice"), metrics.session(&Label::from("a/gw")));
        assert!(sessions.insert(Arc::clone(&session), 100));
        session
    };
    let (away, working) = (open("away"), open("working"));
    let id = mcpmesh_proxy::mcp::envelope::Id::from(1);
    let works = working.begin(&id);
    for session in [&away, &working] {
        calling(&upstream, &session.link).await.unwrap();
    }
    assert_eq!(processes.living(), 3);
    let hour = Duration::from_secs(3600);
    sessions.rest(hour);
    assert_eq!(processes.living(), 3, "not yet");
    sessions.rest(Duration::ZERO);
    fake::until("its process ends", || processes.living() == 2).await;
    assert!(sessions.get("away", "alice", 0).is_some(), "its session does not");
    calling(&upstream, &away.link).await.unwrap();
    assert_eq!(processes.started(), 4);

    // What it subscribed to would be missed.
    let mut request = Outgoing::new(Era::Legacy, Method::ResourcesSubscribe, &br#""uri":"file:///a""#[..]);
    (request.name, request.session) = (Some("file:///a".to_owned()), Some(Arc::clone(&away.link)));
    send(&upstream, request).await.unwrap();
    drop(works);
    sessions.rest(Duration::ZERO);
    fake::until("the other's ends", || processes.living() == 2).await;
    calling(&upstream, &away.link).await.unwrap();
    assert_eq!(processes.started(), 4, "this one's is the same");
}

#[tokio::test(start_paused = true)]
async fn clients_without_sessions_keep_a_bounded_number_however_many_kinds_there_are_of_them() {
    let processes = playing();
    let upstream = processes.upstream();
    ready(&upstream).await;
    let kinds = [
        r#"{"roots":{}}"#,
        r#"{"sampling":{}}"#,
        r#"{"elicitation":{"form":{}}}"#,
        r#"{"elicitation":{"url":{}}}"#,
        r#"{"roots":{},"sampling":{}}"#,
        r#"{"roots":{},"elicitation":{"form":{}}}"#,
        r#"{"sampling":{},"elicitation":{"form":{}}}"#,
    ];
    for kind in kinds {
        let mut request = call(Era::Modern);
        request.capabilities = Capabilities::new(Bytes::from_static(kind.as_bytes()));
        send(&upstream, request).await.unwrap();
    }
    assert_eq!(processes.started(), 1 + kinds.len());
    fake::until("the rest end", || processes.living() == 1 + 4).await;
}
