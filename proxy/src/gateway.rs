//! One gateway: the endpoint that clients see. Holds what outlives a request: the view in force, the sessions, the
//! keys of its handles.

mod answer;
mod audience;
mod legacy;
mod listen;
mod local;
mod modern;
mod plan;
mod post;
mod pump;
mod question;
mod record;
mod session_task;

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::stream::select_all;
use futures_util::{FutureExt, Stream, StreamExt};
use governor::DefaultDirectRateLimiter;
use mcpmesh_ir::{GatewayId, ServerId};
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::{BroadcastStream, WatchStream};
use tokio_util::sync::CancellationToken;

pub use post::Incoming;

use self::audience::Audiences;
use self::listen::Listens;
use crate::access_log::AccessLog;
use crate::catalog::{Attached, Config, View, Why, settled};
use crate::mcp::handle::{Binding, KeyRing};
use crate::metrics::{Label, Shared};
use crate::session::Sessions;

/// How long changes of servers are gathered before everything is named anew.
const GATHER: Duration = Duration::from_millis(20);

/// Resource updates that wait for a session that is slow to hear of them.
const UPDATES: usize = 256;

/// `notifications/resources/updated` of a server, heard in a session that clients share.
type Update = (ServerId, Bytes);

/// What all gateways of a process share.
#[derive(Clone)]
pub struct Shell {
    /// Where everything is counted.
    pub metrics: Shared,
    /// Where every request is written down.
    pub log: AccessLog,
    /// Seals session ids, cursors and request state.
    pub ring: Arc<KeyRing>,
    /// Bounds on clients.
    pub bounds: Bounds,
    /// Lets so many denials a second be told in the process's own log.
    pub denials: Arc<DefaultDirectRateLimiter>,
    /// Cancelled when the process drains: streams end with their last word.
    pub draining: CancellationToken,
}

/// Bounds on clients.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Requests of the process that are on their way to an answer.
    pub requests: usize,
    /// Bytes of a request's body.
    pub request_bytes: usize,
    /// For a request's body to arrive.
    pub request_time: Duration,
    /// Open legacy sessions of a gateway.
    pub sessions: usize,
    /// A session ends after this time without a request or stream.
    pub session_idle: Duration,
    /// The processes that it has of its own end after this time without a request or stream.
    pub process_idle: Duration,
    /// Open `subscriptions/listen` streams of one caller at a gateway.
    pub listens: usize,
    /// How long a list waits, after a server is attached, for its first catalogue; and a subscription for its servers'
    /// confirmations.
    pub list_grace: Duration,
    /// How long a call of an unknown name waits for it.
    pub call_grace: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            requests: 4096,
            request_bytes: 4 << 20,
            request_time: Duration::from_secs(30),
            sessions: 10_000,
            session_idle: Duration::from_secs(3600),
            process_idle: Duration::from_secs(300),
            listens: 256,
            list_grace: Duration::from_millis(800),
            call_grace: Duration::from_secs(5),
        }
    }
}

/// See the module.
pub struct Gateway {
    /// Its stable identity.
    pub id: GatewayId,
    /// The same as metrics and logs write it.
    pub label: Label,
    shell: Shell,
    view: ArcSwap<View>,
    changes: watch::Sender<u64>,
    updates: broadcast::Sender<Update>,
    sessions: Sessions,
    listens: Listens,
    audiences: Audiences,
    naming: Mutex<CancellationToken>,
}

impl Gateway {
    /// A gateway with its first configuration. Must be called inside a runtime.
    #[must_use]
    pub fn start(config: Arc<Config>, shell: Shell) -> Arc<Self> {
        let view = Arc::new(Self::see(&config, 0, None));
        view.tell_left_out(&[]);
        let gateway = Arc::new(Self {
            id: config.gateway.id.clone(),
            label: config.gateway.id.to_string().into(),
            shell,
            view: ArcSwap::new(view),
            changes: watch::Sender::new(0),
            updates: broadcast::Sender::new(UPDATES),
            sessions: Sessions::default(),
            listens: Listens::default(),
            audiences: Audiences::default(),
            naming: Mutex::new(CancellationToken::new()),
        });
        gateway.count_objects(true);
        gateway.follow(config);
        gateway
    }

    /// Puts another configuration in force: requests that began keep theirs.
    pub fn configure(self: &Arc<Self>, config: Arc<Config>) {
        {
            // Held over both: the task of the old configuration must not publish it once more after this.
            let naming = self.naming.lock();
            naming.cancel();
            let before = self.view();
            self.publish(&config);
            let kept: HashSet<_> = config.attached.iter().map(|attached| &attached.id).collect();
            self.uncount_objects(before.config.attached.iter().filter(|one| !kept.contains(&one.id)));
        }
        self.follow(config);
    }

    fn see(config: &Arc<Config>, generation: u64, before: Option<&View>) -> View {
        let observed =
            config.attached.iter().map(|one| one.upstream.observation().borrow().clone()).collect();
        View::new(Arc::clone(config), observed, generation, before)
    }

    /// Whoever hears of the change finds every audience's view as new as everyone's. The caller holds `naming`.
    fn publish(self: &Arc<Self>, config: &Arc<Config>) {
        let before = self.view();
        let generation = before.generation + 1;
        let view = Self::see(config, generation, Some(&before));
        view.tell_left_out(&[&before]);
        let leaves_out = before.leaves_out() || view.leaves_out();
        self.view.store(Arc::new(view));
        self.show((!Arc::ptr_eq(&before.config, config)).then_some(config));
        self.count_objects(leaves_out);
        self.changes.send_replace(generation);
    }

    /// `leaves_out`: something is left out, or was when it was counted last. Mostly nothing ever is.
    fn count_objects(&self, leaves_out: bool) {
        let view = self.view.load();
        let metrics = &self.shell.metrics;
        for (server, (attached, seen)) in view.config.attached.iter().zip(&view.observed).enumerate() {
            metrics.quarantined(&self.label, &attached.label, attached.quarantined(seen));
            metrics.hiding(&self.label, &attached.label, seen.hiding);
            for why in Why::ALL.into_iter().filter(|_| leaves_out) {
                metrics.left_out(&self.label, &attached.label, why, view.left_out(server, why));
            }
        }
    }

    fn uncount_objects<'a>(&self, gone: impl Iterator<Item = &'a Attached>) {
        for attached in gone {
            self.shell.metrics.forget_objects(&self.label, &attached.label);
        }
    }

    /// Whether a server of the configuration has been seen otherwise than the view shows it.
    fn is_behind(&self, config: &Config) -> bool {
        let view = self.view.load();
        let mut pairs = config.attached.iter().zip(&view.observed);
        pairs.any(|(attached, seen)| !Arc::ptr_eq(&attached.upstream.observation().borrow(), seen))
    }

    /// Whether the last server that the view waits for has been heard of.
    fn settles(&self) -> bool {
        let view = self.view.load();
        let heard = |one: &Attached| settled(&one.upstream.observation().borrow());
        !view.settled() && view.config.attached.iter().all(heard)
    }

    /// Publishes unless another configuration is in force by now.
    fn publish_until(self: &Arc<Self>, config: &Arc<Config>, until: &CancellationToken) {
        let _naming = self.naming.lock();
        if !until.is_cancelled() {
            self.publish(config);
        }
    }

    /// Names everything anew whenever a server's objects change, until the next configuration.
    fn follow(self: &Arc<Self>, config: Arc<Config>) {
        let until = CancellationToken::new();
        *self.naming.lock() = until.clone();
        let gateway = Arc::downgrade(self);
        let receivers: Vec<_> = config.attached.iter().map(|one| one.upstream.observation()).collect();
        let updates = self.forward_updates(&config);
        let mut changes = select_all(receivers.into_iter().map(WatchStream::from_changes));
        let current = until.clone();
        let work = async move {
            // What changed between the first look and this subscription.
            if let Some(gateway) = gateway.upgrade()
                && gateway.is_behind(&config)
            {
                gateway.publish_until(&config, &current);
            }
            while changes.next().await.is_some() {
                gather(&mut changes, || gateway.upgrade().is_some_and(|gateway| gateway.settles())).await;
                let Some(gateway) = gateway.upgrade() else { return };
                gateway.publish_until(&config, &current);
            }
        };
        tokio::spawn(async move { until.run_until_cancelled(async { tokio::join!(work, updates) }).await });
    }

    /// Hands the updates of shared sessions to whoever subscribed.
    fn forward_updates(&self, config: &Config) -> impl Future<Output = ()> + use<> {
        let sender = self.updates.clone();
        let heard = config.attached.iter().map(|one| {
            let id = one.id.clone();
            // A receiver that lags has missed updates: the client reads the resource at the next one.
            BroadcastStream::new(one.upstream.updates()).filter_map(move |raw| {
                let update = raw.ok().map(|raw| (id.clone(), raw));
                async move { update }
            })
        });
        let mut heard = select_all(heard.map(StreamExt::boxed));
        async move {
            while let Some(update) = heard.next().await {
                // Without sessions nobody wants it.
                let _ = sender.send(update);
            }
        }
    }

    /// The view in force.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Told whenever the view changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Ends sessions that nobody uses.
    pub fn tidy(&self) {
        self.sessions.expire(self.shell.bounds.session_idle, now());
        self.sessions.rest(self.shell.bounds.process_idle);
        self.audiences.tidy();
    }

    /// Ends every session: the gateway is gone or the process ends.
    pub fn end(&self) {
        self.naming.lock().cancel();
        self.sessions.end_all();
        self.audiences.end();
        self.uncount_objects(self.view().config.attached.iter());
    }

    fn binding<'a>(view: &'a View, principal: &'a str) -> Binding<'a> {
        Binding { gateway_uid: &view.config.gateway.uid, principal }
    }
}

/// Lets changes come together, but not past the one that `settles`: whoever waits for the first whole list waits no longer
/// than for its last server.
async fn gather(changes: &mut (impl Stream + Unpin), settles: impl Fn() -> bool) {
    let mut gathered = pin!(tokio::time::sleep(GATHER));
    while !settles() {
        tokio::select! {
            () = &mut gathered => break,
            Some(_) = changes.next() => {}
        }
    }
    while let Some(Some(_)) = changes.next().now_or_never() {}
}

/// Seconds since the Unix epoch.
fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::stream;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn changes_are_gathered_for_a_while_but_not_past_the_last_server_that_is_waited_for() {
        let begun = Instant::now();
        let heard = AtomicBool::new(false);
        let last = stream::iter([()]).inspect(|()| heard.store(true, Ordering::Relaxed));
        gather(&mut last.chain(stream::pending()), || heard.load(Ordering::Relaxed)).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        gather(&mut stream::iter([(), ()]).chain(stream::pending()), || false).await;
        assert!(begun.elapsed() >= GATHER, "others may follow");
    }
}
