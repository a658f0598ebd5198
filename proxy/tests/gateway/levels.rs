//! `logging/setLevel` of a legacy client, at servers of sessions.

use serde_json::json;

use super::fake::Fake;
use super::harness::Gate;
use super::setup::Setup;

const SET: &str = "logging/setLevel";

#[tokio::test]
async fn a_legacy_clients_level_reaches_its_servers_with_the_first_call_and_from_then_on_at_once() {
    let fake = Fake::legacy(&["echo"]).await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let legacy = gate.legacy(None, "2025-11-25").await;
    let set = async |level: &str| {
        assert_eq!(legacy.ask(SET, json!({"level": level})).await.json()["result"], json!({}));
    };
    set("warning").await;
    assert!(fake.of(SET).is_empty(), "the server has no session for this client yet");
    legacy.call("s0_echo", json!({})).await;
    let (told, call) = (fake.of(SET), fake.calls());
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].body["params"]["level"], "warning");
    assert_eq!(told[0].header("mcp-session-id"), call[0].header("mcp-session-id"));
    set("debug").await;
    fake.until("the new level, without a call", |seen| {
        seen.iter().any(|one| one.method() == SET && one.body["params"]["level"] == "debug")
    })
    .await;

    let other = gate.legacy(None, "2025-11-25").await;
    other.call("s0_echo", json!({})).await;
    assert_eq!(fake.of(SET).len(), 2, "another's level is no concern of this one");
    assert_eq!(other.ask(SET, json!({"level": "loud"})).await.code(), -32602);
}
