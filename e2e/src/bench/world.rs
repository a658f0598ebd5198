//! Everything that takes part, each in a process of its own: server, relay, nginx, and the proxy in four roles.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use mcpmesh_ir::policy::{AccessRule, Dimension, Effect, Limit, Rate, To};
use tempfile::TempDir;

use super::config::{Draft, endless, group, key_of, limit, rule, servers, tools, user};
use super::load::Connection;
use super::nginx;
use super::request::Caller;
use super::running::{Running, free};

/// Servers behind the gateways of W4, from number 1 on.
pub(super) const SERVERS: usize = 50;
/// Identities of W4.
pub(super) const IDENTITIES: usize = 20;
/// Principals of W9, each of which calls every tool.
pub(super) const PRINCIPALS: usize = 200;
/// The limit that W9 goes over.
pub(super) const TIGHT: Rate = Rate { count: 2_000, window_ms: 1_000, burst: 100 };

/// All processes. They end with it.
pub(super) struct World {
    pub(super) upstream: Running,
    pub(super) relay: Running,
    pub(super) nginx: Running,
    /// Anyone may do anything; no limits, no log.
    pub(super) off: Running,
    /// API keys, rules, limits, metrics and an access log.
    pub(super) on: Running,
    /// `/all`: 50 servers for anyone.
    pub(super) lists: Running,
    /// `/some`: the same for 20 identities that each see half of them, with limits and a log.
    pub(super) lists_on: Running,
    /// `/free`, `/hot`, `/tight` and `/keys`.
    pub(super) limits: Running,
    pub(super) folder: TempDir,
}

impl World {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("mcpmesh-bench-").tempdir()?;
        let own = std::env::current_exe()?;
        let address = free()?;
        let mut command = Command::new(&own);
        command.args(["upstream", &address.to_string()]);
        let upstream = Running::start("upstream", &mut command, address, folder.path())?;
        let (server, address) = (address, free()?);
        let mut command = Command::new(&own);
        command.args(["relay", &address.to_string(), &server.to_string()]);
        let relay = Running::start("relay", &mut command, address, folder.path())?;
        let nginx = nginx::start(folder.path(), server)?;
        let proxy = |name, drafts: &[Draft], log| proxy(&folder, name, (drafts, server), log);
        let world = Self {
            off: proxy("off", &[Draft::open("off", "/mcp/0", 0..1)], false)?,
            on: proxy("on", &[guarded()], true)?,
            lists: proxy("lists", &[Draft::open("all", "/all", 1..SERVERS + 1)], false)?,
            lists_on: proxy("lists-on", &[some()], true)?,
            limits: proxy("limits", &limited(), false)?,
            upstream,
            relay,
            nginx,
            folder,
        };
        world.settle().await?;
        Ok(world)
    }

    /// Waits until every list is there.
    async fn settle(&self) -> anyhow::Result<()> {
        let last = format!("s{SERVERS}_tool_9");
        let key = Caller::with_key(&key_of(0));
        let anyone = Caller::default();
        listed(&self.off, &anyone, "/mcp/0", "small").await?;
        listed(&self.on, &key, "/mcp/0", "small").await?;
        listed(&self.lists, &anyone, "/all", &last).await?;
        listed(&self.lists_on, &Caller::with_key(&key_of(1)), "/some", &last).await?;
        listed(&self.limits, &anyone, "/hot", "small").await?;
        listed(&self.limits, &key, "/keys", &last).await
    }

    /// Tool calls that have reached the server.
    pub(super) async fn calls(&self) -> anyhow::Result<u64> {
        let body = fetch(&self.upstream, &super::request::get("/count")).await?;
        Ok(String::from_utf8(body)?.parse()?)
    }
}

/// The body of one answer.
pub(super) async fn fetch(running: &Running, request: &Bytes) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    Connection::open(running.address).await?.exchange(request, Some(&mut body)).await?;
    Ok(body)
}

/// Opens a legacy session.
pub(super) async fn session(running: &Running, caller: &Caller, path: &str) -> anyhow::Result<String> {
    let mut connection = Connection::open(running.address).await?;
    let answer = connection.exchange(&caller.initialize(path), None).await?;
    ensure!(answer.status == 200, "{}: initialize was answered with {}", running.name, answer.status);
    connection.session.with_context(|| format!("{}: no session", running.name))
}

async fn listed(running: &Running, caller: &Caller, path: &str, tool: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let body = fetch(running, &caller.request(path, "tools/list", None)).await?;
        let body = String::from_utf8_lossy(&body);
        if body.contains(&format!("\"name\":\"{tool}\"")) {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(30) {
            bail!("{}: {path} does not list {tool}: {body:.500}", running.name);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The proxy's program: `MCPMESH_PROXY_BIN`, else the one beside this.
fn program() -> anyhow::Result<PathBuf> {
    let program = match std::env::var_os("MCPMESH_PROXY_BIN") {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?.with_file_name("mcpmesh-proxy"),
    };
    ensure!(program.is_file(), "{} is not built: cargo build --release -p mcpmesh-proxy", program.display());
    Ok(program)
}

/// A proxy with these gateways, of which each answers by its path.
pub(super) fn proxy(
    folder: &TempDir,
    name: &'static str,
    (drafts, upstream): (&[Draft], SocketAddr),
    log: bool,
) -> anyhow::Result<Running> {
    let path = folder.path().join(format!("{name}.json"));
    let snapshots: Vec<_> = drafts.iter().map(|draft| draft.snapshot(upstream)).collect::<Result<_, _>>()?;
    serde_json::to_writer(File::create(&path)?, &snapshots)?;
    let address = free()?;
    let mut command = Command::new(program()?);
    command.arg("--config").arg(&path).args(["--listen", &address.to_string()]);
    command.args(["--metrics", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    if log {
        command.arg("--access-log").arg(folder.path().join("access.log"));
    }
    Running::start(name, &mut command, address, folder.path())
}

/// Everything on: keys, ten rules, two limits.
fn guarded() -> Draft {
    let mut access = vec![
        rule("staff", Effect::Allow, vec![group("staff")], tools(&["small", "big", "report_*"])),
        rule("no-secret", Effect::Deny, vec![group("staff")], tools(&["secret"])),
    ];
    for number in 0..8 {
        let name = user(number);
        let globs = [&*format!("{name}_*"), "read_*"];
        access.push(rule(&name, Effect::Allow, vec![group(name.clone())], tools(&globs)));
    }
    Draft { users: IDENTITIES, access, limits: counted(), ..Draft::open("on", "/mcp/0", 0..1) }
}

/// Limits that are never reached.
fn counted() -> Vec<Limit> {
    vec![
        limit("caller", &[Dimension::Principal], endless()),
        limit("tool", &[Dimension::Server, Dimension::Tool], endless()),
    ]
}

fn some() -> Draft {
    let allows = |number: usize| -> AccessRule {
        // Half of the servers, another half for each identity; all see the last, by which the bench waits.
        let seen = (1..=SERVERS).filter(move |server| {
            (server * 7 + number * 3) % IDENTITIES < IDENTITIES / 2 || *server == SERVERS
        });
        rule(&user(number), Effect::Allow, vec![group(user(number))], servers(seen))
    };
    let access = (0..IDENTITIES).map(allows).collect();
    Draft { users: IDENTITIES, access, limits: counted(), ..Draft::open("some", "/some", 1..SERVERS + 1) }
}

fn limited() -> [Draft; 4] {
    let slow = Rate { count: 1, window_ms: 3_600_000, burst: 10 };
    let per = [Dimension::Principal, Dimension::Tool, Dimension::Server];
    let everyone = rule("all", Effect::Allow, vec![group("staff")], To::default());
    [
        Draft::open("free", "/free", 0..1),
        Draft { limits: vec![limit("hot", &[], endless())], ..Draft::open("hot", "/hot", 0..1) },
        Draft { limits: vec![limit("tight", &[], TIGHT)], ..Draft::open("tight", "/tight", 0..1) },
        Draft {
            users: PRINCIPALS,
            access: vec![everyone],
            limits: vec![limit("keys", &per, slow)],
            ..Draft::open("keys", "/keys", 1..SERVERS + 1)
        },
    ]
}
