//! Why a request to an upstream got no answer, and whether it may have run there.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

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
    /// The connection or the process ended before the answer did.
    Reset,
    /// The answer is larger than allowed.
    TooLarge,
    /// The upstream broke the protocol.
    Protocol(&'static str),
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
}

impl Error {
    /// A failure before anything was sent.
    pub(crate) fn unsent(kind: Kind) -> Self {
        Self { kind, executed: false, retry_after: None }
    }

    /// A failure after the request may have reached the upstream.
    pub(crate) fn sent(kind: Kind) -> Self {
        Self { kind, executed: true, retry_after: None }
    }

    pub(crate) fn connect(what: impl Into<Cow<'static, str>>) -> Self {
        Self::unsent(Kind::Connect(what.into()))
    }

    pub(crate) fn protocol(what: &'static str) -> Self {
        Self::sent(Kind::Protocol(what))
    }

    /// Does this speak against the health of the upstream?
    pub(crate) fn is_upstream_failure(&self) -> bool {
        match self.kind {
            Kind::Connect(_) | Kind::Timeout(_) | Kind::Reset | Kind::NoInstance => true,
            Kind::Status(status) => status >= 500,
            Kind::CircuitOpen | Kind::Overloaded | Kind::TooLarge | Kind::Protocol(_) | Kind::Unavailable => {
                false
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Connect(what) => write!(f, "cannot connect to the upstream: {what}"),
            Kind::Timeout(Phase::Connect) => f.write_str("connecting to the upstream took too long"),
            Kind::Timeout(Phase::FirstByte) => f.write_str("the upstream did not begin to answer in time"),
            Kind::Timeout(Phase::Total) => f.write_str("the upstream did not answer in time"),
            Kind::NoInstance => f.write_str("no instance of the server is ready"),
            Kind::CircuitOpen => f.write_str("the upstream failed too often; its circuit is open"),
            Kind::Overloaded => f.write_str("too many calls are waiting for the upstream"),
            Kind::Reset => f.write_str("the upstream ended before its answer did"),
            Kind::TooLarge => f.write_str("the upstream's answer is too large"),
            Kind::Protocol(what) => write!(f, "the upstream broke the protocol: {what}"),
            Kind::Status(status) => write!(f, "the upstream answered with HTTP status {status}"),
            Kind::Unavailable => f.write_str("the upstream is not available"),
        }
    }
}

impl std::error::Error for Error {}
