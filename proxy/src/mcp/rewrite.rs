//! The one streaming scanner over an upstream's response (decisions 26). It tracks strings and
//! depth, replaces what belongs to the hop (the id, URIs, era members) where it stands and forwards
//! every other byte; nothing is held beyond one such token.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::envelope::{self, Id, Method};
use super::era::{Era, Revision};
use super::fault;
use super::meta::{self, CapabilitySet};
use super::{json, uri};

mod grammar;
mod message;
mod place;
mod writer;

pub use message::{cut_completion, remove_path, rewrite_progress, rewrite_request, splice_path, updated_uri};
use place::{Place, Slot};
use writer::{Pieces, Sink, Writer};

/// What a response is rewritten to.
#[derive(Clone)]
pub struct Rules {
    /// The id that the client gave.
    pub id: Id,
    /// The id that we gave upstream, which the response must carry; none where that is known already.
    pub asked: Option<u64>,
    /// The client's revision.
    pub target: Revision,
    /// The era that the upstream answered in.
    pub upstream: Era,
    /// Wrap the upstream's URIs.
    pub uris: Option<UriWrap>,
    /// What `input_required` may ask of a modern client; none where the method cannot have it (2026-07-28,
    /// basic/patterns/mrtr).
    pub asks: Option<CapabilitySet>,
    /// The client opens URLs for its user: it may be told that one must be opened first (-32042 of 2025-11-25).
    pub opens_urls: bool,
    /// Seal what the client sends back later.
    pub states: Option<Arc<dyn States>>,
    /// The request was `resources/read`: -32602 becomes -32002 for legacy clients, and modern ones read how long they
    /// may keep the result: for themselves only, and not at all unless the upstream says otherwise.
    pub reads_resource: bool,
}

impl Rules {
    /// Rules that replace the id and translate between the eras.
    #[must_use]
    pub fn new(id: Id, target: Revision, upstream: Era) -> Self {
        Self {
            id,
            asked: None,
            target,
            upstream,
            uris: None,
            asks: None,
            opens_urls: false,
            states: None,
            reads_resource: false,
        }
    }

    fn modern(&self) -> bool {
        self.target.era() == Era::Modern
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").field("id", &self.id).field("target", &self.target).finish_non_exhaustive()
    }
}

/// Wraps URIs under a server's prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriWrap {
    /// The server's prefix.
    pub prefix: Arc<str>,
}

impl UriWrap {
    fn apply(&self, text: &str) -> String {
        uri::wrap(&self.prefix, text)
    }
}

/// Seals what an upstream hands the client to bring back.
pub trait States: Send + Sync {
    /// The sealed form of `requestState`; none was given when `upstream` is none.
    fn request_state(&self, upstream: Option<&str>) -> Option<String>;
}

/// What a response said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// `result.isError` is true.
    pub is_error_result: bool,
    /// `error.code` as the upstream gave it.
    pub error_code: Option<i64>,
    /// `result.resultType` as the upstream gave it.
    pub result_type: Option<String>,
    /// Bytes read.
    pub bytes: u64,
}

/// Why a response can't be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not a JSON-RPC response.
    #[error("not a JSON-RPC response at byte {0}")]
    Syntax(u64),
    /// It ended in the middle.
    #[error("the response is cut off")]
    Truncated,
    /// More than 256 objects and arrays open at once.
    #[error("the response is nested too deeply")]
    Depth,
    /// A token that has to be rewritten exceeds 64 KiB.
    #[error("a rewritten value is too long")]
    TooLong,
    /// A member that is rewritten stands twice, or in another spelling.
    #[error("a rewritten member is ambiguous")]
    Ambiguous,
    /// `resultType` is none that this response can have: an invalid response (2026-07-28, basic).
    #[error("a resultType that this response cannot have")]
    ResultType,
    /// `input_required` with neither `inputRequests` nor `requestState`.
    #[error("input_required that asks for nothing")]
    NothingAsked,
    /// `input_required` that asks for what the client did not declare.
    #[error("input_required that asks for what the client did not declare")]
    Undeclared,
    /// An error that only its own hop, or only the other era, understands.
    #[error("error {0}, which is not the client's to know")]
    Code(i64),
    /// The response is to another request, or a result is to none (JSON-RPC 2.0, 5).
    #[error("a response to another request")]
    Id,
}

const MAX_DEPTH: usize = 256;
const MAX_TOKEN: usize = 64 * 1024;
/// Keys and tokens that need no room of their own on the heap.
type Short = SmallVec<[u8; 48]>;

/// What the next byte may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The value of a member, an element, or the document.
    Value,
    /// A key, or the end of an object that has begun.
    FirstKey,
    Key,
    Colon,
    /// An element or the end of an array that has begun.
    FirstElement,
    /// What follows a value.
    After,
    /// Anything inside a container that nothing is rewritten in.
    Loose,
    /// Inside a string, a key's or a value's.
    Text {
        key: bool,
        escape: bool,
    },
    /// Inside a number or a literal.
    Scalar,
    Done,
}

/// Where bytes go while they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    /// Forwarded as they are.
    Forward,
    /// A comma and a key whose fate hangs on what the member is.
    Hold,
    /// A value to look at before it is written.
    Token,
    /// Left out.
    Drop,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    object: bool,
    place: Place,
    /// Something of it has been written, so that a comma must come before more.
    written: bool,
}

/// What has been met in the rewritten places.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    id: bool,
    /// The id is not the one that we gave.
    other_id: bool,
    result: bool,
    error: bool,
    code: bool,
    message: bool,
    result_type: bool,
    ttl: bool,
    scope: bool,
    state: bool,
    input_requests: bool,
    /// One of the input requests is for what the client did not declare.
    undeclared: bool,
}

/// One of the input requests, as far as it has been read.
#[derive(Debug, Default)]
struct Input {
    method: Option<Method>,
    mode: Option<Box<str>>,
    tools: bool,
}

/// The streaming scanner; one per response.
#[derive(Debug)]
pub struct Rewriter {
    rules: Rules,
    stack: SmallVec<[Frame; 12]>,
    state: State,
    lane: Lane,
    slot: Slot,
    /// A comma and a key, as far as they came in earlier chunks.
    held: Short,
    /// The same in this chunk.
    hold: Range<usize>,
    token: Short,
    seen: Seen,
    input: Input,
    outcome: Outcome,
    /// A request of the upstream's, not a response.
    request: bool,
}

impl Rewriter {
    /// A scanner for one response.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            stack: SmallVec::new(),
            state: State::Value,
            lane: Lane::Forward,
            slot: Slot::Document,
            held: Short::new(),
            hold: 0..0,
            token: Short::new(),
            seen: Seen::default(),
            input: Input::default(),
            outcome: Outcome::default(),
            request: false,
        }
    }

    /// Takes a chunk and appends what can be sent of it.
    ///
    /// # Errors
    /// [`Malformed`]; nothing more can be forwarded after it.
    pub fn feed(&mut self, chunk: &[u8], out: &mut BytesMut) -> Result<(), Malformed> {
        self.run(chunk, out)
    }

    /// The same without a copy: long untouched runs come out as slices of the chunk.
    ///
    /// # Errors
    /// [`Malformed`]; nothing more can be forwarded after it.
    pub fn feed_bytes(&mut self, chunk: &Bytes, out: &mut Vec<Bytes>) -> Result<(), Malformed> {
        let mut pieces = Pieces::new(chunk, out);
        self.run(chunk, &mut pieces)?;
        pieces.finish();
        Ok(())
    }

    /// Ends the response.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] when it has not come to its end.
    pub fn finish(self) -> Result<Outcome, Malformed> {
        if self.state == State::Done { Ok(self.outcome) } else { Err(Malformed::Truncated) }
    }

    /// What has been met so far.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    fn run<S: Sink>(&mut self, chunk: &[u8], sink: &mut S) -> Result<(), Malformed> {
        let mut writer = Writer::new(chunk, sink);
        let mut at = 0;
        while at < chunk.len() {
            let begun = at;
            let step = match self.state {
                State::Loose => self.loose(chunk, at, &mut writer),
                State::Text { key, escape } => self.text(chunk, at, (key, escape), &mut writer),
                State::Scalar => self.scalar(chunk, at, &mut writer),
                _ => self.step(chunk, at, &mut writer),
            };
            at = step.map_err(|error| self.locate(error, begun))?;
        }
        self.held.extend_from_slice(writer.bytes(self.hold.start, self.hold.end));
        self.hold = 0..0;
        writer.flush();
        self.outcome.bytes += chunk.len() as u64;
        Ok(())
    }

    fn locate(&self, error: Malformed, at: usize) -> Malformed {
        match error {
            Malformed::Syntax(_) => Malformed::Syntax(self.outcome.bytes + at as u64),
            other => other,
        }
    }

    /// Sends bytes of the chunk where they go now.
    fn put<S: Sink>(&mut self, from: usize, to: usize, writer: &mut Writer<'_, S>) -> Result<(), Malformed> {
        let buffer = match self.lane {
            Lane::Forward => {
                writer.keep(from, to);
                return Ok(());
            }
            Lane::Drop => return Ok(()),
            Lane::Hold => return self.hold(from, to),
            Lane::Token => &mut self.token,
        };
        let bytes = writer.bytes(from, to);
        if buffer.len() + bytes.len() > MAX_TOKEN {
            return Err(Malformed::TooLong);
        }
        buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Holds bytes back; they follow those that are held.
    fn hold(&mut self, from: usize, to: usize) -> Result<(), Malformed> {
        let from = if self.hold.is_empty() { from } else { self.hold.start };
        if self.held.len() + to - from > MAX_TOKEN {
            return Err(Malformed::TooLong);
        }
        self.hold = from..to;
        Ok(())
    }

    /// The value of a slot has been read into `token`: writes what it becomes.
    fn token_done<S: Sink>(&mut self, writer: &mut Writer<'_, S>) -> Result<(), Malformed> {
        let mut token = std::mem::take(&mut self.token);
        let text = || json::check(&token, &json::Limits::default()).ok().and_then(|()| json::text(&token));
        let number = || std::str::from_utf8(&token).ok().and_then(|text| text.parse::<i64>().ok());
        let mut new = None;
        match self.slot {
            Slot::Code => {
                // A client that is strict takes no other than a whole number.
                let said = number();
                self.outcome.error_code = said.or(Some(fault::INTERNAL_ERROR));
                let mapped = self.mapped_code()?.or(self.outcome.error_code.filter(|_| said.is_none()));
                new = mapped.map(|code| code.to_string().into_bytes());
            }
            Slot::ResultType => {
                let name = text().ok_or(Malformed::ResultType)?.into_owned();
                // `task` is of an extension that no server is told of.
                if name != "complete" && !(name == "input_required" && self.may_ask()) {
                    return Err(Malformed::ResultType);
                }
                self.outcome.result_type = Some(name);
                if !self.rules.modern() {
                    new = Some(Vec::new());
                }
            }
            Slot::Id => {
                self.id_done(&token)?;
                token = self.rules.id.as_json().into();
            }
            Slot::IsError => self.outcome.is_error_result = token.as_slice() == b"true",
            Slot::Uri => {
                let wrapped = text().and_then(|uri| self.rules.uris.as_ref().map(|wrap| wrap.apply(&uri)));
                new = wrapped.map(|uri| quoted(&uri));
            }
            Slot::Ttl if !token.iter().all(u8::is_ascii_digit) => new = Some(b"0".to_vec()),
            // What a caller may read is judged for each: nobody may serve it to another.
            Slot::Scope => new = Some(b"\"private\"".to_vec()),
            Slot::InputMethod => {
                // Two of them could be read in two ways.
                self.seen.undeclared |= self.input.method.is_some();
                self.input.method = text().map(|text| Method::from(text.as_ref()));
            }
            Slot::Mode => {
                self.seen.undeclared |= self.input.mode.is_some();
                self.input.mode = Some(text().unwrap_or_default().into());
            }
            Slot::State => {
                let text = text().ok_or(Malformed::Syntax(0))?;
                let states = self.rules.states.as_deref();
                let sealed = states.and_then(|states| states.request_state(Some(&text)));
                new = sealed.map(|sealed| quoted(&sealed));
            }
            _ => {}
        }
        writer.insert(new.as_deref().unwrap_or(&token));
        // The buffer is used again for the next token.
        self.token = token;
        self.token.clear();
        Ok(())
    }

    /// Only an error may have another id than ours: it may be about a request whose id the server could not read.
    fn id_done(&mut self, token: &[u8]) -> Result<(), Malformed> {
        self.seen.other_id = self.rules.asked.is_some_and(|asked| envelope::number(token) != Some(asked));
        if self.seen.other_id && self.seen.result { Err(Malformed::Id) } else { Ok(()) }
    }

    /// The code in the client's era, where it is another. A legacy client whose server is modern is told in words
    /// what it lacks, by whoever reads the outcome.
    fn mapped_code(&self) -> Result<Option<i64>, Malformed> {
        let Some(code) = self.outcome.error_code else { return Ok(None) };
        let from_modern = self.rules.upstream == Era::Modern;
        match (code, self.rules.modern()) {
            (fault::RESOURCE_NOT_FOUND, true) => Ok(Some(envelope::INVALID_PARAMS)),
            (envelope::INVALID_PARAMS, false) if self.rules.reads_resource => {
                Ok(Some(fault::RESOURCE_NOT_FOUND))
            }
            (fault::HEADER_MISMATCH | fault::UNSUPPORTED_VERSION, modern) if modern || from_modern => {
                Err(Malformed::Code(code))
            }
            (fault::URL_ELICITATION_REQUIRED, modern) if modern || from_modern || !self.rules.opens_urls => {
                Err(Malformed::Code(code))
            }
            (fault::MISSING_CAPABILITY, true) if !from_modern => Err(Malformed::Code(code)),
            _ => Ok(None),
        }
    }

    /// Only a modern server asks by `input_required`, and only where the request can be made again with the answers.
    fn may_ask(&self) -> bool {
        self.rules.upstream == Era::Modern && (self.rules.asks.is_some() || !self.rules.modern())
    }

    /// Judges the input request that has been read.
    fn input_done(&mut self) {
        let Input { method, mode, tools } = std::mem::take(&mut self.input);
        let needed = method.and_then(|method| meta::needed(&method, mode.as_deref(), tools));
        let declared = self.rules.asks.unwrap_or_default();
        self.seen.undeclared |= !needed.is_some_and(|needed| declared.contains(needed));
    }
}

fn quoted(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    json::push_text(&mut out, text);
    out
}

/// Rewrites a response that is already in memory.
///
/// # Errors
/// [`Malformed`]
pub fn rewrite_whole(response: &[u8], rules: Rules) -> Result<(Bytes, Outcome), Malformed> {
    let mut out = BytesMut::with_capacity(response.len() + 128);
    let mut rewriter = Rewriter::new(rules);
    rewriter.feed(response, &mut out)?;
    Ok((out.freeze(), rewriter.finish()?))
}

#[cfg(test)]
mod tests;
