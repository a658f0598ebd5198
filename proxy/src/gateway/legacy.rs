//! Clients with sessions: 2025-03-26, 2025-06-18 and 2025-11-25 over Streamable HTTP.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join_all, ready};
use futures_util::stream::once;
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, StatusCode};
use http_body::Body as _;
use http_body_util::BodyDataStream;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::local::list_kind;
use super::modern::{is_call, is_subscription};
use super::plan::Asker;
use super::post::Exchange;
use super::pump::{Pump, Step};
use super::record::Record;
use super::session_task::Hears;
use super::{Gateway, answer, now, question, session_task};
use crate::http::{self as web, Answer};
use crate::mcp::envelope::{Id, IdValue, Message, Method, Notification, Request, Response};
use crate::mcp::era::{Era, Revision, SESSION_ID, of_session};
use crate::mcp::fault::Fault;
use crate::mcp::handle::Purpose;
use crate::mcp::meta::{Capabilities, LogLevel};
use crate::session::{Call, EventStream, Session, Terms};
use crate::upstream::SessionLink;

/// Seconds that a session id is good for, however busy its session is.
const SESSION_LIFE: u64 = 7 * 24 * 3600;
/// Messages of a batch that are answered at once: what one client may ask for at a time is bounded, and so is memory.
const SIDE_BY_SIDE: usize = 8;
/// Messages of servers that wait for a session's task.
const INBOX: usize = 64;
/// For a server to be told that roots changed: one that does not read keeps it from the others no longer.
const ROOTS_TIME: Duration = Duration::from_secs(10);

/// What a session id says under its seal: to whoever gets a request of a session of another process. The process that
/// opened it knows all this by the id.
#[derive(Serialize)]
struct Facts<'a> {
    revision: &'a str,
    capabilities: u8,
    /// Tells sessions apart.
    nonce: String,
}

/// Why a request belongs to no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoSession {
    /// It names none: 400.
    Unnamed,
    /// None that is this caller's: 404, and the client begins again.
    Unknown,
}

impl Exchange {
    /// Opens a session.
    pub(super) async fn initialize(mut self, request: &Request, revision: Revision) -> Answer {
        let mut record = self.record(Method::Initialize);
        record.revision(revision);
        self.settle(self.gateway.shell.bounds.list_grace, |_| false).await;
        let opened = self.open_session(request, revision).map(|session| {
            let mut answer = web::json(StatusCode::OK, self.handshake(request, revision));
            if let Ok(id) = HeaderValue::from_str(&session.terms.id) {
                answer.headers_mut().insert(SESSION_ID, id);
            }
            answer
        });
        if matches!(opened, Err(Fault::Unavailable { .. })) {
            // For want of room: no server failed.
            record.done("limited");
        }
        self.local_answer(request, record, opened)
    }

    fn open_session(&self, request: &Request, revision: Revision) -> Result<Arc<Session>, Fault> {
        let declared = Capabilities::new(request.params.bytes("capabilities").unwrap_or_default());
        let capabilities = declared.known_to(revision);
        let shell = &self.gateway.shell;
        let principal = self.caller.principal.clone();
        let mut nonce = [0; 16];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| Fault::Internal)?;
        let facts = Facts {
            revision: revision.as_str(),
            capabilities: capabilities.set().bits(),
            nonce: hex::encode(nonce),
        };
        let binding = Gateway::binding(&self.view, &principal);
        let expires = now() + SESSION_LIFE;
        let sealed = shell.ring.seal(Purpose::Session, &binding, expires, &facts);
        let id = sealed.map_err(|_| Fault::Internal)?;
        let (sender, inbox) = mpsc::channel(INBOX);
        let info = request.params.bytes("clientInfo");
        let link = SessionLink::new(&principal, capabilities.without_tasks(), info, sender);
        let terms = Terms { id, expires, revision, principal, capabilities };
        let session = Session::new(terms, link, shell.metrics.session(&self.gateway.label));
        if !self.gateway.sessions.insert(Arc::clone(&session), shell.bounds.sessions) {
            return Err(Fault::Unavailable {
                message: "too many sessions are open".into(),
                retry_after: None,
            });
        }
        let mut exchange = self.clone();
        exchange.declares(Era::Legacy, session.terms.capabilities.set());
        session_task::start(exchange, &session, inbox);
        Ok(session)
    }

    /// The session that the request names.
    pub(super) fn session(&self) -> Result<Arc<Session>, NoSession> {
        let id = web::single(&self.headers, &SESSION_ID).ok_or(NoSession::Unnamed)?;
        self.gateway.sessions.get(id, &self.caller.principal, now()).ok_or(NoSession::Unknown)
    }

    pub(super) fn without_session(&self, missing: NoSession, id: Option<&Id>) -> Answer {
        let (reason, status, message) = match missing {
            NoSession::Unnamed => (
                "no_session",
                StatusCode::BAD_REQUEST,
                "neither a 2026-07-28 request (with _meta) nor one of a session (with Mcp-Session-Id); send \
                 initialize first",
            ),
            NoSession::Unknown => {
                ("unknown_session", StatusCode::NOT_FOUND, "no such session; send initialize")
            }
        };
        let body = Fault::InvalidRequest(message.into()).to_body(Era::Legacy, id);
        self.refused(reason, web::json(status, [body]))
    }

    pub(super) async fn legacy(mut self, session: Arc<Session>, message: Message) -> Answer {
        self.declares(Era::Legacy, session.terms.capabilities.set());
        match message {
            Message::Request(request) => self.legacy_request(session, request).await,
            Message::Notification(said) => {
                self.legacy_notification(&session, &said);
                web::status(StatusCode::ACCEPTED)
            }
            Message::Response(response) => legacy_response(&session, &response).await,
        }
    }

    async fn legacy_request(mut self, session: Arc<Session>, request: Request) -> Answer {
        let mut record = self.record(request.method.clone());
        record.revision(session.terms.revision);
        if !is_call(&request.method) && !is_subscription(&request.method) {
            let answered = self.legacy_local(&session, &request).await;
            return self.local_answer(&request, record, answered);
        }
        let Some(call) = session.begin(&request.id) else {
            let fault = Fault::InvalidRequest("this id is in use by another request of the session".into());
            return self.local_answer(&request, record, Err(fault));
        };
        let (answer, begun) = oneshot::channel();
        let (cancelled, panics) = (call.token(), self.gateway.shell.metrics.panics.clone());
        let id = request.id.clone();
        // A legacy client that disconnects has not cancelled: its call runs on, and can be resumed.
        tokio::spawn(async move {
            let token = call.token();
            let work = Box::pin(self.legacy_call((&session, &request), record, First { answer, call }));
            token.run_until_cancelled(work).await;
        });
        begun.await.unwrap_or_else(|_| {
            if cancelled.is_cancelled() {
                // Cancelled before it was answered: nothing may be said any more.
                return web::no_events();
            }
            panics.inc();
            tracing::error!("a request ended in a panic");
            web::fault(&Fault::Internal, Era::Legacy, Some(&id))
        })
    }

    fn local_answer(&self, request: &Request, mut record: Record, answered: Result<Answer, Fault>) -> Answer {
        match answered {
            Ok(answer) => {
                record.done("ok");
                answer
            }
            Err(fault) => {
                record.failed(&fault, fault.status(Era::Legacy).as_u16());
                web::fault(&fault, Era::Legacy, Some(&request.id))
            }
        }
    }

    async fn legacy_local(&mut self, session: &Arc<Session>, request: &Request) -> Result<Answer, Fault> {
        if let Some(kind) = list_kind(&request.method) {
            let pieces = self.list(kind, session.terms.revision, request).await?;
            return Ok(web::json(StatusCode::OK, pieces));
        }
        match &request.method {
            Method::Ping => Ok(answer::empty(&request.id, Era::Legacy)),
            Method::LoggingSetLevel => {
                let word = request.params.str("level")?.unwrap_or_default();
                let level = LogLevel::parse(&word);
                session.set_log_level(level.ok_or_else(|| Fault::InvalidParams("unknown log level".into()))?);
                self.tell_level(session);
                Ok(answer::empty(&request.id, Era::Legacy))
            }
            other => Err(Fault::MethodNotFound(other.as_str().into())),
        }
    }

    /// Says to the servers of the session which log messages the client wants: to those that are in use now; the others
    /// are told with the first call.
    fn tell_level(&self, session: &Arc<Session>) {
        if !session.level.changed() {
            return;
        }
        let (config, session) = (Arc::clone(&self.view.config), Arc::clone(session));
        let telling = async move {
            loop {
                let told = config.attached.iter().map(|attached| attached.upstream.tell_level(&session.link));
                tokio::select! {
                    _ = join_all(told) => {}
                    () = session.ended() => return,
                }
                if !session.level.told() {
                    return;
                }
            }
        };
        tokio::spawn(telling);
    }

    async fn legacy_call(
        mut self,
        (session, request): (&Arc<Session>, &Request),
        mut record: Record,
        first: First,
    ) {
        let asker = Asker {
            revision: session.terms.revision,
            capabilities: session.terms.capabilities.clone(),
            log_level: session.log_level(),
            session: Some(Arc::clone(session)),
            streams: web::accepts(&self.headers, "text/event-stream"),
        };
        let (reply, rules, server) = match self.ask(request, &asker, &mut record).await {
            Ok(asked) => asked,
            Err(fault) => {
                return first.finish(self.local_answer(request, record, Err(fault)));
            }
        };
        let said = (request.method.clone(), request.params.meta().progress_token());
        let mut pump = Pump::new(reply, rules, &asker, said, (record, Arc::clone(&self.view)));
        pump.hears(Hears { exchange: self.clone(), session: Arc::clone(session), server });
        loop {
            match pump.step().await {
                Step::Response(body) => return first.finish(pump.answer(body).await),
                Step::Failed(fault) => return first.finish(pump.fail(&fault)),
                Step::Message(message) if asker.streams => {
                    let stream = Closing(session.stream());
                    let First { answer, call } = first;
                    let mut call = Some(call);
                    let _ = answer.send(resumable(&stream, session.terms.revision));
                    stream.push(&message).await;
                    while let Some(message) = pump.message().await {
                        call = call.filter(|_| !pump.is_over());
                        stream.push(&message).await;
                    }
                    return;
                }
                Step::Message(_) => {}
            }
        }
    }

    fn legacy_notification(&self, session: &Arc<Session>, said: &Notification) {
        match &said.method {
            Method::NotificationsCancelled => {
                if let Some(id) = said.params.bytes("requestId").and_then(|id| IdValue::read(&id)) {
                    session.cancel(&id);
                }
            }
            Method::NotificationsProgress => question::progressed(session, said),
            Method::NotificationsRootsListChanged if session.roots.changed() => {
                let (exchange, session) = (self.clone(), Arc::clone(session));
                tokio::spawn(async move {
                    tokio::select! {
                        () = tell_of_roots(exchange, &session) => {}
                        () = session.ended() => {}
                    }
                });
            }
            _ => {}
        }
    }

    /// The requests of a batch, some side by side; one array of their responses, written as they come (2025-03-26,
    /// basic).
    pub(super) async fn legacy_batch(self, session: Arc<Session>, messages: Vec<Message>) -> Answer {
        // No streams inside a batch: what comes before a response has no place in the array.
        let mut headers = (*self.headers).clone();
        headers.insert(http::header::ACCEPT, HeaderValue::from_static("application/json"));
        let exchange = Self { headers: Arc::new(headers), ..self };
        let answers = futures_util::stream::iter(messages)
            .map(move |message| Box::pin(exchange.clone().legacy(Arc::clone(&session), message)))
            .buffered(SIDE_BY_SIDE);
        gathered(answers).await
    }

    /// A GET: the session's own stream, or one that is taken up again.
    pub(super) fn get(self) -> Answer {
        if !self.headers.contains_key(SESSION_ID) {
            return self.refused("verb", web::method_not_allowed("POST"));
        }
        let session = match self.session() {
            Ok(session) => session,
            Err(missing) => return self.without_session(missing, None),
        };
        if let Err(fault) = of_session(&self.headers) {
            return self.refuse(&fault, Era::Legacy, None);
        }
        if !web::accepts(&self.headers, "text/event-stream") {
            let answer = web::refuse(StatusCode::NOT_ACCEPTABLE, "Accept must name text/event-stream");
            return self.refused("media_type", answer);
        }
        let last = self.headers.get("last-event-id").map(HeaderValue::to_str);
        let (stream, after) = match last {
            None => (Arc::clone(&session.outbox), session.outbox.unread_from()),
            Some(last) => match last.ok().and_then(|last| session.resume(last)) {
                Some(found) => found,
                None => {
                    // Not 404: that would be said of the session.
                    let message = "Last-Event-ID names no event that this session was sent";
                    return self.refused("unknown_event", web::refuse(StatusCode::BAD_REQUEST, message));
                }
            },
        };
        let open = self.gateway.shell.metrics.stream(&self.gateway.label);
        let events = stream.read(after).map(move |event| {
            let _counted = &open;
            Ok(event)
        });
        web::events(web::kept_alive(events))
    }

    /// A DELETE ends the session.
    pub(super) fn delete(self) -> Answer {
        let Some(id) = web::single(&self.headers, &SESSION_ID) else {
            return self.refused("verb", web::method_not_allowed("POST"));
        };
        if let Err(fault) = of_session(&self.headers) {
            return self.refuse(&fault, Era::Legacy, None);
        }
        if self.gateway.sessions.remove(id, &self.caller.principal) {
            return web::status(StatusCode::OK);
        }
        self.without_session(NoSession::Unknown, None)
    }
}

/// The beginning of a legacy call's answer, and its place among the session's calls.
struct First {
    answer: oneshot::Sender<Answer>,
    call: Call,
}

impl First {
    /// The beginning is all of it. The id is free before the client can know that: it may use it again at once.
    fn finish(self, answer: Answer) {
        drop(self.call);
        // Whoever asked may be gone: then nobody is told.
        let _ = self.answer.send(answer);
    }
}

/// A stream that ends with its call, however that ends.
struct Closing(Arc<EventStream>);

impl std::ops::Deref for Closing {
    type Target = Arc<EventStream>;

    fn deref(&self) -> &Arc<EventStream> {
        &self.0
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The bodies of these answers as one JSON array, without those that say nothing: notifications, and calls that were
/// cancelled. Where none says anything there is no array (JSON-RPC 2.0, 6).
async fn gathered(answers: impl Stream<Item = Answer> + Send + 'static) -> Answer {
    let bodies = answers.map(Answer::into_body).filter(|body| ready(!body.is_end_stream()));
    let mut bodies = Box::pin(bodies);
    let Some(first) = bodies.next().await else { return web::status(StatusCode::ACCEPTED) };
    let piece = |text: &'static [u8]| once(ready(Ok(Bytes::from_static(text))));
    let others = bodies.flat_map(move |body| piece(b",").chain(BodyDataStream::new(body)));
    web::json_stream(piece(b"[").chain(BodyDataStream::new(first)).chain(others).chain(piece(b"]")))
}

/// The stream of a call, primed where the revision knows how to resume one that broke before its first event.
fn resumable(stream: &Arc<EventStream>, revision: Revision) -> Answer {
    let priming = (revision >= Revision::V2025_11_25).then(|| stream.priming());
    let events = futures_util::stream::iter(priming).chain(stream.read(0));
    web::events(web::kept_alive(events.map(Ok)))
}

/// Says to every server of the session that the client's roots changed; it is not charged, so a client that says it
/// without end costs each server one message at a time, and the slowest sets the pace.
async fn tell_of_roots(mut exchange: Exchange, session: &Session) {
    loop {
        let said = exchange.view.config.attached.iter().map(|attached| {
            // A server whose session is gone learns the roots when it has one again.
            let notice = &Method::NotificationsRootsListChanged;
            tokio::time::timeout(ROOTS_TIME, attached.upstream.notify(&session.link, notice, b""))
        });
        join_all(said).await;
        if !session.roots.told() || !exchange.refresh() {
            return;
        }
    }
}

/// An answer to a server's question; one that nobody waits for is taken and dropped.
async fn legacy_response(session: &Session, response: &Response) -> Answer {
    if let Some(asked) = response.id.as_ref().and_then(|id| session.answered(id)) {
        let message = answer::readdressed(response, &asked.id);
        if asked.answerer.send(message).await.is_err() {
            tracing::debug!("a server was gone before its question was answered");
        }
    }
    web::status(StatusCode::ACCEPTED)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn text(answers: Vec<Answer>) -> (StatusCode, Bytes) {
        let (head, body) = gathered(futures_util::stream::iter(answers)).await.into_parts();
        (head.status, body.collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn what_says_nothing_has_no_place_in_a_batchs_array() {
        let said = |text: &'static str| web::json(StatusCode::OK, [Bytes::from_static(text.as_bytes())]);
        let silent = || [web::no_events(), web::status(StatusCode::ACCEPTED)];
        let streamed = web::json_stream(once(ready(Ok(Bytes::from_static(b"3")))));
        let [cancelled, notified] = silent();
        let [last, other] = silent();
        let answers = vec![cancelled, said("1"), notified, said("2"), streamed, last, other];
        assert_eq!(text(answers).await, (StatusCode::OK, Bytes::from_static(b"[1,2,3]")));
        assert_eq!(text(silent().into()).await, (StatusCode::ACCEPTED, Bytes::new()));
    }
}
