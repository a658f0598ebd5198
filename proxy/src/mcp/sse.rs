//! Server-sent events (HTML, 9.2): a splitter that takes any chunking and holds at most one event,
//! and the encoder.

use bytes::{Bytes, BytesMut};

/// A comment that keeps an idle stream open.
pub const KEEP_ALIVE: &[u8] = b":\n\n";

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// `event`, when given.
    pub event: Option<String>,
    /// `id`, when this event gave one.
    pub id: Option<String>,
    /// `retry` in milliseconds.
    pub retry: Option<u64>,
    /// `data`, lines joined; empty when an event only sets `id` or `retry`.
    pub data: Bytes,
}

/// An event is longer than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a server-sent event exceeds {limit} bytes")]
pub struct TooLong {
    /// The bound in bytes.
    pub limit: usize,
}

/// Cuts a byte stream into events.
#[derive(Debug)]
pub struct Splitter {
    limit: usize,
    /// The unfinished line.
    line: BytesMut,
    /// Bytes that the open event holds apart from the unfinished line.
    data: BytesMut,
    has_data: bool,
    event: Option<Vec<u8>>,
    id: Option<Vec<u8>>,
    retry: Option<u64>,
    /// The last chunk ended with CR: a LF that follows belongs to it.
    after_cr: bool,
    begun: bool,
}

impl Splitter {
    /// A splitter that holds at most `max_event_bytes`.
    #[must_use]
    pub fn new(max_event_bytes: usize) -> Self {
        Self {
            limit: max_event_bytes,
            line: BytesMut::new(),
            data: BytesMut::new(),
            has_data: false,
            event: None,
            id: None,
            retry: None,
            after_cr: false,
            begun: false,
        }
    }

    /// Takes a chunk and returns the events that it completes.
    ///
    /// # Errors
    /// [`TooLong`]; the stream can't be read on after it.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        let mut rest = chunk;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
            let (line, tail) = rest.split_at(end);
            rest = tail.get(1..).unwrap_or_default();
            if tail.first() == Some(&b'\r') {
                match rest.first() {
                    Some(b'\n') => rest = rest.get(1..).unwrap_or_default(),
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
            self.bound(line.len())?;
            if self.line.is_empty() {
                self.take_line(line, &mut events);
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                self.take_line(&whole, &mut events);
            }
        }
        self.bound(rest.len())?;
        self.line.extend_from_slice(rest);
        Ok(events)
    }

    fn bound(&self, more: usize) -> Result<(), TooLong> {
        let named = self.event.as_ref().map_or(0, Vec::len) + self.id.as_ref().map_or(0, Vec::len);
        let held = self.line.len() + self.data.len() + named;
        if held.saturating_add(more) > self.limit { Err(TooLong { limit: self.limit }) } else { Ok(()) }
    }

    fn take_line(&mut self, mut line: &[u8], events: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        if line.is_empty() {
            events.extend(self.dispatch());
            return;
        }
        let (field, value) = match memchr::memchr(b':', line) {
            Some(colon) => line.split_at(colon),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.extend_from_slice(b"\n");
                }
                self.data.extend_from_slice(value);
            }
            b"event" => self.event = Some(value.to_vec()),
            b"id" if !value.contains(&0) => self.id = Some(value.to_vec()),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                self.retry = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
            }
            _ => {}
        }
    }

    /// HTML drops an event without data; we report one that sets `id` or `retry`, since MCP's
    /// priming events are such.
    fn dispatch(&mut self) -> Option<Event> {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let event = Event {
            event: self.event.take().filter(|name| !name.is_empty()).map(text),
            id: self.id.take().map(text),
            retry: self.retry.take(),
            data: self.data.split().freeze(),
        };
        let said = std::mem::take(&mut self.has_data) || event.id.is_some() || event.retry.is_some();
        said.then_some(event)
    }
}

/// Writes one event. Names are ours and hold no line ends; line ends in the data become further
/// `data` lines.
#[must_use]
pub fn encode(event: Option<&str>, id: Option<&str>, data: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(data.len() + 64);
    for (field, value) in [("event", event), ("id", id)] {
        if let Some(value) = value {
            push_field(&mut out, field, value);
        }
    }
    let mut rest = data;
    loop {
        let end = memchr::memchr2(b'\n', b'\r', rest);
        let (line, tail) = rest.split_at(end.unwrap_or(rest.len()));
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
        rest = match tail {
            [b'\r', b'\n', tail @ ..] | [_, tail @ ..] => tail,
            [] => break,
        };
    }
    out.push(b'\n');
    Bytes::from(out)
}

/// The event that opens a resumable stream: an id, empty data and, if given, when to reconnect
/// (2025-11-25, basic/transports, "Sending messages to the server").
#[must_use]
pub fn priming(id: &str, retry_ms: Option<u64>) -> Bytes {
    let mut out = Vec::with_capacity(64);
    push_field(&mut out, "id", id);
    if let Some(retry) = retry_ms {
        push_field(&mut out, "retry", &retry.to_string());
    }
    out.extend_from_slice(b"data: \n\n");
    Bytes::from(out)
}

fn push_field(out: &mut Vec<u8>, field: &str, value: &str) {
    out.extend_from_slice(field.as_bytes());
    out.extend_from_slice(b": ");
    out.extend(value.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r' | 0)));
    out.push(b'\n');
}

#[cfg(test)]
mod tests;
