//! First contact: in which order a server is asked, and what waits for which answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, poll};
use mcpmesh_proxy::mcp::era::{Era, Revision};
use mcpmesh_proxy::mcp::meta::Capabilities;
use mcpmesh_proxy::upstream::*;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::fake::{
    self, Answer, Fake, Processes, Seen, call, drain, error, legacy, link, linked, modern, observe, ready,
    result, send, status, tool,
};

const BOTH: Eras = Eras { modern: true, legacy: Some(Revision::V2025_11_25) };
const MODERN: Eras = Eras { modern: true, legacy: None };
const LISTS: [&str; 4] = ["tools/list", "prompts/list", "resources/list", "resources/templates/list"];

/// How long anything is waited for that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Holds answers back until it is opened.
#[derive(Clone)]
struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    fn shut() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    fn open(&self) {
        self.0.send_replace(true);
    }

    async fn pass(&self) {
        self.0.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

/// What a server of both eras answers that has every kind of list.
fn both(seen: &Seen) -> Answer {
    if !seen.is_modern() {
        return legacy(seen);
    }
    match seen.method() {
        "server/discover" => result(
            seen,
            json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}, "prompts": {}, "resources": {}}}),
        ),
        "prompts/list" => result(seen, json!({"prompts": [{"name": "ask"}]})),
        "resources/list" => result(seen, json!({"resources": [{"uri": "file:///a", "name": "a"}]})),
        "resources/templates/list" => result(seen, json!({"resourceTemplates": []})),
        _ => modern(seen),
    }
}

/// A server of both eras whose answers to some methods wait at gates.
async fn gated(gates: impl IntoIterator<Item = (&'static str, Gate)>) -> Fake {
    let gates: Vec<_> = gates.into_iter().collect();
    Fake::start(move |seen| {
        let gate = gates.iter().find(|(method, _)| *method == seen.method()).map(|(_, gate)| gate.clone());
        Box::pin(async move {
            if let Some(gate) = gate {
                gate.pass().await;
            }
            both(&seen)
        })
    })
    .await
}

/// Whether a modern request declares that its client can be asked something.
fn may_be_asked(seen: &Seen) -> bool {
    seen.body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"]["elicitation"].is_object()
}

fn asked(fake: &Fake, method: &str) -> usize {
    fake.seen().iter().filter(|seen| seen.method() == method).count()
}

#[tokio::test]
async fn a_modern_servers_lists_are_there_after_two_answers_in_a_row() {
    let (lists, initialize) = (Gate::shut(), Gate::shut());
    let gates =
        LISTS.map(|list| (list, lists.clone())).into_iter().chain([("initialize", initialize.clone())]);
    let fake = gated(gates).await;
    let upstream = fake.upstream();
    fake::until("every list is asked for at once", || LISTS.iter().all(|list| asked(&fake, list) == 1)).await;
    lists.open();
    let seen = ready(&upstream).await;
    assert_eq!(seen.eras, MODERN, "its answer to initialize is still held back");
    assert_eq!([seen.lists.tools.len(), seen.lists.prompts.len(), seen.lists.resources.len()], [1, 1, 1]);
    assert_eq!(asked(&fake, "server/discover"), 1, "what it said in the probe is used");
    assert_eq!(fake.methods()[0], "POST server/discover");

    initialize.open();
    observe(&upstream, |one| one.eras == BOTH).await;
    fake::until("that session is ended", || fake.methods().contains(&"DELETE".to_owned())).await;
}

#[tokio::test]
async fn sessions_are_known_of_once_initialize_is_answered() {
    let initialized = Gate::shut();
    let fake = gated([("notifications/initialized", initialized.clone())]).await;
    let upstream = fake.upstream();
    let seen = observe(&upstream, |one| one.eras == BOTH).await;
    assert_eq!(seen.state, State::Ready);
    initialized.open();
}

#[tokio::test]
async fn a_server_that_answers_initialize_and_no_more_has_no_sessions() {
    let fake = Fake::start(|seen| {
        Box::pin(async move {
            if seen.method() == "notifications/initialized" { status(400, "") } else { both(&seen) }
        })
    })
    .await;
    let upstream = fake.upstream();
    fake::until("it is told that we are there", || asked(&fake, "notifications/initialized") == 1).await;
    observe(&upstream, |one| one.eras == MODERN && one.state == State::Ready).await;
    assert_eq!(upstream.send(call(Era::Legacy)).await.unwrap().era(), Era::Modern);
}

#[tokio::test]
async fn a_legacy_clients_first_call_gets_its_session_however_late_it_is_known_of() {
    let initialize = Gate::shut();
    let fake = gated([("initialize", initialize.clone())]).await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    let link = link("alice", b"{}");
    let mut first = Box::pin(upstream.send(linked(&link)));
    assert!(poll!(first.as_mut()).is_pending());
    assert!(send(&upstream, call(Era::Modern)).await.is_ok(), "a modern client's call waits for nothing");
    assert!(poll!(first.as_mut()).is_pending());
    initialize.open();
    let mut reply = first.await.unwrap();
    assert_eq!(reply.era(), Era::Legacy);
    assert!(drain(&mut reply).await.1.is_ok());
    assert_eq!(fake.seen().pop().unwrap().header("mcp-session-id"), Some("s-1"));
}

#[tokio::test]
async fn a_legacy_clients_first_call_does_not_outlive_its_upstream() {
    let fake = gated([("initialize", Gate::shut())]).await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    let link = link("alice", b"{}");
    let mut first = Box::pin(upstream.send(linked(&link)));
    assert!(poll!(first.as_mut()).is_pending());
    upstream.stop();
    assert!(
        tokio::time::timeout(PATIENCE, first).await.is_ok(),
        "it waits for what nobody looks for any more"
    );
}

#[tokio::test]
async fn a_server_that_never_answers_initialize_is_a_modern_one_and_nothing_fails() {
    let fake = gated([("initialize", Gate::shut())]).await;
    let mut config = fake.config("/mcp", Transport::Auto);
    // As long as a legacy client's first call waits.
    config.timeouts.connect = Duration::from_millis(500);
    let upstream = Upstream::start(config, Deps::default());
    ready(&upstream).await;
    let link = link("alice", b"{}");
    for _ in 0..2 {
        let sending = tokio::time::timeout(PATIENCE, upstream.send(linked(&link)));
        let mut reply = sending.await.expect("it is waited for that long only").unwrap();
        assert_eq!(reply.era(), Era::Modern);
        assert!(drain(&mut reply).await.1.is_ok());
    }
    let seen = ready(&upstream).await;
    assert_eq!((seen.eras, &seen.state), (MODERN, &State::Ready));
    assert_eq!(asked(&fake, "initialize"), 1, "it is still waited for");
}

#[tokio::test]
async fn what_a_server_says_of_itself_is_asked_again_with_later_lists() {
    let told = Arc::new(Mutex::new("first"));
    let now = Arc::clone(&told);
    let fake = Fake::start(move |seen| {
        let now = *now.lock().unwrap();
        Box::pin(async move {
            match seen.method() {
                "server/discover" => result(
                    &seen,
                    json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "instructions": now}),
                ),
                _ => modern(&seen),
            }
        })
    })
    .await;
    let upstream = fake.upstream();
    assert_eq!(ready(&upstream).await.instructions.as_deref(), Some("first"));
    *told.lock().unwrap() = "second";
    upstream.refresh();
    observe(&upstream, |one| one.instructions.as_deref() == Some("second")).await;
}

#[tokio::test]
async fn a_server_that_refuses_the_probe_in_modern_words_is_asked_again_what_it_is() {
    let probed = Arc::new(AtomicBool::new(false));
    let fake = Fake::start(move |seen| {
        let first = !probed.swap(true, Ordering::Relaxed);
        Box::pin(async move {
            if first {
                return error(400, &seen, json!({"code": -32021, "message": "Missing capability"}));
            }
            modern(&seen)
        })
    })
    .await;
    let upstream = fake.upstream();
    assert_eq!(ready(&upstream).await.instructions.as_deref(), Some("be nice"));
}

#[tokio::test]
async fn a_server_of_sessions_is_asked_for_lists_once_it_has_heard_that_we_are_there() {
    let heard = Arc::new(AtomicBool::new(false));
    let fake = Fake::start(move |seen| {
        let heard = Arc::clone(&heard);
        Box::pin(async move {
            match seen.method() {
                "notifications/initialized" => {
                    // Time for a list that would not wait to overtake this.
                    for _ in 0..200 {
                        tokio::task::yield_now().await;
                    }
                    heard.store(true, Ordering::Relaxed);
                }
                "tools/list" if !heard.load(Ordering::Relaxed) => return status(400, ""),
                _ => {}
            }
            legacy(&seen)
        })
    })
    .await;
    let upstream = fake.upstream();
    let asked = observe(&upstream, |one| one.state != State::Connecting).await;
    assert_eq!(asked.state, State::Ready);
    let posts: Vec<_> =
        fake.methods().into_iter().filter_map(|one| one.strip_prefix("POST ").map(str::to_owned)).collect();
    assert_eq!(posts, ["server/discover", "initialize", "notifications/initialized", "tools/list"]);
}

#[tokio::test(start_paused = true)]
async fn a_modern_process_is_asked_what_it_is_once_and_for_all_its_lists_at_once() {
    let (heard, mut hears) = mpsc::unbounded_channel();
    let processes = Processes::new(move |_, mut process| {
        let heard = heard.clone();
        Box::pin(async move {
            let probe = process.read().await.unwrap();
            let capabilities = json!({"tools": {}, "prompts": {}, "resources": {}});
            process
                .result(&probe, json!({"supportedVersions": ["2026-07-28"], "capabilities": capabilities}))
                .await;
            let mut lists = Vec::new();
            while lists.len() < LISTS.len() {
                lists.push(process.read().await.unwrap());
            }
            for list in &lists {
                let items = json!([]);
                let said = json!({"tools": [tool("echo")], "prompts": items, "resources": items, "resourceTemplates": items});
                let member = match list["method"].as_str().unwrap() {
                    "tools/list" => "tools",
                    "prompts/list" => "prompts",
                    "resources/list" => "resources",
                    _ => "resourceTemplates",
                };
                process.result(list, json!({member: said[member]})).await;
            }
            heard.send(lists).unwrap();
            process.play_legacy().await;
        })
    });
    let upstream = processes.upstream();
    let seen = ready(&upstream).await;
    assert_eq!(seen.lists.tools[0].key, "echo");
    let lists = hears.recv().await.unwrap();
    assert_eq!(lists.iter().map(|list: &Value| list["method"].as_str().unwrap()).collect::<Vec<_>>(), LISTS);
}

#[tokio::test]
async fn lists_for_modern_clients_that_can_be_asked_are_read_beside_everyones() {
    let lists = Gate::shut();
    let gate = lists.clone();
    let fake = Fake::start(move |seen| {
        let gate = gate.clone();
        Box::pin(async move {
            if seen.method() != "tools/list" {
                return modern(&seen);
            }
            gate.pass().await;
            let names: &[_] = if may_be_asked(&seen) { &["echo", "ask"] } else { &["echo"] };
            result(&seen, json!({"tools": names.iter().map(|name| tool(name)).collect::<Vec<_>>()}))
        })
    })
    .await;
    let upstream = fake.upstream();
    let set = Capabilities::new(Bytes::from_static(br#"{"elicitation":{}}"#)).set();
    let mut offered = upstream.offered(Declared::of(Era::Modern, set).unwrap());
    fake::until("both are asked for before either is answered", || asked(&fake, "tools/list") == 2).await;
    lists.open();
    let own = offered.wait_for(|offered| *offered != Offered::Unknown).await.unwrap().clone();
    let Offered::Own(own) = own else { panic!("{own:?}") };
    assert_eq!((own.tools.len(), ready(&upstream).await.lists.tools.len()), (2, 1));
    assert_eq!(asked(&fake, "server/discover"), 1);
}

/// What is written to the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// From now on, on this thread.
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// How often it says that a tool is left out.
    fn left_out(&self, tool: &str) -> usize {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        log.matches(&format!("left out the tool \"{tool}\", which runs as a task only")).count()
    }
}

/// A modern server whose tools run as tasks only, but for one of clients that can be asked.
async fn of_tasks(listed: &Arc<Mutex<Vec<&'static str>>>) -> Fake {
    let now = Arc::clone(listed);
    Fake::start(move |seen| {
        let now = now.lock().unwrap().clone();
        Box::pin(async move {
            if seen.method() != "tools/list" {
                return modern(&seen);
            }
            let only = |name: &&str| {
                let mut one = tool(name);
                one["execution"] = json!({"taskSupport": "required"});
                one
            };
            let more = may_be_asked(&seen).then(|| tool("ask"));
            result(&seen, json!({"tools": now.iter().map(only).chain(more).collect::<Vec<_>>()}))
        })
    })
    .await
}

#[tokio::test]
async fn a_list_that_hangs_holds_up_no_other() {
    let prompts = Gate::shut();
    let fake = gated([("prompts/list", prompts.clone())]).await;
    let upstream = fake.upstream();
    let seen = observe(&upstream, |one| !one.lists.tools.is_empty()).await;
    let State::Degraded { reason, .. } = &seen.state else { panic!("{:?}", seen.state) };
    assert_eq!(reason, "prompts/list is not answered yet; the other lists are served");
    assert_eq!([seen.lists.prompts.len(), seen.lists.resources.len()], [0, 1]);
    prompts.open();
    let seen = ready(&upstream).await;
    assert_eq!([seen.lists.tools.len(), seen.lists.prompts.len(), seen.lists.resources.len()], [1, 1, 1]);
    assert!(seen.lists.remarks.is_empty());
    assert_eq!(asked(&fake, "tools/list"), 1);
}

#[tokio::test]
async fn what_is_left_out_of_the_lists_is_said_once_whomever_they_are_for() {
    let (log, _traced) = Log::start();
    let fake = of_tasks(&Arc::new(Mutex::new(vec!["only"]))).await;
    let upstream = fake.upstream();
    let set = Capabilities::new(Bytes::from_static(br#"{"elicitation":{}}"#)).set();
    let mut offered = upstream.offered(Declared::of(Era::Modern, set).unwrap());
    let own = offered.wait_for(|offered| *offered != Offered::Unknown).await.unwrap().clone();
    assert!(matches!(own, Offered::Own(_)));
    assert_eq!(asked(&fake, "tools/list"), 2);
    assert_eq!(log.left_out("only"), 1);
}

#[tokio::test]
async fn what_is_left_out_of_the_lists_is_said_again_when_it_comes_back() {
    let (log, _traced) = Log::start();
    let listed = Arc::new(Mutex::new(vec!["first"]));
    let fake = of_tasks(&listed).await;
    let upstream = fake.upstream();
    ready(&upstream).await;
    for names in [vec!["first", "second"], vec!["second"], vec!["second", "first"]] {
        listed.lock().unwrap().clone_from(&names);
        upstream.refresh();
        observe(&upstream, |one| one.lists.remarks.len() == names.len()).await;
    }
    assert_eq!([log.left_out("first"), log.left_out("second")], [2, 1]);
}

#[tokio::test]
async fn lists_for_clients_that_can_be_asked_are_read_in_one_session() {
    let fake = Fake::start(|seen| {
        Box::pin(async move {
            match seen.method() {
                "initialize" => {}
                "prompts/list" => return result(&seen, json!({"prompts": []})),
                "resources/list" => return result(&seen, json!({"resources": []})),
                "resources/templates/list" => return result(&seen, json!({"resourceTemplates": []})),
                _ => return legacy(&seen),
            }
            let capabilities = json!({"tools": {}, "prompts": {}, "resources": {}});
            let said =
                json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": {}});
            let mut answer = result(&seen, said);
            answer.headers_mut().insert("mcp-session-id", "s-1".parse().unwrap());
            answer
        })
    })
    .await;
    let upstream = fake.upstream();
    let set = Capabilities::new(Bytes::from_static(br#"{"elicitation":{}}"#)).set();
    let mut offered = upstream.offered(Declared::of(Era::Legacy, set).unwrap());
    offered.wait_for(|offered| *offered != Offered::Unknown).await.unwrap();
    assert_eq!(asked(&fake, "initialize"), 2, "everyone's, and theirs");
}

#[tokio::test]
async fn lists_for_legacy_clients_that_can_be_asked_are_known_when_sessions_are() {
    let initialize = Gate::shut();
    let fake = gated([("initialize", initialize.clone())]).await;
    let upstream = fake.upstream();
    let set = Capabilities::new(Bytes::from_static(br#"{"elicitation":{}}"#)).set();
    let mut offered = upstream.offered(Declared::of(Era::Legacy, set).unwrap());
    ready(&upstream).await;
    assert!(offered.wait_for(|offered| *offered != Offered::Unknown).now_or_never().is_none());
    initialize.open();
    assert!(offered.wait_for(|offered| *offered != Offered::Unknown).await.is_ok());
    assert!(fake.seen().iter().any(|seen| seen.method() == "tools/list" && !seen.is_modern()));
}
