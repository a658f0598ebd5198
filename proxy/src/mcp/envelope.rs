//! The JSON-RPC envelope: one message judged in one pass and kept as the bytes it came as. Only
//! what routing and policy look at is taken out; everything else stays a slice of the body.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

pub use super::json::Limits;
use super::json::{self, Error, Key, Sink};
use super::meta::{Meta, Reserved};

mod method;
mod params;
mod value;

pub use method::Method;
pub use params::Params;
pub use value::{IdValue, number};

/// What one HTTP body or one stdio line held.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "the common case stays off the heap")]
pub enum Incoming {
    /// One message.
    One(Message),
    /// An array of messages: only revision 2025-03-26 has them.
    Batch(Vec<Message>),
}

/// One JSON-RPC message.
#[derive(Debug, Clone)]
pub enum Message {
    /// Asks for an answer.
    Request(Request),
    /// Asks for none.
    Notification(Notification),
    /// Answers a request of the other side.
    Response(Response),
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    /// The sender's id.
    pub id: Id,
    /// What is asked.
    pub method: Method,
    /// Its parameters.
    pub params: Params,
}

/// A notification.
#[derive(Debug, Clone)]
pub struct Notification {
    /// What is said.
    pub method: Method,
    /// Its parameters.
    pub params: Params,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The id of the request, or none when the other side could not read it.
    pub id: Option<Id>,
    /// The whole message.
    pub raw: Bytes,
    /// What it answers.
    pub outcome: Outcome,
}

/// The raw `result` or `error` member of a response.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// `result`
    Result(Bytes),
    /// `error`
    Error(Bytes),
}

/// A request id as it stands in the text: a JSON string or integer.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Id(Bytes);

/// Longest id that is kept.
const MAX_ID: usize = 1024;

impl Id {
    /// Takes the JSON text of an id; `None` unless it is a string or an integer.
    #[must_use]
    pub fn from_json(text: Bytes) -> Option<Self> {
        (is_id(&text) && json::check(&text, &Limits::default()).is_ok()).then_some(Self(text))
    }

    /// The JSON text.
    #[must_use]
    pub fn as_json(&self) -> &[u8] {
        &self.0
    }
}

impl From<u64> for Id {
    fn from(number: u64) -> Self {
        Self(Bytes::from(number.to_string()))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

fn is_id(text: &[u8]) -> bool {
    let integer = |text: &[u8]| text.iter().all(u8::is_ascii_digit) && !text.is_empty();
    text.len() <= MAX_ID
        && match text {
            [b'"', ..] => json::text(text).is_some(),
            [b'-', digits @ ..] => integer(digits),
            digits => integer(digits),
        }
}

/// Why a message was not taken, as a JSON-RPC error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// -32700, -32600 or -32602.
    pub code: i64,
    /// What is wrong, without a word of the sender's.
    pub message: Cow<'static, str>,
    /// The id of the message, when it could be read.
    pub id: Option<Id>,
}

/// JSON-RPC: the text is not JSON.
pub const PARSE_ERROR: i64 = -32700;
/// JSON-RPC: the JSON is no request.
pub const INVALID_REQUEST: i64 = -32600;
/// JSON-RPC: the parameters do not fit the method.
pub const INVALID_PARAMS: i64 = -32602;

impl Refusal {
    pub(crate) fn request(message: impl Into<Cow<'static, str>>) -> Self {
        Self { code: INVALID_REQUEST, message: message.into(), id: None }
    }

    pub(crate) fn params(message: impl Into<Cow<'static, str>>) -> Self {
        Self { code: INVALID_PARAMS, message: message.into(), id: None }
    }

    fn with_id(mut self, id: &Id) -> Self {
        self.id = Some(id.clone());
        self
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::Syntax(_) | Error::Encoding => PARSE_ERROR,
            Error::Depth | Error::Members | Error::Duplicate(_) | Error::Ambiguous(_) => INVALID_REQUEST,
        };
        Self { code, message: error.to_string().into(), id: None }
    }
}

/// Reads one body.
///
/// # Errors
/// A [`Refusal`] for anything that two parsers might read differently.
// By value: the message keeps the body alive as its own storage.
#[expect(clippy::needless_pass_by_value, reason = "slices of the body outlive the call")]
pub fn parse(body: Bytes, limits: &Limits) -> Result<Incoming, Refusal> {
    if u32::try_from(body.len()).is_err() {
        return Err(Refusal::request("the message is too long"));
    }
    let mut shape = Shape::default();
    let document = json::scan(&body, limits, &mut shape)?;
    match body.get(document.start) {
        Some(b'{') => Ok(Incoming::One(shape.into_message(&body, document)?)),
        Some(b'[') => parse_batch(&body, document, limits),
        _ => Err(Refusal::request("a message is a JSON object")),
    }
}

/// Messages that one batch may hold.
const MAX_BATCH: usize = 1000;

fn parse_batch(body: &Bytes, document: Range<usize>, limits: &Limits) -> Result<Incoming, Refusal> {
    let array = body.slice(document);
    let elements = json::elements(&array).ok_or_else(|| Refusal::request("a batch is an array"))?;
    if elements.is_empty() || elements.len() > MAX_BATCH {
        return Err(Refusal::request("a batch holds 1 to 1000 messages"));
    }
    let messages = elements.into_iter().map(|element| {
        let mut shape = Shape::default();
        let document = json::scan(element, limits, &mut shape)?;
        if element.first() != Some(&b'{') {
            return Err(Refusal::request("a batch holds only objects"));
        }
        shape.into_message(&array.slice_ref(element), document)
    });
    Ok(Incoming::Batch(messages.collect::<Result<_, _>>()?))
}

/// Where a member stands in the body. Offsets are 32 bits wide: a message is far smaller.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// Offset of the name's opening quote.
    start: u32,
    /// Length of the name as written.
    length: u32,
    value: (u32, u32),
    /// The decoded name when it was written with escapes.
    decoded: Option<Box<str>>,
}

impl Member {
    fn new(key: &Key<'_>) -> Self {
        let decoded = match &key.text {
            Cow::Borrowed(_) => None,
            Cow::Owned(text) => Some(text.clone().into_boxed_str()),
        };
        Self { start: key.at as u32, length: key.text.len() as u32, value: (0, 0), decoded }
    }

    fn key_bytes<'a>(&'a self, body: &'a [u8]) -> &'a [u8] {
        if let Some(decoded) = &self.decoded {
            return decoded.as_bytes();
        }
        let first = self.start as usize + 1;
        body.get(first..first + self.length as usize).unwrap_or_default()
    }

    pub(crate) fn key<'a>(&'a self, body: &'a [u8]) -> &'a str {
        std::str::from_utf8(self.key_bytes(body)).unwrap_or_default()
    }

    pub(crate) fn is(&self, key: &str, body: &[u8]) -> bool {
        self.key_bytes(body) == key.as_bytes()
    }

    /// Where its value stands.
    pub(crate) fn range(&self) -> Range<usize> {
        self.value.0 as usize..self.value.1 as usize
    }

    pub(crate) fn value<'a>(&self, body: &'a [u8]) -> &'a [u8] {
        body.get(self.range()).unwrap_or_default()
    }

    /// Where the whole member stands, from the name's quote to the value's end.
    pub(crate) fn whole(&self) -> Range<usize> {
        self.start as usize..self.value.1 as usize
    }

    fn set_value(&mut self, value: &Range<usize>) {
        self.value = (value.start as u32, value.end as u32);
    }
}

pub(crate) type MemberList = SmallVec<[Member; 6]>;

/// Where the judged members of one message stand.
#[derive(Default)]
struct Shape {
    top: [Option<Range<usize>>; JUDGED.len()],
    open: Option<usize>,
    params: MemberList,
    in_meta: bool,
    in_judged: bool,
    meta: MemberList,
    /// Indices into `meta` of the keys that belong to the hop.
    reserved: Reserved,
}

const JUDGED: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];
const JSONRPC: usize = 0;
const ID: usize = 1;
const METHOD: usize = 2;
const PARAMS: usize = 3;
const RESULT: usize = 4;
const ERROR: usize = 5;

/// Names inside `params` that something here or upstream decides by.
const JUDGED_PARAMS: [&str; 16] = [
    "name",
    "uri",
    "arguments",
    "_meta",
    "cursor",
    "ref",
    "argument",
    "context",
    "level",
    "requestState",
    "inputResponses",
    "protocolVersion",
    "capabilities",
    "requestId",
    "taskId",
    "notifications",
];

/// Members of `params` whose own members are judged, and those members' names.
const JUDGED_OBJECTS: [&str; 2] = ["ref", "notifications"];
const JUDGED_INSIDE: [&str; 8] = [
    "type",
    "name",
    "uri",
    "toolsListChanged",
    "promptsListChanged",
    "resourcesListChanged",
    "resourceSubscriptions",
    "taskIds",
];

fn refuse_variants(key: &Key<'_>, judged: &[&str]) -> Result<(), Error> {
    let variant = judged.iter().any(|name| json::is_variant(&key.text, name));
    if variant { Err(Error::Ambiguous(key.at)) } else { Ok(()) }
}

impl Sink<'_> for Shape {
    fn key(&mut self, depth: usize, key: &Key<'_>) -> Result<(), Error> {
        let text = key.text.as_ref();
        match depth {
            1 => {
                self.open = JUDGED.iter().position(|name| text == *name);
                if self.open.is_none() {
                    refuse_variants(key, &JUDGED)?;
                }
            }
            2 if self.open == Some(PARAMS) => {
                self.in_meta = text == "_meta";
                self.in_judged = JUDGED_OBJECTS.contains(&text);
                if !JUDGED_PARAMS.contains(&text) {
                    refuse_variants(key, &JUDGED_PARAMS)?;
                }
                self.params.push(Member::new(key));
            }
            3 if self.in_meta && self.open == Some(PARAMS) => {
                self.reserved.note(key, self.meta.len())?;
                self.meta.push(Member::new(key));
            }
            3 if self.in_judged && self.open == Some(PARAMS) => refuse_variants(key, &JUDGED_INSIDE)?,
            _ => {}
        }
        Ok(())
    }

    fn value(&mut self, depth: usize, value: Range<usize>) {
        match (depth, self.open) {
            (1, Some(open)) => {
                if let Some(slot) = self.top.get_mut(open) {
                    *slot = Some(value);
                }
                self.open = None;
            }
            (2, Some(PARAMS)) => {
                if let Some(member) = self.params.last_mut() {
                    member.set_value(&value);
                }
                self.in_meta = false;
                self.in_judged = false;
            }
            (3, Some(PARAMS)) if self.in_meta => {
                if let Some(member) = self.meta.last_mut() {
                    member.set_value(&value);
                }
            }
            _ => {}
        }
    }
}

impl Shape {
    fn take<'a>(&self, body: &'a Bytes, which: usize) -> Option<&'a [u8]> {
        body.get(self.top.get(which)?.clone()?)
    }

    fn slice(&self, body: &Bytes, which: usize) -> Option<Bytes> {
        Some(body.slice(self.top.get(which)?.clone()?))
    }

    fn into_message(self, body: &Bytes, document: Range<usize>) -> Result<Message, Refusal> {
        let id = self.slice(body, ID).filter(|text| is_id(text)).map(Id);
        let refuse = |refusal: Refusal| match &id {
            Some(id) => refusal.with_id(id),
            None => refusal,
        };
        if self.take(body, JSONRPC).and_then(json::text).as_deref() != Some("2.0") {
            return Err(refuse(Refusal::request("jsonrpc must be \"2.0\"")));
        }
        let has_id = self.take(body, ID);
        let outcome = (self.slice(body, RESULT), self.slice(body, ERROR));
        if self.take(body, METHOD).is_none() {
            return self.into_response(body, document, id).map(Message::Response);
        }
        if outcome.0.is_some() || outcome.1.is_some() {
            return Err(refuse(Refusal::request("a message is a request or a response, not both")));
        }
        if has_id.is_some() && id.is_none() {
            return Err(Refusal::request("id must be a string or an integer"));
        }
        let method = self.method(body).map_err(refuse)?;
        let params = self.into_params(body).map_err(refuse)?;
        Ok(match id {
            Some(id) => Message::Request(Request { id, method, params }),
            None => Message::Notification(Notification { method, params }),
        })
    }

    fn into_response(
        self,
        body: &Bytes,
        document: Range<usize>,
        id: Option<Id>,
    ) -> Result<Response, Refusal> {
        let outcome = match (self.slice(body, RESULT), self.slice(body, ERROR)) {
            (Some(result), None) => Outcome::Result(result),
            (None, Some(error)) if error.first() == Some(&b'{') => Outcome::Error(error),
            _ => return Err(Refusal::request("a message has a method, a result or an error")),
        };
        let unread = matches!(self.take(body, ID), None | Some(b"null"));
        if id.is_none() && !(unread && matches!(outcome, Outcome::Error(_))) {
            return Err(Refusal::request("id must be a string or an integer"));
        }
        Ok(Response { id, raw: body.slice(document), outcome })
    }

    fn method(&self, body: &Bytes) -> Result<Method, Refusal> {
        let name = self.take(body, METHOD).and_then(json::text);
        match name {
            Some(name) if !name.is_empty() && !name.contains('\0') => Ok(Method::from(name.as_ref())),
            _ => Err(Refusal::request("method must be a non-empty string")),
        }
    }

    fn into_params(self, body: &Bytes) -> Result<Params, Refusal> {
        match self.take(body, PARAMS) {
            None => return Ok(Params::default()),
            Some([b'{', ..]) => {}
            Some(_) => return Err(Refusal::params("params must be an object")),
        }
        if let Some(meta) = self.params.iter().find(|member| member.is("_meta", body))
            && meta.value(body).first() != Some(&b'{')
        {
            return Err(Refusal::params("_meta must be an object"));
        }
        let meta = Meta::new(body.clone(), self.meta, self.reserved)?;
        Ok(Params::new(body.clone(), self.params, meta))
    }
}

#[cfg(test)]
mod tests;
