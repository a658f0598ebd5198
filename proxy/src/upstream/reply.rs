//! What comes back for one call: events in order, the last of which is the response. Dropping a
//! reply cancels its call.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt};
use http::HeaderMap;
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use super::breaker::Ticket;
use super::error::{Error, Kind, Phase};
use super::events::EventStream;
use super::http::{Answered, HttpLine, Opened, Refused};
use super::inbox::{self, Answerer, Back, Inbox, Listening};
use super::pool::Lease;
use super::resume::Resumes;
use super::wire::{self, Said};
use crate::mcp::envelope::{Id, Method};
use crate::mcp::era::Era;
use crate::mcp::sse;
use crate::workers;

/// One thing that an upstream said during a call.
#[derive(Debug)]
pub enum Event {
    /// A notification that belongs to the call (or cannot belong to another).
    Notification {
        /// What it is.
        method: Method,
        /// The whole message.
        raw: Bytes,
    },
    /// The server asks its client something; answer by [`Reply::answerer`].
    Request {
        /// The server's id.
        id: Id,
        /// What it asks.
        method: Method,
        /// The whole message.
        raw: Bytes,
    },
    /// The response, with the upstream-facing id: the last event.
    Response(Body),
}

/// A response message.
#[derive(Debug)]
pub enum Body {
    /// At hand.
    Whole(Bytes),
    /// The body of an `application/json` answer, unread.
    Stream(BodyStream),
}

impl Body {
    /// Reads the whole message. Bounded by the upstream's `max_response_bytes`.
    ///
    /// # Errors
    /// As the stream.
    pub async fn collect(self) -> Result<Bytes, Error> {
        match self {
            Self::Whole(raw) => Ok(raw),
            Self::Stream(mut stream) => {
                let mut chunks = Vec::new();
                while let Some(chunk) = stream.next().await {
                    chunks.push(chunk?);
                }
                Ok(if chunks.len() == 1 { chunks.pop().unwrap_or_default() } else { chunks.concat().into() })
            }
        }
    }
}

/// An unread body. It holds the call's place in the queue, and ends with an error at the call's
/// deadline or size limit; dropping it closes the upstream's stream.
pub struct BodyStream {
    body: Incoming,
    left: usize,
    deadline: Pin<Box<Sleep>>,
    call: Admitted,
    over: bool,
}

impl std::fmt::Debug for BodyStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyStream").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Stream for BodyStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        let failed = loop {
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    let Some(left) = this.left.checked_sub(data.len()) else {
                        break Error::sent(Kind::TooLarge);
                    };
                    this.left = left;
                    return Poll::Ready(Some(Ok(data)));
                }
                Poll::Ready(Some(Err(_))) => break Error::sent(Kind::Reset),
                Poll::Ready(None) => {
                    this.over = true;
                    return Poll::Ready(None);
                }
                Poll::Pending if this.deadline.as_mut().poll(cx).is_ready() => {
                    break Error::sent(Kind::Timeout(Phase::Total));
                }
                Poll::Pending => return Poll::Pending,
            }
        };
        this.over = true;
        this.call.settle(Err(&failed));
        Poll::Ready(Some(Err(failed)))
    }
}

/// An admitted call: its place in the queue and its say about the upstream's health.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    pub(crate) ticket: Option<Ticket>,
    pub(crate) _seat: Option<OwnedSemaphorePermit>,
}

impl Admitted {
    pub(crate) fn settle(&mut self, outcome: Result<(), &Error>) {
        if let Some(ticket) = &mut self.ticket {
            ticket.settle(outcome);
        }
    }
}

/// The deadlines and bounds of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) first_byte: Instant,
    pub(crate) total: Instant,
    pub(crate) max_bytes: usize,
    /// A stream without an end (a subscription): no bound on the sum of its events.
    pub(crate) endless: bool,
}

enum State {
    Opening(BoxFuture<'static, Result<Answered, Error>>),
    Json(Incoming),
    Events(Box<EventStream>),
    Refused(Refused),
    Channel,
    Done,
}

/// A call in flight.
pub struct Reply {
    era: Era,
    id: u64,
    state: State,
    /// Messages that come aside of the HTTP response, or all of them on a channel.
    listening: Option<Listening>,
    notes_over: bool,
    line: Option<Arc<HttpLine>>,
    answerer: Option<Answerer>,
    ready: VecDeque<Event>,
    bounds: Bounds,
    begun: bool,
    resumes: Resumes,
    call: Admitted,
    /// Last: given back after the cancellation is on its way.
    _lease: Option<Lease>,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").field("id", &self.id).field("era", &self.era).finish_non_exhaustive()
    }
}

impl Reply {
    fn new(era: Era, id: u64, state: State, bounds: Bounds) -> Self {
        Self {
            era,
            id,
            state,
            listening: None,
            notes_over: false,
            line: None,
            answerer: None,
            ready: VecDeque::new(),
            bounds,
            begun: false,
            resumes: Resumes::default(),
            call: Admitted::default(),
            _lease: None,
        }
    }

    /// A modern call over HTTP: its stream is all there is to it.
    pub(crate) fn modern_http(
        id: u64,
        post: BoxFuture<'static, Result<Answered, Error>>,
        bounds: Bounds,
    ) -> Self {
        Self::new(Era::Modern, id, State::Opening(post), bounds)
    }

    /// A call in a legacy HTTP session.
    pub(crate) fn legacy_http(
        id: u64,
        line: &Arc<HttpLine>,
        (headers, body): (HeaderMap, Bytes),
        bounds: Bounds,
    ) -> Self {
        let http = Arc::clone(&line.http);
        let post = Box::pin(async move { http.post(headers, body).await });
        let mut reply = Self::new(Era::Legacy, id, State::Opening(post), bounds);
        reply.listening = Some(line.inbox.listen(id, false));
        reply.answerer = Some(Answerer(Back::Http(Arc::clone(line))));
        reply.line = Some(Arc::clone(line));
        reply
    }

    /// A call over a channel.
    pub(crate) fn channel(era: Era, listening: Listening, answerer: Answerer, bounds: Bounds) -> Self {
        let mut reply = Self::new(era, listening.id, State::Channel, bounds);
        reply.listening = Some(listening);
        reply.answerer = Some(answerer);
        reply
    }

    /// A call that needed no server of this era: its response is at hand.
    pub(crate) fn answered(id: u64, raw: Bytes) -> Self {
        let now = Instant::now();
        let bounds = Bounds { first_byte: now, total: now, max_bytes: raw.len(), endless: false };
        let mut reply = Self::new(Era::Legacy, id, State::Done, bounds);
        reply.begun = true;
        reply.ready.push_back(inbox::response(raw));
        reply
    }

    pub(crate) fn with_lease(mut self, lease: Option<Lease>) -> Self {
        self._lease = lease;
        self
    }

    pub(crate) fn admit(&mut self, call: Admitted) {
        self.call = call;
    }

    /// The era in which the upstream answers.
    #[must_use]
    pub fn era(&self) -> Era {
        self.era
    }

    /// The id of the call on the upstream's side, which its response and its progress carry.
    #[must_use]
    pub fn upstream_id(&self) -> u64 {
        self.id
    }

    /// Answers the requests that come during this call; `None` in a modern call over HTTP, which
    /// has none. It stays usable while this reply is parked.
    #[must_use]
    pub fn answerer(&self) -> Option<Answerer> {
        self.answerer.clone()
    }

    /// The next event; `None` after the response or an error.
    pub async fn next(&mut self) -> Option<Result<Event, Error>> {
        if let Some(event) = self.ready.pop_front() {
            return Some(Ok(event));
        }
        if matches!(self.state, State::Done) {
            return None;
        }
        let outcome = self.within_deadline().await;
        match &outcome {
            Ok(Event::Response(_)) => self.state = State::Done,
            Ok(_) => {}
            Err(error) => {
                self.call.settle(Err(error));
                self.abandon();
            }
        }
        Some(outcome)
    }

    /// Goes on without anybody listening until the response or the deadline: a legacy client that
    /// disconnects has not cancelled (2025-11-25, basic/transports).
    pub fn detach(mut self) {
        tokio::spawn(async move {
            while let Some(Ok(event)) = self.next().await {
                if let (Event::Request { id, .. }, Some(answerer)) = (&event, &self.answerer) {
                    answerer.send_detached(wire::refusal(id, -32603, "the client is gone"));
                }
                if let Event::Response(body) = event {
                    drop(body.collect().await);
                }
            }
        });
    }

    /// Waits until the answer has begun or an event came aside of it; on a line that calls share, only where the
    /// call could be made again if the line breaks.
    pub(crate) async fn begin(&mut self, repeatable: bool) -> Result<(), Error> {
        match &self.state {
            State::Opening(_) => {}
            State::Channel if repeatable => {
                let first = self.next().await.transpose()?;
                self.ready.extend(first);
                return Ok(());
            }
            _ => return Ok(()),
        }
        let limit = self.bounds.first_byte.min(self.bounds.total);
        let begun = tokio::time::timeout_at(limit, self.open()).await;
        let outcome = begun.unwrap_or_else(|_| Err(self.late()));
        match outcome {
            Ok(aside) => {
                self.ready.extend(aside);
                Ok(())
            }
            Err(error) => {
                self.call.settle(Err(&error));
                self.abandon();
                Err(error)
            }
        }
    }

    /// The refusal that the call met, if it met one.
    pub(crate) fn refused(&self) -> Option<&Refused> {
        match &self.state {
            State::Refused(refused) => Some(refused),
            _ => None,
        }
    }

    /// Has anything been heard?
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// The call was refused and is to be sent anew: there is nothing to cancel.
    pub(crate) fn set_aside(mut self) {
        self.state = State::Done;
    }

    fn late(&self) -> Error {
        let total = Instant::now() >= self.bounds.total;
        Error::sent(Kind::Timeout(if total || self.begun { Phase::Total } else { Phase::FirstByte }))
    }

    async fn within_deadline(&mut self) -> Result<Event, Error> {
        let total = self.bounds.total;
        let limit = if self.begun { total } else { self.bounds.first_byte.min(total) };
        let stepped = tokio::time::timeout_at(limit, self.step()).await;
        stepped.unwrap_or_else(|_| Err(self.late()))
    }

    async fn step(&mut self) -> Result<Event, Error> {
        loop {
            match &mut self.state {
                State::Opening(_) => {
                    if let Some(event) = self.open().await? {
                        return Ok(event);
                    }
                }
                State::Events(_) => {
                    if let Some(event) = self.step_events().await? {
                        return Ok(event);
                    }
                }
                State::Channel => return self.step_channel().await,
                State::Json(_) | State::Refused(_) | State::Done => return self.last(),
            }
        }
    }

    /// Waits for the headers, or for what comes aside of them.
    async fn open(&mut self) -> Result<Option<Event>, Error> {
        let State::Opening(post) = &mut self.state else { return Ok(None) };
        let answered = tokio::select! {
            answered = post => answered?,
            note = note(&mut self.listening, &mut self.notes_over) => {
                self.begun = true;
                return Ok(Some(note));
            }
        };
        self.begun = true;
        let max = self.bounds.max_bytes;
        self.state = match answered.opened {
            Opened::Json(body) => State::Json(body),
            Opened::Events(body) => {
                let budget = (!self.bounds.endless).then_some(max);
                State::Events(Box::new(EventStream::new(body, max, budget)))
            }
            Opened::Refused(refused) => State::Refused(refused),
            Opened::Empty => return Err(Error::protocol("a request was taken without an answer")),
            Opened::Other => return Err(Error::protocol("an answer that is neither JSON nor events")),
        };
        if self.refused().is_none_or(|refused| !refused.status.is_server_error()) {
            self.call.settle(Ok(()));
        }
        Ok(None)
    }

    fn last(&mut self) -> Result<Event, Error> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Json(body) => Ok(Event::Response(Body::Stream(BodyStream {
                body,
                left: self.bounds.max_bytes,
                deadline: Box::pin(tokio::time::sleep_until(self.bounds.total)),
                call: std::mem::take(&mut self.call),
                over: false,
            }))),
            State::Refused(refused) => match refused.error() {
                // Some servers leave the id out of an error, or say null: it is this call's.
                Some((error, _)) => {
                    Ok(inbox::response(wire::error_response(self.id.to_string().as_bytes(), error)))
                }
                None => Err(refused.to_error()),
            },
            _ => Err(Error::unsent(Kind::Unavailable)),
        }
    }

    async fn step_channel(&mut self) -> Result<Event, Error> {
        let Some(listening) = &mut self.listening else { return Err(Error::sent(Kind::Reset)) };
        let Listening { notes, answer: Some(answer), .. } = listening else {
            return Err(Error::sent(Kind::Reset));
        };
        let event = tokio::select! {
            biased;
            Some(note) = notes.recv(), if !self.notes_over => note,
            answered = answer => inbox::response(answered.unwrap_or_else(|_| Err(Error::sent(Kind::Reset)))?),
        };
        self.begun = true;
        self.call.settle(Ok(()));
        Ok(event)
    }

    async fn step_events(&mut self) -> Result<Option<Event>, Error> {
        let State::Events(events) = &mut self.state else { return Ok(None) };
        let next = tokio::select! {
            next = events.next() => next,
            note = note(&mut self.listening, &mut self.notes_over) => return Ok(Some(note)),
        };
        match next {
            Ok(Some(event)) => Ok(self.heard(event).await),
            Ok(None) => Box::pin(self.resume(Error::sent(Kind::Reset))).await.map(|()| None),
            Err(error) if error.kind == Kind::Reset => Box::pin(self.resume(error)).await.map(|()| None),
            Err(error) => Err(error),
        }
    }

    async fn heard(&mut self, event: sse::Event) -> Option<Event> {
        let raw = event.data;
        let looked_at = raw.clone();
        match workers::read(raw.len(), move || wire::look(&looked_at)).await? {
            Said::Response(Some(id)) if id != self.id => None,
            Said::Response(_) => {
                if let State::Events(events) = std::mem::replace(&mut self.state, State::Done) {
                    events.finish();
                }
                Some(inbox::response(raw))
            }
            Said::Notification(method, _) => self.settle(Event::Notification { method, raw }),
            Said::Request(id, method) if self.era == Era::Legacy => {
                self.settle(Event::Request { id, method, raw })
            }
            Said::Request(_, method) => {
                tracing::warn!(
                    method = method.label(),
                    "a modern server sent a request on a response stream"
                );
                None
            }
        }
    }

    fn settle(&self, event: Event) -> Option<Event> {
        match (&self.line, &self.answerer) {
            (Some(line), Some(answerer)) => Inbox::settle_locally(&line.inbox, event, answerer),
            _ => Some(event),
        }
    }

    /// Takes a stream up where it broke off: only legacy streams whose server gave event ids.
    async fn resume(&mut self, failed: Error) -> Result<(), Error> {
        let State::Events(events) = &mut self.state else { return Err(failed) };
        let (Some(line), Some(last)) = (&self.line, events.last_id.clone()) else { return Err(failed) };
        loop {
            let Some(pause) = self.resumes.next(&last, events.retry()) else { return Err(failed) };
            tokio::time::sleep(pause).await;
            match line.get(Some(&last)).await {
                Ok(Answered { opened: Opened::Events(body), .. }) => {
                    events.reopen(body, self.bounds.max_bytes);
                    return Ok(());
                }
                Ok(_) => return Err(failed),
                // The server may be on its way back.
                Err(_) => self.resumes.failed(&last),
            }
        }
    }

    /// Gives the call up: legacy servers and channels are told, a modern HTTP stream just closes.
    fn abandon(&mut self) {
        if matches!(std::mem::replace(&mut self.state, State::Done), State::Done) {
            return;
        }
        match (&self.line, &self.answerer) {
            (Some(line), _) => line.give_up(self.id),
            (None, Some(answerer)) => answerer.send_detached(wire::cancelled(self.id)),
            (None, None) => {}
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// The next message aside of the response; never ready once there can be none.
async fn note(listening: &mut Option<Listening>, over: &mut bool) -> Event {
    if let (Some(listening), false) = (listening, *over) {
        match listening.notes.recv().await {
            Some(event) => return event,
            None => *over = true,
        }
    }
    std::future::pending().await
}
