//! The workloads of `performance.md` as far as this issue goes: what is sent, and to whom.

use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;

use super::Plan;
use super::case::{Case, Contestant, median, micros};
use super::config::{key_of, user};
use super::load::{Connection, Load, paced};
use super::request::{Caller, get};
use super::running::Running;
use super::upstream::{LARGE, TOOLS};
use super::world::{IDENTITIES, PRINCIPALS, SERVERS, TIGHT, World, fetch, session};

pub(super) const PATH: &str = "/mcp/0";
const SMALL: &str = "It is 14:05 in Berlin";
/// Calls in flight whose memory is measured.
const STALLED: usize = 64;

/// W1 in one era: the small call at four contestants.
pub(super) async fn small<'w>(
    world: &'w World,
    plan: &Plan,
    (era, legacy): (&str, bool),
    connections: usize,
) -> anyhow::Result<Case<'w>> {
    let mut contestants = Vec::new();
    for (name, running) in
        [("nginx", &world.nginx), ("relay", &world.relay), ("off", &world.off), ("on", &world.on)]
    {
        let caller = if name == "on" { Caller::with_key(&key_of(0)) } else { Caller::default() };
        let requests = calls(running, &caller, legacy, connections).await?;
        contestants.push(Contestant::new(name, running, requests, SMALL));
    }
    let total = plan.scaled(if connections == 1 { 3_000 } else { 6_000 });
    Ok(Case::new(format!("W1 {era}, {connections}"), connections, total, contestants))
}

async fn calls(
    running: &Running,
    caller: &Caller,
    legacy: bool,
    connections: usize,
) -> anyhow::Result<Vec<Bytes>> {
    if !legacy {
        return Ok(vec![caller.request(PATH, "tools/call", Some("small"))]);
    }
    let mut sessions = Vec::new();
    for _ in 0..connections.min(32) {
        sessions.push(session(running, caller, PATH).await?);
    }
    // Ids are unique among the calls of a session that are in flight.
    let requests = (0..connections * 16).map(|id| {
        let session = sessions.get(id % sessions.len()).cloned();
        Caller { session, id, ..caller.clone() }.request(PATH, "tools/call", Some("small"))
    });
    Ok(requests.collect())
}

/// W2: a result of 1 MiB.
pub(super) fn large<'w>(world: &'w World, plan: &Plan) -> Case<'w> {
    let contestant = |name, running, key: Option<String>| {
        let request = Caller { key, ..Caller::default() }.request(PATH, "tools/call", Some("big"));
        Contestant::new(name, running, vec![request], "request 0000001")
    };
    let contestants = vec![
        contestant("nginx", &world.nginx, None),
        contestant("relay", &world.relay, None),
        contestant("off", &world.off, None),
        contestant("on", &world.on, Some(key_of(0))),
    ];
    Case::new("W2, 4", 4, plan.scaled(200), contestants)
}

/// KiB that a large call holds while its client does not read.
pub(super) async fn stalled(running: &Running) -> anyhow::Result<f64> {
    let request = Caller::default().request(PATH, "tools/call", Some("big"));
    let mut connections = Vec::new();
    for _ in 0..STALLED {
        connections.push(Connection::open(running.address).await?);
    }
    for connection in &mut connections {
        connection.exchange(&Caller::default().request(PATH, "tools/call", Some("small")), None).await?;
    }
    let before = running.rss();
    for connection in &mut connections {
        connection.send(&request).await?;
    }
    // Nothing tells when a process has stopped taking memory: it has, once every socket is full.
    tokio::time::sleep(Duration::from_millis(700)).await;
    let held = running.rss().saturating_sub(before) as f64 / STALLED as f64;
    for connection in &mut connections {
        let answer = connection.receive(None).await?;
        ensure!(answer.bytes > LARGE, "{}: a large result came short: {answer:?}", running.name);
    }
    Ok(held)
}

/// W4: lists of 500 tools, and those of 20 identities, next to files of the same bytes.
pub(super) async fn lists<'w>(world: &'w World, plan: &Plan) -> anyhow::Result<[Case<'w>; 2]> {
    let anyone = vec![Caller::default().request("/all", "tools/list", None)];
    let identities: Vec<_> = (0..IDENTITIES)
        .map(|number| Caller::with_key(&key_of(number)).request("/some", "tools/list", None))
        .collect();
    let name = |kind: &str, number: usize| format!("/static/{kind}-{}.json", user(number));
    let mut cases = Vec::new();
    for (kind, name_of, running, requests) in
        [("warm", "off", &world.lists, anyone), ("filtered", "on", &world.lists_on, identities)]
    {
        let mut files = Vec::new();
        for (number, request) in requests.iter().enumerate() {
            let path = name(kind, number);
            let body = fetch(running, request).await?;
            std::fs::write(world.folder.path().join(path.trim_start_matches('/')), body)?;
            files.push(get(&path));
        }
        let contestants = vec![
            Contestant::new("nginx", &world.nginx, files, "\"s50_tool_9\""),
            Contestant::new(name_of, running, requests, "\"s50_tool_9\""),
        ];
        cases.push(Case::new(format!("W4 {kind}, 16"), 16, plan.scaled(1_500), contestants));
    }
    cases.try_into().map_err(|_| anyhow::anyhow!("two lists"))
}

/// W9: one bucket for everyone, next to no limit.
pub(super) fn hot<'w>(world: &'w World, plan: &Plan) -> Case<'w> {
    let contestant = |name, path| {
        let request = Caller::default().request(path, "tools/call", Some("small"));
        Contestant::new(name, &world.limits, vec![request], SMALL)
    };
    let contestants = vec![contestant("free", "/free"), contestant("hot", "/hot")];
    Case::new("W9 hot, 16", 16, plan.scaled(6_000), contestants)
}

/// What was admitted over what the rate and its burst allow.
pub(super) async fn over_admission(world: &World, plan: &Plan) -> anyhow::Result<f64> {
    let request = [Caller::default().request("/tight", "tools/call", Some("small"))];
    let mut load = Load::open(world.limits.address, 16).await?;
    let ran = load.run(&request, plan.scaled(12_000)).await?;
    ensure!(ran.count(200) + ran.count(429) > 0 && ran.count(429) > 0, "no limit: {:?}", ran.statuses);
    let allowed = f64::from(TIGHT.burst) + f64::from(TIGHT.count) * ran.elapsed.as_secs_f64();
    Ok(ran.count(200) as f64 / allowed)
}

/// Bytes that one bucket takes, of some 100,000.
pub(super) async fn bytes_a_key(world: &World, plan: &Plan) -> anyhow::Result<(usize, f64)> {
    let tools = SERVERS * TOOLS;
    let requests = |principals: std::ops::Range<usize>| -> Vec<Bytes> {
        let of = |principal| {
            let caller = Caller::with_key(&key_of(principal));
            (0..tools).map(move |tool| {
                let name = format!("s{}_tool_{}", tool / TOOLS + 1, tool % TOOLS);
                caller.request("/keys", "tools/call", Some(&name))
            })
        };
        principals.flat_map(of).collect()
    };
    let mut load = Load::open(world.limits.address, 16).await?;
    // The first principal's calls bring everything else to its size.
    let warm = requests(0..1);
    for _ in 0..8 {
        load.run(&warm, warm.len()).await?;
    }
    let last = ((PRINCIPALS - 1) as f64 * plan.scale.min(1.0)).ceil() as usize;
    let before = world.limits.rss();
    let mut keys = 0;
    for principal in 1..=last {
        let requests = requests(principal..principal + 1);
        let ran = load.run(&requests, requests.len()).await?;
        ensure!(ran.count(200) == requests.len(), "/keys answered {:?}", ran.statuses);
        keys += requests.len();
    }
    let grown = world.limits.rss().saturating_sub(before);
    Ok((keys, (grown * 1024) as f64 / keys as f64))
}

/// W10: what is refused, next to an allowed call.
pub(super) fn floods<'w>(world: &'w World, plan: &Plan) -> Case<'w> {
    let key = key_of(0);
    let contestant = |name, key: &str, tool, status, holds| {
        let request = Caller::with_key(key).request(PATH, "tools/call", Some(tool));
        let contestant = Contestant::new(name, &world.on, vec![request], holds);
        Contestant { status, ..contestant }
    };
    let contestants = vec![
        contestant("allowed", &key, "small", 200, SMALL),
        contestant("denied", &key, "secret", 200, "error"),
        contestant("unknown", &key, "no_such_tool", 200, "error"),
        contestant("bad key", "mcpmesh_bench_not_a_key_at_all", "small", 401, "error"),
    ];
    Case::new("W10, 16", 16, plan.scaled(4_000), contestants)
}

/// Calls that reached the server during floods alone.
pub(super) async fn leaked(world: &World) -> anyhow::Result<u64> {
    let before = world.calls().await?;
    for (key, tool) in [(&*key_of(0), "secret"), (&*key_of(0), "no_such_tool"), ("not-a-key-at-all", "small")]
    {
        let request = [Caller::with_key(key).request(PATH, "tools/call", Some(tool))];
        Load::open(world.on.address, 16).await?.run(&request, 1_000).await?;
    }
    Ok(world.calls().await? - before)
}

/// Latencies at one rate, in microseconds: medians over the repetitions of p50 and p99, directly and through each.
pub(super) struct Latency {
    pub(super) rate: f64,
    pub(super) rows: Vec<(&'static str, f64, f64)>,
}

/// Asks at 30 % of `saturated` calls a second, on two connections.
pub(super) fn latency(world: &World, plan: &Plan, saturated: f64) -> anyhow::Result<Latency> {
    let rate = saturated * 0.3;
    let interval = Duration::from_secs_f64(2.0 / rate);
    let total = plan.scaled(700);
    let contestants = [
        ("direct", &world.upstream),
        ("nginx", &world.nginx),
        ("relay", &world.relay),
        ("off", &world.off),
        ("on", &world.on),
    ];
    let mut samples = vec![Vec::new(); contestants.len()];
    for repetition in 0..plan.repetitions {
        for turn in 0..contestants.len() {
            let index = (turn + repetition) % contestants.len();
            let (name, running) = contestants[index];
            let caller = if name == "on" { Caller::with_key(&key_of(0)) } else { Caller::default() };
            let request = caller.request(PATH, "tools/call", Some("small"));
            let took = std::thread::scope(|scope| {
                let one = || paced(running.address, &request, total, interval);
                // Collected: both begin before either is waited for.
                let both: Vec<_> = (0..2).map(|_| scope.spawn(one)).collect();
                let mut took = Vec::with_capacity(2 * total);
                for one in both {
                    took.extend(one.join().map_err(|_| anyhow::anyhow!("the load ended in a panic"))??);
                }
                anyhow::Ok(took)
            })?;
            samples[index].push(percentiles(took));
        }
    }
    let rows = contestants.iter().zip(&samples).map(|((name, _), samples)| {
        let median_of = |pick: fn(&(f64, f64)) -> f64| median(samples.iter().map(pick));
        (*name, median_of(|sample| sample.0), median_of(|sample| sample.1))
    });
    Ok(Latency { rate, rows: rows.collect() })
}

pub(super) fn percentiles(mut took: Vec<Duration>) -> (f64, f64) {
    took.sort_unstable();
    let at = |part: usize| took.get(took.len() * part / 100).copied().map_or(f64::NAN, micros);
    (at(50), at(99))
}
