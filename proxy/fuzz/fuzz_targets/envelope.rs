//! A message that is taken, alone or in a batch, means to serde what it means to us, and splicing it gives JSON; headers
//! that say what it says are taken, others are not.
#![no_main]

use bytes::Bytes;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use mcpmesh_proxy_fuzz::mcp::envelope::{Incoming, Limits, Message, Params, Request, parse};
use mcpmesh_proxy_fuzz::mcp::era::{Classified, METHOD, NAME, PROTOCOL_VERSION, classify};
use mcpmesh_proxy_fuzz::mcp::header::{encode, verify};
use serde_json::Value;

fn judge_params(params: &Params, value: &Value) {
    for (key, raw) in params.iter() {
        assert_eq!(serde_json::from_slice::<Value>(raw).ok().as_ref(), value["params"].get(key));
    }
    let spliced = params.splice(&[("name", b"\"x\"")], &["cursor"]);
    let whole = [b"{", spliced.as_ref(), b"}"].concat();
    let whole: Value = serde_json::from_slice(&whole).expect("spliced params are JSON");
    assert_eq!(whole["name"], "x");
    assert!(whole.get("cursor").is_none() && whole.get("_meta").is_none());
    let passed = [b"{", params.meta().pass_through().as_ref(), b"}"].concat();
    let passed: Value = serde_json::from_slice(&passed).expect("passed members are JSON");
    assert!(passed.get("progressToken").is_none());
    let _ = (params.meta().trace(), params.meta().log_level());
    let _ = params.meta().client_capabilities().map(|capabilities| capabilities.set());
}

/// The headers that say what a request says; none where its method cannot stand in one.
fn honest(request: &Request) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    let method = request.method.as_str();
    let stands = method.bytes().all(|byte| byte.is_ascii_graphic());
    headers.insert(METHOD, HeaderValue::from_str(method).ok().filter(|_| stands)?);
    if let Some(version) = request.params.meta().protocol_version() {
        headers.insert(PROTOCOL_VERSION, HeaderValue::from_str(&version).ok()?);
    }
    if let Some(member) = request.method.name_member()
        && let Some(name) = request.params.str(member).ok()?
    {
        headers.insert(NAME, HeaderValue::from_str(&encode(&name)).expect("the codec writes headers"));
    }
    Some(headers)
}

fn judge_headers(headers: &HeaderMap, message: &Message) {
    let Message::Request(request) = message else {
        let _ = classify(headers, message);
        return;
    };
    if let Ok(Classified::Modern(revision)) = classify(headers, message) {
        assert!(verify(headers, request).is_ok());
        assert_eq!(
            headers.get(PROTOCOL_VERSION).map(HeaderValue::as_bytes).map(<[u8]>::trim_ascii),
            Some(revision.as_str().as_bytes())
        );
        assert_eq!(request.params.meta().protocol_version().as_deref(), Some(revision.as_str()));
    }
    let Some(honest) = honest(request) else { return };
    assert!(verify(&honest, request).is_ok());
    let lies = |name: HeaderName, value: &'static str| {
        let mut headers = honest.clone();
        let said = headers.insert(&name, HeaderValue::from_static(value));
        assert!(said.is_none_or(|said| said == value) || verify(&headers, request).is_err());
        headers.append(&name, HeaderValue::from_static(value));
        let repeated = verify(&headers, request).is_err();
        assert!(repeated || (name == NAME && request.method.name_member().is_none()));
    };
    lies(METHOD, "a-lie");
    lies(NAME, "a-lie");
}

fn judge(headers: &HeaderMap, message: &Message, value: &Value) {
    match message {
        Message::Request(request) => {
            assert_eq!(value["method"], request.method.as_str());
            assert_eq!(serde_json::from_slice::<Value>(request.id.as_json()).expect("an id"), value["id"]);
            judge_params(&request.params, value);
        }
        Message::Notification(said) => judge_params(&said.params, value),
        Message::Response(answer) => {
            assert_eq!(answer.id.is_none(), value.get("id").is_none_or(Value::is_null))
        }
    }
    judge_headers(headers, message);
}

/// Lines like `mcp-name: x` before an empty one.
fn headers(lines: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) {
            headers.append(name, value);
        }
    }
    headers
}

fuzz_target!(|data: &[u8]| {
    let head = data.windows(2).position(|pair| pair == b"\n\n");
    let (lines, body) = head.map_or((&b""[..], data), |end| (&data[..end], &data[end + 2..]));
    let Ok(incoming) = parse(Bytes::copy_from_slice(body), &Limits::default()) else { return };
    // Lone surrogates and huge numbers in what is only passed on are for the ends to judge.
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return };
    let headers = headers(lines);
    match incoming {
        Incoming::One(message) => judge(&headers, &message, &value),
        Incoming::Batch(messages) => {
            let values = value.as_array().expect("a batch is an array");
            assert_eq!(messages.len(), values.len());
            messages.iter().zip(values).for_each(|(message, value)| judge(&headers, message, value));
        }
    }
});
