//! Server-sent events from an HTTP body, within bounds.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::error::{Error, Kind};
use crate::mcp::sse::{Event, Splitter};

/// Reconnect after this, unless the server says otherwise.
const RETRY: Duration = Duration::from_secs(1);
/// A server may not make us wait longer.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// What is read behind the last event so that the connection can be used again.
const LINGER: Duration = Duration::from_millis(500);

/// The events of one body. `next` may be dropped and called again without loss.
pub(crate) struct EventStream {
    body: Incoming,
    splitter: Splitter,
    ready: VecDeque<Event>,
    /// What may still come; none for streams without an end.
    budget: Option<usize>,
    pub(crate) last_id: Option<String>,
    retry: Option<u64>,
}

impl EventStream {
    pub(crate) fn new(body: Incoming, max_event: usize, budget: Option<usize>) -> Self {
        let ready = VecDeque::new();
        Self { body, splitter: Splitter::new(max_event), ready, budget, last_id: None, retry: None }
    }

    /// Goes on with the body that a reconnection brought.
    pub(crate) fn reopen(&mut self, body: Incoming, max_event: usize) {
        self.body = body;
        self.splitter = Splitter::new(max_event);
    }

    /// The next event that has data; `None` at the end of the body.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            while let Some(event) = self.ready.pop_front() {
                if let Some(id) = &event.id {
                    self.last_id = Some(id.clone()).filter(|id| !id.is_empty());
                }
                self.retry = event.retry.or(self.retry);
                if !event.data.is_empty() {
                    return Ok(Some(event));
                }
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let Ok(data) = frame.map_err(|_| Error::sent(Kind::Reset))?.into_data() else { continue };
            if let Some(budget) = &mut self.budget {
                *budget = budget.checked_sub(data.len()).ok_or_else(|| Error::sent(Kind::TooLarge))?;
            }
            self.ready.extend(self.splitter.feed(&data).map_err(|_| Error::sent(Kind::TooLarge))?);
        }
    }

    /// How long to wait before reconnecting.
    pub(crate) fn retry(&self) -> Duration {
        self.retry.map_or(RETRY, Duration::from_millis).min(LONGEST_RETRY)
    }

    /// Nothing more is wanted. The end of the body is awaited for a moment: a connection whose body
    /// was not read to its end cannot carry the next call.
    pub(crate) fn finish(self) {
        let mut body = self.body;
        let mut ended = async move { while let Some(Ok(_)) = body.frame().await {} }.boxed();
        if ended.as_mut().now_or_never().is_none() {
            tokio::spawn(async move { tokio::time::timeout(LINGER, ended).await });
        }
    }
}
