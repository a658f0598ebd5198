//! `mcpmesh`, the command line: one MCP endpoint on one machine, and everything that looks at objects offline.

mod args;
mod call;
mod can_i;
mod check;
mod client;
mod cluster;
mod compile;
mod connect;
mod exit;
mod import;
mod inject;
mod install;
mod key;
mod launch;
mod lock;
mod names;
mod private_file;
mod source;
mod status;
mod terminal;
mod tool_rules;
mod tools;
mod up;
mod workloads;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use tracing_subscriber::EnvFilter;

use args::{Cli, Command};
use exit::Outcome;
use mcpmesh_proxy::process::shim;

/// What the log holds, such as `debug` or `warn,mcpmesh_proxy=trace`.
pub(crate) const LOG: &str = "MCPMESH_LOG";

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let first = words.next();
    if first.as_ref().is_some_and(|word| word == shim::SUBCOMMAND) {
        return ExitCode::from(shim::run(words));
    }
    if first.as_ref().is_some_and(|word| word == launch::ENGINE) {
        return ExitCode::from(launch::become_engine(words));
    }
    exit::fail_where_nothing_can_be_printed();
    exit::report(run(Cli::parse().command))
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Up(args) => up::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Compile(args) => compile::run(&args),
        Command::CanI(args) => can_i::run(&args),
        Command::Tools(args) => in_runtime(tools::run(&args)),
        Command::Call(args) => in_runtime(call::run(&args)),
        Command::Import(args) => import::run(&args),
        Command::Connect(args) => connect::run(&args),
        Command::Inject(args) => inject::run(&args),
        Command::Lock(args) => in_runtime(lock::run(&args)),
        Command::Key(command) => key::run(&command),
        Command::Install(args) => in_runtime(install::run(&args)),
        Command::Status(args) => in_runtime(status::run(&args)),
        Command::Completions { shell } => completions(shell),
    }
}

fn completions(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "mcpmesh", &mut script);
    match std::io::stdout().write_all(&script) {
        // Whoever read it had enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written.context("cannot write the script")?),
    }
}

/// Runs a command that talks to servers. Its log is quiet unless `MCPMESH_LOG` asks for it.
fn in_runtime(command: impl Future<Output = Outcome>) -> Outcome {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_env(LOG).unwrap_or_else(|_| EnvFilter::new("off")))
        .with_writer(std::io::stderr)
        .init();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(command)
}
