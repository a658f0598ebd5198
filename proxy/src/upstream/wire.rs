//! The bytes of our own messages to upstreams, and a first look at theirs: ids and methods are
//! read, everything else stays as it came.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::mcp::envelope::{self, Id, Method};
use crate::mcp::era::{Era, Revision};
use crate::mcp::json::push_text;
use crate::mcp::meta::{self, LogLevel, TraceContext};

/// How the gateway calls itself on each hop.
pub(crate) const CLIENT_INFO: &str =
    concat!(r#"{"name":"mcpmesh","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);

/// What a request carries in `_meta`.
#[derive(Debug, Clone, Default)]
pub(crate) struct MetaParts {
    /// Members of nobody's but the two ends'.
    pub(crate) pass: Bytes,
    pub(crate) trace: Option<TraceContext>,
    /// The JSON object; only modern requests carry it.
    pub(crate) capabilities: Bytes,
    pub(crate) log_level: Option<LogLevel>,
    pub(crate) progress: bool,
}

/// Renders a request. `members` are those of `params`, without braces and without `_meta`.
pub(crate) fn request(id: u64, method: &Method, members: &[u8], parts: &MetaParts, era: Era) -> Bytes {
    let mut meta = Object::new(parts.pass.len() + 256);
    meta.members(&parts.pass);
    if era == Era::Modern {
        meta.text(meta::PROTOCOL_VERSION, Revision::V2026_07_28.as_str());
        meta.raw(meta::CLIENT_INFO, CLIENT_INFO.as_bytes());
        let capabilities = if parts.capabilities.is_empty() { b"{}" } else { &parts.capabilities[..] };
        meta.raw(meta::CLIENT_CAPABILITIES, capabilities);
        if let Some(level) = parts.log_level {
            meta.text(meta::LOG_LEVEL, level.as_str());
        }
    }
    if parts.progress {
        meta.raw(meta::PROGRESS_TOKEN, id.to_string().as_bytes());
    }
    if let Some(trace) = &parts.trace {
        meta.text("traceparent", &trace.parent.to_string());
        if let Some(state) = &trace.state {
            meta.text("tracestate", state);
        }
    }
    let mut params = Object::new(members.len() + meta.len() + 16);
    params.members(members);
    if !meta.is_empty() {
        params.raw("_meta", &meta.finish());
    }
    let mut out = Object::new(params.len() + 96);
    out.text("jsonrpc", "2.0");
    out.raw("id", id.to_string().as_bytes());
    out.text("method", method.as_str());
    if !params.is_empty() {
        out.raw("params", &params.finish());
    }
    Bytes::from(out.finish())
}

/// Renders a notification; `params` is a whole object or empty.
pub(crate) fn notification(method: &Method, params: &[u8]) -> Bytes {
    let mut out = Object::new(params.len() + 96);
    out.text("jsonrpc", "2.0");
    out.text("method", method.as_str());
    if !params.is_empty() {
        out.raw("params", params);
    }
    Bytes::from(out.finish())
}

/// Tells the other side that we no longer want the answer.
pub(crate) fn cancelled(id: u64) -> Bytes {
    notification(&Method::NotificationsCancelled, format!(r#"{{"requestId":{id}}}"#).as_bytes())
}

/// Renders a result for a request of the upstream's.
pub(crate) fn result(id: &Id, result: &[u8]) -> Bytes {
    let mut out = Object::new(result.len() + 64);
    out.text("jsonrpc", "2.0");
    out.raw("id", id.as_json());
    out.raw("result", result);
    Bytes::from(out.finish())
}

/// Renders a refusal of a request of the upstream's.
pub(crate) fn refusal(id: &Id, code: i64, message: &str) -> Bytes {
    let mut error = Object::new(64);
    error.raw("code", code.to_string().as_bytes());
    error.text("message", message);
    error_response(id.as_json(), &error.finish())
}

/// Renders an error response around an `error` object as it came.
pub(crate) fn error_response(id: &[u8], error: &[u8]) -> Bytes {
    let mut out = Object::new(error.len() + 64);
    out.text("jsonrpc", "2.0");
    out.raw("id", id);
    out.raw("error", error);
    Bytes::from(out.finish())
}

/// Renders `initialize`.
pub(crate) fn initialize(id: u64, revision: Revision, capabilities: &[u8], info: Option<&[u8]>) -> Bytes {
    let mut params = Object::new(capabilities.len() + 128);
    params.text("protocolVersion", revision.as_str());
    params.raw("capabilities", if capabilities.is_empty() { b"{}" } else { capabilities });
    params.raw("clientInfo", info.unwrap_or(CLIENT_INFO.as_bytes()));
    let mut members = params.finish();
    members.pop();
    request(id, &Method::Initialize, members.get(1..).unwrap_or_default(), &MetaParts::default(), Era::Legacy)
}

/// A JSON object being written.
struct Object(Vec<u8>);

impl Object {
    fn new(capacity: usize) -> Self {
        let mut out = Vec::with_capacity(capacity + 2);
        out.push(b'{');
        Self(out)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.len() == 1
    }

    fn separate(&mut self) {
        if !self.is_empty() {
            self.0.push(b',');
        }
    }

    fn members(&mut self, members: &[u8]) {
        if !members.is_empty() {
            self.separate();
            self.0.extend_from_slice(members);
        }
    }

    fn raw(&mut self, key: &str, value: &[u8]) {
        self.separate();
        push_text(&mut self.0, key);
        self.0.push(b':');
        self.0.extend_from_slice(value);
    }

    fn text(&mut self, key: &str, value: &str) {
        self.separate();
        push_text(&mut self.0, key);
        self.0.push(b':');
        push_text(&mut self.0, value);
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}

/// What a message of the upstream's is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// A notification, and the call that it names, if it names one.
    Notification(Method, Option<u64>),
    /// The server asks.
    Request(Id, Method),
    /// An answer to the call with this id; none when the server could not read the id or lost it.
    Response(Option<u64>),
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct NotedParams<'a> {
    #[serde(borrow, default, rename = "progressToken")]
    token: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<NotedMeta<'a>>,
}

#[derive(Deserialize)]
struct NotedMeta<'a> {
    #[serde(borrow, default, rename = "io.modelcontextprotocol/subscriptionId")]
    subscription: Option<&'a RawValue>,
}

/// Our ids and tokens are integers.
fn number(raw: Option<&RawValue>) -> Option<u64> {
    envelope::number(raw?.get().as_bytes())
}

/// Looks at one message; `None` when it is none.
pub(crate) fn look(raw: &[u8]) -> Option<Said> {
    let head: Head<'_> = serde_json::from_slice(raw).ok()?;
    let Some(method) = head.method else {
        return (head.result.is_some() || head.error.is_some()).then(|| Said::Response(number(head.id)));
    };
    let method = Method::from(method.as_ref());
    if let Some(id) = head.id {
        return Some(Said::Request(Id::from_json(Bytes::copy_from_slice(id.get().as_bytes()))?, method));
    }
    let noted: Option<NotedParams<'_>> =
        head.params.and_then(|params| serde_json::from_str(params.get()).ok());
    let call = noted.and_then(|noted| {
        let subscription = noted.meta.and_then(|meta| number(meta.subscription));
        if method == Method::NotificationsProgress { number(noted.token) } else { subscription }
    });
    Some(Said::Notification(method, call))
}

/// The answer in a response.
pub(crate) enum Answer<'a> {
    /// `result`, raw.
    Result(&'a [u8]),
    /// `error`, raw, and its code.
    Error(&'a [u8], i64),
}

#[derive(Deserialize)]
struct Code {
    code: i64,
}

/// Reads a response that is small enough to be at hand.
pub(crate) fn answer(raw: &[u8]) -> Option<Answer<'_>> {
    let head: Head<'_> = serde_json::from_slice(raw).ok()?;
    if let Some(error) = head.error {
        let code = serde_json::from_str::<Code>(error.get()).map_or(0, |error| error.code);
        return Some(Answer::Error(error.get().as_bytes(), code));
    }
    head.result.map(|result| Answer::Result(result.get().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_modern_request_says_everything_and_a_legacy_one_no_modern_key() {
        let parts = MetaParts {
            pass: Bytes::from_static(br#""x.y/z":1"#),
            capabilities: Bytes::from_static(br#"{"roots":{}}"#),
            log_level: LogLevel::parse("info"),
            progress: true,
            ..MetaParts::default()
        };
        let modern = request(7, &Method::ToolsCall, br#""name":"a""#, &parts, Era::Modern);
        let expected = format!(
            r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"a","_meta":{{"x.y/z":1,"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{CLIENT_INFO},"io.modelcontextprotocol/clientCapabilities":{{"roots":{{}}}},"io.modelcontextprotocol/logLevel":"info","progressToken":7}}}}}}"#
        );
        assert_eq!(text(&modern), expected);
        let legacy = request(7, &Method::ToolsCall, br#""name":"a""#, &parts, Era::Legacy);
        assert_eq!(
            text(&legacy),
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a","_meta":{"x.y/z":1,"progressToken":7}}}"#
        );
        let bare = request(7, &Method::ToolsList, b"", &MetaParts::default(), Era::Legacy);
        assert_eq!(text(&bare), r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#);
    }

    #[test]
    fn looks_at_what_a_server_says() {
        let request = look(br#"{"jsonrpc":"2.0","id":0,"method":"roots/list"}"#);
        assert_eq!(request, Some(Said::Request(Id::from(0), Method::RootsList)));
        assert_eq!(look(br#"{"id":"12","result":{}}"#), Some(Said::Response(Some(12))));
        assert_eq!(look(br#"{"id":null,"error":{"code":1}}"#), Some(Said::Response(None)));
        let progress = br#"{"method":"notifications/progress","params":{"progressToken":5,"progress":1}}"#;
        assert_eq!(look(progress), Some(Said::Notification(Method::NotificationsProgress, Some(5))));
        assert_eq!(look(b"starting up..."), None);
        assert_eq!(look(br#"{"level":"info","msg":"not rpc"}"#), None);
    }
}
