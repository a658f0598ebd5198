//! One proxy's part of what a limit grants the fleet: an n-th of the rate, exactly; an n-th of the burst, rounded down,
//! at least one call.
//! governor fixes a bucket's rate when it is made, and a new bucket would be a full one. So the rate stays, and
//! instead a call costs c tokens and the bucket's clock runs s times slower, with c = min(n, burst) and c * s = n. The
//! rate is then count / n, the burst burst / c.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use governor::clock::Clock;

/// How time passes for buckets, from one change of the fleet's size to the next.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// When this pace began, in real time.
    began: Instant,
    /// What the buckets' clock showed then.
    showed: Duration,
    /// s: by how much it runs slower.
    slower: f64,
    /// c: what a call costs.
    cost: NonZeroU32,
}

impl Pace {
    fn at(&self, now: Instant) -> Duration {
        self.showed + now.saturating_duration_since(self.began).div_f64(self.slower)
    }
}

/// The share of one limit's buckets.
#[derive(Debug)]
pub(super) struct Share {
    burst: NonZeroU32,
    pace: ArcSwap<Pace>,
}

impl Share {
    /// Of a limit with this burst, for one of so many proxies.
    pub(super) fn new(burst: NonZeroU32, fleet_size: u32) -> Self {
        let pace = Pace { began: Instant::now(), showed: Duration::ZERO, slower: 1.0, cost: NonZeroU32::MIN };
        let new = Self { burst, pace: ArcSwap::from_pointee(pace) };
        new.set(fleet_size);
        new
    }

    /// So many proxies from now on. The clock goes on from where it is.
    pub(super) fn set(&self, fleet_size: u32) {
        self.set_at(fleet_size, Instant::now());
    }

    fn set_at(&self, fleet_size: u32, now: Instant) {
        let size = NonZeroU32::new(fleet_size).unwrap_or(NonZeroU32::MIN);
        let cost = size.min(self.burst);
        let slower = f64::from(size.get()) / f64::from(cost.get());
        let showed = self.pace.load().at(now);
        self.pace.store(Arc::new(Pace { began: now, showed, slower, cost }));
    }

    /// What a call costs: at most the burst.
    pub(super) fn cost(&self) -> NonZeroU32 {
        self.pace.load().cost
    }

    /// How long a time of the buckets' clock takes.
    pub(super) fn real(&self, shown: Duration) -> Duration {
        shown.mul_f64(self.pace.load().slower)
    }
}

/// The clock of one limit's buckets.
#[derive(Debug, Clone)]
pub(super) struct SharedClock(pub(super) Arc<Share>);

impl Clock for SharedClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.pace.load().at(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(burst: u32, size: u32) -> Share {
        Share::new(NonZeroU32::new(burst).unwrap(), size)
    }

    #[test]
    fn cost_and_pace_multiply_to_the_size_and_a_call_always_fits() {
        for (burst, size, cost, slower) in [
            (10, 1, 1, 1.0),
            (10, 3, 3, 1.0),
            (10, 10, 10, 1.0),
            (10, 40, 10, 4.0),
            (1, 3, 1, 3.0),
            (1, 0, 1, 1.0),
        ] {
            let pace = **share(burst, size).pace.load();
            assert_eq!((pace.cost.get(), pace.slower), (cost, slower), "burst {burst}, {size} proxies");
        }
    }

    #[test]
    fn the_clock_never_jumps_when_the_size_changes() {
        let share = share(1, 1);
        let start = **share.pace.load();
        let shown = |seconds| {
            share.pace.load().at(start.began + Duration::from_secs(seconds)).saturating_sub(start.showed)
        };
        assert_eq!(shown(6), Duration::from_secs(6));
        share.set_at(3, start.began + Duration::from_secs(6));
        assert_eq!(shown(6), Duration::from_secs(6));
        assert_eq!(shown(12), Duration::from_secs(8));
        assert_eq!(share.real(Duration::from_secs(2)), Duration::from_secs(6));
    }
}
