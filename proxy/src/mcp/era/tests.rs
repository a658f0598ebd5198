use bytes::Bytes;
use http::HeaderValue;

use super::*;
use crate::mcp::envelope::{Incoming, Limits, parse};

const MODERN: &str = "2026-07-28";

fn message(text: &str) -> Message {
    match parse(Bytes::from(text.to_owned()), &Limits::default()) {
        Ok(Incoming::One(message)) => message,
        other => panic!("{other:?}"),
    }
}

fn request(method: &str, version: Option<&str>) -> Message {
    let meta = version.map_or(String::new(), |version| {
        format!(r#","_meta":{{"io.modelcontextprotocol/protocolVersion":"{version}","io.modelcontextprotocol/clientCapabilities":{{}}}}"#)
    });
    message(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"name":"t"{meta}}}}}"#))
}

fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
}

fn call_headers(version: &str) -> HeaderMap {
    headers(&[(PROTOCOL_VERSION, version), (METHOD, "tools/call"), (NAME, "t")])
}

fn code(headers: &HeaderMap, message: &Message) -> i64 {
    classify(headers, message).unwrap_err().code(Era::Modern)
}

#[test]
fn a_modern_request_says_so_in_meta_and_header() {
    let classified = classify(&call_headers(MODERN), &request("tools/call", Some(MODERN)));
    assert_eq!(classified, Ok(Classified::Modern(Revision::V2026_07_28)));
}

#[test]
fn either_sign_alone_makes_the_modern_rules_apply() {
    let call = request("tools/call", Some(MODERN));
    assert_eq!(code(&HeaderMap::new(), &call), -32020);
    assert_eq!(code(&call_headers("2025-11-25"), &call), -32020);
    assert_eq!(code(&call_headers(MODERN), &request("tools/call", None)), -32602);
}

#[test]
fn an_unknown_version_is_answered_with_the_known_ones() {
    let fault =
        classify(&call_headers("2027-01-01"), &request("tools/call", Some("2027-01-01"))).unwrap_err();
    assert_eq!(fault, Fault::UnsupportedVersion { requested: "2027-01-01".into(), by: Era::Modern });
    let fault = classify(&headers(&[(PROTOCOL_VERSION, "soon")]), &request("tools/call", None)).unwrap_err();
    assert_eq!(fault, Fault::UnsupportedVersion { requested: "soon".into(), by: Era::Legacy });
    assert_eq!(code(&call_headers("2025-11-25"), &request("tools/call", Some("2025-11-25"))), -32022);
}

#[test]
fn what_each_request_must_say_in_meta_is_http_400_and_other_parameters_are_not() {
    let sent = headers(&[(PROTOCOL_VERSION, MODERN), (METHOD, "tools/list")]);
    let refused = |meta: &str| {
        let text =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"_meta":{{{meta}}}}}}}"#);
        let fault = classify(&sent, &message(&text)).unwrap_err();
        (fault.status(Era::Modern).as_u16(), fault.code(Era::Modern))
    };
    let version = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#;
    let capabilities = r#""io.modelcontextprotocol/clientCapabilities":{}"#;
    for meta in [
        String::new(),
        version.to_owned(),
        capabilities.to_owned(),
        format!(r#"{version},{capabilities},"io.modelcontextprotocol/logLevel":"loud""#),
    ] {
        assert_eq!(refused(&meta), (400, -32602), "{meta}");
    }
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1}}"#;
    let fault = classify(&HeaderMap::new(), &message(initialize)).unwrap_err();
    assert_eq!((fault.status(Era::Legacy).as_u16(), fault.code(Era::Legacy)), (200, -32602));
}

#[test]
fn removed_methods_are_unknown_when_sent_modern() {
    for method in ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"] {
        let sent = headers(&[(PROTOCOL_VERSION, MODERN), (METHOD, method)]);
        assert_eq!(code(&sent, &request(method, None)), -32601, "{method}");
        assert_eq!(code(&sent, &request(method, Some(MODERN))), -32601, "{method}");
    }
}

#[test]
fn an_initialize_negotiates_a_legacy_revision() {
    let initialize = |version: &str| {
        message(&format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{{}}}}}}"#
        ))
    };
    for (asked, answered) in [
        ("2025-03-26", Revision::V2025_03_26),
        ("2024-11-05", Revision::V2024_11_05),
        (MODERN, Revision::V2025_11_25),
        ("1999-01-01", Revision::V2025_11_25),
    ] {
        assert_eq!(classify(&HeaderMap::new(), &initialize(asked)), Ok(Classified::Initialize(answered)));
    }
}

#[test]
fn the_rest_is_of_a_legacy_session() {
    let call = request("tools/call", None);
    assert_eq!(classify(&HeaderMap::new(), &call), Ok(Classified::Legacy(None)));
    let with_header = headers(&[(PROTOCOL_VERSION, "2025-06-18")]);
    assert_eq!(classify(&with_header, &call), Ok(Classified::Legacy(Some(Revision::V2025_06_18))));
    let answer = message(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    assert_eq!(classify(&HeaderMap::new(), &answer), Ok(Classified::Legacy(None)));
    assert_eq!(code(&headers(&[(PROTOCOL_VERSION, MODERN)]), &answer), -32600);
}

#[test]
fn modern_notifications_need_no_headers() {
    let said = message(
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
    );
    assert_eq!(classify(&HeaderMap::new(), &said), Ok(Classified::Modern(Revision::V2026_07_28)));
    assert_eq!(code(&headers(&[(PROTOCOL_VERSION, "2025-11-25")]), &said), -32020);
    assert_eq!(code(&headers(&[(METHOD, "tools/call")]), &said), -32020);
}

#[test]
fn threat_header_against_body_modern_headers_on_a_legacy_call_must_still_be_true() {
    let mut lying = headers(&[(PROTOCOL_VERSION, "2025-11-25"), (METHOD, "tools/call"), (NAME, "other")]);
    let call = request("tools/call", None);
    assert_eq!(code(&lying, &call), -32020);
    lying.insert(NAME, HeaderValue::from_static("t"));
    assert!(classify(&lying, &call).is_ok());
    lying.insert(METHOD, HeaderValue::from_static("tools/list"));
    assert_eq!(code(&lying, &call), -32020);
}

#[test]
fn threat_header_against_body_a_repeated_version_is_refused() {
    let mut twice = call_headers(MODERN);
    twice.append(PROTOCOL_VERSION, HeaderValue::from_static(MODERN));
    assert_eq!(code(&twice, &request("tools/call", Some(MODERN))), -32020);
    let mut twice = headers(&[(PROTOCOL_VERSION, "2025-06-18")]);
    twice.append(PROTOCOL_VERSION, HeaderValue::from_static(MODERN));
    assert_eq!(code(&twice, &request("tools/call", None)), -32020);
}
