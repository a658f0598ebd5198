//! W3C Trace Context and Baggage as MCP carries them in `_meta` (SEP-414).

use std::fmt;

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

/// A trace's context at one hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The caller's span.
    pub parent: TraceParent,
    /// Vendors' state.
    pub state: Option<Box<str>>,
    /// Baggage; to be filtered before it leaves the trust boundary.
    pub baggage: Option<Box<str>>,
}

/// Longest tracestate that is passed on (Trace Context, 3.3.1.5, asks for at least 512).
const MAX_STATE: usize = 512;
/// Longest baggage that is passed on (Baggage, 3.3.2).
const MAX_BAGGAGE: usize = 8192;

impl TraceContext {
    /// Reads the three texts; without a valid parent there is no context.
    #[must_use]
    pub fn parse(parent: &str, state: Option<&str>, baggage: Option<&str>) -> Option<Self> {
        let listed = |text: &&str, max| text.len() <= max && is_list(text);
        Some(Self {
            parent: TraceParent::parse(parent.trim())?,
            state: state.filter(|text| listed(text, MAX_STATE)).map(Into::into),
            baggage: baggage.filter(|text| listed(text, MAX_BAGGAGE)).map(Into::into),
        })
    }

    /// The context that a child span hands on.
    #[must_use]
    pub fn child(&self, span_id: [u8; 8]) -> Self {
        Self { parent: TraceParent { span_id, ..self.parent }, ..self.clone() }
    }
}

/// Comma-separated `key=value` of visible ASCII.
fn is_list(text: &str) -> bool {
    let printable =
        text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t') && byte != b'"' && byte != b'\\');
    let member = |part: &str| {
        part.trim().is_empty() || part.split_once('=').is_some_and(|(key, _)| !key.trim().is_empty())
    };
    printable && text.split(',').all(member) && text.contains('=')
}
