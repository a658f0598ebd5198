use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use mcpmesh_ir::push::{Observation, ProxyReport};

use super::*;
use crate::status::server;
use crate::status::words::Words;

fn object(lock: &Value) -> McpServer {
    let spec =
        json!({"remote": {"url": "https://a.example"}, "lock": lock, "tools": {"exclude": ["hidden*"]}});
    let metadata = json!({"name": "s", "namespace": "a", "generation": 3});
    let kind =
        json!({"apiVersion": "mcpmesh.io/v1alpha1", "kind": "McpServer", "metadata": metadata, "spec": spec});
    serde_json::from_value(kind).unwrap()
}

fn id() -> ServerId {
    ServerId::new("a", "s")
}

fn tool(name: &str, digest: char, description: &str) -> IndexedTool {
    let members = [("name", name), ("description", description)];
    IndexedTool {
        name: name.to_owned(),
        digest: digest.to_string().repeat(64),
        members: members.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..IndexedTool::default()
    }
}

fn pin(name: &str, digest: char) -> Value {
    json!({"name": name, "digest": digest.to_string().repeat(64)})
}

fn view(tools: &[IndexedTool]) -> View {
    use mcpmesh_ir::catalog::{Observed, ObservedState};
    let index = CatalogIndex { tools: tools.to_vec(), ..CatalogIndex::default() };
    let seen = Observed {
        state: ObservedState::Ready,
        server_info: None,
        index: Some(index),
        ..Observed::default()
    };
    let observation =
        Observation { server: id().to_string(), body: serde_json::to_vec(&seen).unwrap().into() };
    let report = ProxyReport {
        fleet: "gateway/a/gw".to_owned(),
        observations: vec![observation],
        ..ProxyReport::default()
    };
    let words = Words::new(vec![report], &Words::default());
    let mut view = View::new(Vec::new(), Arc::new(words), Timestamp::UNIX_EPOCH);
    let gateway = mcpmesh_ir::GatewayId::new("a", "gw");
    view.attached = BTreeMap::from([(gateway.clone(), [id()].into())]);
    view.gateways = BTreeMap::from([(id(), vec![gateway])]);
    view
}

fn said_of(view: &View, object: &McpServer) -> Option<(String, String, String)> {
    let status = server(view, &id(), object);
    let one = status.conditions.into_iter().find(|one| one.type_ == condition::LOCK_HOLDS)?;
    Some((one.status, one.reason, one.message))
}

#[test]
fn a_lock_holds_while_every_tool_is_as_pinned() {
    let lock = json!({"mode": "Enforce", "tools": [pin("pay", 'a'), pin("old", 'b')]});
    let all = [tool("pay", 'a', "x"), tool("old", 'b', "x"), tool("hidden-one", 'c', "nobody sees it")];
    let (status, reason, message) = said_of(&view(&all), &object(&lock)).unwrap();
    assert_eq!((status.as_str(), reason.as_str(), message.as_str()), ("True", "Pinned", ""));
    let (status, _, message) = said_of(&view(&all[..1]), &object(&lock)).unwrap();
    assert_eq!((status.as_str(), message.as_str()), ("True", "pinned, but not offered: \"old\""));
    assert!(said_of(&view(&all), &object(&json!({"mode": "Off", "tools": []}))).is_none());
}

#[test]
fn drift_is_said_with_digests_and_what_becomes_of_the_tool() {
    let lock = |mode: &str| object(&json!({"mode": mode, "tools": [pin("pay", 'a')]}));
    let view = view(&[tool("pay", 'b', "x"), tool("new", 'c', "x")]);
    let (status, reason, message) = said_of(&view, &lock("Enforce")).unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Drifted"));
    assert_eq!(
        message,
        "not as pinned, there for nobody: \"new\" is not pinned (cccccccccccc), \"pay\" \
         aaaaaaaaaaaa -> bbbbbbbbbbbb; compare, then pin anew by `mcpmesh lock`"
    );
    assert!(said_of(&view, &lock("Warn")).unwrap().2.contains("served all the same"));
}

#[test]
fn an_event_tells_which_members_of_a_tool_changed_since_it_was_seen_as_pinned() {
    let object = object(&json!({"mode": "Enforce", "tools": [pin("pay", 'a')]}));
    let mut pinned = Pinned::default();
    pinned.note(&id(), &object.spec, view(&[tool("pay", 'a', "good")]).index(&id()).unwrap());
    let mut after = view(&[tool("pay", 'b', "evil")]);
    pinned.note(&id(), &object.spec, after.index(&id()).unwrap());
    let plain = difference(&after, &id(), &object).unwrap();
    assert_eq!(plain, "\"pay\" aaaaaaaaaaaa -> bbbbbbbbbbbb", "nobody knows what it was");
    after.pinned = Arc::new(pinned);
    let told = difference(&after, &id(), &object).unwrap();
    assert_eq!(told, "\"pay\" aaaaaaaaaaaa -> bbbbbbbbbbbb in description");
}

#[test]
fn what_a_server_calls_its_tools_is_escaped_and_cut() {
    let object = object(&json!({"mode": "Enforce", "tools": []}));
    let evil = format!("\u{1b}[31m\u{202e}\u{200b}\n{}", "x".repeat(10_000));
    let tools: Vec<_> = (0..50).map(|_| tool(&evil, 'b', "x")).collect();
    let view = view(&tools);
    for text in [said_of(&view, &object).unwrap().2, difference(&view, &id(), &object).unwrap()] {
        assert!(text.len() < 900, "{}", text.len());
        assert!(text.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{text:?}");
        assert!(text.contains("and 45 more"));
    }
}

#[test]
fn what_was_said_stays_while_no_proxy_knows_the_tools_and_only_for_the_same_lock() {
    let mut object = object(&json!({"mode": "Enforce", "tools": [pin("pay", 'a')]}));
    let mut blind = view(&[]);
    blind.words = Arc::default();
    assert_eq!(said_of(&blind, &object).unwrap().1, "Pending");
    object.status = Some(server(&view(&[tool("pay", 'b', "x")]), &id(), &object));
    assert_eq!(said_of(&blind, &object).unwrap().1, "Drifted");
    object.metadata.generation = Some(4);
    assert_eq!(said_of(&blind, &object).unwrap().1, "Pending");
}
