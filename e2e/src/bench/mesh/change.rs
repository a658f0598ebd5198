//! W7: from a change that the API server has accepted to every proxy that it concerns.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use mcpmesh_crds::{McpPolicy, McpServer};
use serde_json::json;

use super::objects::{self, namespace, patch};
use super::restart::Restart;
use super::world::World;
use super::{Found, Size};
use crate::bench::Plan;
use crate::bench::case::median;
use crate::bench::load::Connection;
use crate::bench::request::Caller;

/// How long a change may take until the bench gives up.
const DEADLINE: Duration = Duration::from_secs(20);

/// Changes a second in the steady phase.
const RATE: u32 = 100;

/// Medians over the repetitions of percentiles, in ms.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::bench) struct Spread {
    pub(in crate::bench) count: usize,
    pub(in crate::bench) p50: f64,
    pub(in crate::bench) p99: f64,
}

impl Spread {
    fn of(repetitions: &[Vec<Duration>]) -> Self {
        let at = |took: &Vec<Duration>, part: usize| {
            let mut took = took.clone();
            took.sort_unstable();
            let last = took.len().saturating_sub(1);
            took.get((took.len() * part / 100).min(last)).map_or(f64::NAN, |one| one.as_secs_f64() * 1e3)
        };
        Self {
            count: repetitions.iter().map(Vec::len).sum(),
            p50: median(repetitions.iter().map(|took| at(took, 50))),
            p99: median(repetitions.iter().map(|took| at(took, 99))),
        }
    }
}

/// A change of one server, known again by the timeout that it sets.
#[derive(Debug, Clone)]
struct Change {
    server: String,
    total_ms: u64,
    accepted: Instant,
}

/// Measures everything of W7. The caller fills in what is measured at rest.
pub(super) async fn measure(world: &mut World, plan: &Plan, restart: Restart) -> anyhow::Result<Found> {
    let proxy = world.start_proxy().await?;
    let (subscribers, full_sync) = world.subscribe(false).await?;
    tracing::info!(?full_sync, "{} subscribers have everything", subscribers.len());
    let traffic = Traffic::start(proxy).await?;
    let before = world.scrape().await?;
    let mut numbers = 60_001..;
    let (mut single, mut fan_out, mut steady, mut real) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.repetitions {
        single.push(one_by_one(world, plan, false, &mut numbers).await?);
        steady.push(a_hundred_a_second(world, plan, &mut numbers).await?);
        real.push(flips(world, plan, proxy).await?);
    }
    drop(subscribers);
    let (subscribers, _) = world.subscribe(true).await?;
    for _ in 0..plan.repetitions {
        fan_out.push(one_by_one(world, plan, true, &mut numbers).await?);
    }
    let watched = world.scrape().await?.watched_since(&before);
    let (operator_rss, proxy_rss) = world.memory();
    drop(subscribers);
    let bytes = world.log.lock().map_or(0, |record| record.longest);
    Ok(Found {
        size: world.size,
        single: Spread::of(&single),
        fan_out: Spread::of(&fan_out),
        steady: Spread::of(&steady),
        real: Spread::of(&real),
        watched,
        bytes,
        full_sync,
        requests: traffic.stop().await,
        operator_rss,
        proxy_rss,
        idle_writes: f64::NAN,
        idle: Duration::ZERO,
        restart,
    })
}

/// A server of a fleet that a subscriber has: of the one fleet, or of the others in turn.
fn server(size: Size, number: u64, one_fleet: bool) -> (String, String) {
    let number = usize::try_from(number).unwrap_or_default();
    let others = size.proxies.min(size.namespaces) - 1;
    let team = if one_fleet { 0 } else { 1 + number * 7 % others };
    (namespace(team), format!("s{}", number * 13 % size.servers))
}

async fn change(world: &World, number: u64, one_fleet: bool) -> anyhow::Result<Change> {
    let (namespace, name) = server(world.size, number, one_fleet);
    let spec = json!({"timeouts": {"total": format!("{number}ms")}});
    patch::<McpServer>(&world.client, &namespace, &name, spec).await?;
    Ok(Change { server: format!("{namespace}/{name}"), total_ms: number, accepted: Instant::now() })
}

/// Each change once the one before is in force.
async fn one_by_one(
    world: &World,
    plan: &Plan,
    one_fleet: bool,
    numbers: &mut impl Iterator<Item = u64>,
) -> anyhow::Result<Vec<Duration>> {
    let expected = if one_fleet { world.size.proxies - 1 } else { 1 };
    let mut took = Vec::new();
    for number in numbers.take(plan.scaled(100).min(200)) {
        let change = change(world, number, one_fleet).await?;
        took.push(in_force(world, &change, expected).await?);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(took)
}

/// How long until this many subscribers have acknowledged a change, or a later one of the same server.
async fn in_force(world: &World, change: &Change, expected: usize) -> anyhow::Result<Duration> {
    loop {
        let Change { server, total_ms, .. } = change;
        let last = world.log.lock().ok().and_then(|record| record.in_force(server, *total_ms, expected));
        if let Some(last) = last {
            return Ok(last.saturating_duration_since(change.accepted));
        }
        ensure!(change.accepted.elapsed() < DEADLINE, "{change:?} is not in force");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Whether everybody keeps up with a hundred changes a second, for five seconds.
async fn a_hundred_a_second(
    world: &World,
    plan: &Plan,
    numbers: &mut impl Iterator<Item = u64>,
) -> anyhow::Result<Vec<Duration>> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
    let (mut changes, mut took) = (FuturesUnordered::new(), Vec::new());
    for number in numbers.take(plan.scaled(500).min(1_000)) {
        loop {
            tokio::select! {
                _ = ticks.tick() => break,
                Some(done) = changes.next(), if !changes.is_empty() => took.push(done?),
            }
        }
        changes.push(async move {
            let change = change(world, number, false).await?;
            in_force(world, &change, 1).await
        });
    }
    while let Some(done) = changes.next().await {
        took.push(done?);
    }
    Ok(took)
}

/// A tool is let in and kept out again; how long until a call through the real proxy says so.
async fn flips(world: &World, plan: &Plan, proxy: SocketAddr) -> anyhow::Result<Vec<Duration>> {
    let request = Caller::default().request("/mcp", "tools/call", Some("s0_secret"));
    let mut connection = Connection::open(proxy).await?;
    let mut took = Vec::new();
    for number in 0..plan.scaled(100).min(40) {
        let allowed = number % 2 == 0;
        patch::<McpPolicy>(&world.client, &namespace(0), "p", objects::policy(allowed)).await?;
        let accepted = Instant::now();
        loop {
            let mut body = Vec::new();
            connection.exchange(&request, Some(&mut body)).await?;
            if String::from_utf8_lossy(&body).contains("\"result\"") == allowed {
                took.push(accepted.elapsed());
                break;
            }
            ensure!(accepted.elapsed() < DEADLINE, "the policy is not in force");
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    }
    Ok(took)
}

/// Calls through the real proxy, a hundred a second.
struct Traffic {
    stop: Arc<AtomicBool>,
    counts: Arc<[AtomicUsize; 2]>,
    task: tokio::task::JoinHandle<()>,
}

impl Traffic {
    async fn start(proxy: SocketAddr) -> anyhow::Result<Self> {
        let request = Caller::default().request("/mcp", "tools/call", Some("s0_small"));
        let began = Instant::now();
        // The proxy asks its servers what they have.
        while let Err(error) = call(proxy, &request).await {
            ensure!(began.elapsed() < Duration::from_secs(60), "the real proxy does not serve: {error:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (stop, counts) = (Arc::<AtomicBool>::default(), Arc::<[AtomicUsize; 2]>::default());
        let (ended, counted) = (stop.clone(), counts.clone());
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(10));
            while !ended.load(Ordering::Relaxed) {
                ticks.tick().await;
                counted[0].fetch_add(1, Ordering::Relaxed);
                if call(proxy, &request).await.is_err() {
                    counted[1].fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Ok(Self { stop, counts, task })
    }

    /// Requests, and those that failed.
    async fn stop(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.task.await;
        (self.counts[0].load(Ordering::Relaxed), self.counts[1].load(Ordering::Relaxed))
    }
}

/// A call on a connection of its own; an error: it did not work.
async fn call(proxy: SocketAddr, request: &[u8]) -> anyhow::Result<()> {
    let mut body = Vec::new();
    let answer = Connection::open(proxy).await?.exchange(request, Some(&mut body)).await?;
    let body = String::from_utf8_lossy(&body);
    ensure!(answer.status == 200 && body.contains("\"result\""), "{}: {body}", answer.status);
    Ok(())
}
