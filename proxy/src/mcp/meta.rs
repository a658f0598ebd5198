//! `params._meta`: the keys that belong to each hop, taken out, and all others, passed on
//! untouched (2026-07-28, basic, "_meta"; SEP-414 for the trace context).

use std::borrow::Cow;

use bytes::Bytes;

use super::envelope::{Member, MemberList, Refusal};
use super::json;

mod capabilities;
mod trace;

pub use capabilities::{Capabilities, CapabilitySet, needed};
pub use trace::{TraceContext, TraceParent};

/// `_meta` key of the protocol version, on every modern request.
pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// `_meta` key of the client's name and version.
pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
/// `_meta` key of what the client can do, on every modern request.
pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// `_meta` key that asks for log messages.
pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// `_meta` key that names the listen request an event belongs to.
pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
/// `_meta` key of the server's name and version in results.
pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
/// `_meta` key that asks for progress.
pub const PROGRESS_TOKEN: &str = "progressToken";

const TRACE_PARENT: &str = "traceparent";
const TRACE_STATE: &str = "tracestate";
const BAGGAGE: &str = "baggage";

/// The keys that every hop writes anew, or leaves out.
const RESERVED: [&str; 9] = [
    PROTOCOL_VERSION,
    CLIENT_INFO,
    CLIENT_CAPABILITIES,
    LOG_LEVEL,
    SUBSCRIPTION_ID,
    PROGRESS_TOKEN,
    TRACE_PARENT,
    TRACE_STATE,
    BAGGAGE,
];

/// Which members of `_meta` belong to the hop, found while the message is scanned.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reserved {
    /// One more than the member's index, per entry of [`RESERVED`].
    at: [u32; RESERVED.len()],
}

impl Reserved {
    /// Notes a key, or refuses one that a case-insensitive decoder takes for a reserved one.
    pub(super) fn note(&mut self, key: &json::Key<'_>, index: usize) -> Result<(), json::Error> {
        let place = RESERVED.iter().position(|name| key.text == *name);
        if let Some(slot) = place.and_then(|place| self.at.get_mut(place)) {
            *slot = index as u32 + 1;
            return Ok(());
        }
        let variant = RESERVED.iter().any(|name| json::is_variant(&key.text, name));
        if variant { Err(json::Error::Ambiguous(key.at)) } else { Ok(()) }
    }

    fn index(&self, key: &str) -> Option<usize> {
        let place = RESERVED.iter().position(|name| *name == key)?;
        (*self.at.get(place)? as usize).checked_sub(1)
    }

    fn holds(&self, index: usize) -> bool {
        self.at.contains(&(index as u32 + 1))
    }
}

/// The severities of RFC 5424, least severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the words of RFC 5424")]
pub enum LogLevel {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
    Alert,
    Emergency,
}

impl LogLevel {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Debug, "debug"),
        (Self::Info, "info"),
        (Self::Notice, "notice"),
        (Self::Warning, "warning"),
        (Self::Error, "error"),
        (Self::Critical, "critical"),
        (Self::Alert, "alert"),
        (Self::Emergency, "emergency"),
    ];

    /// Reads the word of the wire.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, word)| *word == text).map(|(level, _)| *level)
    }

    /// The word of the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(level, _)| *level == self).map_or("debug", |(_, word)| word)
    }
}

/// The members of `_meta`.
#[derive(Debug, Clone, Default)]
pub struct Meta {
    body: Bytes,
    members: MemberList,
    reserved: Reserved,
}

impl Meta {
    /// Judges the reserved members' types.
    pub(super) fn new(body: Bytes, members: MemberList, reserved: Reserved) -> Result<Self, Refusal> {
        let meta = Self { body, members, reserved };
        if let Some(token) = meta.get(PROGRESS_TOKEN)
            && json::text(token).is_none()
            && !token.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-')
        {
            return Err(Refusal::params("progressToken must be a string or an integer"));
        }
        for object in [CLIENT_INFO, CLIENT_CAPABILITIES] {
            if meta.get(object).is_some_and(|value| value.first() != Some(&b'{')) {
                return Err(Refusal::params(format!("{object} must be an object")));
            }
        }
        if meta.get(PROTOCOL_VERSION).is_some_and(|value| json::text(value).is_none()) {
            return Err(Refusal::params("protocolVersion must be a string"));
        }
        Ok(meta)
    }

    fn member(&self, key: &str) -> Option<&Member> {
        match self.reserved.index(key) {
            Some(index) => self.members.get(index),
            None => self.members.iter().find(|member| member.is(key, &self.body)),
        }
    }

    /// The raw JSON of one member.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.member(key).map(|member| member.value(&self.body))
    }

    fn bytes(&self, key: &str) -> Option<Bytes> {
        self.member(key).map(|member| self.body.slice(member.range()))
    }

    /// The revision that this request follows.
    #[must_use]
    pub fn protocol_version(&self) -> Option<Cow<'_, str>> {
        json::text(self.get(PROTOCOL_VERSION)?)
    }

    /// Who the client says it is; unverified.
    #[must_use]
    pub fn client_info(&self) -> Option<Bytes> {
        self.bytes(CLIENT_INFO)
    }

    /// What the client declares on this request.
    #[must_use]
    pub fn client_capabilities(&self) -> Option<Capabilities> {
        self.bytes(CLIENT_CAPABILITIES).map(Capabilities::new)
    }

    /// The log messages asked for.
    ///
    /// # Errors
    /// -32602 for a word that is no level.
    pub fn log_level(&self) -> Result<Option<LogLevel>, Refusal> {
        let Some(value) = self.get(LOG_LEVEL) else { return Ok(None) };
        let level = json::text(value).and_then(|word| LogLevel::parse(&word));
        level.map(Some).ok_or_else(|| Refusal::params("unknown log level"))
    }

    /// The JSON text of the progress token.
    #[must_use]
    pub fn progress_token(&self) -> Option<Bytes> {
        self.bytes(PROGRESS_TOKEN)
    }

    /// The JSON text of the listen request's id.
    #[must_use]
    pub fn subscription_id(&self) -> Option<Bytes> {
        self.bytes(SUBSCRIPTION_ID)
    }

    /// The trace context; malformed parts are dropped.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        let text = |key| self.get(key).and_then(json::text);
        TraceContext::parse(&text(TRACE_PARENT)?, text(TRACE_STATE).as_deref())
    }

    /// The members that are nobody's but the two ends', without braces, byte for byte.
    #[must_use]
    pub fn pass_through(&self) -> Bytes {
        let own = |(index, _): &(usize, &Member)| !self.reserved.holds(*index);
        let mut kept = self.members.iter().enumerate().filter(own).map(|(_, member)| member.whole());
        let Some(first) = kept.next() else { return Bytes::new() };
        let Some(second) = kept.next() else { return self.body.slice(first) };
        let mut out = self.body.slice(first).to_vec();
        for member in std::iter::once(second).chain(kept) {
            out.push(b',');
            out.extend_from_slice(self.body.get(member).unwrap_or_default());
        }
        Bytes::from(out)
    }
}

#[cfg(test)]
mod tests;
