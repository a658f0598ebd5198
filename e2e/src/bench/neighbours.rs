//! W10: what a small call takes while somebody else sends bodies that nobody should have to read.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
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
/// Bytes that are sent at once, and the time that a network of one gigabit a second takes for them: over loopback alone
/// all of a body would be there at once, which no network does.
const PIECE: usize = 64 << 10;
const PIECE_TIME: Duration = Duration::from_nanos(8 * PIECE as u64);

/// The neighbour's percentiles over those that it has alone.
pub(super) struct Beside {
    pub(super) what: &'static str,
    pub(super) p50: f64,
    pub(super) p99: f64,
    /// The same of nginx, which refuses what is longer than 1 MiB by its length.
    pub(super) nginx: Option<f64>,
}

/// Each kind of body by itself.
pub(super) fn neighbours(world: &World, plan: &Plan) -> anyhow::Result<Vec<Beside>> {
    let keys: String = (0..).map(|key| format!("\"{key:x}\":0,")).take(LONGEST / 10).collect();
    let bodies = [
        ("100,000 deep", "[".repeat(100_000)),
        ("4 MiB of keys", format!("{{{}}}", keys.trim_end_matches(','))),
        ("too large", " ".repeat(LONGEST + 1)),
    ];
    let call = Caller::with_key(&key_of(0)).request(PATH, "tools/call", Some("small"));
    let mut found = Vec::new();
    for (what, body) in &bodies {
        let hostile = Caller::with_key(&key_of(1)).raw(PATH, "", body);
        let refused_by_nginx = (body.len() > 1 << 20).then_some(world.nginx.address);
        let (mut ours, mut nginx) = (Vec::new(), Vec::new());
        for _ in 0..plan.repetitions {
            ours.push(ratios(world.on.address, &call, &hostile, plan)?);
            nginx.extend(refused_by_nginx.map(|address| ratios(address, &call, &hostile, plan)).transpose()?);
        }
        let (p50, p99) = (median(ours.iter().map(|one| one.0)), median(ours.iter().map(|one| one.1)));
        let nginx = (!nginx.is_empty()).then(|| median(nginx.iter().map(|one| one.1)));
        found.push(Beside { what, p50, p99, nginx });
    }
    Ok(found)
}

/// The calls' p50 and p99 beside hostile bodies over those alone.
fn ratios(address: SocketAddr, call: &Bytes, hostile: &Bytes, plan: &Plan) -> anyhow::Result<(f64, f64)> {
    // On a thread without a runtime: it starts its own.
    let calls = || {
        std::thread::scope(|scope| scope.spawn(|| paced(address, call, plan.scaled(2_000), CALLS)).join())
            .map_err(|_| anyhow!("a thread of the load ended in a panic"))?
            .map(percentiles)
    };
    let alone = calls()?;
    let mut sender = Sender::start(address, hostile)?;
    let beside = calls()?;
    sender.ensure_sending()?;
    Ok((beside.0 / alone.0, beside.1 / alone.1))
}

/// Who sends the bodies would be on another machine: a process that only has the processors that nobody else wants.
struct Sender(Child);

impl Sender {
    fn start(address: SocketAddr, hostile: &Bytes) -> anyhow::Result<Self> {
        let mut command = Command::new("chrt");
        command.args(["--idle", "0"]).arg(std::env::current_exe()?).args(["hostile", &address.to_string()]);
        let child = command.stdin(Stdio::piped()).spawn().context("chrt (of util-linux) is missing")?;
        let mut sender = Self(child);
        sender.0.stdin.take().context("the sender has no input")?.write_all(hostile)?;
        Ok(sender)
    }

    fn ensure_sending(&mut self) -> anyhow::Result<()> {
        let ended = self.0.try_wait()?;
        ensure!(ended.is_none(), "the sender of hostile bodies ended: {ended:?}");
        Ok(())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends what it reads, ten times a second, each time over a connection of its own, until it is ended.
pub(super) fn send(address: SocketAddr) -> anyhow::Result<()> {
    let mut hostile = Vec::new();
    std::io::stdin().read_to_end(&mut hostile)?;
    loop {
        let began = Instant::now();
        let mut stream = TcpStream::connect(address)?;
        for (sent, piece) in hostile.chunks(PIECE).enumerate() {
            std::thread::sleep((PIECE_TIME * sent as u32).saturating_sub(began.elapsed()));
            stream.write_all(piece)?;
        }
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        ensure!(head.starts_with(b"HTTP/1.1 4"), "a hostile body was answered {}", head.escape_ascii());
        std::thread::sleep(BODIES.saturating_sub(began.elapsed()));
    }
}
