//! W7 and W8: the operator over thousands of objects of a real API server, one real proxy and 99 subscribers.
//!
//! All of it is one machine's loopback, in a network namespace of its own (`e2e/bench/run.sh` makes it): Services of the
//! cluster lead to the bench's MCP server at an address that is none of loopback's, as a pod's is.

mod change;
mod objects;
mod restart;
mod scrape;
mod subscriber;
mod world;

use std::time::{Duration, Instant};

use super::Plan;
use change::Spread;
use restart::Restart;
use world::World;

/// How much there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) namespaces: usize,
    /// In each namespace.
    pub(super) servers: usize,
    /// The real one included.
    pub(super) proxies: usize,
}

impl Size {
    fn of(plan: &Plan) -> Self {
        let namespaces = ((100.0 * plan.scale) as usize).clamp(2, 1_000);
        Self { namespaces, servers: 100, proxies: namespaces.min(100) }
    }

    pub(super) fn objects(self) -> usize {
        self.namespaces * self.servers
    }
}

/// What was found.
pub(super) struct Found {
    pub(super) size: Size,
    /// From the API server's answer until the proxies of the fleet have acknowledged; each its own fleet.
    pub(super) single: Spread,
    /// The same, all proxies in one fleet.
    pub(super) fan_out: Spread,
    /// The same, at a hundred changes a second.
    pub(super) steady: Spread,
    /// From the API server's answer until a call through the real proxy is answered as the change says.
    pub(super) real: Spread,
    /// From the operator's watch event until an acknowledgement arrived: the share within 30 ms and within 100 ms, and the
    /// bucket of its histogram that holds the 99th percentile, in ms.
    pub(super) watched: scrape::Watched,
    /// Bytes of an update, the longest.
    pub(super) bytes: usize,
    /// All proxies at once, from nothing to everything.
    pub(super) full_sync: Duration,
    /// Requests through the real proxy meanwhile, and how many failed.
    pub(super) requests: (usize, usize),
    /// KiB.
    pub(super) operator_rss: u64,
    pub(super) proxy_rss: u64,
    /// Writes of the operator in `idle`, when nothing changed.
    pub(super) idle_writes: f64,
    pub(super) idle: Duration,
    pub(super) restart: Restart,
}

/// Measures both.
pub(super) async fn run(plan: &Plan) -> anyhow::Result<Found> {
    let size = Size::of(plan);
    let began = Instant::now();
    let mut world = World::start(size).await?;
    tracing::info!(took = ?began.elapsed(), "{} servers are there and settled", size.objects());
    let idle = Duration::from_secs(20);
    let idle_writes = world.writes_within(idle).await?;
    let restart = restart::measure(&mut world, plan).await?;
    let mut found = change::measure(&mut world, plan, restart).await?;
    (found.idle, found.idle_writes) = (idle, idle_writes);
    found.restart.proxy = restart::proxies(&mut world, plan).await?;
    anyhow::ensure!(found.requests.1 == 0, "{} of {} requests failed", found.requests.1, found.requests.0);
    anyhow::ensure!(found.idle_writes == 0.0, "{} writes while nothing changed", found.idle_writes);
    anyhow::ensure!(found.restart.writes == 0.0, "{} writes after a restart", found.restart.writes);
    Ok(found)
}
