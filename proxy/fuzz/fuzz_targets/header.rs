//! The codec gives back what it was given, and headers that we build are headers that we accept.
#![no_main]

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use mcpmesh_proxy_fuzz::mcp::header::{ParamHeaders, decode, encode};
use mcpmesh_proxy_fuzz::mcp::json::{Limits, check};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let encoded = encode(text);
    assert!(HeaderValue::from_str(&encoded).is_ok());
    assert_eq!(decode(&encoded).expect("our own"), text);
    if let Ok(decoded) = decode(text) {
        assert_eq!(decode(&encode(&decoded)).expect("our own"), decoded);
    }
    // A schema, a line end, arguments.
    let (schema, arguments) = text.split_once('\n').unwrap_or((text, "{}"));
    let Ok(params) = ParamHeaders::from_schema(schema.as_bytes()) else { return };
    if check(arguments.as_bytes(), &Limits::default()).is_err() {
        return;
    }
    let headers: HeaderMap = params.build(Some(arguments.as_bytes())).into_iter().collect();
    let verdict = params.check(&headers, Some(arguments.as_bytes()));
    // Only an argument of another type than the schema's has no header that fits.
    assert!(verdict.is_ok() || !params.is_empty());
    let _ = params.check(&HeaderMap::new(), None);
});
