//! The loop of every replica: wake up, gather, compile, publish. What the leader does with the outcome comes after.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use mcpmesh_compiler::{ByNamespace, Cluster, ClusterIssuer, Diagnostic, Install, Memo};
use mcpmesh_ir::{EgressRule, Watermark};
use tokio::sync::watch;

use crate::api_server;
use crate::authority::Authority;
use crate::inputs::{Found, Gathered, Gatherer};
use crate::metrics::Metrics;
use crate::publish::{Marks, Publisher};
use crate::watch::Backoff;
use crate::world::World;

/// Between two compiles: changes within this time make one. The first after a quiet time does not wait.
const APART: Duration = Duration::from_millis(5);

/// How long the cluster's key set is waited for before the first compile.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a round came to, by namespace. One in which nothing changed is the same `Arc` as before.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) compiled: ByNamespace,
    pub(crate) found: BTreeMap<String, Arc<Found>>,
}

impl Outcome {
    /// What is wrong with the objects of a namespace.
    pub(crate) fn diagnostics(&self, namespace: &str) -> Vec<Diagnostic> {
        let found = self.found.get(namespace).into_iter().flat_map(|found| &found.diagnostics);
        let compiled = self.compiled.get(namespace).into_iter().flat_map(|compiled| &compiled.diagnostics);
        found.chain(compiled).cloned().collect()
    }
}

/// What the loop works on.
pub(crate) struct Reconciler {
    pub(crate) world: Arc<World>,
    pub(crate) gatherer: Gatherer,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) issuer: watch::Receiver<Option<ClusterIssuer>>,
    /// Without the issuer.
    pub(crate) cluster: Cluster,
    /// Where remote servers may be besides public addresses.
    pub(crate) remote_ranges: Vec<IpNet>,
    /// Where the API server is, but for its endpoints; none while that is not known.
    pub(crate) api_server: watch::Receiver<Option<BTreeSet<SocketAddr>>>,
    /// What makes watermarks comparable.
    pub(crate) epoch: String,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) outcome: watch::Sender<Arc<Outcome>>,
}

impl Reconciler {
    /// For ever.
    pub(crate) async fn run(mut self) {
        let mut inputs = self.world.inputs.subscribe();
        // Told already or not to be told at all: either way the first compile does not wait for ever.
        let _ = tokio::time::timeout(PATIENCE, self.issuer.wait_for(Option::is_some)).await;
        let (mut memo, mut backoff) = (Memo::default(), Backoff::default());
        let mut next = tokio::time::Instant::now();
        loop {
            tokio::time::sleep_until(next).await;
            next = tokio::time::Instant::now() + APART;
            let since = self.taken_up();
            inputs.mark_unchanged();
            self.issuer.borrow_and_update();
            self.api_server.borrow_and_update();
            let pause = self.step(&mut memo, &mut backoff, since).await;
            let again = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = inputs.changed() => if changed.is_err() { return },
                changed = self.issuer.changed() => if changed.is_err() { return },
                // Nobody is left to tell of another address once there can be none.
                Ok(()) = self.api_server.changed() => {}
                () = again => {}
            }
        }
    }

    /// When we were told of the first change that the next compile takes up.
    fn taken_up(&self) -> Instant {
        let mut since = None;
        self.world.inputs.send_if_modified(|first| {
            since = first.take();
            false
        });
        since.unwrap_or_else(Instant::now)
    }

    /// One round when all is there that it needs. What it returns is when to try again by itself.
    async fn step(&mut self, memo: &mut Memo, backoff: &mut Backoff, since: Instant) -> Option<Duration> {
        // What is not listed yet may be a Deny: before that no proxy is told anything.
        if !self.world.is_listed() {
            return None;
        }
        let (Ok(version_key), Some(remotes)) = (self.authority.version_key(), self.remotes()) else {
            return Some(Duration::from_millis(100));
        };
        match self.round(memo, (version_key, remotes), since).await {
            Ok(()) => {
                backoff.reset();
                None
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "kept what is published");
                Some(backoff.next())
            }
        }
    }

    async fn round(
        &mut self,
        memo: &mut Memo,
        (version_key, remotes): ([u8; 32], EgressRule),
        since: Instant,
    ) -> Result<(), crate::inputs::Error> {
        let cluster = Cluster { token_issuer: self.issuer.borrow().clone(), ..self.cluster.clone() };
        let install = Install { version_key, remotes, cluster: Some(cluster), ..Install::default() };
        // Before the objects: what is compiled is at least as new as the marks say.
        let marks = self.marks();
        let Gathered { inputs, found } = self.gatherer.gather(install).await?;
        let started = Instant::now();
        let compiled = tokio::task::block_in_place(|| memo.compile(&inputs));
        self.metrics.compile.observe(started.elapsed().as_secs_f64());
        self.publisher.publish(&compiled, marks, since);
        tracing::debug!(took = ?since.elapsed(), compile = ?started.elapsed(), "compiled");
        self.outcome.send_replace(Arc::new(Outcome { compiled, found }));
        Ok(())
    }

    /// Where remote servers may be; none while nobody knows where the API server is.
    fn remotes(&self) -> Option<EgressRule> {
        let outside = self.api_server.borrow().clone()?;
        let endpoints = api_server::endpoints(&self.world.slices.of(api_server::NAMESPACE));
        Some(EgressRule::new(&self.remote_ranges, outside.into_iter().chain(endpoints)))
    }

    fn marks(&self) -> Marks {
        let positions = self.world.positions();
        let mark = |of: fn(&crate::watch::Position) -> u64| Watermark {
            epoch: self.epoch.clone(),
            versions: positions.iter().map(|(kind, position)| (kind.clone(), of(position))).collect(),
        };
        Marks { changed: mark(|position| position.changed), seen: mark(|position| position.seen) }
    }
}

#[cfg(test)]
mod tests;
