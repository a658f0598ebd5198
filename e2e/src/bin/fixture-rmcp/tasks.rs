//! The tasks extension (SEP-2663): tools that may, or must, answer with a task.

use std::time::Duration;

use rmcp::model::{
    CallToolResponse, CallToolResult, ClientCapabilities, ContentBlock, CreateTaskResult, ErrorData,
};
use rmcp::model::{InputRequiredResult, InputResponses, JsonObject};
use rmcp::task_manager::{TaskContext, TaskExit, TaskManager, TaskOptions};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::ask::internal;

/// Work that a tool does, in a task or at once.
#[derive(Debug, Clone)]
enum Work {
    Greet(String),
    Sleep(Duration),
    ToolError,
    ProtocolError,
    Confirm(String),
    TwoInputs,
}

/// Calls a task tool. `required` tools refuse clients that did not declare the extension.
pub(crate) async fn call(
    tasks: &TaskManager,
    tool: &Value,
    arguments: &JsonObject,
    responses: Option<&InputResponses>,
    declared: &ClientCapabilities,
) -> Result<CallToolResponse, ErrorData> {
    let supported = declared.supports_tasks();
    if tool["required"] == true && !supported {
        return Err(ErrorData::missing_required_client_capability(
            ClientCapabilities::builder().enable_tasks().build(),
        ));
    }
    let name = tool["name"].as_str().unwrap_or_default();
    let text = |key: &str| arguments.get(key).and_then(Value::as_str).unwrap_or("nobody").to_owned();
    let work = match name {
        "greet" => return Ok(greeting(&text("name")).into()),
        "slow_compute" => Work::Sleep(Duration::from_secs_f64(
            arguments.get("seconds").and_then(Value::as_f64).unwrap_or(1.0),
        )),
        "failing_job" => Work::ToolError,
        "protocol_error_job" => Work::ProtocolError,
        "confirm_delete" => Work::Confirm(text("filename")),
        "multi_input" => Work::TwoInputs,
        _ => match responses
            .and_then(|responses| responses.get("user_name")?.pointer("/content/name")?.as_str())
        {
            Some(name) => Work::Greet(name.to_owned()),
            None => return ask_for_name(),
        },
    };
    if supported {
        let run = move |context| -> futures_util::future::BoxFuture<'static, _> {
            Box::pin(perform(work, context))
        };
        return Ok(CreateTaskResult::new(tasks.spawn(TaskOptions::default(), run)).into());
    }
    match work {
        Work::Sleep(pause) => sleep(pause).await,
        Work::ProtocolError => return Err(protocol_error()),
        _ => {}
    }
    Ok(greeting("whoever waits").into())
}

async fn perform(work: Work, context: TaskContext) -> Result<CallToolResult, TaskExit> {
    match work {
        Work::Greet(name) => Ok(greeting(&name)),
        Work::Sleep(pause) => tokio::select! {
            () = context.cancelled() => Err(TaskExit::Cancelled),
            () = sleep(pause) => Ok(greeting("whoever waited")),
        },
        Work::ToolError => {
            sleep(Duration::from_secs(1)).await;
            Ok(CallToolResult::error(vec![ContentBlock::text("the job failed, as it always does")]))
        }
        Work::ProtocolError => Err(TaskExit::Error(protocol_error())),
        Work::Confirm(file) => {
            let question = elicitation(&format!("Delete {file}?"), "confirm", "boolean")?;
            let answer = context.request_input("confirm", question).await?;
            Ok(greeting(&format!("{file}: {}", answer["content"]["confirm"])))
        }
        Work::TwoInputs => {
            let (first, second) = (
                elicitation("The first?", "value", "string")?,
                elicitation("The second?", "value", "string")?,
            );
            let (first, second) = tokio::try_join!(
                context.request_input("first", first),
                context.request_input("second", second)
            )?;
            Ok(greeting(&format!("{} and {}", first["content"], second["content"])))
        }
    }
}

fn ask_for_name() -> Result<CallToolResponse, ErrorData> {
    let question = elicitation("What is your name?", "name", "string")?;
    Ok(InputRequiredResult::from_input_requests([("user_name".to_owned(), question)].into()).into())
}

fn elicitation(message: &str, key: &str, kind: &str) -> Result<rmcp::model::InputRequest, ErrorData> {
    let schema = json!({"type": "object", "properties": {key: {"type": kind}}, "required": [key]});
    let params = json!({"mode": "form", "message": message, "requestedSchema": schema});
    serde_json::from_value(json!({"method": "elicitation/create", "params": params})).map_err(internal)
}

fn greeting(name: &str) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(format!("Hello, {name}!"))])
}

fn protocol_error() -> ErrorData {
    ErrorData::internal_error("the job ended in a protocol error, as it always does", None)
}
