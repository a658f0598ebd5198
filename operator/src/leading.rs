//! What only the leader does: make children, write status, tell events. Level-triggered: each round looks at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions,
};
use kube::core::ObjectMeta;
use mcpmesh_compiler::{Child, ObjectKind};
use mcpmesh_crds::{CONTROLLER, McpGateway, McpPolicy, McpServer};
use mcpmesh_ir::FleetId;
use tokio::sync::watch;

use crate::apply::{self, ChildRef, Write};
use crate::authority::Authority;
use crate::events::Events;
use crate::last_good::{self, Copies};
use crate::lease::{Fence, Leader};
use crate::metrics::{self, Metrics, OfFleet};
use crate::publish::Publisher;
use crate::reconcile::Outcome;
use crate::report::Reports;
use crate::status::View;
use crate::status::lock::Pinned;
use crate::status::write::{Due, Written};
use crate::watch::Backoff;
use crate::world::World;
use crate::world::child::ChildKind;
use mcpmesh_compiler::child::base_name;

/// Changes within this time make one round.
const TOGETHER: Duration = Duration::from_millis(100);

/// A round comes at least so often, and finds out what nobody told.
const RESYNC: Duration = Duration::from_secs(60);

/// While something waits for its time.
const SOON: Duration = Duration::from_secs(1);

/// What leading needs.
pub(crate) struct Leading {
    pub(crate) client: kube::Client,
    pub(crate) world: Arc<World>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) fence: Fence,
    pub(crate) leader: watch::Receiver<Leader>,
    pub(crate) outcome: watch::Receiver<Arc<Outcome>>,
    /// Told of other roots.
    pub(crate) roots: watch::Receiver<u64>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: Events,
    pub(crate) written: Written,
    pub(crate) failures: Failures,
    pub(crate) pinned: Arc<Pinned>,
    pub(crate) copies: Copies,
}

/// What failed is tried again later, each object by itself.
#[derive(Debug, Default)]
pub(crate) struct Failures(BTreeMap<String, (Backoff, Instant)>);

impl Failures {
    fn waits(&self, key: &str, now: Instant) -> bool {
        self.0.get(key).is_some_and(|(_, until)| now < *until)
    }

    fn note(&mut self, key: String, now: Instant, failed: bool) {
        if failed {
            let (backoff, until) = self.0.entry(key).or_insert_with(|| (Backoff::default(), now));
            *until = now + backoff.next();
        } else {
            self.0.remove(&key);
        }
    }
}

impl Leading {
    /// For ever.
    pub(crate) async fn run(mut self) {
        let mut reports = self.reports.changes();
        let mut proxies = self.reports.own_changes();
        let mut live = self.world.live.subscribe();
        loop {
            let pause = if self.fence.may_write() && self.publisher.is_ready() {
                let started = Instant::now();
                let waits = self.round().await;
                self.metrics.reconcile.observe(started.elapsed().as_secs_f64());
                if waits { SOON } else { RESYNC }
            } else {
                SOON
            };
            tokio::time::sleep(TOGETHER).await;
            let ended = tokio::select! {
                changed = self.outcome.changed() => changed.is_err(),
                changed = self.leader.changed() => changed.is_err(),
                changed = self.roots.changed() => changed.is_err(),
                changed = reports.changed() => changed.is_err(),
                changed = proxies.changed() => changed.is_err(),
                changed = live.changed() => changed.is_err(),
                () = tokio::time::sleep(pause) => false,
            };
            if ended {
                return;
            }
        }
    }

    /// True: something is left for soon.
    async fn round(&mut self) -> bool {
        let outcome = self.outcome.borrow_and_update().clone();
        self.leader.mark_unchanged();
        self.roots.mark_unchanged();
        let mut waits = false;
        if let (true, Ok(roots)) = (self.world.children_are_listed(), self.authority.roots()) {
            for write in apply::due(&outcome, &self.world, &roots) {
                waits |= !self.write(write).await;
            }
        }
        waits |= self.copy_configurations(&outcome).await;
        let mut view = self.view(&outcome);
        Arc::make_mut(&mut self.pinned).learn(&view, &self.world);
        view.pinned = Arc::clone(&self.pinned);
        self.count(&view);
        let (due, later) = self.written.due(&view, &self.world, &outcome.objects, Instant::now());
        waits |= later;
        for due in due {
            waits |= !self.status(due).await;
        }
        self.metrics.queue_depth.set(i64::try_from(self.failures.0.len()).unwrap_or(i64::MAX));
        waits
    }

    /// What new pods boot from while every operator is away. True: something is left for soon.
    async fn copy_configurations(&mut self, outcome: &Outcome) -> bool {
        let mut wanted = self.publisher.revisions();
        wanted.retain(|fleet, _| outcome.fleets.contains(fleet));
        let (due, mut waits) = self.copies.due(wanted, &last_good::kept(&self.world), Instant::now());
        for fleet in due {
            let made = tokio::task::block_in_place(|| {
                last_good::write(&fleet, &self.world, &self.publisher, SystemTime::now())
            });
            if let Some(write) = made {
                self.copies.note(fleet, Instant::now());
                waits |= !self.write(write).await;
            }
        }
        waits
    }

    fn view(&self, outcome: &Outcome) -> View {
        let mut view = View::new(&outcome.compiled.diagnostics, self.reports.all(), Timestamp::now());
        view.attached = outcome.compiled.attached.clone();
        view.policy_targets = outcome.compiled.policy_targets.clone();
        view.revisions = self.publisher.revisions();
        view.revisions.retain(|fleet, _| outcome.fleets.contains(fleet));
        // An injected server's pods are its team's own.
        let has_pods = |made: &[Child]| made.iter().any(|child| matches!(child, Child::Deployment(_)));
        let made = outcome.compiled.children.iter().filter(|(_, made)| has_pods(made));
        view.deployed = made.map(|(fleet, _)| fleet.clone()).collect();
        if let Some(deployments) = self.world.children.get("Deployment") {
            let of = |fleet: &FleetId| {
                let live = deployments.get(fleet.namespace(), &base_name(fleet))?;
                Some((fleet.clone(), live.rollout?))
            };
            view.rollouts = view.deployed.iter().filter_map(of).collect();
        }
        view
    }

    fn count(&self, view: &View) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        for family in
            [&self.metrics.proxies_connected, &self.metrics.proxies_in_sync, &self.metrics.push_rejections]
        {
            family.clear();
        }
        for fleet in view.fleets() {
            let (total, in_sync, rejections) = view.in_sync(fleet);
            let label = OfFleet::from(fleet);
            self.metrics.proxies_connected.get_or_create(&label).set(number(total));
            self.metrics.proxies_in_sync.get_or_create(&label).set(number(in_sync));
            self.metrics.push_rejections.get_or_create(&label).set(number(rejections));
        }
    }

    /// One write, unless it waits or we no longer lead. False: try again soon.
    async fn write(&mut self, write: Write) -> bool {
        let target = write.target();
        let key = format!("{} {}/{}", target.kind, target.namespace, target.name);
        if self.failures.waits(&key, Instant::now()) {
            return false;
        }
        if !self.fence.may_write() {
            return true;
        }
        let done = perform(&self.client, write).await;
        self.note(key, target.kind.to_owned(), &done)
    }

    async fn status(&mut self, due: Due) -> bool {
        let key = format!("status of {}", due.object);
        if self.failures.waits(&key, Instant::now()) {
            return false;
        }
        if !self.fence.may_write() {
            return true;
        }
        let done = patch_status(&self.client, &due).await;
        let good = done.is_ok();
        if good {
            self.written.note(due.object.clone(), Instant::now());
            // The answer may have found us paused, and another leading.
            if self.fence.may_write() {
                self.events.tell(&due, Instant::now()).await;
            }
        }
        self.note(key, due.object.kind.to_string(), &done)
    }

    fn note(&mut self, key: String, kind: String, done: &Result<(), kube::Error>) -> bool {
        let result = match done {
            Ok(()) => "ok",
            Err(error) if is(error, 409) => "conflict",
            Err(_) => "error",
        };
        self.metrics.writes.get_or_create(&metrics::Write { kind, result }).inc();
        if let Err(error) = done
            // A conflict: what we have seen is old, and the event that shows it is on its way. Not found: it is gone.
            && !is(error, 409)
            && !is(error, 404)
        {
            tracing::warn!(what = key, %error, "a write failed");
        }
        self.failures.note(key, Instant::now(), done.is_err());
        done.is_ok()
    }
}

fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

async fn perform(client: &kube::Client, write: Write) -> Result<(), kube::Error> {
    let api = |child: &ChildRef| -> Option<Api<DynamicObject>> {
        let resource = ChildKind::named(child.kind)?.resource();
        Some(Api::namespaced_with(client.clone(), &child.namespace, &resource))
    };
    match write {
        Write::Apply(child, manifest) => {
            let Some(api) = api(&child) else { return Ok(()) };
            let params = PatchParams::apply(CONTROLLER).force();
            api.patch(&child.name, &params, &Patch::Apply(&manifest)).await.map(drop)
        }
        Write::Delete(child, uid) => {
            let Some(api) = api(&child) else { return Ok(()) };
            let only = Preconditions { uid: Some(uid), resource_version: None };
            let params = DeleteParams::background().preconditions(only);
            match api.delete(&child.name, &params).await {
                Err(error) if !is(&error, 404) => Err(error),
                _ => Ok(()),
            }
        }
        Write::Keys { owner, namespace, name } => {
            let secret = keys(owner, &name)?;
            match Api::<Secret>::namespaced(client.clone(), &namespace)
                .create(&PostParams::default(), &secret)
                .await
            {
                // It is there: its watch event is on its way. It is never changed.
                Err(error) if !is(&error, 409) => Err(error),
                _ => Ok(()),
            }
        }
    }
}

fn keys(
    owner: k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference,
    name: &str,
) -> Result<Secret, kube::Error> {
    let random = || {
        let mut bytes = [0; 32];
        let random = rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut bytes);
        random.map_err(|_| kube::Error::Service("there is no randomness".into()))?;
        Ok::<_, kube::Error>(ByteString(hex::encode(bytes).into_bytes()))
    };
    let labels = [
        ("app.kubernetes.io/name".to_owned(), "mcpmesh-proxy".to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), "mcpmesh-operator".to_owned()),
    ];
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.into()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        data: Some([("ring".to_owned(), random()?), ("state".to_owned(), random()?)].into()),
        ..Secret::default()
    })
}

async fn patch_status(client: &kube::Client, due: &Due) -> Result<(), kube::Error> {
    let resource = match due.object.kind {
        ObjectKind::McpServer => ApiResource::erase::<McpServer>(&()),
        ObjectKind::McpGateway => ApiResource::erase::<McpGateway>(&()),
        ObjectKind::McpPolicy => ApiResource::erase::<McpPolicy>(&()),
        // They have no status of ours.
        ObjectKind::Secret | ObjectKind::Namespace => return Ok(()),
    };
    // Untyped: the answer to a write on an object that this version cannot read is no failure.
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &due.object.namespace, &resource);
    let params = PatchParams::apply(CONTROLLER).force();
    api.patch_status(&due.object.name, &params, &Patch::Apply(&due.manifest)).await.map(drop)
}
