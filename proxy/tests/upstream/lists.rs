//! A list that fails hides no other: what can be listed is, the rest is asked for again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mcpmesh_proxy::mcp::era::Era;
use mcpmesh_proxy::mcp::meta::Capabilities;
use mcpmesh_proxy::upstream::*;
use serde_json::{Value, json};

use super::fake::{
    self, Fake, Process, Processes, error, initialized, legacy, modern, observe, ready, result, tool,
};

/// What a server answers that has tools and resources, and whose resources fail in this way; none: they are there.
async fn play(process: &mut Process, failing: impl Fn() -> Option<Value>) {
    while let Some(message) = process.read().await {
        match message["method"].as_str().unwrap_or_default() {
            "initialize" => {
                let mut said = initialized();
                said["capabilities"] = json!({"tools": {}, "resources": {}});
                process.result(&message, said).await;
            }
            "resources/list" => match failing() {
                Some(answer) => {
                    let mut whole = json!({"jsonrpc": "2.0", "id": message["id"]});
                    whole.as_object_mut().unwrap().extend(answer.as_object().unwrap().clone());
                    process.say(&whole.to_string()).await;
                }
                None => {
                    process.result(&message, json!({"resources": [{"uri": "file:///a", "name": "a"}]})).await;
                }
            },
            "resources/templates/list" => process.result(&message, json!({"resourceTemplates": []})).await,
            _ => process.legacy(&message).await,
        }
    }
}

fn keys(items: &[Item]) -> Vec<&str> {
    items.iter().map(|item| item.key.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_hides_no_other_and_is_asked_for_again() {
    let internal = json!({"error": {"code": -32603, "message": "no database"}});
    for failure in [internal, json!({"result": {"resources": 7}})] {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let processes = Processes::new(move |_, mut process| {
            let (asked, failure) = (Arc::clone(&counted), failure.clone());
            Box::pin(async move {
                // More often than a server may fail before it is found out anew; and again at the next poll.
                let failing = || (asked.fetch_add(1, Ordering::Relaxed) != 6).then(|| failure.clone());
                play(&mut process, failing).await;
            })
        });
        let upstream = processes.upstream();
        let partly = observe(&upstream, |one| matches!(one.state, State::Degraded { .. })).await;
        assert_eq!((keys(&partly.lists.tools), keys(&partly.lists.resources)), (vec!["echo"], vec![]));
        let State::Degraded { reason, .. } = &partly.state else { unreachable!() };
        assert!(reason.starts_with("resources/list failed ("), "{reason}");
        let remarks: Vec<_> = partly.lists.remarks.iter().map(Remark::to_string).collect();
        assert_eq!(remarks.join("|"), *reason);

        let whole = ready(&upstream).await;
        assert_eq!(keys(&whole.lists.resources), ["file:///a"]);
        assert!(whole.lists.remarks.is_empty());
        let again = observe(&upstream, |one| matches!(one.state, State::Degraded { .. })).await;
        assert_eq!(keys(&again.lists.resources), ["file:///a"], "what is known of it stands");
        assert_eq!(processes.started(), 1, "the server was there all the time");
    }
}

#[tokio::test]
async fn a_failed_list_is_told_in_the_servers_own_words_and_its_first_pages_stand() {
    let fake = Fake::start(|seen| {
        Box::pin(async move {
            let code = json!({"code": -32603, "message": "page two is torn"});
            match (seen.method(), seen.body["params"]["cursor"].as_str()) {
                ("server/discover", _) => result(
                    &seen,
                    json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}, "prompts": {}}}),
                ),
                ("prompts/list", None) => {
                    result(&seen, json!({"prompts": [{"name": "ask"}], "nextCursor": "2"}))
                }
                ("prompts/list", Some(_)) => error(200, &seen, code),
                _ => modern(&seen),
            }
        })
    })
    .await;
    let upstream = fake.upstream();
    let partly = observe(&upstream, |one| matches!(one.state, State::Degraded { .. })).await;
    assert_eq!((keys(&partly.lists.tools), keys(&partly.lists.prompts)), (vec!["echo"], vec!["ask"]));
    assert_eq!((partly.lists.ttl_ms, partly.lists.cache_scope), (0, CacheScope::Private));
    let State::Degraded { explanation, .. } = &partly.state else { unreachable!() };
    assert_eq!(explanation.as_ref().map(Explanation::as_str), Some("page two is torn"));
}

#[tokio::test]
async fn clients_that_can_be_asked_see_what_can_be_listed_too() {
    let fake = Fake::start(|seen| {
        Box::pin(async move {
            let declares = seen.body["params"]["capabilities"]["roots"].is_object();
            match seen.method() {
                "initialize" => {
                    let mut said = initialized();
                    said["capabilities"] = json!({"tools": {}, "resources": {}});
                    let mut answer = result(&seen, said);
                    let id = if declares { "asked" } else { "plain" };
                    answer.headers_mut().insert("mcp-session-id", id.parse().unwrap());
                    answer
                }
                "tools/list" if seen.header("mcp-session-id") == Some("asked") => {
                    result(&seen, json!({"tools": [tool("echo"), tool("roots")]}))
                }
                "resources/list" => error(200, &seen, json!({"code": -32603, "message": "no"})),
                _ => legacy(&seen),
            }
        })
    })
    .await;
    let upstream = fake.upstream();
    let roots = Capabilities::new(bytes::Bytes::from_static(br#"{"roots":{}}"#)).set();
    let mut offered = upstream.offered(Declared::of(Era::Legacy, roots).unwrap());
    let known = offered.wait_for(|offered| *offered != Offered::Unknown);
    let known =
        tokio::time::timeout(std::time::Duration::from_secs(60), known).await.unwrap().unwrap().clone();
    let Offered::Own(lists) = known else { panic!("{known:?}") };
    assert_eq!(keys(&lists.tools), ["echo", "roots"]);
    fake::until("nobody gives up", || fake.methods().len() > 4).await;
}
