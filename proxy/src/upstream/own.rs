//! Processes that belong to one legacy client's session each: bounded, since what makes them start comes over the network.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Core;
use super::error::{Error, Kind};
use super::link::SessionLink;

/// Of one server.
pub(super) const MOST: usize = 32;
/// Of one server, for one caller.
pub(super) const MOST_OF_CALLER: usize = 16;
/// One that was not used for this long may make room for another session of the same caller.
pub(super) const UNUSED: Duration = Duration::from_secs(60);

/// How many processes of a server which caller has. One counts until it has ended, not only until nobody wants it: else
/// whoever begins and cancels calls would start them faster than they end.
#[derive(Default, Clone)]
pub(crate) struct Own(Arc<Callers>);

#[derive(Default)]
struct Callers {
    counts: Mutex<HashMap<Arc<str>, Count>>,
    /// Rung whenever one has ended.
    ended: Notify,
}

#[derive(Default, Clone, Copy)]
struct Count {
    all: usize,
    /// Those of them that nobody wants any more.
    ending: usize,
}

/// The room for one of them, taken for as long as this lives.
pub(crate) struct Room {
    own: Own,
    caller: Arc<str>,
    ending: AtomicBool,
}

/// Somebody wants the process; once this is dropped it is about to end.
pub(crate) struct Stay(Weak<Room>);

/// Why there is no room.
enum Full {
    /// One of those that take it is about to end.
    Ending,
    /// None is.
    Taken,
}

impl Own {
    fn room(&self, caller: &Arc<str>) -> Result<Arc<Room>, Full> {
        let mut counts = self.0.counts.lock();
        let (all, ending) =
            counts.values().fold((0, 0), |(all, ending), one| (all + one.all, ending + one.ending));
        let its = counts.get(caller).copied().unwrap_or_default();
        let full = |ending: usize| if ending > 0 { Full::Ending } else { Full::Taken };
        if its.all >= MOST_OF_CALLER {
            return Err(full(its.ending));
        }
        if all >= MOST {
            return Err(full(ending));
        }
        counts.entry(Arc::clone(caller)).or_default().all += 1;
        let (own, caller) = (self.clone(), Arc::clone(caller));
        Ok(Arc::new(Room { own, caller, ending: AtomicBool::new(false) }))
    }
}

impl Room {
    /// The process is there: it keeps the room until it has ended.
    pub(super) fn held_until(self: Arc<Self>, ended: BoxFuture<'static, ()>) -> Stay {
        let stay = Stay::of(&self);
        tokio::spawn(async move {
            ended.await;
            drop(self);
        });
        stay
    }

    fn end(&self) {
        let mut counts = self.own.0.counts.lock();
        if let Some(count) = counts.get_mut(&self.caller)
            && !self.ending.swap(true, Ordering::Relaxed)
        {
            count.ending += 1;
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut counts = self.own.0.counts.lock();
        if let Some(count) = counts.get_mut(&self.caller) {
            count.all -= 1;
            count.ending -= usize::from(*self.ending.get_mut());
            if count.all == 0 {
                counts.remove(&self.caller);
            }
        }
        drop(counts);
        self.own.0.ended.notify_waiters();
    }
}

impl Stay {
    pub(super) fn of(room: &Arc<Room>) -> Self {
        Self(Arc::downgrade(room))
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        if let Some(room) = self.0.upgrade() {
            room.end();
        }
    }
}

impl Core {
    /// Room for a process of this session's own. Where there is none, one that the same caller has not used for a while
    /// makes room; never another's. Waits for one that is about to end.
    pub(super) async fn room(&self, link: &SessionLink) -> Result<Arc<Room>, Error> {
        let crowded = || Error { retry_after: Some(UNUSED), ..Error::unsent(Kind::Crowded) };
        let until = self.connect_deadline();
        loop {
            // Before the look: an end right after it is not missed.
            let ended = self.own.0.ended.notified();
            match self.own.room(&link.caller) {
                Ok(room) => return Ok(room),
                Err(Full::Ending) => {}
                Err(Full::Taken) if self.end_unused(&link.caller) => {}
                Err(Full::Taken) => return Err(crowded()),
            }
            tokio::time::timeout_at(until, ended).await.map_err(|_| crowded())?;
        }
    }

    /// Ends the process of this caller's that was not used for longest, if that is long enough.
    fn end_unused(&self, caller: &Arc<str>) -> bool {
        let links: Vec<_> = self.links.lock().iter().filter_map(Weak::upgrade).collect();
        let own = links.iter().filter(|link| link.caller == *caller);
        let unused = own.filter_map(|link| Some((link.unused(self.instance)?, link)));
        let longest = unused.filter(|(time, _)| *time >= UNUSED).max_by_key(|(time, _)| *time);
        longest.is_some_and(|(_, link)| link.end_process(self.instance))
    }
}
