use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::mcp::envelope::{Incoming, Limits, parse};
use crate::mcp::era::Era;

fn call(name: &str) -> Request {
    let mut quoted = Vec::new();
    crate::mcp::json::push_text(&mut quoted, name);
    let name = String::from_utf8(quoted).unwrap();
    let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":{name}}}}}"#);
    match parse(Bytes::from(text), &Limits::default()) {
        Ok(Incoming::One(Message::Request(request))) => request,
        other => panic!("{other:?}"),
    }
}

fn headers(name: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(METHOD, HeaderValue::from_static("tools/call"));
    headers.insert(NAME, HeaderValue::from_bytes(name.as_bytes()).unwrap());
    headers
}

fn mismatch<T>(result: Result<T, Fault>) -> bool {
    result.err().is_some_and(|fault| fault.code(Era::Modern) == -32020)
}

#[test]
fn the_specifications_examples_are_written_as_it_shows_them() {
    for (value, header) in [
        ("us-west1", "us-west1"),
        ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
        ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
    ] {
        assert_eq!(encode(value), header);
        assert_eq!(decode(header).unwrap(), value);
    }
}

#[test]
fn a_value_that_lacks_a_marker_is_literal_and_bad_base64_is_malformed() {
    for literal in ["=?base64?YQ==", "YQ==?=", "=?BASE64?YQ==?=", "=?base64?="] {
        assert_eq!(decode(literal).unwrap(), literal);
    }
    for bad in [
        "=?base64?YQ?=",
        "=?base64?YQ= =?=",
        "=?base64?YR==?=",
        "=?base64?_w==?=",
        "=?base64?/w==?=",
        "caf\u{e9}",
    ] {
        assert_eq!(decode(bad), Err(Malformed), "{bad}");
    }
}

#[test]
fn threat_header_against_body_the_mirrors_must_equal_the_body() {
    assert_eq!(verify(&headers("fs_read"), &call("fs_read")), Ok(()));
    assert_eq!(verify(&headers("  fs_read\t"), &call("fs_read")), Ok(()));
    assert_eq!(verify(&headers("=?base64?ZnNfcmVhZA==?="), &call("fs_read")), Ok(()));
    for name in
        ["fs_write", "FS_READ", "fs_read,fs_read", "=?base64?ZnNfcmVhZA?=", "=?base64??=", "", "fs_r\u{e9}ad"]
    {
        assert!(mismatch(verify(&headers(name), &call("fs_read"))), "{name}");
    }
    let mut missing = headers("fs_read");
    missing.remove(NAME);
    assert!(mismatch(verify(&missing, &call("fs_read"))));
    let mut repeated = headers("fs_read");
    repeated.append(NAME, HeaderValue::from_static("fs_read"));
    assert!(mismatch(verify(&repeated, &call("fs_read"))));
    let mut method = headers("fs_read");
    method.insert(METHOD, HeaderValue::from_static("TOOLS/CALL"));
    assert!(mismatch(verify(&method, &call("fs_read"))));
    method.remove(METHOD);
    assert!(mismatch(verify(&method, &call("fs_read"))));
}

const SCHEMA: &str = r#"{"type":"object","properties":{
    "region":{"type":"string","x-mcp-header":"Region"},
    "limits":{"type":"object","properties":{"rows":{"type":"integer","x-mcp-header":"Rows"}}},
    "dry":{"type":"boolean","x-mcp-header":"Dry-Run"},
    "x-mcp-header":{"type":"string","default":{"x-mcp-header":"not one"}}}}"#;

fn params(pairs: &[(&str, &str)]) -> HeaderMap {
    let name = |name: &str| HeaderName::try_from(format!("mcp-param-{name}")).unwrap();
    pairs.iter().map(|(key, value)| (name(key), HeaderValue::from_str(value).unwrap())).collect()
}

#[test]
fn params_are_mirrored_from_the_exact_path() {
    let mirrored = ParamHeaders::from_schema(SCHEMA.as_bytes()).unwrap();
    let arguments = r#"{"region":"eü","limits":{"rows":42.0},"dry":null,"rows":7}"#;
    let built: HeaderMap = mirrored.build(Some(arguments.as_bytes())).into_iter().collect();
    assert_eq!(built, params(&[("region", "=?base64?ZcO8?="), ("rows", "42")]));
    assert_eq!(mirrored.check(&built, Some(arguments.as_bytes())), Ok(()));
    assert!(mirrored.build(None).is_empty());
    for unsafe_integer in ["9007199254740992", "-9007199254740992", "-9223372036854775808", "-1e300"] {
        let arguments = format!(r#"{{"limits":{{"rows":{unsafe_integer}}}}}"#);
        assert!(mirrored.build(Some(arguments.as_bytes())).is_empty(), "{unsafe_integer}");
    }
}

#[test]
fn threat_header_against_body_params_must_equal_the_arguments() {
    let mirrored = ParamHeaders::from_schema(SCHEMA.as_bytes()).unwrap();
    let check =
        |pairs: &[(&str, &str)], arguments: &str| mirrored.check(&params(pairs), Some(arguments.as_bytes()));
    assert_eq!(check(&[], "{}"), Ok(()));
    assert_eq!(check(&[("rows", "42.0")], r#"{"limits":{"rows":42}}"#), Ok(()));
    assert_eq!(check(&[("rows", "-9007199254740991")], r#"{"limits":{"rows":-9007199254740991.0}}"#), Ok(()));
    assert_eq!(check(&[("dry-run", "true")], r#"{"dry":true}"#), Ok(()));
    assert_eq!(check(&[("unknown", "x")], "{}"), Ok(()));
    for (pairs, arguments) in [
        (&[][..], r#"{"region":"eu"}"#),
        (&[("region", "eu")], "{}"),
        (&[("region", "eu")], r#"{"region":null}"#),
        (&[("region", "us")], r#"{"region":"eu"}"#),
        (&[("region", "eu"), ("region", "eu")], r#"{"region":"eu"}"#),
        (&[("region", "=?base64?ZXU?=")], r#"{"region":"eu"}"#),
        (&[("region", "1")], r#"{"region":1}"#),
        (&[("rows", "43")], r#"{"limits":{"rows":42}}"#),
        (&[("rows", "9007199254740993")], r#"{"limits":{"rows":9007199254740992}}"#),
        (&[("rows", "9007199254740992")], r#"{"limits":{"rows":9007199254740992}}"#),
        (&[("rows", "-9007199254740992")], r#"{"limits":{"rows":-9007199254740992}}"#),
        (&[("rows", "-9223372036854775808")], r#"{"limits":{"rows":-9223372036854775808}}"#),
        (&[("rows", "-9223372036854775808")], r#"{"limits":{"rows":1}}"#),
        (&[("dry-run", "True")], r#"{"dry":true}"#),
    ] {
        let mut given = HeaderMap::new();
        for (name, value) in pairs {
            params(&[(name, value)]).into_iter().for_each(|(name, value)| {
                given.append(name.unwrap(), value);
            });
        }
        assert!(mismatch(mirrored.check(&given, Some(arguments.as_bytes()))), "{pairs:?} {arguments}");
    }
}

#[test]
fn annotations_that_the_specification_forbids_make_the_tool_invalid() {
    let property = |text: &str| format!(r#"{{"properties":{{"a":{text}}}}}"#);
    for (schema, expected) in [
        (property(r#"{"type":"string","x-mcp-header":""}"#), Invalid::Name("/a".into())),
        (property(r#"{"type":"string","x-mcp-header":"a b"}"#), Invalid::Name("/a".into())),
        (property(r#"{"type":"string","x-mcp-header":"a\r\nb"}"#), Invalid::Name("/a".into())),
        (property(r#"{"type":"string","x-mcp-header":7}"#), Invalid::Name("/a".into())),
        (property(r#"{"type":"number","x-mcp-header":"A"}"#), Invalid::Type("/a".into())),
        (property(r#"{"type":"object","x-mcp-header":"A"}"#), Invalid::Type("/a".into())),
        (property(r#"{"x-mcp-header":"A"}"#), Invalid::Type("/a".into())),
        (property(r#"{"items":{"type":"string","x-mcp-header":"A"}}"#), Invalid::Unreachable("/a".into())),
        (property(r#"{"anyOf":[{"type":"string","x-mcp-header":"A"}]}"#), Invalid::Unreachable("/a".into())),
        (
            property(r#"{"if":{"properties":{"b":{"type":"string","x-mcp-header":"A"}}}}"#),
            Invalid::Unreachable("/a/b".into()),
        ),
        (r#"{"type":"string","x-mcp-header":"A"}"#.to_owned(), Invalid::Unreachable("/".into())),
        (
            r#"{"$defs":{"a":{"type":"string","\u0078-mcp-header":"A"}}}"#.to_owned(),
            Invalid::Unreachable("/".into()),
        ),
        (r#"["x-mcp-header"]"#.to_owned(), Invalid::Schema),
    ] {
        assert_eq!(ParamHeaders::from_schema(schema.as_bytes()), Err(expected), "{schema}");
    }
    let twice = r#"{"properties":{"a":{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}}}"#;
    assert!(matches!(ParamHeaders::from_schema(twice.as_bytes()), Err(Invalid::Repeated(_))));
    assert!(ParamHeaders::from_schema(br#"{"type":"object"}"#).unwrap().is_empty());
}

proptest! {
    #[test]
    fn the_codec_gives_back_any_text(text in any::<String>()) {
        let header = encode(&text);
        prop_assert!(HeaderValue::from_str(&header).is_ok());
        prop_assert_eq!(decode(&header).unwrap(), text.as_str());
    }

    #[test]
    fn one_text_has_no_two_readings(header in "(=\\?base64\\?)?[A-Za-z0-9+/= ]{0,12}(\\?=)?") {
        if let Ok(text) = decode(&header) {
            let again = encode(&text).into_owned();
            prop_assert_eq!(decode(&again).unwrap(), text);
        }
    }
}
