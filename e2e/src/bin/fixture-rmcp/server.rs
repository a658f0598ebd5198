//! The catalogue as an rmcp server.
#![expect(deprecated, reason = "logging and resources/subscribe are deprecated but still to be relayed")]

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CancelTaskParams, CompleteRequestParams,
    CompleteResult, CompletionInfo, ErrorData, GetPromptRequestParams, GetPromptResponse, GetPromptResult,
    GetTaskParams, GetTaskResult, Implementation, ListPromptsResult, ListResourceTemplatesResult,
    ListResourcesResult, ListToolsResult, PaginatedRequestParams, ReadResourceRequestParams,
    ReadResourceResponse, ReadResourceResult, RequestStateCodec, ServerCapabilities, ServerInfo,
    SetLevelRequestParams, SubscribeRequestParams, SubscriptionFilter, Tool, UnsubscribeRequestParams,
    UpdateTaskParams,
};
use rmcp::service::{RequestContext, SubscriptionContext, SubscriptionSink};
use rmcp::task_manager::TaskManager;
use rmcp::{RoleServer, ServerHandler};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::ask::{Asked, Given, ask, internal, is_modern};
use crate::catalogue::{Catalogue, fill};
use crate::play::play;
use crate::tasks;

/// How long clients may keep what they listed, in milliseconds.
const TTL: u64 = 1000;

/// All sessions share one of these.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) codec: RequestStateCodec,
    /// How many calls of `wait` were cancelled.
    pub(crate) cancelled: Arc<AtomicU64>,
    catalogue: Arc<Catalogue>,
    tasks: TaskManager,
    listeners: Arc<Mutex<Vec<SubscriptionSink>>>,
}

impl Server {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            // The key of a test fixture: its state outlives no process.
            codec: RequestStateCodec::new_unchecked(*b"the fixture's key, which is no secret"),
            cancelled: Arc::default(),
            catalogue: Arc::new(Catalogue::load()?),
            tasks: TaskManager::new(),
            listeners: Arc::default(),
        })
    }

    /// Tells every open listen stream that `tools` or `prompts` changed; the SDK filters.
    pub(crate) async fn notify(&self, what: &str) {
        for listener in self.listeners.lock().await.iter() {
            // A stream that closed meanwhile needs no notice.
            let _ = match what {
                "tools" => listener.notify_tool_list_changed().await,
                _ => listener.notify_prompt_list_changed().await,
            };
        }
    }
}

/// A finished result of the JSON that the catalogue gives; the SDK drops `resultType` for legacy clients.
pub(crate) fn complete<T: DeserializeOwned>(mut result: Value) -> Result<T, ErrorData> {
    result["resultType"] = json!("complete");
    serde_json::from_value(result).map_err(internal)
}

type Context = RequestContext<RoleServer>;
type Page = Option<PaginatedRequestParams>;

impl ServerHandler for Server {
    fn get_info(&self) -> ServerInfo {
        let capabilities = ServerCapabilities::builder()
            .enable_completions()
            .enable_logging()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_list_changed()
            .enable_resources_subscribe()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_tasks()
            .build();
        ServerInfo::new(capabilities)
            .with_server_info(Implementation::new("fixture-rmcp", "1.0.0"))
            .with_instructions("Plays fixtures/catalogue.json")
    }

    /// The transport checks `Mcp-Param-*` headers against this.
    fn get_tool(&self, name: &str) -> Option<Tool> {
        serde_json::from_value(self.catalogue.tool(name)?.clone()).ok()
    }

    async fn list_tools(&self, _: Page, _: Context) -> Result<ListToolsResult, ErrorData> {
        let result: ListToolsResult = complete(json!({"tools": self.catalogue.tools()}))?;
        Ok(result.with_ttl_ms(TTL).with_cache_scope(CacheScope::Public))
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        context: Context,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = call.arguments.unwrap_or_default();
        if let Some(tool) = self.catalogue.task_tool(&call.name) {
            let declared = context.client_capabilities().unwrap_or_default();
            return tasks::call(&self.tasks, tool, &arguments, call.input_responses.as_ref(), &declared)
                .await;
        }
        let Some(found) = self.catalogue.play(&call.name) else {
            return Err(ErrorData::invalid_params(format!("Unknown tool: {}", call.name), None));
        };
        let given = Given { arguments, responses: call.input_responses, state: call.request_state };
        play(self, found, given, &context).await
    }

    async fn list_prompts(&self, _: Page, _: Context) -> Result<ListPromptsResult, ErrorData> {
        let result: ListPromptsResult = complete(json!({"prompts": self.catalogue.prompts()}))?;
        Ok(result.with_ttl_ms(TTL).with_cache_scope(CacheScope::Public))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: Context,
    ) -> Result<GetPromptResponse, ErrorData> {
        let Some(prompt) = self.catalogue.prompt(&request.name) else {
            return Err(ErrorData::invalid_params(format!("Unknown prompt: {}", request.name), None));
        };
        let arguments = request.arguments.unwrap_or_default();
        let mut values = json!({"args": arguments});
        if let Some(questions) = prompt.get("ask") {
            let questions = serde_json::from_value(questions.clone()).map_err(internal)?;
            let given = Given { arguments, responses: request.input_responses, state: request.request_state };
            match ask(&questions, given, &self.codec, &context).await? {
                Asked::Answered(answers) => values = answers,
                Asked::Again(result) => return Ok(result.into()),
                Asked::Impossible(reason) => return Err(ErrorData::invalid_params(reason, None)),
            }
        }
        let messages = fill(&prompt["messages"], &values);
        let result: GetPromptResult =
            complete(json!({"description": prompt["description"], "messages": messages}))?;
        Ok(result.into())
    }

    async fn list_resources(&self, _: Page, _: Context) -> Result<ListResourcesResult, ErrorData> {
        let result: ListResourcesResult = complete(json!({"resources": self.catalogue.resources}))?;
        Ok(result.with_ttl_ms(TTL).with_cache_scope(CacheScope::Public))
    }

    async fn list_resource_templates(
        &self,
        _: Page,
        _: Context,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let result: ListResourceTemplatesResult =
            complete(json!({"resourceTemplates": self.catalogue.templates}))?;
        Ok(result.with_ttl_ms(TTL).with_cache_scope(CacheScope::Public))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: Context,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let Some(contents) = self.catalogue.read(&request.uri) else {
            let data = Some(json!({"uri": request.uri}));
            return Err(match is_modern(&context) {
                true => ErrorData::invalid_params("Resource not found", data),
                false => ErrorData::resource_not_found("Resource not found", data),
            });
        };
        let result: ReadResourceResult = complete(json!({"contents": [contents]}))?;
        Ok(result.with_ttl_ms(TTL).with_cache_scope(CacheScope::Public).into())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: Context,
    ) -> Result<CompleteResult, ErrorData> {
        let words =
            ["alpha", "beta", "gamma"].into_iter().filter(|word| word.starts_with(&request.argument.value));
        Ok(CompleteResult::new(CompletionInfo::new(words.map(str::to_owned).collect()).map_err(internal)?))
    }

    async fn set_level(&self, _: SetLevelRequestParams, _: Context) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn subscribe(&self, _: SubscribeRequestParams, _: Context) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn unsubscribe(&self, _: UnsubscribeRequestParams, _: Context) -> Result<(), ErrorData> {
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.supported_by(&self.get_info().capabilities))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        self.listeners.lock().await.push(context.sink().clone());
        context.cancelled().await;
        Ok(())
    }

    async fn get_task(&self, request: GetTaskParams, _: Context) -> Result<GetTaskResult, ErrorData> {
        Ok(GetTaskResult::new(self.tasks.get_task(&request.task_id)?))
    }

    async fn update_task(&self, request: UpdateTaskParams, _: Context) -> Result<(), ErrorData> {
        self.tasks.update_task(&request.task_id, request.input_responses)
    }

    async fn cancel_task(&self, request: CancelTaskParams, _: Context) -> Result<(), ErrorData> {
        self.tasks.cancel_task(&request.task_id)
    }
}
