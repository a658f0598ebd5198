//! What does not repeat: the first byte of a large result, the first list of a proxy that has just started, and lists
//! and calls while one server hangs.

use std::time::Instant;

use anyhow::ensure;
use bytes::Bytes;

use super::Plan;
use super::case::{median, micros};
use super::config::Draft;
use super::load::Connection;
use super::request::Caller;
use super::running::Running;
use super::upstream::{HUNG, SLOW, SLOWNESS};
use super::world::{SERVERS, World, fetch, proxy};

/// Microseconds to the first byte of a large result's body, and to its last.
pub(super) struct FirstByte {
    pub(super) name: &'static str,
    pub(super) first: f64,
    pub(super) last: f64,
}

/// W2: when a large result begins to come.
pub(super) async fn first_byte(world: &World, plan: &Plan) -> anyhow::Result<Vec<FirstByte>> {
    let request = Caller::default().request("/mcp/0", "tools/call", Some("big"));
    let mut found = Vec::new();
    for running in [&world.upstream, &world.nginx, &world.relay, &world.off] {
        let mut connection = Connection::open(running.address).await?;
        let (mut first, mut last) = (Vec::new(), Vec::new());
        for _ in 0..plan.scaled(200) {
            let began = Instant::now();
            connection.send(&request).await?;
            connection.begin().await?;
            first.push(micros(began.elapsed()));
            connection.receive(None).await?;
            last.push(micros(began.elapsed()));
        }
        let (first, last) = (median(first.into_iter()), median(last.into_iter()));
        found.push(FirstByte { name: running.name, first, last });
    }
    Ok(found)
}

/// Lists of 50 servers, one of which is slow or hangs.
pub(super) struct Cold {
    /// Milliseconds from the first connection to the whole list, beyond the two answers of the slowest server.
    pub(super) added: f64,
    /// Median times of a warm list and of a call with a server that hangs, over those without it.
    pub(super) beside_hung: (f64, f64),
}

/// W4: the first list, and a server that hangs.
pub(super) async fn cold(world: &World, plan: &Plan) -> anyhow::Result<Cold> {
    let mut added = Vec::new();
    for _ in 0..plan.repetitions {
        added.push(first_list(world).await?);
    }
    let start = |name, last| proxy(&world.folder, name, (&[fifty(last)], world.upstream.address), false);
    let (whole, hung) = (start("whole", SERVERS)?, start("hung", HUNG)?);
    let ask = |method, name: Option<&str>| Caller::default().request("/all", method, name);
    // The first list waits for the server that hangs as long as any waits.
    for running in [&whole, &hung] {
        fetch(running, &ask("tools/list", None)).await?;
    }
    let mut ratios = [Vec::new(), Vec::new()];
    for _ in 0..plan.repetitions {
        for (ratios, request) in
            ratios.iter_mut().zip([ask("tools/list", None), ask("tools/call", Some("s1_tool_0"))])
        {
            let whole = typical(&whole, &request, plan).await?;
            ratios.push(typical(&hung, &request, plan).await? / whole);
        }
    }
    let [lists, calls] = ratios.map(|ratios| median(ratios.into_iter()));
    Ok(Cold { added: median(added.into_iter()), beside_hung: (lists, calls) })
}

/// An open gateway over 50 servers, the last of which is given.
fn fifty(last: usize) -> Draft {
    Draft { servers: (1..SERVERS).chain([last]).collect(), ..Draft::open("all", "/all", 0..0) }
}

/// Median microseconds of an answer on one connection.
async fn typical(running: &Running, request: &Bytes, plan: &Plan) -> anyhow::Result<f64> {
    let mut connection = Connection::open(running.address).await?;
    let mut all = Vec::new();
    for _ in 0..plan.scaled(300) {
        let began = Instant::now();
        let answer = connection.exchange(request, None).await?;
        ensure!(answer.status == 200, "{}: {answer:?}", running.name);
        all.push(micros(began.elapsed()));
    }
    Ok(median(all.into_iter()))
}

/// Starts a proxy over 50 servers and asks it for its list at once.
async fn first_list(world: &World) -> anyhow::Result<f64> {
    let running = proxy(&world.folder, "cold", (&[fifty(SLOW)], world.upstream.address), false)?;
    let began = Instant::now();
    let body = fetch(&running, &Caller::default().request("/all", "tools/list", None)).await?;
    let took = began.elapsed();
    let slow = format!("\"s{SLOW}_tool_9\"");
    ensure!(
        String::from_utf8_lossy(&body).contains(&slow),
        "the first list lacks the slow server: {took:?} {:.300}",
        String::from_utf8_lossy(&body)
    );
    Ok(took.saturating_sub(2 * SLOWNESS).as_secs_f64() * 1e3)
}
