//! Whether a server opens sessions. Of one that speaks 2026-07-28 over HTTP that is found out beside its lists: nobody
//! but a legacy client's call waits for it.

use tokio::sync::watch;

use crate::mcp::era::Revision;

/// See the module.
pub(crate) struct Legacy(watch::Sender<Found>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    NotYet,
    Is(Option<Revision>),
}

impl Legacy {
    /// It is known already: sessions of this revision, or none.
    pub(crate) fn is(revision: Option<Revision>) -> Self {
        Self(watch::Sender::new(Found::Is(revision)))
    }

    /// It is still to be found out.
    pub(crate) fn unknown() -> Self {
        Self(watch::Sender::new(Found::NotYet))
    }

    /// What is known by now.
    pub(crate) fn so_far(&self) -> Option<Option<Revision>> {
        match *self.0.borrow() {
            Found::NotYet => None,
            Found::Is(revision) => Some(revision),
        }
    }

    /// What was found out, or found to be otherwise than was thought.
    pub(crate) fn tell(&self, revision: Option<Revision>) {
        self.0.send_replace(Found::Is(revision));
    }

    /// It will not be found out any more: whoever still waits goes on without.
    pub(crate) fn give_up(&self) {
        self.0.send_if_modified(|found| {
            let waits = *found == Found::NotYet;
            if waits {
                *found = Found::Is(None);
            }
            waits
        });
    }

    /// The revision of its sessions, once that is known. Boxed: most calls find it known, and need not carry the room
    /// for the wait.
    pub(crate) async fn known(&self) -> Option<Revision> {
        match self.so_far() {
            Some(revision) => revision,
            None => Box::pin(self.told()).await,
        }
    }

    async fn told(&self) -> Option<Revision> {
        let mut found = self.0.subscribe();
        // The sender is our own: it is there.
        let told = found.wait_for(|found| *found != Found::NotYet).await;
        told.map_or(Found::NotYet, |found| *found).revision()
    }
}

impl Found {
    fn revision(self) -> Option<Revision> {
        match self {
            Self::NotYet => None,
            Self::Is(revision) => revision,
        }
    }
}
