//! One event stream of a session: numbered events, kept for a client that comes back (2025-11-25,
//! basic/transports, "Resumability and Redelivery").

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::mcp::sse;

/// Bytes of events that a stream keeps for replay, and that may wait for a slow reader.
const KEPT_BYTES: usize = 1 << 20;

/// See the module.
pub struct EventStream {
    number: u64,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    events: VecDeque<(u64, Bytes)>,
    bytes: usize,
    last: u64,
    /// The last event that the reader took.
    read: u64,
    /// Which reader is the current one; a later one takes over.
    reader: u64,
    reading: bool,
    closed: bool,
}

impl State {
    fn store(&mut self, number: u64, message: &[u8]) {
        self.last += 1;
        let event = sse::encode(Some("message"), Some(&format!("{number}-{}", self.last)), message);
        self.bytes += event.len();
        self.events.push_back((self.last, event));
        while self.bytes > KEPT_BYTES && self.events.len() > 1 {
            if let Some((_, event)) = self.events.pop_front() {
                self.bytes -= event.len();
            }
        }
    }

    fn waiting(&self) -> usize {
        self.events.iter().filter(|(number, _)| *number > self.read).map(|(_, event)| event.len()).sum()
    }
}

impl EventStream {
    pub(super) fn new(number: u64) -> Self {
        Self { number, state: Mutex::default(), changed: Notify::new() }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The number of the last event.
    pub(super) fn last(&self) -> u64 {
        self.state.lock().last
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    pub(super) fn is_read(&self) -> bool {
        self.state.lock().reading
    }

    /// The event that primes a client for resumption: an id and no data.
    #[must_use]
    pub fn priming(&self) -> Bytes {
        sse::priming(&format!("{}-0", self.number), Some(1000))
    }

    /// Adds a message. While a reader is there and slow, waits for it; without one, the oldest give way.
    pub async fn push(&self, message: &[u8]) {
        loop {
            let room = self.changed.notified();
            {
                let mut state = self.state.lock();
                if state.closed {
                    return;
                }
                if !state.reading || state.waiting() < KEPT_BYTES / 2 {
                    state.store(self.number, message);
                    break;
                }
            }
            room.await;
        }
        self.changed.notify_waiters();
    }

    /// Adds a message without waiting: for what concerns no call, a slow reader loses the oldest.
    pub fn offer(&self, message: &[u8]) {
        {
            let mut state = self.state.lock();
            if state.closed {
                return;
            }
            state.store(self.number, message);
        }
        self.changed.notify_waiters();
    }

    /// [`Self::offer`]s a message where there is one.
    pub fn offer_some(&self, message: Option<Bytes>) {
        if let Some(message) = message {
            self.offer(&message);
        }
    }

    /// No more messages will come.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_waiters();
    }

    /// The number of the last event that a reader took: where a new reader without an event id begins.
    #[must_use]
    pub fn unread_from(&self) -> u64 {
        self.state.lock().read
    }

    /// Reads the events after number `after`, then the new ones, until the stream closes or another reader comes.
    pub fn read(self: &Arc<Self>, after: u64) -> impl Stream<Item = Bytes> + Send + 'static + use<> {
        let mine = {
            let mut state = self.state.lock();
            state.reader += 1;
            state.reading = true;
            state.read = after;
            state.reader
        };
        self.changed.notify_waiters();
        let reader = Reader { stream: Arc::clone(self), mine, after };
        unfold(reader, |mut reader| async move { reader.next().await.map(|event| (event, reader)) })
    }
}

struct Reader {
    stream: Arc<EventStream>,
    mine: u64,
    after: u64,
}

impl Reader {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let changed = self.stream.changed.notified();
            {
                let mut state = self.stream.state.lock();
                if state.reader != self.mine {
                    return None;
                }
                let next = state.events.iter().find(|(number, _)| *number > self.after).cloned();
                if let Some((number, event)) = next {
                    self.after = number;
                    state.read = number;
                    drop(state);
                    self.stream.changed.notify_waiters();
                    return Some(event);
                }
                if state.closed {
                    return None;
                }
            }
            changed.await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.stream.state.lock();
        if state.reader == self.mine {
            state.reading = false;
        }
        drop(state);
        self.stream.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    fn text(event: Option<Bytes>) -> String {
        String::from_utf8(event.unwrap_or_default().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_reader_that_comes_back_gets_what_it_missed_and_nothing_twice() {
        let stream = Arc::new(EventStream::new(7));
        for message in ["a", "b", "c"] {
            stream.push(message.as_bytes()).await;
        }
        stream.close();
        let mut again = Box::pin(stream.read(1));
        assert!(text(again.next().await).contains("id: 7-2"));
        assert!(text(again.next().await).contains("data: c"));
        assert!(again.next().await.is_none());
    }

    #[tokio::test]
    async fn a_second_reader_takes_over_so_that_no_message_goes_out_twice() {
        let stream = Arc::new(EventStream::new(0));
        let mut first = Box::pin(stream.read(0));
        let mut second = Box::pin(stream.read(0));
        stream.push(b"x").await;
        assert!(first.next().await.is_none());
        assert!(text(second.next().await).contains("data: x"));
    }

    #[tokio::test]
    async fn a_slow_reader_holds_the_writer_back_and_an_absent_one_does_not() {
        let stream = Arc::new(EventStream::new(0));
        let big = vec![b'x'; KEPT_BYTES];
        stream.push(&big).await;
        stream.push(&big).await;
        let mut reader = Box::pin(stream.read(1));
        assert!(stream.push(b"y").now_or_never().is_none(), "waits for the reader");
        assert!(reader.next().await.is_some());
        assert!(stream.push(b"y").now_or_never().is_some());
    }
}
