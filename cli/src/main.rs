//! `mcpmesh`, the command line: one MCP endpoint on one machine, and everything that looks at objects offline.

mod args;
mod can_i;
mod check;
mod connect;
mod exit;
mod import;
mod key;
mod names;
mod private_file;
mod shim;
#[expect(dead_code, reason = "`up` uses the rest and comes next")]
mod source;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use exit::Outcome;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == shim::SUBCOMMAND) {
        return ExitCode::from(shim::run(words));
    }
    exit::report(run(Cli::parse().command))
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Check(args) => check::run(&args),
        Command::CanI(args) => can_i::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Connect(args) => connect::run(&args),
        Command::Key(command) => key::run(&command),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "mcpmesh", &mut std::io::stdout());
            Ok(())
        }
        _ => Err(exit::Failure::failed("not there yet")),
    }
}
