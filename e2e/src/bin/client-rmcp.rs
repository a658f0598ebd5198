//! crates.io rmcp against one endpoint; see `clients/README.md`.

use std::collections::HashMap;
use std::future::Future;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use http::{HeaderName, HeaderValue};
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CallToolResult, ClientRequest, CompleteRequestParams,
    GetPromptRequestParams, JsonObject, ProgressNotificationParam, ProtocolVersion,
    ReadResourceRequestParams, ServerResult,
};
use rmcp::service::{NotificationContext, PeerRequestOptions, RequestHandle, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientHandler, ClientLifecycleMode, ClientServiceExt as _, RoleClient, ServiceExt as _};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug, Parser)]
struct Options {
    url: String,
    #[arg(long, value_parser = ["auto", "legacy", "modern"])]
    mode: Option<String>,
    #[arg(long)]
    header: Vec<String>,
    #[arg(long)]
    call: Vec<String>,
    #[arg(long, value_parser = object)]
    args: Vec<JsonObject>,
    #[arg(long)]
    read: Option<String>,
    #[arg(long)]
    prompt: Option<String>,
    #[arg(long, value_parser = object, default_value = "{}")]
    prompt_args: JsonObject,
    #[arg(long, value_parser = completion)]
    complete: Vec<CompleteRequestParams>,
    #[arg(long)]
    progress: Option<String>,
    #[arg(long, value_parser = object, default_value = "{}")]
    progress_args: JsonObject,
    #[arg(long)]
    cancel: Option<String>,
    #[arg(long, value_parser = object, default_value = "{}")]
    cancel_args: JsonObject,
}

fn object(text: &str) -> Result<JsonObject, serde_json::Error> {
    serde_json::from_str(text)
}

fn completion(text: &str) -> Result<CompleteRequestParams, serde_json::Error> {
    serde_json::from_str(text)
}

/// Keeps every progress notification.
#[derive(Debug, Clone)]
struct Handler(watch::Sender<Vec<f64>>);

impl ClientHandler for Handler {
    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.0.send_modify(|steps| steps.push(params.progress));
    }
}

type Client = RunningService<RoleClient, Handler>;

/// The verdicts so far; a failed step does not stop the others.
#[derive(Debug, Default)]
struct Steps(Map<String, Value>);

impl Steps {
    async fn step<T>(&mut self, name: &str, work: impl Future<Output = anyhow::Result<T>>) -> Option<T> {
        let result = timeout(DEADLINE, work).await.context("no end in time").flatten();
        let verdict =
            result.as_ref().err().map_or_else(|| "ok".to_owned(), |error| format!("error: {error:#}"));
        self.0.insert(name.to_owned(), Value::String(verdict));
        result.ok()
    }

    fn failed(&self) -> bool {
        self.0.values().any(|verdict| verdict.as_str().is_some_and(|text| text.starts_with("error")))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let mut steps = Steps::default();
    let handler = Handler(watch::Sender::default());
    if let Some(client) = steps.step("initialize", connect(&options, handler.clone())).await {
        if let Some(info) = client.peer_info() {
            steps.0.insert("protocol".to_owned(), info.protocol_version.as_str().into());
        }
        all(&mut steps, &options, &client, &handler).await;
        client.cancel().await?;
    }
    writeln!(std::io::stdout(), "{}", Value::Object(steps.0.clone()))?;
    Ok(if steps.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn connect(options: &Options, handler: Handler) -> anyhow::Result<Client> {
    let mut headers = HashMap::new();
    for line in &options.header {
        let (name, value) = line.split_once(':').context("a header is NAME:VALUE")?;
        headers.insert(name.trim().parse::<HeaderName>()?, HeaderValue::from_str(value.trim())?);
    }
    let config = StreamableHttpClientTransportConfig::with_uri(options.url.as_str()).custom_headers(headers);
    let transport = StreamableHttpClientTransport::from_config(config);
    let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
    let lifecycle = match options.mode.as_deref() {
        None => return Ok(handler.serve(transport).await?),
        Some("legacy") => ClientLifecycleMode::Initialize,
        Some("modern") => ClientLifecycleMode::Discover { preferred_versions },
        Some(_) => ClientLifecycleMode::Auto { preferred_versions, legacy_version: None },
    };
    Ok(handler.serve_with_lifecycle(transport, lifecycle).await?)
}

async fn all(steps: &mut Steps, options: &Options, client: &Client, handler: &Handler) {
    steps.step("tools", async { Ok(client.list_tools(None).await?) }).await;
    steps.step("prompts", async { Ok(client.list_prompts(None).await?) }).await;
    steps.step("resources", async { Ok(client.list_resources(None).await?) }).await;
    if !options.call.is_empty() {
        steps.step("call", calls(client, options)).await;
    }
    if let Some(uri) = &options.read {
        let params = ReadResourceRequestParams::new(uri);
        steps.step("read", async { Ok(client.read_resource(params).await?) }).await;
    }
    if let Some(prompt) = &options.prompt {
        let params = GetPromptRequestParams::new(prompt).with_arguments(options.prompt_args.clone());
        steps.step("prompt", async { Ok(client.get_prompt(params).await?) }).await;
    }
    if !options.complete.is_empty() {
        steps.step("complete", completions(client, &options.complete)).await;
    }
    if let Some(tool) = &options.progress {
        steps.step("progress", progress(client, handler, tool, &options.progress_args)).await;
    }
    if let Some(tool) = &options.cancel {
        steps.step("cancel", cancel(client, handler, tool, &options.cancel_args)).await;
    }
}

async fn start(
    client: &Client,
    tool: &str,
    arguments: &JsonObject,
) -> anyhow::Result<RequestHandle<RoleClient>> {
    let params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments.clone());
    let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
    Ok(client.send_cancellable_request(request, PeerRequestOptions::no_options()).await?)
}

/// The result of a call, if the tool did not report an error of its own.
async fn answer(call: RequestHandle<RoleClient>) -> anyhow::Result<CallToolResult> {
    let ServerResult::CallToolResult(result) = call.await_response().await? else {
        anyhow::bail!("an answer that is no result of a call");
    };
    ensure!(result.is_error != Some(true), "the tool failed: {:?}", result.content);
    Ok(result)
}

async fn calls(client: &Client, options: &Options) -> anyhow::Result<()> {
    ensure!(options.call.len() == options.args.len(), "each --call has its --args");
    for (tool, arguments) in options.call.iter().zip(&options.args) {
        answer(start(client, tool, arguments).await?).await.with_context(|| tool.clone())?;
    }
    Ok(())
}

async fn completions(client: &Client, wanted: &[CompleteRequestParams]) -> anyhow::Result<()> {
    for params in wanted {
        let values = client.complete(params.clone()).await?.completion.values;
        let fit = values.iter().all(|value| value.starts_with(&params.argument.value));
        ensure!(fit && !values.is_empty(), "{params:?}: {values:?}");
    }
    Ok(())
}

async fn progress(
    client: &Client,
    handler: &Handler,
    tool: &str,
    arguments: &JsonObject,
) -> anyhow::Result<()> {
    handler.0.send_replace(Vec::new());
    answer(start(client, tool, arguments).await?).await?;
    let seen = handler.0.borrow().clone();
    ensure!(!seen.is_empty() && seen.is_sorted_by(|earlier, later| earlier < later), "progress was {seen:?}");
    Ok(())
}

async fn cancel(
    client: &Client,
    handler: &Handler,
    tool: &str,
    arguments: &JsonObject,
) -> anyhow::Result<()> {
    handler.0.send_replace(Vec::new());
    let mut call = start(client, tool, arguments).await?;
    let mut begun = handler.0.subscribe();
    // Some tools report nothing: a second is enough to be on the way.
    let begun = timeout(Duration::from_secs(1), begun.wait_for(|steps| !steps.is_empty()));
    tokio::select! {
        _ = begun => {}
        ended = &mut call.rx => anyhow::bail!("ended before it could be cancelled: {ended:?}"),
    }
    call.cancel(Some("not wanted any more".to_owned())).await?;
    client.list_tools(None).await?;
    Ok(())
}
