//! The plays of the catalogue: what a call of each tool does.
#![expect(deprecated, reason = "logging is deprecated but still to be relayed")]

use std::sync::atomic::Ordering;
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{
    CallToolResponse, CallToolResult, ClientCapabilities, ContentBlock, ErrorData, LoggingLevel,
    LoggingMessageNotificationParam, ProgressNotificationParam,
};
use rmcp::service::RequestContext;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::ask::{Asked, Given, ask, internal, is_modern};
use crate::catalogue::{Ask, Play, fill, fill_text};
use crate::server::{Server, complete};

type Context = RequestContext<RoleServer>;

/// Plays one call.
pub(crate) async fn play(
    server: &Server,
    play: Play,
    given: Given,
    context: &Context,
) -> Result<CallToolResponse, ErrorData> {
    match play {
        Play::Result(result) => {
            let filled = fill(&result, &json!({"args": given.arguments}));
            let result: CallToolResult = complete(filled)?;
            return Ok(result.into());
        }
        Play::Ask(asked) => return play_ask(server, &asked, given, context).await,
        Play::Log(lines) => log(&lines, context).await?,
        Play::Progress(steps) => {
            for step in steps {
                progress(context, step, 100.0).await?;
                sleep(Duration::from_millis(50)).await;
            }
        }
        Play::Wait {} => {
            let seconds = given.arguments.get("seconds").and_then(Value::as_f64).unwrap_or(30.0);
            tokio::select! {
                () = context.ct.cancelled() => {
                    server.cancelled.fetch_add(1, Ordering::Relaxed);
                    return Err(internal("cancelled"));
                }
                () = wait(seconds, context) => {}
            }
        }
        Play::Cancellations {} => {
            return Ok(text(server.cancelled.load(Ordering::Relaxed).to_string()).into());
        }
        Play::Reconnect {} => sleep(Duration::from_millis(100)).await,
        Play::Requires(needed) => requires(&needed, context)?,
        Play::Notify(what) => server.notify(&what).await,
    }
    Ok(text("done").into())
}

async fn play_ask(
    server: &Server,
    asked: &Ask,
    given: Given,
    context: &Context,
) -> Result<CallToolResponse, ErrorData> {
    Ok(match ask(asked, given, &server.codec, context).await? {
        Asked::Answered(answers) => text(fill_text(&asked.reply, &answers)).into(),
        Asked::Again(result) => result.into(),
        Asked::Impossible(reason) => CallToolResult::error(vec![ContentBlock::text(reason)]).into(),
    })
}

/// Modern clients ask for logs on each request; legacy ones get them.
async fn log(lines: &[String], context: &Context) -> Result<(), ErrorData> {
    if is_modern(context) && context.meta.log_level().is_none() {
        return Ok(());
    }
    for line in lines {
        let message = LoggingMessageNotificationParam::new(LoggingLevel::Info, json!(line));
        context.peer.notify_logging_message(message.with_logger("fixture-rmcp")).await.map_err(internal)?;
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn wait(seconds: f64, context: &Context) {
    let steps = seconds * 10.0;
    let mut step = 0.0;
    while step < steps {
        step += 1.0;
        // A legacy client whose stream broke did not cancel.
        let _ = progress(context, step, steps).await;
        sleep(Duration::from_millis(100)).await;
    }
}

async fn progress(context: &Context, step: f64, total: f64) -> Result<(), ErrorData> {
    let Some(token) = context.meta.get_progress_token() else { return Ok(()) };
    let notification = ProgressNotificationParam::new(token, step).with_total(total);
    context.peer.notify_progress(notification).await.map_err(internal)
}

fn requires(needed: &Value, context: &Context) -> Result<(), ErrorData> {
    let declared = serde_json::to_value(context.client_capabilities()).map_err(internal)?;
    let missing = needed.as_object().into_iter().flatten().any(|(key, _)| declared.get(key).is_none());
    if missing {
        let needed: ClientCapabilities = serde_json::from_value(needed.clone()).map_err(internal)?;
        return Err(ErrorData::missing_required_client_capability(needed));
    }
    Ok(())
}

fn text(text: impl Into<String>) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(text)])
}
