//! Threats: two parsers that read the same bytes differently; headers that say something else than the body; JSON
//! that is made to hurt. Nothing of it may reach a server.

use http::StatusCode;
use serde_json::{Value, json};

use super::client::META;
use super::fake::Fake;
use super::harness::Gate;
use super::setup::Setup;

/// A call of `s0_echo` with its `params` and the rest of the message left to the test.
fn meta() -> String {
    format!(r#""_meta":{{"{META}":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}"#)
}

fn call(inside: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{{inside},{}}}}}"#, meta())
}

const NAMED: &str = r#""name":"s0_echo","arguments":{}"#;

async fn gate() -> (Fake, Gate) {
    let fake = Fake::modern(&["echo"]).await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    assert_eq!(gate.modern(None).tools().await, ["s0_echo"]);
    (fake, gate)
}

/// Posts to the modern era and to a live legacy session.
async fn refused_everywhere(gate: &Gate, body: impl AsRef<[u8]>, codes: &[i64]) {
    let body = bytes::Bytes::copy_from_slice(body.as_ref());
    let text = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
    let modern = gate.modern(None);
    let legacy = gate.legacy(None, "2025-11-25").await;
    for (era, request) in [
        ("modern", modern.with_body("tools/call", &json!({"name": "s0_echo"}), body.clone())),
        ("legacy", gate.request("POST", &legacy.headers(), body.clone())),
    ] {
        let answered = gate.ask(request).await;
        assert_eq!(answered.status, StatusCode::BAD_REQUEST, "{era}: {text} {:?}", answered.body);
        assert!(codes.contains(&answered.code()), "{era}: {text} {:?}", answered.body);
    }
}

#[tokio::test]
async fn bodies_that_two_parsers_read_differently_are_refused_and_never_forwarded() {
    let (fake, gate) = gate().await;
    let good = call(NAMED);
    let with = |from: &str, to: &str| {
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good, "{from}");
        changed
    };
    let invalid: Vec<String> = vec![
        with(r#""name":"s0_echo""#, r#""name":"s0_echo","name":"other""#),
        with(r#""name":"s0_echo""#, r#""name":"s0_echo","n\u0061me":"other""#),
        with(r#""method":"tools/call""#, r#""method":"tools/call","method":"tools/list""#),
        with(r#""id":1"#, r#""id":1,"id":2"#),
        with(r#""arguments":{}"#, r#""arguments":{"a":1,"a":2}"#),
        with(r#""arguments":{}"#, r#""arguments":{"x":[{"a":1,"\u0061":2}]}"#),
        with(r#""name":"s0_echo""#, r#""name":"s0_echo","Name":"other""#),
        with(r#""name":"s0_echo""#, r#""name":"s0_echo","NAME":"other""#),
        with(r#""method":"tools/call""#, r#""method":"tools/call","METHOD":"tools/list""#),
        with(r#""params""#, r#""Params":{},"params""#),
        // Go's decoder folds these two onto k and s.
        with(r#""params""#, r#""param\u017f":{},"params""#),
        with(r#""id":1"#, r#""id":1e999"#),
        with(r#""id":1"#, r#""id":1.5"#),
        with(r#""id":1"#, r#""id":null"#),
        with(r#""id":1"#, r#""id":true"#),
        with(r#""id":1"#, r#""id":{}"#),
        with(r#""jsonrpc":"2.0""#, r#""jsonrpc":"1.0""#),
        with(r#""jsonrpc":"2.0""#, r#""jsonrpc":2.0"#),
        with(r#""method":"tools/call""#, r#""method":"tools/call\u0000""#),
        with(r#""id":1"#, r#""id":1,"result":{}"#),
    ];
    for body in invalid {
        refused_everywhere(&gate, body, &[-32600]).await;
    }
    assert_eq!(fake.calls().len(), 0);
}

#[tokio::test]
async fn bodies_that_are_not_one_json_text_are_refused_and_never_forwarded() {
    let (fake, gate) = gate().await;
    let good = call(NAMED);
    let with = |from: &str, to: &str| good.replacen(from, to, 1);
    let unread: Vec<Vec<u8>> = vec![
        with(r#""arguments":{}"#, r#""arguments":{"x":NaN}"#).into(),
        with(r#""arguments":{}"#, r#""arguments":{"x":Infinity}"#).into(),
        with(r#""arguments":{}"#, r#""arguments":{"x":01}"#).into(),
        with(r#""arguments":{}"#, r#""arguments":{'x':1}"#).into(),
        with(r#""arguments":{}"#, r#""arguments":{"x":1,}"#).into(),
        with(r#""arguments":{}"#, r#""arguments":{"x":1/*c*/}"#).into(),
        with(r#""arguments":{}"#, "\"arguments\":{\"x\":\"\n\"}").into(),
        [b"\xef\xbb\xbf", good.as_bytes()].concat(),
        [good.as_bytes(), b"{}"].concat(),
        [good.as_bytes(), good.as_bytes()].concat(),
        [good.as_bytes(), b"\0"].concat(),
        [&good.as_bytes()[..good.len() - 1]].concat(),
        with("s0_echo", "s0_echo\u{fffd}")
            .replace('\u{fffd}', "\u{fffd}x")
            .into_bytes()
            .into_iter()
            .map(|byte| if byte == 0xef { 0xff } else { byte })
            .collect(),
        good.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        vec![],
    ];
    for body in unread {
        refused_everywhere(&gate, body, &[-32700]).await;
    }
    refused_everywhere(&gate, format!("[{good}]"), &[-32600]).await;
    refused_everywhere(&gate, "[]", &[-32600]).await;
    refused_everywhere(&gate, "\"tools/call\"", &[-32600, -32700]).await;
    assert_eq!(fake.calls().len(), 0);
}

#[tokio::test]
async fn a_name_with_a_nul_or_a_lone_surrogate_names_nothing() {
    let (fake, gate) = gate().await;
    for name in [r#""s0_echo\u0000""#, r#""s0_echo\ud800""#, "17", "null", r#"["s0_echo"]"#] {
        let body = call(&format!(r#""name":{name},"arguments":{{}}"#));
        let request = gate.modern(None).with_body("tools/call", &json!({"name": "s0_echo"}), body);
        let answered = gate.ask(request).await;
        assert_eq!((answered.status.as_u16(), answered.code()), (200, -32602), "{name}");
    }
    assert_eq!(fake.calls().len(), 0);
}

#[tokio::test]
async fn parameters_that_are_none_are_a_malformed_message() {
    let (fake, gate) = gate().await;
    for params in [
        "[]".to_owned(),
        "null".to_owned(),
        format!(r#"{{{NAMED},"_meta":[]}}"#),
        format!(r#"{{{NAMED},"_meta":{{"progressToken":null}}}}"#),
        format!(r#"{{{NAMED},"_meta":{{"{META}":20260728}}}}"#),
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        refused_everywhere(&gate, body, &[-32602]).await;
    }
    assert_eq!(fake.calls().len(), 0);
}

#[tokio::test]
async fn the_bytes_that_were_judged_are_the_bytes_that_are_forwarded() {
    let (fake, gate) = gate().await;
    let arguments =
        r#"{"big": 90071992547409931, "e":1E2 ,"u":"\u00e9\/","deep":[[[{"a":null}]]], "z":-0.0}"#;
    let body = call(&format!(r#" "name" : "s0_echo" , "arguments":{arguments}"#));
    let request = gate.modern(None).with_body("tools/call", &json!({"name": "s0_echo"}), body);
    assert_eq!(gate.ask(request).await.status, 200);
    let raw = String::from_utf8(fake.calls()[0].raw.to_vec()).unwrap();
    assert!(raw.contains(arguments), "{raw}");
}

#[tokio::test]
async fn deep_and_huge_json_is_refused_cheaply() {
    let (fake, gate) = gate().await;
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let inner = if open == "[" { "" } else { "1" };
        let deep = format!("{}{inner}{}", open.repeat(100_000), close.repeat(100_000));
        refused_everywhere(&gate, call(&format!(r#""name":"s0_echo","arguments":{deep}"#)), &[-32600]).await;
        refused_everywhere(&gate, open.repeat(100_000), &[-32600, -32700]).await;
    }
    let many: Vec<String> = (0..300_000).map(|index| format!("\"{index}\":1")).collect();
    let many = format!("{{{}}}", many.join(","));
    refused_everywhere(&gate, call(&format!(r#""name":"s0_echo","arguments":{many}"#)), &[-32600]).await;
    assert_eq!(fake.calls().len(), 0);
}

#[tokio::test]
async fn headers_that_say_something_else_than_the_body_are_a_mismatch() {
    let (fake, gate) = gate().await;
    let good =
        [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "s0_echo")];
    let without = |name: &str| good.iter().copied().filter(|(key, _)| *key != name).collect::<Vec<_>>();
    let with = |name: &'static str, value: &'static str| [without(name), vec![(name, value)]].concat();
    let twice = |name: &'static str, value: &'static str| [good.to_vec(), vec![(name, value)]].concat();
    let cases = vec![
        with("mcp-name", "s0_other"),
        with("mcp-name", "S0_ECHO"),
        with("mcp-name", "s0_echo, s0_other"),
        with("mcp-name", "=?base64?czBfb3RoZXI=?="),
        with("mcp-name", "=?base64?czBfZWNobw?="),
        with("mcp-name", "=?base64?czBfZWNobw==?= "),
        with("mcp-name", "=?BASE64?czBfZWNobw==?="),
        with("mcp-name", "=?base64?!!!!?="),
        with("mcp-name", "=?base64?/w==?="),
        without("mcp-name"),
        twice("mcp-name", "s0_echo"),
        twice("mcp-name", "s0_other"),
        without("mcp-method"),
        with("mcp-method", "tools/list"),
        with("mcp-method", "TOOLS/CALL"),
        twice("mcp-method", "tools/call"),
        without("mcp-protocol-version"),
        with("mcp-protocol-version", "2026-07-29"),
        with("mcp-protocol-version", "2025-11-25"),
        twice("mcp-protocol-version", "2026-07-28"),
    ];
    for headers in cases {
        let answered = gate.post(&headers, call(NAMED)).await;
        // Blanks around a value are no part of it: the one encoded name that is right passes.
        if headers.contains(&("mcp-name", "=?base64?czBfZWNobw==?= ")) {
            assert_eq!(answered.status, 200, "{headers:?}");
            continue;
        }
        assert_eq!(
            (answered.status.as_u16(), answered.code()),
            (400, -32020),
            "{headers:?} {:?}",
            answered.body
        );
        assert_eq!(answered.json()["id"], 1, "{headers:?}");
    }
    assert_eq!(fake.calls().len(), 1);
    // A legacy request needs none of them, but one that lies is refused.
    let legacy = gate.legacy(None, "2025-11-25").await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"s0_echo"}}"#;
    for lie in [("mcp-name", "s0_other"), ("mcp-method", "tools/list")] {
        let answered = gate.post(&[legacy.headers(), vec![lie]].concat(), body).await;
        assert_eq!((answered.status.as_u16(), answered.code()), (400, -32020), "{lie:?}");
    }
    assert_eq!(fake.calls().len(), 1);
}

#[tokio::test]
async fn a_version_that_nobody_speaks_is_named_in_the_refusal() {
    let (_fake, gate) = gate().await;
    let body = call(NAMED).replace("2026-07-28", "2027-01-01");
    let headers =
        [("mcp-protocol-version", "2027-01-01"), ("mcp-method", "tools/call"), ("mcp-name", "s0_echo")];
    let answered = gate.post(&headers, body).await;
    assert_eq!((answered.status.as_u16(), answered.code()), (400, -32022));
    assert_eq!(answered.json()["error"]["data"]["requested"], "2027-01-01");
    // A modern message without what it must say.
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/list")];
    let answered = gate.post(&headers, r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).await;
    assert_eq!((answered.status.as_u16(), answered.code()), (400, -32602));
    // The methods that this revision took away, and one that never was.
    for method in
        ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "nonsense"]
    {
        let answered = gate.modern(None).ask(method, json!({})).await;
        assert_eq!((answered.status.as_u16(), answered.code()), (404, -32601), "{method}");
    }
}

#[tokio::test]
async fn arguments_that_headers_mirror_must_be_mirrored() {
    let tool = json!({"name": "at", "inputSchema": {"type": "object", "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"}, "n": {"type": "integer", "x-mcp-header": "Count"}}}});
    let fake = Fake::start(
        super::fake::Speaks::Modern,
        super::fake::Catalogue { tools: vec![tool], ..Default::default() },
    )
    .await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    assert_eq!(gate.modern(None).tools().await, ["s0_at"]);
    let ask = async |arguments: Value, headers: &[(&'static str, &'static str)]| {
        let params = json!({"name": "s0_at", "arguments": arguments});
        let mut request = gate.modern(None).request(1, "tools/call", &params);
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        gate.ask(request).await
    };
    let region = json!({"region": "eu"});
    for headers in [
        &[][..],
        &[("mcp-param-region", "us")],
        &[("mcp-param-region", "eu"), ("mcp-param-region", "eu")],
        &[("mcp-param-region", "=?base64?dXM=?=")],
    ] {
        let answered = ask(region.clone(), headers).await;
        assert_eq!((answered.status.as_u16(), answered.code()), (400, -32020), "{headers:?}");
    }
    let answered = ask(json!({}), &[("mcp-param-region", "eu")]).await;
    assert_eq!((answered.status.as_u16(), answered.code()), (400, -32020), "no value, no header");
    assert_eq!(fake.calls().len(), 0);
    for headers in [&[("mcp-param-region", "eu")][..], &[("mcp-param-region", "=?base64?ZXU=?=")]] {
        assert_eq!(ask(region.clone(), headers).await.status, 200, "{headers:?}");
    }
    assert_eq!(ask(json!({"n": 42}), &[("mcp-param-count", "42.0")]).await.status, 200);
    // Rebuilt from the body, under the upstream's own names.
    let seen = fake.calls();
    assert_eq!(seen[1].header("mcp-param-region"), Some("eu"));
    assert_eq!(seen[1].header("mcp-name"), Some("at"));
    assert_eq!(seen[2].header("mcp-param-count"), Some("42"));
}
