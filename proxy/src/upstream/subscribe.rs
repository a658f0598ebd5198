//! Subscriptions to resources of a modern server (2026-07-28, basic/patterns/subscriptions). Those of callers whom the
//! server cannot tell apart share a stream; what it confirms, and that updates may have been missed, is told to each.

mod attend;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use super::Core;
use super::wire;
use crate::mcp::envelope::Method;
use crate::mcp::rewrite::updated_uri;

/// Resources on one stream: what servers take in one request, ours among them.
const MOST: usize = 1000;
/// Updates that wait for a slow reader, who is told then that some were missed.
const WAITING: usize = 256;

/// The streams of one upstream, by whom they are opened for.
pub(super) type Shared = Mutex<HashMap<Option<HeaderValue>, Vec<Arc<Hub>>>>;

/// What all subscriptions of a stream hear.
#[derive(Debug, Clone)]
enum Told {
    Updated {
        uri: Arc<str>,
        raw: Bytes,
    },
    /// Nobody listened for a while.
    Gap,
}

/// A resource that somebody asked for.
#[derive(Debug, Default)]
struct Wanted {
    users: usize,
    /// None until the server has said.
    honoured: Option<bool>,
}

#[derive(Debug, Default)]
struct Resources {
    wanted: HashMap<String, Wanted>,
    /// What each new subscription asked for and no stream has yet.
    groups: VecDeque<Vec<String>>,
    /// No stream will be opened any more.
    over: bool,
}

impl Resources {
    fn honoured(&self, uri: &str) -> Option<bool> {
        if self.over { Some(false) } else { self.wanted.get(uri).and_then(|one| one.honoured) }
    }
}

/// What the subscriptions of one stream share.
#[derive(Debug)]
pub(super) struct Hub {
    resources: watch::Sender<Resources>,
    told: broadcast::Sender<Told>,
}

impl Hub {
    fn new() -> Arc<Self> {
        Arc::new(Self { resources: watch::Sender::default(), told: broadcast::Sender::new(WAITING) })
    }

    fn has_room(&self, uris: &[String]) -> bool {
        let resources = self.resources.borrow();
        let more = uris.iter().filter(|uri| !resources.wanted.contains_key(*uri)).count();
        !resources.over && resources.wanted.len() + more <= MOST
    }

    fn ask(self: &Arc<Self>, uris: Vec<String>) -> Subscription {
        // Before anything is opened for it: no update is missed.
        let told = self.told.subscribe();
        self.resources.send_modify(|resources| {
            for uri in &uris {
                resources.wanted.entry(uri.clone()).or_default().users += 1;
            }
            let new: Vec<_> = uris.iter().filter(|uri| resources.honoured(uri).is_none()).cloned().collect();
            if !new.is_empty() {
                resources.groups.push_back(new);
            }
        });
        let resources = self.resources.subscribe();
        Subscription { hub: Arc::clone(self), uris, told, resources, ready: VecDeque::new() }
    }

    fn release(&self, uris: &[String]) {
        self.resources.send_modify(|resources| {
            for uri in uris {
                if let Some(one) = resources.wanted.get_mut(uri) {
                    one.users -= 1;
                    if one.users == 0 {
                        resources.wanted.remove(uri);
                    }
                }
            }
        });
    }

    fn hear(&self, raw: Bytes) {
        if let Some(uri) = updated_uri(&raw).map(Arc::from) {
            // Whoever asked may be gone.
            let _ = self.told.send(Told::Updated { uri, raw });
        }
    }
}

/// `notifications/resources/updated` of our own making: updates of this resource may have been missed.
pub(super) fn missed(uri: &str) -> Bytes {
    let params = serde_json::json!({"uri": uri}).to_string();
    wire::notification(&Method::NotificationsResourcesUpdated, params.as_bytes())
}

/// What one client asked to hear of. Dropping it ends the subscription, and the server's stream with the last one.
#[derive(Debug)]
pub struct Subscription {
    hub: Arc<Hub>,
    uris: Vec<String>,
    told: broadcast::Receiver<Told>,
    resources: watch::Receiver<Resources>,
    ready: VecDeque<Bytes>,
}

impl Subscription {
    /// The resources that the server has confirmed, `grace` from now at the latest. The others are given up.
    pub async fn settle(&mut self, grace: Duration) -> &[String] {
        let uris = &self.uris;
        let answered = self.resources.wait_for(|now| uris.iter().all(|uri| now.honoured(uri).is_some()));
        // What is known by then counts, whatever came of the wait.
        let _ = tokio::time::timeout(grace, answered).await;
        let (kept, gone): (Vec<_>, Vec<_>) = {
            let now = self.resources.borrow_and_update();
            std::mem::take(&mut self.uris).into_iter().partition(|uri| now.honoured(uri) == Some(true))
        };
        self.hub.release(&gone);
        self.uris = kept;
        &self.uris
    }

    /// The next whole `notifications/resources/updated`, with the server's URI. Where updates may have been missed one
    /// comes for each resource. None when one of them is no longer honoured, or the server is given up.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(raw) = self.ready.pop_front() {
                return Some(raw);
            }
            let uris = &self.uris;
            let told = tokio::select! {
                biased;
                _ = self.resources.wait_for(|now| uris.iter().any(|uri| now.honoured(uri) != Some(true))) => return None,
                told = self.told.recv() => told,
            };
            match told {
                // An update may concern a part of what was subscribed to (2025-11-25, server/resources).
                Ok(Told::Updated { uri, raw })
                    if uris.iter().any(|wanted| uri.starts_with(wanted.as_str())) =>
                {
                    return Some(raw);
                }
                Ok(Told::Updated { .. }) => {}
                Ok(Told::Gap) | Err(broadcast::error::RecvError::Lagged(_)) => {
                    self.ready.extend(uris.iter().map(|uri| missed(uri)));
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.release(&self.uris);
    }
}

impl Core {
    /// Subscribes, on a stream that is open for the same caller if it has room.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        mut uris: Vec<String>,
        assertion: Option<HeaderValue>,
    ) -> Subscription {
        uris.sort_unstable();
        uris.dedup();
        let mut shared = self.subscriptions.lock();
        let hubs = shared.entry(assertion.clone()).or_default();
        if let Some(hub) = hubs.iter().find(|hub| hub.has_room(&uris)) {
            return hub.ask(uris);
        }
        let hub = Hub::new();
        hubs.push(Arc::clone(&hub));
        let subscription = hub.ask(uris);
        tokio::spawn(attend::run(Arc::clone(self), hub, assertion));
        subscription
    }

    /// Forgets a stream that nobody wants any more; false if somebody came meanwhile.
    fn forget(&self, hub: &Arc<Hub>, assertion: Option<&HeaderValue>) -> bool {
        let mut shared = self.subscriptions.lock();
        let mut ended = false;
        hub.resources.send_modify(|resources| {
            ended = resources.wanted.is_empty();
            resources.over |= ended;
        });
        if ended {
            let key = assertion.cloned();
            if let Some(hubs) = shared.get_mut(&key) {
                hubs.retain(|one| !Arc::ptr_eq(one, hub));
                if hubs.is_empty() {
                    shared.remove(&key);
                }
            }
        }
        ended
    }
}
