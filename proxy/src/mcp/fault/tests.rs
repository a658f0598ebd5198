use serde_json::{Value, json};

use super::*;

fn body(fault: &Fault, era: Era) -> Value {
    serde_json::from_slice(&fault.to_body(era, Some(&Id::from(4)))).unwrap()
}

fn all() -> Vec<(Fault, u16, i64)> {
    vec![
        (Fault::Parse("p".into()), 400, -32700),
        (Fault::InvalidRequest("r".into()), 400, -32600),
        (Fault::InvalidParams("p".into()), 200, -32602),
        (Fault::InvalidMeta("p".into()), 400, -32602),
        (Fault::NotAcceptable("a".into()), 406, -32600),
        (Fault::MethodNotFound("a\"b".into()), 404, -32601),
        (Fault::unknown(Object::Tool, "t"), 200, -32602),
        (Fault::unknown(Object::Resource, "r:x"), 200, -32602),
        (Fault::HeaderMismatch("h".into()), 400, -32020),
        (Fault::MissingCapability { required: Bytes::from_static(br#"{"sampling":{}}"#) }, 400, -32021),
        (Fault::unsupported_version("2027-01-01", Era::Modern), 400, -32022),
        (Fault::RateLimited { retry_after: Duration::from_millis(1200) }, 429, 42900),
        (Fault::TooMany("m".into()), 429, 42900),
        (Fault::Unavailable { message: "circuit open".into(), retry_after: None }, 503, 50300),
        (Fault::Upstream("u".into()), 200, -32603),
        (Fault::Internal, 500, -32603),
    ]
}

#[test]
fn each_fault_has_its_status_and_code_and_says_that_it_is_the_gateways() {
    for (fault, status, code) in all() {
        assert_eq!(fault.status(Era::Modern), status, "{fault}");
        let body = body(&fault, Era::Modern);
        assert_eq!(body["id"], 4);
        assert_eq!(body["error"]["code"], code, "{fault}");
        assert_eq!(body["error"]["data"]["source"], "gateway");
        assert_eq!(body["error"]["message"], fault.to_string());
    }
}

#[test]
fn no_code_that_the_specification_keeps_for_itself_is_used_but_its_own_three() {
    for (fault, ..) in all() {
        let code = fault.code(Era::Modern);
        assert!(!(-32099..=-32023).contains(&code) && !(-32019..=-32000).contains(&code), "{fault}");
    }
}

#[test]
fn legacy_clients_get_their_own_codes_and_never_a_404_that_ends_a_session() {
    for (fault, ..) in all() {
        assert_ne!(fault.status(Era::Legacy), StatusCode::NOT_FOUND);
    }
    assert_eq!(Fault::unknown(Object::Resource, "x").code(Era::Legacy), -32002);
    assert_eq!(Fault::unknown(Object::Tool, "x").code(Era::Legacy), -32602);
}

#[test]
fn data_carries_what_the_specification_asks_for() {
    for (by, supported) in [
        (Era::Modern, json!(["2026-07-28"])),
        (Era::Legacy, json!(["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"])),
    ] {
        assert_eq!(
            body(&Fault::unsupported_version("x", by), Era::Modern)["error"]["data"],
            json!({"source": "gateway", "requested": "x", "supported": supported})
        );
    }
    let missing = Fault::MissingCapability { required: Bytes::from_static(br#"{"sampling":{}}"#) };
    assert_eq!(body(&missing, Era::Modern)["error"]["data"]["requiredCapabilities"], json!({"sampling": {}}));
    let limited = Fault::RateLimited { retry_after: Duration::from_millis(1200) };
    assert_eq!(body(&limited, Era::Modern)["error"]["data"]["retryAfterMs"], 1200);
    assert_eq!(limited.render(Era::Modern, None).headers[RETRY_AFTER], "2");
}

#[test]
fn without_an_id_the_member_is_left_out() {
    let body: Value = serde_json::from_slice(&Fault::Internal.to_body(Era::Legacy, None)).unwrap();
    assert_eq!(body.get("id"), None);
}

#[test]
fn what_a_caller_wrote_is_repeated_only_in_part() {
    let fault = Fault::unsupported_version(&"é".repeat(100_000), Era::Legacy);
    assert!(fault.to_body(Era::Modern, None).len() < 1024);
}
