//! The upstream's own life: reach the server, find out what it speaks, keep its lists current,
//! begin again with growing pauses when it goes away.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use mcpmesh_ir::EgressRule;
use tokio::sync::watch;
use tokio::time::Instant;

use super::catalogue::{Eras, Observation, Offers, State};
use super::config::{Endpoint, Transport};
use super::detect::{self, Live, Opened, Wire};
use super::error::{Error, Kind};
use super::http::Http;
use super::legacy::Legacy;
use super::lists::Read;
use super::reply::Event;
use super::route::Started;
use super::service::Service;
use super::session::{Handshake, Profile, Session};
use super::wire::{self, Answer};
use super::{Core, Outgoing};
use crate::mcp::envelope::Method;
use crate::mcp::era::{Era, Revision};

/// First pause between attempts.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A server that stayed this long is restarted without a pause that remembers.
pub(super) const STEADY: Duration = Duration::from_secs(10);
/// A workload may take this long until its port answers.
const STARTING: Duration = Duration::from_secs(60);
/// Change notifications come in bursts.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Failed refreshes in a row after which everything is found out anew.
const MAX_FAILURES: u32 = 3;

/// Between half of `whole` and all of it, so that many do not come at once.
pub(super) fn jitter(whole: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 512;
    whole.mul_f64(0.5 + random as f64 / 1024.0)
}

/// Runs until the upstream is stopped.
pub(super) async fn run(core: Arc<Core>) {
    tokio::select! {
        () = supervise(&core) => {}
        () = core.stop.cancelled() => {}
    }
    if let Some(live) = core.live.send_replace(None) {
        live.legacy.give_up();
    }
    core.pool.clear();
    let links = std::mem::take(&mut *core.links.lock());
    for link in links.iter().filter_map(std::sync::Weak::upgrade) {
        if let Some(slot) = link.slot(core.instance) {
            slot.lock().await.take();
        }
    }
}

async fn supervise(core: &Arc<Core>) {
    let mut attempts = 0;
    loop {
        let begun = Instant::now();
        // From before the attempt on: what comes in the middle of it is not missed.
        let mut news = News::of(core);
        let (error, served) = serve(core).await;
        core.live.send_replace(None);
        core.pool.clear();
        let Some(error) = error else { continue };
        core.tell(&error);
        core.failed(&error);
        attempts = if served && begun.elapsed() >= STEADY { 0 } else { attempts + 1 };
        let pause = FIRST_PAUSE.saturating_mul(1 << attempts.min(8)).min(LONGEST_PAUSE);
        let pause = error.retry_after.map_or(pause, |asked| asked.clamp(pause, LONGEST_PAUSE));
        tokio::select! {
            () = tokio::time::sleep(jitter(pause)) => {}
            () = core.refresh.notified() => {}
            () = news.come() => {}
        }
    }
}

/// Reaches the server and serves until it goes away, or until it is to be found out anew what it
/// speaks (no error). Says whether it ever was there.
async fn serve(core: &Arc<Core>) -> (Option<Error>, bool) {
    let (live, _workload) = match establish(core).await {
        Ok(found) => found,
        Err(error) => return (Some(error), false),
    };
    let live = Arc::new(live);
    core.live.send_replace(Some(Arc::clone(&live)));
    core.breaker.reset();
    let error = tokio::select! {
        // In order: the lists are asked for first.
        biased;
        error = keep_current(core, &live) => Some(error),
        error = died(&live) => Some(error),
        () = look_for_sessions(core, &live) => None,
        () = hear_changes(core, &live) => None,
        () = instances_change(core) => None,
        () = core.doubted.notified() => None,
    };
    live.legacy.give_up();
    (error, true)
}

/// Finds out whether a modern server also opens sessions, if nobody knows. Never returns.
async fn look_for_sessions(core: &Arc<Core>, live: &Arc<Live>) {
    if let (Wire::Http(http), None) = (&live.wire, live.legacy.so_far()) {
        let inbox = core.inbox(core.shared(false));
        let tell = |revision| core.opens_sessions(live, revision);
        detect::sessions_beside(http, inbox, core.config.timeouts.connect, tell).await;
    }
    std::future::pending::<()>().await;
}

async fn died(live: &Live) -> Error {
    match live.shared() {
        Some(session) => session.died().await,
        None => std::future::pending().await,
    }
    Error::sent(Kind::Reset)
}

/// Finds the server and what it speaks. The guard ends an HTTP workload.
async fn establish(core: &Arc<Core>) -> Result<(Live, Option<super::Guard>), Error> {
    let shared = core.shared(false);
    let (url, transport, egress, guard) = match &core.config.endpoint {
        Endpoint::Remote { url, transport } => (url.clone(), *transport, core.config.egress.clone(), None),
        Endpoint::Service { addresses, url, transport, mesh } => {
            core.has_instance()?;
            if mesh.is_some() {
                // Nobody would let us in. Until then the server is one that was not heard of yet, not one that failed:
                // requests wait for it.
                core.deps.mesh.certified().await;
            }
            let peer = mesh.clone().map(|server| (core.deps.mesh.clone(), server));
            let service = Service::new(addresses.clone(), core.config.timeouts.connect, peer);
            let http = Http::to_service(&core.config, url.clone(), service)?;
            let live = match mesh {
                Some(_) => detect::over_mesh(http).await?,
                None => {
                    keep(core, detect::over_http(http, *transport, &|| core.inbox(shared.clone())).await?)
                        .await
                }
            };
            return Ok((live, None));
        }
        Endpoint::Workload => match core.connect(&core.inbox(shared.clone()), None).await? {
            Started::Process(channel) => return process(core, channel).await.map(|live| (live, None)),
            Started::Port(url, guard) => (url, Transport::Auto, EgressRule::private(), Some(guard)),
        },
    };
    let http = Http::new(&core.config, url, egress)?;
    let patience = guard.as_ref().map_or(Duration::ZERO, |_| STARTING);
    let begun = Instant::now();
    let (live, session) = loop {
        match detect::over_http(Arc::clone(&http), transport, &|| core.inbox(shared.clone())).await {
            // A workload that was just started does not listen yet: leave it the time.
            Err(Error { kind: Kind::Connect(_), .. }) if begun.elapsed() < patience => {
                tokio::time::sleep(FIRST_PAUSE).await;
            }
            found => break found?,
        }
    };
    Ok((keep(core, (live, session)).await, guard))
}

/// A server that only has sessions is observed in the one that just opened.
async fn keep(core: &Core, (live, session): (Live, Option<Session>)) -> Live {
    if let (Some(session), None) = (session, &live.modern) {
        *core.pool.slot(super::pool::Key::plain()).lock().await = Some(Arc::new(session));
    }
    live
}

/// Reads the lists again when the instances are others, which may have other tools. Never returns.
async fn instances_change(core: &Core) {
    if let Endpoint::Service { addresses, .. } = &core.config.endpoint {
        let mut news = addresses.watch();
        while news.changed().await.is_ok() {
            core.changed.notify_one();
        }
    }
    std::future::pending::<()>().await;
}

/// What a server that is away may be waiting for: its first address, or our certificate.
struct News {
    instances: watch::Receiver<Vec<SocketAddr>>,
    certificates: watch::Receiver<u64>,
    wanted: bool,
}

impl News {
    fn of(core: &Core) -> Self {
        let certificates = core.deps.mesh.installed();
        match &core.config.endpoint {
            Endpoint::Service { addresses, .. } => {
                Self { instances: addresses.watch(), certificates, wanted: true }
            }
            Endpoint::Remote { .. } | Endpoint::Workload => {
                Self { instances: watch::Sender::default().subscribe(), certificates, wanted: false }
            }
        }
    }

    async fn come(&mut self) {
        if !self.wanted {
            return std::future::pending().await;
        }
        tokio::select! {
            Ok(()) = self.instances.changed() => {}
            Ok(()) = self.certificates.changed() => {}
            else => std::future::pending().await,
        }
    }
}

async fn process(core: &Arc<Core>, channel: super::channel::Channel) -> Result<Live, Error> {
    let patience = core.config.timeouts.start();
    let session = if core.exits_on_probe.load(Ordering::Relaxed) {
        Session::open_channel(channel, &Profile::default(), patience).await?
    } else {
        match detect::over_channel(channel, &core.config).await? {
            Opened::Session(session) => *session,
            Opened::ExitedOnProbe => {
                let inbox = core.inbox(core.shared(false));
                let Started::Process(channel) = core.connect(&inbox, None).await? else {
                    return Err(Error::unsent(Kind::Unavailable));
                };
                let session = Session::open_channel(channel, &Profile::default(), patience).await?;
                core.exits_on_probe.store(true, Ordering::Relaxed);
                session
            }
        }
    };
    let (modern, legacy) = match session.era {
        Era::Modern => {
            let listed = session.handshake.supported.iter().copied();
            let legacy = listed.filter(|revision| *revision < Revision::V2026_07_28).max();
            (Some(session.handshake.clone()), legacy)
        }
        Era::Legacy => (None, Some(session.handshake.revision)),
    };
    let legacy = Legacy::is(legacy);
    Ok(Live { modern, legacy, wire: Wire::Stdio(Arc::new(session)), of_mesh: false })
}

/// Reads the lists now, when they change and from time to time. Returns when that fails for long.
async fn keep_current(core: &Arc<Core>, live: &Arc<Live>) -> Error {
    let (mut failures, mut partly) = (0, 0);
    // What it has just said of itself in the probe is not asked again.
    let mut said = live.modern.clone().filter(Handshake::is_said);
    loop {
        let read = match said.take() {
            Some(handshake) => core.publish_lists(live, handshake).await,
            None => core.refresh_lists(live).await,
        };
        let pause = match read {
            Ok(all) => {
                failures = 0;
                partly = if all { 0 } else { partly + 1 };
                core.renew_all(live);
                if all { core.config.poll } else { core.config.poll.min(growing(partly)) }
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(server = %core.config.id, %error, "could not read the server's lists");
                if failures >= MAX_FAILURES {
                    return error;
                }
                core.degraded(&error);
                growing(failures)
            }
        };
        core.pool.reap();
        tokio::select! {
            () = tokio::time::sleep(jitter(pause)) => {}
            () = core.refresh.notified() => {}
            () = core.changed.notified() => tokio::time::sleep(DEBOUNCE).await,
        }
    }
}

/// The pause before lists are asked for again that failed so often.
fn growing(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(8))
}

/// A modern server tells of changed lists on a subscription. Never returns.
async fn hear_changes(core: &Arc<Core>, live: &Arc<Live>) {
    let announces = live.modern.as_ref().is_some_and(|one| Offers::read(&one.capabilities).list_changed);
    let mut failures: u32 = 0;
    while announces && failures < 8 {
        let filter = br#"{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true}"#;
        let begun = Instant::now();
        if let Ok(mut reply) = core.listen(live, filter, None).await {
            while let Some(Ok(event)) = reply.next().await {
                match event {
                    Event::Notification {
                        method: Method::NotificationsSubscriptionsAcknowledged, ..
                    } => {
                        // What changed while nobody listened would be missed.
                        if failures > 0 {
                            core.changed.notify_one();
                        }
                    }
                    Event::Notification { .. } => core.changed.notify_one(),
                    Event::Request { .. } | Event::Response(_) => {}
                }
            }
        }
        failures = if begun.elapsed() > STEADY { 1 } else { failures + 1 };
        tokio::time::sleep(jitter(FIRST_PAUSE.saturating_mul(1 << failures))).await;
    }
    std::future::pending::<()>().await;
}

impl Core {
    fn publish(&self, change: impl FnOnce(&mut Observation)) {
        self.observation.send_modify(|current| {
            let mut next = Observation::clone(current);
            change(&mut next);
            if !next.offers_the_same(current) {
                next.generation += 1;
                next.hiding = next.count_hiding();
                let is_news = next.lists != current.lists || next.instructions != current.instructions;
                if next.hiding > 0 && is_news {
                    let objects = next.hiding;
                    tracing::warn!(server = %self.config.id, objects, "hidden characters in the texts of this server's objects: taken out");
                }
            }
            *current = Arc::new(next);
        });
    }

    /// Says in the log why the server cannot be reached, once for each reason: every attempt would say it again.
    fn tell(&self, error: &Error) {
        let known = matches!(&self.observation.borrow().state,
            State::Failed { reason, .. } if *reason == error.to_string());
        if known {
            tracing::debug!(server = %self.config.id, %error, "the server is still not reachable");
        } else {
            tracing::warn!(server = %self.config.id, %error, "the server is not reachable");
        }
    }

    fn failed(&self, error: &Error) {
        let (reason, explanation) = (error.to_string(), error.explanation.clone());
        self.publish(|observation| {
            let since = match observation.state {
                State::Failed { since, .. } => since,
                _ => SystemTime::now(),
            };
            observation.state = State::Failed { reason, explanation, since };
        });
    }

    fn degraded(&self, error: &Error) {
        let (reason, explanation) = (error.to_string(), error.explanation.clone());
        self.publish(|observation| observation.state = State::Degraded { reason, explanation });
    }

    /// It was found out whether a modern server also opens sessions.
    fn opens_sessions(self: &Arc<Self>, live: &Arc<Live>, revision: Option<Revision>) {
        live.legacy.tell(revision);
        let seen = self.observation.borrow().eras;
        // Before its lists are there, it is published with them.
        if seen.modern && seen.legacy != revision {
            self.publish(|observation| observation.eras.legacy = revision);
        }
        self.renew_all(live);
    }

    /// Asks the server what it is, reads all lists and publishes both. Says whether no list failed.
    pub(super) async fn refresh_lists(self: &Arc<Self>, live: &Arc<Live>) -> Result<bool, Error> {
        let handshake = self.describe(live).await?;
        self.publish_lists(live, handshake).await
    }

    /// Reads all lists and publishes them, those that could be read. Says whether no list failed.
    async fn publish_lists(self: &Arc<Self>, live: &Arc<Live>, handshake: Handshake) -> Result<bool, Error> {
        let offers = Offers::read(&handshake.capabilities);
        let listed = Instant::now();
        let early = |read| self.publish_read(live, handshake.clone(), read, listed);
        let read = self.read_lists(live, offers, None, early).await?;
        let all = read.missing.is_none();
        self.publish_read(live, handshake, read, listed);
        Ok(all)
    }

    fn publish_read(&self, live: &Live, handshake: Handshake, read: Read, listed: Instant) {
        let offers = Offers::read(&handshake.capabilities);
        let Read { lists, missing } = read;
        self.remark(&lists);
        let state = missing.map_or(State::Ready, |(remark, explanation)| State::Degraded {
            reason: remark.to_string(),
            explanation,
        });
        self.publish(|observation| {
            // Until it is known anew, what was known of its sessions stands.
            let legacy = live.legacy.so_far().unwrap_or(observation.eras.legacy);
            *observation = Observation {
                state,
                eras: Eras { modern: live.modern.is_some(), legacy },
                server_info: handshake.server_info,
                capabilities: handshake.capabilities,
                offers,
                instructions: handshake.instructions,
                lists,
                generation: observation.generation,
                listed,
                hiding: observation.hiding,
            };
        });
    }

    /// What the server says of itself: now if it is modern, else when its session was opened.
    async fn describe(self: &Arc<Self>, live: &Arc<Live>) -> Result<Handshake, Error> {
        if let Some(modern) = &live.modern {
            let raw = self.ask(live, Method::ServerDiscover, Bytes::new(), None).await?;
            let said = match wire::answer(&raw) {
                Some(Answer::Result(result)) => Handshake::read(result, Era::Modern),
                _ => None,
            };
            return Ok(said.unwrap_or_else(|| modern.clone()));
        }
        if let Some(session) = live.shared() {
            return Ok(session.handshake.clone());
        }
        let way = self.route(live, &Outgoing::new(Era::Legacy, Method::ToolsList, Bytes::new())).await?;
        way.session().map(|session| session.handshake.clone()).ok_or(Error::unsent(Kind::Unavailable))
    }
}
