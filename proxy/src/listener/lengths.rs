//! Sees a `Content-Length` beside a `Transfer-Encoding`, which hyper takes out before anyone can look (RFC 9112, 6.3).
//!
//! A head has no empty line in it, so both stand between two empty lines of the connection wherever one request has both,
//! and never where they are of two. What a body holds counts too, so the error is on the strict side: JSON has no line
//! that begins like either.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::TRANSFER_ENCODING;
use http::{HeaderMap, Version};
use tokio::io::AsyncRead;
use tokio_util::io::InspectReader;

/// How a line begins that says a length: a parser of heads takes neither space before the name nor before the colon.
const LENGTH: &[u8] = b"content-length:";
/// How one begins that says that there are chunks.
const CODING: &[u8] = b"transfer-encoding:";
/// Bytes of a line that tell which it is.
const LONGEST: usize = CODING.len();

/// What both sides of a connection know of its lengths: whether some head of it said both.
#[derive(Debug, Clone, Default)]
pub(super) struct Lengths(Arc<AtomicBool>);

/// Why two parsers may see the end of a request at different bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ambiguous {
    /// It says both, or one that came in the same breath does: of that connection nothing is answered any more.
    TwoLengths,
    /// Its transfer coding is another than `chunked`, alone and once: what another parser makes of it is not known.
    Coding,
}

impl Ambiguous {
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::TwoLengths => "Content-Length and Transfer-Encoding in one request",
            Self::Coding => "a Transfer-Encoding other than chunked",
        }
    }

    /// For metrics and the log.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::TwoLengths => "two_lengths",
            Self::Coding => "transfer_coding",
        }
    }
}

impl Lengths {
    /// What is ambiguous about where this request ends, the next of its connection.
    pub(super) fn ambiguous(&self, version: Version, headers: &HeaderMap) -> Option<Ambiguous> {
        // HTTP/2 has frames and no chunks.
        if version >= Version::HTTP_2 {
            return None;
        }
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        let coding = codings.next()?;
        if self.0.load(Ordering::Relaxed) {
            return Some(Ambiguous::TwoLengths);
        }
        let plain = coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
        (!plain).then_some(Ambiguous::Coding)
    }
}

/// A stream of plain bytes (with TLS, the inside) whose lines are looked at as they come.
pub(super) fn watched<S: AsyncRead>(stream: S) -> (InspectReader<S, impl FnMut(&[u8])>, Lengths) {
    let (lengths, mut scan) = (Lengths::default(), Scan::default());
    let both = Arc::clone(&lengths.0);
    let look = move |bytes: &[u8]| {
        if scan.finds_both(bytes) {
            both.store(true, Ordering::Relaxed);
        }
    };
    (InspectReader::new(stream, look), lengths)
}

/// Where the last read ended, and what stands since the last empty line.
#[derive(Debug, Default)]
struct Scan {
    /// The first bytes of the line, in small letters.
    line: [u8; LONGEST],
    /// How many of them there are; all: the rest of the line says nothing more.
    known: usize,
    length: bool,
    coding: bool,
}

impl Scan {
    /// Whether these bytes complete a head that says both.
    fn finds_both(&mut self, bytes: &[u8]) -> bool {
        let (mut both, mut rest) = (false, bytes);
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            both |= self.begins(line);
            self.end_line();
            rest = after.get(1..).unwrap_or_default();
        }
        both | self.begins(rest)
    }

    /// Takes what comes of a line, of which only the beginning says anything.
    fn begins(&mut self, piece: &[u8]) -> bool {
        let room = self.line.get_mut(self.known..).unwrap_or_default();
        let count = room.len().min(piece.len());
        for (place, byte) in room.iter_mut().zip(piece) {
            *place = byte.to_ascii_lowercase();
        }
        self.known += count;
        let line = self.line.get(..self.known).unwrap_or_default();
        self.length |= line.starts_with(LENGTH);
        self.coding |= line.starts_with(CODING);
        self.length && self.coding
    }

    fn end_line(&mut self) {
        if matches!(self.line.get(..self.known), Some(b"" | b"\r")) {
            (self.length, self.coding) = (false, false);
        }
        self.known = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pieces: &[&[u8]]) -> bool {
        let mut scan = Scan::default();
        pieces.iter().filter(|piece| scan.finds_both(piece)).count() > 0
    }

    /// However they are cut.
    fn finds(bytes: &[u8]) -> bool {
        let whole = found(&[bytes]);
        for cut in 0..bytes.len() {
            assert_eq!(found(&[&bytes[..cut], &bytes[cut..]]), whole, "cut at {cut}");
        }
        assert_eq!(found(&bytes.chunks(1).collect::<Vec<_>>()), whole);
        whole
    }

    #[test]
    fn a_head_with_both_is_found_in_any_letters_and_order_and_after_anything() {
        for lines in [
            "cOnTeNt-LeNgTh: 1\r\nX: y\r\nTransfer-Encoding: chunked",
            "transfer-encoding:chunked\r\nA-Line-That-Is-Longer-Than-Both: x\nContent-Length:3",
        ] {
            let head = format!("POST / HTTP/1.1\r\n{lines}\r\n\r\n");
            assert!(finds(head.as_bytes()), "{lines}");
            for before in [
                "\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "POST / HTTP/1.1\r\n\r\n5\r\n{\n\n}\n\r\n0\r\n\r\n",
            ] {
                assert!(finds(format!("{before}{head}").as_bytes()), "{before} {lines}");
            }
        }
    }

    #[test]
    fn lengths_and_codings_of_requests_that_follow_each_other_are_none_of_each_others() {
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        let plain = "POST / HTTP/1.1\nContent-Length: 2\n\n{}";
        for both in [[chunked, plain], [plain, chunked], [chunked, chunked], [plain, plain]] {
            assert!(!finds(both.concat().as_bytes()), "{both:?}");
        }
        let others = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX-Content-Length: 1\r\nContent-Lengths: 1\r\n\
                      Content-\nContent-Length : 5\r\n\r\n";
        assert!(!finds(others.as_bytes()));
    }

    #[test]
    fn only_a_chunked_request_can_say_two_lengths() {
        let lengths = Lengths::default();
        let plain = HeaderMap::from_iter([(http::header::CONTENT_LENGTH, "1".parse().unwrap())]);
        let chunked = HeaderMap::from_iter([(TRANSFER_ENCODING, "Chunked".parse().unwrap())]);
        assert_eq!(lengths.ambiguous(Version::HTTP_11, &chunked), None);
        lengths.0.store(true, Ordering::Relaxed);
        assert_eq!(lengths.ambiguous(Version::HTTP_11, &plain), None);
        assert_eq!(lengths.ambiguous(Version::HTTP_2, &chunked), None);
        assert_eq!(lengths.ambiguous(Version::HTTP_11, &chunked), Some(Ambiguous::TwoLengths));
    }

    #[test]
    fn a_coding_that_another_parser_may_not_take_for_chunks_is_ambiguous() {
        for codings in
            [&["gzip, chunked"][..], &["identity"], &["chunked, chunked"], &["chunked", "chunked"], &["x"]]
        {
            let codings = codings.iter().map(|coding| (TRANSFER_ENCODING, coding.parse().unwrap()));
            let headers: HeaderMap = codings.fold(HeaderMap::new(), |mut headers, (name, coding)| {
                headers.append(name, coding);
                headers
            });
            let found = Lengths::default().ambiguous(Version::HTTP_11, &headers);
            assert_eq!(found, Some(Ambiguous::Coding), "{headers:?}");
        }
    }
}
