//! A message that is taken means to serde what it means to us, and splicing it gives JSON.
#![no_main]

use bytes::Bytes;
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use mcpmesh_proxy_fuzz::mcp::envelope::{Incoming, Limits, Message, Params, parse};
use mcpmesh_proxy_fuzz::mcp::era::classify;
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

fuzz_target!(|data: &[u8]| {
    let body = Bytes::copy_from_slice(data);
    let Ok(Incoming::One(message)) = parse(body, &Limits::default()) else { return };
    // Lone surrogates and huge numbers in what is only passed on are for the ends to judge.
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return };
    match &message {
        Message::Request(request) => {
            assert_eq!(value["method"], request.method.as_str());
            assert_eq!(serde_json::from_slice::<Value>(request.id.as_json()).expect("an id"), value["id"]);
            judge_params(&request.params, &value);
        }
        Message::Notification(said) => judge_params(&said.params, &value),
        Message::Response(answer) => assert_eq!(answer.id.is_none(), value.get("id").is_none_or(Value::is_null)),
    }
    let _ = classify(&HeaderMap::new(), &message);
});
