//! A two-way line of messages that all calls of a session share: a process's pipes, or an HTTP+SSE
//! connection. Ids tell the answers apart.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::{Error, Kind};
use super::inbox::{Answerer, Back, Inbox, Listening};

/// Messages that wait for a peer that does not read.
const OUTGOING: usize = 64;

/// One message on its way out, and the call that fails with it.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) call: Option<u64>,
    pub(crate) body: Bytes,
}

/// Messages in. "Too large" stands for one message that was discarded; any other error ends the line.
pub(crate) type Incoming = BoxStream<'static, Result<Bytes, Error>>;

/// Writes messages, one after the other.
pub(crate) trait Writer: Send + 'static {
    /// Writes one whole message; an error means that nothing can be written any more.
    fn write(&mut self, frame: Frame) -> BoxFuture<'_, Result<(), Closed>>;
}

/// The other side takes no more messages.
pub(crate) struct Closed;

/// The handle of a line. Dropping it ends both of its tasks and whatever `keep` guards.
pub(crate) struct Channel {
    out: mpsc::Sender<Frame>,
    pub(crate) inbox: Arc<Inbox>,
    /// Cancelled once the other side is gone.
    pub(crate) dead: CancellationToken,
    _stop: DropGuard,
}

impl Channel {
    pub(crate) fn start<K: Send + 'static>(
        incoming: Incoming,
        writer: impl Writer,
        inbox: Arc<Inbox>,
        keep: K,
    ) -> Self {
        let (out, frames) = mpsc::channel(OUTGOING);
        let dead = CancellationToken::new();
        let stop = CancellationToken::new();
        let answerer = Answerer(Back::Channel(out.clone()));
        tokio::spawn(write_all(frames, writer, (stop.clone(), dead.clone())));
        let reader = read_all(incoming, Arc::clone(&inbox), answerer);
        let (stopped, gone, heard) = (stop.clone(), dead.clone(), Arc::clone(&inbox));
        tokio::spawn(async move {
            let reason = tokio::select! {
                reason = reader => reason,
                () = stopped.cancelled() => Error::sent(Kind::Unavailable),
                () = gone.cancelled() => Error::sent(Kind::Reset),
            };
            gone.cancel();
            heard.fail_all(&reason);
            if !stopped.is_cancelled() {
                // The server may be another when it comes back, and what it was subscribed to is to be said again.
                heard.ring();
            }
            drop(keep);
        });
        Self { out, inbox, dead, _stop: stop.drop_guard() }
    }

    pub(crate) fn answerer(&self) -> Answerer {
        Answerer(Back::Channel(self.out.clone()))
    }

    /// Sends a request; the answer comes through what is returned.
    pub(crate) async fn call(&self, id: u64, body: Bytes) -> Result<Listening, Error> {
        let listening = self.inbox.listen(id, true);
        self.out.send(Frame { call: Some(id), body }).await.map_err(|_| Error::unsent(Kind::Reset))?;
        // The line may have died before the call was listed: then nobody would fail it.
        if self.dead.is_cancelled() {
            return Err(Error::sent(Kind::Reset));
        }
        Ok(listening)
    }

    /// Sends a request, unless too many messages wait already; the answer comes through what is returned.
    pub(crate) fn call_now(&self, id: u64, body: Bytes) -> Option<Listening> {
        let listening = self.inbox.listen(id, true);
        self.out.try_send(Frame { call: Some(id), body }).ok()?;
        // As in `call`.
        (!self.dead.is_cancelled()).then_some(listening)
    }

    /// Sends a message that has no answer.
    pub(crate) async fn say(&self, body: Bytes) -> Result<(), Error> {
        self.answerer().send(body).await
    }
}

async fn read_all(mut incoming: Incoming, inbox: Arc<Inbox>, answerer: Answerer) -> Error {
    while let Some(message) = incoming.next().await {
        match message {
            Ok(raw) => inbox.receive(raw, &answerer),
            Err(error) if error.kind == Kind::TooLarge => inbox.too_large(),
            Err(error) => return error,
        }
        // A peer that never pauses must not keep this thread.
        tokio::task::consume_budget().await;
    }
    Error::sent(Kind::Reset)
}

async fn write_all(
    mut frames: mpsc::Receiver<Frame>,
    mut writer: impl Writer,
    (stop, dead): (CancellationToken, CancellationToken),
) {
    loop {
        let frame = tokio::select! {
            frame = frames.recv() => frame,
            () = stop.cancelled() => drain(&mut frames),
            () = dead.cancelled() => None,
        };
        let Some(frame) = frame else { return };
        tokio::select! {
            written = writer.write(frame) => if written.is_err() {
                return dead.cancel();
            },
            () = dead.cancelled() => return,
        }
    }
}

/// What was said before the end still goes out, a cancellation for instance.
fn drain(frames: &mut mpsc::Receiver<Frame>) -> Option<Frame> {
    frames.recv().now_or_never().flatten()
}
