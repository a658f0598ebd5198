//! A strict scanner over one whole JSON text (RFC 8259): syntax, depth, number of members and
//! duplicate keys in one linear pass, without recursion and without building a tree. What it
//! accepts means the same to every parser behind the gateway.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::ops::Range;

use smallvec::SmallVec;

/// Bounds on what one message may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Objects and arrays open at once.
    pub depth: usize,
    /// Object members in the whole text.
    pub members: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 64, members: 100_000 }
    }
}

/// Why a text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not one JSON document.
    #[error("not valid JSON at byte {0}")]
    Syntax(usize),
    /// Not UTF-8.
    #[error("not valid UTF-8")]
    Encoding,
    /// More objects and arrays open at once than [`Limits::depth`].
    #[error("nested too deeply")]
    Depth,
    /// More members than [`Limits::members`].
    #[error("too many members")]
    Members,
    /// Two members of one object have the same name.
    #[error("duplicate member name at byte {0}")]
    Duplicate(usize),
    /// A member name that parsers read differently: NUL, a lone surrogate, or a spelling that
    /// only a case-insensitive decoder takes for a name of the protocol.
    #[error("ambiguous member name at byte {0}")]
    Ambiguous(usize),
}

/// A member's name, decoded, and the offset of its opening quote.
pub(crate) struct Key<'a> {
    pub(crate) text: Cow<'a, str>,
    pub(crate) at: usize,
}

/// What a scan reports: the members of every object, children before their parent's end.
pub(crate) trait Sink<'a> {
    /// A member's name. `depth` is 1 for the outermost object.
    fn key(&mut self, depth: usize, key: &Key<'a>) -> Result<(), Error>;
    /// The value of the member whose name came last at this depth.
    fn value(&mut self, depth: usize, value: Range<usize>);
}

/// A sink for whoever only wants the verdict.
struct Verdict;

impl Sink<'_> for Verdict {
    fn key(&mut self, _: usize, _: &Key<'_>) -> Result<(), Error> {
        Ok(())
    }
    fn value(&mut self, _: usize, _: Range<usize>) {}
}

/// Accepts exactly one JSON document within the limits.
///
/// # Errors
/// The first thing found wrong.
pub fn check(text: &[u8], limits: &Limits) -> Result<(), Error> {
    scan(text, limits, &mut Verdict).map(|_| ())
}

/// Bytes that are scanned before whoever else wants the processor has it: a long text takes milliseconds.
const TURN: usize = 16 << 10;
/// The same in members, whose names are kept.
const TURN_MEMBERS: usize = 256;

/// Keys that one object holds before a hash set takes over from comparing them one by one.
const COMPARED: usize = 16;

struct Frame {
    object: bool,
    start: usize,
    first_key: usize,
    many: Option<Box<Many>>,
}

/// The keys of a large object, by a hash that nobody outside can foresee: a tenth of the memory, and two keys that
/// share one (once in a billion objects of the largest kind) are refused, never let through. In several sets: to make
/// a larger one of a set takes as long as it is large.
#[derive(Default)]
struct Many {
    state: RandomState,
    hashes: [HashSet<u64, BuildHasherDefault<Hashed>>; 16],
}

/// Does not hash again what is a hash.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

impl Many {
    fn insert(&mut self, key: &str) -> bool {
        let hash = self.state.hash_one(key);
        // Not by the bits that a set goes by.
        let set = self.hashes.get_mut((hash >> 32 & 15) as usize);
        set.is_some_and(|set| set.insert(hash))
    }
}

struct Scanner<'a> {
    text: &'a str,
    limits: Limits,
    stack: SmallVec<[Frame; 8]>,
    keys: SmallVec<[Cow<'a, str>; 24]>,
    members: usize,
}

/// Scans one document and returns where its value stands.
pub(crate) fn scan<'a, S: Sink<'a>>(
    text: &'a [u8],
    limits: &Limits,
    sink: &mut S,
) -> Result<Range<usize>, Error> {
    let text = std::str::from_utf8(text).map_err(|_| Error::Encoding)?;
    let mut scanner =
        Scanner { text, limits: *limits, stack: SmallVec::new(), keys: SmallVec::new(), members: 0 };
    scanner.document(sink)
}

impl<'a> Scanner<'a> {
    fn document<S: Sink<'a>>(&mut self, sink: &mut S) -> Result<Range<usize>, Error> {
        let text = self.text.as_bytes();
        let mut at = skip_space(text, 0);
        let mut turn = TURN;
        loop {
            let start = at;
            if at > turn {
                std::thread::yield_now();
                turn = at + TURN;
            }
            at = match text.get(at) {
                Some(b'{') => match self.open(true, at, sink)? {
                    Opened::Empty(end) => end,
                    Opened::Value(next) => {
                        at = next;
                        continue;
                    }
                },
                Some(b'[') => match self.open(false, at, sink)? {
                    Opened::Empty(end) => end,
                    Opened::Value(next) => {
                        at = next;
                        continue;
                    }
                },
                Some(b'"') => string_end(text, at)?.0,
                Some(b'-' | b'0'..=b'9') => number_end(text, at)?,
                _ => literal_end(text, at)?,
            };
            match self.after_value(start..at, sink)? {
                Next::Value(next) => at = next,
                Next::Done(value) => return Ok(value),
            }
        }
    }

    fn open<S: Sink<'a>>(&mut self, object: bool, at: usize, sink: &mut S) -> Result<Opened, Error> {
        let text = self.text.as_bytes();
        if self.stack.len() >= self.limits.depth {
            return Err(Error::Depth);
        }
        let next = skip_space(text, at + 1);
        if text.get(next) == Some(if object { &b'}' } else { &b']' }) {
            return Ok(Opened::Empty(next + 1));
        }
        self.stack.push(Frame { object, start: at, first_key: self.keys.len(), many: None });
        Ok(Opened::Value(if object { self.key(next, sink)? } else { next }))
    }

    /// Closes what ends after a value and finds the next one.
    fn after_value<S: Sink<'a>>(&mut self, mut value: Range<usize>, sink: &mut S) -> Result<Next, Error> {
        let text = self.text.as_bytes();
        loop {
            let at = skip_space(text, value.end);
            let depth = self.stack.len();
            let Some(frame) = self.stack.last() else {
                return if at == text.len() { Ok(Next::Done(value)) } else { Err(Error::Syntax(at)) };
            };
            if frame.object {
                sink.value(depth, value.clone());
            }
            match (text.get(at), frame.object) {
                (Some(b','), true) => return Ok(Next::Value(self.key(skip_space(text, at + 1), sink)?)),
                (Some(b','), false) => return Ok(Next::Value(skip_space(text, at + 1))),
                (Some(b'}'), true) | (Some(b']'), false) => {
                    value = frame.start..at + 1;
                    self.keys.truncate(frame.first_key);
                    self.stack.pop();
                }
                _ => return Err(Error::Syntax(at)),
            }
        }
    }

    /// Reads `"key" :` and returns where the value begins.
    fn key<S: Sink<'a>>(&mut self, at: usize, sink: &mut S) -> Result<usize, Error> {
        let bytes = self.text.as_bytes();
        if bytes.get(at) != Some(&b'"') {
            return Err(Error::Syntax(at));
        }
        let (end, escaped) = string_end(bytes, at)?;
        let raw = self.text.get(at + 1..end - 1).ok_or(Error::Syntax(at))?;
        let text = if escaped { decode(raw).ok_or(Error::Ambiguous(at))? } else { Cow::Borrowed(raw) };
        if escaped && text.contains('\0') {
            return Err(Error::Ambiguous(at));
        }
        self.members += 1;
        if self.members > self.limits.members {
            return Err(Error::Members);
        }
        if self.members.is_multiple_of(TURN_MEMBERS) {
            std::thread::yield_now();
        }
        let key = Key { text, at };
        sink.key(self.stack.len(), &key)?;
        self.remember(key)?;
        let colon = skip_space(bytes, end);
        if bytes.get(colon) != Some(&b':') {
            return Err(Error::Syntax(colon));
        }
        Ok(skip_space(bytes, colon + 1))
    }

    fn remember(&mut self, Key { text: key, at }: Key<'a>) -> Result<(), Error> {
        let Some(frame) = self.stack.last_mut() else { return Ok(()) };
        if let Some(many) = &mut frame.many {
            return if many.insert(&key) { Ok(()) } else { Err(Error::Duplicate(at)) };
        }
        let seen = self.keys.get(frame.first_key..).unwrap_or_default();
        if seen.contains(&key) {
            return Err(Error::Duplicate(at));
        }
        if seen.len() >= COMPARED {
            let many = frame.many.insert(Box::default());
            for one in self.keys.drain(frame.first_key..).chain([key]) {
                many.insert(&one);
            }
        } else {
            self.keys.push(key);
        }
        Ok(())
    }
}

enum Opened {
    /// It closed at once, before this offset.
    Empty(usize),
    /// Its first value begins here.
    Value(usize),
}

enum Next {
    Value(usize),
    Done(Range<usize>),
}

pub(crate) fn skip_space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = text.get(at) {
        at += 1;
    }
    at
}

/// Eight bytes at once: is one of them a quote, a backslash or a control character?
fn word_is_plain(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let zero = |w: u64| w.wrapping_sub(ONES) & !w & HIGH;
    let quote = zero(word ^ (ONES * b'"' as u64));
    let backslash = zero(word ^ (ONES * b'\\' as u64));
    let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
    quote | backslash | control == 0
}

/// Skips string bytes that need no look.
fn skip_plain(text: &[u8], mut at: usize) -> usize {
    while let Some(Ok(word)) = text.get(at..at + 8).map(<[u8; 8]>::try_from) {
        if !word_is_plain(u64::from_le_bytes(word)) {
            break;
        }
        at += 8;
    }
    while let Some(&byte) = text.get(at) {
        if byte == b'"' || byte == b'\\' || byte < 0x20 {
            break;
        }
        at += 1;
    }
    at
}

/// The offset after the closing quote of the string that opens at `at`, and whether it has escapes.
fn string_end(text: &[u8], at: usize) -> Result<(usize, bool), Error> {
    let mut at = at + 1;
    let mut escaped = false;
    loop {
        at = skip_plain(text, at);
        match text.get(at) {
            Some(b'"') => return Ok((at + 1, escaped)),
            Some(b'\\') => {
                escaped = true;
                at += match text.get(at + 1) {
                    Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
                    Some(b'u') if hex4(text, at + 2).is_some() => 6,
                    _ => return Err(Error::Syntax(at)),
                };
            }
            _ => return Err(Error::Syntax(at)),
        }
    }
}

fn hex4(text: &[u8], at: usize) -> Option<u32> {
    text.get(at..at + 4)?.iter().try_fold(0, |value, &byte| Some(value << 4 | char::from(byte).to_digit(16)?))
}

fn digits_end(text: &[u8], at: usize) -> Result<usize, Error> {
    let mut end = at;
    while let Some(b'0'..=b'9') = text.get(end) {
        end += 1;
    }
    if end == at { Err(Error::Syntax(at)) } else { Ok(end) }
}

fn number_end(text: &[u8], at: usize) -> Result<usize, Error> {
    let at = if text.get(at) == Some(&b'-') { at + 1 } else { at };
    let mut end = if text.get(at) == Some(&b'0') { at + 1 } else { digits_end(text, at)? };
    if text.get(end) == Some(&b'.') {
        end = digits_end(text, end + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(end) {
        let sign = matches!(text.get(end + 1), Some(b'+' | b'-'));
        end = digits_end(text, end + 1 + usize::from(sign))?;
    }
    Ok(end)
}

fn literal_end(text: &[u8], at: usize) -> Result<usize, Error> {
    let rest = text.get(at..).unwrap_or_default();
    ["true", "false", "null"]
        .iter()
        .find(|word| rest.starts_with(word.as_bytes()))
        .map(|word| at + word.len())
        .ok_or(Error::Syntax(at))
}

/// Decodes the text between the quotes of a checked string; `None` for a lone surrogate.
#[must_use]
pub fn decode(raw: &str) -> Option<Cow<'_, str>> {
    let Some(first) = memchr::memchr(b'\\', raw.as_bytes()) else { return Some(Cow::Borrowed(raw)) };
    let mut text = String::with_capacity(raw.len());
    let (mut plain, mut at) = (0, first);
    let bytes = raw.as_bytes();
    while let Some(found) = memchr::memchr(b'\\', bytes.get(at..)?) {
        at += found;
        text.push_str(raw.get(plain..at)?);
        let (character, length) = decode_escape(bytes, at)?;
        text.push(character);
        at += length;
        plain = at;
    }
    text.push_str(raw.get(plain..)?);
    Some(Cow::Owned(text))
}

fn decode_escape(bytes: &[u8], at: usize) -> Option<(char, usize)> {
    let character = match bytes.get(at + 1)? {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return decode_unicode(bytes, at),
        &other => char::from(other),
    };
    Some((character, 2))
}

fn decode_unicode(bytes: &[u8], at: usize) -> Option<(char, usize)> {
    let high = hex4(bytes, at + 2)?;
    if !(0xd800..0xdc00).contains(&high) {
        return Some((char::from_u32(high)?, 6));
    }
    if bytes.get(at + 6..at + 8) != Some(b"\\u") {
        return None;
    }
    let low = hex4(bytes, at + 8)?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    Some((char::from_u32(0x10000 + ((high - 0xd800) << 10) + low)?, 12))
}

/// The text of a checked JSON value if it is a string; `None` otherwise and for lone surrogates.
#[must_use]
pub fn text(value: &[u8]) -> Option<Cow<'_, str>> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    decode(std::str::from_utf8(inner).ok()?)
}

/// Appends `text` as a JSON string with its quotes.
pub fn push_text(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.push(b'"');
    let mut at = 0;
    loop {
        let plain = skip_plain(bytes, at);
        out.extend_from_slice(bytes.get(at..plain).unwrap_or_default());
        let Some(&byte) = bytes.get(plain) else { break };
        at = plain + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                for nibble in [byte >> 4, byte & 15] {
                    out.push(b"0123456789abcdef".get(usize::from(nibble)).copied().unwrap_or(b'0'));
                }
            }
        }
    }
    out.push(b'"');
}

/// Does `key` differ from `name` only in a way that a case-insensitive decoder overlooks? Go folds
/// by Unicode, so `ſ` stands for `s` and the Kelvin sign for `k`.
#[must_use]
pub fn is_variant(key: &str, name: &str) -> bool {
    if key.len() < name.len() || key.len() > name.len() * 3 || key == name {
        return false;
    }
    let fold = |character: char| match character {
        'ſ' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(name.chars().map(fold))
}

/// The members of one JSON object, names decoded, values as they stand in the text.
pub type Members<'a> = SmallVec<[(Cow<'a, str>, &'a [u8]); 8]>;

/// Splits an object into its members; `None` when the text is not one object.
#[must_use]
pub fn members(object: &[u8]) -> Option<Members<'_>> {
    let limits = Limits { depth: 256, members: usize::MAX };
    let mut split = Split::default();
    scan(object, &limits, &mut split).ok()?;
    if object.get(skip_space(object, 0)) != Some(&b'{') {
        return None;
    }
    split.0.into_iter().map(|(key, value)| Some((key, object.get(value)?))).collect()
}

/// The value of one member of an object.
#[must_use]
pub fn member<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    members(object)?.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

#[derive(Default)]
struct Split<'a>(SmallVec<[(Cow<'a, str>, Range<usize>); 8]>);

impl<'a> Sink<'a> for Split<'a> {
    fn key(&mut self, depth: usize, key: &Key<'a>) -> Result<(), Error> {
        if depth == 1 {
            self.0.push((key.text.clone(), 0..0));
        }
        Ok(())
    }
    fn value(&mut self, depth: usize, value: Range<usize>) {
        if let (1, Some(last)) = (depth, self.0.last_mut()) {
            last.1 = value;
        }
    }
}

/// The elements of one JSON array; `None` when the text is not one array.
#[must_use]
pub fn elements<'a>(array: &'a [u8]) -> Option<Vec<&'a [u8]>> {
    let raw: Vec<&'a serde_json::value::RawValue> = serde_json::from_slice(array).ok()?;
    Some(raw.into_iter().map(|value| value.get().as_bytes()).collect())
}
