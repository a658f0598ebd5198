//! Threats to what is told: secrets in logs and answers, forged log lines, metrics that callers can grow, names made
//! to deceive.

use futures_util::FutureExt;
use mcpmesh_ir::Secret;
use mcpmesh_ir::gateway::Naming;
use serde_json::json;

use super::client::META;
use super::fake::{self, Catalogue, Fake, Speaks, tool};
use super::harness::{Gate, Sink, until};
use super::setup::{Setup, bearer, server};

/// Characters that change what a person or a terminal sees: controls, line separators, zero width, bidi.
fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

const NASTY: &str =
    "x\r\n{\"outcome\":\"ok\"}\u{1b}[31m\u{9b}31m\u{7f}\u{85}\u{2028}\u{202e}\u{200b}\u{feff}y";

#[tokio::test]
async fn no_name_can_forge_or_disguise_a_log_line() {
    let fake = Fake::start(Speaks::Both, Catalogue::tools(&["echo"])).await;
    let gate = Gate::start(&Setup::open(&[&fake]).keys(&["alice"])).await;
    let modern = gate.modern(None);
    let legacy = gate.legacy(None, "2025-11-25").await;
    modern.call(NASTY, json!({})).await;
    modern.ask("prompts/get", json!({"name": NASTY})).await;
    legacy.call(NASTY, json!({})).await;
    legacy.ask(NASTY, json!({})).await;
    legacy.ask("resources/read", json!({"uri": format!("mcpmesh://s0/{NASTY}")})).await;
    let requests = 1 + 5;
    until("all is logged", || gate.log.text().lines().count() >= requests).await;
    let text = gate.log.text();
    assert_eq!(text.lines().count(), requests, "{text}");
    assert_eq!(gate.log.lines().len(), requests);
    let found = text.chars().find(|c| *c != '\n' && deceives(*c));
    assert!(found.is_none(), "{found:?} in {text:?}");
}

#[tokio::test]
async fn callers_cannot_grow_the_metrics() {
    let fake = Fake::start(Speaks::Both, Catalogue::tools(&["echo"])).await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let modern = gate.modern(None);
    let legacy = gate.legacy(None, "2025-11-25").await;
    let flood = async |round: usize| {
        for at in 0..50 {
            let name = format!("canary-{round}-{at}");
            modern.call(&name, json!({})).await;
            modern.ask(&name, json!({})).await;
            legacy.ask(&name, json!({})).await;
            legacy.call(&name, json!({})).await;
            modern.ask("resources/read", json!({"uri": format!("canary://{name}")})).await;
            let foreign = [("mcp-session-id", name.as_str()), ("user-agent", name.as_str())];
            gate.post(&foreign, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).await;
        }
        gate.metrics().await
    };
    let first = flood(0).await;
    let second = flood(1).await;
    assert!(!second.contains("canary"), "{second}");
    assert_eq!(first.lines().count(), second.lines().count(), "{second}");
}

#[tokio::test]
async fn secrets_are_nowhere_but_in_the_requests_that_need_them() {
    let logged = Sink::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("debug,mcpmesh_proxy=trace")
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _traced = tracing::subscriber::set_default(subscriber);
    let fake = Fake::start(Speaks::Both, Catalogue::tools(&["echo", "broken", "status", "rude"])).await;
    fake.hook(|seen| {
        let name = seen.body["params"]["name"].as_str().unwrap_or_default().to_owned();
        match name.as_str() {
            "broken" => Some(async { fake::status(500, "canary-of-the-server") }.boxed()),
            "status" => Some(async { fake::status(200, "<html>canary-of-the-server") }.boxed()),
            "rude" => Some(async { fake::json_body(200, &json!({"canary-of-the-server": 1})) }.boxed()),
            _ => None,
        }
    });
    let mut setup = Setup::open(&[&fake]).keys(&["alice"]);
    setup.servers[0].headers = vec![bearer("a/token")];
    let token = Secret { data: [("token".to_owned(), "canary-token".to_owned())].into() };
    setup.secrets.insert("a/token".into(), token);
    // Cannot be reached, and says where in its URL.
    setup.servers.push(server("gone", "http://canary-user:canary-password@127.0.0.1:1/mcp?key=canary-query"));
    let gate = Gate::start(&setup).await;
    let arguments = json!({"password": "canary-argument"});
    let mut told = Vec::new();
    let legacy = gate.legacy(Some("alice"), "2025-11-25").await;
    for name in ["s0_broken", "s0_status", "s0_rude", "s0_none", "gone_x"] {
        told.push(gate.modern(Some("alice")).call(name, arguments.clone()).await);
        told.push(legacy.call(name, arguments.clone()).await);
    }
    told.push(gate.modern(Some("canary")).call("s0_echo", arguments.clone()).await);
    let done = gate.modern(Some("alice")).call("s0_echo", arguments).await;
    assert!(String::from_utf8_lossy(&done.body).contains("canary-argument"), "it was asked for");
    until("all is logged", || gate.log.text().lines().count() >= 12).await;
    let servers = gate.proxy.servers().borrow().clone();
    let told: Vec<_> = told.iter().map(|one| String::from_utf8_lossy(&one.body).into_owned()).collect();
    for (place, text) in [
        ("answers", told.join("\n")),
        ("access log", gate.log.text()),
        ("log", logged.text()),
        ("metrics", gate.metrics().await),
        ("state", format!("{servers:?}")),
        ("snapshot", format!("{:?}", setup.secrets)),
        ("config dump", gate.config_dump().await),
    ] {
        for secret in ["canary", "key-alice", &setup.keys[0].sha256, &legacy.session] {
            let at = text.find(secret);
            let around = at.map(|at| text[at.saturating_sub(200)..].chars().take(300).collect::<String>());
            assert!(at.is_none(), "{secret} in {place}: {around:?}");
        }
    }
    assert!(fake.seen().iter().all(|seen| seen.header("authorization") == Some("Bearer canary-token")));
}

#[tokio::test]
async fn names_made_to_deceive_are_left_out() {
    let bad = [
        "evil\u{1b}[31m",
        "a\u{200b}b",
        "\u{202e}x",
        "line\nbreak",
        "\u{440}\u{430}",
        "nul\u{0}",
        "a b",
        "tab\t",
        "\u{9b}x",
        "\u{feff}x",
    ];
    let named: Vec<&str> = bad.iter().copied().chain(["fine"]).collect();
    let uris: Vec<String> =
        bad.iter().map(|bad| format!("file:///{bad}")).chain(["file:///fine".into()]).collect();
    let uris: Vec<&str> = uris.iter().map(String::as_str).collect();
    let mut catalogue = Catalogue::tools(&named).prompts(&named).resources(&uris);
    catalogue.templates =
        uris.iter().map(|uri| json!({"uriTemplate": format!("{uri}/{{x}}"), "name": "t"})).collect();
    for naming in [Naming::Always, Naming::OnConflict] {
        for speaks in [Speaks::Modern, Speaks::Legacy] {
            let fake = Fake::start(speaks, catalogue.clone()).await;
            let gate = Gate::start(&Setup::open(&[&fake]).naming(naming)).await;
            let modern = gate.modern(None);
            let legacy = gate.legacy(None, "2025-11-25").await;
            let fine = if naming == Naming::Always { "s0_fine" } else { "fine" };
            assert_eq!(modern.tools().await, [fine]);
            assert_eq!(legacy.tools().await, [fine]);
            assert_eq!(modern.ask("prompts/list", json!({})).await.names("prompts", "name"), [fine]);
            let resources = modern.ask("resources/list", json!({})).await.names("resources", "uri");
            let templates = modern
                .ask("resources/templates/list", json!({}))
                .await
                .names("resourceTemplates", "uriTemplate");
            for uri in resources.iter().chain(&templates) {
                assert!(!uri.chars().any(deceives), "{naming:?} {uri:?}");
            }
        }
    }
}

#[tokio::test]
async fn no_server_can_take_anothers_names() {
    let honest =
        Fake::start(Speaks::Modern, Catalogue::tools(&["read", "b_write"]).resources(&["urn:x", "urn:own"]))
            .await;
    let other = Fake::start(Speaks::Modern, Catalogue::tools(&["read"]).resources(&["urn:x"])).await;
    // Mimics the prefixed names and wrapped URIs of the others.
    let thief = Fake::start(
        Speaks::Modern,
        Catalogue::tools(&["s0_read", "s1_read", "read", "write", "s0_b_write"]).resources(&[
            "mcpmesh://s0/urn%3Ax",
            "mcpmesh://s1/urn%3Ax",
            "mcpmesh://s0/urn%3Aown",
        ]),
    )
    .await;
    for naming in [Naming::Always, Naming::OnConflict] {
        let gate = Gate::start(&Setup::open(&[&honest, &other, &thief]).naming(naming)).await;
        let modern = gate.modern(None);
        let names = modern.tools().await;
        let unique: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!((names.len(), unique.len()), (8, 8), "{names:?}");
        let list = modern.ask("resources/list", json!({})).await.names("resources", "uri");
        let unique: std::collections::HashSet<_> = list.iter().collect();
        assert_eq!((list.len(), unique.len()), (6, 6), "{list:?}");
        for (name, owner) in
            [("s0_read", &honest), ("s1_read", &other), ("s0_b_write", &honest), ("s2_read", &thief)]
        {
            let before = owner.calls().len();
            assert_eq!(modern.call(name, json!({})).await.status, 200);
            assert_eq!(owner.calls().len(), before + 1, "{naming:?} {name}");
        }
        for (uri, owner) in [
            ("mcpmesh://s0/urn%3Ax", &honest),
            ("mcpmesh://s1/urn%3Ax", &other),
            ("mcpmesh://s0/urn%3Aown", &honest),
        ] {
            let before = owner.of("resources/read").len();
            let read = modern.ask("resources/read", json!({"uri": uri})).await;
            assert_eq!(owner.of("resources/read").len(), before + 1, "{naming:?} {uri} {:?}", read.body);
        }
        // What is listed can be read, at the server that lists it.
        for uri in list {
            let read = modern.ask("resources/read", json!({"uri": uri})).await.json();
            assert!(read["result"]["contents"].is_array(), "{naming:?} {uri} {read}");
        }
    }
}

#[tokio::test]
async fn a_name_of_ours_in_meta_says_nothing() {
    let fake = Fake::modern(&["echo"]).await;
    fake.set(Catalogue { tools: vec![tool("echo")], ..Catalogue::default() });
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let modern = gate.modern(None);
    let params = json!({"name": "s0_echo", "arguments": {}, "_meta": {"vendor/x": {"keep": [1, 2.50]},
        "io.modelcontextprotocol/clientInfo": {"name": "canary"},
        "io.modelcontextprotocol/subscriptionId": "canary"}});
    assert_eq!(modern.ask("tools/call", params).await.status, 200);
    let seen = fake.calls()[0].body["params"]["_meta"].clone();
    assert_eq!(seen["vendor/x"], json!({"keep": [1, 2.50]}));
    assert_eq!(seen[META], "2026-07-28");
    assert!(!seen.to_string().contains("canary"), "{seen}");
}
