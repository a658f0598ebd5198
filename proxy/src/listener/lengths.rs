//! Sees a `Content-Length` beside a `Transfer-Encoding`, which hyper takes out before anyone can look (RFC 9112, 6.3).
//!
//! Every line that a head can say a length with is counted on its way in; every request that came with a length is
//! counted when it is served. A chunked request that leaves more lines than requests has one of its own. A line in a
//! body counts too, so the error is on the strict side: JSON has no line that begins like that.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How a line begins that says a length: a parser of heads takes neither space before the name nor before the colon.
const LINE: &[u8] = b"content-length:";

/// What both sides of a connection know of its lengths.
#[derive(Debug, Clone, Default)]
pub(super) struct Lengths(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    said: AtomicU64,
    served: AtomicU64,
}

impl Lengths {
    /// Whether this request, the next of its connection, says where its body ends in two ways.
    pub(super) fn contradict(&self, version: Version, headers: &HeaderMap) -> bool {
        // HTTP/2 has frames and no chunks.
        if version >= Version::HTTP_2 {
            return false;
        }
        if headers.contains_key(CONTENT_LENGTH) {
            self.0.served.fetch_add(1, Ordering::Relaxed);
        }
        headers.contains_key(TRANSFER_ENCODING)
            && self.0.said.load(Ordering::Relaxed) > self.0.served.load(Ordering::Relaxed)
    }
}

/// A connection whose lines are looked at as they come.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    lengths: Lengths,
    scan: Scan,
}

impl<S> Watched<S> {
    /// Watches a stream of plain bytes: with TLS, the inside.
    pub(super) fn new(stream: S) -> (Self, Lengths) {
        let lengths = Lengths::default();
        (Self { stream, lengths: lengths.clone(), scan: Scan::default() }, lengths)
    }
}

/// Where in a line the last read ended.
#[derive(Debug, Default)]
struct Scan {
    /// Bytes of [`LINE`] that have been seen since the line began; none inside of another line.
    matched: Option<usize>,
}

impl Scan {
    /// How many lines that say a length are completed by these bytes.
    fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut found = 0;
        loop {
            if let Some(matched) = self.matched {
                let wanted = LINE.get(matched..).unwrap_or_default();
                let same = bytes.iter().zip(wanted).take_while(|(a, b)| a.eq_ignore_ascii_case(b)).count();
                bytes = bytes.get(same..).unwrap_or_default();
                if same == wanted.len() {
                    found += 1;
                } else if bytes.is_empty() {
                    self.matched = Some(matched + same);
                    return found;
                }
                self.matched = None;
            }
            let Some(end) = memchr::memchr(b'\n', bytes) else { return found };
            bytes = bytes.get(end + 1..).unwrap_or_default();
            self.matched = Some(0);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        let said = self.scan.count(into.filled().get(before..).unwrap_or_default());
        if said > 0 {
            self.lengths.0.said.fetch_add(said, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(pieces: &[&[u8]]) -> u64 {
        let mut scan = Scan::default();
        pieces.iter().map(|piece| scan.count(piece)).sum()
    }

    #[test]
    fn lines_are_counted_in_any_letters_and_however_they_are_cut() {
        let head = b"POST / HTTP/1.1\r\ncOnTeNt-LeNgTh: 1\r\nX-Content-Length: 2\r\nContent-Length:3\nContent-Lengths: 4\r\n\
                     Content-\nContent-Length : 5\r\n\nContent-Length:\r\n\r\n";
        assert_eq!(counted(&[head]), 3);
        for cut in 0..head.len() {
            assert_eq!(counted(&[&head[..cut], &head[cut..]]), 3, "cut at {cut}");
        }
        let bytes: Vec<_> = head.chunks(1).collect();
        assert_eq!(counted(&bytes), 3);
    }

    #[test]
    fn a_chunked_request_contradicts_itself_only_with_a_length_of_its_own() {
        let lengths = Lengths::default();
        let plain = HeaderMap::from_iter([(CONTENT_LENGTH, "1".parse().unwrap())]);
        let chunked = HeaderMap::from_iter([(TRANSFER_ENCODING, "chunked".parse().unwrap())]);
        let said = |lines| lengths.0.said.fetch_add(lines, Ordering::Relaxed);
        assert!(!lengths.contradict(Version::HTTP_11, &chunked));
        said(1);
        assert!(!lengths.contradict(Version::HTTP_11, &plain));
        assert!(!lengths.contradict(Version::HTTP_11, &chunked));
        said(1);
        assert!(!lengths.contradict(Version::HTTP_2, &chunked));
        assert!(lengths.contradict(Version::HTTP_11, &chunked));
    }
}
