//! The one MCP client: a server as attached, whatever it speaks and wherever it is. It finds out
//! the era, keeps what the server offers up to date, and carries calls within deadlines.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ::http::header::{HeaderName, HeaderValue};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::mcp::envelope::{Id, Method};
use crate::mcp::era::Era;
use crate::mcp::fault::{HEADER_MISMATCH, UNSUPPORTED_VERSION};
use crate::mcp::meta::{Capabilities, LogLevel, TraceContext};

mod alive;
mod breaker;
mod catalogue;
mod channel;
mod clients;
mod config;
mod definition;
mod detect;
mod egress;
mod error;
mod events;
mod heard;
mod http;
mod inbox;
mod legacy;
mod legacy_sse;
mod level;
mod link;
mod lists;
mod observe;
mod own;
mod pool;
mod remark;
mod renew;
mod reply;
mod resume;
mod route;
mod service;
mod session;
mod stdio;
mod subscribe;
pub mod tls;
mod wire;

pub use catalogue::{CacheScope, Eras, Item, Lists, Observation, Offers, State};
pub use config::{Config, ConnectError, Connected, Connector, Deps, Endpoint, Guard, Timeouts, Transport};
pub use error::{Error, Explanation, Kind, Phase};
pub use inbox::{Answerer, Unsolicited};
pub use link::SessionLink;
pub use lists::{Declared, Offered};
pub use remark::Remark;
pub use reply::{Body, BodyStream, Event, Reply};
pub use service::Addresses;
pub use subscribe::Subscription;

use breaker::{Breaker, Queue};
use detect::Live;
use pool::Pool;
use reply::{Admitted, Bounds};
use wire::MetaParts;

/// Sessions that serve one call at a time, over HTTP.
const EXCLUSIVE_HTTP: usize = 64;
/// Processes that serve one call at a time.
const EXCLUSIVE_STDIO: usize = 4;
/// Resource updates that wait for a slow reader.
const UPDATES: usize = 256;
/// Bytes of a completion, which is read whole: it has at most a hundred values (2026-07-28, server/utilities/completion).
const MOST_OF_COMPLETION: usize = 1 << 20;
/// No call is bounded by less than a subscription, which has no end.
const ENDLESS: Duration = Duration::from_secs(365 * 24 * 3600);

/// A request as the gateway wants it sent.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// What is asked.
    pub method: Method,
    /// The members of `params`, without braces and without `_meta`, already re-addressed.
    pub members: Bytes,
    /// The upstream's own name or URI of the thing, for `Mcp-Name`.
    pub name: Option<String>,
    /// The members of `_meta` that pass through, without braces.
    pub meta: Bytes,
    /// The context of the gateway's span.
    pub trace: Option<TraceContext>,
    /// What may be asked of the client during this call.
    pub capabilities: Capabilities,
    /// Log messages that the client wants.
    pub log_level: Option<LogLevel>,
    /// Ask for progress; its token is [`Reply::upstream_id`].
    pub wants_progress: bool,
    /// `Mcp-Param-*` of a modern call.
    pub param_headers: Vec<(HeaderName, HeaderValue)>,
    /// The client's era. The upstream is spoken to in the same one if it knows it.
    pub era: Era,
    /// For whom it is sent, towards a server of the mesh; without, only what an observer may know is answered there.
    pub assertion: Option<HeaderValue>,
    /// The legacy client's session.
    pub session: Option<Arc<SessionLink>>,
    /// A total deadline shorter than the configured one.
    pub deadline: Option<Duration>,
}

impl Outgoing {
    /// A request with nothing but its method and its `params` members.
    #[must_use]
    pub fn new(era: Era, method: Method, members: impl Into<Bytes>) -> Self {
        Self {
            method,
            members: members.into(),
            name: None,
            meta: Bytes::new(),
            trace: None,
            capabilities: Capabilities::default(),
            log_level: None,
            wants_progress: false,
            param_headers: Vec::new(),
            era,
            session: None,
            assertion: None,
            deadline: None,
        }
    }

    /// Whether it changes what its session hears of.
    fn subscribes(&self) -> bool {
        matches!(self.method, Method::ResourcesSubscribe | Method::ResourcesUnsubscribe)
    }

    fn parts(&self) -> MetaParts {
        MetaParts {
            pass: self.meta.clone(),
            trace: self.trace.clone(),
            capabilities: self.capabilities.raw().clone(),
            log_level: self.log_level,
            progress: self.wants_progress,
        }
    }
}

/// What all tasks of an upstream share.
struct Core {
    config: Config,
    deps: Deps,
    /// Tells this upstream from an earlier one of the same name.
    instance: u64,
    ids: AtomicU64,
    breaker: Breaker,
    queue: Queue,
    pool: Pool,
    /// Processes of legacy clients' sessions.
    own: own::Own,
    live: watch::Sender<Option<Arc<Live>>>,
    observation: watch::Sender<Arc<Observation>>,
    /// What it lists to clients that can be asked something.
    audiences: lists::Audiences,
    /// Rung by the server when a list has changed.
    changed: Arc<Notify>,
    /// Rung when what is known of the server's era no longer holds.
    doubted: Notify,
    /// Resource updates that came in no client's own session.
    updates: broadcast::Sender<Bytes>,
    /// Those that have, or had, a session of this upstream: it ends with it.
    links: Mutex<Vec<Weak<SessionLink>>>,
    /// What is subscribed to at a modern server.
    subscriptions: subscribe::Shared,
    /// Rung by us when the lists are to be read again now.
    refresh: Notify,
    /// An old SDK ended on the probe: later processes are not probed.
    exits_on_probe: std::sync::atomic::AtomicBool,
    stop: CancellationToken,
}

/// A server as attached. Calls of all gateways and clients share it.
pub struct Upstream {
    core: Arc<Core>,
    _stop: DropGuard,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("id", &self.core.config.id).finish_non_exhaustive()
    }
}

impl Upstream {
    /// Starts in the background: nobody waits for a slow server. Dropping the last handle, or
    /// [`Self::stop`], ends its tasks, sessions and processes. Must be called in a tokio runtime.
    #[must_use]
    pub fn start(config: Config, deps: Deps) -> Arc<Self> {
        static INSTANCES: AtomicU64 = AtomicU64::new(0);
        let exclusive =
            if matches!(config.endpoint, Endpoint::Workload) { EXCLUSIVE_STDIO } else { EXCLUSIVE_HTTP };
        let stop = CancellationToken::new();
        let core = Arc::new(Core {
            instance: INSTANCES.fetch_add(1, Ordering::Relaxed),
            // 0 and 1 belong to the handshake.
            ids: AtomicU64::new(2),
            breaker: Breaker::default(),
            queue: Queue::new(config.max_in_flight, config.timeouts.connect),
            pool: Pool::new(exclusive),
            own: own::Own::default(),
            live: watch::Sender::new(None),
            observation: watch::Sender::new(Arc::default()),
            audiences: lists::Audiences::default(),
            changed: Arc::default(),
            refresh: Notify::new(),
            doubted: Notify::new(),
            updates: broadcast::Sender::new(UPDATES),
            links: Mutex::default(),
            subscriptions: Mutex::default(),
            exits_on_probe: std::sync::atomic::AtomicBool::new(false),
            stop: stop.clone(),
            config,
            deps,
        });
        tokio::spawn(observe::run(Arc::clone(&core)));
        Arc::new(Self { core, _stop: stop.drop_guard() })
    }

    /// Takes no more calls and ends all sessions and processes that no call in flight uses.
    pub fn stop(&self) {
        self.core.stop.cancel();
    }

    /// The server's stable name.
    #[must_use]
    pub fn id(&self) -> &mcpmesh_ir::ServerId {
        &self.core.config.id
    }

    /// What the server offers and how it is. The last known lists stay when it goes away.
    #[must_use]
    pub fn observation(&self) -> watch::Receiver<Arc<Observation>> {
        self.core.observation.subscribe()
    }

    /// What the server lists to clients that declare this, in their era. Found out in the background, and kept up to
    /// date while a receiver lives.
    #[must_use]
    pub fn offered(&self, declared: Declared) -> watch::Receiver<Offered> {
        self.core.offered(declared)
    }

    /// Whole `notifications/resources/updated` messages that came in no client's own session: for
    /// subscriptions of clients that share one (a `resources/subscribe` sent without a
    /// [`SessionLink`], or with one that shares the process).
    #[must_use]
    pub fn updates(&self) -> broadcast::Receiver<Bytes> {
        self.core.updates.subscribe()
    }

    /// Whether it is reached over the mesh, where each request says for whom it is ([`Outgoing::assertion`]).
    #[must_use]
    pub fn is_of_mesh(&self) -> bool {
        matches!(self.core.config.endpoint, Endpoint::Service { mesh: Some(_), .. })
    }

    /// Asks for the lists to be read again soon.
    pub fn refresh(&self) {
        self.core.refresh.notify_one();
    }

    /// Sends a request. Returns once the upstream has begun to answer (or asks something); the
    /// call is cancelled when the future or the reply is dropped.
    ///
    /// # Errors
    /// When there will be no answer; JSON-RPC errors of the upstream are answers.
    pub async fn send(&self, request: Outgoing) -> Result<Reply, Error> {
        self.core.has_instance()?;
        let ticket = self.core.breaker.admit()?;
        let seat = self.core.queue.enter().await?;
        let total = self.core.config.timeouts.total;
        let total = request.deadline.map_or(total, |deadline| deadline.min(total));
        let mut call = Admitted { ticket: Some(ticket), _seat: Some(seat) };
        let mut bounds = self.core.bounds(total, false);
        if request.method == Method::CompletionComplete {
            bounds.max_bytes = bounds.max_bytes.min(MOST_OF_COMPLETION);
        }
        let outcome = self.core.attempt(&request, bounds).await;
        match outcome {
            Ok(mut reply) => {
                if reply.refused().is_none_or(|refused| !refused.status.is_server_error())
                    && reply.has_begun()
                {
                    call.settle(Ok(()));
                }
                reply.admit(call);
                Ok(reply)
            }
            Err(error) => {
                call.settle(Err(&error));
                if matches!(error.kind, Kind::Connect(_)) && self.core.live.borrow().is_some() {
                    // Find out now, not at the next poll, whether the server is gone.
                    self.core.changed.notify_one();
                }
                Err(error)
            }
        }
    }

    /// Subscribes to resources of a modern server, by its own URIs. The server's stream is shared with all whose
    /// `assertion` is the same, is opened in the background and again whenever it ends. Must be called in a runtime.
    #[must_use]
    pub fn subscribe(&self, uris: Vec<String>, assertion: Option<HeaderValue>) -> Subscription {
        self.core.subscribe(uris, assertion)
    }

    /// Takes over, in the background, what a legacy client subscribed to at an upstream of the same server that this
    /// one replaces.
    pub fn adopt(&self, session: &Arc<SessionLink>, assertion: Option<HeaderValue>) {
        self.core.adopt(session, assertion);
    }

    /// Sends a notification in a legacy client's session, opening none for it.
    ///
    /// # Errors
    /// When the session is gone.
    pub async fn notify(
        &self,
        session: &Arc<SessionLink>,
        method: &Method,
        params: &[u8],
    ) -> Result<(), Error> {
        match self.core.opened(session).await {
            Some(session) => session.answerer().send(wire::notification(method, params)).await,
            None => Ok(()),
        }
    }

    /// Sends a legacy client's whole answer to a request of the server's. The id must be the
    /// server's; [`Unsolicited::answerer`] and [`Reply::answerer`] do the same without a look-up.
    ///
    /// # Errors
    /// When the session is gone.
    pub async fn respond(&self, session: &Arc<SessionLink>, id: &Id, message: Bytes) -> Result<(), Error> {
        match self.core.opened(session).await {
            Some(session) => session.answerer().send(message).await,
            None => {
                tracing::debug!(?id, "an answer for a session that is gone");
                Err(Error::unsent(Kind::Reset))
            }
        }
    }
}

impl Core {
    fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    fn connect_deadline(&self) -> Instant {
        Instant::now() + self.config.timeouts.connect
    }

    fn bounds(&self, total: Duration, endless: bool) -> Bounds {
        let now = Instant::now();
        Bounds {
            first_byte: now + self.config.timeouts.first_byte,
            total: now + total,
            max_bytes: self.config.max_response_bytes,
            endless,
        }
    }

    /// Nobody waits for a Service without addresses.
    fn has_instance(&self) -> Result<(), Error> {
        match &self.config.endpoint {
            Endpoint::Service { addresses, .. } if addresses.is_empty() => {
                Err(Error::unsent(Kind::NoInstance))
            }
            _ => Ok(()),
        }
    }

    /// How the server is reached, as soon as that is known.
    async fn live(&self, until: Instant) -> Result<Arc<Live>, Error> {
        if let Some(live) = self.live.borrow().as_ref() {
            return Ok(Arc::clone(live));
        }
        let mut changes = self.live.subscribe();
        let known = tokio::select! {
            known = tokio::time::timeout_at(until, changes.wait_for(Option::is_some)) => known,
            () = self.stop.cancelled() => return Err(Error::unsent(Kind::Unavailable)),
        };
        match known {
            Ok(Ok(live)) => live.as_ref().map(Arc::clone).ok_or(Error::unsent(Kind::Unavailable)),
            Ok(Err(_)) => Err(Error::unsent(Kind::Unavailable)),
            Err(_) => Err(match &self.observation.borrow().state {
                State::Failed { reason, .. } => Error::still(reason),
                _ => Error::unsent(Kind::Timeout(Phase::Connect)),
            }),
        }
    }

    /// The server no longer speaks what it spoke: waits for what it speaks now.
    async fn find_out_again(&self, stale: &Arc<Live>) -> Result<Arc<Live>, Error> {
        let mut changes = self.live.subscribe();
        self.doubted.notify_one();
        let news = changes.wait_for(|live| live.as_ref().is_some_and(|live| !Arc::ptr_eq(live, stale)));
        match tokio::time::timeout_at(self.connect_deadline(), news).await {
            Ok(Ok(live)) => live.clone().ok_or(Error::unsent(Kind::Unavailable)),
            Ok(Err(_)) => Err(Error::unsent(Kind::Unavailable)),
            Err(_) => Err(Error::unsent(Kind::Timeout(Phase::Connect))),
        }
    }

    /// Sends a call, and once more where the first attempt is sure not to have run.
    async fn attempt(self: &Arc<Self>, request: &Outgoing, bounds: Bounds) -> Result<Reply, Error> {
        let live = self.live(self.connect_deadline().min(bounds.total)).await?;
        let Some((link, uri)) =
            request.session.as_ref().zip(request.name.as_deref()).filter(|_| request.subscribes())
        else {
            return self.attempt_on(&live, request, bounds).await;
        };
        if live.legacy.known().await.is_none() {
            return Box::pin(self.translate_subscription(link, uri, request)).await;
        }
        if request.method == Method::ResourcesUnsubscribe && self.is_shared_subscription(&live, link, uri) {
            link.subscribe(&self.config.id, uri, false);
            return Ok(self.agreed());
        }
        let reply = self.attempt_on(&live, request, bounds).await?;
        if reply.refused().is_none() {
            link.subscribe(&self.config.id, uri, request.method == Method::ResourcesSubscribe);
        }
        Ok(reply)
    }

    async fn attempt_on(
        self: &Arc<Self>,
        live: &Arc<Live>,
        request: &Outgoing,
        bounds: Bounds,
    ) -> Result<Reply, Error> {
        let mut headers = None;
        let mut live = Arc::clone(live);
        for last in [false, true] {
            let way = self.route(&live, request).await?;
            let session = way.session();
            let mut reply = way.call(self, request, headers.as_deref(), bounds).await?;
            match reply.begin(repeatable(&request.method)).await {
                Err(error) if !last && error.kind == Kind::Reset && repeatable(&request.method) => continue,
                // Nothing was sent: the address that the session lived at is gone, and the session with it.
                Err(Error { kind: Kind::Connect(_), .. })
                    if !last && session.as_ref().is_some_and(|session| session.lose_place()) =>
                {
                    continue;
                }
                begun => begun?,
            }
            let Some(refused) = reply.refused().filter(|_| !last) else { return Ok(reply) };
            let code = refused.error().map(|(_, code)| code);
            match (session, code) {
                (Some(session), code) if route::forgot(&session, refused.status, code) => {
                    session.lose();
                }
                (None, Some(HEADER_MISMATCH)) if request.method == Method::ToolsCall => {
                    headers = Some(self.fresh_headers(&live, request).await);
                }
                (None, Some(UNSUPPORTED_VERSION)) if request.method != Method::ServerDiscover => {
                    live = Box::pin(self.find_out_again(&live)).await?;
                }
                _ => return Ok(reply),
            }
            reply.set_aside();
        }
        Err(Error::unsent(Kind::Unavailable))
    }
}

/// Only a tool may do something that must not be done twice: everything else reads.
fn repeatable(method: &Method) -> bool {
    *method != Method::ToolsCall
}
