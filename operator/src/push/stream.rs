//! One proxy's stream: what changes goes out, what it says is noted.

use std::collections::BTreeSet;
use std::sync::Arc;

use mcpmesh_ir::push::{Ack, Behind, FromProxy, Hello, Observation, Said, ToProxy, Told};
use mcpmesh_ir::{FleetId, ServerId};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::Service;
use super::session::Session;
use crate::authority::Authority;
use crate::connected::Seat;
use crate::identity::Verify;
use crate::metrics::Metrics;
use crate::publish::{Marks, Published};

pub(super) struct ProxyStream {
    fleet: FleetId,
    session: Session,
    seat: Seat,
    published: watch::Receiver<Published>,
    marks: watch::Receiver<Option<Marks>>,
    authority: Arc<Authority>,
    /// Told of other roots.
    roots: watch::Receiver<u64>,
    to_proxy: mpsc::Sender<Result<ToProxy, Status>>,
    metrics: Arc<Metrics>,
    /// It was told that we are behind.
    told_behind: bool,
    /// What it ever was told to observe: an observation may cross an update.
    observed: BTreeSet<ServerId>,
}

impl ProxyStream {
    pub(super) fn new<V: Verify>(
        service: &Service<V>,
        fleet: FleetId,
        hello: &Hello,
        to_proxy: mpsc::Sender<Result<ToProxy, Status>>,
    ) -> Self {
        Self {
            session: Session::new(hello),
            seat: service.connected.enter(fleet.clone(), hello.pod.clone()),
            published: service.publisher.subscribe(&fleet),
            marks: service.publisher.marks(),
            authority: service.authority.clone(),
            roots: service.roots.subscribe(),
            metrics: service.metrics.clone(),
            fleet,
            to_proxy,
            told_behind: false,
            observed: BTreeSet::new(),
        }
    }

    /// Until either side ends.
    pub(super) async fn serve(mut self, mut inbound: Streaming<FromProxy>, stop: CancellationToken) {
        loop {
            if self.offer().await.is_err() {
                return;
            }
            let waiting = self.session.is_waiting();
            tokio::select! {
                said = inbound.message() => match said {
                    Ok(Some(message)) => self.hear(message),
                    Ok(None) | Err(_) => return,
                },
                changed = self.published.changed(), if !waiting => if changed.is_err() { return },
                changed = self.roots.changed(), if !waiting => if changed.is_err() { return },
                // Until the first update: what is compiled may not be as new as what the proxy has.
                changed = self.marks.changed(), if self.told_behind || self.marks.borrow().is_none() => {
                    if changed.is_err() { return }
                }
                () = stop.cancelled() => return,
            }
        }
    }

    /// Sends what there is to say. An error: nobody listens any more.
    async fn offer(&mut self) -> Result<(), ()> {
        let marks = self.marks.borrow_and_update().clone();
        let Some(marks) = marks else { return Ok(()) };
        if self.session.is_ahead_of(&marks) {
            if self.told_behind {
                return Ok(());
            }
            tracing::info!(fleet = %self.fleet, "a proxy has seen more than this replica: it waits");
            self.told_behind = true;
            return self.send(Told::Behind(Behind {})).await;
        }
        self.told_behind = false;
        let update = {
            self.roots.mark_unchanged();
            let roots = self.authority.roots().unwrap_or_default();
            let published = self.published.borrow_and_update();
            self.session.next(&published, &marks, &roots)
        };
        let Some(update) = update else { return Ok(()) };
        self.metrics.pushes.inc();
        self.send(Told::Update(update)).await
    }

    async fn send(&self, told: Told) -> Result<(), ()> {
        self.to_proxy.send(Ok(ToProxy { told: Some(told) })).await.map_err(drop)
    }

    fn hear(&mut self, message: FromProxy) {
        match message.said {
            Some(Said::Ack(ack)) => self.acknowledged(ack),
            Some(Said::Observation(observation)) => self.observed(observation),
            // A second Hello means nothing; what a later version says besides is not for us.
            Some(Said::Hello(_)) | None => {}
        }
    }

    fn acknowledged(&mut self, ack: Ack) {
        if let Some(in_force) = self.session.acknowledged(&ack) {
            if let Some(took) = in_force.took {
                self.metrics.propagation.observe(took.as_secs_f64());
            }
            for rejection in &ack.rejections {
                let (kind, name, reason) = (&rejection.kind, &rejection.name, &rejection.reason);
                tracing::warn!(fleet = %self.fleet, kind, name, reason, "a proxy rejects a resource");
            }
            self.seat.acknowledged(ack);
        }
    }

    /// A proxy speaks only of servers that it was told to observe.
    fn observed(&mut self, observation: Observation) {
        let Ok(server) = observation.server.parse::<ServerId>() else { return };
        if self.session.observes(&server) {
            self.observed.insert(server.clone());
        }
        if self.observed.contains(&server) {
            self.seat.observed(server, observation);
        }
    }
}
