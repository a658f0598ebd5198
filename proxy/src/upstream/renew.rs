//! Subscriptions of legacy sessions outlive the sessions of their servers: what takes a lost one's place subscribes
//! again, and the client is told of what it may have missed.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use http::HeaderValue;

use super::detect::{Live, Wire};
use super::inbox::Unsolicited;
use super::link::SessionLink;
use super::reply::Event;
use super::route::is_askable;
use super::session::{Session, Slot};
use super::subscribe::missed;
use super::wire::{self, Answer, MetaParts};
use super::{Core, Error};
use crate::mcp::envelope::Method;
use crate::mcp::era::Era;

impl Core {
    /// Remembers a link that uses this upstream: the place of its session, and whether it is new.
    pub(super) fn know(&self, link: &Arc<SessionLink>) -> (Arc<Slot>, bool) {
        let (slot, new) = link.know(self.instance);
        if new {
            let mut links = self.links.lock();
            links.retain(|link| link.strong_count() > 0);
            links.push(Arc::downgrade(link));
        }
        (slot, new)
    }

    /// Whether another client still wants what this one subscribed to in a process that both share.
    pub(super) fn is_shared_subscription(&self, live: &Live, link: &Arc<SessionLink>, uri: &str) -> bool {
        let shares = |one: &SessionLink| !is_askable(one.capabilities.set());
        let wants = |one: &SessionLink| one.subscribed(&self.config.id).iter().any(|own| own == uri);
        let known: Vec<_> = self.links.lock().iter().filter_map(Weak::upgrade).collect();
        let other = |one: &Arc<SessionLink>| !Arc::ptr_eq(one, link) && shares(one) && wants(one);
        matches!(live.wire, Wire::Stdio(_)) && shares(link) && known.iter().any(other)
    }

    /// Takes over what the client subscribed to at another upstream of this server.
    pub(super) fn adopt(&self, link: &Arc<SessionLink>, assertion: Option<HeaderValue>) {
        if !link.subscribed(&self.config.id).is_empty() && self.know(link).1 {
            link.assert(self.instance, assertion);
            self.changed.notify_one();
        }
    }

    /// Renews the subscriptions of every link whose session is gone or missed something: a client that only listens
    /// makes no call that would.
    pub(super) fn renew_all(self: &Arc<Self>, live: &Arc<Live>) {
        // Told again once that is known.
        let Some(legacy) = live.legacy.so_far() else { return };
        let links: Vec<_> = self.links.lock().iter().filter_map(Weak::upgrade).collect();
        let links: Vec<_> =
            links.into_iter().filter(|link| !link.subscribed(&self.config.id).is_empty()).collect();
        if legacy.is_none() {
            return links.iter().for_each(|link| self.listen_for_all(link));
        }
        if links.is_empty() {
            return;
        }
        let (core, live, stop) = (Arc::clone(self), Arc::clone(live), self.stop.clone());
        let work = async move {
            for link in links {
                // Opened before the server went away for long: nothing it says would be heard.
                if let Some(slot) = link.slot(core.instance) {
                    slot.lock().await.take_if(|session| session.is_deaf());
                }
                let assertion = link.assertion(core.instance);
                if let Err(error) = core.linked(&live, &link, assertion.as_ref()).await {
                    tracing::debug!(server = %core.config.id, %error, "could not renew subscriptions");
                }
            }
        };
        tokio::spawn(async move { stop.run_until_cancelled(Box::pin(work)).await });
    }

    /// Subscribes again, in the background, if what the link's session heard so far has an end.
    pub(super) fn renew(
        self: &Arc<Self>,
        link: &Arc<SessionLink>,
        session: &Arc<Session>,
        assertion: Option<&HeaderValue>,
    ) {
        let moves = link.moves(self.instance, session.epoch(), assertion);
        let wanted = if moves { link.subscribed(&self.config.id) } else { Vec::new() };
        if wanted.is_empty() {
            return;
        }
        let (core, link, session) = (Arc::clone(self), Arc::downgrade(link), Arc::clone(session));
        let (stop, work) =
            (self.stop.clone(), async move { core.subscribe_again(&link, &session, wanted).await });
        tokio::spawn(async move { stop.run_until_cancelled(Box::pin(work)).await });
    }

    async fn subscribe_again(&self, link: &Weak<SessionLink>, session: &Arc<Session>, wanted: Vec<String>) {
        for uri in wanted {
            // The client's session may have ended meanwhile.
            let Some(link) = link.upgrade() else { return };
            match self.subscribe_in(session, &uri).await {
                Ok(true) => self.tell_missed(&link, session, &uri).await,
                Ok(false) => {
                    tracing::debug!(server = %self.config.id, "a subscription is not renewed by its server");
                    link.subscribe(&self.config.id, &uri, false);
                }
                Err(error) => {
                    tracing::debug!(server = %self.config.id, %error, "could not renew a subscription");
                    return link.unsettle(self.instance);
                }
            }
        }
    }

    /// Whether the server agreed.
    async fn subscribe_in(&self, session: &Session, uri: &str) -> Result<bool, Error> {
        let members = format!(r#""uri":{}"#, serde_json::Value::from(uri));
        let (id, parts) = (self.next_id(), MetaParts::default());
        let body = wire::request(id, &Method::ResourcesSubscribe, members.as_bytes(), &parts, Era::Legacy);
        let mut reply = session.call(id, body, self.bounds(self.config.timeouts.connect, false)).await?;
        while let Some(event) = reply.next().await {
            if let Event::Response(body) = event? {
                return Ok(matches!(wire::answer(&body.collect().await?), Some(Answer::Result(_))));
            }
        }
        Ok(false)
    }

    async fn tell_missed(&self, link: &SessionLink, session: &Session, uri: &str) {
        let raw: Bytes = missed(uri);
        match &link.inbox {
            Some(inbox) => {
                let event = Event::Notification { method: Method::NotificationsResourcesUpdated, raw };
                let said =
                    Unsolicited { server: self.config.id.clone(), event, answerer: session.answerer() };
                // The client's session may have ended meanwhile.
                let _ = inbox.send(said).await;
            }
            None => drop(self.updates.send(raw)),
        }
    }
}
