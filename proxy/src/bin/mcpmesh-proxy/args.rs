//! The command line.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use mcpmesh_ir::{FleetId, ServerId};
use mcpmesh_proxy::push::Operator;
use url::Url;

/// Serves MCP gateways: from a file, or as an operator says.
///
/// With --config: the file holds a JSON array of snapshots, the unit that an operator pushes. SIGHUP
/// reads it again; a file that cannot be read changes nothing.
///
/// With --operator: subscribes to the operator as a proxy of --fleet, keeps the last good
/// configuration encrypted on disk and serves it at once after a restart.
///
/// SIGTERM: no longer ready at once, serves on for --drain-delay, then finishes what is in flight
/// within --drain. Exit codes: 0 ended as asked, 1 failed, 2 wrong use.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) serve: Serve,
}

const EXAMPLES: &str = "Examples:
  mcpmesh-proxy --config snapshots.json --listen 127.0.0.1:8080
  mcpmesh-proxy --operator mcpmesh-operator.mcpmesh-system.svc:9443 --fleet gateway/team-a/main \\
      --listen-address 0.0.0.0 --metrics 0.0.0.0:17020
  mcpmesh-proxy bridge --operator HOST:9443 --fleet server/team-a/files -- npx --yes mcp-files@1.2.3
  mcpmesh-proxy sidecar --operator HOST:9443 --fleet server/team-a/api --upstream http://127.0.0.1:3000/mcp
  mcpmesh-proxy copy /mcpmesh/mcpmesh-proxy";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a stdio server and serves it to the mesh.
    ///
    /// ARGV is started when a connection needs it, with the environment of this process but for
    /// MCPMESH_* and POD_*. Nothing that comes over the network can start anything else.
    #[command(after_help = "Example:
  mcpmesh-proxy bridge --operator HOST:9443 --fleet server/team-a/files -- npx --yes mcp-files@1.2.3")]
    Bridge(Bridge),
    /// Serves the HTTP server beside it to the mesh.
    #[command(after_help = "Example:
  mcpmesh-proxy sidecar --operator HOST:9443 --fleet server/team-a/api --upstream http://127.0.0.1:3000/mcp")]
    Sidecar(Sidecar),
    /// Copies this program to a file, for another container to run.
    #[command(after_help = "Example:
  mcpmesh-proxy copy /mcpmesh/mcpmesh-proxy")]
    Copy {
        /// The file; replaced as a whole, mode 0755.
        dest: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The compiled configuration.
    #[arg(long, value_name = "FILE", required_unless_present = "operator", conflicts_with = "operator")]
    pub(crate) config: Option<PathBuf>,
    /// The operator, which configures this proxy. Its certificate must name HOST.
    #[arg(long, value_name = "HOST:PORT", requires = "fleet", value_parser = operator)]
    pub(crate) operator: Option<String>,
    /// Whose proxy this is: gateway/NAMESPACE/NAME or server/NAMESPACE/NAME.
    #[arg(long, value_name = "FLEET", requires = "operator", conflicts_with = "config")]
    pub(crate) fleet: Option<FleetId>,
    /// Where clients come, with --config: it stands for the ports of all listeners.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080", conflicts_with = "operator")]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) address: Address,
    #[command(flatten)]
    pub(crate) folders: Folders,
    #[command(flatten)]
    pub(crate) process: Process,
}

#[derive(Debug, Args)]
pub(crate) struct Bridge {
    #[command(flatten)]
    pub(crate) member: Member,
    /// The server's command line.
    #[arg(last = true, required = true, value_name = "ARGV")]
    pub(crate) argv: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Sidecar {
    /// The server's MCP endpoint, on loopback.
    #[arg(long, value_name = "URL", value_parser = loopback)]
    pub(crate) upstream: Url,
    #[command(flatten)]
    pub(crate) member: Member,
}

/// A sidecar of a server.
#[derive(Debug, Args)]
pub(crate) struct Member {
    /// The operator, which configures this proxy. Its certificate must name HOST.
    #[arg(long, value_name = "HOST:PORT", value_parser = operator)]
    pub(crate) operator: String,
    /// Whose sidecar this is: server/NAMESPACE/NAME.
    #[arg(long, value_name = "FLEET", value_parser = server)]
    pub(crate) fleet: ServerId,
    #[command(flatten)]
    pub(crate) address: Address,
    #[command(flatten)]
    pub(crate) folders: Folders,
    #[command(flatten)]
    pub(crate) process: Process,
}

#[derive(Debug, Args)]
pub(crate) struct Address {
    /// Where clients come, with --operator: at the ports of the listeners.
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub(crate) listen_address: IpAddr,
}

#[derive(Debug, Args)]
pub(crate) struct Folders {
    /// With --operator: holds `ca.crt`, the only roots that the operator is believed with, and `token`.
    #[arg(long, value_name = "DIR", default_value = "/var/run/mcpmesh/identity")]
    pub(crate) identity: PathBuf,
    /// With --operator: holds `ring`, the fleet's keys of sealed handles, and `state`, the key of --state.
    #[arg(long, value_name = "DIR", default_value = "/var/run/mcpmesh/keys")]
    pub(crate) keys: PathBuf,
    /// With --operator: the operator's copy of the last good configuration, which a new pod boots from while the
    /// operator is away.
    #[arg(long, value_name = "DIR", default_value = "/var/run/mcpmesh/last-good")]
    pub(crate) last_good: PathBuf,
    /// With --operator: where the last good configuration is kept [default: /var/run/mcpmesh/state].
    /// With --config: where the keys of sealed handles are kept, so that cursors survive a restart.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Process {
    /// Metrics and health: /metrics, /readyz, /livez.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:17020")]
    pub(crate) metrics: SocketAddr,
    /// The configuration in force, without secrets: /config_dump. Loopback only.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:17000", value_parser = admin)]
    pub(crate) admin: SocketAddr,
    /// One JSON line a request: a file, or - for standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) access_log: Option<PathBuf>,
    /// How long requests in flight may take to finish after SIGTERM.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) drain: u64,
    /// How long to serve on after SIGTERM, no longer ready, until nobody sends requests here any more
    /// [default: 5 with --operator, 0 with --config].
    #[arg(long, value_name = "SECONDS")]
    pub(crate) drain_delay: Option<u64>,
}

fn operator(text: &str) -> Result<String, String> {
    Operator::new(text, PathBuf::new()).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn server(text: &str) -> Result<ServerId, String> {
    match text.parse() {
        Ok(FleetId::Server(id)) => Ok(id),
        _ => Err("a sidecar's fleet is server/NAMESPACE/NAME".to_owned()),
    }
}

fn admin(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|error| format!("{error}"))?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("the admin port is for loopback only".to_owned())
    }
}

fn loopback(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("{error}"))?;
    let is_loopback = match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        _ => false,
    };
    let why = "the server beside a sidecar is at http://127.0.0.1:PORT/PATH";
    (is_loopback && url.scheme() == "http").then_some(url).ok_or_else(|| why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::error::ErrorKind> {
        let words = std::iter::once("mcpmesh-proxy").chain(line.split_whitespace());
        Arguments::try_parse_from(words).map_err(|error| error.kind())
    }

    #[test]
    fn every_example_is_understood() {
        let one_line = EXAMPLES.replace("\\\n", " ");
        let examples: Vec<_> =
            one_line.lines().filter_map(|line| line.trim().strip_prefix("mcpmesh-proxy ")).collect();
        assert_eq!(examples.len(), 5);
        for example in examples {
            assert!(parse(example).is_ok(), "{example}: {:?}", parse(example).err());
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "",
            "--config a --operator h:1 --fleet gateway/a/b",
            "--operator h:1",
            "--fleet gateway/a/b --config a",
            "--operator h --fleet gateway/a/b",
            "--operator h:1 --fleet pod/a/b",
            "bridge --operator h:1 --fleet gateway/a/b -- x",
            "bridge --operator h:1 --fleet server/a/b",
            "bridge --fleet server/a/b -- x",
            "sidecar --operator h:1 --fleet server/a/b --upstream http://10.0.0.1/mcp",
            "sidecar --operator h:1 --fleet server/a/b --upstream https://127.0.0.1/mcp",
            "sidecar --operator h:1 --fleet server/a/b",
            "copy",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
