//! Why a request to an upstream got no answer, and whether it may have run there.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::hidden_text::deceives;

/// How the text of [`Kind::Connect`] begins.
const CANNOT_CONNECT: &str = "cannot connect to the upstream: ";

/// The part of a call that took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for a connection, a process or a place in the queue.
    Connect,
    /// Waiting for the first byte of an answer.
    FirstByte,
    /// The whole call.
    Total,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// No connection, no process, or an address that the egress rule forbids.
    Connect(Cow<'static, str>),
    /// A deadline passed.
    Timeout(Phase),
    /// No address of the Service is ready.
    NoInstance,
    /// Too many failures lately.
    CircuitOpen,
    /// Too many calls in flight and waiting.
    Overloaded,
    /// Too many sessions have a process of their own.
    Crowded,
    /// The connection or the process ended before the answer did.
    Reset,
    /// The answer is larger than allowed.
    TooLarge,
    /// The upstream broke the protocol.
    Protocol(&'static str),
    /// A request of our own was answered with this JSON-RPC error.
    Refused(i64),
    /// An HTTP status without a JSON-RPC answer.
    Status(u16),
    /// The upstream is stopped, or it cannot do this at all.
    Unavailable,
}

/// A call without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What went wrong.
    pub kind: Kind,
    /// Could the call have run? `false` means that it is safe to send again.
    pub executed: bool,
    /// When to come again, where somebody said so.
    pub retry_after: Option<Duration>,
    /// What was said with an HTTP status. Not part of Display: that goes to logs, statuses and callers.
    pub explanation: Option<Explanation>,
}

/// How an upstream explains an HTTP status, in a line that can be printed. It is a stranger's text and may repeat what
/// was sent, credentials too: for whoever sent them, and nobody else. Debug output holds none of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Explanation(Arc<str>);

impl fmt::Debug for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Explanation")
    }
}

impl Explanation {
    /// In characters.
    const LONGEST: usize = 300;

    /// Reads the body of a refusal: the message of a JSON-RPC error, the description of an OAuth error (RFC 6749,
    /// section 5.2), or the first line of a text. None of markup, and none where there is nothing.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let text = match serde_json::from_slice::<Value>(body) {
            Ok(json) => {
                let places = ["/error/message", "/error_description", "/message", "/error"];
                places.into_iter().find_map(|place| json.pointer(place)?.as_str().map(str::to_owned))?
            }
            Err(_) => {
                std::str::from_utf8(body).ok().filter(|text| !text.trim_start().starts_with('<'))?.to_owned()
            }
        };
        Self::of(&text)
    }

    /// The first line of a text.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
        let line: String = line.chars().filter(|letter| !deceives(*letter)).take(Self::LONGEST).collect();
        (!line.is_empty()).then(|| Self(line.into()))
    }

    /// The line.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Error {
    /// A failure before anything was sent.
    pub(crate) fn unsent(kind: Kind) -> Self {
        Self { kind, executed: false, retry_after: None, explanation: None }
    }

    /// A failure after the request may have reached the upstream.
    pub(crate) fn sent(kind: Kind) -> Self {
        Self { kind, executed: true, retry_after: None, explanation: None }
    }

    pub(crate) fn connect(what: impl Into<Cow<'static, str>>) -> Self {
        Self::unsent(Kind::Connect(what.into()))
    }

    /// The server could not be reached before, for this reason: the text of an error, which says so itself.
    pub(crate) fn still(reason: &str) -> Self {
        Self::connect(reason.strip_prefix(CANNOT_CONNECT).unwrap_or(reason).to_owned())
    }

    pub(crate) fn protocol(what: &'static str) -> Self {
        Self::sent(Kind::Protocol(what))
    }

    /// Does this speak against the health of the upstream?
    pub(crate) fn is_upstream_failure(&self) -> bool {
        match self.kind {
            Kind::Connect(_) | Kind::Timeout(_) | Kind::Reset | Kind::NoInstance => true,
            Kind::Status(status) => status >= 500,
            Kind::CircuitOpen
            | Kind::Overloaded
            | Kind::Crowded
            | Kind::TooLarge
            | Kind::Protocol(_)
            | Kind::Refused(_)
            | Kind::Unavailable => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Connect(what) => write!(f, "{CANNOT_CONNECT}{what}"),
            Kind::Timeout(Phase::Connect) => f.write_str("connecting to the upstream took too long"),
            Kind::Timeout(Phase::FirstByte) => f.write_str("the upstream did not begin to answer in time"),
            Kind::Timeout(Phase::Total) => f.write_str("the upstream did not answer in time"),
            Kind::NoInstance => f.write_str("no instance of the server is ready"),
            Kind::CircuitOpen => f.write_str("the upstream failed too often; its circuit is open"),
            Kind::Overloaded => f.write_str("too many calls are waiting for the upstream"),
            Kind::Crowded => f.write_str("too many sessions use a process of their own of this server"),
            Kind::Reset => f.write_str("the upstream ended before its answer did"),
            Kind::TooLarge => f.write_str("the upstream's answer is too large"),
            Kind::Protocol(what) => write!(f, "the upstream broke the protocol: {what}"),
            Kind::Refused(code) => write!(f, "the upstream answered with the error {code}"),
            Kind::Status(status) => write!(f, "the upstream answered with HTTP status {status}"),
            Kind::Unavailable => f.write_str("the upstream is not available"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_for_an_earlier_failure_says_so_once() {
        let first = Error::connect("connection refused");
        assert_eq!(Error::still(&first.to_string()), first);
        let late = Error::sent(Kind::Timeout(Phase::Connect)).to_string();
        assert_eq!(Error::still(&late).to_string(), format!("cannot connect to the upstream: {late}"));
    }

    #[test]
    fn a_refusal_is_explained_in_its_own_words_by_one_line_that_can_be_printed() {
        let read = |body: &str| Explanation::read(body.as_bytes()).map(|one| one.as_str().to_owned());
        let said = |text: &str| Some(text.to_owned());
        let gateway =
            r#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"the API key has expired","data":{}}}"#;
        assert_eq!(read(gateway), said("the API key has expired"));
        assert_eq!(read(r#"{"error":"invalid_token","error_description":"too old"}"#), said("too old"));
        assert_eq!(read(r#"{"error":"invalid_token"}"#), said("invalid_token"));
        assert_eq!(read(r#"{"message":"Forbidden"}"#), said("Forbidden"));
        assert_eq!(read("\r\n  no healthy upstream \nmore"), said("no healthy upstream"));
        assert_eq!(read(r#"{"message":"\u001b[31mred\u202e\nforged"}"#), said("[31mred"));
        assert_eq!(read(&"x".repeat(5000)).map(|one| one.len()), Some(300));
        for nothing in ["", " \n", "<html>502</html>", "[1]", "{}", r#"{"error":{"message":7}}"#] {
            assert_eq!(read(nothing), None, "{nothing}");
        }
        assert!(!format!("{:?}", Explanation::read(b"Bearer canary")).contains("canary"));
    }
}
