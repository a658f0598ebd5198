//! The report: one table of goals and what was reached, then the numbers behind it. Markdown.

use std::fmt::Write as _;
use std::time::Duration;

use super::Plan;
use super::case::Case;
use super::workloads::Latency;
use super::{cold, mesh, neighbours};

/// All that was measured.
#[derive(Default)]
pub(super) struct Findings<'w> {
    pub(super) cases: Vec<Case<'w>>,
    pub(super) latency: Option<Latency>,
    /// KiB a stalled large call.
    pub(super) stalled: Vec<(&'static str, f64)>,
    /// When a large result begins.
    pub(super) first_byte: Vec<cold::FirstByte>,
    /// First lists, and a server that hangs.
    pub(super) cold: Option<cold::Cold>,
    /// Admitted over allowed.
    pub(super) admitted: Option<f64>,
    /// Buckets, and bytes of each.
    pub(super) keys: Option<(usize, f64)>,
    /// Refused calls that reached the server.
    pub(super) leaked: Option<u64>,
    /// Calls beside hostile bodies.
    pub(super) neighbours: Vec<neighbours::Beside>,
    /// W7 and W8.
    pub(super) mesh: Option<mesh::Found>,
    pub(super) elapsed: Duration,
}

impl<'w> Findings<'w> {
    pub(super) fn case(&self, name: &str) -> Option<&Case<'w>> {
        self.cases.iter().find(|case| case.name == name)
    }
}

/// One line of the table.
struct Line {
    workload: &'static str,
    what: String,
    goal: &'static str,
    reached: String,
    met: bool,
    bound: &'static str,
}

/// Renders the page.
pub(super) fn render(plan: &Plan, findings: &Findings<'_>) -> String {
    let mut out = String::from(HEAD);
    out.push_str("\n| # | workload | goal | reached | | what bounds it |\n|---|---|---|---|---|---|\n");
    for line in lines(findings) {
        let met = if line.met { "met" } else { "not met" };
        let Line { workload, what, goal, reached, bound, .. } = line;
        let _ = writeln!(out, "| {workload} | {what} | {goal} | {reached} | {met} | {bound} |");
    }
    details(&mut out, findings);
    if let Some(found) = &findings.mesh {
        setup(&mut out, found);
    }
    machine(&mut out, plan, findings);
    out
}

fn lines(findings: &Findings<'_>) -> Vec<Line> {
    let mut lines = Vec::new();
    for case in findings.cases.iter().filter(|case| case.name.starts_with("W1 ")) {
        let what = case.name.trim_start_matches("W1 ");
        let (off, on) = (case.ratio("off", "nginx"), case.ratio("on", "nginx"));
        let small = |features: &str| format!("small tools/call, {what} connections, {features}");
        lines.push(line("W1", small("OFF"), "CPU <= 1.1x nginx", (format!("{off:.2}x"), off <= 1.1), CALL));
        lines.push(line("W1", small("ON"), "CPU <= 1.3x nginx", (format!("{on:.2}x"), on <= 1.3), FEATURES));
    }
    latency_lines(findings, &mut lines);
    large_lines(findings, &mut lines);
    list_lines(findings, &mut lines);
    if let Some(found) = &findings.mesh {
        propagation_lines(found, &mut lines);
        restart_lines(found, &mut lines);
    }
    limit_lines(findings, &mut lines);
    flood_lines(findings, &mut lines);
    lines
}

fn line(
    workload: &'static str,
    what: impl Into<String>,
    goal: &'static str,
    (reached, met): (String, bool),
    bound: &'static str,
) -> Line {
    Line { workload, what: what.into(), goal, reached, met, bound }
}

fn latency_lines(findings: &Findings<'_>, lines: &mut Vec<Line>) {
    let Some(latency) = &findings.latency else { return };
    let of = |name: &str| latency.rows.iter().find(|row| row.0 == name);
    let Some((_, direct50, direct99)) = of("direct") else { return };
    for (name, features) in [("off", "OFF"), ("on", "ON")] {
        let Some((_, p50, p99)) = of(name) else { continue };
        let (p50, p99) = (p50 - direct50, p99 - direct99);
        let what = format!("added latency at 30 % load, {features}");
        let reached = format!("p50 {p50:.0} us, p99 {p99:.0} us");
        lines.push(line(
            "W1",
            what,
            "p50 <= 60 us, p99 <= 200 us",
            (reached, p50 <= 60.0 && p99 <= 200.0),
            WAKE,
        ));
    }
}

fn large_lines(findings: &Findings<'_>, lines: &mut Vec<Line>) {
    if let Some(case) = findings.case("W2, 4") {
        for (name, features) in [("off", "OFF"), ("on", "ON")] {
            let ratio = case.ratio(name, "nginx");
            let what = format!("tools/call with a 1 MiB result, {features}");
            lines.push(line("W2", what, "CPU <= 0.7x nginx", (format!("{ratio:.2}x"), ratio <= 0.7), COPY));
        }
    }
    if let Some((_, held)) = findings.stalled.iter().find(|row| row.0 == "off") {
        let reached = (format!("{held:.0} KiB"), *held <= 128.0);
        lines.push(line("W2", "memory of a call in flight", "<= 128 KiB", reached, BUFFERS));
    }
    let of = |name: &str| findings.first_byte.iter().find(|row| row.name == name);
    if let (Some(off), Some(nginx)) = (of("off"), of("nginx")) {
        let reached = format!(
            "after {:.0} us, the last after {:.0} us; nginx {:.0} us",
            off.first, off.last, nginx.first
        );
        let good = off.first <= off.last / 2.0;
        lines.push(line("W2", "first byte of it", "not delayed: nothing buffered", (reached, good), WAKE));
    }
}

fn list_lines(findings: &Findings<'_>, lines: &mut Vec<Line>) {
    for (kind, name, goal, least) in [
        ("warm", "off", ">= 0.85x a static file of nginx", 0.85),
        ("filtered", "on", ">= 0.7x a static file of nginx", 0.7),
    ] {
        let Some(case) = findings.case(&format!("W4 {kind}, 16")) else { continue };
        let ratio = 1.0 / case.ratio(name, "nginx");
        let what = format!("tools/list, 500 tools of 50 servers, {kind}, {}", name.to_uppercase());
        lines.push(line("W4", what, goal, (format!("{ratio:.2}x"), ratio >= least), LIST));
    }
    if let Some(cold) = &findings.cold {
        let reached = (format!("+ {:.1} ms", cold.added), cold.added <= 2.0);
        lines.push(line("W4", "first list of a new process", "slowest server + 2 ms", reached, COLD));
        let (lists, calls) = cold.beside_hung;
        let reached = (format!("list {lists:.2}x, call {calls:.2}x"), lists <= 1.1 && calls <= 1.1);
        lines.push(line("W4", "while one server hangs", "delays nobody", reached, "-"));
    }
}

fn propagation_lines(found: &mesh::Found, lines: &mut Vec<Line>) {
    let goal = "p99 <= 30 ms, cap 100";
    let mesh::Size { proxies, .. } = found.size;
    let what = [
        (&found.single, "one change, its own fleet has it".to_owned()),
        (&found.fan_out, format!("one change, {} proxies of one fleet have it", proxies - 1)),
        (&found.steady, "100 changes a second, each fleet has its own".to_owned()),
        (&found.real, "one change of a policy, calls through the real proxy obey it".to_owned()),
    ];
    for (spread, what) in what {
        let reached =
            format!("p50 {:.1} ms, p99 {:.1} ms ({} changes)", spread.p50, spread.p99, spread.count);
        lines.push(line("W7", what, goal, (reached, spread.p99 <= 30.0), PUSH));
    }
    let watched = &found.watched;
    let reached = format!(
        "p99 <= {:.0} ms; {:.2} % within 30 ms, {:.2} % within 100 ms ({:.0} acknowledgements)",
        watched.p99,
        watched.within_30 * 100.0,
        watched.within_100 * 100.0,
        watched.count
    );
    let what = "all of these, from the operator's watch event to the acknowledgement";
    lines.push(line("W7", what, goal, (reached, watched.p99 <= 30.0), OPERATOR));
    let reached = format!("{} bytes at most", found.bytes);
    lines.push(line(
        "W7",
        "bytes of one change to one proxy",
        "O(1)",
        (reached, found.bytes < 4_096),
        RESOURCE,
    ));
    let synced = found.full_sync.as_secs_f64();
    let what = format!("full sync, {proxies} proxies at once");
    lines.push(line("W7", what, "<= 3 s", (format!("{synced:.2} s"), synced <= 3.0), SYNC));
    let (asked, failed) = found.requests;
    let reached = (format!("{failed} of {asked}"), failed == 0);
    lines.push(line("W7", "failed requests meanwhile", "none", reached, "-"));
    let memory = |kib: u64, limit: f64| {
        let mib = kib as f64 / 1024.0;
        (format!("{mib:.0} MiB"), mib <= limit)
    };
    lines.push(line("W7", "operator, resident", "<= 512 MiB", memory(found.operator_rss, 512.0), OBJECTS));
    lines.push(line("W7", "real proxy, resident", "<= 60 MiB", memory(found.proxy_rss, 60.0), FLEET));
}

fn restart_lines(found: &mesh::Found, lines: &mut Vec<Line>) {
    let restart = &found.restart;
    let what = format!("operator restarted over {} servers: all looked at", found.size.objects());
    let reached = format!("{:.1} s, {:.0} writes", restart.operator, restart.writes);
    let good = restart.operator < 30.0 && restart.writes == 0.0;
    lines.push(line("W8", what, "< 30 s, 0 writes", (reached, good), LIST_OBJECTS));
    let what = format!("writes in {:.0} s while nothing changes", found.idle.as_secs_f64());
    let reached = (format!("{:.0}", found.idle_writes), found.idle_writes == 0.0);
    lines.push(line("W8", what, "0", reached, "-"));
    let ready = (format!("{:.0} ms", restart.proxy.ready), restart.proxy.ready <= 50.0);
    lines.push(line("W8", "proxy ready from its disk, no operator", "<= 50 ms", ready, PREPARE));
    let rss = restart.proxy.rss as f64 / 1024.0;
    let what = format!("that proxy at rest, with {} servers", found.size.servers);
    lines.push(line("W8", what, "<= 12 MiB", (format!("{rss:.1} MiB"), rss <= 12.0), REST));
}

fn limit_lines(findings: &Findings<'_>, lines: &mut Vec<Line>) {
    if let Some(case) = findings.case("W9 hot, 16") {
        let ratio = 1.0 / case.ratio("hot", "free");
        let reached = (format!("{ratio:.2}x"), ratio >= 0.95);
        lines.push(line("W9", "one hot key", ">= 0.95x of limits off", reached, BUCKET));
    }
    if let Some(admitted) = findings.admitted {
        let over = (admitted - 1.0).max(0.0) * 100.0;
        let reached = (format!("{over:.1} %"), over <= 1.0);
        lines.push(line("W9", "over-admission", "<= 1 % + burst", reached, GCRA));
    }
    if let Some((keys, bytes)) = findings.keys {
        let what = format!("{keys} keys");
        let reached = (format!("{bytes:.0} bytes"), bytes <= 128.0);
        lines.push(line("W9", what, "<= 128 bytes a key", reached, MAP));
    }
}

fn flood_lines(findings: &Findings<'_>, lines: &mut Vec<Line>) {
    if let Some(case) = findings.case("W10, 16") {
        for name in ["denied", "unknown", "bad key"] {
            let ratio = case.ratio(name, "allowed");
            let reached = (format!("{ratio:.2}x"), ratio <= 0.5);
            lines.push(line(
                "W10",
                format!("flood: {name}"),
                "CPU <= 0.5x of an allowed call",
                reached,
                REFUSE,
            ));
        }
    }
    if let Some(leaked) = findings.leaked {
        let reached = (format!("{leaked} calls"), leaked == 0);
        lines.push(line("W10", "what reaches the server", "nothing", reached, "-"));
    }
    for beside in &findings.neighbours {
        let what = format!("small calls beside 10 bodies a second, sent at 1 Gbit/s: {}", beside.what);
        let mut reached = format!("p50 {:.2}x, p99 {:.2}x", beside.p50, beside.p99);
        if let Some(nginx) = beside.nginx {
            let _ = write!(reached, "; nginx, which refuses it unread: p99 {nginx:.2}x");
        }
        lines.push(line("W10", what, "p99 <= 1.1x of alone", (reached, beside.p99 <= 1.1), SHARE));
    }
}

fn details(out: &mut String, findings: &Findings<'_>) {
    out.push_str("\n## CPU of the process, microseconds a request (and requests a second)\n\n");
    for case in &findings.cases {
        let _ = write!(out, "- {} connections: ", case.name);
        for contestant in &case.contestants {
            let (cpu, rate) = (case.cpu(contestant.name), case.per_second(contestant.name));
            let _ = write!(out, "{} **{cpu:.1}** ({rate:.0}/s); ", contestant.name);
        }
        if let Some(first) = case.contestants.first() {
            let _ = writeln!(out, "spread of {}: {:.2}x", first.name, case.spread(first.name));
        }
    }
    if let Some(case) = findings.case("W9 hot, 16") {
        let ratio = case.throughput_ratio("hot", "free");
        let _ = writeln!(out, "- W9, throughput with the hot limit over without: {ratio:.2}x");
    }
    if let Some(latency) = &findings.latency {
        let _ = writeln!(
            out,
            "\n## Latency of a small modern call at {:.0} a second, microseconds\n",
            latency.rate
        );
        for (name, p50, p99) in &latency.rows {
            let _ = writeln!(out, "- {name}: p50 {p50:.0}, p99 {p99:.0}");
        }
    }
    if !findings.stalled.is_empty() {
        out.push_str("\n## Memory of a 1 MiB call whose client does not read, KiB\n\n");
        for (name, held) in &findings.stalled {
            let _ = writeln!(out, "- {name}: {held:.0}");
        }
    }
}

/// How W7 and W8 were set up.
fn setup(out: &mut String, found: &mesh::Found) {
    let mesh::Size { namespaces, servers, proxies } = found.size;
    let _ = write!(
        out,
        "\n## How W7 and W8 were set up\n\n{namespaces} namespaces, each with a gateway, a policy, a Service and {servers} \
         McpServers behind it, on a real API server and etcd (tier 1 of `e2e/cluster`) on the same machine, which needs most \
         of it: times from the API server's answer hold its watch, too. Of {proxies} proxies one is real, for gateway t0/main; \
         the others are subscribers with a connection and a token of their own, that decode and acknowledge: each of another \
         gateway, and for \"one fleet\" all of t0/main. A change sets a timeout of one McpServer; percentiles are the medians \
         of those of each repetition. The operator's own count is in `mcpmesh_operator_propagation_seconds`. For the restart no \
         proxy is connected.\n"
    );
}

fn machine(out: &mut String, plan: &Plan, findings: &Findings<'_>) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    let _ = write!(
        out,
        "\n## The run\n\n{} repetitions, scale {}, {:.0} s, on {cores} cores ({}), Linux {}. Load average at the end: \
         {load} (the bench alone makes about 2). A spread above 1.2x says that others used the machine meanwhile: run it \
         again when it is quiet.\n",
        plan.repetitions,
        plan.scale,
        findings.elapsed.as_secs_f64(),
        model.unwrap_or("unknown"),
        kernel.trim(),
    );
}

const HEAD: &str = "<!-- Generated by `make bench`; do not edit. -->
# Benchmarks

What MCP Mesh costs beside a plain reverse proxy. One run on one machine over loopback: an MCP server (hyper, its own
process), the load (keep-alive connections, a fixed number of requests, answers read to the last byte), and in between,
in turn, nginx (Debian's, one worker, keep-alive to the server, `proxy_buffering off`), a relay that is nothing but
hyper, and `mcpmesh-proxy`. Every comparison is repeated, interleaved, whoever begins changes; a number is the median,
a ratio the median of the ratios within each repetition. CPU is what the scheduler charged to the proxy's process.

OFF: anyone may call anything, no limits, no log. ON: an API key for each request, ten access rules, two limits (per
principal; per server and tool), metrics and an access log to a file. Metrics are counted in both. A filtered list is ON
for 20 identities, a rule for each; W9 is a limit next to none; what W10 refuses is refused by ON.
";

const CALL: &str =
    "112,000 instructions, the relay 43,000 (callgrind): JSON, headers, futures, pieces of memory";
const FEATURES: &str = "as OFF, and one SHA-256, two buckets, a line of the log";
const WAKE: &str = "two more wake-ups of a thread than without a proxy";
const COPY: &str = "system calls that copy 1 MiB twice; the scanner reads every byte once";
const BUFFERS: &str = "hyper's read buffer and what waits in it for the client";
const LIST: &str = "reading and judging the request costs more than all that nginx does for a file";
const COLD: &str = "two answers in a row, what a server is and what it has; the rest is the first of everything: connections, names, the list";
const BUCKET: &str = "one atomic in one shard of a map";
const GCRA: &str = "exact by construction";
const MAP: &str =
    "a 16-byte key and an 8-byte state in a hash map that doubles; measured as growth of the whole process";
const REFUSE: &str = "the HTTP and the JSON of the request, which are read before it is refused";
const SHARE: &str = "two processors for the sender, the proxy, the server and the load";
const PUSH: &str = "the API server's watch, on cores shared with it; then as the operator's";
const OPERATOR: &str = "a compile of the namespace, at most one in 5 ms; TLS and decoding for each proxy";
const RESOURCE: &str = "one resource, and the highest resourceVersion of each kind";
const SYNC: &str = "TLS handshakes and TokenReviews on two cores";
const OBJECTS: &str = "the objects as they are, and what was compiled of them";
const FLEET: &str = "the catalogue and the connections of its servers";
const REST: &str = "half is the program itself, which the proxies of a node share; then as above";
const LIST_OBJECTS: &str = "the API server's lists";
const PREPARE: &str = "the start of the process; decrypting and preparing the fleet";
