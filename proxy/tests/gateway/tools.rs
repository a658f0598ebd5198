//! What an McpServer makes of its tools: which exist, what they are called and said to be, and which cannot be listed.

use futures_util::FutureExt;
use mcpmesh_ir::ServerId;
use mcpmesh_ir::catalog::Hints;
use mcpmesh_ir::gateway::Naming;
use mcpmesh_ir::server::ToolOverride;
use serde_json::json;

use super::fake::{self, Catalogue, Fake, Speaks, tool};
use super::harness::{Gate, Sink, until};
use super::setup::Setup;

const REVISIONS: [&str; 3] = ["2025-03-26", "2025-06-18", "2025-11-25"];

#[tokio::test]
async fn a_tool_that_is_not_included_or_is_excluded_is_not_there_in_any_era() {
    let names = ["read", "read_secret", "write", "delete"];
    for naming in [Naming::Always, Naming::OnConflict] {
        let fake = Fake::start(Speaks::Both, Catalogue::tools(&names)).await;
        let mut setup = Setup::open(&[&fake]).naming(naming);
        setup.servers[0].tools.include = vec!["read*".into(), "write".into()];
        setup.servers[0].tools.exclude = vec!["*_secret".into()];
        let gate = Gate::start(&setup).await;
        let prefix = if naming == Naming::Always { "s0_" } else { "" };
        let (modern, shown) = (gate.modern(None), ["read", "write"].map(|name| format!("{prefix}{name}")));
        assert_eq!(modern.tools().await, shown);
        for revision in REVISIONS {
            assert_eq!(gate.legacy(None, revision).await.tools().await, shown, "{revision}");
        }
        let legacy = gate.legacy(None, "2025-11-25").await;
        for hidden in ["read_secret", "delete"] {
            for name in [format!("{prefix}{hidden}"), format!("s0_{hidden}")] {
                let absent = name.replace(hidden, "absent");
                for (answered, unknown) in [
                    (modern.call(&name, json!({})).await, modern.call(&absent, json!({})).await),
                    (legacy.call(&name, json!({})).await, legacy.call(&absent, json!({})).await),
                ] {
                    assert_eq!(answered.code(), -32602, "{naming:?} {name}");
                    let unknown = String::from_utf8_lossy(&unknown.body).replace("absent", hidden);
                    assert_eq!(String::from_utf8_lossy(&answered.body), unknown);
                }
            }
        }
        assert!(fake.calls().is_empty());
        assert!(modern.call(&shown[1], json!({})).await.json()["result"].is_object());
        assert_eq!(gate.proxy.servers().borrow()[0].tools, 2, "the table counts what is listed");
    }
}

#[tokio::test]
async fn a_tool_is_shown_as_its_server_object_says_and_called_by_its_own_name() {
    let mut theirs = tool("read");
    theirs["title"] = "Their title".into();
    theirs["description"] = "Their words".into();
    theirs["annotations"] = json!({"title": "Their title", "readOnlyHint": true});
    let catalogue = Catalogue { tools: vec![theirs, tool("plain")], ..Catalogue::default() };
    let fake = Fake::start(Speaks::Both, catalogue).await;
    let mut setup = Setup::open(&[&fake]);
    let change = ToolOverride {
        rename: Some("look".into()),
        title: Some("Our \"title\"".into()),
        description: Some("Our words".into()),
        annotations: Hints { read_only_hint: Some(false), ..Hints::default() },
    };
    let described = ToolOverride { description: Some("Described".into()), ..ToolOverride::default() };
    setup.servers[0].tools.overrides = [("read".to_owned(), change), ("plain".to_owned(), described)].into();
    let gate = Gate::start(&setup).await;
    let (modern, mut lists) = (gate.modern(None), Vec::new());
    lists.push(("2026-07-28", modern.ask("tools/list", json!({})).await.json()));
    for revision in REVISIONS {
        let legacy = gate.legacy(None, revision).await;
        lists.push((revision, legacy.ask("tools/list", json!({})).await.json()));
    }
    for (revision, list) in lists {
        let [read, plain] = [&list["result"]["tools"][0], &list["result"]["tools"][1]];
        assert_eq!((&read["name"], &plain["name"]), (&json!("s0_look"), &json!("s0_plain")), "{revision}");
        assert_eq!((&read["description"], &plain["description"]), (&json!("Our words"), &json!("Described")));
        // 2025-03-26 has titles in annotations alone.
        let title = (revision > "2025-03-26").then(|| json!("Our \"title\""));
        assert_eq!((read.get("title"), plain.get("title")), (title.as_ref(), None), "{revision}");
        assert_eq!(
            read["annotations"],
            json!({"title": "Our \"title\"", "readOnlyHint": false}),
            "{revision}"
        );
    }
    assert!(modern.call("s0_look", json!({})).await.json()["result"].is_object());
    assert_eq!(fake.calls()[0].body["params"]["name"], "read");
    assert_eq!(modern.call("s0_read", json!({})).await.code(), -32602);
}

/// A server whose tools cannot be listed, but for one; `more` stands before them.
fn oddly(fake: &Fake, more: &'static str) {
    fake.hook(move |seen| {
        (seen.method() == "tools/list").then_some(())?;
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{},"result":{{"resultType":"complete","tools":[{more}
                {{"name":"get weather","inputSchema":{{"type":"object"}}}},
                {{"name":"查询天气\r\nforged","inputSchema":{{"type":"object"}}}},
                {{"name":"twice","inputSchema":{{"type":"object","properties":{{"a":{{}},"a":true}}}}}},
                {{"name":"one","name":"two","inputSchema":{{"type":"object"}}}},
                {{"name":"task","inputSchema":{{"type":"object"}},"execution":{{"taskSupport":"required"}}}},
                {{"name":"fine","inputSchema":{{"type":"object"}}}}]}}}}"#,
            seen.body["id"]
        );
        let mut answer = fake::status(200, &body);
        answer.headers_mut().insert("content-type", "application/json".parse().unwrap());
        Some(async { answer }.boxed())
    });
}

#[tokio::test]
async fn what_cannot_be_listed_is_said_once_for_each_change_and_counted() {
    let logged = Sink::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _traced = tracing::subscriber::set_default(subscriber);
    let fake = Fake::modern(&[]).await;
    oddly(&fake, "");
    let setup = Setup::open(&[&fake]);
    let gate = Gate::start(&setup).await;
    let modern = gate.modern(None);
    assert_eq!(modern.tools().await, ["s0_fine"]);
    assert_eq!(gate.proxy.servers().borrow()[0].tools, 1, "the table counts what is listed");
    let count = |reason: &str, count: usize| {
        format!("mcpmesh_left_out_objects{{gateway=\"a/gw\",server=\"a/s0\",reason=\"{reason}\"}} {count}\n")
    };
    let metrics = gate.metrics().await;
    for (reason, objects) in [("name", 2), ("definition", 2), ("task_only", 1)] {
        assert!(metrics.contains(&count(reason, objects)), "{reason}: {metrics}");
    }
    let said = |what: &str| logged.text().lines().filter(|line| line.contains(what)).count();
    let left_out = "left out of this server's lists";
    assert_eq!(said(left_out), 2, "{}", logged.text());
    assert_eq!(said(r#"names=["get weather", "查询天气\r\nforged"]"#), 1, "{}", logged.text());
    assert_eq!(said(r#"names=["twice"]"#), 1, "{}", logged.text());
    assert_eq!(
        said("tools/list has 1 items that are not as the protocol defines them"),
        1,
        "{}",
        logged.text()
    );
    // Whatever else changes, it is not said again.
    gate.proxy.apply(vec![setup.snapshot()]);
    gate.proxy.apply(vec![setup.clone().naming(Naming::OnConflict).snapshot()]);
    gate.proxy.apply(vec![setup.snapshot()]);
    assert_eq!(said(left_out), 2, "{}", logged.text());
    oddly(&fake, r#"{"name":"an other","inputSchema":{"type":"object"}},"#);
    gate.proxy.upstream(&ServerId::new("a", "s0")).unwrap().refresh();
    until("the change is said", || said(left_out) == 3).await;
    assert_eq!(said(r#"names=["an other", "get weather""#), 1, "{}", logged.text());
    assert!(gate.metrics().await.contains(&count("name", 3)));
    // A name of the user's own lets it in.
    let mut renamed = setup.clone();
    let change = |name: &str| ToolOverride { rename: Some(name.into()), ..ToolOverride::default() };
    renamed.servers[0].tools.overrides = [("get weather".to_owned(), change("get_weather"))].into();
    gate.proxy.apply(vec![renamed.snapshot()]);
    assert_eq!(modern.tools().await, ["s0_get_weather", "s0_fine"]);
    gate.proxy.apply(vec![Setup { servers: vec![], ..setup }.snapshot()]);
    assert!(
        !gate.metrics().await.contains("mcpmesh_left_out_objects{"),
        "a server that is gone shows nothing"
    );
}
