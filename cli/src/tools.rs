//! `mcpmesh tools`: what an endpoint, or each server of a folder, offers.

use anyhow::Context;
use mcpmesh_proxy::upstream::Item;
use serde_json::{Value, json};

use crate::args::{AnswerFormat, ToolsArgs};
use crate::client::{Peer, Servers};
use crate::exit::{self, Failure, Outcome};
use crate::{names, terminal, tool_rules};

/// Runs `mcpmesh tools`.
pub(crate) async fn run(args: &ToolsArgs) -> Outcome {
    let servers = Servers::open(&args.servers, None)?;
    let outcome = list(&servers, args.output).await;
    servers.close().await;
    outcome
}

async fn list(servers: &Servers, output: AnswerFormat) -> Outcome {
    let peers: Vec<&Peer> = match servers {
        Servers::Endpoint(peer) => vec![peer],
        Servers::Folder(folder) => folder.peers.values().collect(),
    };
    let mut all = Vec::new();
    let mut failed = false;
    // All at once: no server waits for a slow one.
    for (peer, ready) in
        peers.iter().zip(futures_util::future::join_all(peers.iter().map(|peer| peer.ready())).await)
    {
        match ready {
            Ok(now) => {
                warn_of_idle_overrides(peer, &now.lists.tools);
                all.extend(rows(peer, &now.lists.tools)?);
            }
            Err(failure) => {
                failed = true;
                exit::say(&failure);
            }
        }
    }
    match output {
        AnswerFormat::Text => print(&all),
        AnswerFormat::Json => {
            anstream::println!("{}", serde_json::to_string_pretty(&all).context("cannot write JSON")?);
        }
    }
    if failed { Err(Failure::Said) } else { Ok(()) }
}

/// An override of a tool that is not there pins or renames nothing.
fn warn_of_idle_overrides(peer: &Peer, tools: &[Item]) {
    let overrides = peer.server.iter().flat_map(|server| server.tools.overrides.keys());
    for name in overrides.filter(|name| tools.iter().all(|tool| tool.key != **name)) {
        let style = anstyle::AnsiColor::Yellow.on_default().bold();
        anstream::eprintln!(
            "{style}warning{style:#}: {}: it has no tool {name:?}, which spec.tools.overrides names",
            peer.title
        );
    }
}

/// The tools of one server: of a folder's as `call` takes them, and only those that its object keeps.
fn rows(peer: &Peer, tools: &[Item]) -> anyhow::Result<Vec<Value>> {
    let mut rows = Vec::new();
    for item in tools {
        let definition: Value = serde_json::from_slice(&item.raw).context("a tool is not JSON")?;
        let Some(server) = &peer.server else {
            rows.push(json!({ "name": item.key, "tool": definition }));
            continue;
        };
        if tool_rules::exists(server, &item.key)? {
            rows.push(
                json!({ "name": format!("{}/{}", names::server(&server.id), item.key), "tool": definition }),
            );
        }
    }
    Ok(rows)
}

fn print(rows: &[Value]) {
    let name = |row: &Value| row.get("name").and_then(Value::as_str).map(terminal::line).unwrap_or_default();
    let width = rows.iter().map(|row| name(row).chars().count()).max().unwrap_or_default();
    for row in rows {
        let description = row.pointer("/tool/description").and_then(Value::as_str).unwrap_or_default();
        let line: String = description.lines().next().unwrap_or_default().chars().take(100).collect();
        anstream::println!("{:<width$}  {}", name(row), terminal::line(&line));
    }
}
