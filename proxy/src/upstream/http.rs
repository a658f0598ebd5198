//! HTTP towards one upstream: connections pooled, requests built from nothing of the caller's but
//! the body, answers told apart by what they are and left unread where they can be.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
};
use http::{HeaderMap, Method as Verb, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use mcpmesh_ir::EgressRule;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::clients::Clients;
use super::config::{Config, Timeouts};
use super::egress::Guarded;
use super::error::{Error, Explanation, Kind};
use super::events::EventStream;
use super::inbox::Inbox;
use super::service::{Place, Service};
use super::{tls, wire};
use crate::identity::assertion;
use crate::mcp::era::{PROTOCOL_VERSION, Revision, SESSION_ID};
use crate::mcp::meta::TraceContext;

/// `Last-Event-ID`
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Most bytes of an error's body that are read.
const MAX_REFUSAL: usize = 64 << 10;
/// Headers that each request has besides: its media types, host, length, observer.
const ADDED: usize = 5;
/// The longest that a server may tell its callers to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Redirects that are followed.
const MAX_REDIRECTS: usize = 3;

/// The client of one upstream.
pub(crate) struct Http {
    reach: Reach,
    target: ArcSwap<Target>,
    headers: HeaderMap,
    pub(crate) timeouts: Timeouts,
    pub(crate) max_bytes: usize,
}

/// How requests get there.
#[derive(Clone)]
enum Reach {
    /// Where the URL says.
    Url(Arc<Clients<HttpsConnector<Guarded>>>),
    /// Any address of a Service.
    Service(Arc<Service>),
    /// One of them, for all that belongs together.
    Place(Arc<Place>),
}

/// A URL in both of its forms: the one is for reading, the other for sending.
struct Target {
    url: Url,
    uri: Uri,
    /// Written once, not for each request. None with TLS: HTTP/2, which that may lead to, has no such header.
    host: Option<HeaderValue>,
}

impl Target {
    fn new(mut url: Url) -> Result<Self, Error> {
        url.set_fragment(None);
        let uri: Uri = url.as_str().parse().map_err(|_| Error::connect("the URL cannot be used"))?;
        let host = match (url.scheme(), url.host_str(), url.port()) {
            ("http", Some(host), None) => HeaderValue::from_str(host).ok(),
            ("http", Some(host), Some(port)) => HeaderValue::from_str(&format!("{host}:{port}")).ok(),
            _ => None,
        };
        Ok(Self { url, uri, host })
    }
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither headers nor the URL's query or user: they may be secrets.
        f.debug_struct("Http").field("host", &self.target.load().url.host_str()).finish_non_exhaustive()
    }
}

impl Http {
    pub(crate) fn new(config: &Config, url: Url, egress: EgressRule) -> Result<Arc<Self>, Error> {
        // All requests go to this origin: redirects to another are not followed.
        let tls = match url.scheme() {
            "http" => tls::unused(),
            _ => tls::client(config.roots.as_ref()),
        };
        let tls = tls.map_err(|error| Error::connect(error.to_string()))?;
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(Guarded::new(egress, config.timeouts.connect));
        Self::over(config, url, Reach::Url(Arc::new(Clients::new(connector, |_| ()))))
    }

    /// Over the addresses of a Service.
    pub(crate) fn to_service(config: &Config, url: Url, service: Arc<Service>) -> Result<Arc<Self>, Error> {
        Self::over(config, url, Reach::Service(service))
    }

    fn over(config: &Config, url: Url, reach: Reach) -> Result<Arc<Self>, Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            headers.append(name.clone(), value.clone());
        }
        Ok(Arc::new(Self {
            reach,
            target: ArcSwap::from_pointee(Target::new(url)?),
            headers,
            timeouts: config.timeouts,
            max_bytes: config.max_response_bytes,
        }))
    }

    /// The ways to begin something that stays at one address, in the order in which to try them.
    pub(crate) fn anchors(self: &Arc<Self>) -> Result<Vec<Arc<Self>>, Error> {
        let Reach::Service(service) = &self.reach else { return Ok(vec![Arc::clone(self)]) };
        let at = |place| {
            Arc::new(Self {
                reach: Reach::Place(place),
                target: ArcSwap::new(self.target.load_full()),
                headers: self.headers.clone(),
                timeouts: self.timeouts,
                max_bytes: self.max_bytes,
            })
        };
        let anchors: Vec<_> = service.places().into_iter().map(at).collect();
        if anchors.is_empty() { Err(Error::unsent(Kind::NoInstance)) } else { Ok(anchors) }
    }

    /// Whether everything goes to one address of several.
    pub(crate) fn is_anchored(&self) -> bool {
        matches!(self.reach, Reach::Place(_))
    }

    pub(crate) fn url(&self) -> Url {
        self.target.load().url.clone()
    }

    /// Posts one message and follows redirects that stay on the same origin.
    pub(crate) async fn post(&self, extra: HeaderMap, body: Bytes) -> Result<Answered, Error> {
        let mut target = self.target.load_full();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(Verb::POST, &target, &extra, body.clone()).await?;
            if !matches!(response.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
                return Answered::read(response).await;
            }
            target = Arc::new(Target::new(redirected(&target.url, &response)?)?);
            // mcp 1.9 moves /mcp to /mcp/ with 307 for good: spare the next calls the detour.
            self.target.store(Arc::clone(&target));
        }
        Err(Error::unsent(Kind::Protocol("too many redirects")))
    }

    /// Posts to another URL of the same origin (the endpoint of HTTP+SSE).
    pub(crate) async fn post_to(&self, url: &Url, body: Bytes) -> Result<Answered, Error> {
        let target = Target::new(url.clone())?;
        Answered::read(self.send(Verb::POST, &target, &HeaderMap::new(), body).await?).await
    }

    /// Opens an event stream.
    pub(crate) async fn get(&self, extra: HeaderMap) -> Result<Answered, Error> {
        let target = self.target.load_full();
        Answered::read(self.send(Verb::GET, &target, &extra, Bytes::new()).await?).await
    }

    async fn delete(&self, extra: HeaderMap) -> Result<(), Error> {
        let target = self.target.load_full();
        self.send(Verb::DELETE, &target, &extra, Bytes::new()).await.map(drop)
    }

    async fn send(
        &self,
        verb: Verb,
        target: &Target,
        extra: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = Request::new(Full::new(body));
        let headers = request.headers_mut();
        headers.reserve(self.headers.len() + extra.len() + ADDED);
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        for (name, value) in extra {
            headers.insert(name, value.clone());
        }
        if verb == Verb::POST {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        } else if verb == Verb::GET {
            headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        }
        *request.method_mut() = verb;
        *request.uri_mut() = target.uri.clone();
        match &self.reach {
            Reach::Url(clients) => {
                if let Some(host) = &target.host {
                    request.headers_mut().entry(HOST).or_insert_with(|| host.clone());
                }
                clients.request(request).await.map_err(|error| judge(&error))
            }
            Reach::Place(place) => at(place, request).await,
            Reach::Service(service) => {
                let mut failed = Error::unsent(Kind::NoInstance);
                for place in service.places() {
                    match at(&place, request.clone()).await {
                        Err(error @ Error { kind: Kind::Connect(_), .. }) => failed = error,
                        reached => return reached,
                    }
                }
                Err(failed)
            }
        }
    }
}

async fn at(place: &Place, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
    if !request.headers().contains_key(assertion::HEADER)
        && let Some(observer) = place.observer()
    {
        request.headers_mut().insert(assertion::HEADER, observer);
    }
    place.request(request).await.map_err(|error| judge(&error))
}

/// Only a failure to connect is sure not to have reached the upstream.
fn judge(error: &hyper_util::client::legacy::Error) -> Error {
    if !error.is_connect() {
        return Error::sent(Kind::Reset);
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    if cause.is::<super::egress::Forbidden>() {
        return Error::connect("the address is not allowed by the egress rule");
    }
    // The cause names no more than the operating system's word for it.
    Error::connect(cause.to_string())
}

fn redirected(from: &Url, response: &Response<Incoming>) -> Result<Url, Error> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let to = location.and_then(|location| from.join(location).ok());
    match to {
        Some(to) if to.origin() == from.origin() => Ok(to),
        Some(_) => Err(Error::unsent(Kind::Protocol("a redirect to another origin"))),
        None => Err(Error::unsent(Kind::Protocol("a redirect without a location"))),
    }
}

/// An answer as far as its headers tell.
pub(crate) struct Answered {
    pub(crate) headers: HeaderMap,
    pub(crate) opened: Opened,
}

/// What follows the headers.
pub(crate) enum Opened {
    /// One JSON message, unread.
    Json(Incoming),
    /// Server-sent events.
    Events(Incoming),
    /// Taken without an answer (202, 204).
    Empty,
    /// Not taken.
    Refused(Refused),
    /// A success that is neither JSON nor events: a web page, for instance.
    Other,
}

/// An HTTP error.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    /// At most [`MAX_REFUSAL`] bytes.
    pub(crate) body: Bytes,
    pub(crate) retry_after: Option<Duration>,
}

impl Refused {
    /// The JSON-RPC error in the body.
    pub(crate) fn error(&self) -> Option<(&[u8], i64)> {
        match wire::answer(&self.body)? {
            wire::Answer::Error(error, code) => Some((error, code)),
            wire::Answer::Result(_) => None,
        }
    }

    pub(crate) fn to_error(&self) -> Error {
        let executed = self.status.is_server_error() || self.status == StatusCode::REQUEST_TIMEOUT;
        Error {
            kind: Kind::Status(self.status.as_u16()),
            executed,
            retry_after: self.retry_after,
            explanation: Explanation::read(&self.body),
        }
    }
}

impl Answered {
    async fn read(response: Response<Incoming>) -> Result<Self, Error> {
        let (head, body) = response.into_parts();
        let plain = head.headers.get(CONTENT_ENCODING).is_none_or(|value| value == "identity");
        let opened = if !head.status.is_success() {
            // An error without a body, or with one cut short, is still that error.
            let body =
                if plain { read_bounded(body, MAX_REFUSAL).await.unwrap_or_default() } else { Bytes::new() };
            let retry_after = retry_after(&head.headers, SystemTime::now());
            Opened::Refused(Refused { status: head.status, body, retry_after })
        } else if !plain {
            // We ask for no compression: a bomb is not unpacked.
            return Err(Error::protocol("a compressed answer that nobody asked for"));
        } else {
            match media_type(&head.headers) {
                "application/json" => Opened::Json(body),
                "text/event-stream" => Opened::Events(body),
                _ if matches!(head.status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) => Opened::Empty,
                _ => Opened::Other,
            }
        };
        Ok(Self { headers: head.headers, opened })
    }

    /// Reads the answer to the call `id`, skipping what else is said.
    pub(crate) async fn whole(self, id: u64, max: usize) -> Result<Whole, Error> {
        match self.opened {
            Opened::Json(body) => {
                let raw = read_bounded(body, max).await?;
                let other = matches!(wire::look(&raw), Some(wire::Said::Response(Some(said))) if said != id);
                // Old servers refuse what they don't know under whatever id.
                if other && matches!(wire::answer(&raw), Some(wire::Answer::Result(_))) {
                    return Err(Error::protocol("an answer to another request"));
                }
                Ok(Whole::Message(self.headers, raw))
            }
            Opened::Events(body) => {
                let mut events = EventStream::new(body, max, Some(max));
                while let Some(event) = events.next().await? {
                    match wire::look(&event.data) {
                        Some(wire::Said::Response(Some(said))) if said != id => {}
                        Some(wire::Said::Response(_)) => {
                            events.finish();
                            return Ok(Whole::Message(self.headers, event.data));
                        }
                        _ => {}
                    }
                }
                Err(Error::sent(Kind::Reset))
            }
            Opened::Refused(refused) => Ok(Whole::Refused(refused)),
            Opened::Empty | Opened::Other => Ok(Whole::Other),
        }
    }
}

/// A whole answer.
pub(crate) enum Whole {
    /// A JSON-RPC message.
    Message(HeaderMap, Bytes),
    /// An HTTP error.
    Refused(Refused),
    /// A success without a message.
    Other,
}

/// When to come again: seconds or a date (RFC 9110, 10.2.3), and no later than in an hour. Anything else says nothing.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        value.parse().map_or(LONGEST_WAIT, Duration::from_secs)
    } else {
        // What is past is now.
        httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(LONGEST_WAIT))
}

fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = value.split(';').next().unwrap_or_default().trim();
    ["application/json", "text/event-stream"]
        .into_iter()
        .find(|known| kind.eq_ignore_ascii_case(known))
        .unwrap_or_default()
}

async fn read_bounded(mut body: Incoming, max: usize) -> Result<Bytes, Error> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Error::sent(Kind::Reset))?.into_data() else { continue };
        if read.len() + data.len() > max {
            return Err(Error::sent(Kind::TooLarge));
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
}

/// One legacy session as HTTP sees it: its headers, and where its messages go.
#[derive(Debug)]
pub(crate) struct HttpLine {
    pub(crate) http: Arc<Http>,
    pub(crate) session: Option<HeaderValue>,
    pub(crate) revision: Revision,
    /// For whom it was opened.
    pub(crate) assertion: Option<HeaderValue>,
    pub(crate) inbox: Arc<Inbox>,
    /// Cancelled when the server no longer knows the session, or no longer answers in it.
    pub(crate) lost: CancellationToken,
    /// How many pings were sent in it.
    pub(crate) pings: AtomicU64,
    /// Places for messages that nobody waits for.
    pub(crate) aside: Arc<Semaphore>,
}

/// Messages of a session that may be on their way without anybody waiting for them: a server that asks without end and
/// takes no answer, or a client that tells without end, shall not fill the memory.
pub(super) const ASIDE: usize = 256;

impl HttpLine {
    /// Those of a message; of a call, with its trace.
    pub(crate) fn headers(&self, trace: Option<&TraceContext>) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(8);
        // The header exists since 2025-06-18.
        if self.revision >= Revision::V2025_06_18 {
            headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(self.revision.as_str()));
        }
        if let Some(session) = &self.session {
            headers.insert(SESSION_ID, session.clone());
        }
        headers.extend(self.assertion.clone().map(|assertion| (assertion::HEADER, assertion)));
        if let Some(trace) = trace {
            trace.put(&mut headers);
        }
        headers
    }

    /// Posts a message that has no answer.
    pub(crate) async fn say(&self, body: Bytes) -> Result<(), Error> {
        let posting = self.http.post(self.headers(None), body);
        let posting = tokio::time::timeout(self.http.timeouts.connect, posting);
        let answered =
            posting.await.map_err(|_| Error::sent(Kind::Timeout(super::error::Phase::FirstByte)))??;
        match answered.opened {
            Opened::Refused(refused) => Err(refused.to_error()),
            _ => Ok(()),
        }
    }

    /// Does something that nobody waits for, unless too much of it is under way.
    pub(crate) fn aside(&self, work: impl Future<Output = ()> + Send + 'static) {
        let place = Arc::clone(&self.aside).try_acquire_owned();
        if let (Ok(place), Ok(runtime)) = (place, tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                let _held = place;
                work.await;
            });
        }
    }

    /// Opens the session's own stream, or takes one up where it broke off.
    pub(crate) async fn get(&self, last_event: Option<&str>) -> Result<Answered, Error> {
        let mut headers = self.headers(None);
        if let Some(id) = last_event.and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert(LAST_EVENT_ID, id);
        }
        self.http.get(headers).await
    }

    pub(crate) async fn delete(&self) -> Result<(), Error> {
        self.http.delete(self.headers(None)).await
    }
}

/// The headers that a modern request repeats from its body.
pub(crate) fn modern_headers(
    method: &str,
    name: Option<&str>,
    params: &[(HeaderName, HeaderValue)],
) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8 + params.len());
    headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(Revision::V2026_07_28.as_str()));
    let mirrored = [(crate::mcp::era::METHOD, Some(method)), (crate::mcp::era::NAME, name)];
    for (header, text) in mirrored {
        let value = text.and_then(|text| HeaderValue::from_str(&crate::mcp::header::encode(text)).ok());
        if let Some(value) = value {
            headers.insert(header, value);
        }
    }
    for (header, value) in params {
        headers.insert(header.clone(), value.clone());
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_come_again_is_digits_or_a_date_and_bounded() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let read = |value: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(value).unwrap())]);
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(read("7"), Some(7));
        assert_eq!(read("Sun, 06 Nov 1994 08:50:07 GMT"), Some(30));
        assert_eq!(read("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        for long in ["3601", "99999999999999999999999", "Sat, 06 Nov 2094 08:49:37 GMT"] {
            assert_eq!(read(long), Some(3600), "{long}");
        }
        for other in ["", "+7", "-7", "1.5", "7s", "soon"] {
            assert_eq!(read(other), None, "{other:?}");
        }
    }
}
