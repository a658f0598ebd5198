//! Tells the operator of the servers that this proxy observes, whenever what is known of them changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mcpmesh_ir::ServerId;
use mcpmesh_ir::catalog::Observed;
use mcpmesh_ir::push::Observation;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::catalog;
use crate::proxy::{Proxy, ServerStatus};
use crate::upstream;

/// A server that starts changes several times at once: one message tells all of it.
const DEBOUNCE: Duration = Duration::from_millis(250);

/// What a stream has been told.
pub(super) struct Observer {
    proxy: Arc<Proxy>,
    changes: watch::Receiver<Vec<ServerStatus>>,
    bypass: watch::Receiver<bool>,
    servers: BTreeSet<ServerId>,
    /// When to look again.
    due: Option<Instant>,
    /// What was looked at last, and what was said of it.
    seen: BTreeMap<ServerId, (Arc<upstream::Observation>, bool, Bytes)>,
    /// Found and not said yet.
    ready: Vec<Observation>,
}

impl Observer {
    /// Of nothing yet.
    pub(super) fn new(proxy: &Arc<Proxy>, bypass: watch::Receiver<bool>) -> Self {
        Self {
            bypass,
            changes: proxy.servers(),
            proxy: Arc::clone(proxy),
            servers: BTreeSet::new(),
            due: None,
            seen: BTreeMap::new(),
            ready: Vec::new(),
        }
    }

    /// From now on these, as `namespace/name`.
    pub(super) fn observe(&mut self, servers: &[String]) {
        self.servers = servers.iter().filter_map(|id| id.parse().ok()).collect();
        self.seen.retain(|id, _| self.servers.contains(id));
        self.due = Some(Instant::now() + DEBOUNCE);
    }

    /// The next thing to say. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Observation {
        loop {
            if let Some(found) = self.ready.pop() {
                return found;
            }
            if let Some(due) = self.due {
                tokio::time::sleep_until(due).await;
                self.due = None;
                self.look();
            } else {
                tokio::select! {
                    () = turned(&mut self.changes) => {}
                    () = turned(&mut self.bypass) => {}
                }
                self.due = Some(Instant::now() + DEBOUNCE);
            }
        }
    }

    fn look(&mut self) {
        self.changes.mark_unchanged();
        let bypassable = *self.bypass.borrow_and_update();
        for server in &self.servers {
            let Some(upstream) = self.proxy.upstream(server) else { continue };
            let now = upstream.observation().borrow().clone();
            let before = self.seen.get(server);
            if before.is_some_and(|(seen, knew, _)| Arc::ptr_eq(seen, &now) && *knew == bypassable) {
                continue;
            }
            let observed = Observed { bypassable, ..catalog::observed(&now) };
            let Ok(body) = serde_json::to_vec(&observed).map(Bytes::from) else { continue };
            if before.is_none_or(|(.., said)| *said != body) {
                self.ready.push(Observation { server: server.to_string(), body: body.clone() });
            }
            self.seen.insert(server.clone(), (now, bypassable, body));
        }
    }
}

/// Until something changes; never, once nothing can any more.
async fn turned<T>(watched: &mut watch::Receiver<T>) {
    if watched.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
