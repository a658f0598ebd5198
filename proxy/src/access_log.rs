//! The access log: one JSON line a request, written by one thread in batches, never on the request path.
//!
//! Text of callers is JSON-escaped, so that no line can be forged; arguments, results and credentials are never
//! written. When the sink is slow or takes nothing, records are dropped and counted: nobody waits.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use serde::Serialize;

use crate::hidden_text::deceives;
use crate::http::Answer;
use crate::metrics::{Label, Shared};

/// Records that wait for the writer.
const WAITING: usize = 8192;
/// Records are gathered this long: a writer that sleeps is not woken by each of them.
const GATHER: Duration = Duration::from_millis(5);
/// For what waits to be written when the process ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// One line.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Record {
    /// RFC 3339, UTC.
    pub time: String,
    /// `namespace/name`.
    pub gateway: String,
    /// Who called, with who vouches for it.
    pub principal: String,
    /// The caller's groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// MCP revision of the client.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub revision: &'static str,
    /// MCP method.
    pub method: String,
    /// `namespace/name` of the server that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The upstream's own name of the object; for an unknown one the caller's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// As in the metrics.
    pub outcome: &'static str,
    /// Why it was allowed or denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The policy that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Its rule or limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What policies in Audit mode would have said, where that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<String>,
    /// HTTP status.
    pub status: u16,
    /// Microseconds in all.
    pub total_us: u64,
    /// Microseconds at the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_us: Option<u64>,
    /// W3C trace id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// Opens a file for records: what is there stays, and only its owner reads it.
pub fn file(path: &Path) -> std::io::Result<Box<dyn Write + Send>> {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    Ok(Box::new(options.open(path)?))
}

/// What the writer gets.
enum Entry {
    Record(Box<Record>),
    /// Everything before it has been written once this is answered.
    Flush(SyncSender<()>),
}

/// Where records go.
#[derive(Clone)]
pub struct AccessLog {
    sender: Option<SyncSender<Entry>>,
    metrics: Shared,
}

impl AccessLog {
    /// Writes to `sink` until the last handle is dropped; without one, nothing is written.
    pub fn new(sink: Option<Box<dyn Write + Send>>, metrics: Shared) -> std::io::Result<Self> {
        let Some(sink) = sink else { return Ok(Self { sender: None, metrics }) };
        let (sender, receiver) = sync_channel(WAITING);
        std::thread::Builder::new().name("access-log".to_owned()).spawn({
            let lost = metrics.log_dropped.clone();
            move || Writer::new(sink, lost).run(&receiver)
        })?;
        Ok(Self { sender: Some(sender), metrics })
    }

    /// Whether records are wanted: making one costs.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.sender.is_some()
    }

    /// Hands over a record without waiting.
    pub fn write(&self, record: Record) {
        let Some(sender) = &self.sender else { return };
        let entry = Entry::Record(Box::new(record));
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = sender.try_send(entry) {
            self.metrics.log_dropped.inc();
        }
    }

    /// Counts and writes down a request that was refused before there was anything to decide: `gateway` where it came
    /// that far, `principal` where it is known.
    pub fn refused(&self, gateway: Option<&Label>, principal: &str, reason: &'static str, answer: &Answer) {
        self.metrics.refused(gateway, reason);
        if self.enabled() {
            self.write(Record {
                time: jiff::Timestamp::now().to_string(),
                gateway: gateway.map(ToString::to_string).unwrap_or_default(),
                principal: principal.to_owned(),
                outcome: "refused",
                reason: Some(reason),
                status: answer.status().as_u16(),
                ..Record::default()
            });
        }
    }

    /// Waits until what was handed over is written; for the end of a process, never for a request.
    pub fn flush(&self) {
        let Some(sender) = &self.sender else { return };
        let (done, written) = sync_channel(1);
        if sender.try_send(Entry::Flush(done)).is_err() || written.recv_timeout(LAST_WORDS).is_err() {
            tracing::warn!("the access log was not written to its end");
        }
    }
}

/// JSON in which everything that deceives is escaped.
struct Visible;

impl serde_json::ser::Formatter for Visible {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, text: &str) -> std::io::Result<()> {
        let mut rest = text;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| deceives(*c)) {
            let (before, from) = rest.split_at(at);
            out.write_all(before.as_bytes())?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = &from[c.len_utf8()..];
        }
        out.write_all(rest.as_bytes())
    }
}

/// The thread's end of the log.
struct Writer {
    sink: BufWriter<Box<dyn Write + Send>>,
    line: Vec<u8>,
    lost: Counter,
    /// What is written is not taken at the moment.
    fails: bool,
}

impl Writer {
    fn new(sink: Box<dyn Write + Send>, lost: Counter) -> Self {
        let sink = BufWriter::with_capacity(64 * 1024, sink);
        Self { sink, line: Vec::new(), lost, fails: false }
    }

    /// Writes and flushes all that has gathered, so that a quiet log is complete and a busy one is batched. A sink that
    /// takes nothing, as a disk that is full, may take the next.
    fn run(mut self, receiver: &Receiver<Entry>) {
        while let Ok(first) = receiver.recv() {
            if matches!(first, Entry::Record(_)) {
                std::thread::sleep(GATHER);
            }
            let mut next = Some(first);
            while let Some(entry) = next {
                match entry {
                    Entry::Record(record) => self.write(&record),
                    Entry::Flush(done) if self.flush() => {
                        // Whoever asked may have stopped waiting.
                        let _ = done.send(());
                    }
                    Entry::Flush(_) => {}
                }
                next = receiver.try_recv().ok();
            }
            self.flush();
        }
    }

    /// One line, whole or not at all.
    fn write(&mut self, record: &Record) {
        self.line.clear();
        let mut line = serde_json::Serializer::with_formatter(&mut self.line, Visible);
        let written = record.serialize(&mut line).map_err(std::io::Error::from).and_then(|()| {
            self.line.push(b'\n');
            self.sink.write_all(&self.line)
        });
        // What a buffer takes has yet to be written.
        if written.is_err() {
            self.lost.inc();
            self.tell(written);
        }
    }

    /// Whether all is written. What is not waits in the buffer.
    fn flush(&mut self) -> bool {
        let flushed = self.sink.flush();
        self.tell(flushed)
    }

    /// Says in the process's own log when it begins to fail, and when that is over.
    fn tell(&mut self, outcome: std::io::Result<()>) -> bool {
        match outcome {
            Ok(()) if std::mem::take(&mut self.fails) => tracing::info!("the access log is written again"),
            Ok(()) => {}
            Err(error) if std::mem::replace(&mut self.fails, true) => {
                tracing::debug!(%error, "the access log still cannot be written");
            }
            Err(error) => tracing::error!(%error, "the access log cannot be written"),
        }
        !self.fails
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_callers_text_cannot_forge_a_line() {
        let sink = Sink::default();
        let (sender, receiver) = sync_channel(4);
        let forged = "x\r\n{\"outcome\":\"ok\"}\u{1b}[31m".to_owned();
        let record = Record { object: Some(forged), outcome: "denied", ..Record::default() };
        sender.send(Entry::Record(Box::new(record))).unwrap();
        drop(sender);
        Writer::new(Box::new(sink.clone()), Counter::default()).run(&receiver);
        let text = String::from_utf8(sink.0.lock().clone()).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn what_deceives_is_escaped_and_reads_back_as_it_was() {
        let text = "a\u{9b}31m\u{7f}\u{2028}\u{202e}\u{e0041}\u{e9}\"";
        let mut out = Vec::new();
        text.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Visible)).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out, r#""a\u009b31m\u007f\u2028\u202e\udb40\udc41\u{e9}\"""#.replace("\\u{e9}", "\u{e9}"));
        assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
    }

    /// Takes nothing while it is broken, like a disk that is full.
    #[derive(Clone, Default)]
    struct Breaks(Sink, Arc<AtomicBool>);

    impl Write for Breaks {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.1.load(Ordering::Relaxed) {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            self.0.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_sink_that_takes_records_again_gets_those_that_come_then_and_every_lost_one_is_counted() {
        let (sink, metrics) = (Breaks::default(), Shared::default());
        let log = AccessLog::new(Some(Box::new(sink.clone())), metrics.clone()).unwrap();
        let write = |times: usize| {
            for _ in 0..times {
                log.write(Record { object: Some("x".repeat(1000)), ..Record::default() });
            }
            log.flush();
        };
        sink.1.store(true, Ordering::Relaxed);
        write(200);
        sink.1.store(false, Ordering::Relaxed);
        write(10);
        let text = String::from_utf8(sink.0.0.lock().clone()).unwrap();
        let whole = text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
        let lost = usize::try_from(metrics.log_dropped.get()).unwrap();
        assert!(lost > 0 && lost < 200, "what a buffer holds is not lost: {lost}");
        assert_eq!(whole.count(), 210 - lost);
        assert_eq!(text.lines().count(), 210 - lost, "no line is cut");
    }

    #[test]
    fn a_flush_returns_once_everything_is_written() {
        let sink = Sink::default();
        let log = AccessLog::new(Some(Box::new(sink.clone())), Shared::default()).unwrap();
        (0..10).for_each(|_| log.write(Record { outcome: "ok", ..Record::default() }));
        log.flush();
        assert_eq!(sink.0.lock().iter().filter(|byte| **byte == b'\n').count(), 10);
    }
}
