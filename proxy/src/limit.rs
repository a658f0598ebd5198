//! Rate limits: GCRA buckets (governor), kept over a swap of configuration as long as the limit says the same.
//!
//! A limit says what the whole fleet grants. One of n proxies grants its share (`limit::share`), and keeps its buckets when
//! n changes.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hasher, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

mod share;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{InsufficientCapacity, Quota, RateLimiter};
use mcpmesh_ir::PolicyId;
use mcpmesh_ir::policy::{Caller, Dimension, Prepared, PreparedLimit, Rate, Target};
use parking_lot::Mutex;

use share::{Share, SharedClock};

/// A bucket's key: 128 bits of two keyed hashes, so that neither memory nor collisions are the caller's to choose. Two
/// words, not a `u128`: with its state a bucket is 24 bytes, not 32.
type Key = [u64; 2];
type Limiting = RateLimiter<
    Key,
    DashMapStateStore<Key, BuildHasherDefault<DefaultHasher>>,
    SharedClock,
    NoOpMiddleware<Duration>,
>;

/// The buckets of one limit.
struct Buckets {
    limiting: Limiting,
    share: Arc<Share>,
}

/// What a limit is: one that says the same after a change of configuration keeps its buckets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Name {
    policy: PolicyId,
    limit: String,
    rate: Rate,
    per: Vec<Dimension>,
}

impl Name {
    fn of(limit: &PreparedLimit) -> Self {
        Self {
            policy: limit.policy.clone(),
            limit: limit.name.clone(),
            rate: limit.rate,
            per: limit.per.clone(),
        }
    }
}

/// A call over a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    /// The policy.
    pub policy: PolicyId,
    /// The limit's name there.
    pub limit: String,
    /// Until one more call is granted.
    pub retry_after: Duration,
}

/// What charging a call came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Charged {
    /// The enforced limit that refuses it.
    pub refused: Option<Exceeded>,
    /// Limits of Audit policies that would have.
    pub audited: Vec<Exceeded>,
}

/// All limits, and how many proxies share each.
struct Known {
    buckets: HashMap<Name, Arc<Buckets>>,
    fleet_size: u32,
}

impl Default for Known {
    fn default() -> Self {
        Self { buckets: HashMap::new(), fleet_size: 1 }
    }
}

/// The buckets of every gateway of this process. Its lock is taken when configurations change, never by a call.
#[derive(Default)]
pub struct Registry {
    known: Mutex<Known>,
    hashers: Arc<[RandomState; 2]>,
}

impl Registry {
    /// The limiter of one prepared configuration, with the buckets of limits that it shares with an earlier one.
    pub fn limiter(&self, prepared: &Prepared) -> Limiter {
        let mut known = self.known.lock();
        let fleet_size = known.fleet_size;
        let buckets = prepared.limits().map(|limit| {
            let new = || Arc::new(Buckets::new(limit.rate, fleet_size));
            Arc::clone(known.buckets.entry(Name::of(limit)).or_insert_with(new))
        });
        Limiter { buckets: buckets.collect(), hashers: Arc::clone(&self.hashers) }
    }

    /// From now on so many proxies share every limit, 0 as 1. What was taken from buckets stays taken.
    pub fn share(&self, fleet_size: u32) {
        let mut known = self.known.lock();
        known.fleet_size = fleet_size.max(1);
        let fleet_size = known.fleet_size;
        known.buckets.values().for_each(|buckets| buckets.share.set(fleet_size));
    }

    /// Forgets buckets that are full again, and limits that no configuration holds any more.
    pub fn tidy(&self) {
        self.known.lock().buckets.retain(|_, buckets| {
            buckets.limiting.retain_recent();
            buckets.limiting.shrink_to_fit();
            Arc::strong_count(buckets) > 1
        });
    }
}

impl Buckets {
    fn new(rate: Rate, fleet_size: u32) -> Self {
        let period = Duration::from_millis(rate.window_ms.max(1)) / rate.count.max(1);
        let burst = NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(period.max(Duration::from_nanos(1)))
            .unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN))
            .allow_burst(burst);
        let share = Arc::new(Share::new(burst, fleet_size));
        let clock = SharedClock(Arc::clone(&share));
        let limiting =
            RateLimiter::dashmap_with_clock_and_hasher(quota, clock, BuildHasherDefault::default());
        Self { limiting, share }
    }

    /// Takes what one call costs, or says after which time there will be that much.
    fn take(&self, key: &Key) -> Result<(), Duration> {
        match self.limiting.check_key_n(key, self.share.cost()) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => {
                Err(self.share.real(not_until.wait_time_from(Clock::now(self.limiting.clock()))))
            }
            // A cost is never more than the burst.
            Err(InsufficientCapacity(_)) => Err(Duration::from_secs(1)),
        }
    }
}

/// The limits of one prepared configuration.
pub struct Limiter {
    buckets: Vec<Arc<Buckets>>,
    hashers: Arc<[RandomState; 2]>,
}

impl Limiter {
    /// Takes a token from every bucket that the call concerns. Stops at the first enforced limit that is
    /// exceeded; what earlier ones granted stays taken, so a flood is never granted more than any limit says.
    pub fn charge(&self, prepared: &Prepared, caller: &Caller, target: &Target<'_>) -> Charged {
        let mut charged = Charged::default();
        for charge in prepared.charges(caller, target) {
            let Some(buckets) = self.buckets.get(charge.limit.index) else { continue };
            let key = self.key(|state| charge.hash_key(caller, target, state));
            let Err(retry_after) = buckets.take(&key) else { continue };
            let exceeded = Exceeded {
                policy: charge.limit.policy.clone(),
                limit: charge.limit.name.clone(),
                retry_after,
            };
            if charge.limit.enforced {
                charged.refused = Some(exceeded);
                break;
            }
            charged.audited.push(exceeded);
        }
        charged
    }

    fn key(&self, feed: impl Fn(&mut DefaultHasher)) -> Key {
        self.hashers.each_ref().map(|hasher| {
            let mut state = hasher.build_hasher();
            feed(&mut state);
            state.finish()
        })
    }
}

#[cfg(test)]
mod tests;
