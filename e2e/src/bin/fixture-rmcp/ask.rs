//! Questions to the client: input-required rounds in the modern era, requests on the call's stream in the legacy one.
#![expect(deprecated, reason = "roots and sampling are deprecated but still to be relayed")]

use std::collections::BTreeMap;

use rmcp::model::{
    ClientCapabilities, ErrorData, InputRequest, InputRequests, InputRequiredResult, InputResponses,
    JsonObject, RequestStateCodec,
};
use rmcp::service::RequestContext;
use rmcp::{Peer, RoleServer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::catalogue::{Ask, Questions, fill};

/// What a call, or a get of a prompt, brings along.
pub(crate) struct Given {
    pub(crate) arguments: JsonObject,
    pub(crate) responses: Option<InputResponses>,
    pub(crate) state: Option<String>,
}

/// How asking ended.
pub(crate) enum Asked {
    /// All answers by key, and the arguments under `args`.
    Answered(Value),
    /// The client has to come again.
    Again(InputRequiredResult),
    /// A legacy client cannot be asked.
    Impossible(String),
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    round: usize,
    answers: BTreeMap<String, Value>,
}

/// Whether the request came in the era without sessions.
pub(crate) fn is_modern(context: &RequestContext<RoleServer>) -> bool {
    context.protocol_version().is_some_and(|version| !version.has_initialize())
}

/// Asks what is still to be asked.
pub(crate) async fn ask(
    ask: &Ask,
    given: Given,
    codec: &RequestStateCodec,
    context: &RequestContext<RoleServer>,
) -> Result<Asked, ErrorData> {
    let declared = context.client_capabilities().unwrap_or_default();
    let arguments = json!({"args": given.arguments});
    let rounds = questions(ask, &arguments, &declared);
    let missing: Vec<_> =
        rounds.iter().flat_map(BTreeMap::values).filter(|asked| !declares(&declared, asked)).collect();
    if !missing.is_empty() && !is_modern(context) {
        return Ok(Asked::Impossible(format!("the client cannot be asked: {missing:?}")));
    }
    if !missing.is_empty() {
        return Err(ErrorData::missing_required_client_capability(capabilities_for(&missing)?));
    }
    let mut values = arguments;
    if !is_modern(context) {
        for questions in &rounds {
            merge(&mut values, push(questions, &context.peer).await?);
        }
        return Ok(Asked::Answered(values));
    }
    let mut state: State = match given.state.as_deref() {
        Some(sealed) => codec.open_json(sealed).map_err(|_| refused_state())?,
        None => State::default(),
    };
    let questions = rounds.get(state.round).ok_or_else(refused_state)?;
    let answers = answers(questions, given.responses);
    if answers.len() == questions.len() && (given.state.is_some() || !ask.sealed) {
        state.round += 1;
        state.answers.extend(answers);
        if state.round == rounds.len() {
            merge(&mut values, state.answers);
            return Ok(Asked::Answered(values));
        }
    }
    let sealed = ask.sealed.then(|| codec.seal_json(&state)).transpose().map_err(internal)?;
    Ok(Asked::Again(InputRequiredResult::new(Some(requests(&rounds[state.round])?), sealed)))
}

fn questions(ask: &Ask, arguments: &Value, declared: &ClientCapabilities) -> Vec<Questions> {
    let round = |questions: &Questions| -> Questions {
        let wanted = questions.iter().filter(|(_, asked)| !ask.declared_only || declares(declared, asked));
        wanted.map(|(key, asked)| (key.clone(), fill(asked, arguments))).collect()
    };
    ask.rounds.iter().map(round).collect()
}

/// The client's capability that a question needs.
fn capability(asked: &Value) -> &'static str {
    match asked["method"].as_str() {
        Some("elicitation/create") => "elicitation",
        Some("sampling/createMessage") => "sampling",
        _ => "roots",
    }
}

fn declares(declared: &ClientCapabilities, asked: &Value) -> bool {
    serde_json::to_value(declared).is_ok_and(|declared| declared.get(capability(asked)).is_some())
}

fn capabilities_for(missing: &[&Value]) -> Result<ClientCapabilities, ErrorData> {
    let needed: serde_json::Map<_, _> =
        missing.iter().map(|asked| (capability(asked).to_owned(), json!({}))).collect();
    serde_json::from_value(Value::Object(needed)).map_err(internal)
}

/// The answers that came, as far as they are objects and were asked for.
fn answers(questions: &Questions, responses: Option<InputResponses>) -> BTreeMap<String, Value> {
    let known = |(key, answer): &(String, Value)| answer.is_object() && questions.contains_key(key);
    responses.unwrap_or_default().into_iter().filter(known).collect()
}

fn requests(questions: &Questions) -> Result<InputRequests, ErrorData> {
    let typed = |(key, asked): (&String, &Value)| Ok((key.clone(), serde_json::from_value(asked.clone())?));
    questions.iter().map(typed).collect::<Result<_, serde_json::Error>>().map_err(internal)
}

/// Legacy: every question of a round at once, as requests of the server's own.
async fn push(questions: &Questions, peer: &Peer<RoleServer>) -> Result<BTreeMap<String, Value>, ErrorData> {
    let one = |(key, request): (String, InputRequest)| async move {
        let answer = match request {
            InputRequest::CreateMessage(asked) => {
                serde_json::to_value(peer.create_message(asked.params).await.map_err(internal)?)
            }
            InputRequest::Elicitation(asked) => {
                serde_json::to_value(peer.create_elicitation(asked.params).await.map_err(internal)?)
            }
            _ => serde_json::to_value(peer.list_roots().await.map_err(internal)?),
        };
        Ok::<_, ErrorData>((key, answer.map_err(internal)?))
    };
    let all: Vec<_> = requests(questions)?.into_iter().map(one).collect();
    futures_util::future::try_join_all(all).await.map(|answers| answers.into_iter().collect())
}

fn merge(values: &mut Value, answers: BTreeMap<String, Value>) {
    if let Some(values) = values.as_object_mut() {
        values.extend(answers);
    }
}

fn refused_state() -> ErrorData {
    ErrorData::invalid_params("the request state is not ours", None)
}

pub(crate) fn internal(error: impl std::fmt::Display) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}
