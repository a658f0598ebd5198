//! `mcpmesh inject`: reads a text, has the proxies put into it, prints it.

use std::io::{Read, Write};

use anyhow::Context;
use mcpmesh_compiler::Cluster;
use mcpmesh_compiler::inject::{Request, inject};

use crate::args::InjectArgs;
use crate::check;
use crate::exit::{Failure, Outcome};

/// Runs `mcpmesh inject`.
pub(crate) fn run(args: &InjectArgs) -> Outcome {
    let (name, text) = read(args)?;
    let cluster = Cluster {
        proxy_image: args.proxy_image.clone(),
        operator_address: args.operator_address.clone(),
        ..Cluster::default()
    };
    let request =
        Request { server: args.server.as_deref(), namespace: args.namespace.as_deref(), cluster: &cluster };
    match inject(&name, &text, &request) {
        // The bytes as they are: this is no text of ours, whose colours a pipe would lose.
        Ok(made) => Ok(std::io::stdout().write_all(made.as_bytes()).context("cannot write")?),
        Err(found) => {
            check::say(&found);
            Err(Failure::Said)
        }
    }
}

fn read(args: &InjectArgs) -> anyhow::Result<(String, String)> {
    if args.file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read stdin")?;
        return Ok(("stdin".to_owned(), text));
    }
    let name = args.file.display().to_string();
    let text = std::fs::read_to_string(&args.file).with_context(|| format!("cannot read {name}"))?;
    Ok((name, text))
}
