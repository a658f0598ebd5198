use proptest::prelude::*;

use super::*;

#[test]
fn a_template_keeps_its_expressions() {
    assert_eq!(
        wrap_template("fs", "file:///{path}/x{?q,r*}"),
        "mcpmesh://fs/file%3A%2F%2F%2F{path}%2Fx{?q,r*}"
    );
    assert_eq!(wrap_template("fs", "a{b"), "mcpmesh://fs/a%7Bb");
}

#[test]
fn a_value_in_a_template_reaches_the_upstream_as_a_uri() {
    let (_, original) = unwrap("mcpmesh://fs/file%3A%2F%2F%2Fmy%20caf%C3%A9.txt").unwrap();
    assert_eq!(expanded(&original), "file:///my%20caf%C3%A9.txt");
    assert_eq!(expanded("a:b?c=d#e%20f"), "a:b?c=d#e%20f");
}

#[test]
fn what_is_not_wrapped_is_not_unwrapped() {
    for uri in ["file:///a", "mcpmesh://", "mcpmesh://p", "mcpmesh:///x", "mcpmesh://p/%ff"] {
        assert_eq!(unwrap(uri), None, "{uri}");
    }
}

#[test]
fn dot_segments_and_encoded_slashes_are_refused() {
    for uri in [
        "file:///a/../b",
        "file:///a/.",
        "file:///a/%2e%2E/b",
        "file:///a/.%2e/b",
        "file:///a%2fb",
        "file:///a%2Fb",
        "file:///a%5cb",
        "file:///a\\b",
        "file:///a/..?q",
        "file:///a\n",
        "..",
        "file:../a",
        "a:%2e%2e",
    ] {
        assert!(refuse(uri), "{uri}");
    }
    for uri in ["file:///a/b.c", "file:///a/..b", "file:///a/...", "test://x?path=../y", "a:b", "file:///%20"]
    {
        assert!(!refuse(uri), "{uri}");
    }
}

#[test]
fn only_the_form_that_parsers_write_is_normal() {
    for uri in [
        "file:///a/b",
        "notes://Alice/x?q=1#f",
        "urn:isbn:1",
        "https://h/a",
        "a://caf\u{e9}/b c",
        "x://a%40b",
    ] {
        assert!(is_normal(uri), "{uri}");
    }
    for uri in [
        "FILE:///a",
        "file:/a",
        "file://localhost/a",
        "db://host:/a",
        "db://@host/a",
        "NOTES://a",
        "https://H/a",
        "https://h:443/a",
        "https://h",
        " file:///a",
        "file:///a\tb",
        "a",
        "",
    ] {
        assert!(!is_normal(uri), "{uri}");
    }
}

proptest! {
    #[test]
    fn wrapping_is_undone_exactly(prefix in "[a-z0-9-]{1,32}", uri in any::<String>()) {
        let wrapped = wrap(&prefix, &uri);
        let visible = wrapped.bytes().all(|byte| byte.is_ascii_graphic());
        prop_assert!(visible);
        prop_assert_eq!(unwrap(&wrapped), Some((prefix.as_str(), uri.into())));
    }
}
