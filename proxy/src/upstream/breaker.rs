//! Admission to one upstream: a circuit breaker over recent outcomes and a bounded queue in front
//! of a bounded number of calls in flight.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::error::{Error, Kind};

/// Failures in a row that open the circuit.
const CONSECUTIVE: usize = 5;
/// Outcomes that are remembered.
const WINDOW: usize = 40;
/// Outcomes that are needed before their ratio counts.
const MINIMUM: usize = 20;
/// First pause; doubles with each failed probe.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct Circuit {
    recent: VecDeque<bool>,
    in_a_row: usize,
    open_until: Option<Instant>,
    pauses: u32,
    probing: bool,
}

/// A circuit breaker. Only failures of the upstream itself count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Breaker(Arc<Mutex<Circuit>>);

impl Breaker {
    /// Lets a call through, or says when to come again. After a pause one call goes first.
    pub(crate) fn admit(&self) -> Result<Ticket, Error> {
        let mut circuit = self.0.lock();
        let mut probe = false;
        if let Some(until) = circuit.open_until {
            let now = Instant::now();
            if now < until || circuit.probing {
                let retry_after = until.saturating_duration_since(now).max(Duration::from_millis(100));
                return Err(Error { retry_after: Some(retry_after), ..Error::unsent(Kind::CircuitOpen) });
            }
            circuit.probing = true;
            probe = true;
        }
        Ok(Ticket { breaker: self.clone(), probe, settled: false })
    }

    /// Something outside of a call showed that the upstream works: let calls through at once.
    pub(crate) fn reset(&self) {
        *self.0.lock() = Circuit::default();
    }

    fn record(&self, good: bool, probe: bool) {
        let mut circuit = self.0.lock();
        if probe {
            circuit.probing = false;
            if good {
                *circuit = Circuit::default();
                return;
            }
        }
        circuit.recent.push_back(good);
        if circuit.recent.len() > WINDOW {
            circuit.recent.pop_front();
        }
        circuit.in_a_row = if good { 0 } else { circuit.in_a_row + 1 };
        let bad = circuit.recent.iter().filter(|good| !**good).count();
        let ratio = circuit.recent.len() >= MINIMUM && bad * 2 >= circuit.recent.len();
        let trips = probe || (circuit.open_until.is_none() && (circuit.in_a_row >= CONSECUTIVE || ratio));
        if !good && trips {
            let pause = FIRST_PAUSE.saturating_mul(1 << circuit.pauses.min(8)).min(LONGEST_PAUSE);
            circuit.open_until = Some(Instant::now() + pause);
            circuit.pauses += 1;
            circuit.in_a_row = 0;
            circuit.recent.clear();
        }
    }
}

/// One admitted call. Dropped without a verdict it says nothing about the upstream.
#[derive(Debug)]
pub(crate) struct Ticket {
    breaker: Breaker,
    probe: bool,
    settled: bool,
}

impl Ticket {
    /// The first verdict counts.
    pub(crate) fn settle(&mut self, outcome: Result<(), &Error>) {
        let good = match outcome {
            Ok(()) => true,
            Err(error) if error.is_upstream_failure() => false,
            Err(_) => return,
        };
        if !self.settled {
            self.settled = true;
            self.breaker.record(good, self.probe);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.probe && !self.settled {
            self.breaker.0.lock().probing = false;
        }
    }
}

/// A bounded number of calls in flight; as many more may wait.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    seats: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    most_waiting: usize,
    patience: Duration,
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Queue {
    pub(crate) fn new(most: usize, patience: Duration) -> Self {
        let most = most.clamp(1, Semaphore::MAX_PERMITS);
        Self { seats: Arc::new(Semaphore::new(most)), waiting: Arc::default(), most_waiting: most, patience }
    }

    /// A seat, held while the call is in flight.
    pub(crate) async fn enter(&self) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(seat) = Arc::clone(&self.seats).try_acquire_owned() {
            return Ok(seat);
        }
        let ahead = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if ahead >= self.most_waiting {
            return Err(Error::unsent(Kind::Overloaded));
        }
        match tokio::time::timeout(self.patience, Arc::clone(&self.seats).acquire_owned()).await {
            Ok(Ok(seat)) => Ok(seat),
            Ok(Err(_)) => Err(Error::unsent(Kind::Unavailable)),
            // A full queue says that calls take long, not that connecting does.
            Err(_) => Err(Error { retry_after: Some(self.patience), ..Error::unsent(Kind::Overloaded) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Phase;

    fn fail(breaker: &Breaker) {
        let mut ticket = breaker.admit().unwrap();
        ticket.settle(Err(&Error::unsent(Kind::Timeout(Phase::FirstByte))));
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_failures_in_a_row_and_closes_after_a_good_probe() {
        let breaker = Breaker::default();
        (0..CONSECUTIVE).for_each(|_| fail(&breaker));
        let refused = breaker.admit().unwrap_err();
        assert_eq!(refused.kind, Kind::CircuitOpen);
        assert_eq!(refused.retry_after, Some(FIRST_PAUSE));
        assert!(!refused.executed);

        tokio::time::advance(FIRST_PAUSE).await;
        let mut probe = breaker.admit().unwrap();
        assert!(breaker.admit().is_err(), "one probe at a time");
        probe.settle(Ok(()));
        assert!(breaker.admit().is_ok());
        assert!(breaker.admit().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_doubles_the_pause_and_an_abandoned_one_frees_its_place() {
        let breaker = Breaker::default();
        (0..CONSECUTIVE).for_each(|_| fail(&breaker));
        tokio::time::advance(FIRST_PAUSE).await;
        drop(breaker.admit().unwrap());
        fail(&breaker);
        assert_eq!(breaker.admit().unwrap_err().retry_after, Some(FIRST_PAUSE * 2));
    }

    #[tokio::test(start_paused = true)]
    async fn half_of_many_opens_it_and_a_client_mistake_never_does() {
        let breaker = Breaker::default();
        for _ in 0..MINIMUM / 2 {
            breaker.admit().unwrap().settle(Ok(()));
            fail(&breaker);
        }
        assert!(breaker.admit().is_err());
        breaker.reset();
        for _ in 0..WINDOW {
            breaker.admit().unwrap().settle(Err(&Error::unsent(Kind::TooLarge)));
        }
        assert!(breaker.admit().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded_and_does_not_wait_for_ever() {
        let queue = Queue::new(1, Duration::from_secs(1));
        let seat = queue.enter().await.unwrap();
        let (second, third) = tokio::join!(queue.enter(), queue.enter());
        assert_eq!(second.unwrap_err().kind, Kind::Overloaded);
        assert_eq!(third.unwrap_err().retry_after, None, "refused at once");
        drop(seat);
        assert!(queue.enter().await.is_ok());
    }
}
