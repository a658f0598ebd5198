//! What a server says that a client of its era, or of another one, must not be shown.

use futures_util::{FutureExt, stream};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::fake::{self, Catalogue, Fake, Seen, Speaks, data, tool};
use super::harness::{Gate, soon};
use super::setup::Setup;

/// A server that answers every call, read, prompt and completion as `answer` says.
async fn server(
    speaks: Speaks,
    answer: impl Fn(&Seen) -> Option<fake::Answer> + Send + Sync + 'static,
) -> Fake {
    let catalogue = Catalogue::tools(&["t"]).prompts(&["p"]).resources(&["file:///a"]);
    let fake = Fake::start(speaks, catalogue).await;
    fake.hook(move |seen| {
        let asked = ["tools/call", "prompts/get", "resources/read", "completion/complete"];
        let answer = asked.contains(&seen.method()).then(|| answer(&seen)).flatten()?;
        Some(async { answer }.boxed())
    });
    fake
}

fn call() -> Value {
    json!({"name": "s0_t", "arguments": {}})
}

fn completion() -> Value {
    json!({"ref": {"type": "ref/prompt", "name": "s0_p"}, "argument": {"name": "a", "value": ""}})
}

#[tokio::test]
async fn tasks_are_asked_of_no_server_and_shown_to_no_client() {
    for speaks in [Speaks::Modern, Speaks::Legacy] {
        let fake = server(speaks, |seen| {
            let task = json!({"taskId": "raw", "status": "working"});
            Some(match (seen.is_modern(), seen.body["params"].get("task")) {
                (true, _) => fake::result(
                    seen,
                    json!({"resultType": "task", "taskId": "raw", "status": "working", "ttlMs": 1}),
                ),
                (false, Some(_)) => fake::result(seen, json!({"task": task})),
                (false, None) => fake::result(seen, json!({"content": []})),
            })
        })
        .await;
        let gate = Gate::start(&Setup::open(&[&fake])).await;
        let tasks = json!({"extensions": {"io.modelcontextprotocol/tasks": {}, "x/y": {}}, "roots": {},
                           "tasks": {"requests": {"tools": {"call": {}}}}});
        let mut modern = gate.modern(None);
        modern.capabilities = tasks.clone();
        let legacy = gate.legacy_with(None, "2025-11-25", tasks).await;
        let mut params = call();
        params["task"] = json!({"ttl": 60000});
        for answered in
            [modern.ask("tools/call", params.clone()).await, legacy.ask("tools/call", params).await]
        {
            let text = String::from_utf8(answered.body.to_vec()).unwrap();
            assert!(!text.contains("raw"), "{text}");
            match speaks {
                Speaks::Modern => assert_eq!(answered.code(), -32603),
                _ => assert_eq!(answered.json()["result"]["content"], json!([])),
            }
        }
        assert_eq!(fake.calls().len(), 2);
        for seen in fake.seen() {
            let params = &seen.body["params"];
            assert!(params.get("task").is_none(), "{}", seen.body);
            for declared in
                [&params["capabilities"], &params["_meta"]["io.modelcontextprotocol/clientCapabilities"]]
            {
                assert!(!declared.to_string().contains("tasks"), "{}", seen.body);
            }
        }
        let opened = fake.of("initialize");
        let own = opened.iter().filter(|seen| seen.body["params"]["capabilities"]["roots"].is_object());
        assert!(speaks == Speaks::Modern || own.count() > 0, "what else it declared is declared");
    }
}

#[tokio::test]
async fn a_tool_that_runs_as_a_task_only_is_not_there() {
    for speaks in [Speaks::Modern, Speaks::Legacy] {
        let with = |name: &str, support: &str| {
            let mut tool = tool(name);
            tool["execution"] = json!({"taskSupport": support});
            tool
        };
        let tools = vec![with("only", "required"), with("also", "optional"), with("never", "forbidden")];
        let fake = Fake::start(speaks, Catalogue { tools, ..Catalogue::default() }).await;
        let gate = Gate::start(&Setup::open(&[&fake])).await;
        let (modern, legacy) = (gate.modern(None), gate.legacy(None, "2025-11-25").await);
        assert_eq!(modern.tools().await, ["s0_also", "s0_never"]);
        assert_eq!(legacy.tools().await, ["s0_also", "s0_never"]);
        assert_eq!(modern.call("s0_only", json!({})).await.code(), -32602);
        assert_eq!(legacy.call("s0_only", json!({})).await.code(), -32602);
        assert!(modern.call("s0_also", json!({})).await.json()["result"].is_object());
    }
}

#[tokio::test]
async fn a_modern_server_asks_a_client_only_what_it_may_and_can_answer() {
    let fake = server(Speaks::Modern, |seen| {
        let input = match seen.body["params"]["arguments"]["ask"].as_str() {
            Some("nothing") => json!({}),
            _ => json!({"requestState": "s", "inputRequests": {
                "a": {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}}}}),
        };
        let mut result = json!({"resultType": "input_required"});
        result.as_object_mut().unwrap().extend(input.as_object().unwrap().clone());
        Some(fake::result(seen, result))
    })
    .await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let mut modern = gate.modern(None);
    let nothing = json!({"name": "s0_t", "arguments": {"ask": "nothing"}});
    let requests = [
        ("tools/call", call()),
        ("prompts/get", json!({"name": "s0_p"})),
        ("resources/read", json!({"uri": "mcpmesh://s0/file%3A%2F%2F%2Fa"})),
    ];
    for capabilities in [json!({}), json!({"roots": {}, "elicitation": {}})] {
        modern.capabilities = capabilities;
        for (method, params) in &requests {
            let refused = modern.ask(method, params.clone()).await;
            assert_eq!((refused.status.as_u16(), refused.code()), (200, -32603), "{method} {refused:?}");
            assert_eq!(refused.json()["error"]["data"]["source"], "gateway");
        }
    }
    modern.capabilities = json!({"sampling": {}});
    for (method, params) in requests {
        let asked = modern.ask(method, params.clone()).await.json();
        assert_eq!(asked["result"]["inputRequests"]["a"]["method"], "sampling/createMessage", "{asked}");
        let mut again = params;
        again["requestState"] = asked["result"]["requestState"].clone();
        for bad in [json!(5), json!([]), json!("a"), json!(null)] {
            again["inputResponses"] = bad;
            assert_eq!(modern.ask(method, again.clone()).await.code(), -32602);
        }
        again["inputResponses"] = json!({"a": {"role": "assistant"}});
        assert_eq!(modern.ask(method, again).await.json()["result"]["resultType"], "input_required");
    }
    assert_eq!(modern.ask("tools/call", nothing).await.code(), -32603);
    assert_eq!(modern.ask("completion/complete", completion()).await.code(), -32603);
    assert_eq!(
        gate.legacy(None, "2025-11-25").await.ask("completion/complete", completion()).await.code(),
        -32603
    );
}

#[tokio::test]
async fn a_legacy_server_that_answers_in_modern_words_reaches_nobody() {
    let fake = server(Speaks::Legacy, |seen| {
        Some(fake::result(seen, json!({"resultType": "input_required", "requestState": "raw"})))
    })
    .await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    for answered in [
        gate.modern(None).ask("tools/call", call()).await,
        gate.legacy(None, "2025-11-25").await.ask("tools/call", call()).await,
    ] {
        assert_eq!(answered.code(), -32603);
        assert!(!String::from_utf8(answered.body.to_vec()).unwrap().contains("raw"));
    }
}

#[tokio::test]
async fn error_codes_of_another_hop_or_era_become_errors_of_the_server() {
    for (speaks, code, status) in [
        (Speaks::Legacy, -32042, 200),
        (Speaks::Modern, -32042, 200),
        (Speaks::Modern, -32020, 400),
        (Speaks::Modern, -32022, 400),
        (Speaks::Modern, -32021, 400),
    ] {
        let fake = server(speaks, move |seen| {
            let data = json!({"elicitations": [{"url": "https://a.test"}], "supported": ["2026-07-28"],
                              "requested": "raw", "requiredCapabilities": {"sampling": {}}});
            Some(fake::error(status, seen, json!({"code": code, "message": "raw", "data": data})))
        })
        .await;
        let gate = Gate::start(&Setup::open(&[&fake])).await;
        let modern = gate.modern(None).ask("tools/call", call()).await;
        let legacy = gate.legacy(None, "2025-11-25").await;
        let called = legacy.ask("tools/call", call()).await;
        let got = legacy.ask("prompts/get", json!({"name": "s0_p"})).await;
        if code == -32021 {
            assert_eq!((modern.status.as_u16(), modern.code()), (400, -32021));
            assert_eq!(modern.json()["error"]["data"]["requiredCapabilities"], json!({"sampling": {}}));
            let called = called.json();
            assert_eq!(called["result"]["isError"], true, "{called}");
            assert!(called["result"]["content"][0]["text"].as_str().unwrap().contains("(sampling)"));
            assert_eq!(got.code(), -32603);
            continue;
        }
        assert_eq!((modern.status.as_u16(), modern.code()), (200, -32603), "{speaks:?} {code}");
        assert!(!String::from_utf8(modern.body.to_vec()).unwrap().contains("raw"), "{modern:?}");
        assert_eq!(got.code(), -32603, "{speaks:?} {code}");
        if (speaks, code) == (Speaks::Legacy, -32042) {
            assert_eq!(called.json()["result"]["isError"], true, "{called:?}");
        } else {
            assert_eq!(called.code(), -32603, "{speaks:?} {code}");
        }
    }
}

#[tokio::test]
async fn only_a_client_that_opens_urls_hears_that_one_must_be_opened() {
    let url = json!({"elicitation": {"url": {}}});
    for (revision, capabilities, hears) in [
        ("2025-11-25", url.clone(), true),
        ("2025-11-25", json!({"elicitation": {}}), false),
        ("2025-06-18", url.clone(), false),
        ("2025-03-26", url, false),
    ] {
        for status in [200, 400] {
            let fake = server(Speaks::Legacy, move |seen| {
                let data = json!({"elicitations": [{"mode": "url", "url": "https://a.test", "elicitationId": "raw"}]});
                Some(fake::error(status, seen, json!({"code": -32042, "message": "raw", "data": data})))
            })
            .await;
            let gate = Gate::start(&Setup::open(&[&fake])).await;
            let legacy = gate.legacy_with(None, revision, capabilities.clone()).await;
            let called = legacy.ask("tools/call", call()).await.json();
            let got = legacy.ask("prompts/get", json!({"name": "s0_p"})).await.json();
            if hears {
                for answered in [called, got] {
                    assert_eq!(answered["error"]["code"], -32042, "{answered}");
                    assert_eq!(answered["error"]["data"]["elicitations"][0]["elicitationId"], "raw");
                }
                continue;
            }
            assert_eq!(called["result"]["isError"], true, "{revision} {status} {called}");
            let text = called["result"]["content"][0]["text"].as_str().unwrap();
            assert!(text.contains("open a URL") && text.contains("did not declare"), "{text}");
            assert_eq!(got["error"]["code"], -32603, "{got}");
            assert!(!format!("{called}{got}").contains("raw"), "{called} {got}");
            let opened = fake.of("initialize").pop().unwrap().body["params"]["capabilities"].clone();
            assert!(opened["elicitation"].get("url").is_none(), "{revision} {opened}");
        }
    }
}

/// The answer to a call, whose id is what `id` makes of ours, and stands first or last.
fn answered_as(seen: &Seen, id: fn(&Value) -> Value, last: bool, size: usize) -> String {
    let id = id(&seen.body["id"]);
    let result = json!({"resultType": "complete", "content": [{"type": "text", "text": "x".repeat(size)}]});
    match last {
        true => format!(r#"{{"jsonrpc":"2.0","result":{result},"id":{id}}}"#),
        false => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#),
    }
}

#[tokio::test]
async fn an_answer_to_another_request_is_none() {
    type Named = fn(&Value) -> Value;
    let own: [Named; 2] = [Value::clone, |id| json!(id.to_string())];
    let other: [Named; 4] =
        [|id| json!(id.as_u64().unwrap() + 1), |_| json!("c-7"), |_| json!(1), |_| json!(null)];
    for speaks in [Speaks::Modern, Speaks::Legacy] {
        for (names, taken) in [(&own[..], true), (&other[..], false)] {
            for (name, last) in names.iter().flat_map(|name| [(*name, false), (*name, true)]) {
                let fake = server(speaks, move |seen| {
                    let text = answered_as(seen, name, last, 10);
                    let mut answer = fake::status(200, &text);
                    answer.headers_mut().insert("content-type", "application/json".parse().unwrap());
                    Some(answer)
                })
                .await;
                let gate = Gate::start(&Setup::open(&[&fake])).await;
                for answered in [
                    gate.modern(None).ask("tools/call", call()).await,
                    gate.legacy(None, "2025-11-25").await.ask("tools/call", call()).await,
                    gate.legacy(None, "2025-03-26").await.ask("tools/call", call()).await,
                ] {
                    let json = answered.json();
                    assert_eq!((answered.status.as_u16(), &json["id"]), (200, &json!(1)));
                    assert_eq!(json["result"].is_object(), taken, "{speaks:?} {json}");
                    assert_eq!(json["error"]["code"] == -32603, !taken, "{speaks:?} {json}");
                }
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_shows_only_at_its_end_to_be_anothers_breaks_off() {
    for (speaks, taken) in
        [(Speaks::Modern, true), (Speaks::Modern, false), (Speaks::Legacy, true), (Speaks::Legacy, false)]
    {
        let fake = server(speaks, move |seen| {
            let id: fn(&Value) -> Value = if taken { Value::clone } else { |_| json!(0) };
            let text = answered_as(seen, id, true, 1 << 20);
            // In pieces, so that the beginning is on its way before the end is known.
            let pieces = text.into_bytes().chunks(1 << 16).map(<[u8]>::to_vec).collect::<Vec<_>>();
            Some(fake::json_stream(stream::unfold(pieces.into_iter(), |mut pieces| async move {
                tokio::task::yield_now().await;
                Some((Ok(pieces.next()?.into()), pieces))
            })))
        })
        .await;
        let gate = Gate::start(&Setup::open(&[&fake])).await;
        let (modern, legacy) = (gate.modern(None), gate.legacy(None, "2025-11-25").await);
        for request in [modern.request(7, "tools/call", &call()), legacy.request(7, "tools/call", &call())] {
            let answer = gate.send(request).await;
            assert_eq!(answer.status(), 200);
            let read = soon("the end of the answer", answer.into_body().collect()).await;
            assert_eq!(read.is_ok(), taken, "{speaks:?}");
        }
    }
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const OTHER: &str = "00-11111111111111111111111111111111-2222222222222222-00";

#[tokio::test]
async fn a_trace_goes_on_at_the_server_in_meta_and_headers_and_baggage_does_not() {
    let meta = |parent: &str| json!({"traceparent": parent, "tracestate": "a=1", "baggage": "tenant=secret", "x/y": 1});
    let cases = [
        (json!({}), vec![], None),
        (meta(PARENT), vec![], Some((PARENT, Some("a=1")))),
        (meta(PARENT), vec![("traceparent", OTHER), ("tracestate", "b=2")], Some((PARENT, Some("a=1")))),
        (meta("nonsense"), vec![("traceparent", PARENT)], Some((PARENT, None))),
        (
            json!({}),
            vec![
                ("traceparent", PARENT),
                ("tracestate", "a=1"),
                ("tracestate", "b=2"),
                ("baggage", "tenant=secret"),
            ],
            Some((PARENT, Some("a=1,b=2"))),
        ),
        (json!({"traceparent": PARENT, "tracestate": "no list"}), vec![], Some((PARENT, None))),
        (meta("nonsense"), vec![("traceparent", "nonsense")], None),
        (json!({"baggage": "tenant=secret"}), vec![("tracestate", "a=1")], None),
    ];
    for speaks in [Speaks::Modern, Speaks::Legacy] {
        let fake = Fake::start(speaks, Catalogue::tools(&["t"])).await;
        let gate = Gate::start(&Setup::open(&[&fake])).await;
        let (modern, legacy) = (gate.modern(None), gate.legacy(None, "2025-11-25").await);
        for (meta, headers, expected) in &cases {
            let mut params = call();
            params["_meta"] = meta.clone();
            for mut request in
                [modern.request(1, "tools/call", &params), legacy.request(1, "tools/call", &params)]
            {
                for (name, value) in headers {
                    request.headers_mut().append(*name, value.parse().unwrap());
                }
                assert_eq!(gate.ask(request).await.status, 200);
                let seen = fake.calls().pop().unwrap();
                let said = &seen.body["params"]["_meta"];
                assert_eq!(seen.header("traceparent"), said["traceparent"].as_str(), "{}", seen.body);
                assert_eq!(seen.header("tracestate"), said["tracestate"].as_str(), "{}", seen.body);
                let parent = said["traceparent"].as_str();
                assert_eq!(parent.map(|parent| &parent[..35]), expected.map(|(parent, _)| &parent[..35]));
                assert_ne!(parent, expected.map(|(parent, _)| parent).or(Some("")), "a span of its own");
                assert_eq!(said["tracestate"].as_str(), expected.and_then(|(_, state)| state));
                assert_eq!(said.get("x/y").is_some(), meta.get("x/y").is_some());
            }
        }
        assert!(!String::from_utf8_lossy(&fake.bytes()).contains("secret"), "{speaks:?}");
    }
}

#[tokio::test]
async fn progress_only_goes_forward() {
    for speaks in [Speaks::Modern, Speaks::Legacy] {
        let fake = server(speaks, |seen| {
            let token = &seen.body["params"]["_meta"]["progressToken"];
            let told = [json!(5), json!(3), json!(5), json!(5.5), json!("9"), json!(6), json!(6.0), json!(2)];
            let told = told.iter().map(|at| {
                json!({"jsonrpc": "2.0", "method": "notifications/progress",
                       "params": {"progressToken": token, "progress": at}})
            });
            let result = json!({"jsonrpc": "2.0", "id": seen.body["id"], "result": {"resultType": "complete", "content": []}});
            let events: Vec<_> = told.chain([result]).map(|one| Ok(data(&one).into())).collect();
            Some(fake::event_stream(stream::iter(events)))
        })
        .await;
        let gate = Gate::start(&Setup::open(&[&fake])).await;
        let mut params = call();
        params["_meta"] = json!({"progressToken": "p"});
        for mut events in [
            gate.modern(None).open(1, "tools/call", params.clone()).await,
            gate.legacy(None, "2025-11-25").await.open(1, "tools/call", params).await,
        ] {
            let all = events.all().await;
            let told: Vec<_> = all.iter().filter_map(|one| one["params"]["progress"].as_f64()).collect();
            assert_eq!(told, [5.0, 5.5, 6.0], "{all:?}");
        }
    }
}

#[tokio::test]
async fn log_messages_say_whose_they_are() {
    let fake = server(Speaks::Both, |seen| {
        let said = |params: Value| json!({"jsonrpc": "2.0", "method": "notifications/message", "params": params});
        let result = json!({"jsonrpc": "2.0", "id": seen.body["id"], "result": {"resultType": "complete", "content": []}});
        let events = [
            said(json!({"level": "error", "logger": "db", "data": 1})),
            said(json!({"level": "error", "data": 2})),
            result,
        ];
        let events: Vec<_> = events.iter().map(|one| Ok(data(one).into())).collect();
        Some(fake::event_stream(stream::iter(events)))
    })
    .await;
    for naming in [mcpmesh_ir::gateway::Naming::Always, mcpmesh_ir::gateway::Naming::OnConflict] {
        let gate = Gate::start(&Setup::open(&[&fake]).naming(naming)).await;
        let (name, loggers) = match naming {
            mcpmesh_ir::gateway::Naming::Always => ("s0_t", [json!("s0/db"), json!("s0")]),
            mcpmesh_ir::gateway::Naming::OnConflict => ("t", [json!("db"), Value::Null]),
        };
        let level = json!({"io.modelcontextprotocol/logLevel": "debug"});
        for mut events in [
            gate.modern(None).open(1, "tools/call", json!({"name": name, "_meta": level})).await,
            gate.legacy(None, "2025-11-25").await.open(1, "tools/call", json!({"name": name})).await,
        ] {
            let all = events.all().await;
            assert_eq!(all.len(), 3, "{all:?}");
            assert_eq!(
                [&all[0]["params"]["logger"], &all[1]["params"]["logger"]],
                [&loggers[0], &loggers[1]]
            );
        }
    }
}

#[tokio::test]
async fn a_completion_has_a_hundred_values_at_most() {
    for (count, more) in [(100, Value::Null), (101, json!(true)), (5000, json!(true))] {
        let fake = server(Speaks::Both, move |seen| {
            let values: Vec<_> = (0..count).map(|value| format!("v{value}")).collect();
            Some(fake::result(seen, json!({"resultType": "complete", "completion": {"values": values}})))
        })
        .await;
        let gate = Gate::start(&Setup::open(&[&fake])).await;
        for answered in [
            gate.modern(None).ask("completion/complete", completion()).await,
            gate.legacy(None, "2025-03-26").await.ask("completion/complete", completion()).await,
            gate.legacy(None, "2025-11-25").await.ask("completion/complete", completion()).await,
        ] {
            let completion = &answered.json()["result"]["completion"];
            assert_eq!(completion["values"].as_array().unwrap().len(), 100, "{count}");
            assert_eq!(completion["values"][99], "v99");
            assert_eq!(completion["hasMore"], more);
        }
    }
}

#[tokio::test]
async fn what_is_read_through_the_gateway_is_kept_by_nobody_else() {
    let fake = server(Speaks::Modern, |seen| {
        let contents = json!([{"uri": "file:///a", "text": "t"}]);
        Some(fake::result(
            seen,
            json!({"resultType": "complete", "contents": contents, "ttlMs": 9999, "cacheScope": "public"}),
        ))
    })
    .await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    let read =
        gate.modern(None).ask("resources/read", json!({"uri": "mcpmesh://s0/file%3A%2F%2F%2Fa"})).await;
    assert_eq!(read.json()["result"]["ttlMs"], 9999);
    assert_eq!(read.json()["result"]["cacheScope"], "private");
}
