//! What else a server may take a URI for. Servers parse URIs before they compare or open them, each in its own way; a
//! Deny on one spelling holds for all of them.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// How often an escape may hide another.
const ROUNDS: usize = 3;

/// The other readings of a URI, none for one that has no other: without escapes; besides, with scheme and host in small
/// letters and without user and doubled or last slashes; besides, without query and fragment.
pub(super) fn readings(uri: &str) -> impl Iterator<Item = String> {
    let decoded = decode(uri);
    let plain = normal(&decoded);
    let bare = normal(decoded.split(['?', '#']).next().unwrap_or_default());
    let mut all = [Some(decoded.into_owned()), Some(plain), Some(bare)];
    for at in 0..all.len() {
        let (before, rest) = all.split_at_mut(at);
        let known = |one: &String| one == uri || before.iter().flatten().any(|other| other == one);
        if let Some(one) = rest.first_mut() {
            one.take_if(|one| known(one));
        }
    }
    all.into_iter().flatten()
}

fn decode(uri: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(uri);
    for _ in 0..ROUNDS {
        let decoded = percent_decode_str(&text).decode_utf8_lossy().into_owned();
        if decoded == *text {
            break;
        }
        text = Cow::Owned(decoded);
    }
    text
}

fn normal(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once(':') else { return uri.to_owned() };
    let mut out = scheme.to_ascii_lowercase();
    out.push(':');
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
        None => ("", rest),
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = host.strip_suffix(':').unwrap_or(host).to_ascii_lowercase();
    let local = scheme.eq_ignore_ascii_case("file");
    if local || rest.starts_with("//") {
        out.push_str("//");
        out.push_str(if local && host == "localhost" { "" } else { &host });
    }
    let mut last = None;
    for byte in path.chars() {
        if byte != '/' || last != Some('/') {
            out.push(byte);
        }
        last = Some(byte);
    }
    if path.len() > 1 && out.ends_with('/') {
        out.pop();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_uri_has_no_other_reading() {
        for uri in ["file:///secret", "db://host/secret", "notes://t/a?b=c", "urn:isbn:1", "x"] {
            assert!(readings(uri).all(|one| uri.starts_with(&one)), "{uri}");
        }
        assert_eq!(readings("file:///secret").count(), 0);
    }

    #[test]
    fn every_spelling_reads_as_the_plain_one() {
        for (plain, spellings) in [
            (
                "file:///secret",
                &[
                    "FILE:///secret",
                    "file:/secret",
                    "file:////secret",
                    "file://localhost/secret",
                    "file:///s%65cret",
                    "file:///s%2565cret",
                    "file:///secret/",
                    "file:///secret?x",
                    "file:///secret#x",
                    "file:///secret%3Fx",
                ][..],
            ),
            (
                "db://host/a/b",
                &["DB://host/a/b", "db://HOST/a/b", "db://u@host/a/b", "db://host:/a/b", "db://host/a//b"][..],
            ),
        ] {
            for spelling in spellings {
                assert!(readings(spelling).any(|one| one == plain), "{spelling}");
            }
        }
    }
}
