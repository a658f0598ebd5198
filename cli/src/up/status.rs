//! A server as `up` shows it.

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerStatus {
    pub(super) name: String,
    pub(super) state: State,
    /// The revision that is spoken with it, once it is known.
    pub(super) protocol: Option<String>,
    pub(super) tools: Option<usize>,
    /// Why it is not ready.
    pub(super) reason: Option<String>,
}

/// How a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Connecting,
    Ready,
    Degraded,
    Failed,
}

impl State {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "Connecting",
            Self::Ready => "Ready",
            Self::Degraded => "Degraded",
            Self::Failed => "Failed",
        }
    }
}
