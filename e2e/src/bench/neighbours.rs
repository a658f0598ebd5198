//! W10: what a small call takes while somebody else sends bodies that nobody should have to read.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;

use super::Plan;
use super::case::median;
use super::config::key_of;
use super::load::paced;
use super::request::Caller;
use super::workloads::{PATH, percentiles};
use super::world::World;

/// Between two calls of the neighbour.
const CALLS: Duration = Duration::from_millis(1);
/// Between two hostile bodies.
const BODIES: Duration = Duration::from_millis(100);
/// Bytes of the longest body that is read.
const LONGEST: usize = 4 << 20;

/// The neighbour's percentiles over those that it has alone.
pub(super) struct Beside {
    pub(super) what: &'static str,
    pub(super) p50: f64,
    pub(super) p99: f64,
}

/// Each kind of body by itself.
pub(super) fn neighbours(world: &World, plan: &Plan) -> anyhow::Result<Vec<Beside>> {
    let keys: String = (0..).map(|key| format!("\"{key:x}\":0,")).take(LONGEST / 10).collect();
    let bodies = [
        ("100,000 deep", "[".repeat(100_000)),
        ("4 MiB of keys", format!("{{{}}}", keys.trim_end_matches(','))),
        ("too large", " ".repeat(LONGEST + 1)),
    ];
    let address = world.on.address;
    let call = Caller::with_key(&key_of(0)).request(PATH, "tools/call", Some("small"));
    let mut found = Vec::new();
    for (what, body) in &bodies {
        let hostile = Caller::with_key(&key_of(1)).raw(PATH, "", body);
        let mut ratios = Vec::new();
        for _ in 0..plan.repetitions {
            let alone = percentiles(calls(address, &call, None, plan)?);
            let beside = percentiles(calls(address, &call, Some(&hostile), plan)?);
            ratios.push((beside.0 / alone.0, beside.1 / alone.1));
        }
        let (p50, p99) = (median(ratios.iter().map(|one| one.0)), median(ratios.iter().map(|one| one.1)));
        found.push(Beside { what, p50, p99 });
    }
    Ok(found)
}

/// Calls of the neighbour, alone or beside hostile bodies.
fn calls(
    address: SocketAddr,
    call: &Bytes,
    hostile: Option<&Bytes>,
    plan: &Plan,
) -> anyhow::Result<Vec<Duration>> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let panicked = |_| anyhow::anyhow!("a thread of the load ended in a panic");
        let sending = hostile.map(|hostile| scope.spawn(|| send(address, hostile, &over)));
        let took = scope.spawn(|| paced(address, call, plan.scaled(2_000), CALLS)).join();
        over.store(true, Ordering::Relaxed);
        if let Some(sending) = sending {
            sending.join().map_err(panicked)??;
        }
        took.map_err(panicked)?
    })
}

/// Each body over a connection of its own, until it is over. Who sends them would be on a machine of its own: here it
/// stands back for all others.
fn send(address: SocketAddr, hostile: &Bytes, over: &AtomicBool) -> anyhow::Result<()> {
    rustix::process::nice(19)?;
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(hostile)?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        ensure!(head.starts_with(b"HTTP/1.1 4"), "a hostile body was answered {}", head.escape_ascii());
        std::thread::sleep(BODIES.saturating_sub(began.elapsed()));
    }
    Ok(())
}
