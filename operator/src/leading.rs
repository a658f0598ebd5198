//! What only the leader does: make children, write status, tell events. Level-triggered: each round looks at all.

mod glimpse;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
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
use crate::metrics::{self, Metrics};
use crate::publish::Publisher;
use crate::reconcile::Outcome;
use crate::report::Reports;
use crate::status::View;
use crate::status::lock::Pinned;
use crate::status::words::Words;
use crate::status::write::{Due, Written};
use crate::watch::Backoff;
use crate::world::World;
use crate::world::child::ChildKind;
pub(crate) use glimpse::Glimpse;
use mcpmesh_compiler::child::base_name;

/// Changes within this time make one round.
const TOGETHER: Duration = Duration::from_millis(100);

/// Statuses that are being written at the same time.
const AT_A_TIME: usize = 8;

/// A round over everything comes so often, and finds out what nobody told.
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
    /// What proxies said last.
    pub(crate) words: Arc<Words>,
    /// The namespaces in which nothing was left to do, as they were then.
    pub(crate) settled: BTreeMap<String, Glimpse>,
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

/// What is left to do in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    Nothing,
    /// Something was written: its events are on their way.
    Events,
    /// Something waits for its time.
    Soon,
}

impl Leading {
    /// For ever.
    pub(crate) async fn run(mut self) {
        let mut reports = self.reports.changes();
        let mut proxies = self.reports.own_changes();
        let mut live = self.world.live.subscribe();
        let mut resync = Instant::now() + RESYNC;
        loop {
            let pause = if self.fence.may_write() && self.publisher.is_ready() {
                let started = Instant::now();
                let waits = self.round().await;
                self.metrics.reconcile.observe(started.elapsed().as_secs_f64());
                if resync < Instant::now() {
                    self.settled.clear();
                    resync = Instant::now() + RESYNC;
                }
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

    /// True: something is left for soon. Looks at the namespaces in which anything changed since nothing was left to do.
    async fn round(&mut self) -> bool {
        let outcome = self.outcome.borrow_and_update().clone();
        self.leader.mark_unchanged();
        self.roots.mark_unchanged();
        let roots = self.authority.roots().ok().filter(|_| self.world.children_are_listed());
        let roots = roots.map(Arc::<str>::from);
        self.listen(&outcome);
        self.written.forget(Instant::now());
        let mut waits = false;
        let names = self.names(&outcome);
        self.settled.retain(|name, _| names.contains(name));
        for name in names {
            let glimpse = Glimpse::of(&name, &outcome, &self.world, roots.clone());
            if self.settled.get(&name).is_some_and(|settled| settled.is(&glimpse)) {
                continue;
            }
            self.settled.remove(&name);
            match self.namespace(&name, &outcome, &glimpse).await {
                Left::Nothing => _ = self.settled.insert(name, glimpse),
                Left::Events => {}
                Left::Soon => waits = true,
            }
            // Not to hold up what is on its way to proxies.
            tokio::task::yield_now().await;
        }
        self.metrics.queue_depth.set(i64::try_from(self.failures.0.len()).unwrap_or(i64::MAX));
        waits
    }

    /// What proxies say now. Namespaces that it concerns are to be looked at.
    fn listen(&mut self, outcome: &Outcome) {
        let words = Words::new(self.reports.all(), &self.words);
        for name in words.concern(&self.words, &outcome.compiled) {
            self.settled.remove(&name);
        }
        self.words = Arc::new(words);
    }

    /// Every namespace with an object of ours or a child.
    fn names(&self, outcome: &Outcome) -> BTreeSet<String> {
        let World { servers, gateways, policies, children, .. } = &*self.world;
        let mut names: BTreeSet<String> = outcome.compiled.keys().cloned().collect();
        names.extend(servers.buckets().into_keys());
        names.extend(gateways.buckets().into_keys());
        names.extend(policies.buckets().into_keys());
        names.extend(children.values().flat_map(|store| store.buckets().into_keys()));
        names
    }

    async fn namespace(&mut self, name: &str, outcome: &Outcome, glimpse: &Glimpse) -> Left {
        let mut left = Left::Nothing;
        if let Some(roots) = &glimpse.roots {
            for write in apply::due(name, outcome, &self.world, roots) {
                left = left.max(if self.write(write).await { Left::Events } else { Left::Soon });
            }
        }
        left = left.max(self.copy_configurations(outcome, glimpse).await);
        let mut view = self.view(name, outcome);
        Arc::make_mut(&mut self.pinned).learn(&view, name, &glimpse.kinds.servers);
        view.pinned = Arc::clone(&self.pinned);
        // Of what no compile has read yet nothing is known.
        let read = glimpse.found.as_ref().map(|found| found.read.clone()).unwrap_or_default();
        let (due, later) = self.written.due(&view, &glimpse.kinds, &read, Instant::now());
        if later {
            left = Left::Soon;
        }
        left.max(self.statuses(due).await)
    }

    /// What new pods of a namespace boot from while every operator is away.
    async fn copy_configurations(&mut self, outcome: &Outcome, glimpse: &Glimpse) -> Left {
        let name = &glimpse.kinds.namespace;
        let fleets = outcome.compiled.get(name).into_iter().flat_map(|compiled| compiled.fleets.keys());
        let revision = |fleet: &FleetId| Some((fleet.clone(), self.publisher.revision(fleet)?));
        let wanted = fleets.filter_map(revision).collect();
        let kept = last_good::kept(name, &glimpse.secrets);
        let (due, waits) = self.copies.due(wanted, &kept, Instant::now());
        let mut left = if waits { Left::Soon } else { Left::Nothing };
        for fleet in due {
            let made = tokio::task::block_in_place(|| {
                last_good::write(&fleet, &self.world, &self.publisher, SystemTime::now())
            });
            if let Some(write) = made {
                self.copies.note(fleet, Instant::now());
                left = left.max(if self.write(write).await { Left::Events } else { Left::Soon });
            }
        }
        left
    }

    fn view(&self, name: &str, outcome: &Outcome) -> View {
        let mut view = View::new(outcome.diagnostics(name), self.words.clone(), Timestamp::now());
        let Some(compiled) = outcome.compiled.get(name) else { return view };
        view.attached = compiled.attached.clone();
        view.gateways = compiled.gateways.clone();
        view.policy_targets = compiled.policy_targets.clone();
        let revision = |fleet: &FleetId| Some((fleet.clone(), self.publisher.revision(fleet)?));
        view.revisions = compiled.fleets.keys().filter_map(revision).collect();
        // An injected server's pods are its team's own.
        let has_pods = |made: &[Child]| made.iter().any(|child| matches!(child, Child::Deployment(_)));
        let made = compiled.children.iter().filter(|(_, made)| has_pods(made));
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

    /// Writes these, several at a time.
    async fn statuses(&mut self, due: Vec<Due>) -> Left {
        let mut left = Left::Nothing;
        let now = Instant::now();
        let key = |due: &Due| format!("status of {}", due.object);
        let (waiting, due): (Vec<Due>, Vec<Due>) =
            due.into_iter().partition(|due| self.failures.waits(&key(due), now));
        if !waiting.is_empty() {
            left = Left::Soon;
        }
        let (client, fence) = (self.client.clone(), self.fence.clone());
        let write = |due: Due| {
            let (client, fence) = (client.clone(), fence.clone());
            async move {
                let began = Instant::now();
                let done = if fence.may_write() { Some(patch_status(&client, &due).await) } else { None };
                // What is pushed comes first: a busy API server is left alone for as long as it took.
                tokio::time::sleep(began.elapsed().min(TOGETHER)).await;
                (due, done)
            }
        };
        let mut writes = futures_util::stream::iter(due).map(write).buffer_unordered(AT_A_TIME);
        while let Some((due, done)) = writes.next().await {
            left = left.max(Left::Events);
            let Some(done) = done else { continue };
            if !self.note(key(&due), due.object.kind.to_string(), &done) {
                left = Left::Soon;
            }
            if done.is_ok() {
                self.written.note(due.object.clone(), Instant::now());
                // The answer may have found us paused, and another leading.
                if self.fence.may_write() {
                    self.events.tell(&due, Instant::now()).await;
                }
            }
        }
        left
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
        ObjectKind::Secret | ObjectKind::ConfigMap | ObjectKind::Namespace => return Ok(()),
    };
    // Untyped: the answer to a write on an object that this version cannot read is no failure.
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &due.object.namespace, &resource);
    let params = PatchParams::apply(CONTROLLER).force();
    api.patch_status(&due.object.name, &params, &Patch::Apply(&due.manifest)).await.map(drop)
}
