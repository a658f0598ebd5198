//! What happens in a session between its requests: what servers say unasked, and changes of the lists.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use mcpmesh_ir::ServerId;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::answer;
use super::post::Exchange;
use super::pump::{logged, updated};
use super::question::{self, Question};
use crate::catalog::ListKind;
use crate::mcp::envelope::Method;
use crate::mcp::json;
use crate::mcp::meta::LogLevel;
use crate::mcp::rewrite::{UriWrap, updated_uri};
use crate::session::Session;
use crate::upstream::{Event, Unsolicited};

/// The lists whose changes are told, with the notification that does.
pub(super) const TOLD: [(&[ListKind], &str); 3] = [
    (&[ListKind::Tools], "notifications/tools/list_changed"),
    (&[ListKind::Prompts], "notifications/prompts/list_changed"),
    (&[ListKind::Resources, ListKind::Templates], "notifications/resources/list_changed"),
];

/// Attends to a session until it ends.
pub(super) fn start(exchange: Exchange, session: &Arc<Session>, inbox: mpsc::Receiver<Unsolicited>) {
    tokio::spawn(attend(exchange, Arc::downgrade(session), inbox));
}

async fn attend(mut exchange: Exchange, session: Weak<Session>, mut inbox: mpsc::Receiver<Unsolicited>) {
    let Some(live) = session.upgrade() else { return };
    let (revision, id) = (live.terms.revision, live.terms.id.clone());
    let mut changes = exchange.gateway.changes();
    // What changed since the view of `initialize`, too.
    changes.mark_changed();
    let mut updates = exchange.gateway.updates.subscribe();
    // What the client's first list waits for is no change of it.
    let grace = exchange.gateway.shell.bounds.list_grace;
    tokio::select! {
        () = live.ended() => return,
        () = exchange.settle(grace, |_| false) => {}
    }
    let mut seen = exchange.digests(revision);
    let draining = exchange.gateway.shell.draining.clone();
    loop {
        tokio::select! {
            // In order: what servers say is judged by what is in force.
            biased;
            () = live.ended() => return,
            () = exchange.expired() => {
                exchange.gateway.sessions.remove(&id, &live.terms.principal);
                return;
            }
            () = draining.cancelled() => return live.outbox.close(),
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                // A caller whose key is gone has no session any more.
                if !exchange.refresh() {
                    exchange.gateway.sessions.remove(&id, &live.terms.principal);
                    return;
                }
                if live.link.has_subscriptions() {
                    for attached in &exchange.view.config.attached {
                        attached.upstream.adopt(&live.link, exchange.assertion(attached));
                    }
                }
                let now = exchange.digests(revision);
                for ((_, notification), _) in TOLD.iter().zip(seen.iter().zip(&now)).filter(|(_, (a, b))| a != b) {
                    live.outbox.offer(&answer::notification(notification, None));
                }
                seen = now;
            }
            said = inbox.recv() => match said {
                Some(said) => heard(&exchange, &live, said),
                None => return,
            },
            update = updates.recv() => match update {
                Ok((server, raw)) => live.outbox.offer_some(resource_updated(&exchange, &live, &server, &raw)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
        }
    }
}

impl Exchange {
    /// What tells whether this caller's lists changed.
    pub(super) fn digests(&self, revision: crate::mcp::era::Revision) -> [Vec<u64>; 3] {
        TOLD.map(|(kinds, _)| kinds.iter().map(|kind| self.listed(*kind, revision).digest()).collect())
    }
}

/// Something that a server said outside any call.
fn heard(exchange: &Exchange, session: &Arc<Session>, said: Unsolicited) {
    let server = exchange.view.config.attached.iter().position(|attached| attached.id == said.server);
    let Some(server) = server else { return };
    let message = match said.event {
        Event::Notification { method: Method::NotificationsResourcesUpdated, raw } => {
            resource_updated(exchange, session, &said.server, &raw)
        }
        Event::Notification { method: Method::NotificationsMessage, raw } => {
            let level = json::member(&raw, "params").and_then(|params| json::member(params, "level"));
            let level = level.and_then(json::text).and_then(|level| LogLevel::parse(&level));
            let wanted = session.log_level().unwrap_or(LogLevel::Debug);
            level.filter(|level| *level >= wanted).map(|_| logged(&raw, exchange.view.wraps(server)))
        }
        Event::Notification { method: Method::NotificationsCancelled, raw } => {
            question::withdrawn(session, &said.answerer, &raw)
        }
        Event::Notification { method: Method::NotificationsElicitationComplete, raw } => {
            question::completed(session, &raw)
        }
        // Lists that changed are told from the gateway's own view, which knows what this caller may see.
        Event::Notification { .. } | Event::Response(_) => None,
        Event::Request { id, method, raw } => {
            let answerer = said.answerer;
            let question = Question { id, method: &method, raw: &raw, answerer: answerer.clone() };
            let uris = exchange.view.wraps(server).map(|prefix| UriWrap { prefix: prefix.into() });
            question.put(session, uris).map_err(|refusal| answerer.send_detached(refusal)).ok()
        }
    };
    session.outbox.offer_some(message);
}

/// Judges what a server says of its resources in the middle of a session's call.
pub(super) struct Hears {
    pub(super) exchange: Exchange,
    pub(super) session: Arc<Session>,
    pub(super) server: ServerId,
}

impl Hears {
    /// An update as the client may hear it now, if it may.
    pub(super) fn updated(&self, raw: &Bytes) -> Option<Bytes> {
        let mut now = self.exchange.clone();
        now.refresh().then(|| resource_updated(&now, &self.session, &self.server, raw))?
    }
}

/// An update that this client subscribed to and may still read.
fn resource_updated(exchange: &Exchange, session: &Session, server: &ServerId, raw: &Bytes) -> Option<Bytes> {
    let uri = updated_uri(raw)?;
    let index = exchange.view.config.attached.iter().position(|attached| attached.id == *server)?;
    let may = exchange.may_hear_of(index, raw);
    (may && session.link.is_subscribed(server, &uri)).then(|| updated(raw, exchange.view.wraps(index)))?
}
