//! `make bench`: the proxy next to nginx and to a bare hyper relay on the same hop, in one run. What is measured and
//! what the goals are: `docs/benchmarks.md`, which this writes.

mod case;
mod cold;
mod config;
mod load;
mod mesh;
mod neighbours;
mod nginx;
mod relay;
mod report;
mod request;
mod running;
mod upstream;
mod workloads;
mod world;

use std::future::Future;
use std::net::SocketAddr;

use case::Case;
use report::Findings;
use world::World;

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Repetitions, of which medians are taken.
    pub repetitions: usize,
    /// Multiplies every number of requests.
    pub scale: f64,
    /// Only these workloads; empty: all.
    pub only: Vec<String>,
}

impl Plan {
    fn scaled(&self, requests: usize) -> usize {
        ((requests as f64 * self.scale) as usize).max(100)
    }

    /// Whether only those that need a cluster are asked for: nothing else is started.
    fn is_of_the_cluster(&self) -> bool {
        let known = |one: &String| ["W7", "W8"].iter().any(|known| one.eq_ignore_ascii_case(known));
        !self.only.is_empty() && self.only.iter().all(known)
    }

    fn has(&self, workload: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|one| one.eq_ignore_ascii_case(workload))
    }
}

/// Measures everything and returns the report.
///
/// # Errors
/// When a process does not start, or an answer is not the one expected.
pub fn run(plan: &Plan) -> anyhow::Result<String> {
    current_thread(async {
        let began = std::time::Instant::now();
        if plan.is_of_the_cluster() {
            let findings = Findings { mesh: Some(mesh::run(plan).await?), ..Findings::default() };
            return Ok(report::render(plan, &Findings { elapsed: began.elapsed(), ..findings }));
        }
        let world = World::start().await?;
        let mut findings = Findings::default();
        compare(&world, plan, &mut findings).await?;
        if plan.has("W1") {
            let saturated = findings.case("W1 modern, 16").map_or(3_000.0, |case| case.per_second("off"));
            findings.latency = Some(workloads::latency(&world, plan, saturated)?);
        }
        if plan.has("W2") {
            for running in [&world.nginx, &world.relay, &world.off] {
                findings.stalled.push((running.name, workloads::stalled(running).await?));
            }
            findings.first_byte = cold::first_byte(&world, plan).await?;
        }
        if plan.has("W4") {
            findings.cold = Some(cold::cold(&world, plan).await?);
        }
        if plan.has("W9") {
            findings.admitted = Some(workloads::over_admission(&world, plan).await?);
            findings.keys = Some(workloads::bytes_a_key(&world, plan).await?);
        }
        if plan.has("W7") || plan.has("W8") {
            findings.mesh = Some(mesh::run(plan).await?);
        }
        if plan.has("W10") {
            findings.leaked = Some(workloads::leaked(&world).await?);
            findings.neighbours = neighbours::neighbours(&world, plan)?;
        }
        findings.elapsed = began.elapsed();
        Ok(report::render(plan, &findings))
    })
}

/// Every comparison once a repetition, one after the other, so that noise meets all of them.
async fn compare<'w>(world: &'w World, plan: &Plan, findings: &mut Findings<'w>) -> anyhow::Result<()> {
    let mut cases: Vec<Case<'w>> = Vec::new();
    if plan.has("W1") {
        for era in [("modern", false), ("legacy", true)] {
            for connections in [1, 16, 256] {
                cases.push(workloads::small(world, plan, era, connections).await?);
            }
        }
    }
    if plan.has("W2") {
        cases.push(workloads::large(world, plan));
    }
    if plan.has("W4") {
        cases.extend(workloads::lists(world, plan).await?);
    }
    if plan.has("W9") {
        cases.push(workloads::hot(world, plan));
    }
    if plan.has("W10") {
        cases.push(workloads::floods(world, plan));
    }
    for repetition in 0..plan.repetitions {
        for case in &mut cases {
            case.repeat().await?;
        }
        tracing::info!("repetition {} of {} is done", repetition + 1, plan.repetitions);
    }
    findings.cases = cases;
    Ok(())
}

/// Serves as the MCP server of the bench, on one thread.
///
/// # Errors
/// When the address cannot be bound.
pub fn upstream(listen: SocketAddr) -> anyhow::Result<()> {
    current_thread(async { upstream::serve(tokio::net::TcpListener::bind(listen).await?).await })
}

/// Serves as the bare relay of the bench, on as many threads as the proxy.
///
/// # Errors
/// When the address cannot be bound.
pub fn relay(listen: SocketAddr, to: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async { relay::serve(tokio::net::TcpListener::bind(listen).await?, to).await })
}

/// Serves as the sender of hostile bodies, which it reads from its input.
///
/// # Errors
/// When one is not refused.
pub fn hostile(to: SocketAddr) -> anyhow::Result<()> {
    neighbours::send(to)
}

fn current_thread<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
