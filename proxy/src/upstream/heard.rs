//! `resources/subscribe` of a legacy client at a server that is modern only: a subscription there, whose updates go where
//! a legacy session's would.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use tokio_util::sync::CancellationToken;

use super::inbox::{Answerer, Back, Unsolicited};
use super::link::SessionLink;
use super::observe::{LONGEST_PAUSE, jitter};
use super::reply::{Event, Reply};
use super::subscribe::{Subscription, missed};
use super::wire;
use super::{Core, Error, Outgoing};
use crate::mcp::envelope::{INVALID_PARAMS, Id, Method};

/// A resource that a link listens to.
struct Heard {
    link: Weak<SessionLink>,
    uri: String,
    assertion: Option<HeaderValue>,
}

impl Core {
    /// Answers a legacy client's `resources/subscribe` or `resources/unsubscribe`.
    pub(super) async fn translate_subscription(
        self: &Arc<Self>,
        link: &Arc<SessionLink>,
        uri: &str,
        request: &Outgoing,
    ) -> Result<Reply, Error> {
        self.know(link);
        link.assert(self.instance, request.assertion.clone());
        let wanted = request.method == Method::ResourcesSubscribe;
        let mut agreed = true;
        if !wanted {
            link.listen(self.instance, uri, None);
        } else if !link.listens(self.instance, uri) {
            let mut subscription = self.subscribe(vec![uri.to_owned()], request.assertion.clone());
            agreed = !subscription.settle(self.config.timeouts.connect).await.is_empty();
            if agreed {
                self.listen_for(link, (uri.to_owned(), request.assertion.clone()), Some(subscription));
            }
        }
        if agreed {
            link.subscribe(&self.config.id, uri, wanted);
            return Ok(self.agreed());
        }
        let id = self.next_id();
        let message = "the server does not tell when this resource changes";
        Ok(Reply::answered(id, wire::refusal(&Id::from(id), INVALID_PARAMS, message)))
    }

    /// The answer to a request about a subscription that needs no server.
    pub(super) fn agreed(&self) -> Reply {
        let id = self.next_id();
        Reply::answered(id, wire::result(&Id::from(id), b"{}"))
    }

    /// Listens for everything that a link is subscribed to and does not listen for yet.
    pub(super) fn listen_for_all(self: &Arc<Self>, link: &Arc<SessionLink>) {
        for uri in link.subscribed(&self.config.id) {
            if !link.listens(self.instance, &uri) {
                self.listen_for(link, (uri, link.assertion(self.instance)), None);
            }
        }
    }

    fn listen_for(
        self: &Arc<Self>,
        link: &Arc<SessionLink>,
        (uri, assertion): (String, Option<HeaderValue>),
        open: Option<Subscription>,
    ) {
        let until = CancellationToken::new();
        link.listen(self.instance, &uri, Some(until.clone().drop_guard()));
        let heard = Heard { link: Arc::downgrade(link), uri, assertion };
        let (core, stop) = (Arc::clone(self), self.stop.clone());
        tokio::spawn(async move {
            let work = Box::pin(heard.run(core, open));
            until.run_until_cancelled(stop.run_until_cancelled(work)).await;
        });
    }
}

impl Heard {
    /// Until it is cancelled; a server that takes back what it confirmed is asked again from time to time.
    async fn run(self, core: Arc<Core>, mut open: Option<Subscription>) {
        loop {
            if let Some(mut subscription) = open.take() {
                while let Some(raw) = subscription.next().await {
                    self.tell(&core, raw).await;
                }
                tokio::time::sleep(jitter(LONGEST_PAUSE)).await;
            }
            let mut subscription = core.subscribe(vec![self.uri.clone()], self.assertion.clone());
            if subscription.settle(Duration::MAX).await.is_empty() {
                tokio::time::sleep(jitter(LONGEST_PAUSE)).await;
                continue;
            }
            self.tell(&core, missed(&self.uri)).await;
            open = Some(subscription);
        }
    }

    async fn tell(&self, core: &Core, raw: Bytes) {
        let Some(inbox) = self.link.upgrade().and_then(|link| link.inbox.clone()) else { return };
        let event = Event::Notification { method: Method::NotificationsResourcesUpdated, raw };
        let answerer = Answerer(Back::Nobody);
        // The client's session may have ended meanwhile.
        let _ = inbox.send(Unsolicited { server: core.config.id.clone(), event, answerer }).await;
    }
}
