//! `mcpmesh compile`: the configuration that `mcpmesh-proxy` serves, from the same objects.

use anyhow::Context;

use crate::args::CompileArgs;
use crate::exit::{Failure, Outcome};
use crate::{check, private_file, source};

/// Runs `mcpmesh compile`. What has errors is not written: nobody watches over a file.
pub(crate) fn run(args: &CompileArgs) -> Outcome {
    let mut version_key = [0; 32];
    aws_lc_rs::rand::fill(&mut version_key)
        .map_err(|_| Failure::failed("the system gave no random bytes"))?;
    let loaded = source::load(&source::find(&args.paths)?, version_key)?;
    check::say(&loaded.diagnostics);
    if loaded.has_errors() {
        return Err(Failure::failed("nothing was written: mend what is reported above"));
    }
    let snapshots: Vec<_> = loaded.compiled.snapshots.values().collect();
    let text = serde_json::to_vec(&snapshots).context("cannot write JSON")?;
    private_file::write(&args.out, &text).with_context(|| format!("cannot write {}", args.out.display()))?;
    for server in loaded.compiled.workloads.keys() {
        anstream::eprintln!("note: {server} is a process: mcpmesh-proxy does not start it, mcpmesh up does");
    }
    Ok(())
}
