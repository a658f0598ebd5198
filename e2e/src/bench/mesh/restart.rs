//! W8: an operator that comes back to everything, a proxy that comes back to its disk.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::world::{PROXY_METRICS, World};
use crate::bench::Plan;
use crate::bench::case::median;
use crate::bench::load::Connection;
use crate::bench::request::get;

/// What was found.
#[derive(Debug, Clone, Default)]
pub(in crate::bench) struct Restart {
    /// Until the operator leads and has looked at every object, in seconds.
    pub(in crate::bench) operator: f64,
    /// Writes until then and for some seconds after.
    pub(in crate::bench) writes: f64,
    pub(in crate::bench) proxy: Boot,
}

/// A proxy without an operator.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::bench) struct Boot {
    /// From its start until it is ready, in ms.
    pub(in crate::bench) ready: f64,
    /// KiB at rest.
    pub(in crate::bench) rss: u64,
}

/// Restarts the operator over all objects, while no proxy is connected.
pub(super) async fn measure(world: &mut World, plan: &Plan) -> anyhow::Result<Restart> {
    let (mut took, mut writes) = (Vec::new(), 0.0_f64);
    for _ in 0..plan.repetitions {
        world.stop_operator();
        let began = Instant::now();
        world.start_operator()?;
        loop {
            let scrape = world.scrape().await?;
            if scrape.sum("mcpmesh_operator_reconcile_duration_seconds_count") > 0.0 {
                break;
            }
            ensure!(began.elapsed() < Duration::from_secs(120), "the operator does not come back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        took.push(began.elapsed().as_secs_f64());
        tokio::time::sleep(Duration::from_secs(3)).await;
        writes = writes.max(world.scrape().await?.sum("mcpmesh_operator_writes_total"));
    }
    Ok(Restart { operator: median(took.into_iter()), writes, proxy: Boot::default() })
}

/// Starts the real proxy from its disk, with the operator away.
pub(super) async fn proxies(world: &mut World, plan: &Plan) -> anyhow::Result<Boot> {
    world.stop_operator();
    let mut took = Vec::new();
    for _ in 0..plan.repetitions {
        world.stop_proxy();
        let began = Instant::now();
        world.restart_proxy()?;
        while !is_ready().await {
            ensure!(began.elapsed() < Duration::from_secs(20), "the proxy is not ready");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    Ok(Boot { ready: median(took.into_iter()), rss: world.memory().1 })
}

async fn is_ready() -> bool {
    let Ok(address) = PROXY_METRICS.parse() else { return false };
    let Ok(mut connection) = Connection::open(address).await else { return false };
    connection.exchange(&get("/readyz"), None).await.is_ok_and(|answer| answer.status == 200)
}
