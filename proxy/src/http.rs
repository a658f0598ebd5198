//! The HTTP side of a request: what may come in, and the forms in which answers go out.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::{BoxStream, unfold};
use futures_util::{Stream, StreamExt};
use http::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderName, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use mcpmesh_ir::gateway::Listener;

use crate::mcp::envelope::Id;
use crate::mcp::era::Era;
use crate::mcp::fault::Fault;
use crate::mcp::sse;
use crate::workers;

/// A pause in an event stream after which a comment is sent.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(15);

/// Bytes of a request that is already answered which are read all the same.
const UNWANTED: u64 = 16 << 20;
/// How long that may take.
const UNWANTED_TIME: std::time::Duration = std::time::Duration::from_secs(5);
/// The longest pause in it.
const UNWANTED_PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// What ends a body early.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// An answer's body: shared bytes of known length, or a stream.
pub struct Payload(Inner);

enum Inner {
    Chunks { chunks: VecDeque<Bytes>, left: u64 },
    Stream(BoxStream<'static, Result<Bytes, BodyError>>),
}

impl Payload {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self::chunks([])
    }

    /// Shared bytes, sent without being joined.
    pub fn chunks(chunks: impl IntoIterator<Item = Bytes>) -> Self {
        let chunks: VecDeque<_> = chunks.into_iter().filter(|chunk| !chunk.is_empty()).collect();
        let left = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        Self(Inner::Chunks { chunks, left })
    }

    /// A body whose length is not known.
    pub fn stream(stream: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> Self {
        Self(Inner::Stream(Box::pin(stream)))
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Inner::Chunks { chunks, left } => {
                let next = chunks.pop_front();
                *left -= next.as_ref().map_or(0, |chunk| chunk.len() as u64);
                Poll::Ready(next.map(|chunk| Ok(Frame::data(chunk))))
            }
            Inner::Stream(stream) => {
                stream.as_mut().poll_next(cx).map(|next| next.map(|chunk| chunk.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.0, Inner::Chunks { left: 0, .. })
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Chunks { left, .. } => SizeHint::with_exact(*left),
            Inner::Stream(_) => SizeHint::default(),
        }
    }
}

/// An answer.
pub type Answer = Response<Payload>;

/// An answer without a body.
#[must_use]
pub fn status(status: StatusCode) -> Answer {
    let mut answer = Response::new(Payload::empty());
    *answer.status_mut() = status;
    answer
}

/// A JSON body.
pub fn json(code: StatusCode, chunks: impl IntoIterator<Item = Bytes>) -> Answer {
    let mut answer = Response::new(Payload::chunks(chunks));
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// Reads what is left of a request that is answered already and throws it away: a connection that is closed before all
/// is read may take the answer with it. Within bounds; a client that sends nothing more has its answer half a
/// second later.
pub async fn discard(mut body: impl Body<Data = Bytes> + Unpin) {
    if body.is_end_stream() {
        return;
    }
    let mut left = UNWANTED;
    let rest = async {
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(UNWANTED_PAUSE, body.frame()).await {
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            match left.checked_sub(length.max(body.size_hint().lower())) {
                Some(_) => left -= length,
                None => return,
            }
            // All of it may lie there already.
            workers::give_way().await;
        }
    };
    // What is over then is closed.
    let _ = tokio::time::timeout(UNWANTED_TIME, rest).await;
}

/// A JSON body that is still arriving.
pub fn json_stream(stream: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> Answer {
    let mut answer = Response::new(Payload::stream(stream));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// A stream of server-sent events, which no proxy on the way should hold back.
pub fn events(stream: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> Answer {
    let mut answer = Response::new(Payload::stream(stream));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    answer
}

/// A stream of server-sent events that is over: of a request to which nothing may be said.
#[must_use]
pub fn no_events() -> Answer {
    let mut answer = events(futures_util::stream::empty());
    *answer.body_mut() = Payload::empty();
    answer
}

/// Fills the pauses of an event stream with comments, so that nothing on the way closes it.
pub fn kept_alive(
    events: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static {
    unfold(Box::pin(events), |mut events| async move {
        let next = match tokio::time::timeout(KEEP_ALIVE, events.next()).await {
            Ok(next) => next?,
            Err(_) => Ok(Bytes::from_static(sse::KEEP_ALIVE)),
        };
        Some((next, events))
    })
}

/// An error, for a request whose answer has not begun.
#[must_use]
pub fn fault(fault: &Fault, era: Era, id: Option<&Id>) -> Answer {
    let rendered = fault.render(era, id);
    let mut answer = Response::new(Payload::chunks([rendered.body]));
    *answer.status_mut() = rendered.status;
    *answer.headers_mut() = rendered.headers;
    answer
}

/// A refusal before there is a message: a JSON-RPC error without an id.
#[must_use]
pub fn refuse(code: StatusCode, message: &str) -> Answer {
    let body = serde_json::json!({
        "jsonrpc": "2.0",
        "error": {"code": -32600, "message": message, "data": {"source": "gateway"}},
    });
    json(code, [Bytes::from(body.to_string())])
}

/// 401 with the challenge that RFC 6750 asks for.
#[must_use]
pub fn unauthorized(message: &str, invalid: bool) -> Answer {
    let mut answer = refuse(StatusCode::UNAUTHORIZED, message);
    let challenge = if invalid { "Bearer error=\"invalid_token\"" } else { "Bearer" };
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    answer
}

/// The answer to a verb that means nothing here.
pub fn method_not_allowed(allow: &'static str) -> Answer {
    let mut answer = status(StatusCode::METHOD_NOT_ALLOWED);
    answer.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static(allow));
    answer
}

/// Refuses foreign origins and any `host` ([`host`]) that is not served (DNS rebinding, cross-site requests) before
/// anything is read; says why, for the metrics.
pub fn check_origin(
    headers: &HeaderMap,
    host: &str,
    listener: &Listener,
    local: IpAddr,
) -> Result<(), (&'static str, Answer)> {
    let named = listener.hostname.as_deref().map(|name| name.eq_ignore_ascii_case(host));
    let known = named.unwrap_or(!local.is_loopback()) || (local.is_loopback() && is_loopback(host));
    if !known || headers.get_all(HOST).iter().nth(1).is_some() {
        return Err(("foreign_host", refuse(StatusCode::FORBIDDEN, "this Host is not served here")));
    }
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else { return Ok(()) };
    let allowed = origins.next().is_none()
        && origin.to_str().is_ok_and(|origin| {
            let from = origin.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
            listener.allowed_origins.iter().any(|allowed| allowed == origin)
                || from.is_some_and(|from| from.eq_ignore_ascii_case(host) || is_loopback(&from))
        });
    if allowed {
        return Ok(());
    }
    Err(("foreign_origin", refuse(StatusCode::FORBIDDEN, "this Origin is not allowed here")))
}

/// What a browser may send across sites without asking is never taken: the content type must be JSON.
pub fn check_media(headers: &HeaderMap) -> Result<(), Answer> {
    let content = single(headers, &CONTENT_TYPE).unwrap_or_default();
    if !media(content.as_bytes()).eq_ignore_ascii_case(b"application/json") {
        return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json"));
    }
    if headers.contains_key(http::header::CONTENT_ENCODING) {
        return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Encoding is not taken"));
    }
    if accepts(headers, "application/json") || accepts(headers, "text/event-stream") {
        return Ok(());
    }
    Err(refuse(StatusCode::NOT_ACCEPTABLE, "Accept must name application/json and text/event-stream"))
}

/// Whether the client takes this media type; without an Accept header it takes everything. What speaks of the type most
/// closely counts, and a weight of nothing refuses it (RFC 9110, 12.5.1).
#[must_use]
pub fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    let family = wanted.split('/').next().unwrap_or_default();
    let mut given = headers.get_all(ACCEPT).iter().map(HeaderValue::as_bytes).peekable();
    if given.peek().is_none() {
        return true;
    }
    let closeness = |one: &[u8]| match one {
        b"*/*" => Some(0),
        one if one.eq_ignore_ascii_case(wanted.as_bytes()) => Some(2),
        one => one.strip_suffix(b"/*").filter(|kind| kind.eq_ignore_ascii_case(family.as_bytes())).map(|_| 1),
    };
    let ranges = given.flat_map(|value| value.split(|byte| *byte == b','));
    let spoken = ranges.filter_map(|range| Some((closeness(media(range))?, !is_refused(range))));
    spoken.max().is_some_and(|(_, taken)| taken)
}

/// `q=0`, with or without zeros behind a point.
fn is_refused(range: &[u8]) -> bool {
    range.split(|byte| *byte == b';').skip(1).map(<[u8]>::trim_ascii).any(|parameter| match parameter {
        [b'q' | b'Q', b'=', b'0'] => true,
        [b'q' | b'Q', b'=', b'0', b'.', zeros @ ..] => zeros.iter().all(|digit| *digit == b'0'),
        _ => false,
    })
}

fn media(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

/// The value of a header that stands once.
#[must_use]
pub fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

/// The host that a request names, without its port.
#[must_use]
pub fn host<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    uri.host().or_else(|| single(headers, &HOST).and_then(host_of))
}

fn host_of(authority: &str) -> Option<&str> {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(host, _)| host),
        None => authority.split(':').next(),
    }
}

/// Whether a host name or address is this machine's own.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests;
