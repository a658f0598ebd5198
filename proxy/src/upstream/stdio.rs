//! One JSON message per line over a process's pipes (stdio transport). Lines that are no JSON are
//! skipped; a line that is too long is discarded without being held.

use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::channel::{Closed, Frame, Incoming, Writer};
use super::error::{Error, Kind};

/// Bytes asked of the pipe at a time.
const CHUNK: usize = 16 << 10;

/// Cuts a byte stream into lines of bounded length.
struct Lines<R> {
    from: R,
    buffer: BytesMut,
    searched: usize,
    limit: usize,
    discarding: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// The next line that may be a message, or word of one that was too long; `None` at the end.
    async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        loop {
            let unseen = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(end) = memchr::memchr(b'\n', unseen) {
                let line = self.buffer.split_to(self.searched + end).freeze();
                self.buffer.advance(1);
                self.searched = 0;
                if std::mem::take(&mut self.discarding) {
                    continue;
                }
                if let Some(line) = message(&line) {
                    return Some(Ok(line));
                }
                continue;
            }
            self.searched = self.buffer.len();
            if self.discarding || self.buffer.len() > self.limit {
                self.buffer.clear();
                self.searched = 0;
                if !std::mem::replace(&mut self.discarding, true) {
                    return Some(Err(Error::sent(Kind::TooLarge)));
                }
            }
            self.buffer.reserve(CHUNK);
            match self.from.read_buf(&mut self.buffer).await {
                Ok(1..) => {}
                // A last line without its end still counts.
                Ok(0) | Err(_) => {
                    let rest = self.buffer.split().freeze();
                    self.searched = 0;
                    return if self.discarding { None } else { message(&rest).map(Ok) };
                }
            }
        }
    }
}

/// What starts like a JSON object is judged further on; anything else is the server's chatter.
fn message(line: &Bytes) -> Option<Bytes> {
    let text = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line).trim_ascii();
    if text.first() == Some(&b'{') {
        return Some(line.slice_ref(text));
    }
    if !text.is_empty() {
        tracing::debug!(bytes = text.len(), "skipped a line on stdout that is no JSON-RPC message");
    }
    None
}

/// The messages of a process.
pub(crate) fn incoming(stdout: Box<dyn AsyncRead + Send + Unpin>, limit: usize) -> Incoming {
    let lines = Lines { from: stdout, buffer: BytesMut::new(), searched: 0, limit, discarding: false };
    Box::pin(stream::unfold(lines, |mut lines| async move {
        let line = lines.next().await?;
        Some((line, lines))
    }))
}

/// Writes lines to a process.
pub(crate) struct LineWriter(pub(crate) Box<dyn AsyncWrite + Send + Unpin>);

impl Writer for LineWriter {
    fn write(&mut self, frame: Frame) -> BoxFuture<'_, Result<(), Closed>> {
        Box::pin(async move {
            let mut line = BytesMut::with_capacity(frame.body.len() + 1);
            // JSON text may hold line ends between tokens: blanks mean the same there.
            line.extend(
                frame.body.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }),
            );
            line.extend_from_slice(b"\n");
            let written = async {
                self.0.write_all(&line).await?;
                self.0.flush().await
            };
            written.await.map_err(|_| Closed)
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    async fn lines(text: &[u8], limit: usize) -> Vec<Bytes> {
        let read: Box<dyn AsyncRead + Send + Unpin> = Box::new(std::io::Cursor::new(text.to_vec()));
        incoming(read, limit)
            .map(|line| line.unwrap_or_else(|_| Bytes::from_static(b"too long")))
            .collect()
            .await
    }

    #[tokio::test]
    async fn skips_chatter_and_takes_the_last_line_without_an_end() {
        let text = b"Server started\r\n\n{\"a\":1}\r\n[1]\n\xff\xfe\n{\"b\":2}";
        assert_eq!(lines(text, 100).await, [&b"{\"a\":1}"[..], b"{\"b\":2}"]);
    }

    #[tokio::test]
    async fn a_message_is_one_line_however_its_json_is_laid_out() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 10);
        let mut writer = LineWriter(Box::new(ours));
        for body in [&b"{\n\t\"a\":\r\n [1,\n2]\n}\n"[..], br#"{"b":"\n"}"#] {
            let written = writer.write(Frame { call: None, body: Bytes::from_static(body) }).await;
            assert!(written.is_ok());
        }
        drop(writer);
        let mut read = String::new();
        theirs.read_to_string(&mut read).await.unwrap();
        let lines: Vec<serde_json::Value> =
            read.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, [serde_json::json!({"a": [1, 2]}), serde_json::json!({"b": "\n"})]);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_discarded_and_the_next_one_read() {
        let mut text = vec![b'{'; 100_000];
        text.extend_from_slice(b"\n{\"b\":2}\n");
        assert_eq!(lines(&text, 1000).await, [&b"too long"[..], b"{\"b\":2}"]);
    }
}
