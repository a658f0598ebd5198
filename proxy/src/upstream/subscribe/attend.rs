//! Keeps the stream of some subscriptions open: opens a wider one before it closes the old, and opens it again when
//! the server ends it.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderValue;
use tokio::time::Instant;

use super::{Hub, Told};
use crate::mcp::envelope::{INVALID_PARAMS, INVALID_REQUEST, Method};
use crate::mcp::fault::METHOD_NOT_FOUND;
use crate::mcp::json;
use crate::mcp::rewrite::updated_uri;
use crate::upstream::observe::{FIRST_PAUSE, LONGEST_PAUSE, STEADY, jitter};
use crate::upstream::reply::{Event, Reply};
use crate::upstream::wire::{self, Answer};
use crate::upstream::{Core, Kind};

/// What was on its way on a stream when a wider one took its place is waited for.
const FADE: Duration = Duration::from_millis(250);

/// Why there is no stream.
enum NotOpened {
    /// The server does not want to.
    Refused,
    /// It could not be asked, or did not answer.
    Failed,
}

type Opened = Result<(Reply, HashSet<String>), NotOpened>;

/// A stream that is being asked for.
struct Opening {
    /// What is new on it, by subscription.
    groups: Vec<Vec<String>>,
    /// All that it was asked for.
    uris: HashSet<String>,
    work: BoxFuture<'static, Opened>,
}

/// A stream whose place another has taken.
struct Fading {
    reply: Reply,
    until: Instant,
    /// What the new stream has told since.
    told: HashSet<String>,
}

struct Attending {
    core: Arc<Core>,
    hub: Arc<Hub>,
    assertion: Option<HeaderValue>,
    open: Option<Reply>,
    since: Instant,
    fading: Option<Fading>,
    opening: Option<Opening>,
    /// Refused together: each is asked for by itself, since one may have spoilt it for the others.
    alone: VecDeque<Vec<String>>,
    failures: u32,
    interrupted: bool,
}

/// Runs until nobody is subscribed any more, or the upstream is stopped.
pub(super) async fn run(core: Arc<Core>, hub: Arc<Hub>, assertion: Option<HeaderValue>) {
    let (stop, heard) = (core.stop.clone(), Arc::clone(&hub));
    let attending = Attending {
        core,
        hub,
        assertion,
        open: None,
        since: Instant::now(),
        fading: None,
        opening: None,
        alone: VecDeque::new(),
        failures: 0,
        interrupted: false,
    };
    // Boxed: a request on its way makes a large future.
    stop.run_until_cancelled(Box::pin(attending.run())).await;
    heard.resources.send_modify(|resources| resources.over = true);
}

impl Attending {
    async fn run(mut self) {
        let mut asked = self.hub.resources.subscribe();
        loop {
            if asked.borrow_and_update().wanted.is_empty()
                && self.core.forget(&self.hub, self.assertion.as_ref())
            {
                return;
            }
            self.begin();
            tokio::select! {
                opened = opened(&mut self.opening) => self.opened(opened),
                raw = update(self.open.as_mut()) => self.heard(raw),
                raw = last_updates(&mut self.fading) => self.heard_late(raw),
                _ = asked.changed() => {}
            }
        }
    }

    /// Asks for a stream if there is none that has all that is wanted.
    fn begin(&mut self) {
        if self.opening.is_some() {
            return;
        }
        let groups = self.next_groups();
        let mut uris: HashSet<String> = {
            let resources = self.hub.resources.borrow();
            let honoured = resources.wanted.iter().filter(|(_, one)| one.honoured == Some(true));
            honoured.map(|(uri, _)| uri.clone()).collect()
        };
        if groups.is_empty() && (uris.is_empty() || self.open.is_some()) {
            return;
        }
        uris.extend(groups.iter().flatten().cloned());
        let pause = match (&self.open, self.interrupted || self.failures > 0) {
            (None, true) => jitter(FIRST_PAUSE.saturating_mul(1 << self.failures.min(8)).min(LONGEST_PAUSE)),
            _ => Duration::ZERO,
        };
        let work = open(Arc::clone(&self.core), filter(&uris), self.assertion.clone(), pause);
        self.opening = Some(Opening { groups, uris, work: Box::pin(work) });
    }

    /// What is asked for next and still wanted.
    fn next_groups(&mut self) -> Vec<Vec<String>> {
        let mut groups = Vec::new();
        self.hub.resources.send_if_modified(|resources| {
            let taken: Vec<_> = match self.alone.pop_front() {
                Some(group) => vec![group],
                None => resources.groups.drain(..).collect(),
            };
            let wanted = |uri: &String| resources.wanted.get(uri).is_some_and(|one| one.honoured.is_none());
            groups = taken.into_iter().map(|group| group.into_iter().filter(wanted).collect()).collect();
            groups.retain(|group: &Vec<String>| !group.is_empty());
            false
        });
        groups
    }

    fn opened(&mut self, (opening, opened): (Opening, Opened)) {
        match opened {
            Ok((reply, honoured)) => {
                let old = self.open.replace(reply);
                self.fading =
                    old.map(|reply| Fading { reply, until: Instant::now() + FADE, told: HashSet::new() });
                self.since = Instant::now();
                self.settle(&opening.uris, |uri| honoured.contains(uri));
                if std::mem::take(&mut self.interrupted) {
                    // Whoever asked may be gone.
                    let _ = self.hub.told.send(Told::Gap);
                }
            }
            // The old stream, if there is one, goes on.
            Err(NotOpened::Refused) if opening.groups.len() > 1 => self.alone.extend(opening.groups),
            Err(NotOpened::Refused) if opening.groups.is_empty() => self.settle(&opening.uris, |_| false),
            Err(_) => {
                self.failures += 1;
                self.settle(&opening.groups.into_iter().flatten().collect(), |_| false);
            }
        }
    }

    /// The server has said what of these it honours.
    fn settle(&self, uris: &HashSet<String>, honoured: impl Fn(&str) -> bool) {
        self.hub.resources.send_modify(|resources| {
            for (uri, one) in resources.wanted.iter_mut().filter(|(uri, _)| uris.contains(*uri)) {
                one.honoured = Some(honoured(uri));
            }
        });
    }

    fn heard(&mut self, raw: Option<Bytes>) {
        let Some(raw) = raw else {
            self.open = None;
            self.interrupted = true;
            // A server that ends each stream at once shall not be asked without a pause.
            self.failures = if self.since.elapsed() >= STEADY { 0 } else { self.failures + 1 };
            return;
        };
        if let Some(fading) = &mut self.fading {
            fading.told.extend(updated_uri(&raw).map(Cow::into_owned));
        }
        self.hub.hear(raw);
    }

    fn heard_late(&mut self, raw: Option<Bytes>) {
        match (raw, &self.fading) {
            (Some(raw), Some(fading)) => {
                if updated_uri(&raw).is_some_and(|uri| !fading.told.contains(uri.as_ref())) {
                    self.hub.hear(raw);
                }
            }
            _ => self.fading = None,
        }
    }
}

/// The outcome of what is being opened; never ready where nothing is.
async fn opened(opening: &mut Option<Opening>) -> (Opening, Opened) {
    if let Some(current) = opening {
        let outcome = current.work.as_mut().await;
        if let Some(done) = opening.take() {
            return (done, outcome);
        }
    }
    std::future::pending().await
}

/// The next update of a stream; none when it is over, never ready where there is no stream.
async fn update(stream: Option<&mut Reply>) -> Option<Bytes> {
    let Some(reply) = stream else { return std::future::pending().await };
    loop {
        match reply.next().await?.ok()? {
            Event::Notification { method: Method::NotificationsResourcesUpdated, raw } => return Some(raw),
            Event::Response(_) => return None,
            Event::Notification { .. } | Event::Request { .. } => {}
        }
    }
}

async fn last_updates(fading: &mut Option<Fading>) -> Option<Bytes> {
    let Some(Fading { reply, until, .. }) = fading else { return std::future::pending().await };
    tokio::time::timeout_at(*until, update(Some(reply))).await.ok().flatten()
}

fn filter(uris: &HashSet<String>) -> Bytes {
    let mut uris: Vec<_> = uris.iter().collect();
    uris.sort_unstable();
    Bytes::from(serde_json::json!({"resourceSubscriptions": uris}).to_string())
}

/// Opens a stream as soon as the server is there, and waits for what it confirms.
async fn open(core: Arc<Core>, filter: Bytes, assertion: Option<HeaderValue>, pause: Duration) -> Opened {
    tokio::time::sleep(pause).await;
    let mut changes = core.live.subscribe();
    let live = changes.wait_for(Option::is_some).await.ok().and_then(|live| live.clone());
    let live = live.ok_or(NotOpened::Failed)?;
    if live.modern.is_none() {
        return Err(NotOpened::Refused);
    }
    let opening = async {
        let mut reply = core.listen(&live, &filter, assertion).await.map_err(|_| NotOpened::Failed)?;
        let honoured = acknowledged(&mut reply).await?;
        Ok((reply, honoured))
    };
    // Not as long as a call may take: nothing runs there that would need it.
    tokio::time::timeout(core.config.timeouts.connect, opening).await.unwrap_or(Err(NotOpened::Failed))
}

/// The first message says what is honoured.
async fn acknowledged(reply: &mut Reply) -> Result<HashSet<String>, NotOpened> {
    loop {
        match reply.next().await {
            Some(Ok(Event::Notification { method, raw })) => {
                if method == Method::NotificationsSubscriptionsAcknowledged {
                    return Ok(confirmed(&raw).unwrap_or_default());
                }
            }
            Some(Ok(Event::Response(body))) => {
                let raw = body.collect().await.map_err(|_| NotOpened::Failed)?;
                return Err(match wire::answer(&raw) {
                    Some(Answer::Error(_, METHOD_NOT_FOUND | INVALID_PARAMS | INVALID_REQUEST)) => {
                        NotOpened::Refused
                    }
                    _ => NotOpened::Failed,
                });
            }
            Some(Ok(Event::Request { .. })) => {}
            // 401 and the like are mended without anybody asking anew.
            Some(Err(error)) if matches!(error.kind, Kind::Status(400 | 404 | 405)) => {
                return Err(NotOpened::Refused);
            }
            Some(Err(_)) | None => return Err(NotOpened::Failed),
        }
    }
}

fn confirmed(raw: &[u8]) -> Option<HashSet<String>> {
    let notifications = json::member(json::member(raw, "params")?, "notifications")?;
    serde_json::from_slice(json::member(notifications, "resourceSubscriptions")?).ok()
}
