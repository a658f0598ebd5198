//! `mcpmesh lock`: what servers offer now, as the patch that pins it.

use anyhow::Context;
use mcpmesh_ir::ServerId;
use mcpmesh_proxy::catalog::digest;
use mcpmesh_proxy::upstream::Item;
use serde_json::{Value, json};

use crate::args::{LockArgs, LockMode, ServersArgs};
use crate::client::{Peer, Servers};
use crate::exit::{self, Failure, Outcome};
use crate::tool_rules;

/// What an McpServer's lock may hold.
const MOST: usize = 1024;

/// Runs `mcpmesh lock`.
pub(crate) async fn run(args: &LockArgs) -> Outcome {
    if args.url.is_some() && args.names.len() > 1 {
        return Err(Failure::usage("--url is the endpoint of one server: name that one"));
    }
    let which = ServersArgs {
        url: args.url.clone(),
        paths: if args.url.is_some() { Vec::new() } else { args.paths.clone() },
        headers: args.headers.clone(),
        key: None,
        timeout: args.timeout,
    };
    let only = if let [only] = args.names.as_slice() { Some(only) } else { None };
    let servers = Servers::open(&which, only)?;
    let outcome = print(&servers, args).await;
    servers.close().await;
    outcome
}

async fn print(servers: &Servers, args: &LockArgs) -> Outcome {
    let mut failed = false;
    let mut text = String::new();
    for id in &args.names {
        match patch(servers, id, args.mode).await {
            Ok(patch) => {
                let separator = if text.is_empty() { "" } else { "---\n" };
                text.push_str(separator);
                text.push_str(&serde_saphyr::to_string(&patch).context("cannot write YAML")?);
                if !text.ends_with('\n') {
                    text.push('\n');
                }
            }
            Err(failure) => {
                failed = true;
                exit::say(&failure);
            }
        }
    }
    anstream::print!("{text}");
    if failed { Err(Failure::Said) } else { Ok(()) }
}

async fn patch(servers: &Servers, id: &ServerId, mode: LockMode) -> Result<Value, Failure> {
    let peer: &Peer = match servers {
        Servers::Endpoint(peer) => peer,
        Servers::Folder(folder) => folder.peers.get(id).ok_or_else(|| {
            Failure::failed(format!("no gateway of these files has the server {id}: see `mcpmesh check`"))
        })?,
    };
    let now = peer.ready().await?;
    let tools = pinned(peer, &now.lists.tools)?;
    if tools.len() > MOST {
        let message =
            format!("{id} has {} tools, and a lock holds {MOST}: keep fewer with spec.tools", tools.len());
        return Err(Failure::failed(message));
    }
    let mode = match mode {
        LockMode::Warn => "Warn",
        LockMode::Enforce => "Enforce",
    };
    Ok(json!({
        "apiVersion": "mcpmesh.io/v1alpha1",
        "kind": "McpServer",
        "metadata": { "name": id.name, "namespace": id.namespace },
        "spec": { "lock": { "mode": mode, "tools": tools } },
    }))
}

/// In order of names, so that two locks can be compared; a second tool of a name is in no list either.
fn pinned(peer: &Peer, tools: &[Item]) -> anyhow::Result<Vec<Value>> {
    let mut kept: Vec<&Item> = Vec::new();
    for item in tools {
        let exists = peer.server.as_ref().map_or(Ok(true), |server| tool_rules::exists(server, &item.key))?;
        if exists && kept.iter().all(|other| other.key != item.key) {
            kept.push(item);
        }
    }
    kept.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(kept.iter().map(|item| json!({ "name": item.key, "digest": digest(&item.raw) })).collect())
}
