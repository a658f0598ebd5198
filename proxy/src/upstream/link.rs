//! What a legacy client's session is at the upstreams: the sessions that serve it there, and what it is subscribed to.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mcpmesh_ir::ServerId;
use parking_lot::Mutex;
use tokio::sync::{MutexGuard, mpsc};
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

use super::inbox::Unsolicited;
use super::level::Listener;
use super::session::{Epoch, Profile, Session, Slot};
use crate::mcp::meta::{Capabilities, LogLevel};

/// One legacy client's session, as upstreams see it. Each upstream session of it is opened when it
/// is first needed; dropping the link ends them all.
pub struct SessionLink {
    /// Whose it is.
    pub(crate) caller: Arc<str>,
    pub(crate) capabilities: Capabilities,
    pub(crate) client_info: Option<Bytes>,
    pub(crate) inbox: Option<mpsc::Sender<Unsolicited>>,
    places: Mutex<HashMap<u64, Place>>,
    subscribed: Mutex<BTreeSet<(ServerId, String)>>,
    log_level: Mutex<Option<LogLevel>>,
}

/// A session by its number, and the level from which on log messages are wanted in it.
pub(crate) type Heard = (u64, LogLevel);

/// What a link has at one upstream.
#[derive(Default)]
struct Place {
    slot: Arc<Slot>,
    /// Whether a call of the client's has gone there, or a subscription has moved there.
    known: bool,
    /// Since when its subscriptions are in force.
    epoch: Option<Epoch>,
    /// For whom it was last used, towards a server of the mesh.
    assertion: Option<http::HeaderValue>,
    /// What it listens to where the server is modern only; dropping one ends it.
    listens: HashMap<String, DropGuard>,
    /// Where it listens to log messages; there is no listener where the server sends none.
    heard: Option<(Heard, Option<Listener>)>,
    /// When a call last went there.
    used: Option<Instant>,
}

impl Place {
    /// Its session where that is a process of the link's own that nobody uses at the moment.
    fn unused(&self) -> Option<MutexGuard<'_, Option<Arc<Session>>>> {
        let session = self.slot.try_lock().ok()?;
        let unused = |session: &Arc<Session>| session.is_own_process() && Arc::strong_count(session) == 1;
        session.as_ref().is_some_and(unused).then_some(session)
    }
}

impl std::fmt::Debug for SessionLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionLink").field("upstreams", &self.places.lock().len()).finish_non_exhaustive()
    }
}

impl SessionLink {
    /// A link of this caller (a principal) without upstream sessions. `client_info`, if given, is shown to legacy upstreams in
    /// place of the gateway's own. What a server says outside of any call goes to `inbox`; when it
    /// is full, notifications are dropped and requests refused.
    #[must_use]
    pub fn new(
        caller: &str,
        capabilities: Capabilities,
        client_info: Option<Bytes>,
        inbox: mpsc::Sender<Unsolicited>,
    ) -> Arc<Self> {
        Arc::new(Self {
            caller: caller.into(),
            capabilities,
            client_info,
            inbox: Some(inbox),
            places: Mutex::default(),
            subscribed: Mutex::default(),
            log_level: Mutex::default(),
        })
    }

    /// The level that the client set, if it set one.
    #[must_use]
    pub fn log_level(&self) -> Option<LogLevel> {
        *self.log_level.lock()
    }

    /// The client sets a level: what is asked in its name from now on is told first ([`super::Upstream::tell_level`]).
    pub fn set_log_level(&self, level: LogLevel) {
        *self.log_level.lock() = Some(level);
    }

    /// Whether it listens there; it no longer does anywhere else.
    pub(crate) fn hears(&self, upstream: u64, heard: Heard) -> bool {
        let mut places = self.places.lock();
        let Some(place) = places.get_mut(&upstream) else { return false };
        place.heard.take_if(|(now, _)| *now != heard);
        place.heard.is_some()
    }

    /// It listens there.
    pub(crate) fn hear(&self, upstream: u64, heard: (Heard, Option<Listener>)) {
        self.places.lock().entry(upstream).or_default().heard = Some(heard);
    }

    /// A call goes to this upstream.
    pub(crate) fn uses(&self, upstream: u64) {
        self.places.lock().entry(upstream).or_default().used = Some(Instant::now());
    }

    /// For how long it did not use the process that it has of its own; none where it has none, uses it right now, or
    /// hears in it of what it subscribed to.
    pub(crate) fn unused(&self, upstream: u64) -> Option<Duration> {
        let places = self.places.lock();
        let place = places.get(&upstream).filter(|_| !self.has_subscriptions())?;
        place.unused().and(place.used).map(|used| used.elapsed())
    }

    /// Ends that process. The next call starts another. Says whether there was one.
    pub(crate) fn end_process(&self, upstream: u64) -> bool {
        let places = self.places.lock();
        let unused = places.get(&upstream).and_then(Place::unused);
        unused.is_some_and(|mut session| session.take().is_some())
    }

    /// The client has been away for a while: ends the processes that it has of its own, but where it subscribed to
    /// something. The next calls start others.
    pub fn rest(&self) {
        if self.has_subscriptions() {
            return;
        }
        for place in self.places.lock().values() {
            if let Some(mut session) = place.unused() {
                session.take();
            }
        }
    }

    /// Whether it has used this upstream.
    pub(crate) fn knows(&self, upstream: u64) -> bool {
        self.places.lock().get(&upstream).is_some_and(|place| place.known)
    }

    /// Remembers, or forgets, that the client subscribed to this resource of this server: a session that takes the
    /// place of a lost one does it again.
    pub(crate) fn subscribe(&self, server: &ServerId, uri: &str, wanted: bool) {
        let resource = (server.clone(), uri.to_owned());
        let mut subscribed = self.subscribed.lock();
        if wanted {
            subscribed.insert(resource)
        } else {
            subscribed.remove(&resource)
        };
    }

    /// The resources of this server that the client wants to hear of.
    pub(crate) fn subscribed(&self, server: &ServerId) -> Vec<String> {
        let subscribed = self.subscribed.lock();
        subscribed.iter().filter(|(of, _)| of == server).map(|(_, uri)| uri.clone()).collect()
    }

    /// Whether the client subscribed to anything.
    #[must_use]
    pub fn has_subscriptions(&self) -> bool {
        !self.subscribed.lock().is_empty()
    }

    /// Whether the client wants to hear of this resource: it subscribed to it, or to one that holds it
    /// (2025-11-25, server/resources: an update may concern a sub-resource).
    #[must_use]
    pub fn is_subscribed(&self, server: &ServerId, uri: &str) -> bool {
        self.subscribed.lock().iter().any(|(of, wanted)| of == server && uri.starts_with(wanted.as_str()))
    }

    /// The client uses this upstream from now on: the place of its session there, and whether that is news.
    pub(crate) fn know(&self, upstream: u64) -> (Arc<Slot>, bool) {
        let mut places = self.places.lock();
        let place = places.entry(upstream).or_default();
        let new = !std::mem::replace(&mut place.known, true);
        (Arc::clone(&place.slot), new)
    }

    /// The place of this upstream's session, if there is one.
    pub(crate) fn slot(&self, upstream: u64) -> Option<Arc<Slot>> {
        self.places.lock().get(&upstream).map(|place| Arc::clone(&place.slot))
    }

    /// Notes which session serves this link at an upstream, and for whom. Says whether what the last one heard has an
    /// end.
    pub(crate) fn moves(&self, upstream: u64, epoch: Epoch, assertion: Option<&http::HeaderValue>) -> bool {
        let mut places = self.places.lock();
        let place = places.entry(upstream).or_default();
        place.assertion = assertion.cloned();
        place.epoch.replace(epoch) != Some(epoch)
    }

    /// Its subscriptions at this upstream are not in force.
    pub(crate) fn unsettle(&self, upstream: u64) {
        if let Some(place) = self.places.lock().get_mut(&upstream) {
            place.epoch = None;
        }
    }

    /// For whom the upstream will be used.
    pub(crate) fn assert(&self, upstream: u64, assertion: Option<http::HeaderValue>) {
        self.places.lock().entry(upstream).or_default().assertion = assertion;
    }

    /// For whom the upstream was last used.
    pub(crate) fn assertion(&self, upstream: u64) -> Option<http::HeaderValue> {
        self.places.lock().get(&upstream).and_then(|place| place.assertion.clone())
    }

    /// Whether it listens to this resource of a modern server.
    pub(crate) fn listens(&self, upstream: u64, uri: &str) -> bool {
        self.places.lock().get(&upstream).is_some_and(|place| place.listens.contains_key(uri))
    }

    /// Begins or ends to listen.
    pub(crate) fn listen(&self, upstream: u64, uri: &str, until: Option<DropGuard>) {
        let mut places = self.places.lock();
        let listens = &mut places.entry(upstream).or_default().listens;
        match until {
            Some(until) => listens.insert(uri.to_owned(), until),
            None => listens.remove(uri),
        };
    }

    pub(crate) fn profile(&self) -> Profile {
        Profile {
            capabilities: self.capabilities.raw().clone(),
            info: self.client_info.clone(),
            assertion: None,
        }
    }
}
