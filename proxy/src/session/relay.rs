//! A message that says only that something changed: however often it is said, one is on its way at a time, and one more
//! follows where it was said meanwhile.

use std::sync::atomic::{AtomicU8, Ordering};

const IDLE: u8 = 0;
const TELLING: u8 = 1;
const AGAIN: u8 = 2;

/// See the module.
#[derive(Debug, Default)]
pub struct Relay(AtomicU8);

impl Relay {
    /// Something changed. Whoever gets `true` tells of it until [`Self::told`] says that this was all.
    #[must_use]
    pub fn changed(&self) -> bool {
        let next = |state| Some(if state == IDLE { TELLING } else { AGAIN });
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) == Ok(IDLE)
    }

    /// It has been told. Whether it changed meanwhile, and is to be told once more.
    #[must_use]
    pub fn told(&self) -> bool {
        let next = |state| Some(if state == AGAIN { TELLING } else { IDLE });
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) == Ok(AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_while_it_is_told_is_told_once_more() {
        let relay = Relay::default();
        assert!(relay.changed());
        assert!((0..100).all(|_| !relay.changed()), "one tells of it");
        assert!(relay.told(), "and once more");
        assert!(!relay.told(), "no more than that");
        assert!(relay.changed(), "later, anew");
        assert!(!relay.told());
    }
}
