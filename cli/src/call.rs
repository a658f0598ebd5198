//! `mcpmesh call`: one tool call, its result printed for people or programs.

use std::io::Read;

use anyhow::Context;
use serde_json::Value;

use crate::args::{AnswerFormat, CallArgs, server_id};
use crate::client::Servers;
use crate::exit::{Failure, Outcome};

/// Runs `mcpmesh call`.
pub(crate) async fn run(args: &CallArgs) -> Outcome {
    let arguments = arguments(&args.args)?;
    let folder = !args.servers.paths.is_empty();
    let (server, tool) = match args.tool.rsplit_once('/') {
        Some((server, tool)) if !tool.is_empty() => (Some(server), tool),
        None if !folder => (None, args.tool.as_str()),
        _ => return Err(Failure::usage(format!("{}: write it as SERVER/TOOL", args.tool))),
    };
    let id = server.map(|server| server_id(server).map_err(Failure::usage)).transpose()?;
    let servers = Servers::open(&args.servers, id.as_ref())?;
    let result = match &servers {
        // The prefixed name resolves in every naming mode.
        Servers::Endpoint(peer) => {
            let name = id.map_or_else(|| tool.to_owned(), |id| format!("{}_{tool}", id.name));
            peer.call(&name, &arguments).await
        }
        Servers::Folder(folder) => match folder.peers.values().next() {
            Some(peer) => peer.call(tool, &arguments).await,
            None => Err(Failure::failed("there is no such server")),
        },
    };
    servers.close().await;
    print(&result?, args.output)
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
        AnswerFormat::Json => anstream::println!("{}", pretty(result)?),
        AnswerFormat::Text => {
            for item in result.get("content").and_then(Value::as_array).into_iter().flatten() {
                match item.get("text").and_then(Value::as_str) {
                    Some(text) => anstream::println!("{text}"),
                    None => anstream::println!("{}", pretty(item)?),
                }
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
    fn arguments_are_an_object() {
        assert!(arguments("{\"a\": 1}").is_ok());
        for text in ["[]", "1", "{", "@/no/such/file"] {
            assert!(arguments(text).is_err(), "{text}");
        }
    }
}
