//! Sealed handles through the gateway: each is good until the second that its seal names.

use std::time::{SystemTime, UNIX_EPOCH};

use mcpmesh_proxy::mcp::handle::{Binding, KeyRing, Purpose};
use mcpmesh_proxy::ring::Source;
use serde_json::{Value, json};

use super::fake::{self, Catalogue, Fake, Speaks};
use super::harness::Gate;
use super::setup::Setup;

const ALICE: Binding<'_> = Binding { gateway_uid: "uid-gw", principal: "gateway:a/gw#alice" };
const KEY: [u8; 32] = [7; 32];

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A gateway whose keys the test has, too.
async fn gate(fake: &Fake) -> (Gate, KeyRing, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring");
    std::fs::write(&path, hex::encode(KEY)).unwrap();
    let setup = Setup::open(&[fake]).keys(&["alice"]);
    let gate = Gate::with(&setup, |options| options.ring = Source::File(path)).await;
    (gate, KeyRing::new(&KEY, None).unwrap(), folder)
}

/// Asserts that a handle that was just made lives so long, and returns what it says.
fn lives(ring: &KeyRing, purpose: Purpose, made: (u64, u64), seconds: u64, handle: &str) -> Value {
    let open = |at| ring.open::<Value>(purpose, &ALICE, at, handle);
    assert!(open(made.1 + seconds).is_err(), "{purpose:?}");
    open(made.0 + seconds - 1).unwrap_or_else(|_| panic!("{purpose:?} is over too early"))
}

#[tokio::test]
async fn a_cursor_is_good_for_an_hour() {
    let names: Vec<String> = (0..1500).map(|index| format!("t{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let fake = Fake::start(Speaks::Modern, Catalogue::tools(&names)).await;
    let (gate, ring, _folder) = gate(&fake).await;
    let alice = gate.modern(Some("alice"));
    alice.tools().await;
    let before = now();
    let first = alice.ask("tools/list", json!({})).await.json();
    let cursor = first["result"]["nextCursor"].as_str().unwrap();
    let said = lives(&ring, Purpose::Cursor, (before, now()), 3600, cursor);
    let sealed = |expires| ring.seal(Purpose::Cursor, &ALICE, expires, &said).unwrap();
    let live = alice.ask("tools/list", json!({"cursor": sealed(now() + 600)})).await;
    assert_eq!(live.names("tools", "name").len(), 500);
    for over in [now(), now() - 1, 0] {
        let refused = alice.ask("tools/list", json!({"cursor": sealed(over)})).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (200, -32602), "{over}");
    }
}

#[tokio::test]
async fn a_request_state_is_good_for_a_quarter_of_an_hour() {
    let fake = Fake::modern(&["ask"]).await;
    fake.hook(|seen| {
        (seen.method() == "tools/call").then_some(())?;
        let question = json!({"method": "elicitation/create", "params": {"message": "name?", "requestedSchema": {"type": "object"}}});
        let value = match seen.body["params"].get("inputResponses") {
            None => json!({"resultType": "input_required", "inputRequests": {"q": question}, "requestState": "own"}),
            Some(_) => json!({"resultType": "complete", "content": [], "structuredContent": seen.body["params"]["requestState"]}),
        };
        Some(Box::pin(async move { fake::result(&seen, value) }))
    });
    let (gate, ring, _folder) = gate(&fake).await;
    let mut alice = gate.modern(Some("alice"));
    alice.capabilities = json!({"elicitation": {}});
    alice.tools().await;
    let before = now();
    let asked = alice.call("s0_ask", json!({})).await.json();
    let state = asked["result"]["requestState"].as_str().unwrap();
    let said = lives(&ring, Purpose::RequestState, (before, now()), 900, state);
    let again = |expires| {
        let state = ring.seal(Purpose::RequestState, &ALICE, expires, &said).unwrap();
        json!({"name": "s0_ask", "arguments": {}, "requestState": state,
               "inputResponses": {"q": {"action": "accept", "content": {}}}})
    };
    for over in [now(), now() - 1, 0] {
        assert_eq!(alice.ask("tools/call", again(over)).await.code(), -32602, "{over}");
    }
    assert_eq!(fake.calls().len(), 1, "none of them reached the server");
    let done = alice.ask("tools/call", again(now() + 600)).await.json();
    assert_eq!(done["result"]["structuredContent"], "own", "{done}");
}

#[tokio::test]
async fn a_session_id_is_good_for_a_week() {
    let fake = Fake::legacy(&["echo"]).await;
    let (gate, ring, _folder) = gate(&fake).await;
    let before = now();
    let alice = gate.legacy(Some("alice"), "2025-11-25").await;
    let said = lives(&ring, Purpose::Session, (before, now()), 7 * 24 * 3600, &alice.session);
    assert_eq!(said["revision"], "2025-11-25");
    // The same under another seal is no session that was opened.
    let session = ring.seal(Purpose::Session, &ALICE, now() + 600, &said).unwrap();
    let other = super::client::Legacy { session, ..alice.clone() };
    assert_eq!(other.ask("ping", json!({})).await.status, 404);
    assert_eq!(alice.ask("ping", json!({})).await.status, 200);
}
