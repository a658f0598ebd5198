//! Where the messages of one upstream session go: to the call that they belong to, to the legacy
//! client whose session it is, to the observer, or nowhere.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use mcpmesh_ir::ServerId;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, mpsc, oneshot};

use super::channel::Frame;
use super::error::{Error, Kind};
use super::http::HttpLine;
use super::reply::{Body, Event};
use super::wire::{self, Said};
use crate::mcp::envelope::{Id, Method};
use crate::mcp::fault::METHOD_NOT_FOUND;

/// Events that wait for a slow reader of one call before notifications are dropped.
const PER_CALL: usize = 64;

/// Most bytes of a notification or request that may wait: many can, responses come one for each call.
const MAX_ASIDE: usize = 1 << 20;

/// Something that a server said outside of any call.
#[derive(Debug)]
pub struct Unsolicited {
    /// Who said it.
    pub server: ServerId,
    /// A notification or a request; never a response.
    pub event: Event,
    /// Answers a request.
    pub answerer: Answerer,
}

/// Sends answers (or other messages) back over the session that asked.
#[derive(Debug, Clone)]
pub struct Answerer(pub(crate) Back);

/// The ways back.
#[derive(Debug, Clone)]
pub(crate) enum Back {
    /// A process or an HTTP+SSE connection.
    Channel(mpsc::Sender<Frame>),
    /// A Streamable HTTP session.
    Http(Arc<HttpLine>),
    /// None: a modern server's stream has none.
    Nobody,
}

impl Answerer {
    /// Sends one whole JSON-RPC message (a response, or a notification).
    ///
    /// # Errors
    /// When the session is gone.
    pub async fn send(&self, message: Bytes) -> Result<(), Error> {
        match &self.0 {
            Back::Channel(out) => {
                let frame = Frame { call: None, body: message };
                out.send(frame).await.map_err(|_| Error::unsent(Kind::Reset))
            }
            Back::Http(line) => line.say(message).await,
            Back::Nobody => Err(Error::unsent(Kind::Unavailable)),
        }
    }

    /// Whether both lead to the same session.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Back::Channel(one), Back::Channel(other)) => one.same_channel(other),
            (Back::Http(one), Back::Http(other)) => Arc::ptr_eq(one, other),
            (Back::Channel(_) | Back::Http(_) | Back::Nobody, _) => false,
        }
    }

    /// Sends without waiting; for refusals and cancellations that nobody waits for.
    pub(crate) fn send_detached(&self, message: Bytes) {
        match &self.0 {
            Back::Channel(out) => {
                // A full pipe to a server that does not read loses only courtesy; so does a session below.
                let _ = out.try_send(Frame { call: None, body: message });
            }
            Back::Http(line) => {
                let said = Arc::clone(line);
                line.aside(async move { drop(said.say(message).await) });
            }
            Back::Nobody => {}
        }
    }
}

/// Who hears what belongs to no call.
#[derive(Debug, Clone)]
pub(crate) enum Owner {
    /// One legacy client's session.
    Link(mpsc::Sender<Unsolicited>),
    /// Nobody: a session that calls of several clients share, or the observer's.
    Shared {
        /// Has it declared roots?
        roots: bool,
        /// Where resource updates go: any client may have asked for them.
        updates: broadcast::Sender<Bytes>,
    },
}

#[derive(Debug)]
struct Entry {
    notes: mpsc::Sender<Event>,
    answer: Option<oneshot::Sender<Result<Bytes, Error>>>,
}

/// What one session's readers hand their messages to.
#[derive(Debug)]
pub(crate) struct Inbox {
    server: ServerId,
    owner: Owner,
    /// Rung when a list has changed.
    changed: Arc<Notify>,
    calls: Mutex<HashMap<u64, Entry>>,
    /// The server is modern: what it asks is left without an answer (2026-07-28, basic/transports/stdio: a client writes
    /// no responses).
    unanswering: AtomicBool,
}

/// The listening end of one call; dropping it forgets the call.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) id: u64,
    pub(crate) notes: mpsc::Receiver<Event>,
    pub(crate) answer: Option<oneshot::Receiver<Result<Bytes, Error>>>,
    inbox: Arc<Inbox>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.inbox.calls.lock().remove(&self.id);
    }
}

impl Inbox {
    pub(crate) fn new(server: ServerId, owner: Owner, changed: Arc<Notify>) -> Arc<Self> {
        let (calls, unanswering) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { server, owner, changed, calls, unanswering })
    }

    /// From here on nothing that the server asks is answered.
    pub(crate) fn answer_nothing(&self) {
        self.unanswering.store(true, Ordering::Relaxed);
    }

    /// Expects messages for a call. `answered` says whether its answer comes this way, too.
    pub(crate) fn listen(self: &Arc<Self>, id: u64, answered: bool) -> Listening {
        let (notes, hear) = mpsc::channel(PER_CALL);
        let (answer, answer_hear) = oneshot::channel();
        let entry = Entry { notes, answer: answered.then_some(answer) };
        self.calls.lock().insert(id, entry);
        Listening { id, notes: hear, answer: answered.then_some(answer_hear), inbox: Arc::clone(self) }
    }

    /// Ends all calls that wait for an answer this way.
    pub(crate) fn fail_all(&self, error: &Error) {
        for (_, entry) in self.calls.lock().drain() {
            if let Some(answer) = entry.answer {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }

    /// A message was too large to be read: if one call waits, it was its answer.
    pub(crate) fn too_large(&self) {
        tracing::warn!(server = %self.server, "discarded a message that is too large");
        // A statement of its own: a lock taken in the condition would be held in the body.
        let only = self.only_waiting(&self.calls.lock());
        if let Some(id) = only {
            self.fail(id, Error::sent(Kind::TooLarge));
        }
    }

    /// Says that a list may have changed.
    pub(crate) fn ring(&self) {
        self.changed.notify_one();
    }

    fn only_waiting(&self, calls: &HashMap<u64, Entry>) -> Option<u64> {
        let mut waiting = calls.iter().filter(|(_, entry)| entry.answer.is_some()).map(|(id, _)| *id);
        waiting.next().filter(|_| waiting.next().is_none())
    }

    /// Ends one call.
    pub(crate) fn fail(&self, id: u64, error: Error) {
        if let Some(answer) = self.calls.lock().remove(&id).and_then(|entry| entry.answer) {
            let _ = answer.send(Err(error));
        }
    }

    /// Takes one message that came outside of an HTTP response to a call.
    pub(crate) fn receive(&self, raw: Bytes, answerer: &Answerer) {
        match wire::look(&raw) {
            None => {
                tracing::debug!(server = %self.server, bytes = raw.len(), "skipped what is no JSON-RPC message");
            }
            Some(Said::Response(id)) => self.answered(id, raw),
            Some(Said::Request(_, method)) if self.unanswering.load(Ordering::Relaxed) => {
                tracing::warn!(server = %self.server, method = method.label(), "a modern server sent a request");
            }
            Some(Said::Request(id, _)) if raw.len() > MAX_ASIDE => {
                answerer.send_detached(wire::refusal(&id, -32603, "the request is too large"));
            }
            Some(Said::Notification(..)) if raw.len() > MAX_ASIDE => {
                tracing::debug!(server = %self.server, "dropped a notification that is too large");
            }
            Some(Said::Request(id, method)) => self.asked(&id, &method, raw, answerer),
            Some(Said::Notification(method, call)) => self.notified(&method, call, raw, answerer),
        }
    }

    /// An answer without a readable id can only be told apart while one call waits.
    fn answered(&self, id: Option<u64>, raw: Bytes) {
        let mut calls = self.calls.lock();
        let id = id.or_else(|| self.only_waiting(&calls));
        let answer = id.and_then(|id| calls.remove(&id)).and_then(|entry| entry.answer);
        drop(calls);
        match answer {
            Some(answer) => drop(answer.send(Ok(raw))),
            None => tracing::debug!(server = %self.server, "dropped an answer to no open call"),
        }
    }

    /// Answers what needs nobody, and rings for changed lists. `None` when that was all.
    pub(crate) fn settle_locally(&self, event: Event, answerer: &Answerer) -> Option<Event> {
        match &event {
            Event::Request { id, method: Method::Ping, .. } => {
                answerer.send_detached(wire::result(id, b"{}"));
                None
            }
            Event::Notification {
                method:
                    Method::NotificationsToolsListChanged
                    | Method::NotificationsPromptsListChanged
                    | Method::NotificationsResourcesListChanged,
                ..
            } => {
                self.changed.notify_one();
                None
            }
            _ => Some(event),
        }
    }

    fn asked(&self, id: &Id, method: &Method, raw: Bytes, answerer: &Answerer) {
        let event = Event::Request { id: id.clone(), method: method.clone(), raw };
        let Some(event) = self.settle_locally(event, answerer) else { return };
        let Err(event) = self.hand_to_only_call(event) else { return };
        match &self.owner {
            Owner::Link(inbox) => {
                let said = Unsolicited { server: self.server.clone(), event, answerer: answerer.clone() };
                if inbox.try_send(said).is_err() {
                    answerer.send_detached(wire::refusal(id, -32603, "the client does not listen"));
                }
            }
            Owner::Shared { roots: true, .. } if *method == Method::RootsList => {
                answerer.send_detached(wire::result(id, br#"{"roots":[]}"#));
            }
            Owner::Shared { .. } => {
                answerer.send_detached(wire::refusal(id, METHOD_NOT_FOUND, "Method not found"));
            }
        }
    }

    fn notified(&self, method: &Method, call: Option<u64>, raw: Bytes, answerer: &Answerer) {
        let event = Event::Notification { method: method.clone(), raw };
        if let Some(call) = call {
            if let Some(entry) = self.calls.lock().get(&call) {
                // Late and lost progress is no harm.
                let _ = entry.notes.try_send(event);
            }
            return;
        }
        if *method == Method::NotificationsProgress {
            return;
        }
        let Some(event) = self.settle_locally(event, answerer) else { return };
        if let (Owner::Shared { updates, .. }, Method::NotificationsResourcesUpdated) = (&self.owner, method)
        {
            if let Event::Notification { raw, .. } = event {
                let _ = updates.send(raw);
            }
            return;
        }
        let Err(event) = self.hand_to_only_call(event) else { return };
        // With more than one call open nobody knows whose it is: dropped where nobody owns the session.
        if let Owner::Link(inbox) = &self.owner {
            let said = Unsolicited { server: self.server.clone(), event, answerer: answerer.clone() };
            let _ = inbox.try_send(said);
        }
    }

    fn hand_to_only_call(&self, event: Event) -> Result<(), Event> {
        let calls = self.calls.lock();
        let mut open = calls.values();
        match (open.next(), open.next()) {
            (Some(entry), None) => entry.notes.try_send(event).map_err(|unsent| match unsent {
                mpsc::error::TrySendError::Full(event) | mpsc::error::TrySendError::Closed(event) => event,
            }),
            _ => Err(event),
        }
    }
}

/// A response as an event.
pub(crate) fn response(raw: Bytes) -> Event {
    Event::Response(Body::Whole(raw))
}
