//! W3C Trace Context as MCP carries it, in `_meta` (SEP-414) and in HTTP headers.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

/// A valid `traceparent`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// Never zero.
    pub trace_id: [u8; 16],
    /// Never zero.
    pub span_id: [u8; 8],
    /// Bit 0: sampled.
    pub flags: u8,
}

impl TraceParent {
    /// Reads version 00, or what a later version keeps of it (Trace Context, 4.3).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let version = hex_bytes::<1>(bytes.get(..2)?)?[0];
        let dashes = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        let ends = bytes.len() == 55 || (version > 0 && bytes.get(55) == Some(&b'-'));
        if version == 0xff || !dashes || !ends {
            return None;
        }
        let trace_id = hex_bytes(bytes.get(3..35)?)?;
        let span_id = hex_bytes(bytes.get(36..52)?)?;
        let [flags] = hex_bytes(bytes.get(53..55)?)?;
        (trace_id != [0; 16] && span_id != [0; 8]).then_some(Self { trace_id, span_id, flags })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (u128::from_be_bytes(self.trace_id), u64::from_be_bytes(self.span_id));
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", self.flags)
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Lower-case hexadecimal only, as the recommendation has it.
fn hex_bytes<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    if text.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    hex::decode_to_slice(text, &mut out).ok()?;
    Some(out)
}

/// A trace's context at one hop. `baggage` is no part of it: it may hold what is no server's business, and goes no further
/// than the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The caller's span.
    pub parent: TraceParent,
    /// Vendors' state.
    pub state: Option<Box<str>>,
}

/// `traceparent`
const PARENT: HeaderName = HeaderName::from_static("traceparent");
/// `tracestate`
const STATE: HeaderName = HeaderName::from_static("tracestate");

/// Longest tracestate that is passed on (Trace Context, 3.3.1.5, asks for at least 512).
const MAX_STATE: usize = 512;
/// Most members of it (Trace Context, 3.3.1.1).
const MAX_MEMBERS: usize = 32;
/// Longest key and longest value of a member (Trace Context, 3.3.1.3).
const MAX_PART: usize = 256;

impl TraceContext {
    /// Reads the two texts; without a valid parent there is no context.
    #[must_use]
    pub fn parse(parent: &str, state: Option<&str>) -> Option<Self> {
        Some(Self {
            parent: TraceParent::parse(parent.trim())?,
            state: state
                .map(|text| text.trim_matches([' ', '\t']))
                .filter(|text| is_state(text))
                .map(Into::into),
        })
    }

    /// Reads the headers of an HTTP request; several of `tracestate` are one list (Trace Context, 3.3.1.1).
    #[must_use]
    pub fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(PARENT).iter();
        let parent = parents.next().filter(|_| parents.next().is_none())?.to_str().ok()?;
        let states: Option<Vec<_>> = headers.get_all(STATE).iter().map(|value| value.to_str().ok()).collect();
        Self::parse(parent, states.map(|states| states.join(",")).as_deref())
    }

    /// Sets the headers of an HTTP request.
    pub fn put(&self, headers: &mut HeaderMap) {
        if let Ok(parent) = HeaderValue::from_str(&self.parent.to_string()) {
            headers.insert(PARENT, parent);
        }
        if let Some(state) = self.state.as_deref().and_then(|state| HeaderValue::from_str(state).ok()) {
            headers.insert(STATE, state);
        }
    }

    /// The context that a child span hands on.
    #[must_use]
    pub fn child(&self, span_id: [u8; 8]) -> Self {
        Self { parent: TraceParent { span_id, ..self.parent }, ..self.clone() }
    }
}

/// At most 32 members `key=value`, each key once (Trace Context, 3.3.1); members may be empty.
fn is_state(text: &str) -> bool {
    let mut keys = SmallVec::<[&str; MAX_MEMBERS]>::new();
    let mut members =
        text.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|one| !one.is_empty());
    text.len() <= MAX_STATE
        && members.all(|member| {
            let Some((key, value)) = member.split_once('=') else { return false };
            let fits = keys.len() < MAX_MEMBERS && !keys.contains(&key) && is_key(key) && is_value(value);
            keys.push(key);
            fits
        })
        && !keys.is_empty()
}

fn is_key(key: &str) -> bool {
    let first = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let rest = |byte: u8| first(&byte) || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@');
    key.len() <= MAX_PART && key.as_bytes().first().is_some_and(first) && key.bytes().all(rest)
}

fn is_value(value: &str) -> bool {
    (1..=MAX_PART).contains(&value.len())
        && value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'=')
}
