//! The scanner's steps: JSON's grammar where something is rewritten, strings and brackets elsewhere.

use std::borrow::Cow;
use std::ops::Range;

use super::place::{self, Place, Slot};
use super::writer::{Sink, Writer};
use super::{Frame, Lane, MAX_DEPTH, Malformed, Rewriter, Seen, State};
use crate::mcp::fault::INTERNAL_ERROR;
use crate::mcp::json;

/// Marks an error's place; the caller knows the offset.
const HERE: Malformed = Malformed::Syntax(0);

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// The offset after the quote that ends a string; none of that here: whether the bytes that follow begin with an escaped
/// one, as these do with `escape`.
///
/// Only quotes are looked for: text has a backslash at each end of a line, and most of those need no stop.
fn text_end(text: &[u8], escape: bool) -> Result<usize, bool> {
    let mut plain = usize::from(escape);
    loop {
        let rest = text.get(plain..).unwrap_or_default();
        let quote = find_quote(rest);
        let before = rest.get(..quote.unwrap_or(rest.len())).unwrap_or_default();
        let escaped = before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1;
        match quote {
            None => return Err(escaped),
            Some(quote) => plain += quote + 1,
        }
        if !escaped {
            return Ok(plain);
        }
    }
}

/// JSON inside of JSON has a quote every few bytes, where a call of memchr costs more than a look.
fn find_quote(text: &[u8]) -> Option<usize> {
    const NEAR: usize = 16;
    if let Some(found) = text.iter().take(NEAR).position(|byte| *byte == b'"') {
        return Some(found);
    }
    memchr::memchr(b'"', text.get(NEAR..)?).map(|found| NEAR + found)
}

impl Rewriter {
    /// One byte of structure; returns where to go on.
    pub(super) fn step<S: Sink>(
        &mut self,
        chunk: &[u8],
        at: usize,
        writer: &mut Writer<'_, S>,
    ) -> Result<usize, Malformed> {
        let byte = chunk.get(at).copied().unwrap_or_default();
        if is_space(byte) {
            self.put(at, at + 1, writer)?;
            return Ok(at + 1);
        }
        match (self.state, byte) {
            (State::FirstElement, b']') | (State::FirstKey, b'}') => self.close(at, writer)?,
            (State::Value | State::FirstElement, _) => return self.value(byte, at, writer),
            (State::FirstKey | State::Key, b'"') => {
                self.lane = Lane::Hold;
                self.token.clear();
                self.put(at, at + 1, writer)?;
                self.token.push(b'"');
                self.state = State::Text { key: true, escape: false };
            }
            (State::Colon, b':') => {
                self.put(at, at + 1, writer)?;
                self.state = State::Value;
            }
            (State::After, b',') => self.comma(at, writer)?,
            (State::After, b'}' | b']') => self.close(at, writer)?,
            _ => return Err(HERE),
        }
        Ok(at + 1)
    }

    fn comma<S: Sink>(&mut self, at: usize, writer: &mut Writer<'_, S>) -> Result<(), Malformed> {
        let Some(frame) = self.stack.last().copied() else { return Err(HERE) };
        if frame.object {
            // Whether it stays depends on the member that follows.
            self.lane = Lane::Hold;
            self.state = State::Key;
        } else {
            self.slot = place::element(frame.place);
            self.state = State::Value;
        }
        self.put(at, at + 1, writer)
    }

    fn value<S: Sink>(
        &mut self,
        byte: u8,
        at: usize,
        writer: &mut Writer<'_, S>,
    ) -> Result<usize, Malformed> {
        self.begin_value(byte, writer)?;
        match byte {
            b'{' | b'[' => self.open(byte, at, writer)?,
            b'"' => {
                self.put(at, at + 1, writer)?;
                self.state = State::Text { key: false, escape: false };
            }
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                self.state = State::Scalar;
                return Ok(at);
            }
            _ => return Err(HERE),
        }
        Ok(at + 1)
    }

    /// Settles what becomes of the held key and where the value goes.
    fn begin_value<S: Sink>(&mut self, byte: u8, writer: &mut Writer<'_, S>) -> Result<(), Malformed> {
        let container = matches!(byte, b'{' | b'[');
        let hidden = match self.slot {
            Slot::Drop => true,
            Slot::Structured => byte != b'{',
            Slot::ResultType => !self.rules.modern(),
            Slot::Ttl => {
                self.seen.ttl = !container;
                container
            }
            Slot::Scope => {
                self.seen.scope = !container;
                container
            }
            _ => false,
        };
        if self.stack.last().is_some_and(|frame| frame.object) {
            self.settle_key(hidden, writer);
        }
        if byte != b'{' {
            self.seen.undeclared |=
                matches!(self.slot, Slot::Inside(Place::InputRequests | Place::InputRequest));
        }
        self.seen.undeclared |= container && matches!(self.slot, Slot::InputMethod | Slot::Mode);
        self.lane = match self.slot {
            Slot::Document if byte != b'{' => return Err(HERE),
            Slot::Inside(Place::Result | Place::Error) if byte != b'{' => return Err(HERE),
            Slot::Inside(Place::Result) if self.seen.other_id => return Err(Malformed::Id),
            Slot::Id | Slot::Code if container => return Err(HERE),
            Slot::ResultType if byte != b'"' => return Err(Malformed::ResultType),
            Slot::Uri | Slot::State if byte != b'"' => {
                self.slot = Slot::Pass;
                Lane::Forward
            }
            slot if slot.is_token() && !container => Lane::Token,
            _ if hidden => Lane::Drop,
            _ => Lane::Forward,
        };
        Ok(())
    }

    /// Writes the held comma and key, or forgets them.
    fn settle_key<S: Sink>(&mut self, hidden: bool, writer: &mut Writer<'_, S>) {
        let Some(frame) = self.stack.last_mut() else { return };
        let Range { start, end } = std::mem::replace(&mut self.hold, 0..0);
        if !hidden {
            // The first that is written needs no comma.
            let bare = !std::mem::replace(&mut frame.written, true);
            let without = |held: &[u8]| usize::from(bare && held.first() == Some(&b','));
            if self.held.is_empty() {
                writer.keep(start + without(writer.bytes(start, end)), end);
            } else {
                writer.insert(self.held.get(without(&self.held)..).unwrap_or_default());
                writer.keep(start, end);
            }
        }
        self.held.clear();
    }

    fn open<S: Sink>(&mut self, byte: u8, at: usize, writer: &mut Writer<'_, S>) -> Result<(), Malformed> {
        let object = byte == b'{';
        let place = match (self.slot, object) {
            (Slot::Document, _) => Place::Top,
            (Slot::Inside(Place::Content), true) => Place::Block,
            (Slot::Inside(place @ (Place::Content | Place::Contents | Place::Messages)), false) => place,
            (Slot::Inside(Place::Contents | Place::Messages), true) | (Slot::Inside(_), false) => {
                Place::Other
            }
            (Slot::Inside(place), true) => place,
            _ => Place::Other,
        };
        if self.stack.len() >= MAX_DEPTH {
            return Err(Malformed::Depth);
        }
        self.put(at, at + 1, writer)?;
        self.stack.push(Frame { object, place, written: false });
        self.state = match (place, object) {
            (Place::Other, _) => State::Loose,
            (_, true) => State::FirstKey,
            (_, false) => {
                self.slot = place::element(place);
                State::FirstElement
            }
        };
        Ok(())
    }

    fn close<S: Sink>(&mut self, at: usize, writer: &mut Writer<'_, S>) -> Result<(), Malformed> {
        let closes_object = writer.bytes(at, at + 1) == b"}";
        let Some(frame) = self.stack.pop().filter(|frame| frame.object == closes_object) else {
            return Err(HERE);
        };
        match frame.place {
            Place::Top => self.end_top(frame, writer)?,
            Place::Result => self.end_result(frame, writer)?,
            Place::Error => self.end_error(frame, writer),
            Place::InputRequest => self.input_done(),
            _ => {}
        }
        self.put(at, at + 1, writer)?;
        self.value_done();
        Ok(())
    }

    /// A value has been read to its end.
    fn value_done(&mut self) {
        self.state = match self.stack.last() {
            None => State::Done,
            Some(Frame { place: Place::Other, .. }) => State::Loose,
            Some(_) => State::After,
        };
        if self.state != State::Loose {
            self.lane = Lane::Forward;
        }
    }

    fn end_top<S: Sink>(&mut self, frame: Frame, writer: &mut Writer<'_, S>) -> Result<(), Malformed> {
        if !self.request && self.seen.result == self.seen.error {
            return Err(HERE);
        }
        if self.rules.asked.is_some() && self.seen.result && !self.seen.id {
            return Err(Malformed::Id);
        }
        if !self.seen.id {
            let id = self.rules.id.clone();
            append(frame.written, b"\"id\":", id.as_json(), writer);
        }
        Ok(())
    }

    /// An error without a code or a message is still one: clients that are strict would take it for no answer at all.
    fn end_error<S: Sink>(&mut self, frame: Frame, writer: &mut Writer<'_, S>) {
        if !self.seen.code {
            self.outcome.error_code = Some(INTERNAL_ERROR);
            append(frame.written, b"\"code\":", INTERNAL_ERROR.to_string().as_bytes(), writer);
        }
        if !self.seen.message {
            append(
                frame.written || !self.seen.code,
                b"\"message\":",
                b"\"the server does not say what failed\"",
                writer,
            );
        }
    }

    fn end_result<S: Sink>(&mut self, frame: Frame, writer: &mut Writer<'_, S>) -> Result<(), Malformed> {
        let asks = self.outcome.result_type.as_deref() == Some("input_required");
        let mut written = frame.written;
        let mut add = |key: &[u8], value: &[u8]| {
            append(written, key, value, writer);
            written = true;
        };
        let complete = self.outcome.result_type.as_deref().is_none_or(|name| name == "complete");
        if self.rules.modern() {
            if !self.seen.result_type {
                add(b"\"resultType\":", b"\"complete\"");
            }
            // An upstream that says nothing of caching is not cached (2026-07-28, server/utilities/caching).
            if self.rules.reads_resource && complete {
                if !self.seen.ttl {
                    add(b"\"ttlMs\":", b"0");
                }
                if !self.seen.scope {
                    add(b"\"cacheScope\":", b"\"private\"");
                }
            }
        }
        if asks && self.rules.modern() {
            match self.seen {
                Seen { undeclared: true, .. } => return Err(Malformed::Undeclared),
                Seen { state: false, input_requests: false, .. } => return Err(Malformed::NothingAsked),
                _ => {}
            }
        }
        if let (true, false, Some(states)) = (asks, self.seen.state, &self.rules.states)
            && let Some(sealed) = states.request_state(None)
        {
            add(b"\"requestState\":", &super::quoted(&sealed));
        }
        Ok(())
    }

    /// Inside a string.
    pub(super) fn text<S: Sink>(
        &mut self,
        chunk: &[u8],
        at: usize,
        (key, escape): (bool, bool),
        writer: &mut Writer<'_, S>,
    ) -> Result<usize, Malformed> {
        let (end, closed, escape) = match text_end(chunk.get(at..).unwrap_or_default(), escape) {
            Ok(length) => (at + length, true, false),
            Err(escape) => (chunk.len(), false, escape),
        };
        self.put(at, end, writer)?;
        // Most keys lie in one chunk, quotes and all.
        let whole = key && closed && self.token.len() == 1 && at > 0;
        if key && !whole {
            self.token.extend_from_slice(writer.bytes(at, end));
        }
        match (closed, key) {
            (false, _) => self.state = State::Text { key, escape },
            (true, true) if whole => self.key_done(writer.bytes(at - 1, end))?,
            (true, true) => {
                let token = std::mem::take(&mut self.token);
                self.key_done(&token)?;
            }
            (true, false) => self.scalar_done(writer)?,
        }
        Ok(end)
    }

    /// Inside a number or a literal; what follows it is not consumed.
    pub(super) fn scalar<S: Sink>(
        &mut self,
        chunk: &[u8],
        at: usize,
        writer: &mut Writer<'_, S>,
    ) -> Result<usize, Malformed> {
        let rest = chunk.get(at..).unwrap_or_default();
        let length = rest.iter().position(|byte| matches!(byte, b',' | b'}' | b']') || is_space(*byte));
        let end = length.map_or(chunk.len(), |length| at + length);
        let run = writer.bytes(at, end);
        if !run.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')) {
            return Err(HERE);
        }
        self.put(at, end, writer)?;
        if length.is_some() {
            self.scalar_done(writer)?;
        }
        Ok(end)
    }

    fn scalar_done<S: Sink>(&mut self, writer: &mut Writer<'_, S>) -> Result<(), Malformed> {
        if self.lane == Lane::Token {
            self.token_done(writer)?;
        }
        self.value_done();
        Ok(())
    }

    /// A key has been read, which is this with its quotes.
    fn key_done(&mut self, token: &[u8]) -> Result<(), Malformed> {
        let Some(frame) = self.stack.last() else { return Err(HERE) };
        let key = match token.contains(&b'\\') {
            false => String::from_utf8_lossy(token.get(1..token.len() - 1).unwrap_or_default()),
            true => {
                json::check(token, &json::Limits::default()).map_err(|_| HERE)?;
                json::text(token).ok_or(Malformed::Ambiguous)?
            }
        };
        let slot = place::member(frame.place, &key, &self.rules, self.request).ok_or(Malformed::Ambiguous)?;
        let (result, error) = (frame.place == Place::Result, frame.place == Place::Error);
        let seen = &mut self.seen;
        self.input.tools |= slot == Slot::Tools;
        let once = match slot {
            Slot::Id => Some(&mut seen.id),
            Slot::Inside(Place::Result) => Some(&mut seen.result),
            Slot::Inside(Place::Error) => Some(&mut seen.error),
            Slot::Code => Some(&mut seen.code),
            _ if error && key == "message" => Some(&mut seen.message),
            Slot::ResultType => Some(&mut seen.result_type),
            _ if result && key == "requestState" => Some(&mut seen.state),
            Slot::Inside(Place::InputRequests) => Some(&mut seen.input_requests),
            _ if result && key == "ttlMs" => Some(&mut seen.ttl),
            _ if result && key == "cacheScope" => Some(&mut seen.scope),
            _ => None,
        };
        if once.is_some_and(|seen| std::mem::replace(seen, true)) {
            return Err(Malformed::Ambiguous);
        }
        drop::<Cow<'_, str>>(key);
        self.slot = slot;
        self.token.clear();
        self.state = State::Colon;
        Ok(())
    }

    /// Inside a container that nothing is rewritten in.
    pub(super) fn loose<S: Sink>(
        &mut self,
        chunk: &[u8],
        at: usize,
        writer: &mut Writer<'_, S>,
    ) -> Result<usize, Malformed> {
        let mut end = at;
        while let Some(&byte) = chunk.get(end) {
            end += 1;
            match byte {
                b'"' => {
                    self.state = State::Text { key: false, escape: false };
                    break;
                }
                b'{' | b'[' => {
                    if self.stack.len() >= MAX_DEPTH {
                        return Err(Malformed::Depth);
                    }
                    self.stack.push(Frame { object: byte == b'{', place: Place::Other, written: true });
                }
                b'}' | b']' => {
                    let Some(frame) = self.stack.pop() else { return Err(HERE) };
                    if frame.object != (byte == b'}') {
                        return Err(HERE);
                    }
                    if self.stack.last().is_none_or(|frame| frame.place != Place::Other) {
                        self.put(at, end, writer)?;
                        self.value_done();
                        return Ok(end);
                    }
                }
                _ => {}
            }
        }
        self.put(at, end, writer)?;
        Ok(end)
    }
}

fn append<S: Sink>(written: bool, key: &[u8], value: &[u8], writer: &mut Writer<'_, S>) {
    if written {
        writer.insert(b",");
    }
    writer.insert(key);
    writer.insert(value);
}
