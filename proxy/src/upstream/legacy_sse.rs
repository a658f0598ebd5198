//! HTTP+SSE (2024-11-05): a GET stream names an endpoint to post to and carries all answers.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream;
use http::HeaderMap;
use url::Url;

use super::channel::{Channel, Closed, Frame, Incoming, Writer};
use super::error::{Error, Kind, Phase};
use super::events::EventStream;
use super::http::{Http, Opened};
use super::inbox::Inbox;

/// Opens the stream and waits for its endpoint.
pub(crate) async fn connect(http: &Arc<Http>, inbox: Arc<Inbox>) -> Result<Channel, Error> {
    let opening = tokio::time::timeout(http.timeouts.connect, open_somewhere(http)).await;
    let (http, events, endpoint) =
        opening.unwrap_or_else(|_| Err(Error::unsent(Kind::Timeout(Phase::Connect))))?;
    let writer = Poster { http, endpoint, inbox: Arc::clone(&inbox) };
    Ok(Channel::start(messages(events), writer, inbox, ()))
}

/// At the first address that can be reached: what is posted goes there, too.
async fn open_somewhere(http: &Arc<Http>) -> Result<(Arc<Http>, EventStream, Url), Error> {
    let mut failed = Error::unsent(Kind::NoInstance);
    for anchor in http.anchors()? {
        match open(&anchor).await {
            Ok((events, endpoint)) => return Ok((anchor, events, endpoint)),
            Err(error @ Error { kind: Kind::Connect(_), .. }) => failed = error,
            Err(error) => return Err(error),
        }
    }
    Err(failed)
}

async fn open(http: &Http) -> Result<(EventStream, Url), Error> {
    let answered = http.get(HeaderMap::new()).await?;
    let mut events = match answered.opened {
        Opened::Events(body) => EventStream::new(body, http.max_bytes, None),
        Opened::Refused(refused) => return Err(refused.to_error()),
        _ => return Err(Error::unsent(Kind::Protocol("neither Streamable HTTP nor HTTP+SSE"))),
    };
    while let Some(event) = events.next().await? {
        if event.event.as_deref() == Some("endpoint") {
            let base = http.url();
            let place = std::str::from_utf8(&event.data).ok().and_then(|place| base.join(place.trim()).ok());
            // Our headers hold credentials: they stay on the origin that they are for.
            return match place {
                Some(place) if place.origin() == base.origin() => Ok((events, place)),
                _ => Err(Error::unsent(Kind::Protocol("an endpoint on another origin"))),
            };
        }
    }
    Err(Error::unsent(Kind::Protocol("a stream without an endpoint event")))
}

fn messages(events: EventStream) -> Incoming {
    Box::pin(stream::unfold(events, |mut events| async move {
        loop {
            match events.next().await {
                Ok(Some(event)) if event.event.as_deref().is_none_or(|name| name == "message") => {
                    return Some((Ok(event.data), events));
                }
                Ok(Some(_)) => {}
                Ok(None) => return None,
                // The splitter cannot go on behind an event that was too long: the connection is over.
                Err(_) => return Some((Err(Error::sent(Kind::Reset)), events)),
            }
        }
    }))
}

/// Posts each request on its own: one that the server is slow to take delays no other. A notification is taken
/// before anything follows it.
struct Poster {
    http: Arc<Http>,
    endpoint: Url,
    inbox: Arc<Inbox>,
}

impl Writer for Poster {
    fn write(&mut self, frame: Frame) -> BoxFuture<'_, Result<(), Closed>> {
        let (http, endpoint, inbox) =
            (Arc::clone(&self.http), self.endpoint.clone(), Arc::clone(&self.inbox));
        let (call, patience) = (frame.call, http.timeouts.connect);
        let posting = tokio::spawn(async move {
            let posting = tokio::time::timeout(http.timeouts.first_byte, http.post_to(&endpoint, frame.body));
            let failed = match posting.await {
                Err(_) => Error::sent(Kind::Timeout(Phase::FirstByte)),
                Ok(Err(error)) => error,
                Ok(Ok(answered)) => match answered.opened {
                    Opened::Refused(refused) => refused.to_error(),
                    _ => return,
                },
            };
            if let Some(call) = frame.call {
                inbox.fail(call, failed);
            }
        });
        // What comes after `notifications/initialized` must not overtake it: servers of 2024 end a session in which a
        // request came first.
        Box::pin(async move {
            if call.is_none() {
                let _ = tokio::time::timeout(patience, posting).await;
            }
            Ok(())
        })
    }
}
