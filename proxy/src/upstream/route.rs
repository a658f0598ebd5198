//! Which way a call takes: its era, and the session that carries it.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

use super::catalogue::Item;
use super::channel::Channel;
use super::config::{Connected, Timeouts};
use super::detect::{Live, Wire};
use super::error::{Error, Kind};
use super::http::{Http, modern_headers};
use super::inbox::{Inbox, Owner};
use super::link::SessionLink;
use super::own::{Room, Stay};
use super::pool::{Key, Lease};
use super::reply::{Bounds, Reply};
use super::session::{Profile, Session, Slot};
use super::wire;
use super::{Core, Outgoing, legacy_sse, stdio};
use crate::identity::assertion;
use crate::mcp::envelope::Method;
use crate::mcp::era::Era;
use crate::mcp::fault::METHOD_NOT_FOUND;
use crate::mcp::header::ParamHeaders;
use crate::mcp::json;
use crate::mcp::meta::CapabilitySet;

/// What only a session of its own can be asked.
const ASKABLE: [CapabilitySet; 4] = [
    CapabilitySet::ROOTS,
    CapabilitySet::SAMPLING,
    CapabilitySet::ELICITATION_FORM,
    CapabilitySet::ELICITATION_URL,
];

/// Whether the client of this session may be asked in the middle of a call, or subscribes in it.
fn needs_session(link: &SessionLink, request: &Outgoing) -> bool {
    is_askable(link.capabilities.set()) || request.subscribes()
}

pub(super) fn is_askable(set: CapabilitySet) -> bool {
    ASKABLE.iter().any(|one| set.contains(*one))
}

/// Did the server forget the session? 404, which a JSON-RPC "method not found" may use, too; some
/// servers say 400 with a code of their own to a session that they don't know.
pub(super) fn forgot(session: &Session, status: StatusCode, code: Option<i64>) -> bool {
    /// What TypeScript servers answer to a session from before their restart.
    const BAD_SESSION: i64 = -32000;
    session.has_id()
        && match status {
            StatusCode::NOT_FOUND => code != Some(METHOD_NOT_FOUND),
            StatusCode::BAD_REQUEST => code == Some(BAD_SESSION),
            _ => false,
        }
}

/// A way to the server.
pub(super) enum Way {
    /// One HTTP request, no session.
    Modern(Arc<Http>),
    /// In a session, legacy or a modern process.
    Session(Lease),
}

impl Way {
    /// The legacy session, which the server may forget.
    pub(super) fn session(&self) -> Option<Arc<Session>> {
        match self {
            Self::Modern(_) => None,
            Self::Session(lease) => Some(Arc::clone(&lease.session)),
        }
    }

    pub(super) async fn call(
        self,
        core: &Core,
        request: &Outgoing,
        headers: Option<&[(HeaderName, HeaderValue)]>,
        bounds: Bounds,
    ) -> Result<Reply, Error> {
        let id = core.next_id();
        let era = match &self {
            Self::Modern(_) => Era::Modern,
            Self::Session(lease) => lease.session.era,
        };
        let body = wire::request(id, &request.method, &request.members, &request.parts(), era);
        match self {
            Self::Modern(http) => {
                let params = headers.unwrap_or(&request.param_headers);
                let mut headers = modern_headers(request.method.as_str(), request.name.as_deref(), params);
                headers.extend(request.assertion.clone().map(|assertion| (assertion::HEADER, assertion)));
                if let Some(trace) = &request.trace {
                    trace.put(&mut headers);
                }
                Ok(Reply::modern_http(id, Box::pin(async move { http.post(headers, body).await }), bounds))
            }
            Self::Session(lease) => {
                let reply = lease.session.call_in((id, request.trace.as_ref()), body, bounds).await?;
                Ok(reply.with_lease(Some(lease)))
            }
        }
    }
}

impl Core {
    /// The same era as the client's whenever the server speaks it.
    pub(super) async fn route(self: &Arc<Self>, live: &Arc<Live>, request: &Outgoing) -> Result<Way, Error> {
        // A server of the mesh speaks both: a session there belongs to one caller, and only what needs one opens it.
        let needs = match &request.session {
            Some(link) => needs_session(link, request),
            // Lists for legacy clients that can be asked: their sidecar must see what they declare.
            None => request.era == Era::Legacy && is_askable(request.capabilities.set()),
        };
        let sessionless = live.of_mesh && !needs;
        // A legacy client's call waits until it is known whether it gets a session: what a server keeps in it begins
        // with the first call.
        let modern = live.modern.is_some()
            && (request.era == Era::Modern || sessionless || live.legacy.known().await.is_none());
        if modern {
            return Ok(match &live.wire {
                Wire::Http(http) => Way::Modern(Arc::clone(http)),
                Wire::Sse(_, session) | Wire::Stdio(session) => {
                    Way::Session(Lease::shared(Arc::clone(session)))
                }
            });
        }
        match &request.session {
            Some(link) => self.linked(live, link, request.assertion.as_ref()).await.map(Way::Session),
            None => self.pooled(live, request).await.map(Way::Session),
        }
    }

    /// The session that belongs to a legacy client's own.
    pub(super) async fn linked(
        self: &Arc<Self>,
        live: &Arc<Live>,
        link: &Arc<SessionLink>,
        assertion: Option<&HeaderValue>,
    ) -> Result<Lease, Error> {
        let lease = self.link_session(live, link, assertion).await?;
        self.hear(link, &lease.session).await;
        self.renew(link, &lease.session, assertion);
        Ok(lease)
    }

    async fn link_session(
        self: &Arc<Self>,
        live: &Arc<Live>,
        link: &Arc<SessionLink>,
        assertion: Option<&HeaderValue>,
    ) -> Result<Lease, Error> {
        let (slot, _) = self.know(link);
        if let (Wire::Stdio(shared), false) = (&live.wire, is_askable(link.capabilities.set())) {
            return Ok(Lease::shared(Arc::clone(shared)));
        }
        let owner = link.inbox.clone().map_or_else(|| self.shared(false), Owner::Link);
        // What the gateway says of the caller may have changed since: then it is not the same session any more.
        slot.lock().await.take_if(|session| session.assertion() != assertion);
        let profile = Profile { assertion: assertion.cloned(), ..link.profile() };
        let opening = async {
            let room = match live.wire {
                Wire::Stdio(_) => Some(self.room(link).await?),
                Wire::Http(_) | Wire::Sse(..) => None,
            };
            let stay = room.as_ref().map(Stay::of);
            let session = self.open(live, owner, profile, room).await?;
            Ok(session.stays(stay))
        };
        let lease = self.in_slot(&slot, opening).await?;
        // A call that was refused is no use of what it did not get.
        link.uses(self.instance);
        Ok(lease)
    }

    /// A session for a client that has none.
    async fn pooled(self: &Arc<Self>, live: &Arc<Live>, request: &Outgoing) -> Result<Lease, Error> {
        let set = request.capabilities.set();
        let profile =
            Profile { capabilities: request.capabilities.raw().clone(), info: None, assertion: None };
        let owner = self.shared(set.contains(CapabilitySet::ROOTS));
        let opening = async { self.open(live, owner, profile, None).await };
        let mut lease = if is_askable(set) {
            let key = Key { capabilities: set, log_level: request.log_level };
            self.pool.lend(key, self.config.timeouts.connect, opening).await?
        } else if let Some(shared) = live.shared() {
            Lease::shared(Arc::clone(shared))
        } else {
            // Nothing that can be asked: one session serves all, whatever else they declare.
            let key = Key { log_level: request.log_level, ..Key::plain() };
            self.in_slot(&self.pool.slot(key), opening).await?
        };
        let listener = Box::pin(self.listen_in(&lease.session, request.log_level)).await;
        lease.hears(listener);
        Ok(lease)
    }

    async fn in_slot<F>(&self, slot: &Slot, opening: F) -> Result<Lease, Error>
    where
        F: Future<Output = Result<Session, Error>>,
    {
        let mut place = slot.lock().await;
        // Before another is opened: a dead one holds the room that the other takes.
        place.take_if(|session| session.is_dead());
        if let Some(session) = &*place {
            return Ok(Lease::shared(Arc::clone(session)));
        }
        let session = Arc::new(opening.await?);
        *place = Some(Arc::clone(&session));
        Ok(Lease::shared(session))
    }

    /// The owner of a session that is nobody's own.
    pub(super) fn shared(&self, roots: bool) -> Owner {
        Owner::Shared { roots, updates: self.updates.clone() }
    }

    pub(super) fn inbox(&self, owner: Owner) -> Arc<Inbox> {
        Inbox::new(self.config.id.clone(), owner, Arc::clone(&self.changed))
    }

    /// Opens a legacy session of its own. Boxed: most calls find one open, and need not carry the room for this.
    fn open<'a>(
        self: &'a Arc<Self>,
        live: &'a Arc<Live>,
        owner: Owner,
        profile: Profile,
        room: Option<Arc<Room>>,
    ) -> BoxFuture<'a, Result<Session, Error>> {
        Box::pin(self.open_now(live, owner, profile, room))
    }

    async fn open_now(
        self: &Arc<Self>,
        live: &Arc<Live>,
        owner: Owner,
        profile: Profile,
        room: Option<Arc<Room>>,
    ) -> Result<Session, Error> {
        let inbox = self.inbox(owner);
        let Timeouts { first_byte, .. } = self.config.timeouts;
        let start = self.config.timeouts.start();
        match &live.wire {
            Wire::Http(http) => {
                let opened = Session::open_http(http, inbox, &profile).await;
                opened.map_err(super::session::NotOpened::into_error)
            }
            Wire::Sse(http, _) => {
                let channel = legacy_sse::connect(http, inbox).await?;
                Session::open_channel(channel, &profile, first_byte).await
            }
            Wire::Stdio(_) => match self.connect(&inbox, room).await? {
                Started::Process(channel) => Session::open_channel(channel, &profile, start).await,
                Started::Port(..) => Err(Error::unsent(Kind::Unavailable)),
            },
        }
    }

    /// Starts the workload. A process keeps `room` until it has ended, whoever still wants it.
    pub(super) async fn connect(
        &self,
        inbox: &Arc<Inbox>,
        room: Option<Arc<Room>>,
    ) -> Result<Started, Error> {
        let connector = self.deps.connector.as_ref();
        let connector = connector.ok_or_else(|| Error::connect("nothing here may start this server"))?;
        let connecting =
            tokio::time::timeout(self.config.timeouts.connect, connector.connect(&self.config.id)).await;
        let connected = connecting.map_err(|_| Error::unsent(Kind::Timeout(super::Phase::Connect)))?;
        match connected.map_err(|error| Error::connect(error.0))? {
            Connected::Stdio { stdin, stdout, guard, ended } => {
                let keep = (guard, room.map(|room| room.held_until(ended)));
                let incoming = stdio::incoming(stdout, self.config.max_response_bytes);
                let writer = stdio::LineWriter(stdin);
                Ok(Started::Process(Channel::start(incoming, writer, Arc::clone(inbox), keep)))
            }
            Connected::Http { url, guard } => Ok(Started::Port(url, guard)),
        }
    }

    /// The upstream session of a link, if there is one.
    pub(super) async fn opened(&self, link: &SessionLink) -> Option<Arc<Session>> {
        let session = link.slot(self.instance)?.lock().await.clone();
        session.filter(|session| !session.is_dead())
    }

    pub(super) async fn listen(
        &self,
        live: &Live,
        filter: &[u8],
        assertion: Option<HeaderValue>,
    ) -> Result<Reply, Error> {
        if live.modern.is_none() {
            return Err(Error::unsent(Kind::Unavailable));
        }
        let members = [b"\"notifications\":", filter].concat();
        let mut request = Outgoing::new(Era::Modern, Method::SubscriptionsListen, members);
        request.assertion = assertion;
        let way = match &live.wire {
            Wire::Http(http) => Way::Modern(Arc::clone(http)),
            Wire::Sse(_, session) | Wire::Stdio(session) => Way::Session(Lease::shared(Arc::clone(session))),
        };
        let mut reply = way.call(self, &request, None, self.bounds(super::ENDLESS, true)).await?;
        reply.begin(false).await?;
        Ok(reply)
    }

    /// The server found our headers wrong: its schema may have changed since it was listed.
    /// Boxed, since reading a list is a call, too.
    pub(super) fn fresh_headers<'a>(
        self: &'a Arc<Self>,
        live: &'a Arc<Live>,
        request: &'a Outgoing,
    ) -> BoxFuture<'a, Vec<(HeaderName, HeaderValue)>> {
        Box::pin(async move {
            if let Err(error) = self.refresh_lists(live).await {
                tracing::debug!(server = %self.config.id, %error, "could not refresh the tools after a header mismatch");
            }
            let observation = self.observation.borrow().clone();
            let tool = observation.lists.tools.iter().find(|tool| Some(&tool.key) == request.name.as_ref());
            tool.and_then(|tool| param_headers(tool, &request.members)).unwrap_or_default()
        })
    }
}

fn param_headers(tool: &Item, members: &[u8]) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let headers = ParamHeaders::from_schema(json::member(&tool.raw, "inputSchema")?).ok()?;
    let object = [b"{", members, b"}"].concat();
    Some(headers.build(json::member(&object, "arguments")))
}

/// What a connector brought.
pub(super) enum Started {
    Process(Channel),
    Port(url::Url, super::Guard),
}
