//! Properties: the scanner against a model that parses everything.

use proptest::prelude::*;
use serde_json::Map;

use super::*;

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter_map("JSON has no such number", |number| {
            serde_json::Number::from_f64(number).map(Value::from)
        }),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            members(inner, &["uri", "resource", "resultType", "id", "content", "text"])
                .prop_map(Value::Object),
        ]
    })
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[a-z\"\\\\{}\\[\\],: /\u{e9}\n]{0,12}", 1 => any::<String>()]
}

fn members(
    value: impl Strategy<Value = Value> + 'static,
    names: &[&'static str],
) -> BoxedStrategy<Map<String, Value>> {
    let key = prop_oneof![prop::sample::select(names.to_vec()).prop_map(str::to_owned), any_text()];
    prop::collection::btree_map(key, value, 0..5).prop_map(|map| map.into_iter().collect()).boxed()
}

fn any_result() -> impl Strategy<Value = Map<String, Value>> {
    let block = members(any_json(), &["uri", "resource", "content", "text"]).prop_map(Value::Object);
    let message = block.clone().prop_map(|block| json!({"role": "user", "content": block}));
    let specials = (
        prop::option::of(prop::sample::select(vec!["complete", "input_required"])),
        prop::option::of(any_json()),
        prop::option::of(members(any_json(), &["io.modelcontextprotocol/serverInfo", "mine"])),
        prop::option::of(prop::collection::vec(block.clone(), 0..3)),
        prop::option::of(prop::collection::vec(prop_oneof![message, any_json()], 0..3)),
        prop::option::of(any_json()),
    );
    let rest = members(any_json(), &["ttlMs", "isError", "contents", "structuredContents"]);
    (specials, rest).prop_map(|((kind, structured, meta, content, messages, scope), mut result)| {
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                result.insert(key.to_owned(), value);
            }
        };
        put("requestState", (kind == Some("input_required")).then(|| "s".into()));
        put("resultType", kind.map(Value::from));
        put("structuredContent", structured);
        put("_meta", meta.map(Value::Object));
        put("content", content.map(Value::from));
        put("messages", messages.map(Value::from));
        put("cacheScope", scope);
        result
    })
}

fn any_response() -> impl Strategy<Value = Value> {
    let error = (any::<i32>(), any_json()).prop_map(|(code, data)| {
        let code = match code % 4 {
            0 => -32002,
            1 => -32602,
            _ => i64::from(code),
        };
        json!({"code": code, "message": "m", "data": data})
    });
    let outcome = prop_oneof![
        4 => any_result().prop_map(|result| ("result", Value::Object(result))),
        1 => error.prop_map(|error| ("error", error)),
    ];
    (any::<u32>(), outcome).prop_map(|(id, (key, value))| json!({"jsonrpc": "2.0", "id": id, key: value}))
}

/// Writes a value with white space and escapes that a seed picks.
fn spell(value: &Value, seed: &mut u64, out: &mut String) {
    let mut pick = |n: u64| {
        *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*seed >> 33) % n
    };
    out.push_str(["", "", " ", "\n\t", "\r "][pick(5) as usize]);
    match value {
        Value::Array(values) => {
            out.push('[');
            for (index, value) in values.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                spell(value, seed, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (index, (key, value)) in members.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                if (*seed).is_multiple_of(7) && key.chars().all(|c| c.is_ascii_alphanumeric()) {
                    out.push('"');
                    key.chars().for_each(|c| out.push_str(&format!("\\u{:04x}", c as u32)));
                    out.push('"');
                } else {
                    out.push_str(&Value::from(key.as_str()).to_string());
                }
                out.push(':');
                spell(value, seed, out);
            }
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
    out.push_str(if (*seed).is_multiple_of(5) { " " } else { "" });
}

/// What the rules say, on a parsed tree.
fn model(mut response: Value, rules: &Rules) -> Value {
    response["id"] = serde_json::from_slice(rules.id.as_json()).unwrap();
    if response.get("error").is_some() {
        if rules.modern() && response["error"]["code"] == -32002 {
            response["error"]["code"] = json!(-32602);
        } else if !rules.modern() && rules.reads_resource && response["error"]["code"] == -32602 {
            response["error"]["code"] = json!(-32002);
        }
        if let (Some(wrap), Some(Value::Object(data))) = (&rules.uris, response["error"].get_mut("data")) {
            wrap_uri(data, wrap);
        }
        return response;
    }
    let result = response["result"].as_object_mut().unwrap();
    if let (Some(states), Some(Value::String(state))) = (&rules.states, result.get_mut("requestState")) {
        *state = states.request_state(Some(state)).unwrap();
    }
    if rules.modern() {
        result.entry("resultType").or_insert(json!("complete"));
        if rules.reads_resource {
            let complete = result["resultType"] == "complete";
            for (key, kept, default) in [("ttlMs", true, json!(0)), ("cacheScope", false, json!("private"))] {
                let scalar = |value: &Value| !value.is_object() && !value.is_array();
                let said = result.remove(key).filter(scalar);
                if complete || said.is_some() {
                    let value = said.filter(|value| kept && value.is_u64()).unwrap_or(default);
                    result.insert(key.into(), value);
                }
            }
        }
    } else {
        result.retain(|key, _| !["resultType", "ttlMs", "cacheScope"].contains(&key.as_str()));
        let keeps = rules.target >= Revision::V2025_06_18;
        result.retain(|key, value| key != "structuredContent" || (keeps && value.is_object()));
        if let Some(Value::Object(meta)) = result.get_mut("_meta") {
            meta.retain(|key, _| !key.starts_with("io.modelcontextprotocol/"));
        }
    }
    if let Some(wrap) = &rules.uris {
        result.get_mut("content").into_iter().for_each(|value| wrap_content(value, wrap));
        for block in result.get_mut("contents").and_then(Value::as_array_mut).into_iter().flatten() {
            wrap_block(block, wrap);
        }
        for message in result.get_mut("messages").and_then(Value::as_array_mut).into_iter().flatten() {
            message.get_mut("content").into_iter().for_each(|value| wrap_content(value, wrap));
        }
    }
    response
}

fn wrap_uri(object: &mut Map<String, Value>, wrap: &UriWrap) {
    if let Some(Value::String(uri)) = object.get_mut("uri") {
        *uri = wrap.apply(uri);
    }
}

fn wrap_content(value: &mut Value, wrap: &UriWrap) {
    match value {
        Value::Array(blocks) => blocks.iter_mut().for_each(|block| wrap_block(block, wrap)),
        block => wrap_block(block, wrap),
    }
}

fn wrap_block(block: &mut Value, wrap: &UriWrap) {
    let Value::Object(block) = block else { return };
    wrap_uri(block, wrap);
    if let Some(Value::Object(resource)) = block.get_mut("resource") {
        wrap_uri(resource, wrap);
    }
    if let Some(content) = block.get_mut("content") {
        wrap_content(content, wrap);
    }
}

/// For this response, which only a modern server may have given where it asks for input.
fn any_rules(response: &Value) -> impl Strategy<Value = Rules> + use<> {
    let target = prop::sample::select(Revision::ALL.to_vec());
    let (asks, id) = (response["result"]["resultType"] == "input_required", response["id"].as_u64());
    (target, any::<[bool; 5]>(), any::<u64>()).prop_map(move |(target, flags, ours)| {
        let [wraps, reads, modern, seals, asked] = flags;
        let upstream = if modern || asks { Era::Modern } else { Era::Legacy };
        Rules {
            asked: id.filter(|_| asked),
            uris: wraps.then(|| UriWrap { prefix: "up".into() }),
            asks: Some(CapabilitySet::default()),
            states: seals.then(|| Arc::new(Sealed) as Arc<dyn States>),
            reads_resource: reads,
            ..Rules::new(Id::from(ours), target, upstream)
        }
    })
}

fn any_response_and_rules() -> impl Strategy<Value = (Value, Rules)> {
    any_response().prop_flat_map(|response| {
        let rules = any_rules(&response);
        (Just(response), rules)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn splicing_equals_parsing_and_rewriting(
        (response, rules) in any_response_and_rules(),
        mut seed in any::<u64>(),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        let mut text = String::new();
        spell(&response, &mut seed, &mut text);
        let (out, _) = in_chunks(&text, &cuts, rules.clone()).unwrap();
        let out: Value = serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out)));
        prop_assert_eq!(out, model(response, &rules), "{}", text);
    }

    #[test]
    fn chunking_makes_no_difference(
        (response, rules) in any_response_and_rules(),
        mut seed in any::<u64>(),
        flip in prop::option::of((any::<usize>(), any::<u8>())),
    ) {
        let mut text = String::new();
        spell(&response, &mut seed, &mut text);
        let mut bytes = text.into_bytes();
        if let Some((at, byte)) = flip {
            let at = at % bytes.len();
            bytes[at] = byte & 0x7f;
        }
        let Ok(text) = String::from_utf8(bytes) else { return Ok(()) };
        let every: Vec<_> = (0..text.len()).collect();
        let whole = in_chunks(&text, &[], rules.clone());
        let single = in_chunks(&text, &every, rules.clone());
        match (whole, single) {
            (Ok(whole), Ok(single)) => prop_assert_eq!(whole, single),
            (whole, single) => prop_assert!(whole.is_err() && single.is_err(), "{:?} {:?}", whole, single),
        }
        let (bytes, mut pieces) = (Bytes::from(text.clone()), Vec::new());
        let mut rewriter = Rewriter::new(rules.clone());
        if rewriter.feed_bytes(&bytes, &mut pieces).is_ok() && rewriter.finish().is_ok() {
            prop_assert_eq!(pieces.concat(), in_chunks(&text, &[], rules).unwrap().0);
        }
    }

    #[test]
    fn what_is_not_rewritten_keeps_its_bytes(value in any_json(), mut seed in any::<u64>(), cut in any::<usize>()) {
        let mut middle = String::new();
        spell(&value, &mut seed, &mut middle);
        let text = format!("{{\"jsonrpc\" : \"2.0\",\"x\":{middle},\"result\":{{ \"other\":{middle}}},\"id\":17}}");
        let (out, _) = in_chunks(&text, &[cut], rules(Revision::V2025_11_25, Era::Legacy)).unwrap();
        prop_assert_eq!(String::from_utf8(out).unwrap(), text.replace("\"id\":17}", "\"id\":\"c-7\"}"));
    }
}
