//! The proxy's half of configuration push: subscribes to the operator, applies what it sends, tells what came of it.
//!
//! Beside `proxy.rs`, not on the request's path: nothing there imports this. decisions.md 10 to 12, 15;
//! `mcpmesh_ir::push` has the messages.

mod backoff;
mod certificate;
mod disk;
mod held;
mod keeper;
mod last_good;
mod observe;
mod operator;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mcpmesh_ir::push::{Ack, FromProxy, Rejection, Said, ToProxy, Told, Update};
use mcpmesh_ir::{FleetId, Gateway, Resource, ResourceKind};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

pub use disk::{Error as DiskError, Store};
pub use last_good::LastGood;
pub use operator::{Error as OperatorError, Operator};

use crate::mesh::Mesh;
use crate::proxy::Proxy;
use backoff::Backoff;
use held::Held;
use keeper::Keeper;
use observe::Observer;

/// Messages to the operator that wait for the connection to take them.
const WAITING: usize = 16;
/// For the first update of a stream: an operator that takes the stream and says nothing is as good as none.
const FIRST_WORD: Duration = Duration::from_secs(60);

/// Whom a process subscribes to, and as whom.
pub struct Settings {
    /// The operator.
    pub operator: Operator,
    /// The proxy's fleet.
    pub fleet: FleetId,
    /// The pod's name: tells the proxies of a fleet apart.
    pub pod: String,
    /// Where the last good configuration is kept.
    pub store: Store,
    /// The operator's copy of it, for a pod whose disk is empty.
    pub last_good: LastGood,
    /// Of a sidecar: whether its server answers at the pod's address, too. Elsewhere false.
    pub bypass: watch::Receiver<bool>,
    /// Where the process's certificate goes.
    pub mesh: Mesh,
}

/// How a stream ended. None of them ends the process: what is in force stays, and the operator is tried again.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Line(#[from] operator::Error),
    #[error("the operator refuses: {}", .0.message())]
    Refused(#[from] Box<tonic::Status>),
    #[error("the operator closed the stream")]
    Closed,
    #[error("the operator said nothing in {FIRST_WORD:?}")]
    Silent,
    #[error("the operator's replica has not yet seen what is in force here")]
    ReplicaBehind,
    #[error(transparent)]
    UpdateBehind(#[from] held::Behind),
    #[error("what is here is not what the operator calls it: all of it is asked for again")]
    Diverged,
    #[error("the operator has not answered for a while")]
    Slow,
    #[error("applying an update failed")]
    Apply(#[source] tokio::task::JoinError),
}

/// Keeps a proxy's configuration and certificate current.
pub struct Subscriber {
    proxy: Arc<Proxy>,
    settings: Arc<Settings>,
    held: Held,
    /// Of what is in force.
    rejections: Vec<Rejection>,
    /// Something of `held` has been applied.
    applied: bool,
    /// All resources were asked for again since they last agreed.
    asked_again: bool,
    /// When the operator's copy is taken, unless something is in force then; none once it was looked at.
    copy_due: Option<Instant>,
}

impl Subscriber {
    /// Puts the last good configuration in force, when there is one: before anything is asked of the network.
    pub async fn boot(proxy: Arc<Proxy>, settings: Settings) -> Self {
        let held = Held::new(settings.fleet.clone());
        let settings = Arc::new(settings);
        let copy_due = Some(Instant::now() + settings.last_good.patience);
        let mut new = Self {
            proxy,
            settings,
            held,
            rejections: Vec::new(),
            applied: false,
            asked_again: false,
            copy_due,
        };
        let (found, errors) = new.settings.store.load();
        for error in errors {
            new.ignored(&error);
        }
        if let Some((update, since)) = found {
            new.serve_stale(update, since).await;
        }
        new
    }

    fn ignored(&self, error: &DiskError) {
        tracing::error!(error = %Causes(error), "the last good configuration is ignored");
        self.proxy.metrics().configuration.disk_error();
    }

    /// Puts in force what was kept. Nothing is yet that it could be behind.
    async fn serve_stale(&mut self, update: Update, since: SystemTime) {
        if self.held.take(update).is_ok() && self.put_in_force().await.is_ok() {
            let revision = self.held.revision().to_owned();
            tracing::warn!(
                revision,
                "serving the last good configuration: stale until the operator confirms it"
            );
            self.proxy.metrics().configuration.from_disk(&revision, since);
            self.proxy.readiness().set_stale(true);
        }
    }

    /// When the operator's copy is to be taken: only while nothing is in force, so never in place of something newer.
    fn copy_due(&self) -> Option<Instant> {
        self.copy_due.filter(|_| !self.applied)
    }

    /// Takes the operator's copy when it is due, once.
    async fn take_copy(&mut self) {
        if self.copy_due().is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.copy_due = None;
        let settings = Arc::clone(&self.settings);
        let read = tokio::task::spawn_blocking(move || settings.last_good.read(&settings.fleet)).await;
        match read {
            Ok(Ok(Some((update, since)))) => self.serve_stale(update, since).await,
            Ok(Ok(None)) => tracing::warn!("no operator, an empty disk and no copy: waiting"),
            Ok(Err(error)) => self.ignored(&error),
            Err(error) => tracing::error!(%error, "the operator's copy cannot be read"),
        }
    }

    /// Runs until `stop`: one task for the configuration, one for the certificate. Returns once what is in force is on
    /// the disk.
    pub async fn run(mut self, stop: CancellationToken) {
        let certificate = certificate::keep(Arc::clone(&self.settings));
        let keeper = Keeper::start(Arc::clone(&self.settings), Arc::clone(&self.proxy));
        let work = async { tokio::join!(self.subscribe(&keeper), certificate) };
        // Boxed: a configuration on its way makes a large future.
        stop.run_until_cancelled(Box::pin(work)).await;
        if let Err(error) = keeper.end().await {
            tracing::error!(%error, "the last good configuration may not be kept");
        }
    }

    /// One stream after another, for ever.
    async fn subscribe(&mut self, keeper: &Keeper) {
        let mut backoff = Backoff::default();
        loop {
            let ended = self.stream(&mut backoff, keeper).await;
            self.proxy.metrics().configuration.disconnected();
            let wait = backoff.next();
            tracing::warn!(reason = %Causes(&ended), again_in = ?wait, "no stream from the operator");
            let again = Instant::now() + wait;
            let copy = self.copy_due().map_or(again, |due| due.min(again));
            tokio::time::sleep_until(copy).await;
            self.take_copy().await;
            tokio::time::sleep_until(again).await;
        }
    }

    /// One stream: says what is here, then does as it is told until the stream ends.
    async fn stream(&mut self, backoff: &mut Backoff, keeper: &Keeper) -> Ended {
        match self.try_stream(backoff, keeper).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn try_stream(
        &mut self,
        backoff: &mut Backoff,
        keeper: &Keeper,
    ) -> Result<std::convert::Infallible, Ended> {
        let due = self.copy_due();
        let opened = tokio::select! {
            opened = self.open() => opened,
            () = late(due) => Err(Ended::Slow),
        };
        let (say, mut told) = opened?;
        let mut observer = Observer::new(&self.proxy, self.settings.bypass.clone());
        let silent = Instant::now() + FIRST_WORD;
        let mut confirmed = false;
        loop {
            tokio::select! {
                message = told.message() => match message.map_err(Box::new)? {
                    None => return Err(Ended::Closed),
                    Some(ToProxy { told: Some(Told::Behind(_)) }) => return Err(Ended::ReplicaBehind),
                    Some(ToProxy { told: Some(Told::Update(mut update)) }) => {
                        if !update.same_observe {
                            observer.observe(&std::mem::take(&mut update.observe));
                        }
                        self.update(update, &say).await?;
                        keeper.keep(self.uid(), self.held.whole());
                        backoff.reset();
                        confirmed = true;
                    }
                    Some(ToProxy { told: None }) => tracing::debug!("a message of a later version"),
                },
                observation = observer.next() => tell(&say, Said::Observation(observation)).await?,
                () = tokio::time::sleep_until(silent), if !confirmed => return Err(Ended::Silent),
                () = late(due), if !confirmed => return Err(Ended::Slow),
            }
        }
    }

    /// Connects, and says what is here.
    async fn open(&self) -> Result<(mpsc::Sender<FromProxy>, Streaming<ToProxy>), Ended> {
        let (say, said) = mpsc::channel(WAITING);
        let mut line = self.settings.operator.connect().await?;
        tell(&say, Said::Hello(self.held.hello(&self.settings.pod))).await?;
        let request = line.request(ReceiverStream::new(said));
        let answered = line.client().subscribe(request).await.map_err(Box::new)?;
        Ok((say, answered.into_inner()))
    }

    /// One transaction: takes it, applies it, answers.
    async fn update(&mut self, update: Update, say: &mpsc::Sender<FromProxy>) -> Result<(), Ended> {
        let (sequence, changed, removed) = (update.sequence, update.changed.len(), update.removed.len());
        self.trust(&update.roots);
        let is_new = !self.applied || !update.changed.is_empty() || !update.removed.is_empty();
        self.held.take(update)?;
        if self.held.agrees() {
            self.asked_again = false;
        } else if !std::mem::replace(&mut self.asked_again, true) {
            self.held.forget_resources();
            return Err(Ended::Diverged);
        } else {
            tracing::error!(revision = self.held.revision(), "resources and revision differ");
        }
        self.proxy.share_limits(self.held.fleet_size());
        if is_new {
            self.put_in_force().await?;
        }
        self.proxy.metrics().configuration.confirmed(self.held.revision());
        self.proxy.readiness().set_stale(false);
        let revision = self.held.revision().to_owned();
        let rejected = self.rejections.len();
        tracing::info!(revision, sequence, changed, removed, rejected, "configured");
        tell(say, Said::Ack(Ack { sequence, revision, rejections: self.rejections.clone() })).await?;
        Ok(())
    }

    /// Knows peers by other roots from now on. A rotation is known here before any peer shows a certificate of it.
    fn trust(&self, roots: &str) {
        if roots.is_empty() {
            return;
        }
        if let Err(error) = self.settings.mesh.trust(roots) {
            tracing::error!(error = %Causes(&error), "the roots of the mesh stay as they were");
        }
    }

    /// Prepares all of what is held and swaps once. Off the runtime's workers: it may take long, and requests go on.
    async fn put_in_force(&mut self) -> Result<(), Ended> {
        let (proxy, fleet) = (Arc::clone(&self.proxy), self.held.fleet());
        proxy.share_limits(self.held.fleet_size());
        let applied = tokio::task::spawn_blocking(move || proxy.apply(fleet.snapshots())).await;
        let rejected = applied.map_err(Ended::Apply)?.into_iter();
        // Gateways that share a resource reject it alike.
        let once: BTreeMap<_, _> =
            rejected.map(|one| ((one.kind.to_string(), one.name), one.reason)).collect();
        let once = once.into_iter().map(|((kind, name), reason)| Rejection { kind, name, reason });
        self.rejections = self.held.unreadable().chain(once).collect();
        self.applied = true;
        Ok(())
    }

    /// Of the object that the fleet is of: of an McpGateway its uid, of sidecars that of their first gateway.
    fn uid(&self) -> String {
        let fleet = self.held.fleet();
        let gateway = |resource: &Resource| resource.decode::<Gateway>().ok();
        let mut gateways = fleet.resources.iter().filter(|one| one.kind == ResourceKind::Gateway);
        gateways.find_map(gateway).map(|gateway| gateway.uid).unwrap_or_default()
    }
}

/// At that time; without one never.
async fn late(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Says something on a stream.
async fn tell(say: &mpsc::Sender<FromProxy>, said: Said) -> Result<(), Ended> {
    say.send(FromProxy { said: Some(said) }).await.map_err(|_| Ended::Closed)
}

/// An error with what caused it, for the log.
struct Causes<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
