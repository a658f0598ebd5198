//! The codec gives back what it was given, headers that we build are headers that we accept, and no others name what the
//! body names.
#![no_main]

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use mcpmesh_proxy_fuzz::mcp::envelope::{self, Incoming, Message, Request, parse};
use mcpmesh_proxy_fuzz::mcp::era::{METHOD, NAME};
use mcpmesh_proxy_fuzz::mcp::header::{ParamHeaders, decode, encode, verify, verify_if_present};
use mcpmesh_proxy_fuzz::mcp::json::{Limits, check, push_text};

/// A call of a tool of this name, where there can be one.
fn call(name: &str) -> Option<Request> {
    let mut body = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"#.to_vec();
    push_text(&mut body, name);
    body.extend_from_slice(b"}}");
    match parse(Bytes::from(body), &envelope::Limits::default()) {
        Ok(Incoming::One(Message::Request(request))) => Some(request),
        _ => None,
    }
}

fn judge_name(name: &str) {
    let Some(request) = call(name).filter(|request| request.params.str("name").is_ok()) else { return };
    let message = Message::Request(request.clone());
    let given = |value: &[u8]| {
        let mut headers = HeaderMap::from_iter([(METHOD, HeaderValue::from_static("tools/call"))]);
        headers.insert(NAME, HeaderValue::from_bytes(value).ok()?);
        let verdict = verify(&headers, &request);
        assert_eq!(verdict, verify_if_present(&headers, &message));
        headers.append(NAME, HeaderValue::from_static("again"));
        assert!(verify(&headers, &request).is_err());
        Some(verdict.is_ok())
    };
    assert_eq!(given(encode(name).as_bytes()), Some(true));
    if let Some(taken) = given(name.as_bytes()) {
        assert_eq!(taken, decode(name).is_ok_and(|decoded| decoded == name));
    }
    assert!(verify(&HeaderMap::new(), &request).is_err());
    assert!(verify_if_present(&HeaderMap::new(), &message).is_ok());
}

fn judge_params(params: &ParamHeaders, arguments: &[u8]) {
    let headers: HeaderMap = params.build(Some(arguments)).into_iter().collect();
    let verdict = params.check(&headers, Some(arguments));
    // Only an argument of another type than the schema's has no header that fits.
    assert!(verdict.is_ok() || !params.is_empty());
    for name in headers.keys() {
        let mut fewer = headers.clone();
        fewer.remove(name);
        assert!(params.check(&fewer, Some(arguments)).is_err());
        let mut more = headers.clone();
        more.append(name, headers[name].clone());
        assert!(params.check(&more, Some(arguments)).is_err());
        assert!(params.check(&headers, None).is_err());
    }
    assert!(params.check(&HeaderMap::new(), None).is_ok());
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let encoded = encode(text);
    assert!(HeaderValue::from_str(&encoded).is_ok());
    assert_eq!(decode(&encoded).expect("our own"), text);
    if let Ok(decoded) = decode(text) {
        assert_eq!(decode(&encode(&decoded)).expect("our own"), decoded);
    }
    judge_name(text);
    // A schema, a line end, arguments.
    let (schema, arguments) = text.split_once('\n').unwrap_or((text, "{}"));
    let Ok(params) = ParamHeaders::from_schema(schema.as_bytes()) else { return };
    if check(arguments.as_bytes(), &Limits::default()).is_ok() {
        judge_params(&params, arguments.as_bytes());
    }
});
