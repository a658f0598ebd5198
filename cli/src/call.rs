//! `mcpmesh call`: one tool call, its result printed for people or programs.

use std::io::Read;

use anyhow::Context;
use mcpmesh_ir::gateway::Naming;
use mcpmesh_proxy::catalog::{Claim, allot};
use serde_json::Value;

use crate::args::{AnswerFormat, CallArgs, server_id};
use crate::client::{Peer, Servers};
use crate::exit::{Failure, Outcome};
use crate::{terminal, tool_rules};

/// Runs `mcpmesh call`.
pub(crate) async fn run(args: &CallArgs) -> Outcome {
    let arguments = arguments(&args.args)?;
    let result = if args.servers.paths.is_empty() {
        at_endpoint(args, &arguments).await
    } else {
        in_folder(args, &arguments).await
    };
    print(&result?, args.output)
}

async fn at_endpoint(args: &CallArgs, arguments: &Value) -> Result<Value, Failure> {
    let servers = Servers::open(&args.servers, None)?;
    let Servers::Endpoint(peer) = &servers else { return Err(Failure::failed("there is no endpoint")) };
    let now = peer.ready().await?;
    let listed: Vec<&str> = now.lists.tools.iter().map(|item| item.key.as_str()).collect();
    let name = advertised(&args.tool, &listed)?;
    let result = peer.call(&name, arguments).await;
    servers.close().await;
    match result {
        Err(Failure::Failed(error)) if !listed.contains(&name.as_str()) => {
            Err(Failure::failed(format!("{error:#}; `mcpmesh tools` lists what this caller has")))
        }
        result => result,
    }
}

/// The name by which an endpoint knows what the user wrote: an advertised name as it is, or PREFIX/TOOL. Prefixed names
/// resolve in every naming mode, listed or not.
fn advertised(written: &str, listed: &[&str]) -> Result<String, Failure> {
    if listed.contains(&written) {
        return Ok(written.to_owned());
    }
    let Some((prefix, tool)) = written.split_once('/') else { return Ok(written.to_owned()) };
    let name = prefixed(prefix, tool).filter(|_| !prefix.is_empty() && !tool.is_empty());
    let name = name
        .ok_or_else(|| Failure::usage(format!("{written}: write it as SERVER/TOOL, or as it is listed")))?;
    // A tool's own name may hold a slash.
    if tool.contains('/') && !listed.contains(&name.as_str()) {
        return Err(Failure::usage(format!(
            "{written}: an endpoint knows servers by their prefixes there, without namespaces: write it as \
             PREFIX/TOOL, or as `mcpmesh tools` lists it"
        )));
    }
    Ok(name)
}

/// The name that a gateway gives a tool of the server with this prefix, however long.
fn prefixed(prefix: &str, tool: &str) -> Option<String> {
    allot(Naming::Always, &[Claim { prefix, base: tool }]).advertised.pop().flatten()
}

async fn in_folder(args: &CallArgs, arguments: &Value) -> Result<Value, Failure> {
    let parts = args.tool.rsplit_once('/').filter(|(_, tool)| !tool.is_empty());
    let (server, tool) =
        parts.ok_or_else(|| Failure::usage(format!("{}: write it as SERVER/TOOL", args.tool)))?;
    let id = server_id(server).map_err(Failure::usage)?;
    let servers = Servers::open(&args.servers, Some(&id))?;
    let result = match &servers {
        Servers::Folder(folder) => match folder.peers.values().next() {
            Some(peer) => of_server(peer, tool, arguments).await,
            None => Err(Failure::failed("there is no such server")),
        },
        Servers::Endpoint(_) => Err(Failure::failed("there is no folder")),
    };
    servers.close().await;
    result
}

/// Calls what a gateway would: not what the McpServer leaves out, and by either name what it renames.
async fn of_server(peer: &Peer, tool: &str, arguments: &Value) -> Result<Value, Failure> {
    let Some(server) = &peer.server else { return peer.call(tool, arguments).await };
    let name = tool_rules::own_name(server, tool);
    if !tool_rules::exists(server, name)? {
        let message = format!("{}: its tools.include and tools.exclude leave {name} out", peer.title);
        return Err(Failure::failed(message));
    }
    peer.call(name, arguments).await
}

/// A JSON object, `@FILE` or `-`.
fn arguments(text: &str) -> Result<Value, Failure> {
    let read = match text.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?,
        None if text == "-" => {
            let mut read = String::new();
            std::io::stdin().read_to_string(&mut read).context("cannot read stdin")?;
            read
        }
        None => text.to_owned(),
    };
    match serde_json::from_str::<Value>(&read) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(_) => Err(Failure::usage("--args: the arguments are a JSON object, such as {\"city\": \"Oslo\"}")),
        Err(error) => Err(Failure::usage(format!("--args is not JSON: {error}"))),
    }
}

fn print(result: &Value, output: AnswerFormat) -> Outcome {
    let pretty = |value: &Value| serde_json::to_string_pretty(value).context("cannot write JSON");
    match output {
        AnswerFormat::Json => terminal::print(&pretty(result)?).context("cannot write")?,
        AnswerFormat::Text => {
            for item in result.get("content").and_then(Value::as_array).into_iter().flatten() {
                let text = match item.get("text").and_then(Value::as_str) {
                    Some(text) => text.to_owned(),
                    None => pretty(item)?,
                };
                terminal::print(&text).context("cannot write")?;
            }
        }
    }
    if result.get("resultType").and_then(Value::as_str) == Some("input_required") {
        return Err(Failure::failed("the tool asks for input, which `mcpmesh call` cannot give"));
    }
    if result.get("isError") == Some(&Value::Bool(true)) {
        return Err(Failure::failed("the tool answered with an error"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertised_name_is_taken_as_it_is_and_a_server_and_tool_as_the_gateway_names_them() {
        let long = "x".repeat(80);
        let cut = prefixed("time", &long).unwrap();
        assert_eq!(cut.len(), 64);
        let listed = ["time_now", "bare", "a/b", "docs_a/b", &cut];
        let name = |written: &str| advertised(written, &listed).unwrap();
        assert_eq!(name("time_now"), "time_now");
        assert_eq!(name("time/now"), "time_now");
        assert_eq!(name("bare"), "bare");
        assert_eq!(name("time/bare"), "time_bare");
        assert_eq!((name("a/b"), name("docs/a/b")), ("a/b".to_owned(), "docs_a/b".to_owned()));
        assert_eq!(name(&format!("time/{long}")), cut);
    }

    #[test]
    fn an_endpoint_takes_no_namespace() {
        for written in ["team-a/time/now", "/now", "time/"] {
            assert!(matches!(advertised(written, &["time_now"]), Err(Failure::Usage(_))), "{written}");
        }
    }

    #[test]
    fn arguments_are_an_object() {
        assert!(arguments("{\"a\": 1}").is_ok());
        for text in ["[]", "1", "{", "@/no/such/file"] {
            assert!(arguments(text).is_err(), "{text}");
        }
    }
}
