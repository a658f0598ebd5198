//! Log levels of sessions (2025-11-25, server/utilities/logging): a server sends what the most curious of those wants who
//! listen in its session. What each of them gets of it is judged where it is answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::catalogue::Offers;
use super::detect::Wire;
use super::link::SessionLink;
use super::reply::Reply;
use super::route::is_askable;
use super::session::Session;
use super::wire::{self, MetaParts};
use super::{Core, Upstream};
use crate::mcp::envelope::Method;
use crate::mcp::era::Era;
use crate::mcp::meta::LogLevel;

/// How many want which level.
type Wanted = Arc<Mutex<BTreeMap<LogLevel, usize>>>;

/// Who listens in a session, and what the server was told.
#[derive(Default)]
pub(crate) struct Levels {
    wanted: Wanted,
    told: Mutex<Option<LogLevel>>,
}

/// Somebody who wants log messages for as long as this lives.
pub(crate) struct Listener {
    wanted: Wanted,
    level: LogLevel,
}

impl Levels {
    fn listen(&self, level: LogLevel) -> Listener {
        *self.wanted.lock().entry(level).or_default() += 1;
        Listener { wanted: Arc::clone(&self.wanted), level }
    }

    /// What the most curious wants. Levels are in order of severity.
    fn most(&self) -> Option<LogLevel> {
        self.wanted.lock().first_key_value().map(|(level, _)| *level)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut wanted = self.wanted.lock();
        if let Some(count) = wanted.get_mut(&self.level) {
            *count -= 1;
            if *count == 0 {
                wanted.remove(&self.level);
            }
        }
    }
}

impl Upstream {
    /// Tells the server which log messages this legacy client wants now, where the client has a session with it.
    pub async fn tell_level(&self, link: &Arc<SessionLink>) {
        if let Some(session) = self.core.opened(link).await {
            return self.core.hear(link, &session).await;
        }
        let live = self.core.live.borrow().clone();
        if let Some(Wire::Stdio(shared)) = live.as_deref().map(|live| &live.wire)
            && !is_askable(link.capabilities.set())
            && link.knows(self.core.instance)
        {
            self.core.hear(link, shared).await;
        }
    }
}

impl Core {
    /// Listens in the session that serves a link, from the link's level on.
    pub(super) async fn hear(&self, link: &SessionLink, session: &Session) {
        let Some(level) = link.log_level() else { return };
        let heard = (session.number(), level);
        if !link.hears(self.instance, heard) {
            let listener = Box::pin(self.listen_in(session, Some(level))).await;
            link.hear(self.instance, (heard, listener));
        }
    }

    /// Listens in a session from this level on. The server is told where that changes what it is to send: more for this
    /// one, or less since another has gone.
    pub(super) async fn listen_in(&self, session: &Session, level: Option<LogLevel>) -> Option<Listener> {
        let level = level.filter(|_| session.era == Era::Legacy)?;
        if !Offers::read(&session.handshake.capabilities).logging {
            return None;
        }
        let listener = session.levels.listen(level);
        if let Some(mut reply) = self.tell_most(session) {
            // In a task of its own: a call that is cancelled meanwhile does not take back what all were told. Without
            // log messages the call is still worth making.
            let _ = tokio::spawn(async move { while let Some(Ok(_)) = reply.next().await {} }).await;
        }
        Some(listener)
    }

    /// Tells the server what the most curious wants now, if that is news. Nobody else waits for the answer.
    fn tell_most(&self, session: &Session) -> Option<Reply> {
        let mut told = session.levels.told.lock();
        // Asked and sent under the lock: whoever tells last tells what all want.
        let most = session.levels.most();
        let reply = self.set_level(session, most.filter(|_| *told != most)?)?;
        // One that refuses or does not answer is not asked again for each call.
        *told = most;
        Some(reply)
    }

    /// None where nothing can be sent at the moment.
    fn set_level(&self, session: &Session, level: LogLevel) -> Option<Reply> {
        let members = format!(r#""level":"{}""#, level.as_str());
        let (id, parts) = (self.next_id(), MetaParts::default());
        let body = wire::request(id, &Method::LoggingSetLevel, members.as_bytes(), &parts, Era::Legacy);
        let bounds = self.bounds(self.config.timeouts.connect, false);
        session.call_now(id, body, bounds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_curious_of_those_who_listen_counts() {
        let levels = Levels::default();
        assert_eq!(levels.most(), None);
        let info = levels.listen(LogLevel::Info);
        let also = levels.listen(LogLevel::Info);
        let debug = levels.listen(LogLevel::Debug);
        assert_eq!(levels.most(), Some(LogLevel::Debug));
        drop(debug);
        drop(info);
        assert_eq!(levels.most(), Some(LogLevel::Info));
        drop(also);
        assert_eq!(levels.most(), None);
    }
}
