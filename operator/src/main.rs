//! `mcpmesh-operator`: watches the three kinds, compiles, pushes configuration to proxies, makes their pods and
//! writes status.

mod api_server;
mod apply;
mod arguments;
mod authority;
mod connected;
mod events;
mod health;
mod identity;
mod inputs;
mod last_good;
mod leading;
mod lease;
mod metrics;
mod observers;
mod operator;
mod publish;
mod push;
mod reconcile;
mod report;
mod status;
mod watch;
mod world;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tracing_subscriber::EnvFilter;

use arguments::Arguments;

/// With the C library's, a third of the operator's time is spent in it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(operator::run(arguments)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
