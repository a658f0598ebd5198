//! `subscriptions/listen` (2026-07-28, basic/patterns/subscriptions): one stream of what a client wants to hear.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::{BoxStream, SelectAll, unfold};
use mcpmesh_ir::ServerId;
use mcpmesh_ir::policy::Object;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::answer;
use super::post::Exchange;
use super::pump::updated;
use super::session_task::TOLD;
use crate::catalog::takes_subscriptions;
use crate::http::{self as web, Answer};
use crate::mcp::envelope::{Id, Request};
use crate::mcp::era::{Era, Revision};
use crate::mcp::fault::Fault;
use crate::mcp::{json, sse};
use crate::metrics::Open;
use crate::upstream::Subscription;

/// Names of the filter's members, in the order of [`TOLD`].
const WANTED: [&str; 3] = ["toolsListChanged", "promptsListChanged", "resourcesListChanged"];
/// Resources that one request may subscribe to.
const MOST_RESOURCES: usize = 1000;

/// What servers say of their resources, with the server's id: its index may change with the configuration.
/// None when a server no longer honours what it confirmed.
type Updates = SelectAll<BoxStream<'static, (ServerId, Option<Bytes>)>>;

/// How many streams each principal has open.
#[derive(Clone, Default)]
pub(super) struct Listens(Arc<Mutex<HashMap<String, usize>>>);

/// One of a principal's streams.
struct Place {
    listens: Listens,
    principal: String,
}

impl Listens {
    fn enter(&self, principal: &str, most: usize) -> Result<Place, Fault> {
        let mut open = self.0.lock();
        let own = open.entry(principal.to_owned()).or_default();
        if *own >= most {
            return Err(Fault::TooMany("too many subscriptions of this caller are open".into()));
        }
        *own += 1;
        Ok(Place { listens: self.clone(), principal: principal.to_owned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.listens.0.lock();
        let left = open.get(&self.principal).map_or(0, |own| own - 1);
        if left == 0 {
            open.remove(&self.principal);
        } else {
            open.insert(std::mem::take(&mut self.principal), left);
        }
    }
}

/// An open subscription.
struct Listening {
    exchange: Exchange,
    id: Id,
    wants: [bool; 3],
    seen: [Vec<u64>; 3],
    changes: watch::Receiver<u64>,
    updates: Updates,
    ready: Vec<Bytes>,
    over: bool,
    _place: Place,
    _open: Open,
}

impl Exchange {
    /// Opens the stream. Its first message says what of the filter is honoured.
    pub(super) async fn listen(&mut self, request: &Request) -> Result<Answer, Fault> {
        // Its answer is a stream and nothing else (2026-07-28, basic/patterns/subscriptions).
        if !web::accepts(&self.headers, "text/event-stream") {
            return Err(Fault::NotAcceptable(
                "subscriptions/listen is answered by a stream; Accept must name text/event-stream".into(),
            ));
        }
        let filter = request.params.get("notifications").unwrap_or(b"{}");
        let member = |key: &str| json::member(filter, key);
        let wants = WANTED.map(|key| member(key) == Some(b"true"));
        let uris: Vec<String> = match member("resourceSubscriptions") {
            None => Vec::new(),
            Some(raw) => serde_json::from_slice(raw)
                .map_err(|_| Fault::InvalidParams("resourceSubscriptions must be an array of URIs".into()))?,
        };
        if uris.len() > MOST_RESOURCES {
            return Err(Fault::InvalidParams("too many resources in one subscription".into()));
        }
        let bounds = self.gateway.shell.bounds;
        let place = self.gateway.listens.enter(&self.caller.principal, bounds.listens)?;
        // Of a server that is only just being reached nothing could be honoured, and nothing would be later.
        self.settle(bounds.list_grace, |_| false).await;
        let (honoured, updates) = self.subscribe(&uris).await;
        let mut changes = self.gateway.changes();
        // What changed since the view was taken that is compared with, too.
        changes.mark_changed();
        let listening = Listening {
            id: request.id.clone(),
            wants,
            seen: self.digests(Revision::V2026_07_28),
            changes,
            updates,
            ready: vec![acknowledged(&request.id, wants, &honoured)],
            over: false,
            _place: place,
            _open: self.gateway.shell.metrics.stream(&self.gateway.label),
            exchange: self.clone(),
        };
        let messages = unfold(listening, |mut listening| async move {
            let message = listening.next().await?;
            Some((Ok(sse::encode(Some("message"), None, &message)), listening))
        });
        Ok(web::events(web::kept_alive(messages)))
    }

    /// One subscription at each server that has some of the resources and speaks this era; the URIs that servers
    /// confirm, as the client named them. A resource that may not be read is as unknown as one that is not there.
    async fn subscribe(&self, uris: &[String]) -> (Vec<String>, Updates) {
        let mut by_server: HashMap<usize, Vec<(String, String)>> = HashMap::new();
        for uri in uris {
            let Some(routed) = self.view.resource(uri) else { continue };
            let object = Object::Resource { uri: &routed.uri };
            let seen = self.view.observed.get(routed.server);
            let takes = seen.is_some_and(|seen| takes_subscriptions(Era::Modern, seen));
            if takes && self.allows(routed.server, object) {
                by_server.entry(routed.server).or_default().push((uri.clone(), routed.uri.clone()));
            }
        }
        let subscribed = by_server.into_iter().filter_map(|(server, uris)| {
            let attached = self.view.config.attached.get(server)?;
            let wanted = uris.iter().map(|(_, original)| original.clone()).collect();
            let subscription = attached.upstream.subscribe(wanted, self.assertion(attached));
            Some(self.settled(attached.id.clone(), subscription, uris))
        });
        let (mut honoured, mut updates) = (Vec::new(), SelectAll::new());
        // Side by side: a server that does not answer keeps nobody waiting for the others.
        for (uris, told) in join_all(subscribed).await {
            honoured.extend(uris);
            updates.extend(told);
        }
        (honoured, updates)
    }

    /// Which of these resources the server confirms in time, as the client named them, and what it says of them.
    async fn settled(
        &self,
        id: ServerId,
        mut subscription: Subscription,
        uris: Vec<(String, String)>,
    ) -> (Vec<String>, Option<BoxStream<'static, (ServerId, Option<Bytes>)>>) {
        let confirmed = subscription.settle(self.gateway.shell.bounds.list_grace).await;
        let honoured = uris.into_iter().filter(|(_, original)| confirmed.contains(original));
        let honoured: Vec<_> = honoured.map(|(asked, _)| asked).collect();
        if honoured.is_empty() {
            return (honoured, None);
        }
        let told = unfold(Some((subscription, id)), |listening| async move {
            let (mut subscription, id) = listening?;
            let told = subscription.next().await;
            let next = told.is_some().then(|| (subscription, id.clone()));
            Some(((id, told), next))
        });
        (honoured, Some(told.boxed()))
    }
}

impl Listening {
    /// The next message; after the last word of a process that drains, none.
    async fn next(&mut self) -> Option<Bytes> {
        let draining = self.exchange.gateway.shell.draining.clone();
        loop {
            if let Some(message) = self.ready.pop() {
                return Some(message);
            }
            if self.over {
                return None;
            }
            tokio::select! {
                // In order: what servers say is judged by what is in force.
                biased;
                () = draining.cancelled() => return Some(self.last_word()),
                () = self.exchange.expired() => return Some(self.last_word()),
                changed = self.changes.changed() => {
                    if changed.is_err() || !self.exchange.refresh() {
                        return Some(self.last_word());
                    }
                    self.compare();
                }
                Some((server, told)) = self.updates.next(), if !self.updates.is_empty() => {
                    // Without the rest: the client asks anew, and is told what is honoured now.
                    let Some(raw) = told else { return Some(self.last_word()) };
                    if let Some(message) = self.update(&server, &raw) {
                        return Some(message);
                    }
                }
            }
        }
    }

    /// A server's update as this client may hear it, if it may.
    fn update(&self, server: &ServerId, raw: &Bytes) -> Option<Bytes> {
        let view = &self.exchange.view;
        let server = view.config.attached.iter().position(|attached| attached.id == *server)?;
        let told =
            self.exchange.may_hear_of(server, raw).then(|| updated(raw, view.wraps(server))).flatten()?;
        stamped(&told, &self.id)
    }

    fn compare(&mut self) {
        let now = self.exchange.digests(Revision::V2026_07_28);
        for (index, (_, notification)) in TOLD.iter().enumerate() {
            let changed = self.seen.get(index) != now.get(index);
            if changed && self.wants.get(index) == Some(&true) {
                let params = format!(r#"{{"_meta":{}}}"#, subscription(&self.id));
                self.ready.push(answer::notification(notification, Some(params.as_bytes())));
            }
        }
        self.seen = now;
    }

    fn last_word(&mut self) -> Bytes {
        self.over = true;
        let meta = answer::member("_meta", subscription(&self.id).as_bytes());
        let mut out = Vec::new();
        out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
        out.extend_from_slice(self.id.as_json());
        out.extend_from_slice(br#","result":{"resultType":"complete","#);
        out.extend_from_slice(&meta);
        out.extend_from_slice(b"}}");
        Bytes::from(out)
    }
}

/// The reserved `_meta` that ties a message to its subscription.
fn subscription(id: &Id) -> String {
    format!(r#"{{"io.modelcontextprotocol/subscriptionId":{}}}"#, String::from_utf8_lossy(id.as_json()))
}

fn acknowledged(id: &Id, wants: [bool; 3], uris: &[String]) -> Bytes {
    let mut honoured: Vec<String> = WANTED
        .iter()
        .zip(wants)
        .filter(|(_, wanted)| *wanted)
        .map(|(key, _)| format!(r#""{key}":true"#))
        .collect();
    if !uris.is_empty() {
        honoured.push(format!(r#""resourceSubscriptions":{}"#, serde_json::json!(uris)));
    }
    let params = format!(r#"{{"_meta":{},"notifications":{{{}}}}}"#, subscription(id), honoured.join(","));
    answer::notification("notifications/subscriptions/acknowledged", Some(params.as_bytes()))
}

/// An upstream's event under the client's subscription.
fn stamped(raw: &Bytes, id: &Id) -> Option<Bytes> {
    let params = json::member(raw, "params")?;
    let mut members: Vec<Bytes> = json::members(params)?
        .into_iter()
        .filter(|(key, _)| key != "_meta")
        .map(|(key, value)| answer::member(&key, value))
        .collect();
    members.push(answer::member("_meta", subscription(id).as_bytes()));
    let params = [b"{", members.join(&b","[..]).as_slice(), b"}"].concat();
    let method = json::member(raw, "method").and_then(json::text)?;
    Some(answer::notification(&method, Some(&params)))
}
