//! Which era and transport a server speaks: found out by asking, never by reading its words
//! (mcp.md section 1). A probe never repeats a call, so it may be sent again.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::channel::Channel;
use super::config::{Config, Transport};
use super::error::{Error, Kind, Phase};
use super::http::{Http, Refused, Whole, modern_headers};
use super::inbox::{Inbox, Listening};
use super::legacy::Legacy;
use super::legacy_sse;
use super::session::{Handshake, NotOpened, Profile, Session, initialized};
use super::wire::{self, Answer, MetaParts};
use crate::mcp::envelope::Method;
use crate::mcp::era::{Era, Revision};
use crate::mcp::fault::{HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION};
use crate::mcp::json;

/// A process that does not answer the probe for this long is asked to `initialize`.
const SILENCE: Duration = Duration::from_secs(5);
/// The id of the probe; calls are numbered from above.
const PROBE: u64 = 1;

/// What was found out about a server.
pub(crate) struct Live {
    /// Does it answer modern requests? Then this is its `DiscoverResult`.
    pub(crate) modern: Option<Handshake>,
    /// Does it open sessions?
    pub(crate) legacy: Legacy,
    pub(crate) wire: Wire,
    /// Is it a sidecar of ours, which judges each caller by itself?
    pub(crate) of_mesh: bool,
}

/// How it is reached.
pub(crate) enum Wire {
    /// Streamable HTTP.
    Http(Arc<Http>),
    /// HTTP+SSE, and the connection that calls share.
    Sse(Arc<Http>, Arc<Session>),
    /// The process that calls share.
    Stdio(Arc<Session>),
}

impl Live {
    /// The session that all callers share, where the transport has one.
    pub(crate) fn shared(&self) -> Option<&Arc<Session>> {
        match &self.wire {
            Wire::Http(_) => None,
            Wire::Sse(_, session) | Wire::Stdio(session) => Some(session),
        }
    }
}

/// A probe's verdict.
enum Probed {
    Modern(Handshake),
    /// Not modern; over HTTP, how it said so.
    Other,
}

fn probe_body() -> bytes::Bytes {
    wire::request(PROBE, &Method::ServerDiscover, b"", &MetaParts::default(), Era::Modern)
}

/// Judges a JSON-RPC answer to the probe.
fn judge(raw: &[u8]) -> Probed {
    match wire::answer(raw) {
        Some(Answer::Result(result)) => {
            Handshake::read(result, Era::Modern).map_or(Probed::Other, Probed::Modern)
        }
        Some(Answer::Error(error, code)) => judge_error(error, code),
        None => Probed::Other,
    }
}

/// These three codes are the modern era's own: no falling back, unless ours is not among the
/// versions that the server names.
fn judge_error(error: &[u8], code: i64) -> Probed {
    let unlisted = || {
        let supported = json::member(error, "data").and_then(|data| json::member(data, "supported"));
        let named = supported.and_then(json::elements).unwrap_or_default();
        let mut named = named.into_iter().filter_map(json::text);
        !named.any(|one| one == Revision::V2026_07_28.as_str())
    };
    match code {
        UNSUPPORTED_VERSION if unlisted() => Probed::Other,
        HEADER_MISMATCH | MISSING_CAPABILITY | UNSUPPORTED_VERSION => Probed::Modern(Handshake {
            revision: Revision::V2026_07_28,
            supported: Vec::new(),
            server_info: None,
            // It did not say: ask for every list and take what comes.
            capabilities: bytes::Bytes::from_static(br#"{"tools":{},"prompts":{},"resources":{}}"#),
            instructions: None,
        }),
        _ => Probed::Other,
    }
}

/// These say nothing about the era.
fn is_inconclusive(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::PROXY_AUTHENTICATION_REQUIRED
                | StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_MANY_REQUESTS
        )
}

async fn probe_http(http: &Http) -> Result<Probed, Error> {
    let headers = modern_headers(Method::ServerDiscover.as_str(), None, &[]);
    let asking = async {
        match http.post(headers, probe_body()).await?.whole(PROBE, http.max_bytes).await? {
            Whole::Message(_, raw) => Ok(judge(&raw)),
            Whole::Refused(refused) => match refused.error() {
                _ if is_inconclusive(refused.status) => Err(Error { executed: false, ..refused.to_error() }),
                Some((error, code)) => Ok(judge_error(error, code)),
                None => Ok(Probed::Other),
            },
            Whole::Other => Ok(Probed::Other),
        }
    };
    let patience = http.timeouts.first_byte;
    let probed = tokio::time::timeout(patience, asking).await;
    probed.unwrap_or_else(|_| Err(Error::unsent(Kind::Timeout(Phase::FirstByte))))
}

/// Finds out how to speak to a URL. `inbox` makes the inbox of a session that opens on the way.
pub(crate) async fn over_http(
    http: Arc<Http>,
    transport: Transport,
    inbox: &(dyn Fn() -> Arc<Inbox> + Sync),
) -> Result<(Live, Option<Session>), Error> {
    if transport == Transport::Sse {
        return Ok((over_sse(http, inbox()).await?, None));
    }
    if let Probed::Modern(handshake) = probe_http(&http).await? {
        // Whether it also opens sessions is nothing that its lists wait for: [`sessions_beside`].
        let (modern, legacy) = (Some(handshake), Legacy::unknown());
        return Ok((Live { modern, legacy, wire: Wire::Http(http), of_mesh: false }, None));
    }
    match Session::open_http(&http, inbox(), &Profile::default()).await {
        Ok(session) => {
            let legacy = Legacy::is(Some(session.handshake.revision));
            Ok((Live { modern: None, legacy, wire: Wire::Http(http), of_mesh: false }, Some(session)))
        }
        Err(NotOpened::Refused(refused)) if transport == Transport::Auto && may_be_sse(&refused) => {
            let first = Error { executed: false, ..refused.to_error() };
            // What Streamable HTTP said is the better explanation when neither works.
            over_sse(http, inbox()).await.map(|live| (live, None)).map_err(|_| first)
        }
        Err(not_opened) => Err(not_opened.into_error()),
    }
}

/// Finds out whether a modern server at a URL also opens sessions, and tells it as soon as it is known, and again if it
/// turns out otherwise: of a server that is silent for `patience` it is told that it opens none.
pub(crate) async fn sessions_beside(
    http: &Arc<Http>,
    inbox: Arc<Inbox>,
    patience: Duration,
    tell: impl Fn(Option<Revision>),
) {
    let profile = Profile::default();
    let mut greeting = pin!(Session::greet_http(http, inbox, &profile));
    let greeted = match tokio::time::timeout(patience, &mut greeting).await {
        Ok(greeted) => greeted,
        Err(_) => {
            tell(None);
            greeting.await
        }
    };
    let Ok(greeted) = greeted else { return tell(None) };
    tell(Some(greeted.revision()));
    // Nobody uses this one: it is ended as soon as it is open.
    if greeted.open().await.is_err() {
        tell(None);
    }
}

/// Finds out what a sidecar says of itself. It speaks both eras, and no session is opened: each belongs to a caller.
pub(crate) async fn over_mesh(http: Arc<Http>) -> Result<Live, Error> {
    match probe_http(&http).await? {
        Probed::Modern(handshake) => Ok(Live {
            modern: Some(handshake),
            legacy: Legacy::is(Some(Revision::LATEST_LEGACY)),
            wire: Wire::Http(http),
            of_mesh: true,
        }),
        Probed::Other => Err(Error::unsent(Kind::Protocol("a sidecar that does not speak 2026-07-28"))),
    }
}

fn may_be_sse(refused: &Refused) -> bool {
    matches!(refused.status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
}

async fn over_sse(http: Arc<Http>, inbox: Arc<Inbox>) -> Result<Live, Error> {
    let channel = legacy_sse::connect(&http, inbox).await?;
    let session = Session::open_channel(channel, &Profile::default(), http.timeouts.first_byte).await?;
    let legacy = Legacy::is(Some(session.handshake.revision));
    Ok(Live { modern: None, legacy, wire: Wire::Sse(http, Arc::new(session)), of_mesh: false })
}

/// How a process took the probe.
pub(crate) enum Opened {
    /// It speaks.
    Session(Box<Session>),
    /// It ended on the probe, as old SDKs do: start it again and begin with `initialize`.
    ExitedOnProbe,
}

/// Finds out what a process speaks.
pub(crate) async fn over_channel(channel: Channel, config: &Config) -> Result<Opened, Error> {
    let patience = config.timeouts.start();
    let found = tokio::time::timeout(patience, probe_channel(&channel)).await;
    let session = match found.unwrap_or_else(|_| Err(Error::unsent(Kind::Timeout(Phase::Connect)))) {
        Ok(Found::Modern(handshake)) => Session::modern(channel, handshake),
        Ok(Found::Legacy(handshake)) => Session::opened(channel, handshake).await?,
        Ok(Found::Other) => Session::open_channel(channel, &Profile::default(), patience).await?,
        Err(error) if error.kind == Kind::Reset => return Ok(Opened::ExitedOnProbe),
        Err(error) => return Err(error),
    };
    Ok(Opened::Session(Box::new(session)))
}

enum Found {
    Modern(Handshake),
    Legacy(Handshake),
    Other,
}

async fn probe_channel(channel: &Channel) -> Result<Found, Error> {
    let mut probe = channel.call(PROBE, probe_body()).await?;
    match tokio::time::timeout(SILENCE, answer(&mut probe)).await {
        Ok(raw) => match judge(&raw?) {
            Probed::Modern(handshake) => Ok(Found::Modern(handshake)),
            Probed::Other => Ok(Found::Other),
        },
        Err(_) => after_silence(channel, probe).await,
    }
}

/// Silence may be that of an old server, which gets its `initialize`, or of one that is slow to
/// start, which may yet answer the probe: the first answer that says something counts.
async fn after_silence(channel: &Channel, mut probe: Listening) -> Result<Found, Error> {
    let body = wire::initialize(0, Revision::LATEST_LEGACY, b"{}", None);
    let mut initialize = channel.call(0, body).await?;
    tokio::select! {
        raw = answer(&mut probe) => match judge(&raw?) {
            Probed::Modern(handshake) => Ok(Found::Modern(handshake)),
            Probed::Other => initialized(&answer(&mut initialize).await?).map(Found::Legacy),
        },
        raw = answer(&mut initialize) => match initialized(&raw?) {
            Ok(handshake) => Ok(Found::Legacy(handshake)),
            Err(refused) => match judge(&answer(&mut probe).await?) {
                Probed::Modern(handshake) => Ok(Found::Modern(handshake)),
                Probed::Other => Err(refused),
            },
        },
    }
}

async fn answer(listening: &mut Listening) -> Result<bytes::Bytes, Error> {
    match &mut listening.answer {
        Some(answer) => answer.await.unwrap_or_else(|_| Err(Error::sent(Kind::Reset))),
        None => Err(Error::sent(Kind::Reset)),
    }
}
