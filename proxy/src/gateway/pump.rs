//! From an upstream's reply to the client's answer: one message after the other, each rewritten for this client.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{BoxStream, unfold};
use futures_util::{FutureExt, StreamExt};
use http::StatusCode;
use http::header::RETRY_AFTER;

use super::answer;
use super::plan::Asker;
use super::question::{self, Question};
use super::record::Record;
use super::session_task::Hears;
use crate::catalog::View;
use crate::http::{self as web, Answer, BodyError};
use crate::mcp::downgrade;
use crate::mcp::envelope::{Id, Method};
use crate::mcp::era::{Era, Revision};
use crate::mcp::fault::{Fault, METHOD_NOT_FOUND, MISSING_CAPABILITY, URL_ELICITATION_REQUIRED};
use crate::mcp::json;
use crate::mcp::meta::LogLevel;
use crate::mcp::rewrite::{
    Malformed, Outcome, Rewriter, Rules, UriWrap, cut_completion, rewrite_progress, rewrite_whole,
    splice_path,
};
use crate::mcp::sse;
use crate::session::Session;
use crate::upstream::{self, Body, Event, Kind, Reply};
use crate::workers;

/// Bytes of a response that are read before it is taken for none that asks the client something.
const LONGEST_QUESTION: usize = 64 << 10;

/// A response as it comes.
type Pieces = BoxStream<'static, Result<Bytes, upstream::Error>>;

/// See the module. Boxed from the start: it is handed on by value.
pub(super) struct Pump {
    reply: Reply,
    rules: Rules,
    method: Method,
    token: Option<Bytes>,
    /// The last progress that was told.
    progress: Option<f64>,
    log_level: Option<LogLevel>,
    session: Option<Arc<Session>>,
    hears: Option<Hears>,
    /// Whether the client reads more than a response.
    streams: bool,
    record: Record,
    /// Keeps the snapshot that the request began with until its last byte.
    _view: Arc<View>,
    over: bool,
}

/// What comes next for the client.
pub(super) enum Step {
    /// A message before the response.
    Message(Bytes),
    /// The response.
    Response(Body),
    /// No response will come.
    Failed(Fault),
}

impl Pump {
    pub(super) fn new(
        reply: Reply,
        mut rules: Rules,
        asker: &Asker,
        (method, token): (Method, Option<Bytes>),
        (record, view): (Record, Arc<View>),
    ) -> Box<Self> {
        rules.upstream = reply.era();
        rules.asked = Some(reply.upstream_id());
        Box::new(Self {
            reply,
            rules,
            method,
            token,
            progress: None,
            log_level: asker.log_level,
            session: asker.session.clone(),
            hears: None,
            streams: asker.streams,
            record,
            _view: view,
            over: false,
        })
    }

    /// Updates of resources belong to sessions: without one nothing passes.
    pub(super) fn hears(&mut self, hears: Hears) {
        self.hears = Some(hears);
    }

    fn target(&self) -> Revision {
        self.rules.target
    }

    pub(super) fn id(&self) -> &Id {
        &self.rules.id
    }

    /// The next message or the end.
    pub(super) async fn step(&mut self) -> Step {
        loop {
            self.record.waits();
            let next = self.reply.next().await;
            self.record.heard();
            match next {
                Some(Ok(Event::Notification { method, raw })) => {
                    if let Some(message) = self.notification(&method, &raw) {
                        return Step::Message(message);
                    }
                }
                Some(Ok(Event::Request { id, method, raw })) => {
                    if let Some(message) = Box::pin(self.question(id, &method, &raw)).await {
                        return Step::Message(message);
                    }
                }
                Some(Ok(Event::Response(body))) => return Step::Response(body),
                Some(Err(error)) => return Step::Failed(fault_of(&error, self.record.server())),
                None => return Step::Failed(Fault::Upstream("the server ended without an answer".into())),
            }
        }
    }

    /// Only what this request asked for passes: progress under its own token, log messages at its level.
    fn notification(&mut self, method: &Method, raw: &Bytes) -> Option<Bytes> {
        match method {
            Method::NotificationsProgress => {
                // The upstream was given its own id of the call as the token: another is another call's, or made up.
                let params = json::member(raw, "params")?;
                let token = json::member(params, "progressToken")?;
                let own = token == self.reply.upstream_id().to_string().as_bytes();
                let token = self.token.as_ref().filter(|_| own)?;
                let at = std::str::from_utf8(json::member(params, "progress")?).ok()?.parse().ok()?;
                // It increases with each notification (2026-07-28, basic/patterns/progress).
                if self.progress.is_some_and(|before| at <= before) {
                    return None;
                }
                self.progress = Some(at);
                rewrite_progress(raw, token)
            }
            Method::NotificationsMessage => {
                let wanted = match (self.target().era(), self.log_level) {
                    (_, Some(wanted)) => wanted,
                    (Era::Legacy, None) => LogLevel::Debug,
                    (Era::Modern, None) => return None,
                };
                let level = json::member(json::member(raw, "params")?, "level").and_then(json::text);
                let level = LogLevel::parse(&level?)?;
                let prefix = self.rules.uris.as_ref().map(|wrap| wrap.prefix.as_ref());
                (level >= wanted).then(|| logged(raw, prefix))
            }
            Method::NotificationsCancelled => {
                question::withdrawn(self.session.as_ref()?, &self.reply.answerer()?, raw)
            }
            Method::NotificationsElicitationComplete => question::completed(self.session.as_ref()?, raw),
            Method::NotificationsResourcesUpdated => self.hears.as_ref()?.updated(raw),
            _ => None,
        }
    }

    /// A server's question in the middle of a call goes to the client of its session, under an id of ours. A client
    /// without one, or that reads no stream, cannot be asked: the server is told so at once.
    async fn question(&mut self, id: Id, method: &Method, raw: &Bytes) -> Option<Bytes> {
        let answerer = self.reply.answerer()?;
        let put = match &self.session {
            Some(session) if self.streams => {
                let question = Question { id, method, raw, answerer: answerer.clone() };
                question.put(session, self.rules.uris.clone())
            }
            _ => Err(question::nobody(&id)),
        };
        match put {
            Ok(message) => Some(message),
            Err(refusal) => {
                // The upstream notices by itself when it is gone.
                let _ = answerer.send(refusal).await;
                None
            }
        }
    }

    /// The response whole, as the client reads it.
    pub(super) async fn whole(&mut self, body: Body) -> (Bytes, StatusCode) {
        self.record.waits();
        let collected = body.collect().await;
        self.record.heard();
        let raw = match collected {
            Ok(raw) => raw,
            Err(error) => return self.fails(&error),
        };
        let rules = self.rules.clone();
        match workers::read(raw.len(), move || rewrite_whole(&raw, rules)).await {
            Ok((bytes, outcome)) => self.finished(bytes, &outcome).await,
            Err(bad) => self.refused(bad),
        }
    }

    /// What the client gets in place of a response that is not for it.
    fn refused(&mut self, bad: Malformed) -> (Bytes, StatusCode) {
        let urls = bad == Malformed::Code(URL_ELICITATION_REQUIRED) && self.rules.upstream == Era::Legacy;
        if urls && self.target().era() == Era::Legacy {
            let server = self.record.server();
            tracing::warn!(
                server,
                "a server wants a URL opened by a client that did not declare that it opens any"
            );
            return self.in_words(
                "This call needs the user to open a URL first (elicitation in url mode), which this client did \
                 not declare that it can.",
            );
        }
        let fault = unusable(bad, self.record.server());
        self.failed(&fault)
    }

    async fn finished(&mut self, bytes: Bytes, outcome: &Outcome) -> (Bytes, StatusCode) {
        self.over = true;
        if self.is_translated() {
            if outcome.result_type.as_deref() == Some("input_required") {
                return self.in_words(&across_eras("an answer from the user"));
            }
            if outcome.error_code == Some(MISSING_CAPABILITY) {
                return self.in_words(&across_eras(&required(&bytes)));
            }
        }
        let status = self.status_of(outcome);
        self.record.answered(outcome, status);
        let bytes = if self.method == Method::CompletionComplete { cut_completion(&bytes) } else { bytes };
        let target = self.target();
        let bytes = if downgrade::is_needed(target) {
            workers::read(bytes.len(), move || downgrade::response(&bytes, target)).await
        } else {
            bytes
        };
        (bytes, status)
    }

    /// The response is sent on as it comes.
    fn is_forwarded(&self) -> bool {
        !self.is_translated() && !self.is_rewritten()
    }

    /// The response is sent on as it comes once it is no question.
    fn is_looked_at(&self) -> bool {
        self.is_translated() && !self.is_rewritten()
    }

    /// The response is made anew.
    fn is_rewritten(&self) -> bool {
        self.method == Method::CompletionComplete || downgrade::is_needed(self.target())
    }

    /// What has begun to be sent on cannot become a question that this client does not understand.
    fn judge(&self, rewriter: &Rewriter) -> Result<(), Malformed> {
        let asks = rewriter.outcome().result_type.as_deref() == Some("input_required");
        if self.is_translated() && asks { Err(Malformed::ResultType) } else { Ok(()) }
    }

    fn is_translated(&self) -> bool {
        self.target().era() == Era::Legacy && self.rules.upstream == Era::Modern
    }

    /// What a server needs of a legacy client that cannot be asked for it: said in the form that a model reads.
    fn in_words(&mut self, text: &str) -> (Bytes, StatusCode) {
        self.over = true;
        self.record.done("upstream_error");
        if self.method != Method::ToolsCall {
            let fault = Fault::Upstream(text.to_owned().into());
            return (fault.to_body(Era::Legacy, Some(self.id())), StatusCode::OK);
        }
        let content =
            serde_json::json!({"content": [{"type": "text", "text": text}], "isError": true}).to_string();
        let members = Bytes::from(content.trim_start_matches('{').trim_end_matches('}').to_owned());
        (Bytes::from(answer::result(self.id(), Era::Legacy, [members]).concat()), StatusCode::OK)
    }

    fn status_of(&self, outcome: &Outcome) -> StatusCode {
        match (self.target().era(), outcome.error_code) {
            (Era::Modern, Some(METHOD_NOT_FOUND)) => StatusCode::NOT_FOUND,
            (Era::Modern, Some(MISSING_CAPABILITY)) => StatusCode::BAD_REQUEST,
            _ => StatusCode::OK,
        }
    }

    /// The answer that is an error of ours: with a header that says when to come again, where that is known.
    pub(super) fn fail(&mut self, fault: &Fault) -> Answer {
        let (bytes, status) = self.failed(fault);
        let mut answer = web::json(status, [bytes]);
        if let Some(wait) = fault.retry_after_header() {
            answer.headers_mut().insert(RETRY_AFTER, wait);
        }
        answer
    }

    fn fails(&mut self, error: &upstream::Error) -> (Bytes, StatusCode) {
        let fault = fault_of(error, self.record.server());
        self.failed(&fault)
    }

    /// An error of ours in place of a response.
    pub(super) fn failed(&mut self, fault: &Fault) -> (Bytes, StatusCode) {
        self.over = true;
        let era = self.target().era();
        let status = fault.status(era);
        self.record.failed(fault, status.as_u16());
        (fault.to_body(era, Some(self.id())), status)
    }

    /// What has begun to be sent on breaks off.
    fn broken(&mut self, error: BodyError) -> BodyError {
        self.record.failed(&malformed(), StatusCode::OK.as_u16());
        error
    }

    /// The answer to a response that comes first: streamed unread when it is long, else whole.
    pub(super) async fn answer(mut self: Box<Self>, body: Body) -> Answer {
        match body {
            Body::Stream(stream) if self.is_forwarded() => self.answer_stream(stream.boxed()).await,
            Body::Stream(stream) if self.is_looked_at() => self.answer_looked_at(stream.boxed()).await,
            body => {
                let (bytes, status) = self.whole(body).await;
                web::json(status, [bytes])
            }
        }
    }

    /// A response that may turn out to be a question: one that is longer than any question is sent on as it comes.
    async fn answer_looked_at(mut self: Box<Self>, mut stream: Pieces) -> Answer {
        let (mut chunks, mut read) = (Vec::new(), 0);
        while read <= LONGEST_QUESTION {
            match self.piece(&mut stream).await {
                Some(Ok(chunk)) => {
                    read += chunk.len();
                    chunks.push(chunk);
                }
                Some(Err(error)) => {
                    let (bytes, status) = self.fails(&error);
                    return web::json(status, [bytes]);
                }
                None => {
                    let (bytes, status) = self.whole(Body::Whole(chunks.concat().into())).await;
                    return web::json(status, [bytes]);
                }
            }
        }
        let begun = futures_util::stream::iter(chunks.into_iter().map(Ok));
        self.answer_stream(begun.chain(stream).boxed()).await
    }

    async fn answer_stream(mut self: Box<Self>, mut stream: Pieces) -> Answer {
        let mut rewriter = Rewriter::new(self.rules.clone());
        let mut pieces = Vec::new();
        let first = match self.piece(&mut stream).await {
            Some(Ok(chunk)) => {
                let read = rewriter.feed_bytes(&chunk, &mut pieces).and_then(|()| self.judge(&rewriter));
                read.map_err(|bad| self.refused(bad))
            }
            Some(Err(error)) => Err(self.fails(&error)),
            None => Err(self.failed(&Fault::Upstream("the server's response is empty".into()))),
        };
        if let Err((bytes, status)) = first {
            return web::json(status, [bytes]);
        }
        match stream.next().now_or_never() {
            Some(None) => match rewriter.finish() {
                Ok(outcome) => {
                    self.over = true;
                    let status = self.status_of(&outcome);
                    self.record.answered(&outcome, status);
                    web::json(status, pieces)
                }
                Err(bad) => {
                    let (bytes, status) = self.refused(bad);
                    web::json(status, [bytes])
                }
            },
            // Nothing has been sent yet.
            Some(Some(Err(error))) => {
                let (bytes, status) = self.fails(&error);
                web::json(status, [bytes])
            }
            ahead => web::json_stream(
                Streamed { pump: self, rewriter, stream, ahead: ahead.flatten() }.run(pieces),
            ),
        }
    }

    /// The next piece of a response that streams.
    async fn piece(&mut self, stream: &mut Pieces) -> Option<Result<Bytes, upstream::Error>> {
        self.record.waits();
        let piece = stream.next().await;
        self.record.heard();
        piece
    }

    /// Everything from `first` on as server-sent events; the response ends the stream.
    pub(super) fn events(self: Box<Self>, first: Bytes) -> Answer {
        let state = (self, Some(first));
        web::events(web::kept_alive(unfold(state, |(mut pump, first)| async move {
            if let Some(first) = first {
                return Some((Ok(sse::encode(Some("message"), None, &first)), (pump, None)));
            }
            let message = pump.message().await?;
            Some((Ok(sse::encode(Some("message"), None, &message)), (pump, None)))
        })))
    }

    /// The response has been given.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// The next message, the response included; none after it.
    pub(super) async fn message(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        Some(match self.step().await {
            Step::Message(message) => message,
            Step::Response(body) => self.whole(body).await.0,
            Step::Failed(fault) => self.failed(&fault).0,
        })
    }
}

/// A response on its way through.
struct Streamed {
    pump: Box<Pump>,
    rewriter: Rewriter,
    stream: Pieces,
    ahead: Option<Result<Bytes, upstream::Error>>,
}

impl Streamed {
    /// Yields `pieces`, then the rest. What breaks off upstream breaks off here: a client never takes a part for all.
    fn run(
        self,
        pieces: Vec<Bytes>,
    ) -> impl futures_util::Stream<Item = Result<Bytes, BodyError>> + Send + 'static {
        let chunks = unfold(Some(self), |state| async move {
            let mut state = state?;
            let next = match state.ahead.take() {
                Some(ahead) => Some(ahead),
                None => state.pump.piece(&mut state.stream).await,
            };
            let mut pieces = Vec::new();
            match next {
                Some(Ok(chunk)) => match state.feed(&chunk, &mut pieces) {
                    Ok(()) => Some((Ok(pieces), Some(state))),
                    Err(bad) => Some((Err(state.pump.broken(bad.into())), None)),
                },
                Some(Err(error)) => Some((Err(state.pump.broken(error.into())), None)),
                None => match state.rewriter.finish() {
                    Ok(outcome) => {
                        state.pump.record.answered(&outcome, StatusCode::OK);
                        None
                    }
                    Err(bad) => Some((Err(state.pump.broken(bad.into())), None)),
                },
            }
        });
        let pieces = futures_util::stream::iter([Ok(pieces)]).chain(chunks);
        pieces.flat_map(|chunk| {
            futures_util::stream::iter(match chunk {
                Ok(pieces) => pieces.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            })
        })
    }

    fn feed(&mut self, chunk: &Bytes, pieces: &mut Vec<Bytes>) -> Result<(), Malformed> {
        self.rewriter.feed_bytes(chunk, pieces)?;
        self.pump.judge(&self.rewriter)
    }
}

/// A question of a modern server to a legacy client, which is not translated yet.
fn across_eras(needed: &str) -> String {
    format!(
        "This call needs {needed} that this client and server cannot exchange: the server speaks MCP 2026-07-28, the \
         client an older revision."
    )
}

/// What a client is told of a response that is not for it.
fn unusable(bad: Malformed, server: &str) -> Fault {
    tracing::warn!(server, %bad, "an upstream's response cannot be forwarded");
    let text = match bad {
        Malformed::Code(URL_ELICITATION_REQUIRED) => {
            "the server wants the user to open a URL, which cannot be asked"
        }
        Malformed::Code(MISSING_CAPABILITY) => "the server needs what this client cannot be asked for",
        Malformed::Code(_) => "the server does not understand how the gateway speaks to it",
        Malformed::ResultType => "the server's response is of a kind that this request cannot have",
        Malformed::NothingAsked => "the server wants an answer and does not say to what",
        Malformed::Undeclared => "the server asks for what this client did not declare",
        Malformed::Id => "the server's response is to another request",
        _ => return malformed(),
    };
    Fault::Upstream(text.into())
}

/// The capabilities that an error -32021 names, in words of ours.
fn required(error: &[u8]) -> String {
    let names = ["error", "data", "requiredCapabilities"]
        .iter()
        .try_fold(error, |object, name| json::member(object, name))
        .and_then(json::members)
        .unwrap_or_default();
    let known = ["elicitation", "sampling", "roots", "extensions"];
    let named: Vec<_> =
        known.into_iter().filter(|known| names.iter().any(|(name, _)| name == known)).collect();
    match named.is_empty() {
        true => "something of the client".to_owned(),
        false => format!("something of the client ({})", named.join(", ")),
    }
}

fn malformed() -> Fault {
    Fault::Upstream("the server's response is malformed".into())
}

/// `notifications/message` whose logger says which server's it is, where names do.
pub(super) fn logged(raw: &Bytes, prefix: Option<&str>) -> Bytes {
    let Some(prefix) = prefix else { return raw.clone() };
    let logger = json::member(raw, "params").and_then(|params| json::member(params, "logger"));
    let logger = match logger.and_then(json::text) {
        Some(logger) => answer::text(&format!("{prefix}/{logger}")),
        None => answer::text(prefix),
    };
    splice_path(raw, &["params", "logger"], &logger).unwrap_or_else(|| raw.clone())
}

/// `notifications/resources/updated` with the client's URI.
pub(super) fn updated(raw: &Bytes, wrap: Option<&str>) -> Option<Bytes> {
    match wrap {
        Some(prefix) => UriWrap { prefix: prefix.into() }.wrap_updated(raw),
        None => Some(raw.clone()),
    }
}

/// What a client is told of an upstream's failure: its kind, never its words.
pub(super) fn fault_of(error: &upstream::Error, server: &str) -> Fault {
    match &error.kind {
        Kind::CircuitOpen | Kind::Overloaded | Kind::Crowded | Kind::NoInstance => {
            Fault::Unavailable { message: error.to_string().into(), retry_after: error.retry_after }
        }
        Kind::Status(429) => Fault::Throttled { retry_after: error.retry_after },
        // A page in between that says nothing of time may stand for anything.
        Kind::Status(503) if error.retry_after.is_some() => {
            Fault::Unavailable { message: error.to_string().into(), retry_after: error.retry_after }
        }
        Kind::Connect(what) => {
            tracing::warn!(server, %what, "a server cannot be reached");
            Fault::Upstream("the server cannot be reached".into())
        }
        _ => Fault::Upstream(error.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_can_try_again_is_503_with_a_time() {
        let time = std::time::Duration::from_secs(7);
        for kind in [Kind::CircuitOpen, Kind::Overloaded, Kind::Crowded, Kind::NoInstance] {
            let fault = fault_of(
                &upstream::Error { kind, executed: false, retry_after: Some(time), explanation: None },
                "ns/s",
            );
            assert!(
                matches!(fault, Fault::Unavailable { retry_after: Some(after), .. } if after == time),
                "{fault:?}"
            );
        }
    }
}
