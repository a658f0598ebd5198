//! The loop of every replica: wake up, gather, compile, publish. What the leader does with the outcome comes after.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcpmesh_compiler::{Cluster, ClusterIssuer, Compiled, Inputs, Install, Memo};
use mcpmesh_ir::{FleetId, Watermark};
use tokio::sync::watch;

use crate::authority::Authority;
use crate::inputs::{Gathered, Gatherer, Objects};
use crate::metrics::{Metrics, OfSeverity};
use crate::publish::{Marks, Publisher};
use crate::watch::{Backoff, Key};
use crate::world::World;

/// Changes within this time make one compile.
const TOGETHER: Duration = Duration::from_millis(5);

/// How long the cluster's key set is waited for before the first compile.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a round came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Without the fleets' configurations: those are published.
    pub(crate) compiled: Compiled,
    /// The fleets that have a configuration.
    pub(crate) fleets: BTreeSet<FleetId>,
    /// What it speaks of.
    pub(crate) objects: Objects,
    /// Ready pods by Service.
    pub(crate) pods: BTreeMap<Key, BTreeSet<String>>,
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
    /// Remote servers may be at private and loopback addresses.
    pub(crate) allow_private: bool,
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
        loop {
            let since = Instant::now();
            tokio::time::sleep(TOGETHER).await;
            inputs.borrow_and_update();
            self.issuer.borrow_and_update();
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
                () = again => {}
            }
        }
    }

    /// One round when all is there that it needs. What it returns is when to try again by itself.
    async fn step(&mut self, memo: &mut Memo, backoff: &mut Backoff, since: Instant) -> Option<Duration> {
        // What is not listed yet may be a Deny: before that no proxy is told anything.
        if !self.world.is_listed() {
            return None;
        }
        let Ok(version_key) = self.authority.version_key() else { return Some(Duration::from_millis(100)) };
        match self.round(memo, version_key, since).await {
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
        version_key: [u8; 32],
        since: Instant,
    ) -> Result<(), crate::inputs::Error> {
        let cluster = Cluster { token_issuer: self.issuer.borrow().clone(), ..self.cluster.clone() };
        let install = Install {
            version_key,
            allow_private: self.allow_private,
            cluster: Some(cluster),
            ..Install::default()
        };
        // Before the objects: what is compiled is at least as new as the marks say.
        let marks = self.marks();
        let Gathered { inputs, diagnostics, objects, pods } = self.gatherer.gather(install).await?;
        let started = Instant::now();
        let mut compiled = tokio::task::block_in_place(|| memo.compile(&inputs));
        self.metrics.compile.observe(started.elapsed().as_secs_f64());
        compiled.diagnostics.extend(diagnostics);
        compiled.diagnostics.sort();
        self.count(&compiled, &inputs);
        let published = std::mem::take(&mut compiled.fleets);
        let fleets = published.keys().chain(compiled.children.keys()).cloned().collect();
        self.publisher.publish(published, marks, since);
        self.outcome.send_replace(Arc::new(Outcome { compiled, fleets, objects, pods }));
        Ok(())
    }

    fn marks(&self) -> Marks {
        let positions = self.world.positions();
        let mark = |of: fn(&crate::watch::Position) -> u64| Watermark {
            epoch: self.epoch.clone(),
            versions: positions.iter().map(|(kind, position)| (kind.clone(), of(position))).collect(),
        };
        Marks { changed: mark(|position| position.changed), seen: mark(|position| position.seen) }
    }

    fn count(&self, compiled: &Compiled, inputs: &Inputs) {
        use mcpmesh_compiler::Severity;
        for severity in [Severity::Error, Severity::Warning, Severity::Note] {
            let found = compiled.diagnostics.iter().filter(|finding| finding.severity == severity).count();
            let label = OfSeverity { severity: severity.as_str() };
            self.metrics.diagnostics.get_or_create(&label).set(i64::try_from(found).unwrap_or(i64::MAX));
        }
        tracing::debug!(
            servers = inputs.servers.len(),
            gateways = inputs.gateways.len(),
            policies = inputs.policies.len(),
            "compiled"
        );
    }
}

#[cfg(test)]
mod tests;
