//! Processes that belong to one legacy client's session each: bounded, since what makes them start comes over the network.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::Core;
use super::error::{Error, Kind};
use super::link::SessionLink;

/// Of one server.
pub(super) const MOST: usize = 32;
/// Of one server, for one caller.
pub(super) const MOST_OF_CALLER: usize = 16;
/// One that was not used for this long may make room for another session of the same caller.
pub(super) const UNUSED: Duration = Duration::from_secs(60);

/// How many processes of a server which caller has.
#[derive(Default, Clone)]
pub(crate) struct Own(Arc<Mutex<HashMap<Arc<str>, usize>>>);

/// The room for one of them.
pub(crate) struct Room {
    own: Own,
    caller: Arc<str>,
}

impl Own {
    fn room(&self, caller: &Arc<str>) -> Option<Room> {
        let mut own = self.0.lock();
        let all: usize = own.values().sum();
        let of_caller = own.get(caller).copied().unwrap_or(0);
        if all >= MOST || of_caller >= MOST_OF_CALLER {
            return None;
        }
        own.insert(Arc::clone(caller), of_caller + 1);
        Some(Room { own: self.clone(), caller: Arc::clone(caller) })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut own = self.own.0.lock();
        if let Some(count) = own.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                own.remove(&self.caller);
            }
        }
    }
}

impl Core {
    /// Room for a process of this session's own. Where there is none, one that the same caller has not used for a while
    /// makes room; never another's.
    pub(super) fn room(&self, link: &SessionLink) -> Result<Room, Error> {
        let crowded = || Error { retry_after: Some(UNUSED), ..Error::unsent(Kind::Crowded) };
        match self.own.room(&link.caller) {
            Some(room) => Ok(room),
            None if self.end_unused(&link.caller) => self.own.room(&link.caller).ok_or_else(crowded),
            None => Err(crowded()),
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
