use serde_json::{Value, json};

use super::*;

mod model;

fn rules(target: Revision, upstream: Era) -> Rules {
    Rules::new(Id::from_json(Bytes::from_static(br#""c-7""#)).unwrap(), target, upstream)
}

fn modern() -> Rules {
    rules(Revision::V2026_07_28, Era::Legacy)
}

fn legacy() -> Rules {
    rules(Revision::V2025_11_25, Era::Modern)
}

fn whole(text: &str, rules: Rules) -> String {
    let (bytes, _) = rewrite_whole(text.as_bytes(), rules).unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn refused(text: &str, rules: Rules) -> Malformed {
    rewrite_whole(text.as_bytes(), rules).unwrap_err()
}

fn in_chunks(text: &str, cuts: &[usize], rules: Rules) -> Result<(Vec<u8>, Outcome), Malformed> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
    cuts.extend([0, text.len()]);
    cuts.sort_unstable();
    let mut rewriter = Rewriter::new(rules);
    let mut out = BytesMut::new();
    for pair in cuts.windows(2) {
        rewriter.feed(&text.as_bytes()[pair[0]..pair[1]], &mut out)?;
    }
    Ok((out.to_vec(), rewriter.finish()?))
}

#[test]
fn a_legacy_result_gains_what_a_modern_client_needs_and_keeps_every_other_byte() {
    let text = "{ \"jsonrpc\":\"2.0\",\"id\" : 90311, \"result\": {\"content\":[{\"type\":\"text\",\"text\":\"a\\\"}\"}],\"n\":1.0e+2 \n} }";
    assert_eq!(
        whole(text, modern()),
        "{ \"jsonrpc\":\"2.0\",\"id\" : \"c-7\", \"result\": {\"content\":[{\"type\":\"text\",\"text\":\"a\\\"}\"}],\"n\":1.0e+2 \n,\"resultType\":\"complete\"} }"
    );
    assert_eq!(
        whole(r#"{"result":{},"id":1}"#, modern()),
        r#"{"result":{"resultType":"complete"},"id":"c-7"}"#
    );
}

#[test]
fn a_modern_result_loses_what_a_legacy_client_must_not_see() {
    let text = r#"{"id":1,"result":{"resultType":"complete","a":1,"ttlMs":5,"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"x"},"mine":{"k":[]}},"cacheScope":"private"}}"#;
    assert_eq!(whole(text, legacy()), r#"{"id":"c-7","result":{"a":1,"_meta":{"mine":{"k":[]}}}}"#);
    let only = r#"{"id":1,"result":{"resultType":"complete"}}"#;
    assert_eq!(whole(only, legacy()), r#"{"id":"c-7","result":{}}"#);
}

#[test]
fn structured_content_that_is_no_object_is_dropped_for_legacy_clients_only() {
    let text =
        r#"{"id":1,"result":{"resultType":"complete","structuredContent":[1,{"a":"]"}],"content":[]}}"#;
    assert_eq!(whole(text, legacy()), r#"{"id":"c-7","result":{"content":[]}}"#);
    assert_eq!(whole(text, modern()), text.replace(":1,\"r", ":\"c-7\",\"r"));
    let object = r#"{"id":1,"result":{"structuredContent":{"resultType":9}}}"#;
    assert_eq!(whole(object, legacy()), object.replacen('1', "\"c-7\"", 1));
}

#[test]
fn uris_are_wrapped_wherever_a_client_may_send_them_back() {
    let mut rules = legacy();
    rules.uris = Some(UriWrap { prefix: "fs".into() });
    let text = r#"{"id":1,"result":{"content":[{"type":"resource_link","uri":"file:\/\/\/a"},{"type":"resource","resource":{"uri":"b:c","text":"uri"}}],"contents":[{"uri":"d:e"}],"messages":[{"content":{"resource":{"uri":"f:g"}}}],"structuredContent":{"uri":"h:i"}}}"#;
    assert_eq!(
        whole(text, rules.clone()),
        r#"{"id":"c-7","result":{"content":[{"type":"resource_link","uri":"mcpmesh://fs/file%3A%2F%2F%2Fa"},{"type":"resource","resource":{"uri":"mcpmesh://fs/b%3Ac","text":"uri"}}],"contents":[{"uri":"mcpmesh://fs/d%3Ae"}],"messages":[{"content":{"resource":{"uri":"mcpmesh://fs/f%3Ag"}}}],"structuredContent":{"uri":"h:i"}}}"#
    );
    let asks =
        r#"{"id":1,"result":{"inputRequests":{"p":{"params":{"messages":[{"content":[{"uri":"a:b"}]}]}}}}}"#;
    assert!(whole(asks, rules.clone()).contains("mcpmesh://fs/a%3Ab"));
    let error = r#"{"id":1,"error":{"code":-32002,"message":"m","data":{"uri":"a:b"}}}"#;
    assert!(whole(error, rules).contains("mcpmesh://fs/a%3Ab"));
}

#[test]
fn resource_not_found_has_the_code_of_the_clients_era() {
    let missing = r#"{"id":1,"error":{"code":-32002,"message":"m"}}"#;
    assert_eq!(whole(missing, modern()), r#"{"id":"c-7","error":{"code":-32602,"message":"m"}}"#);
    assert_eq!(whole(missing, legacy()), r#"{"id":"c-7","error":{"code":-32002,"message":"m"}}"#);
    let params = r#"{"id":1,"error":{"code":-32602,"message":"m"}}"#;
    let read = Rules { reads_resource: true, ..legacy() };
    assert_eq!(whole(params, read), r#"{"id":"c-7","error":{"code":-32002,"message":"m"}}"#);
    assert_eq!(whole(params, legacy()), r#"{"id":"c-7","error":{"code":-32602,"message":"m"}}"#);
}

#[test]
fn an_error_without_an_id_is_given_the_clients() {
    assert_eq!(
        whole(r#"{"error":{"code":1,"message":"m"}}"#, modern()),
        r#"{"error":{"code":1,"message":"m"},"id":"c-7"}"#
    );
    assert_eq!(
        whole(r#"{"id":null,"error":{"code":1,"message":"m"}}"#, modern()),
        r#"{"id":"c-7","error":{"code":1,"message":"m"}}"#
    );
}

#[test]
fn only_the_response_to_our_request_is_a_clients() {
    let rules = Rules { asked: Some(17), ..modern() };
    for own in ["17", r#""17""#, "17.0", "1.7e1", r#""\u00317""#] {
        for text in [format!(r#"{{"id":{own},"result":{{}}}}"#), format!(r#"{{"result":{{}},"id":{own}}}"#)] {
            assert!(whole(&text, rules.clone()).contains(r#""id":"c-7""#), "{text}");
        }
    }
    for other in ["18", "1", "170", "-17", "17.5", r#""18""#, r#""+17""#, r#""c-7""#, r#""""#, "true", "null"]
    {
        for text in
            [format!(r#"{{"id":{other},"result":{{}}}}"#), format!(r#"{{"result":{{}},"id":{other}}}"#)]
        {
            assert_eq!(refused(&text, rules.clone()), Malformed::Id, "{text}");
            let pieces = in_chunks(&text, &(0..text.len()).collect::<Vec<_>>(), rules.clone());
            assert_eq!(pieces.unwrap_err(), Malformed::Id, "{text}");
        }
    }
    assert_eq!(refused(r#"{"result":{}}"#, rules.clone()), Malformed::Id);
    // An error may be about a request whose id could not be read: old servers refuse under any.
    assert_eq!(
        whole(r#"{"error":{"code":1,"message":"m"}}"#, rules.clone()),
        r#"{"error":{"code":1,"message":"m"},"id":"c-7"}"#
    );
    for any in ["null", "18", r#""server-error""#] {
        for text in [
            format!(r#"{{"error":{{"code":1,"message":"m"}},"id":{any}}}"#),
            format!(r#"{{"id":{any},"error":{{"code":1,"message":"m"}}}}"#),
        ] {
            assert_eq!(whole(&text, rules.clone()), text.replace(any, r#""c-7""#));
        }
    }
}

#[test]
fn the_outcome_says_what_the_response_was() {
    let text = r#"{"id":1,"result":{"isError":true,"resultType":"complete"}}"#;
    let (_, outcome) = rewrite_whole(text.as_bytes(), modern()).unwrap();
    assert!(outcome.is_error_result);
    assert_eq!(outcome.result_type.as_deref(), Some("complete"));
    assert_eq!(outcome.bytes, text.len() as u64);
    let (_, outcome) = rewrite_whole(br#"{"id":1,"error":{"code":-32603}}"#, modern()).unwrap();
    assert_eq!(outcome.error_code, Some(-32603));
}

#[test]
fn what_was_read_may_be_kept_by_its_reader_only_and_as_long_as_the_upstream_says() {
    let rules = Rules { reads_resource: true, ..asking() };
    let result = |said: &str| format!(r#"{{"id":1,"result":{{"resultType":"complete"{said}}}}}"#);
    for (said, becomes) in [
        ("", r#","ttlMs":0,"cacheScope":"private""#),
        (r#","ttlMs":9"#, r#","ttlMs":9,"cacheScope":"private""#),
        (r#","ttlMs":-5,"cacheScope":"weird""#, r#","ttlMs":0,"cacheScope":"private""#),
        (r#","cacheScope":"public","ttlMs":1e9"#, r#","cacheScope":"private","ttlMs":0"#),
        (r#","ttlMs":"9","cacheScope":null"#, r#","ttlMs":0,"cacheScope":"private""#),
        (r#","ttlMs":[9],"cacheScope":{}"#, r#","ttlMs":0,"cacheScope":"private""#),
    ] {
        let expected = result(becomes).replacen('1', "\"c-7\"", 1);
        assert_eq!(whole(&result(said), rules.clone()), expected, "{said}");
    }
    let own = result(r#","ttlMs":-5,"cacheScope":"weird""#);
    assert_eq!(whole(&own, asking()), own.replacen('1', "\"c-7\"", 1), "a tool's own words");
    let asks = r#"{"id":1,"result":{"resultType":"input_required","requestState":"s"}}"#;
    assert_eq!(whole(asks, rules), asks.replacen('1', "\"c-7\"", 1));
}

/// Of a modern server, for a client that has roots and forms.
fn asking() -> Rules {
    let declared = CapabilitySet::ROOTS.with(CapabilitySet::ELICITATION_FORM);
    Rules { asks: Some(declared), ..rules(Revision::V2026_07_28, Era::Modern) }
}

#[test]
fn a_modern_client_is_asked_only_for_what_it_declared_on_the_request() {
    let text = |request: &str| {
        format!(
            r#"{{"id":1,"result":{{"inputRequests":{{"a":{{"method":"roots/list"}},"b":{request}}},"requestState":"s","resultType":"input_required"}}}}"#
        )
    };
    for good in [
        r#"{"method":"roots/list","params":{}}"#,
        r#"{"method":"elicitation\/create"}"#,
        r#"{"params":{"mode":"form","requestedSchema":{"mode":"url"}},"method":"elicitation/create"}"#,
    ] {
        assert_eq!(whole(&text(good), asking()), text(good).replacen('1', "\"c-7\"", 1));
    }
    for bad in [
        r#"{"method":"sampling/createMessage","params":{"messages":[]}}"#,
        r#"{"params":{"mode":"url"},"method":"elicitation/create"}"#,
        r#"{"method":"elicitation/create","params":{"mode":"form","mode":"url"}}"#,
        r#"{"method":"elicitation/create","params":{"mode":{}}}"#,
        r#"{"method":"elicitation/create","params":{"mode":1}}"#,
        r#"{"method":"sampling/createMessage","method":"roots/list"}"#,
        r#"{"method":"ping"}"#,
        r#"{"method":["roots/list"]}"#,
        r#"{"params":{}}"#,
        r#"[{"method":"sampling/createMessage"}]"#,
        "5",
    ] {
        assert_eq!(refused(&text(bad), asking()), Malformed::Undeclared, "{bad}");
    }
    for tools in [r#""tools":[]"#, r#""toolChoice":{}"#] {
        let sampling = text(&format!(r#"{{"method":"sampling/createMessage","params":{{{tools}}}}}"#));
        let plain = CapabilitySet::ROOTS.with(CapabilitySet::SAMPLING);
        let both = plain.with(CapabilitySet::SAMPLING_TOOLS);
        assert_eq!(refused(&sampling, Rules { asks: Some(plain), ..asking() }), Malformed::Undeclared);
        whole(&sampling, Rules { asks: Some(both), ..asking() });
    }
    let list = r#"{"id":1,"result":{"resultType":"input_required","inputRequests":[],"requestState":"s"}}"#;
    assert_eq!(refused(list, asking()), Malformed::Undeclared);
    // Where nothing is asked a member of this name is the tool's own.
    let own = text(r#"{"method":"ping"}"#).replace("input_required", "complete");
    whole(&own, asking());
}

#[test]
fn input_is_required_by_modern_servers_of_requests_that_can_have_it_and_says_for_what() {
    let state = r#"{"id":1,"result":{"resultType":"input_required","requestState":"s"}}"#;
    assert!(whole(state, asking()).contains("requestState"));
    assert_eq!(refused(state, Rules { asks: None, ..asking() }), Malformed::ResultType);
    assert_eq!(refused(state, Rules { upstream: Era::Legacy, ..asking() }), Malformed::ResultType);
    assert_eq!(refused(state, rules(Revision::V2025_11_25, Era::Legacy)), Malformed::ResultType);
    let nothing = r#"{"id":1,"result":{"resultType":"input_required"}}"#;
    assert_eq!(refused(nothing, asking()), Malformed::NothingAsked);
    let (_, outcome) = rewrite_whole(nothing.as_bytes(), legacy()).unwrap();
    assert_eq!(outcome.result_type.as_deref(), Some("input_required"), "a legacy client is told in words");
}

#[test]
fn errors_of_another_hop_or_era_reach_no_client() {
    let error = |code: i64| format!(r#"{{"id":1,"error":{{"code":{code},"message":"m","data":{{}}}}}}"#);
    let (new, old) = (Revision::V2026_07_28, Revision::V2025_11_25);
    for (code, target, upstream, passes) in [
        (-32020, new, Era::Modern, false),
        (-32020, new, Era::Legacy, false),
        (-32020, old, Era::Modern, false),
        (-32020, old, Era::Legacy, true),
        (-32022, new, Era::Modern, false),
        (-32022, old, Era::Modern, false),
        (-32021, new, Era::Modern, true),
        (-32021, new, Era::Legacy, false),
        (-32042, new, Era::Modern, false),
        (-32042, new, Era::Legacy, false),
        (-32042, old, Era::Modern, false),
        (-32042, old, Era::Legacy, false),
        (-32050, new, Era::Legacy, true),
    ] {
        let passed = rewrite_whole(error(code).as_bytes(), rules(target, upstream));
        let expected = if passes { Ok(code) } else { Err(Malformed::Code(code)) };
        assert_eq!(
            passed.map(|(_, outcome)| outcome.error_code.unwrap()),
            expected,
            "{target:?} {upstream:?}"
        );
    }
}

#[test]
fn a_client_that_opens_urls_is_told_by_a_server_of_its_era_that_one_must_be_opened() {
    let text = r#"{"id":1,"error":{"code":-32042,"message":"m","data":{"elicitations":[]}}}"#;
    let opens = |upstream| Rules { opens_urls: true, ..rules(Revision::V2025_11_25, upstream) };
    assert_eq!(whole(text, opens(Era::Legacy)), text.replacen('1', "\"c-7\"", 1));
    assert_eq!(refused(text, opens(Era::Modern)), Malformed::Code(-32042));
}

#[derive(Debug)]
struct Sealed;

impl States for Sealed {
    fn request_state(&self, upstream: Option<&str>) -> Option<String> {
        Some(format!("gw1.{}", upstream.unwrap_or("none")))
    }
}

#[test]
fn states_are_sealed_even_when_the_upstream_gave_none() {
    let rules = Rules { states: Some(Arc::new(Sealed)), ..asking() };
    let given = r#"{"id":1,"result":{"resultType":"input_required","requestState":"a\"b"}}"#;
    assert!(whole(given, rules.clone()).contains(r#""requestState":"gw1.a\"b""#));
    let none = r#"{"id":1,"result":{"resultType":"input_required","inputRequests":{}}}"#;
    assert!(whole(none, rules.clone()).contains(r#","requestState":"gw1.none"}"#));
}

#[test]
fn what_is_no_response_is_refused() {
    for text in [
        "[]",
        "1",
        r#"{"id":1}"#,
        r#"{"id":1,"result":[]}"#,
        r#"{"id":1,"result":null}"#,
        r#"{"id":1,"result":{},"error":{}}"#,
        r#"{"id":1,"result":{}}{"#,
        r#"{"id":1,"result":{]}"#,
        r#"{"id":1,"result":{"a":[}]}}"#,
        r#"{"id":1,"result":{"a":1,}}"#,
        r#"{"id":1,,"result":{}}"#,
        r#"{"id":{},"result":{}}"#,
        r#"{"id":1 "result":{}}"#,
        "{\"id\":1,\"result\":{\"a\":NaN\u{1}}}",
    ] {
        assert!(matches!(refused(text, modern()), Malformed::Syntax(_)), "{text}");
    }
    assert_eq!(refused(r#"{"id":1,"result":{}"#, modern()), Malformed::Truncated);
    for kind in ["new", "task"] {
        let text = format!(r#"{{"id":1,"result":{{"resultType":"{kind}"}}}}"#);
        assert_eq!(refused(&text, modern()), Malformed::ResultType);
    }
    assert_eq!(refused(r#"{"id":1,"result":{"resultType":1}}"#, modern()), Malformed::ResultType);
}

#[test]
fn a_second_spelling_of_a_rewritten_member_is_refused() {
    for text in [
        r#"{"id":1,"id":2,"result":{}}"#,
        r#"{"id":1,"ID":2,"result":{}}"#,
        r#"{"id":1,"\u0069d":2,"result":{}}"#,
        r#"{"id":1,"Result":{},"result":{}}"#,
        r#"{"id":1,"result":{"resultType":"complete","resultType":"complete"}}"#,
        r#"{"id":1,"method":"tools/call","result":{}}"#,
    ] {
        assert_eq!(refused(text, modern()), Malformed::Ambiguous, "{text}");
    }
}

#[test]
fn threat_deep_or_huge_json_a_response_is_bounded_in_depth_and_in_what_is_held() {
    let deep = format!(r#"{{"id":1,"result":{{"a":{}"#, "[".repeat(100_000));
    assert_eq!(refused(&deep, modern()), Malformed::Depth);
    let key = format!(r#"{{"{}":1"#, "k".repeat(MAX_TOKEN + 1));
    assert_eq!(refused(&key, modern()), Malformed::TooLong);
    let blanks = format!(r#"{{"id":1,{}"#, " ".repeat(MAX_TOKEN + 1));
    assert_eq!(refused(&blanks, modern()), Malformed::TooLong);
    let text = format!(r#"{{"id":1,"result":{{"text":"{}"}}}}"#, "x".repeat(1 << 20));
    assert_eq!(whole(&text, legacy()), text.replacen('1', "\"c-7\"", 1));
}

#[test]
fn long_runs_come_out_as_slices_of_the_chunk() {
    let text = Bytes::from(format!(r#"{{"id":1,"result":{{"text":"{}"}}}}"#, "x".repeat(1 << 20)));
    let mut rewriter = Rewriter::new(modern());
    let mut out = Vec::new();
    rewriter.feed_bytes(&text, &mut out).unwrap();
    rewriter.finish().unwrap();
    assert!(out.len() <= 3, "{}", out.len());
    assert_eq!(out.concat(), rewrite_whole(&text, modern()).unwrap().0);
    let long = out.iter().find(|piece| piece.len() > 1 << 19).unwrap();
    assert!(text.as_ptr_range().contains(&long.as_ptr()));
}

#[test]
fn notifications_get_the_clients_token_and_uris() {
    let raw = Bytes::from_static(
        br#"{"method":"notifications/progress","params":{"progress": 1.0,"progressToken":"g-9"}}"#,
    );
    assert_eq!(
        rewrite_progress(&raw, b"7").unwrap(),
        r#"{"method":"notifications/progress","params":{"progress": 1.0,"progressToken":7}}"#
    );
    let raw = Bytes::from_static(br#"{"method":"m","params":{"uri":"a:b"}}"#);
    let wrap = UriWrap { prefix: "p".into() };
    assert_eq!(wrap.wrap_updated(&raw).unwrap(), r#"{"method":"m","params":{"uri":"mcpmesh://p/a%3Ab"}}"#);
}

#[test]
fn an_upstreams_request_is_readdressed() {
    let raw = br#"{"jsonrpc":"2.0","id":0,"method":"sampling/createMessage","params":{"messages":[{"role":"user","content":{"type":"resource","resource":{"uri":"a:b"}}}],"result":1}}"#;
    let out = rewrite_request(raw, Id::from(31), Some(UriWrap { prefix: "p".into() })).unwrap();
    assert_eq!(
        out,
        r#"{"jsonrpc":"2.0","id":31,"method":"sampling/createMessage","params":{"messages":[{"role":"user","content":{"type":"resource","resource":{"uri":"mcpmesh://p/a%3Ab"}}}],"result":1}}"#
    );
    for text in [r#"{"id":0,"result":{}}"#, r#"{"id":0,"Params":{}}"#] {
        assert_eq!(rewrite_request(text.as_bytes(), Id::from(1), None), Err(Malformed::Ambiguous));
    }
}

#[test]
fn a_path_is_set_made_or_removed() {
    let raw = Bytes::from_static(br#"{ "a": {"b" : 1, "c":2}}"#);
    assert_eq!(splice_path(&raw, &["a", "b"], b"9").unwrap(), r#"{ "a": {"b" : 9, "c":2}}"#);
    assert_eq!(splice_path(&raw, &["a", "d", "e"], b"9").unwrap(), r#"{ "a": {"d":{"e":9},"b" : 1, "c":2}}"#);
    assert_eq!(splice_path(&Bytes::from_static(b"{}"), &["x"], b"9").unwrap(), r#"{"x":9}"#);
    assert_eq!(splice_path(&raw, &["a", "b", "c"], b"9"), None);
    assert_eq!(remove_path(&raw, &["a", "b"]), r#"{ "a": {"c":2}}"#);
    assert_eq!(remove_path(&raw, &["a", "x"]), raw);
    assert_eq!(remove_path(&raw, &["a", "b", "c"]), raw);
}

#[test]
fn an_error_that_a_strict_client_could_not_read_gains_a_code_and_a_message() {
    let (code, message) = (r#""code":-32603"#, r#""message":"the server does not say what failed""#);
    for (said, read) in [
        ("", format!("{code},{message}")),
        (r#""message":"m""#, format!(r#""message":"m",{code}"#)),
        (r#""code":7"#, format!(r#""code":7,{message}"#)),
        (r#""code":"E1","message":"m""#, format!(r#"{code},"message":"m""#)),
        (r#""code":1.5,"message":"m","data":[]"#, format!(r#"{code},"message":"m","data":[]"#)),
        (r#""code":null,"message":"m""#, format!(r#"{code},"message":"m""#)),
        (r#""code":-1,"message":"m""#, r#""code":-1,"message":"m""#.to_owned()),
    ] {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{{said}}}}}"#);
        let (bytes, outcome) = rewrite_whole(text.as_bytes(), modern()).unwrap();
        let expected = format!(r#"{{"jsonrpc":"2.0","id":"c-7","error":{{{read}}}}}"#);
        assert_eq!(String::from_utf8_lossy(&bytes), expected, "{said}");
        assert!(outcome.error_code.is_some(), "{said}");
    }
    for odd in [r#""code":{},"message":"m""#, r#""code":1,"code":2,"message":"m""#] {
        refused(&format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{{odd}}}}}"#), modern());
    }
}
