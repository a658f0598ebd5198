use super::*;

fn read(text: &str) -> Result<Message, Refusal> {
    match parse(Bytes::from(text.to_owned()), &Limits::default())? {
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
