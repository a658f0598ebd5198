//! A request to the endpoint, from its first header to the room that answers it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method as Verb, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use mcpmesh_ir::policy::Caller;
use tokio::time::Instant;

use super::audience::Audience;
use super::legacy::NoSession;
use super::record::Record;
use super::{Gateway, now};
use crate::catalog::View;
use crate::http::{self as web, Answer, BodyError};
use crate::identity::{Arrival, Credential, KeyTable, Refusal};
use crate::mcp::envelope::Message as One;
use crate::mcp::envelope::{self, Incoming as Message, Limits, Method};
use crate::mcp::era::{Classified, Era, Revision, classify};
use crate::mcp::fault::Fault;
use crate::mcp::gauge::Gauge;
use crate::mcp::json;
use crate::workers;

/// A request whose listener has been checked.
pub struct Incoming<B> {
    /// GET, POST, DELETE or what else came.
    pub verb: Verb,
    /// All headers.
    pub headers: HeaderMap,
    /// By which listener.
    pub arrival: Arrival,
    /// The body, unread.
    pub body: B,
}

/// What holds for the whole of one request.
#[derive(Clone)]
pub(super) struct Exchange {
    pub(super) gateway: Arc<Gateway>,
    pub(super) view: Arc<View>,
    /// Whose view it is, where the client declares something that lists may depend on.
    pub(super) audience: Option<Arc<Audience>>,
    pub(super) caller: Arc<Caller>,
    pub(super) credential: Credential,
    pub(super) headers: Arc<HeaderMap>,
    /// When the head was there.
    pub(super) started: Instant,
    /// When all of the body was there.
    pub(super) whole: Instant,
}

impl Exchange {
    pub(super) fn record(&self, method: Method) -> Record {
        Record::new(&self.gateway, &self.caller, method, (self.started, self.whole))
    }
}

impl Gateway {
    /// Answers a request.
    pub async fn handle<B>(self: &Arc<Self>, request: Incoming<B>) -> Answer
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
    {
        let Incoming { verb, headers, arrival, body } = request;
        let mut exchange = match self.open(headers, &arrival) {
            Ok(exchange) => exchange,
            Err(answer) => return answer,
        };
        match verb {
            Verb::POST => match self.read(&exchange, body).await {
                // A body that took its time is judged by what is in force now, not when its head came.
                Ok(body) if exchange.refresh() => {
                    exchange.whole = Instant::now();
                    exchange.post(body).await
                }
                Ok(_) => self.unknown(Refusal::Unknown),
                Err(answer) => answer,
            },
            Verb::GET => exchange.get(),
            Verb::DELETE => exchange.delete(),
            _ => exchange.refused("verb", web::method_not_allowed("POST, GET, DELETE")),
        }
    }

    /// Finds out who asks.
    fn open(self: &Arc<Self>, headers: HeaderMap, arrival: &Arrival) -> Result<Exchange, Answer> {
        let view = self.view();
        let identify = |credential: Credential| {
            let at = i64::try_from(now()).unwrap_or(i64::MAX);
            let caller = view.config.keys.caller(&credential, at, &view.config.policy)?;
            Ok((credential, caller))
        };
        let (credential, caller) = KeyTable::credential(&headers, arrival)
            .and_then(identify)
            .map_err(|refusal| self.unknown(refusal))?;
        let headers = Arc::new(headers);
        let started = Instant::now();
        Ok(Exchange {
            gateway: Arc::clone(self),
            view,
            audience: None,
            caller,
            credential,
            headers,
            started,
            whole: started,
        })
    }

    fn unknown(&self, refusal: Refusal) -> Answer {
        let answer = match refusal.status() {
            StatusCode::UNAUTHORIZED => web::unauthorized(&refusal.to_string(), refusal != Refusal::Missing),
            status => web::refuse(status, &refusal.to_string()),
        };
        self.shell.log.refused(Some(&self.label), "", refusal.as_str(), &answer);
        answer
    }

    /// Reads a bounded body in bounded time.
    async fn read<B>(&self, exchange: &Exchange, body: B) -> Result<Bytes, Answer>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
    {
        let refused = |reason, answer| Err(exchange.refused(reason, answer));
        if let Err(answer) = web::check_media(&exchange.headers) {
            return refused("media_type", answer);
        }
        let bounds = &self.shell.bounds;
        if body.size_hint().lower() > bounds.request_bytes as u64 {
            return refused("too_large", too_large());
        }
        let whole = joined(Limited::new(body, bounds.request_bytes));
        match tokio::time::timeout(bounds.request_time, whole).await {
            Ok(Ok(whole)) => Ok(whole),
            Ok(Err(error)) if error.is::<LengthLimitError>() => refused("too_large", too_large()),
            Ok(Err(error)) => Err(match error.downcast::<json::Error>() {
                Ok(over) => unfinished(exchange.malformed((*over).into())),
                Err(_) => exchange.refused("body_cut_off", web::status(StatusCode::BAD_REQUEST)),
            }),
            Err(_) => refused(
                "too_slow",
                web::refuse(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
            ),
        }
    }
}

/// The bytes of a body, held once: what came in one piece is not copied. One that comes in several is not read further than
/// to what makes it one that is refused.
async fn joined<B>(mut body: B) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    let expected = body.size_hint().exact().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    let (mut first, mut all) = (Bytes::new(), BytesMut::new());
    let mut gauge = Gauge::new(Limits::default());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if first.is_empty() && all.is_empty() {
            if !body.is_end_stream() {
                gauge.feed(&data)?;
            }
            first = data;
            continue;
        }
        if all.is_empty() {
            all.reserve(expected.max(first.len() + data.len()));
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        gauge.feed(&data)?;
        all.extend_from_slice(&data);
        // All of a long body may lie there already.
        workers::give_way().await;
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

fn too_large() -> Answer {
    unfinished(web::refuse(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large"))
}

/// An answer to a request that has not come to its end: how much more of it would come is not known.
fn unfinished(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    answer
}

impl Exchange {
    async fn post(self, body: Bytes) -> Answer {
        let parsed = workers::read(body.len(), || envelope::parse(body, &Limits::default())).await;
        match parsed {
            Ok(Message::One(message)) => self.one(message).await,
            Ok(Message::Batch(messages)) => self.batch(messages).await,
            Err(refusal) => self.malformed(refusal),
        }
    }

    fn malformed(&self, refusal: envelope::Refusal) -> Answer {
        let id = refusal.id.clone();
        self.refuse(&Fault::malformed(refusal), Era::Modern, id.as_ref())
    }

    /// What answers is boxed: a large future is copied by everyone who waits for it.
    async fn one(self, message: One) -> Answer {
        let id = match &message {
            One::Request(request) => Some(request.id.clone()),
            One::Notification(_) | One::Response(_) => None,
        };
        match classify(&self.headers, &message) {
            Ok(Classified::Modern(revision)) => match message {
                One::Request(request) => Box::pin(self.modern(request, revision)).await,
                One::Notification(_) => web::status(StatusCode::ACCEPTED),
                One::Response(_) => self.refuse(
                    &Fault::InvalidRequest("a modern client sends no responses".into()),
                    Era::Modern,
                    None,
                ),
            },
            Ok(Classified::Initialize(revision)) => match message {
                One::Request(request) => Box::pin(self.initialize(&request, revision)).await,
                One::Notification(_) | One::Response(_) => web::status(StatusCode::BAD_REQUEST),
            },
            Ok(Classified::Legacy(_)) => match self.session() {
                Ok(session) => Box::pin(self.legacy(session, message)).await,
                Err(missing) => self.without_session(missing, id.as_ref()),
            },
            Err(fault) => self.refuse(&fault, Era::Modern, id.as_ref()),
        }
    }

    /// Only revision 2025-03-26 has batches, and only inside its sessions.
    async fn batch(self, messages: Vec<One>) -> Answer {
        let refused = |fault| self.refuse(&fault, Era::Legacy, None);
        match self.session() {
            Ok(session) if session.terms.revision == Revision::V2025_03_26 => {
                match messages.iter().try_for_each(|message| self.member(message)) {
                    Ok(()) => Box::pin(self.legacy_batch(session, messages)).await,
                    Err(fault) => refused(fault),
                }
            }
            Ok(_) => refused(Fault::InvalidRequest("this revision has no batches".into())),
            Err(NoSession::Unnamed) => {
                refused(Fault::InvalidRequest("batches belong to 2025-03-26 sessions".into()))
            }
            Err(missing @ NoSession::Unknown) => self.without_session(missing, None),
        }
    }

    /// Headers speak of each message of a batch, and none begins a session or is of another revision.
    fn member(&self, message: &One) -> Result<(), Fault> {
        match classify(&self.headers, message) {
            Ok(Classified::Legacy(None | Some(Revision::V2025_03_26))) => Ok(()),
            Err(fault @ (Fault::HeaderMismatch(_) | Fault::UnsupportedVersion { .. })) => Err(fault),
            Ok(_) | Err(_) => {
                Err(Fault::InvalidRequest("batches hold messages of 2025-03-26 sessions".into()))
            }
        }
    }

    /// An error before there is anything to record but that.
    pub(super) fn refuse(&self, fault: &Fault, era: Era, id: Option<&envelope::Id>) -> Answer {
        let reason = match fault {
            Fault::Parse(_) => "parse_error",
            Fault::InvalidRequest(_) => "invalid_request",
            Fault::HeaderMismatch(_) => "header_mismatch",
            Fault::UnsupportedVersion { .. } => "unsupported_version",
            Fault::MethodNotFound(_) => "unknown_method",
            _ => "invalid_params",
        };
        let answer = web::fault(fault, era, id);
        self.refused(reason, answer)
    }

    /// Counts and writes down that this is all that the client gets.
    pub(super) fn refused(&self, reason: &'static str, answer: Answer) -> Answer {
        self.gateway.shell.log.refused(Some(&self.gateway.label), &self.caller.principal, reason, &answer);
        answer
    }
}
