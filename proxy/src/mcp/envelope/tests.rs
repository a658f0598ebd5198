use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;

fn read(text: impl Into<Vec<u8>>) -> Result<Message, Refusal> {
    match parse(Bytes::from(text.into()), &Limits::default())? {
        Incoming::One(message) => Ok(message),
        Incoming::Batch(_) => panic!("a batch"),
    }
}

fn request(text: &str) -> Request {
    match read(text) {
        Ok(Message::Request(request)) => request,
        other => panic!("{other:?}"),
    }
}

fn code(text: impl Into<Vec<u8>>) -> i64 {
    read(text).unwrap_err().code
}

fn call(params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#)
}

#[test]
fn a_call_keeps_its_arguments_byte_for_byte() {
    let call = request(
        r#"{"jsonrpc":"2.0","id":"c-7","method":"tools/call","params":{"name":"fs_read", "arguments" : {"big":12345678901234567890.10}, "x":[1,2],"_meta":{"io.modelcontextprotocol\/protocolVersion":"2026-07-28","a":1,"progressToken":7,"b":{}}}}"#,
    );
    assert_eq!(call.id.as_json(), br#""c-7""#);
    assert_eq!(call.method, Method::ToolsCall);
    assert_eq!(call.params.str("name").unwrap().as_deref(), Some("fs_read"));
    assert_eq!(
        call.params.splice(&[("name", br#""read""#)], &["x"]),
        r#""name":"read","arguments" : {"big":12345678901234567890.10}"#
    );
    assert_eq!(call.params.meta().protocol_version().as_deref(), Some("2026-07-28"));
    assert_eq!(call.params.meta().pass_through(), r#""a":1,"b":{}"#);
}

#[test]
fn absent_params_are_an_empty_object() {
    let ping = request(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    assert_eq!(ping.params.iter().count(), 0);
    assert_eq!(ping.params.splice(&[("a", b"1")], &[]), r#""a":1"#);
}

#[test]
fn a_replaced_member_that_is_absent_is_appended_and_a_dropped_one_stays_away() {
    let call = request(&call(r#"{"a":1,"b":2,"c":3}"#));
    assert_eq!(call.params.splice(&[("d", b"4"), ("b", b"9")], &["a"]), r#""b":9,"c":3,"d":4"#);
    assert_eq!(call.params.splice(&[("a", b"1")], &["a", "b", "c"]), "");
    assert_eq!(call.params.without(&["b"]).map(|(key, _)| key).collect::<Vec<_>>(), ["a", "c"]);
}

#[test]
fn notifications_and_responses_are_told_apart() {
    let said =
        read(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#).unwrap();
    assert!(matches!(
        said,
        Message::Notification(Notification { method: Method::NotificationsCancelled, .. })
    ));
    let text = r#" {"jsonrpc":"2.0","id":"gw-31","result":{"action":"accept"}} "#;
    let Message::Response(answer) = read(text).unwrap() else { panic!() };
    assert_eq!(answer.id.unwrap().as_json(), br#""gw-31""#);
    assert_eq!(answer.raw, text.trim());
    assert!(matches!(answer.outcome, Outcome::Result(result) if result == r#"{"action":"accept"}"#));
    let unread = read(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"m"}}"#).unwrap();
    assert!(matches!(unread, Message::Response(Response { id: None, outcome: Outcome::Error(_), .. })));
}

#[test]
fn ids_are_strings_or_integers() {
    for id in ["0", "-1", "12345678901234567890123", r#""""#, r#""\ud83d\ude00""#] {
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
        assert_eq!(request(&text).id.as_json(), id.as_bytes());
    }
    for id in ["null", "1.0", "1e3", "1e999", "true", "[1]", "{}", r#""\ud800""#] {
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
        assert_eq!(code(text), INVALID_REQUEST, "{id}");
    }
    let long = format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"ping"}}"#, "x".repeat(2000));
    assert_eq!(code(long), INVALID_REQUEST);
}

#[test]
fn a_refusal_carries_the_id_when_it_could_be_read() {
    let refusal = read(r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":[]}"#).unwrap_err();
    assert_eq!((refusal.code, refusal.id.unwrap().as_json()), (INVALID_PARAMS, &b"7"[..]));
    let refusal = read(r#"{"jsonrpc":"1.0","id":7,"method":"ping"}"#).unwrap_err();
    assert_eq!((refusal.code, refusal.id.unwrap().as_json()), (INVALID_REQUEST, &b"7"[..]));
}

#[test]
fn batches_are_split_and_judged_one_by_one() {
    let text = r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}, {"jsonrpc":"2.0","method":"notifications/initialized"}]"#;
    let Incoming::Batch(messages) = parse(Bytes::from_static(text.as_bytes()), &Limits::default()).unwrap()
    else {
        panic!()
    };
    assert!(matches!(messages.as_slice(), [Message::Request(_), Message::Notification(_)]));
    for text in ["[]", "[1]", r#"[[]]"#, r#"[{"jsonrpc":"2.0","id":1}]"#] {
        let refusal = parse(Bytes::from_static(text.as_bytes()), &Limits::default()).unwrap_err();
        assert_eq!(refusal.code, INVALID_REQUEST, "{text}");
    }
}

#[test]
fn threat_parser_differential_texts_that_parsers_read_differently_are_refused() {
    let parse_errors: [&[u8]; 14] = [
        b"",
        b" ",
        b"\xef\xbb\xbf{}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}{}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]",
        b"{\"jsonrpc\":\"2.0\",\"id\":NaN,\"method\":\"ping\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":01,\"method\":\"ping\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"pi\xffng\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"pi\nng\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":'ping'}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,/**/\"method\":\"ping\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":+1,\"method\":\"ping\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\\x\"}",
    ];
    for text in parse_errors {
        assert_eq!(code(text), PARSE_ERROR, "{}", String::from_utf8_lossy(text));
    }
    for text in [
        "1".to_owned(),
        r#""x""#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","METHOD":"tools/call"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","paramſ":{}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","m\u0065thod":"tools/call"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method\u0000":"x"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","\ud800":"x"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"ping\u0000"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":""}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":["ping"]}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#.to_owned(),
        r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#.to_owned(),
        call(r#"{"name":"a","Name":"b"}"#),
        call(r#"{"name":"a","name":"b"}"#),
        call(r#"{"NAME":"b"}"#),
        call(r#"{"arguments":{"deep":[{"x":1,"\u0078":2}]}}"#),
        call(r#"{"_Meta":{}}"#),
        call(r#"{"ref":{"type":"ref/prompt","name":"a","Name":"b"}}"#),
        call(r#"{"notifications":{"resourcesubscriptions":["a:b"]}}"#),
        call(r#"{"_meta":{"TraceParent":"x"}}"#),
        call(r#"{"_meta":{"io.modelcontextprotocol/protocolversion":"x"}}"#),
    ] {
        assert_eq!(code(text.clone()), INVALID_REQUEST, "{text}");
    }
    for params in
        ["[]", "null", r#""x""#, r#"{"_meta":[]}"#, r#"{"_meta":null}"#, r#"{"_meta":{"progressToken":1.5}}"#]
    {
        assert_eq!(code(call(params)), INVALID_PARAMS, "{params}");
    }
    let call = request(&call(r#"{"name":"a\u0000b","uri":7}"#));
    assert!(call.params.str("name").is_err());
    assert!(call.params.str("uri").is_err());
}

#[test]
fn threat_deep_or_huge_json_is_refused_without_being_kept() {
    let limits = Limits { depth: 64, members: 1000 };
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let code = |text: String| parse(Bytes::from(text), &limits).unwrap_err();
    let inside = |n| call(&format!(r#"{{"arguments":{{"a":{}}}}}"#, deep(n)));
    assert!(parse(Bytes::from(inside(61)), &limits).is_ok());
    assert_eq!(code(inside(62)).message, "nested too deeply");
    assert_eq!(code(deep(100_000)).message, "nested too deeply");
    assert_eq!(code("[".repeat(4 << 20)).message, "nested too deeply");
    let wide: Vec<_> = (0..1000).map(|n| format!(r#""k{n}":0"#)).collect();
    assert_eq!(code(call(&format!("{{{}}}", wide.join(",")))).message, "too many members");
}

#[test]
fn duplicates_are_found_in_objects_of_any_size() {
    for size in [2, 16, 17, 18, 500] {
        let mut keys: Vec<_> = (0..size).map(|n| format!(r#""k{n}":{{"k0":0}}"#)).collect();
        assert!(read(call(&format!("{{{}}}", keys.join(",")))).is_ok());
        keys.push(r#""k\u0030":1"#.to_owned());
        assert_eq!(code(call(&format!("{{{}}}", keys.join(",")))), INVALID_REQUEST, "{size}");
    }
}

fn any_members() -> impl Strategy<Value = Map<String, Value>> {
    let leaf = prop_oneof![any::<i64>().prop_map(Value::from), "[a\"\\\\ \u{e9}]{0,6}".prop_map(Value::from)];
    let value = leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[ab\"\\\\]{0,3}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    prop::collection::btree_map("[x-z]{1,2}|name|\"q|_meta", value, 0..6).prop_map(|mut map| {
        if let Some(meta) = map.get_mut("_meta") {
            *meta = serde_json::json!({"k": meta.clone()});
        }
        map.into_iter().collect()
    })
}

proptest! {
    #[test]
    fn splicing_params_keeps_every_other_byte(members in any_members(), blank in " {0,2}", drop in "[x-z]{1,2}") {
        let key = |key: &str| Value::from(key).to_string();
        let spelled = |key_: &str, value: &str| format!("{}{blank}:{blank}{value}", key(key_));
        let all: Vec<_> = members.iter().map(|(key, value)| spelled(key, &value.to_string())).collect();
        let request = request(&call(&format!("{{{blank}{}{blank}}}", all.join(&format!("{blank},")))));
        let mut kept: Vec<_> = members
            .iter()
            .filter(|(key, _)| *key != "_meta" && **key != drop)
            .map(|(key, value)| spelled(key, &if key == "name" { "NEW".to_owned() } else { value.to_string() }))
            .collect();
        if !members.contains_key("name") {
            kept.push("\"name\":NEW".to_owned());
        }
        let spliced = request.params.splice(&[("name", b"NEW")], &[&drop]);
        prop_assert_eq!(std::str::from_utf8(&spliced).unwrap(), kept.join(","));
    }

    #[test]
    fn the_scanner_takes_what_serde_takes(text in prop_oneof![
        "[\\[\\]{},:\"a0-9.eE+\\-\\\\u tfnrlsm]{0,24}",
        any_members().prop_map(|members| Value::Object(members).to_string()),
    ]) {
        let limits = Limits::default();
        let serde = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
        match json::check(text.as_bytes(), &limits) {
            Ok(()) => prop_assert!(serde),
            Err(Error::Syntax(_)) => prop_assert!(!serde),
            // Stricter than JSON itself, on purpose.
            Err(_) => {}
        }
    }

    #[test]
    fn texts_survive_writing_and_reading(text in any::<String>()) {
        let mut out = Vec::new();
        json::push_text(&mut out, &text);
        prop_assert_eq!(json::text(&out).map(Cow::into_owned), Some(text.clone()));
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }

    #[test]
    fn decoding_equals_serde(raw in "([a-z]|\\\\[nrtbf/\"\\\\]|\\\\u[0-9a-f]{4}|\\\\ud[89ab][0-9a-f]{2}\\\\ud[c-f][0-9a-f]{2}){0,6}") {
        let text = format!("\"{raw}\"");
        prop_assert_eq!(json::text(text.as_bytes()).map(Cow::into_owned), serde_json::from_str::<String>(&text).ok());
    }
}
