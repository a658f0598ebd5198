//! Which rules a message follows: decided per request from what it carries, never from what came
//! before it on the connection (2026-07-28, basic/versioning; basic/transports/streamable-http).

use std::fmt;

use http::HeaderMap;
use http::header::HeaderName;

use super::envelope::{Message, Method, Request};
use super::fault::Fault;

/// `MCP-Protocol-Version`
pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// `Mcp-Session-Id`
pub const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// `Mcp-Method`
pub const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// `Mcp-Name`
pub const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// The revisions of the specification, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Revision {
    V2024_11_05,
    V2025_03_26,
    V2025_06_18,
    V2025_11_25,
    V2026_07_28,
}

impl Revision {
    /// All, newest first.
    pub const ALL: [Self; 5] =
        [Self::V2026_07_28, Self::V2025_11_25, Self::V2025_06_18, Self::V2025_03_26, Self::V2024_11_05];
    /// The newest that has sessions.
    pub const LATEST_LEGACY: Self = Self::V2025_11_25;
    /// What a legacy request without the header follows (2025-11-25, basic/transports).
    pub const ASSUMED: Self = Self::V2025_03_26;

    /// The date on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// Reads the date.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|revision| revision.as_str() == text)
    }

    /// The era that it belongs to.
    #[must_use]
    pub fn era(self) -> Era {
        if self >= Self::V2026_07_28 { Era::Modern } else { Era::Legacy }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The two ways the protocol has worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Era {
    /// Stateless: each request says everything.
    Modern,
    /// Sessions opened with `initialize`.
    Legacy,
}

/// The revision that answers an `initialize`: the one asked for if it has sessions, else our latest.
#[must_use]
pub fn negotiate(requested: &str) -> Revision {
    Revision::parse(requested)
        .filter(|revision| revision.era() == Era::Legacy)
        .unwrap_or(Revision::LATEST_LEGACY)
}

/// What a message is to be treated as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Classified {
    /// A modern message that has passed the checks on its `_meta` and headers.
    Modern(Revision),
    /// A legacy handshake, to be answered with this revision.
    Initialize(Revision),
    /// A message of a legacy session, whose liveness is for the caller to judge; the revision is the
    /// header's, if there was one.
    Legacy(Option<Revision>),
}

impl Classified {
    /// The era.
    #[must_use]
    pub fn era(self) -> Era {
        match self {
            Self::Modern(_) => Era::Modern,
            Self::Initialize(_) | Self::Legacy(_) => Era::Legacy,
        }
    }
}

/// Decides the era of a message and holds modern ones to their MUSTs.
///
/// # Errors
/// The fault to answer with.
pub fn classify(headers: &HeaderMap, message: &Message) -> Result<Classified, Fault> {
    let header = single(headers, &PROTOCOL_VERSION)?;
    let (meta, method, params) = match message {
        Message::Request(request) => {
            (request.params.meta().protocol_version(), Some(&request.method), Some(&request.params))
        }
        Message::Notification(said) => {
            (said.params.meta().protocol_version(), Some(&said.method), Some(&said.params))
        }
        Message::Response(_) => (None, None, None),
    };
    if meta.is_some() || header.is_some_and(is_modern_date) {
        return modern(headers, header, meta.as_deref(), message);
    }
    if let (Message::Request(_), Some(Method::Initialize), Some(params)) = (message, method, params) {
        super::header::verify_if_present(headers, message)?;
        let requested = params.str("protocolVersion")?;
        return Ok(Classified::Initialize(negotiate(requested.as_deref().unwrap_or_default())));
    }
    let revision = match header {
        None => None,
        Some(text) => {
            Some(Revision::parse(text).ok_or_else(|| Fault::unsupported_version(text, Era::Legacy))?)
        }
    };
    super::header::verify_if_present(headers, message)?;
    Ok(Classified::Legacy(revision))
}

/// The revision that a GET or a DELETE of a session names, where it names one.
///
/// # Errors
/// -32022 for one that has no sessions.
pub fn of_session(headers: &HeaderMap) -> Result<Option<Revision>, Fault> {
    let Some(text) = single(headers, &PROTOCOL_VERSION)? else { return Ok(None) };
    let known = Revision::parse(text).filter(|revision| revision.era() == Era::Legacy);
    known.map(Some).ok_or_else(|| Fault::unsupported_version(text, Era::Legacy))
}

/// Dates compare as text; what is no date is not modern.
fn is_modern_date(text: &str) -> bool {
    let shape =
        |(at, byte): (usize, u8)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() };
    text.len() == 10 && text.bytes().enumerate().all(shape) && text >= Revision::V2026_07_28.as_str()
}

fn modern(
    headers: &HeaderMap,
    header: Option<&str>,
    meta: Option<&str>,
    message: &Message,
) -> Result<Classified, Fault> {
    if let (Some(header), Some(meta)) = (header, meta)
        && header != meta
    {
        return Err(Fault::HeaderMismatch("MCP-Protocol-Version does not match _meta".into()));
    }
    let request = match message {
        Message::Request(request) => request,
        // No client notification is defined over HTTP in this revision and none needs headers.
        Message::Notification(_) => {
            super::header::verify_if_present(headers, message)?;
            return supported(meta.or(header).unwrap_or_default()).map(Classified::Modern);
        }
        Message::Response(_) => return Err(Fault::InvalidRequest("a client sends no responses".into())),
    };
    if header.is_none() {
        return Err(Fault::HeaderMismatch("MCP-Protocol-Version is required".into()));
    }
    let revision = supported(meta.or(header).unwrap_or_default())?;
    if matches!(request.method, Method::Other(_)) || request.method.is_in(Era::Modern) {
        modern_meta(request)?;
    } else {
        return Err(Fault::MethodNotFound(request.method.as_str().into()));
    }
    super::header::verify(headers, request)?;
    Ok(Classified::Modern(revision))
}

fn modern_meta(request: &Request) -> Result<(), Fault> {
    let meta = request.params.meta();
    if meta.get(super::meta::PROTOCOL_VERSION).is_none() {
        return Err(Fault::InvalidMeta("_meta lacks io.modelcontextprotocol/protocolVersion".into()));
    }
    if meta.get(super::meta::CLIENT_CAPABILITIES).is_none() {
        return Err(Fault::InvalidMeta("_meta lacks io.modelcontextprotocol/clientCapabilities".into()));
    }
    meta.log_level().map_err(Fault::malformed)?;
    Ok(())
}

fn supported(version: &str) -> Result<Revision, Fault> {
    Revision::parse(version)
        .filter(|revision| revision.era() == Era::Modern)
        .ok_or_else(|| Fault::unsupported_version(version, Era::Modern))
}

/// A header that may stand once, trimmed.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Fault> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Fault::HeaderMismatch(format!("{name} is repeated").into()));
    }
    match std::str::from_utf8(first.as_bytes()) {
        Ok(text) => Ok(Some(text.trim_matches([' ', '\t']))),
        Err(_) => Err(Fault::HeaderMismatch(format!("{name} is malformed").into())),
    }
}

#[cfg(test)]
mod tests;
