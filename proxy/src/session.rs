//! Sessions of legacy clients: what `initialize` settled, the calls in flight, the server's questions that wait
//! for an answer, and the event streams (2025-11-25, basic/lifecycle and basic/transports).
//!
//! A session lives on the process that opened it, which finds it by its id. The id is a sealed handle, so that nobody can
//! make one up; possession is not authentication: every request is authenticated and compared with the session's owner.

mod relay;
mod stream;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

pub use relay::Relay;
pub use stream::EventStream;

use crate::mcp::envelope::{Id, IdValue};
use crate::mcp::era::Revision;
use crate::mcp::json;
use crate::mcp::meta::{Capabilities, LogLevel};
use crate::metrics::Open;
use crate::upstream::{Answerer, SessionLink};

/// Questions of one server that may wait for one client's answers.
const MOST_ASKED: usize = 256;
/// Streams of one session that can still be resumed.
const KEPT_STREAMS: usize = 32;

/// What a session is for, fixed when it opens.
pub struct Terms {
    /// The sealed id.
    pub id: String,
    /// When the id is over, in seconds since 1970, however busy the session is: as its seal says.
    pub expires: u64,
    /// The negotiated revision.
    pub revision: Revision,
    /// [`mcpmesh_ir::policy::Identity::principal`] of the owner.
    pub principal: String,
    /// What the client declared.
    pub capabilities: Capabilities,
}

/// One session.
pub struct Session {
    /// See [`Terms`].
    pub terms: Terms,
    /// Its sessions at the upstreams.
    pub link: Arc<SessionLink>,
    /// What the server says outside any call; numbered 0.
    pub outbox: Arc<EventStream>,
    /// `notifications/roots/list_changed` on its way to the servers.
    pub roots: Relay,
    /// `logging/setLevel` on its way to them.
    pub level: Relay,
    calls: Mutex<HashMap<IdValue, CancellationToken>>,
    /// By the number in the id that we gave.
    asked: Mutex<BTreeMap<u64, Asked>>,
    streams: Mutex<Vec<Arc<EventStream>>>,
    numbers: AtomicU64,
    seen: Mutex<Instant>,
    ended: CancellationToken,
    _open: Open,
}

/// A question of a server that waits for the client's answer.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The way back.
    pub answerer: Answerer,
    /// The id under which the server asked.
    pub id: Id,
    /// The token, JSON text, under which the server wants to hear of progress.
    pub progress: Option<Bytes>,
}

/// The id of ours for a question.
fn given(number: u64) -> Id {
    Id::from_json(Bytes::from(format!("\"gw-{number}\""))).unwrap_or_else(|| Id::from(number))
}

/// The number in an id that may be ours.
fn number(id: &[u8]) -> Option<u64> {
    json::text(id)?.strip_prefix("gw-")?.parse().ok()
}

impl Session {
    /// Opens.
    #[must_use]
    pub fn new(terms: Terms, link: Arc<SessionLink>, open: Open) -> Arc<Self> {
        Arc::new(Self {
            terms,
            link,
            outbox: Arc::new(EventStream::new(0)),
            roots: Relay::default(),
            level: Relay::default(),
            calls: Mutex::default(),
            asked: Mutex::default(),
            streams: Mutex::default(),
            numbers: AtomicU64::new(1),
            seen: Mutex::new(Instant::now()),
            ended: CancellationToken::new(),
            _open: open,
        })
    }

    /// The level that `logging/setLevel` set.
    #[must_use]
    pub fn log_level(&self) -> Option<LogLevel> {
        self.link.log_level()
    }

    /// Sets it.
    pub fn set_log_level(&self, level: LogLevel) {
        self.link.set_log_level(level);
    }

    /// Registers a call until the guard is dropped; none when its id is in use already.
    #[must_use]
    pub fn begin(self: &Arc<Self>, id: &Id) -> Option<Call> {
        let id = id.value();
        let mut calls = self.calls.lock();
        if calls.contains_key(&id) {
            return None;
        }
        let token = self.ended.child_token();
        calls.insert(id.clone(), token.clone());
        Some(Call { session: Arc::clone(self), id, token })
    }

    /// Cancels a call; one that is unknown or over is nobody's concern.
    pub fn cancel(&self, id: &IdValue) {
        if let Some(token) = self.calls.lock().get(id) {
            token.cancel();
        }
    }

    /// Gives a server's question an id of ours, under which the client will answer. Beyond 256 of one server the
    /// oldest of them, which is the likeliest to be forgotten by both ends, is given up and returned: its server is
    /// to be told. That its call is over does not end a question: over a pipe nobody knows which call it belongs to.
    #[must_use]
    pub fn ask(&self, asked: Asked) -> (Id, Option<Asked>) {
        let mut waiting = self.asked.lock();
        let own = || waiting.iter().filter(|(_, one)| one.answerer.is_same(&asked.answerer));
        let crowded = own().count() >= MOST_ASKED;
        let oldest = own().next().map(|(number, _)| *number).filter(|_| crowded);
        let given_up = oldest.and_then(|oldest| waiting.remove(&oldest));
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        waiting.insert(number, asked);
        (given(number), given_up)
    }

    /// The id of ours of a question that its server has withdrawn.
    #[must_use]
    pub fn withdrawn(&self, answerer: &Answerer, id: &IdValue) -> Option<Id> {
        let mut waiting = self.asked.lock();
        let its = |one: &Asked| one.id.value() == *id && one.answerer.is_same(answerer);
        let number = waiting.iter().find(|(_, one)| its(one)).map(|(number, _)| *number)?;
        waiting.remove(&number);
        Some(given(number))
    }

    /// The question that waits under this id of ours.
    #[must_use]
    pub fn waiting(&self, id: &[u8]) -> Option<Asked> {
        self.asked.lock().get(&number(id)?).cloned()
    }

    /// The question that a client's answer belongs to, once.
    #[must_use]
    pub fn answered(&self, id: &Id) -> Option<Asked> {
        self.asked.lock().remove(&number(id.as_json())?)
    }

    /// A stream for one call, which can be resumed for a while.
    #[must_use]
    pub fn stream(&self) -> Arc<EventStream> {
        let stream = Arc::new(EventStream::new(self.numbers.fetch_add(1, Ordering::Relaxed)));
        let mut streams = self.streams.lock();
        if streams.len() >= KEPT_STREAMS {
            let oldest = streams.iter().position(|stream| stream.is_closed()).unwrap_or(0);
            streams.remove(oldest);
        }
        streams.push(Arc::clone(&stream));
        stream
    }

    /// The stream of an event id of this session, and the number of that event there.
    #[must_use]
    pub fn resume(&self, last_event_id: &str) -> Option<(Arc<EventStream>, u64)> {
        let (stream, event) = last_event_id.split_once('-')?;
        let (stream, event) = (stream.parse::<u64>().ok()?, event.parse::<u64>().ok()?);
        let found = if stream == 0 {
            Arc::clone(&self.outbox)
        } else {
            Arc::clone(self.streams.lock().iter().find(|known| known.number() == stream)?)
        };
        // One that was never sent would silence the stream until it is.
        (event <= found.last()).then_some((found, event))
    }

    /// No call is in flight and nobody reads its stream.
    fn is_idle(&self) -> bool {
        self.calls.lock().is_empty() && !self.outbox.is_read()
    }

    fn is_over(&self, now: u64) -> bool {
        now >= self.terms.expires
    }

    fn end(&self) {
        self.ended.cancel();
        self.outbox.close();
        for stream in self.streams.lock().drain(..) {
            stream.close();
        }
    }

    /// Resolves when the session has ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

/// A call in flight.
pub struct Call {
    session: Arc<Session>,
    id: IdValue,
    token: CancellationToken,
}

impl Call {
    /// Cancelled when the client cancels the call or its session ends.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.session.calls.lock().remove(&self.id);
    }
}

/// The sessions of one gateway.
#[derive(Default)]
pub struct Sessions {
    open: Mutex<HashMap<String, Arc<Session>>>,
}

impl Sessions {
    /// Takes a session in. One caller's new sessions end that caller's own idle ones once it has a tenth of `most`,
    /// never another's; there is no room when all are in use.
    pub fn insert(&self, session: Arc<Session>, most: usize) -> bool {
        let mut open = self.open.lock();
        let own = || open.values().filter(|one| one.terms.principal == session.terms.principal);
        let crowded = open.len() >= most || own().count() >= most / 10;
        let oldest = own()
            .filter(|one| one.is_idle())
            .min_by_key(|one| *one.seen.lock())
            .map(|one| one.terms.id.clone());
        let ended = match (crowded, oldest) {
            (false, _) => None,
            (true, None) => return false,
            (true, Some(id)) => open.remove(&id),
        };
        open.insert(session.terms.id.clone(), session);
        drop(open);
        if let Some(ended) = ended {
            ended.end();
        }
        true
    }

    /// The session of this id, if it is this principal's and its id is not over at `now` (seconds since 1970): another's
    /// is as unknown as none.
    #[must_use]
    pub fn get(&self, id: &str, principal: &str, now: u64) -> Option<Arc<Session>> {
        let its = |session: &&Arc<Session>| session.terms.principal == principal && !session.is_over(now);
        let session = self.open.lock().get(id).filter(its).cloned()?;
        *session.seen.lock() = Instant::now();
        Some(session)
    }

    /// Ends a session of this principal.
    pub fn remove(&self, id: &str, principal: &str) -> bool {
        let ended = {
            let mut open = self.open.lock();
            let its = open.get(id).is_some_and(|session| session.terms.principal == principal);
            its.then(|| open.remove(id)).flatten()
        };
        ended.map(|session| session.end()).is_some()
    }

    /// Ends the processes of sessions that nobody used for `idle`.
    pub fn rest(&self, idle: Duration) {
        let unused = |session: &&Arc<Session>| session.seen.lock().elapsed() > idle && session.is_idle();
        self.all().iter().filter(unused).for_each(|session| session.link.rest());
    }

    /// Ends sessions that nobody used for `idle`, and those whose ids are over at `now` (seconds since 1970) once their
    /// last call is answered.
    pub fn expire(&self, idle: Duration, now: u64) {
        let expired: Vec<_> = {
            let mut open = self.open.lock();
            let stale = |session: &Session| {
                let unused = session.seen.lock().elapsed() > idle && session.is_idle();
                unused || (session.is_over(now) && session.calls.lock().is_empty())
            };
            let ids: Vec<_> = open.iter().filter(|(_, one)| stale(one)).map(|(id, _)| id.clone()).collect();
            ids.iter().filter_map(|id| open.remove(id)).collect()
        };
        for session in expired {
            session.end();
        }
    }

    /// Every session that is open now.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.open.lock().values().cloned().collect()
    }

    /// Ends all.
    pub fn end_all(&self) {
        let all: Vec<_> = self.open.lock().drain().map(|(_, session)| session).collect();
        for session in all {
            session.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Label, Metrics};

    const OPENED: u64 = 1_800_000_000;

    fn session(id: &str, expires: u64) -> Arc<Session> {
        let (sender, _) = tokio::sync::mpsc::channel(1);
        let (capabilities, revision) = (Capabilities::default(), Revision::V2025_11_25);
        let link = SessionLink::new("alice", capabilities.clone(), None, sender);
        let terms = Terms { id: id.into(), expires, revision, principal: "alice".into(), capabilities };
        Session::new(terms, link, Metrics::default().session(&Label::from("a/gw")))
    }

    #[test]
    fn an_id_is_unknown_from_the_second_on_that_its_seal_names() {
        let sessions = Sessions::default();
        assert!(sessions.insert(session("id", OPENED + 60), 100));
        assert!(sessions.get("id", "alice", OPENED + 59).is_some());
        assert!(sessions.get("id", "bob", OPENED).is_none());
        assert!(sessions.get("id", "alice", OPENED + 60).is_none());
        assert!(!sessions.remove("id", "bob"));
        assert!(sessions.remove("id", "alice"));
        assert!(sessions.get("id", "alice", OPENED).is_none());
    }

    #[test]
    fn a_session_whose_id_is_over_ends_after_its_last_call_though_somebody_reads_its_stream() {
        let sessions = Sessions::default();
        let (old, new) = (session("old", OPENED), session("new", OPENED + 60));
        assert!(sessions.insert(Arc::clone(&old), 100) && sessions.insert(Arc::clone(&new), 100));
        let _read = old.outbox.read(0);
        let call = old.begin(&Id::from(1)).unwrap();
        sessions.expire(Duration::from_secs(3600), OPENED);
        assert!(!old.ended.is_cancelled() && !call.token().is_cancelled());
        drop(call);
        sessions.expire(Duration::from_secs(3600), OPENED);
        assert!(old.ended.is_cancelled() && !new.ended.is_cancelled());
        assert_eq!(sessions.all().len(), 1);
    }
}
