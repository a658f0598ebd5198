//! Resource URIs of several servers in one list: wrapped as `mcpmesh://{prefix}/{original}`, the
//! original percent-encoded, and back.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

/// What stands before the prefix.
pub const SCHEME: &str = "mcpmesh://";

/// Everything but RFC 3986's unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The URI under which clients see an upstream's resource.
#[must_use]
pub fn wrap(prefix: &str, uri: &str) -> String {
    let mut out = String::with_capacity(SCHEME.len() + prefix.len() + uri.len() * 2);
    out.push_str(SCHEME);
    out.push_str(prefix);
    out.push('/');
    out.extend(utf8_percent_encode(uri, ENCODED));
    out
}

/// The same for a template: RFC 6570 expressions stay expressions, in the form that encodes what
/// they expand to, since the whole original is encoded here.
#[must_use]
pub fn wrap_template(prefix: &str, template: &str) -> String {
    let mut out = format!("{SCHEME}{prefix}/");
    let mut rest = template;
    while let Some((literal, tail)) = rest.split_once('{') {
        let Some((expression, tail)) = tail.split_once('}') else { break };
        out.extend(utf8_percent_encode(literal, ENCODED));
        out.push('{');
        out.push_str(expression);
        out.push('}');
        rest = tail;
    }
    out.extend(utf8_percent_encode(rest, ENCODED));
    out
}

/// The prefix and the upstream's URI of a wrapped one. The original's own percent-encoding comes
/// back as it was, because `%` itself is encoded by [`wrap`].
#[must_use]
pub fn unwrap(uri: &str) -> Option<(&str, Cow<'_, str>)> {
    let (prefix, encoded) = uri.strip_prefix(SCHEME)?.split_once('/')?;
    if prefix.is_empty() {
        return None;
    }
    Some((prefix, percent_decode_str(encoded).decode_utf8().ok()?))
}

/// What an unwrapped URI is when a template gave it: a client that expands a wrapped template
/// encodes the value once, and [`unwrap`] takes that away with the rest. Characters that no URI may
/// hold are encoded again; reserved ones inside a value can't be told from the template's own.
#[must_use]
pub fn expanded(uri: &str) -> Cow<'_, str> {
    const INVALID: &AsciiSet = &percent_encoding::CONTROLS
        .add(b' ')
        .add(b'"')
        .add(b'<')
        .add(b'>')
        .add(b'\\')
        .add(b'^')
        .add(b'`')
        .add(b'{')
        .add(b'|')
        .add(b'}');
    utf8_percent_encode(uri, INVALID).into()
}

/// Must this URI be refused? Dot segments and encoded slashes let a glob judge one path and the
/// server read another.
#[must_use]
pub fn refuse(uri: &str) -> bool {
    let path = uri.split(['?', '#']).next().unwrap_or_default();
    let lower = path.to_ascii_lowercase();
    let rest = lower.split_once(':').map_or(lower.as_str(), |(_, rest)| rest);
    if lower.contains("%2f") || lower.contains("%5c") || lower.contains('\\') {
        return true;
    }
    let dot = |segment: &str| matches!(segment.replace("%2e", ".").as_str(), "." | "..");
    uri.chars().any(char::is_control) || rest.split('/').any(dot)
}

/// Is this a URI in the one form that its parsers would write? Only such a one is read where no list names it: a server
/// parses what it is asked for, and a rule must not be asked about one spelling and the server about another.
#[must_use]
pub fn is_normal(uri: &str) -> bool {
    Url::parse(uri).is_ok_and(|parsed| parsed.as_str() == uri || parsed.as_str() == expanded(uri))
}

#[cfg(test)]
mod tests;
