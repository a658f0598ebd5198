//! The places of a response that something is rewritten in, and what their members are.

use super::Rules;
use crate::mcp::era::{Era, Revision};
use crate::mcp::json;

/// An open object or array, by its path from the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Top,
    /// `result`
    Result,
    /// `error`
    Error,
    /// `error.data`
    ErrorData,
    /// `result._meta`
    Meta,
    /// An array of content blocks, or the single block of a prompt's message.
    Content,
    /// An object with a `uri`, and maybe an embedded `resource` that has one.
    Block,
    /// `resource` of an embedded resource
    Resource,
    /// `result.contents`
    Contents,
    /// `messages`
    Messages,
    Message,
    /// `result.inputRequests`
    InputRequests,
    InputRequest,
    InputParams,
    /// Nothing is rewritten below.
    Other,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// The whole response.
    Document,
    /// Nothing to rewrite.
    Pass,
    /// The response's id.
    Id,
    /// `error.code`
    Code,
    ResultType,
    IsError,
    /// A URI of the upstream.
    Uri,
    /// `requestState`
    State,
    /// `ttlMs` of what a client may keep
    Ttl,
    /// `cacheScope` of what a client may keep
    Scope,
    /// `method` of an input request
    InputMethod,
    /// `params.mode` of an input request
    Mode,
    /// `params.tools` or `params.toolChoice` of an input request
    Tools,
    /// `structuredContent`, kept only if it is an object.
    Structured,
    /// Not for this client.
    Drop,
    /// A container in a place that is rewritten.
    Inside(Place),
}

impl Slot {
    /// Is its value looked at before it is written?
    pub(super) fn is_token(self) -> bool {
        match self {
            Self::Id | Self::Code | Self::ResultType | Self::IsError | Self::Uri | Self::State => true,
            Self::Ttl | Self::Scope | Self::InputMethod | Self::Mode => true,
            Self::Document | Self::Pass | Self::Tools => false,
            Self::Structured | Self::Drop | Self::Inside(_) => false,
        }
    }
}

/// What an element of an array is.
pub(super) fn element(place: Place) -> Slot {
    match place {
        Place::Content | Place::Contents => Slot::Inside(Place::Block),
        Place::Messages => Slot::Inside(Place::Message),
        _ => Slot::Pass,
    }
}

/// What a member is, by its decoded name; `None` for a name that may be taken for another.
pub(super) fn member(place: Place, key: &str, rules: &Rules, request: bool) -> Option<Slot> {
    Some(match place {
        Place::Top => return if request { top_of_request(key, rules) } else { top(key) },
        Place::Result => result(key, rules),
        Place::Error => match key {
            "code" => Slot::Code,
            "data" if rules.uris.is_some() => Slot::Inside(Place::ErrorData),
            _ => Slot::Pass,
        },
        Place::Meta if is_reserved(key) => Slot::Drop,
        Place::Block if key == "resource" => Slot::Inside(Place::Resource),
        Place::Block | Place::Resource | Place::ErrorData if key == "uri" => Slot::Uri,
        Place::Message | Place::Block if key == "content" => Slot::Inside(Place::Content),
        Place::InputRequests => Slot::Inside(Place::InputRequest),
        Place::InputRequest if key == "params" => Slot::Inside(Place::InputParams),
        Place::InputRequest if key == "method" => Slot::InputMethod,
        Place::InputParams if key == "messages" && rules.uris.is_some() => Slot::Inside(Place::Messages),
        Place::InputParams if key == "mode" => Slot::Mode,
        Place::InputParams if key == "tools" || key == "toolChoice" => Slot::Tools,
        _ => Slot::Pass,
    })
}

fn top(key: &str) -> Option<Slot> {
    match key {
        "id" => Some(Slot::Id),
        "result" => Some(Slot::Inside(Place::Result)),
        "error" => Some(Slot::Inside(Place::Error)),
        other if ["id", "result", "error", "method"].iter().any(|name| json::is_variant(other, name)) => None,
        // A request in a response's place.
        "method" => None,
        _ => Some(Slot::Pass),
    }
}

fn top_of_request(key: &str, rules: &Rules) -> Option<Slot> {
    match key {
        "id" => Some(Slot::Id),
        "result" | "error" => None,
        "params" if rules.uris.is_some() => Some(Slot::Inside(Place::InputParams)),
        other if ["id", "method", "params"].iter().any(|name| json::is_variant(other, name)) => None,
        _ => Some(Slot::Pass),
    }
}

fn result(key: &str, rules: &Rules) -> Slot {
    let legacy = rules.target.era() == Era::Legacy;
    let wraps = rules.uris.is_some();
    match key {
        "resultType" => Slot::ResultType,
        "ttlMs" | "cacheScope" if legacy => Slot::Drop,
        "ttlMs" if rules.reads_resource => Slot::Ttl,
        "cacheScope" if rules.reads_resource => Slot::Scope,
        "isError" => Slot::IsError,
        "structuredContent" if legacy && rules.target < Revision::V2025_06_18 => Slot::Drop,
        "structuredContent" if legacy => Slot::Structured,
        "_meta" if legacy => Slot::Inside(Place::Meta),
        "requestState" if rules.states.is_some() => Slot::State,
        "content" if wraps => Slot::Inside(Place::Content),
        "contents" if wraps => Slot::Inside(Place::Contents),
        "messages" if wraps => Slot::Inside(Place::Messages),
        "inputRequests" if wraps || rules.asks.is_some() => Slot::Inside(Place::InputRequests),
        _ => Slot::Pass,
    }
}

/// Keys that a legacy client must not see; `related-task` is one of its own.
fn is_reserved(key: &str) -> bool {
    key.strip_prefix("io.modelcontextprotocol/").is_some_and(|name| name != "related-task")
}
