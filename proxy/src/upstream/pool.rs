//! Legacy sessions for clients that have none of their own, keyed by what they declare. Sessions
//! that can be asked something serve one call at a time, so that each question has one owner.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::error::{Error, Kind};
use super::level::Listener;
use super::session::{Session, Slot};
use crate::mcp::meta::{CapabilitySet, LogLevel};

/// Sessions that nobody uses are ended after this.
const IDLE: Duration = Duration::from_secs(120);

/// What must be equal for a session to serve a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) capabilities: CapabilitySet,
    pub(crate) log_level: Option<LogLevel>,
}

impl Key {
    /// A session that nothing can be asked of.
    pub(crate) fn plain() -> Self {
        Self { capabilities: CapabilitySet::default(), log_level: None }
    }
}

type Idle = HashMap<Key, Vec<(Arc<Session>, Instant)>>;

/// The sessions of one upstream.
pub(crate) struct Pool {
    shared: Mutex<HashMap<Key, Arc<Slot>>>,
    idle: Arc<Mutex<Idle>>,
    exclusive: Arc<Semaphore>,
}

/// A session for the time of one call.
pub(crate) struct Lease {
    pub(crate) session: Arc<Session>,
    home: Option<(Key, Arc<Mutex<Idle>>, OwnedSemaphorePermit)>,
    /// Wants its log messages for that time.
    listener: Option<Listener>,
}

impl Lease {
    /// A session that is not lent but shared.
    pub(crate) fn shared(session: Arc<Session>) -> Self {
        Self { session, home: None, listener: None }
    }

    /// Wants the session's log messages meanwhile.
    pub(crate) fn hears(&mut self, listener: Option<Listener>) {
        self.listener = listener;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((key, idle, _place)) = self.home.take()
            && !self.session.is_dead()
        {
            idle.lock().entry(key).or_default().push((Arc::clone(&self.session), Instant::now()));
        }
    }
}

impl Pool {
    /// A pool that lends at most `exclusive` sessions at a time.
    pub(crate) fn new(exclusive: usize) -> Self {
        Self {
            shared: Mutex::default(),
            idle: Arc::default(),
            exclusive: Arc::new(Semaphore::new(exclusive)),
        }
    }

    /// The place of the session that calls with this key share.
    pub(crate) fn slot(&self, key: Key) -> Arc<Slot> {
        Arc::clone(self.shared.lock().entry(key).or_default())
    }

    /// A session for one call alone, opened by `open` when none is idle.
    pub(crate) async fn lend<F>(&self, key: Key, patience: Duration, open: F) -> Result<Lease, Error>
    where
        F: Future<Output = Result<Session, Error>>,
    {
        let waiting = tokio::time::timeout(patience, Arc::clone(&self.exclusive).acquire_owned());
        let Ok(Ok(place)) = waiting.await else { return Err(Error::unsent(Kind::Overloaded)) };
        let idle = loop {
            let found = self.idle.lock().get_mut(&key).and_then(Vec::pop);
            match found {
                Some((session, _)) if session.is_dead() => {}
                found => break found,
            }
        };
        let session = match idle {
            Some((session, _)) => session,
            None => {
                self.make_room();
                Arc::new(open.await?)
            }
        };
        Ok(Lease { session, home: Some((key, Arc::clone(&self.idle), place)), listener: None })
    }

    /// Ends idle sessions, the longest idle first, so that with one more there are no more than are lent at a time: what
    /// clients declare makes many kinds of them.
    fn make_room(&self) {
        let mut idle = self.idle.lock();
        // The place of the one that is opened is taken already.
        let free = self.exclusive.available_permits();
        while idle.values().map(Vec::len).sum::<usize>() > free {
            // Each kind has its own in the order in which they came back.
            let since = |sessions: &Vec<(Arc<Session>, Instant)>| sessions.first().map(|(_, since)| *since);
            let longest = idle.values_mut().filter(|sessions| !sessions.is_empty());
            let Some(longest) = longest.min_by_key(|sessions| since(sessions)) else { return };
            longest.remove(0);
        }
    }

    /// Ends sessions that have been idle for long.
    pub(crate) fn reap(&self) {
        let mut idle = self.idle.lock();
        for sessions in idle.values_mut() {
            sessions.retain(|(session, since)| !session.is_dead() && since.elapsed() < IDLE);
        }
        idle.retain(|_, sessions| !sessions.is_empty());
    }

    /// Forgets all sessions.
    pub(crate) fn clear(&self) {
        self.shared.lock().clear();
        self.idle.lock().clear();
    }
}
