//! The one place that renders an error of the gateway: HTTP status, JSON-RPC code, message, data
//! and headers, per era.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderValue, RETRY_AFTER};
use http::{HeaderMap, StatusCode};

use super::envelope::{INVALID_PARAMS, INVALID_REQUEST, Id, PARSE_ERROR, Refusal};
use super::era::{Era, Revision};
use super::json;

/// A text of ours or one that was made for this fault.
pub type Text = Cow<'static, str>;

/// What went wrong, by concept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The body is not JSON.
    #[error("parse error: {0}")]
    Parse(Text),
    /// The body is no message that may be sent here.
    #[error("invalid request: {0}")]
    InvalidRequest(Text),
    /// The parameters do not fit.
    #[error("invalid params: {0}")]
    InvalidParams(Text),
    /// The parameters as such, or what each request says in `_meta`: HTTP 400 by the specification (2026-07-28, basic).
    #[error("invalid params: {0}")]
    InvalidMeta(Text),
    /// It can only be answered in a form that the client does not take.
    #[error("not acceptable: {0}")]
    NotAcceptable(Text),
    /// No such method in this era.
    #[error("Method not found: {0}")]
    MethodNotFound(Box<str>),
    /// No such object for this caller.
    #[error("{}: {name}", kind.word())]
    UnknownObject {
        /// What was looked for.
        kind: Object,
        /// The caller's own word for it.
        name: Box<str>,
    },
    /// A header is missing, malformed or says something else than the body.
    #[error("Header mismatch: {0}")]
    HeaderMismatch(Text),
    /// The call needs something that the client did not declare.
    #[error("Missing required client capability")]
    MissingCapability {
        /// The JSON object of what is needed.
        required: Bytes,
    },
    /// A revision that we do not speak.
    #[error(
        "Unsupported protocol version (sessions, opened with initialize: 2025-11-25, 2025-06-18, 2025-03-26)"
    )]
    UnsupportedVersion {
        /// The revision asked for.
        requested: Box<str>,
        /// In which form: by a request that says everything, or by one of a session.
        by: Era,
    },
    /// Over a limit.
    #[error("Rate limit exceeded")]
    RateLimited {
        /// When to come again.
        retry_after: Duration,
    },
    /// The caller holds as many of something as one caller may.
    #[error("{0}")]
    TooMany(Text),
    /// The server takes no more calls of ours for now: HTTP 429.
    #[error("the server's own rate limit is exceeded")]
    Throttled {
        /// When to come again, where the server said so.
        retry_after: Option<Duration>,
    },
    /// No room or no working upstream: circuit open, queue full.
    #[error("{message}")]
    Unavailable {
        /// Which of these.
        message: Text,
        /// When to come again.
        retry_after: Option<Duration>,
    },
    /// The upstream failed in a way that the client can't mend.
    #[error("{0}")]
    Upstream(Text),
    /// A fault of our own.
    #[error("internal error")]
    Internal,
}

/// The kinds of thing that a caller can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of MCP")]
pub enum Object {
    Tool,
    Prompt,
    Resource,
    Task,
}

impl Object {
    fn word(self) -> &'static str {
        match self {
            Self::Tool => "Unknown tool",
            Self::Prompt => "Unknown prompt",
            Self::Resource => "Resource not found",
            Self::Task => "Task not found",
        }
    }
}

/// JSON-RPC: method not found.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// JSON-RPC: internal error.
pub const INTERNAL_ERROR: i64 = -32603;
/// Legacy MCP: resource not found.
pub const RESOURCE_NOT_FOUND: i64 = -32002;
/// MCP 2026-07-28: header mismatch.
pub const HEADER_MISMATCH: i64 = -32020;
/// MCP 2026-07-28: missing required client capability.
pub const MISSING_CAPABILITY: i64 = -32021;
/// MCP 2026-07-28: unsupported protocol version.
pub const UNSUPPORTED_VERSION: i64 = -32022;
/// MCP 2025-11-25: the user has to open a URL first.
pub const URL_ELICITATION_REQUIRED: i64 = -32042;
/// Ours, outside of what JSON-RPC and MCP reserve.
pub const RATE_LIMITED: i64 = 42900;
/// Ours, outside of what JSON-RPC and MCP reserve.
pub const UNAVAILABLE: i64 = 50300;

/// Longest piece of a caller's own text that an error repeats.
const MAX_ECHO: usize = 256;

/// A fault as it goes out.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// The HTTP status, as long as no byte has been sent.
    pub status: StatusCode,
    /// `Content-Type` and `Retry-After`.
    pub headers: HeaderMap,
    /// The JSON-RPC error message.
    pub body: Bytes,
}

impl Fault {
    /// A revision that we do not speak, or not in requests of this form.
    #[must_use]
    pub fn unsupported_version(requested: &str, by: Era) -> Self {
        Self::UnsupportedVersion { requested: echo(requested).into(), by }
    }

    /// A message that says wrongly what each message says.
    #[must_use]
    pub fn malformed(refusal: Refusal) -> Self {
        match Self::from(refusal) {
            Self::InvalidParams(message) => Self::InvalidMeta(message),
            other => other,
        }
    }

    /// An object that is not there for this caller.
    #[must_use]
    pub fn unknown(kind: Object, name: &str) -> Self {
        Self::UnknownObject { kind, name: echo(name).into() }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self, era: Era) -> StatusCode {
        match self {
            Self::Parse(_) | Self::InvalidRequest(_) | Self::InvalidMeta(_) => StatusCode::BAD_REQUEST,
            Self::NotAcceptable(_) => StatusCode::NOT_ACCEPTABLE,
            Self::HeaderMismatch(_) | Self::MissingCapability { .. } | Self::UnsupportedVersion { .. } => {
                StatusCode::BAD_REQUEST
            }
            // A legacy client reads 404 as the end of its session.
            Self::MethodNotFound(_) if era == Era::Legacy => StatusCode::OK,
            Self::MethodNotFound(_) => StatusCode::NOT_FOUND,
            Self::InvalidParams(_) | Self::UnknownObject { .. } | Self::Upstream(_) => StatusCode::OK,
            Self::RateLimited { .. } | Self::TooMany(_) | Self::Throttled { .. } => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The JSON-RPC error code.
    #[must_use]
    pub fn code(&self, era: Era) -> i64 {
        match self {
            Self::Parse(_) => PARSE_ERROR,
            Self::InvalidRequest(_) | Self::NotAcceptable(_) => INVALID_REQUEST,
            Self::InvalidParams(_) | Self::InvalidMeta(_) => INVALID_PARAMS,
            Self::MethodNotFound(_) => METHOD_NOT_FOUND,
            Self::UnknownObject { kind: Object::Resource, .. } if era == Era::Legacy => RESOURCE_NOT_FOUND,
            Self::UnknownObject { .. } => INVALID_PARAMS,
            Self::HeaderMismatch(_) => HEADER_MISMATCH,
            Self::MissingCapability { .. } => MISSING_CAPABILITY,
            Self::UnsupportedVersion { .. } => UNSUPPORTED_VERSION,
            Self::RateLimited { .. } | Self::TooMany(_) | Self::Throttled { .. } => RATE_LIMITED,
            Self::Unavailable { .. } => UNAVAILABLE,
            Self::Upstream(_) | Self::Internal => INTERNAL_ERROR,
        }
    }

    /// When to come again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } => Some(*retry_after),
            Self::Unavailable { retry_after, .. } | Self::Throttled { retry_after } => *retry_after,
            _ => None,
        }
    }

    /// The same in whole seconds, rounded up: a client that comes at that second finds room.
    #[must_use]
    pub fn retry_after_header(&self) -> Option<HeaderValue> {
        self.retry_after().map(|wait| HeaderValue::from(wait.as_millis().div_ceil(1000) as u64))
    }

    /// The JSON-RPC error message. Without an id the member is left out, as the schema has it.
    #[must_use]
    pub fn to_body(&self, era: Era, id: Option<&Id>) -> Bytes {
        let mut out = Vec::with_capacity(192);
        out.extend_from_slice(br#"{"jsonrpc":"2.0","#);
        if let Some(id) = id {
            out.extend_from_slice(br#""id":"#);
            out.extend_from_slice(id.as_json());
            out.push(b',');
        }
        out.extend_from_slice(br#""error":{"code":"#);
        out.extend_from_slice(self.code(era).to_string().as_bytes());
        out.extend_from_slice(br#","message":"#);
        json::push_text(&mut out, &self.to_string());
        out.extend_from_slice(br#","data":{"source":"gateway""#);
        self.push_data(&mut out);
        out.extend_from_slice(b"}}}");
        Bytes::from(out)
    }

    fn push_data(&self, out: &mut Vec<u8>) {
        match self {
            Self::MissingCapability { required } => {
                out.extend_from_slice(br#","requiredCapabilities":"#);
                out.extend_from_slice(required);
            }
            Self::UnsupportedVersion { requested, by } => {
                // A client may pick any of these for its next request of this form.
                let others = supported(*by).iter().filter(|revision| revision.as_str() != &**requested);
                for (place, revision) in others.enumerate() {
                    out.extend_from_slice(if place == 0 { br#","supported":["# } else { b"," });
                    json::push_text(out, revision.as_str());
                }
                out.extend_from_slice(br#"],"requested":"#);
                json::push_text(out, requested);
            }
            Self::UnknownObject { kind: Object::Resource, name } => {
                out.extend_from_slice(br#","uri":"#);
                json::push_text(out, name);
            }
            _ => {}
        }
        if let Some(wait) = self.retry_after() {
            out.extend_from_slice(br#","retryAfterMs":"#);
            out.extend_from_slice(wait.as_millis().to_string().as_bytes());
        }
    }

    /// The whole answer.
    #[must_use]
    pub fn render(&self, era: Era, id: Option<&Id>) -> Rendered {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = self.retry_after_header() {
            headers.insert(RETRY_AFTER, wait);
        }
        Rendered { status: self.status(era), headers, body: self.to_body(era, id) }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        match refusal.code {
            PARSE_ERROR => Self::Parse(refusal.message),
            INVALID_PARAMS => Self::InvalidParams(refusal.message),
            _ => Self::InvalidRequest(refusal.message),
        }
    }
}

/// What a request of this form may name, newest first. One that says everything names only what `server/discover` lists:
/// a revision with sessions begins with `initialize`, and the message says so.
fn supported(by: Era) -> &'static [Revision] {
    const SERVED: [Revision; 4] =
        [Revision::V2026_07_28, Revision::V2025_11_25, Revision::V2025_06_18, Revision::V2025_03_26];
    match by {
        Era::Modern => SERVED.get(..1).unwrap_or_default(),
        Era::Legacy => &SERVED,
    }
}

fn echo(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_ECHO)).unwrap_or(text)
}

#[cfg(test)]
mod tests;
