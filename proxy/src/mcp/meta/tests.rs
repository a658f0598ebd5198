use super::*;
use crate::mcp::envelope::{Incoming, Limits, Message, Params, parse};

fn params(meta: &str) -> Result<Params, Refusal> {
    let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"_meta":{meta}}}}}"#);
    match parse(Bytes::from(text), &Limits::default())? {
        Incoming::One(Message::Request(request)) => Ok(request.params),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_the_hops_own_keys_are_taken_out() {
    let all = RESERVED.iter().map(|key| match *key {
        CLIENT_INFO | CLIENT_CAPABILITIES => format!(r#""{key}":{{}}"#),
        _ => format!(r#""{key}":"x""#),
    });
    let own = all.collect::<Vec<_>>().join(",");
    let params = params(&format!(r#"{{"com.example/a":{{"b": 1.0}},{own},"z":[] }}"#)).unwrap();
    assert_eq!(params.meta().pass_through(), r#""com.example/a":{"b": 1.0},"z":[]"#);
    assert_eq!(params.meta().progress_token().unwrap(), r#""x""#);
}

#[test]
fn capabilities_become_a_set() {
    let set = |text: &'static str| Capabilities::new(Bytes::from_static(text.as_bytes())).set();
    assert!(set("{}").is_empty());
    assert_eq!(set(r#"{"elicitation":{}}"#), CapabilitySet::ELICITATION_FORM);
    assert_eq!(set(r#"{"elicitation":{"url":{}}}"#), CapabilitySet::ELICITATION_URL);
    let all = set(
        r#"{"roots":{"listChanged":true},"sampling":{"tools":{}},"elicitation":{"form":{},"url":{}},"extensions":{"io.modelcontextprotocol/tasks":{}}}"#,
    );
    for one in [
        CapabilitySet::ROOTS,
        CapabilitySet::SAMPLING_TOOLS,
        CapabilitySet::ELICITATION_URL,
        CapabilitySet::TASKS,
    ] {
        assert!(all.contains(one));
    }
    assert_eq!(CapabilitySet::from_bits(all.bits()), all);
    assert_eq!(Capabilities::new(all.to_json()).set(), all);
    assert_eq!(all & CapabilitySet::ROOTS, CapabilitySet::ROOTS);
}

#[test]
fn a_client_declares_what_its_revision_knows() {
    use crate::mcp::era::Revision;
    let declared = |revision| {
        let all = Bytes::from_static(br#"{"roots":{},"elicitation":{"form":{},"url":{}}}"#);
        Capabilities::new(all).known_to(revision).set()
    };
    let form = CapabilitySet::ROOTS.with(CapabilitySet::ELICITATION_FORM);
    assert_eq!(declared(Revision::V2025_03_26), CapabilitySet::ROOTS);
    assert_eq!(declared(Revision::V2025_06_18), form);
    assert_eq!(declared(Revision::V2025_11_25), form.with(CapabilitySet::ELICITATION_URL));
}

#[test]
fn log_levels_are_ordered_and_unknown_ones_refused() {
    assert!(LogLevel::Debug < LogLevel::Emergency);
    assert_eq!(LogLevel::parse("warning").map(LogLevel::as_str), Some("warning"));
    let asked = |level: &str| params(&format!(r#"{{"{LOG_LEVEL}":{level}}}"#)).unwrap().meta().log_level();
    assert_eq!(asked(r#""error""#), Ok(Some(LogLevel::Error)));
    assert!(asked(r#""loud""#).is_err() && asked("3").is_err());
}

#[test]
fn trace_context_is_valid_or_dropped() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let trace = params(&format!(r#"{{"traceparent":"{parent}","tracestate":"a=1"}}"#)).unwrap();
    let trace = trace.meta().trace().unwrap();
    assert_eq!(trace.parent.to_string(), parent);
    assert_eq!(trace.state.as_deref(), Some("a=1"));
    assert_eq!(
        trace.child([1; 8]).parent.to_string(),
        parent.replace("b7ad6b7169203331", "0101010101010101")
    );
    for bad in [
        "",
        "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0é",
    ] {
        assert_eq!(TraceParent::parse(bad), None, "{bad}");
    }
    assert!(TraceParent::parse(&format!("01{}-more", &parent[2..])).is_some());
}

#[test]
fn the_state_of_a_trace_keeps_to_the_recommendation_or_is_dropped() {
    let state = |text: &str| {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        TraceContext::parse(parent, Some(text)).unwrap().state
    };
    let many = |count: usize| (0..count).map(|at| format!("k{at}=v")).collect::<Vec<_>>().join(",");
    let long = |length: usize| format!("k={}", "v".repeat(length));
    for good in [
        "a=1".to_owned(),
        "rojo=00f067aa0ba902b7, congo=t61rcWkgMzE".to_owned(),
        "1a-_*/@v=x y\"\\;:".to_owned(),
        "a=1,,b=2".to_owned(),
        many(32),
        long(256),
    ] {
        assert_eq!(state(&good).as_deref(), Some(good.as_str()));
    }
    for bad in [
        String::new(),
        ",".to_owned(),
        "no list".to_owned(),
        "A=1".to_owned(),
        "=1".to_owned(),
        "a=".to_owned(),
        "a=1=2".to_owned(),
        "a b=1".to_owned(),
        "-a=1".to_owned(),
        "a=\u{e9}".to_owned(),
        "a=1\r\nx: y".to_owned(),
        "a=1,a=2".to_owned(),
        many(33),
        long(257),
        [long(250), long(250).replace("k=", "l="), "m=12345678".to_owned()].join(","),
    ] {
        assert_eq!(state(&bad), None, "{bad}");
    }
}

#[test]
fn headers_carry_a_trace_as_meta_does() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = |pairs: &[(&'static str, &'static str)]| {
        let mut headers = http::HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, http::HeaderValue::from_static(value));
        }
        headers
    };
    let of = |pairs: &[(&'static str, &'static str)]| TraceContext::of_headers(&headers(pairs));
    assert_eq!(of(&[]), None);
    assert_eq!(of(&[("tracestate", "a=1")]), None);
    assert_eq!(of(&[("traceparent", parent), ("traceparent", parent)]), None, "two are none");
    let both = [("traceparent", parent), ("tracestate", "a=1"), ("tracestate", "b=2")];
    let trace = of(&both).unwrap();
    assert_eq!(trace.state.as_deref(), Some("a=1,b=2"), "several headers are one list");
    let mut out = http::HeaderMap::new();
    trace.put(&mut out);
    assert_eq!(out, headers(&[("traceparent", parent), ("tracestate", "a=1,b=2")]));
}

#[test]
fn reserved_members_of_the_wrong_type_are_refused() {
    for meta in [
        format!(r#"{{"{PROTOCOL_VERSION}":1}}"#),
        format!(r#"{{"{CLIENT_INFO}":"x"}}"#),
        format!(r#"{{"{CLIENT_CAPABILITIES}":[]}}"#),
        r#"{"progressToken":null}"#.to_owned(),
        r#"{"progressToken":1e3}"#.to_owned(),
    ] {
        assert_eq!(params(&meta).unwrap_err().code, -32602, "{meta}");
    }
}
