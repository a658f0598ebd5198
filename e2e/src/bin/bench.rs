//! `make bench`: what MCP Mesh costs next to a plain reverse proxy on the same hop. See `docs/benchmarks.md`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use mcpmesh_e2e::bench::{self, Plan};

/// Measures on loopback and writes the table.
#[derive(Debug, Parser)]
struct Arguments {
    /// Repetitions, of which medians are taken.
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// Multiplies every number of requests.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Only these workloads, such as `W1,W4`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The table; `-` prints it only.
    #[arg(long, default_value = "docs/benchmarks.md")]
    out: PathBuf,
    #[command(subcommand)]
    role: Option<Role>,
}

/// The bench starts itself in these roles, so that each has a process of its own.
#[derive(Debug, Subcommand)]
#[command(hide = true)]
enum Role {
    /// The MCP server.
    Upstream {
        /// Where.
        listen: SocketAddr,
    },
    /// A relay that is nothing but hyper.
    Relay {
        /// Where.
        listen: SocketAddr,
        /// The server.
        to: SocketAddr,
    },
    /// A sender of hostile bodies.
    Hostile {
        /// Where to.
        to: SocketAddr,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.role {
        Some(Role::Upstream { listen }) => bench::upstream(listen),
        Some(Role::Relay { listen, to }) => bench::relay(listen, to),
        Some(Role::Hostile { to }) => bench::hostile(to),
        None => {
            tracing_subscriber::fmt().with_writer(std::io::stderr).init();
            let plan = Plan {
                repetitions: arguments.repetitions.max(1),
                scale: arguments.scale,
                only: arguments.only,
            };
            let report = bench::run(&plan)?;
            write!(std::io::stdout(), "{report}")?;
            if arguments.out.as_os_str() != "-" {
                std::fs::write(&arguments.out, report)?;
            }
            Ok(())
        }
    }
}
