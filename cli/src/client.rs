//! The MCP client of `tools` and `call`: the proxy's own, against an endpoint or the servers of a folder.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderValue};
use mcpmesh_compiler::Severity;
use mcpmesh_ir::{ResourceKind, Secret, SecretId, Server, ServerId};
use mcpmesh_proxy::mcp::envelope::Method;
use mcpmesh_proxy::mcp::era::Era;
use mcpmesh_proxy::upstream::{
    Body, Config, Deps, Endpoint, Error, Event, Explanation, Observation, Outgoing, State, Transport,
    Upstream,
};
use mcpmesh_proxy::upstreams::Upstreams;
use serde_json::Value;
use url::Url;

use crate::args::ServersArgs;
use crate::check;
use crate::exit::Failure;
use crate::source;
use crate::workloads::Workloads;

/// Where `mcpmesh up` serves unless told otherwise.
const ENDPOINT: &str = "http://127.0.0.1:8080/mcp";

/// The servers that a command talks to.
pub(crate) enum Servers {
    /// Everything behind one endpoint.
    Endpoint(Box<Peer>),
    /// Each server of a folder.
    Folder(Folder),
}

/// The servers of a folder, started for one command.
pub(crate) struct Folder {
    pub(crate) peers: BTreeMap<ServerId, Peer>,
    workloads: Workloads,
}

/// One MCP server as a client sees it.
pub(crate) struct Peer {
    /// What it is called in messages.
    pub(crate) title: String,
    /// Its object, where it has one.
    pub(crate) server: Option<Server>,
    upstream: Arc<Upstream>,
    workloads: Workloads,
    patience: Duration,
}

impl Servers {
    /// Connects, in the background. `only` names the server that is needed of a folder.
    pub(crate) fn open(args: &ServersArgs, only: Option<&ServerId>) -> Result<Self, Failure> {
        let patience = Duration::from_secs(args.timeout);
        if args.paths.is_empty() {
            return Ok(Self::Endpoint(Box::new(endpoint(args, patience)?)));
        }
        Folder::open(args, only, patience).map(Self::Folder)
    }

    /// Ends what was started.
    pub(crate) async fn close(self) {
        if let Self::Folder(Folder { peers, workloads }) = self {
            drop(peers);
            workloads.end().await;
        }
    }
}

fn endpoint(args: &ServersArgs, patience: Duration) -> Result<Peer, Failure> {
    let url = match &args.url {
        Some(url) => url.clone(),
        None => Url::parse(ENDPOINT).context("the default endpoint")?,
    };
    let title = url.to_string();
    let place = Endpoint::Remote { url, transport: Transport::Auto };
    let mut config = Config::new(ServerId::new("endpoint", "endpoint"), place);
    // The user's own URL, given on the command line.
    config.egress = mcpmesh_ir::EgressRule::private();
    config.headers.clone_from(&args.headers);
    if let Some(key) = &args.key {
        let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
            .map_err(|_| Failure::usage("--key holds characters that no header can"))?;
        value.set_sensitive(true);
        config.headers.push((AUTHORIZATION, value));
    }
    let upstream = Upstream::start(config, Deps::default());
    Ok(Peer { title, server: None, upstream, workloads: Workloads::default(), patience })
}

impl Folder {
    fn open(args: &ServersArgs, only: Option<&ServerId>, patience: Duration) -> Result<Self, Failure> {
        let loaded = source::load(&source::find(&args.paths)?, [0; 32])?;
        let errors = loaded.diagnostics.iter().filter(|found| found.severity == Severity::Error);
        check::say(&errors.cloned().collect::<Vec<_>>());
        let workloads = Workloads::default();
        workloads.set(&loaded.compiled, &loaded.inputs);
        let mut upstreams =
            Upstreams::new(Deps { connector: Some(Arc::new(workloads.clone())), ..Deps::default() });
        let mut peers = BTreeMap::new();
        for snapshot in loaded.compiled.snapshots.values() {
            let secrets: BTreeMap<SecretId, Secret> = snapshot
                .of_kind(ResourceKind::Secret)
                .map(|resource| Ok((resource.name.parse()?, resource.decode()?)))
                .collect::<anyhow::Result<_>>()?;
            for resource in snapshot.of_kind(ResourceKind::Server) {
                let server: Server = resource.decode().context("the compiled server")?;
                if only.is_some_and(|only| *only != server.id) {
                    continue;
                }
                let (upstream, _) = upstreams.get(&server, &secrets).context(server.id.to_string())?;
                let title = server.id.to_string();
                let id = server.id.clone();
                peers.insert(
                    id,
                    Peer { title, server: Some(server), upstream, workloads: workloads.clone(), patience },
                );
            }
        }
        if peers.is_empty() {
            let what = only.map_or_else(|| "any server".to_owned(), |only| format!("the server {only}"));
            return Err(Failure::failed(format!(
                "no gateway of these files has {what}: see `mcpmesh check`"
            )));
        }
        Ok(Self { peers, workloads })
    }
}

impl Peer {
    /// What the server offers, once that is known.
    pub(crate) async fn ready(&self) -> Result<Arc<Observation>, Failure> {
        let mut observation = self.upstream.observation();
        let known = observation.wait_for(|now| !matches!(now.state, State::Connecting));
        match tokio::time::timeout(self.patience, known).await {
            Ok(Ok(now)) => match &now.state {
                // Some of its lists failed, the others are there.
                State::Degraded { .. } if now.generation > 0 => Ok(Arc::clone(&now)),
                State::Failed { reason, explanation, .. } | State::Degraded { reason, explanation } => {
                    Err(self.failed(reason, explanation.as_ref()))
                }
                State::Connecting | State::Ready => Ok(Arc::clone(&now)),
            },
            Ok(Err(_)) => Err(self.failed("it was stopped", None)),
            Err(_) => {
                Err(self.failed(&format!("no answer within {} seconds", self.patience.as_secs()), None))
            }
        }
    }

    /// Why it does not work, in our words and in its own.
    fn failed(&self, reason: &str, explanation: Option<&Explanation>) -> Failure {
        let last_words = self.server.as_ref().and_then(|server| self.workloads.last_words(&server.id));
        let mut text = last_words.unwrap_or_else(|| plain_reason(reason));
        let refused = self.server.is_none() && text.ends_with("HTTP status 401");
        let missing = self.server.is_none() && text.ends_with("HTTP status 404");
        if let Some(explanation) = explanation {
            text = format!("{text}: {}", explanation.as_str());
        }
        let advice = match explanation {
            Some(_) if refused => "; give a key that it knows with --key or MCPMESH_KEY",
            None if refused => {
                "; it lets in whom it knows: give an API key with --key or MCPMESH_KEY. One that was given is unknown, \
                 expired or another endpoint's"
            }
            _ if missing => {
                "; the endpoint of `mcpmesh up` is the one that it prints, such as http://127.0.0.1:8080/mcp"
            }
            None if self.title == ENDPOINT => "; is `mcpmesh up` running?",
            _ => "",
        };
        Failure::failed(format!("{}: {text}{advice}", self.title))
    }

    fn broken(&self, error: &Error) -> Failure {
        self.failed(&error.to_string(), error.explanation.as_ref())
    }

    /// Calls a tool. The result, or the error's message.
    pub(crate) async fn call(&self, tool: &str, arguments: &Value) -> Result<Value, Failure> {
        let now = self.ready().await?;
        let era = if now.eras.modern { Era::Modern } else { Era::Legacy };
        let name = serde_json::to_string(tool).context("the tool's name")?;
        let members = format!("\"name\":{name},\"arguments\":{arguments}");
        let mut request = Outgoing::new(era, Method::ToolsCall, Bytes::from(members));
        request.name = Some(tool.to_owned());
        let mut reply = self.upstream.send(request).await.map_err(|error| self.broken(&error))?;
        while let Some(event) = reply.next().await {
            if let Event::Response(body) = event.map_err(|error| self.broken(&error))? {
                return self.answer(body).await;
            }
        }
        Err(self.failed("it ended before its answer did", None))
    }

    async fn answer(&self, body: Body) -> Result<Value, Failure> {
        let raw = body.collect().await.map_err(|error| self.broken(&error))?;
        let mut message: Value = serde_json::from_slice(&raw).context("the answer is not JSON")?;
        if let Some(error) = message.get("error") {
            // It has answered: nobody need be told that it may not run.
            return Err(Failure::failed(format!("{}: {}", self.title, words(error))));
        }
        Ok(message.get_mut("result").map(Value::take).unwrap_or_default())
    }
}

/// What a JSON-RPC error says: its message and code, and when to come again.
fn words(error: &Value) -> String {
    let said = error.get("message").and_then(Value::as_str).and_then(Explanation::of);
    let text = said.as_ref().map_or("an error without a message", Explanation::as_str);
    let code = error.get("code").map(|code| format!(" ({code})")).unwrap_or_default();
    let wait = error.pointer("/data/retryAfterMs").and_then(Value::as_u64);
    let wait = wait.map(|millis| format!("; come again in {} s", millis.div_ceil(1000))).unwrap_or_default();
    format!("{text}{code}{wait}")
}

/// A reason without what the message around it says already.
pub(crate) fn plain_reason(reason: &str) -> String {
    reason.strip_prefix("cannot connect to the upstream: ").unwrap_or(reason).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_says_when_to_come_again() {
        let limited =
            json!({"code": 42900, "message": "Rate limit exceeded", "data": {"retryAfterMs": 29_001}});
        assert_eq!(words(&limited), "Rate limit exceeded (42900); come again in 30 s");
        assert_eq!(words(&json!({"code": -32602, "message": "no"})), "no (-32602)");
        assert_eq!(words(&json!({"code": 1, "message": "\u{1b}[2Jgone"})), "[2Jgone (1)", "a terminal obeys");
        assert_eq!(words(&json!(7)), "an error without a message");
    }
}
