//! What passes between the eras and under the gateway's names: results, prompts, links, questions.

use futures_util::FutureExt;
use http_body_util::BodyExt as _;
use mcpmesh_ir::gateway::Naming;
use serde_json::{Value, json};

use super::fake::{self, Catalogue, Fake, Speaks, fed};
use super::harness::{Gate, soon};
use super::setup::Setup;

/// Answers with everything that holds a URI.
fn linking(fake: &Fake) {
    fake.hook(|seen| {
        let link = json!({"type": "resource_link", "uri": "file:///a", "name": "a"});
        let embedded = json!({"type": "resource", "resource": {"uri": "file:///a", "text": "t"}});
        let value = match seen.method() {
            "tools/call" => json!({"content": [{"type": "text", "text": "file:///a"}, link, embedded],
                                   "structuredContent": {"uri": "file:///a"}}),
            "prompts/get" => json!({"messages": [{"role": "user", "content": link}, {"role": "user", "content": embedded}]}),
            "resources/read" => json!({"contents": [{"uri": seen.body["params"]["uri"], "text": "t"}]}),
            _ => return None,
        };
        Some(async move {
            let mut value = value;
            if seen.is_modern() {
                value["resultType"] = "complete".into();
            }
            fake::result(&seen, value)
        }.boxed())
    });
}

#[tokio::test]
async fn uris_are_wrapped_wherever_a_client_may_use_them_and_unwrapped_for_their_server() {
    let catalogue = Catalogue::tools(&["t"]).prompts(&["p"]).resources(&["file:///a"]);
    for naming in [Naming::Always, Naming::OnConflict] {
        for speaks in [Speaks::Modern, Speaks::Legacy] {
            let fake = Fake::start(speaks, catalogue.clone()).await;
            linking(&fake);
            let gate = Gate::start(&Setup::open(&[&fake]).naming(naming)).await;
            let modern = gate.modern(None);
            let legacy = gate.legacy(None, "2025-11-25").await;
            let (prefix, uri) = match naming {
                Naming::Always => ("s0_", "mcpmesh://s0/file%3A%2F%2F%2Fa"),
                Naming::OnConflict => ("", "file:///a"),
            };
            assert_eq!(modern.ask("resources/list", json!({})).await.names("resources", "uri"), [uri]);
            let mut results: Vec<[Value; 3]> = Vec::new();
            for era in ["modern", "legacy"] {
                let mut all = Vec::new();
                for (method, params) in [
                    ("tools/call", json!({"name": format!("{prefix}t")})),
                    ("prompts/get", json!({"name": format!("{prefix}p")})),
                    ("resources/read", json!({"uri": uri})),
                ] {
                    let answered = if era == "modern" {
                        modern.ask(method, params).await
                    } else {
                        legacy.ask(method, params).await
                    };
                    all.push(answered.json()["result"].clone());
                }
                results.push(all.try_into().unwrap());
            }
            for [call, prompt, read] in results {
                assert_eq!(call["content"][0]["text"], "file:///a", "text is nobody's to change");
                assert_eq!(call["content"][1]["uri"], uri, "{call}");
                assert_eq!(call["content"][2]["resource"]["uri"], uri);
                assert_eq!(call["structuredContent"]["uri"], "file:///a");
                assert_eq!(prompt["messages"][0]["content"]["uri"], uri, "{prompt}");
                assert_eq!(prompt["messages"][1]["content"]["resource"]["uri"], uri);
                assert_eq!(read["contents"][0]["uri"], uri, "{read}");
            }
            assert!(fake.of("resources/read").iter().all(|seen| seen.body["params"]["uri"] == "file:///a"));
            assert!(fake.of("prompts/get").iter().all(|seen| seen.body["params"]["name"] == "p"));
        }
    }
}

#[tokio::test]
async fn both_eras_of_clients_reach_both_eras_of_servers() {
    for speaks in [Speaks::Modern, Speaks::Legacy, Speaks::Both] {
        let catalogue = Catalogue::tools(&["t"]).prompts(&["p"]).resources(&["file:///a"]);
        let fake = Fake::start(speaks, catalogue).await;
        let gate = Gate::start(&Setup::open(&[&fake])).await;
        let modern = gate.modern(None);
        let requests = [
            ("tools/list", json!({})),
            ("prompts/list", json!({})),
            ("resources/list", json!({})),
            ("resources/templates/list", json!({})),
            ("tools/call", json!({"name": "s0_t", "arguments": {"x": 1}})),
            ("prompts/get", json!({"name": "s0_p"})),
            ("resources/read", json!({"uri": "mcpmesh://s0/file%3A%2F%2F%2Fa"})),
            (
                "completion/complete",
                json!({"ref": {"type": "ref/prompt", "name": "s0_p"}, "argument": {"name": "a", "value": ""}}),
            ),
        ];
        for (method, params) in &requests {
            let answered = modern.ask(method, params.clone()).await.json();
            assert_eq!(answered["result"]["resultType"], "complete", "{speaks:?} {method} {answered}");
            let cacheable = method.ends_with("/list") || *method == "resources/read";
            assert_eq!(answered["result"]["ttlMs"].is_u64(), cacheable, "{speaks:?} {method} {answered}");
            assert_eq!(answered["result"]["cacheScope"].is_string(), cacheable, "{speaks:?} {method}");
            for revision in ["2025-03-26", "2025-06-18", "2025-11-25"] {
                let legacy = gate.legacy(None, revision).await;
                let answered = legacy.ask(method, params.clone()).await.json();
                assert!(answered["result"].is_object(), "{speaks:?} {revision} {method} {answered}");
                for modern in ["resultType", "ttlMs", "cacheScope"] {
                    assert!(
                        answered["result"].get(modern).is_none(),
                        "{speaks:?} {revision} {method} {answered}"
                    );
                }
            }
        }
        // No server ever sees words of the other era.
        for seen in fake.seen().iter().filter(|seen| !seen.method().is_empty()) {
            let reserved =
                seen.body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"].is_string();
            assert_eq!(reserved, seen.is_modern(), "{}", seen.body);
            assert!(!(seen.is_modern() && seen.header("mcp-session-id").is_some()));
        }
        let discovered = modern.ask("server/discover", json!({})).await.json();
        assert_eq!(discovered["result"]["supportedVersions"], json!(["2026-07-28"]));
        assert_eq!(discovered["result"]["cacheScope"], "private");
    }
}

#[tokio::test]
async fn a_question_that_cannot_be_put_is_answered_in_words() {
    let fake = Fake::start(Speaks::Modern, Catalogue::tools(&["ask"]).prompts(&["ask"])).await;
    fake.hook(|seen| {
        matches!(seen.method(), "tools/call" | "prompts/get").then(|| {
            async move {
                fake::result(&seen, json!({"resultType": "input_required", "requestState": "s", "inputRequests": {
                    "q": {"method": "elicitation/create", "params": {"message": "name?", "requestedSchema": {"type": "object"}}}}}))
            }
            .boxed()
        })
    });
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    for revision in ["2025-03-26", "2025-11-25"] {
        let legacy = gate.legacy_with(None, revision, json!({"elicitation": {}})).await;
        let answered = legacy.call("s0_ask", json!({})).await.json();
        assert_eq!(answered["result"]["isError"], true, "{answered}");
        assert!(answered["result"]["content"][0]["text"].as_str().unwrap().contains("2026-07-28"));
        assert!(
            answered["result"].get("requestState").is_none()
                && answered["result"].get("inputRequests").is_none()
        );
        let prompt = legacy.ask("prompts/get", json!({"name": "s0_ask"})).await.json();
        assert_eq!(prompt["error"]["code"], -32603, "{prompt}");
    }
}

#[tokio::test]
async fn a_failed_tool_and_a_servers_own_error_pass_with_the_clients_id() {
    for speaks in [Speaks::Modern, Speaks::Legacy] {
        let fake = Fake::start(speaks, Catalogue::tools(&["fails", "errs"]).resources(&["file:///a"])).await;
        fake.hook(|seen| {
            let answer = match (seen.method(), seen.body["params"]["name"].as_str()) {
                ("tools/call", Some("fails")) => {
                    fake::result(&seen, json!({"content": [], "isError": true, "resultType": "complete"}))
                }
                ("tools/call", _) => {
                    fake::error(200, &seen, json!({"code": -32050, "message": "own", "data": {"k": 1}}))
                }
                ("resources/read", _) => {
                    let code = if seen.is_modern() { -32602 } else { -32002 };
                    fake::error(200, &seen, json!({"code": code, "message": "Resource not found"}))
                }
                _ => return None,
            };
            Some(async { answer }.boxed())
        });
        let gate = Gate::start(&Setup::open(&[&fake])).await;
        let (modern, legacy) = (gate.modern(None), gate.legacy(None, "2025-11-25").await);
        let uri = json!({"uri": "mcpmesh://s0/file%3A%2F%2F%2Fa"});
        let id = json!("\u{e9}/9007199254740993");
        for (method, params, check) in [
            ("tools/call", json!({"name": "s0_fails"}), "/result/isError"),
            ("tools/call", json!({"name": "s0_errs"}), "/error/data/k"),
            ("resources/read", uri, "/error/code"),
        ] {
            for answered in [
                gate.ask(modern.request(id.clone(), method, &params)).await,
                legacy.ask_as(id.clone(), method, params.clone()).await,
            ] {
                let json = answered.json();
                assert_eq!(json["id"], id);
                assert!(json.pointer(check).is_some(), "{json}");
            }
        }
        let uri = json!({"uri": "mcpmesh://s0/file%3A%2F%2F%2Fa"});
        assert_eq!(modern.ask("resources/read", uri.clone()).await.code(), -32602, "{speaks:?}");
        if speaks == Speaks::Legacy {
            assert_eq!(legacy.ask("resources/read", uri).await.code(), -32002);
        }
    }
}

#[tokio::test]
async fn ids_come_back_byte_for_byte() {
    let fake = Fake::modern(&["t"]).await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let modern = gate.modern(None);
    for id in [
        "0",
        "-1",
        "9007199254740993",
        "123456789012345678901234567890",
        r#""""#,
        r#""\u00e9\/""#,
        "\"\u{e9}\"",
    ] {
        let params = json!({"name": "s0_t", "arguments": {}});
        let body = modern.message(&json!("ID"), "tools/call", &params).to_string().replace("\"ID\"", id);
        let answered = gate.ask(modern.with_body("tools/call", &params, body)).await;
        let text = String::from_utf8(answered.body.to_vec()).unwrap();
        assert!(text.contains(&format!(r#""id":{id}"#)), "{id} {text}");
    }
}

#[tokio::test]
async fn a_long_result_reaches_a_client_of_the_other_era_as_it_comes_and_never_as_a_question() {
    for (end, whole) in [("complete", true), ("input_required", false)] {
        let fake = Fake::modern(&["t"]).await;
        let (feed, body) = fed();
        let body = parking_lot::Mutex::new(Some(body));
        fake.hook(move |seen| {
            (seen.method() == "tools/call").then_some(())?;
            let body = body.lock().take()?;
            Some(async { fake::json_stream(body) }.boxed())
        });
        let gate = Gate::start(&Setup::open(&[&fake])).await;
        let legacy = gate.legacy(None, "2025-11-25").await;
        let text = "x".repeat(100_000);
        let begin = format!(r#"{{"jsonrpc":"2.0","result":{{"content":[{{"type":"text","text":"{text}"#);
        feed.send(Ok(begin)).unwrap();
        let mut answer = gate.send(legacy.request("x", "tools/call", &json!({"name": "s0_t"}))).await;
        let first = soon("the first piece", answer.body_mut().frame()).await.unwrap().unwrap();
        let id = fake.calls()[0].body["id"].clone();
        feed.send(Ok(format!(r#""}}],"resultType":"{end}"}},"id":{id}}}"#))).unwrap();
        drop(feed);
        let rest = soon("the rest", answer.into_body().collect()).await;
        assert_eq!(rest.is_ok(), whole, "{end}");
        let Ok(rest) = rest else { continue };
        let said = [first.into_data().unwrap(), rest.to_bytes()].concat();
        let said: Value = serde_json::from_slice(&said).unwrap();
        assert_eq!(said["id"], "x");
        assert_eq!(said["result"], json!({"content": [{"type": "text", "text": text}]}));
    }
}
