//! A session with an upstream: opened by `initialize` (legacy) or described by `server/discover`
//! (modern), over HTTP or over a channel. Dropping it ends it upstream, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::channel::Channel;
use super::error::{Error, Kind, Phase};
use super::events::EventStream;
use super::http::{ASIDE, Answered, Http, HttpLine, Opened, Refused, Whole};
use super::inbox::{Answerer, Back, Inbox};
use super::level::Levels;
use super::own::Stay;
use super::reply::{Bounds, Reply};
use super::wire::{self, Answer};
use crate::identity::assertion;
use crate::mcp::envelope::Method;
use crate::mcp::era::{Era, Revision, SESSION_ID};
use crate::mcp::json;
use crate::mcp::meta::TraceContext;

/// A session's DELETE may take this long.
const GOODBYE: Duration = Duration::from_secs(5);
/// Attempts to open a session's own stream before it is left alone.
const MAX_STREAM_FAILURES: u32 = 8;

/// What a server says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Handshake {
    pub(crate) revision: Revision,
    /// Revisions that a modern server lists.
    pub(crate) supported: Vec<Revision>,
    pub(crate) server_info: Option<Bytes>,
    pub(crate) capabilities: Bytes,
    pub(crate) instructions: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described<'a> {
    protocol_version: Option<String>,
    #[serde(default)]
    supported_versions: Vec<String>,
    #[serde(borrow)]
    capabilities: Option<&'a RawValue>,
    #[serde(borrow)]
    server_info: Option<&'a RawValue>,
    instructions: Option<String>,
    #[serde(borrow, rename = "_meta")]
    meta: Option<DescribedMeta<'a>>,
}

#[derive(Deserialize)]
struct DescribedMeta<'a> {
    #[serde(borrow, rename = "io.modelcontextprotocol/serverInfo")]
    server_info: Option<&'a RawValue>,
}

impl Handshake {
    /// Whether these are a modern server's own words: one that refused the probe names no revision.
    pub(crate) fn is_said(&self) -> bool {
        !self.supported.is_empty()
    }

    /// Reads an `InitializeResult` or a `DiscoverResult`.
    pub(crate) fn read(result: &[u8], era: Era) -> Option<Self> {
        let said: Described<'_> = serde_json::from_slice(result).ok()?;
        let supported: Vec<_> =
            said.supported_versions.iter().filter_map(|text| Revision::parse(text)).collect();
        let revision = match era {
            Era::Modern => supported.iter().copied().find(|revision| revision.era() == Era::Modern)?,
            Era::Legacy => {
                Revision::parse(said.protocol_version.as_deref()?).filter(|one| one.era() == Era::Legacy)?
            }
        };
        let bytes = |raw: &RawValue| Bytes::copy_from_slice(raw.get().as_bytes());
        let info = said.server_info.or(said.meta.and_then(|meta| meta.server_info));
        Some(Self {
            revision,
            supported,
            server_info: info.map(bytes),
            capabilities: said.capabilities.map_or_else(|| Bytes::from_static(b"{}"), bytes),
            instructions: said.instructions,
        })
    }
}

/// What a session is opened with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Profile {
    /// The JSON object of the client's capabilities.
    pub(crate) capabilities: Bytes,
    /// The JSON object that names the client; ours when absent.
    pub(crate) info: Option<Bytes>,
    /// For whom it is opened, towards a server of the mesh.
    pub(crate) assertion: Option<http::HeaderValue>,
}

/// A session.
pub(crate) struct Session {
    pub(crate) era: Era,
    pub(crate) handshake: Handshake,
    /// Who wants its log messages.
    pub(crate) levels: Levels,
    /// Keeps its room where it is a process of one client's own.
    stay: Option<Stay>,
    line: Line,
    number: u64,
}

/// What a session heard without a break: its number, and how often its own stream was interrupted.
pub(crate) type Epoch = (u64, u64);

enum Line {
    Http(HttpSession),
    Channel(Channel),
}

struct HttpSession {
    line: Arc<HttpLine>,
    stop: CancellationToken,
    ears: Arc<Ears>,
}

/// How a session's own stream fares.
#[derive(Default)]
struct Ears {
    gaps: AtomicU64,
    deaf: AtomicBool,
}

/// Why `initialize` did not open a session.
pub(crate) enum NotOpened {
    /// Over HTTP the request was refused, perhaps since the server speaks something else.
    Refused(Refused),
    /// Anything else.
    Failed(Error),
}

impl From<Error> for NotOpened {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl NotOpened {
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Refused(refused) => Error { executed: false, ..refused.to_error() },
            // Opening a session runs no call.
            Self::Failed(error) => Error { executed: false, ..error },
        }
    }
}

/// A session over HTTP whose `initialize` was answered. Dropping it ends it upstream.
pub(crate) struct Greeted {
    http: HttpSession,
    handshake: Handshake,
}

impl Greeted {
    pub(crate) fn revision(&self) -> Revision {
        self.handshake.revision
    }

    /// Says that we are there, too, and listens.
    pub(crate) async fn open(self) -> Result<Session, Error> {
        let Self { http, handshake } = self;
        http.line.say(wire::notification(&Method::NotificationsInitialized, b"")).await?;
        let (heard, ears) = (Arc::clone(&http.line), Arc::clone(&http.ears));
        tokio::spawn(hear(heard, ears, http.stop.clone()));
        Ok(Session::new(Era::Legacy, handshake, Line::Http(http)))
    }
}

impl Session {
    /// Opens a legacy session over Streamable HTTP.
    pub(crate) async fn open_http(
        http: &Arc<Http>,
        inbox: Arc<Inbox>,
        profile: &Profile,
    ) -> Result<Self, NotOpened> {
        Ok(Self::greet_http(http, inbox, profile).await?.open().await?)
    }

    /// The first half of that: `initialize` is answered.
    pub(crate) async fn greet_http(
        http: &Arc<Http>,
        inbox: Arc<Inbox>,
        profile: &Profile,
    ) -> Result<Greeted, NotOpened> {
        let opening =
            tokio::time::timeout(http.timeouts.first_byte, Self::initialize_somewhere(http, profile));
        let (http, session, handshake) =
            opening.await.unwrap_or_else(|_| Err(Error::unsent(Kind::Timeout(Phase::FirstByte)).into()))?;
        let revision = handshake.revision;
        let line = Arc::new(HttpLine {
            http,
            session,
            revision,
            assertion: profile.assertion.clone(),
            inbox,
            lost: CancellationToken::new(),
            pings: AtomicU64::new(0),
            aside: Arc::new(Semaphore::new(ASIDE)),
        });
        Ok(Greeted {
            http: HttpSession { line, stop: CancellationToken::new(), ears: Arc::default() },
            handshake,
        })
    }

    /// At the first address that can be reached: all that follows goes there.
    async fn initialize_somewhere(
        http: &Arc<Http>,
        profile: &Profile,
    ) -> Result<(Arc<Http>, Option<http::HeaderValue>, Handshake), NotOpened> {
        let mut failed = Error::unsent(Kind::NoInstance);
        for anchor in http.anchors()? {
            match Self::initialize_http(&anchor, profile).await {
                Ok((session, handshake)) => return Ok((anchor, session, handshake)),
                Err(NotOpened::Failed(error @ Error { kind: Kind::Connect(_), .. })) => failed = error,
                Err(not_opened) => return Err(not_opened),
            }
        }
        Err(failed.into())
    }

    async fn initialize_http(
        http: &Http,
        profile: &Profile,
    ) -> Result<(Option<http::HeaderValue>, Handshake), NotOpened> {
        let mut revision = Revision::LATEST_LEGACY;
        loop {
            let body = wire::initialize(0, revision, &profile.capabilities, profile.info.as_deref());
            let mut headers = http::HeaderMap::new();
            headers.extend(profile.assertion.clone().map(|assertion| (assertion::HEADER, assertion)));
            let answered = http.post(headers, body).await?;
            let (mut headers, raw) = match answered.whole(0, http.max_bytes).await? {
                Whole::Message(headers, raw) => (headers, raw),
                Whole::Refused(refused) => match older(&refused.body, revision) {
                    Some(next) => {
                        revision = next;
                        continue;
                    }
                    None => return Err(NotOpened::Refused(refused)),
                },
                Whole::Other => {
                    return Err(Error::unsent(Kind::Protocol("initialize was not answered")).into());
                }
            };
            if let Some(next) = older(&raw, revision) {
                revision = next;
                continue;
            }
            // Who knows a session's id can speak in it: it stays out of Debug output.
            let mut id = headers.remove(SESSION_ID);
            if let Some(id) = &mut id {
                id.set_sensitive(true);
            }
            return Ok((id, initialized(&raw)?));
        }
    }

    /// Opens a legacy session over a channel.
    pub(crate) async fn open_channel(
        channel: Channel,
        profile: &Profile,
        patience: Duration,
    ) -> Result<Self, Error> {
        let opening = async {
            let body =
                wire::initialize(0, Revision::LATEST_LEGACY, &profile.capabilities, profile.info.as_deref());
            let mut listening = channel.call(0, body).await?;
            let Some(answer) = listening.answer.take() else { return Err(Error::unsent(Kind::Unavailable)) };
            initialized(&answer.await.unwrap_or_else(|_| Err(Error::unsent(Kind::Reset)))?)
        };
        let handshake = tokio::time::timeout(patience, opening).await;
        let handshake = handshake.unwrap_or_else(|_| Err(Error::unsent(Kind::Timeout(Phase::Connect))))?;
        Self::opened(channel, handshake).await
    }

    /// Ends the handshake of a channel whose `initialize` was answered.
    pub(crate) async fn opened(channel: Channel, handshake: Handshake) -> Result<Self, Error> {
        channel.say(wire::notification(&Method::NotificationsInitialized, b"")).await?;
        Ok(Self::new(Era::Legacy, handshake, Line::Channel(channel)))
    }

    /// A channel whose server is modern.
    pub(crate) fn modern(channel: Channel, handshake: Handshake) -> Self {
        channel.inbox.answer_nothing();
        Self::new(Era::Modern, handshake, Line::Channel(channel))
    }

    fn new(era: Era, handshake: Handshake, line: Line) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let levels = Levels::default();
        Self { era, handshake, levels, stay: None, line, number: NUMBERS.fetch_add(1, Ordering::Relaxed) }
    }

    /// A process of one client's own.
    pub(crate) fn stays(self, stay: Option<Stay>) -> Self {
        Self { stay, ..self }
    }

    /// Whether it is a process of one client's own.
    pub(crate) fn is_own_process(&self) -> bool {
        self.stay.is_some()
    }

    /// Tells it from every other session.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Another than before where something may have been missed that the server said unasked.
    pub(crate) fn epoch(&self) -> Epoch {
        let gaps = match &self.line {
            Line::Http(http) => http.ears.gaps.load(Ordering::Relaxed),
            Line::Channel(_) => 0,
        };
        (self.number, gaps)
    }

    /// Its own stream could not be opened for long, and is not tried any more.
    pub(crate) fn is_deaf(&self) -> bool {
        matches!(&self.line, Line::Http(http) if http.ears.deaf.load(Ordering::Relaxed))
    }

    /// Is the other side gone, or has it forgotten us?
    pub(crate) fn is_dead(&self) -> bool {
        match &self.line {
            Line::Http(http) => http.line.lost.is_cancelled(),
            Line::Channel(channel) => channel.dead.is_cancelled(),
        }
    }

    /// Resolves once the session is dead.
    pub(crate) async fn died(&self) {
        match &self.line {
            Line::Http(http) => http.line.lost.cancelled().await,
            Line::Channel(channel) => channel.dead.cancelled().await,
        }
    }

    /// The server answered that it does not know the session.
    pub(crate) fn lose(&self) {
        if let Line::Http(http) = &self.line {
            http.line.lost.cancel();
        }
    }

    /// Its address, one of several, cannot be reached: it is lost, unless it is not bound to one.
    pub(crate) fn lose_place(&self) -> bool {
        let anchored = matches!(&self.line, Line::Http(http) if http.line.http.is_anchored());
        if anchored {
            self.lose();
        }
        anchored
    }

    /// For whom it was opened, towards a server of the mesh.
    pub(crate) fn assertion(&self) -> Option<&http::HeaderValue> {
        match &self.line {
            Line::Http(http) => http.line.assertion.as_ref(),
            Line::Channel(_) => None,
        }
    }

    pub(crate) fn has_id(&self) -> bool {
        matches!(&self.line, Line::Http(http) if http.line.session.is_some())
    }

    /// Sends a request of our own that is already rendered.
    pub(crate) async fn call(&self, id: u64, body: Bytes, bounds: Bounds) -> Result<Reply, Error> {
        self.call_in((id, None), body, bounds).await
    }

    /// Sends a request that is already rendered, in a trace.
    pub(crate) async fn call_in(
        &self,
        (id, trace): (u64, Option<&TraceContext>),
        body: Bytes,
        bounds: Bounds,
    ) -> Result<Reply, Error> {
        match &self.line {
            Line::Http(http) => {
                let headers = http.line.headers(trace);
                Ok(Reply::legacy_http(id, &http.line, (headers, body), bounds))
            }
            Line::Channel(channel) => {
                let calling = tokio::time::timeout_at(bounds.first_byte, channel.call(id, body)).await;
                let listening =
                    calling.unwrap_or_else(|_| Err(Error::sent(Kind::Timeout(Phase::FirstByte))))?;
                Ok(Reply::channel(self.era, listening, channel.answerer(), bounds))
            }
        }
    }

    /// Sends a request of our own that is already rendered, unless others wait to be sent.
    pub(crate) fn call_now(&self, id: u64, body: Bytes, bounds: Bounds) -> Option<Reply> {
        match &self.line {
            Line::Http(http) => {
                Some(Reply::legacy_http(id, &http.line, (http.line.headers(None), body), bounds))
            }
            Line::Channel(channel) => {
                let listening = channel.call_now(id, body)?;
                Some(Reply::channel(self.era, listening, channel.answerer(), bounds))
            }
        }
    }

    pub(crate) fn answerer(&self) -> Answerer {
        match &self.line {
            Line::Http(http) => Answerer(Back::Http(Arc::clone(&http.line))),
            Line::Channel(channel) => channel.answerer(),
        }
    }
}

impl Drop for HttpSession {
    fn drop(&mut self) {
        self.stop.cancel();
        if self.line.session.is_none() || self.line.lost.is_cancelled() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let line = Arc::clone(&self.line);
            runtime.spawn(async move { tokio::time::timeout(GOODBYE, line.delete()).await });
        }
    }
}

/// Reads the answer to `initialize`.
pub(crate) fn initialized(raw: &[u8]) -> Result<Handshake, Error> {
    match wire::answer(raw) {
        Some(Answer::Result(result)) => Handshake::read(result, Era::Legacy).ok_or(Error::unsent(
            Kind::Protocol("initialize was answered with a version that we do not speak"),
        )),
        Some(Answer::Error(..)) => Err(Error::unsent(Kind::Protocol("initialize was refused"))),
        None => Err(Error::unsent(Kind::Protocol("initialize was not answered with JSON-RPC"))),
    }
}

/// A server that refuses our version and names others instead of choosing one itself.
fn older(raw: &[u8], tried: Revision) -> Option<Revision> {
    let Answer::Error(error, _) = wire::answer(raw)? else { return None };
    let supported = json::member(json::member(error, "data")?, "supported")?;
    let named = json::elements(supported)?.into_iter().filter_map(|one| Revision::parse(&json::text(one)?));
    named.filter(|revision| *revision < tried).max()
}

/// Reads a session's own stream for as long as the server offers one.
async fn hear(line: Arc<HttpLine>, ears: Arc<Ears>, stop: CancellationToken) {
    tokio::select! {
        () = hear_all(&line, &ears) => {}
        () = stop.cancelled() => {}
    }
}

async fn hear_all(line: &Arc<HttpLine>, ears: &Ears) {
    let answerer = Answerer(Back::Http(Arc::clone(line)));
    let mut last_id: Option<String> = None;
    let mut interrupted = false;
    let mut failures = 0;
    while failures < MAX_STREAM_FAILURES {
        let mut pause = Duration::from_millis(500) * 2_u32.pow(failures);
        match line.get(last_id.as_deref()).await {
            Ok(Answered { opened: Opened::Events(body), .. }) => {
                if std::mem::replace(&mut interrupted, true) {
                    // What changed while nobody listened was missed, unless the server goes on where it broke off.
                    if last_id.is_none() {
                        ears.gaps.fetch_add(1, Ordering::Relaxed);
                    }
                    line.inbox.ring();
                }
                let mut events = EventStream::new(body, line.http.max_bytes, None);
                let begun = tokio::time::Instant::now();
                while let Ok(Some(event)) = events.next().await {
                    line.inbox.receive(event.data, &answerer);
                }
                last_id = events.last_id.clone().or(last_id);
                // A server that ends each stream at once shall not be asked without a pause.
                failures = if begun.elapsed() > Duration::from_secs(5) { 0 } else { failures + 1 };
                pause = events.retry();
            }
            Ok(Answered { opened: Opened::Refused(refused), .. }) => {
                if refused.status == http::StatusCode::NOT_FOUND && line.session.is_some() {
                    line.lost.cancel();
                    // The server has begun anew: what it offers may be other than before.
                    line.inbox.ring();
                }
                if refused.status.is_client_error() {
                    // 405: no such stream here, which is allowed.
                    return;
                }
                failures += 1;
            }
            Ok(_) => return,
            Err(_) => failures += 1,
        }
        tokio::time::sleep(pause).await;
    }
    ears.deaf.store(true, Ordering::Relaxed);
}

/// A place that holds at most one session and opens it once.
pub(crate) type Slot = tokio::sync::Mutex<Option<Arc<Session>>>;
