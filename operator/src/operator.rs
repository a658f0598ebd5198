//! Puts the parts together, and takes them apart again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use mcpmesh_compiler::ClusterIssuer;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api_server;
use crate::arguments::Arguments;
use crate::authority::{self, Authority, Lifetimes};
use crate::connected::Connected;
use crate::events::Events;
use crate::health::{self, Telling};
use crate::identity::{ClusterKeys, Review, ServiceAccount, Verifier, follow_keys};
use crate::inputs::Gatherer;
use crate::last_good::Copies;
use crate::leading::{Failures, Leading};
use crate::lease::{self, Fence, Leader};
use crate::metrics::{Metrics, OfCertificate, OfKind};
use crate::observers::{self, Pods};
use crate::publish::Publisher;
use crate::push;
use crate::reconcile::{Outcome, Reconciler};
use crate::report::{self, Forwarder, Reports};
use crate::status::words::Words;
use crate::status::write::Written;
use crate::watch::Backoff;
use crate::world::World;

/// How long proxies may take to leave at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// What many parts share.
#[derive(Clone)]
struct Shared {
    client: kube::Client,
    world: Arc<World>,
    publisher: Arc<Publisher>,
    connected: Arc<Connected>,
    reports: Arc<Reports>,
    authority: Arc<Authority>,
    metrics: Arc<Metrics>,
    issuer: Arc<watch::Sender<Option<ClusterIssuer>>>,
    api_server: Arc<watch::Sender<Option<BTreeSet<SocketAddr>>>>,
    outcome: watch::Sender<Arc<Outcome>>,
    roots: watch::Sender<u64>,
    fence: Fence,
    leader: watch::Sender<Leader>,
    stop: CancellationToken,
}

impl Shared {
    async fn new(arguments: &Arguments) -> anyhow::Result<Self> {
        let missing = "no Kubernetes API server is configured";
        let config = kube::Config::infer().await.context(missing)?;
        let hosts = api_server::Hosts::new(&config.cluster_url, |name| std::env::var(name).ok());
        let client = kube::Client::try_from(config).context(missing)?;
        let api_server = Arc::new(watch::Sender::new(None));
        tokio::spawn(api_server::follow(hosts, api_server.clone()));
        let lifetime = |given: &mcpmesh_crds::Duration| Duration::from_millis(given.as_millis());
        let lifetimes =
            Lifetimes::new(lifetime(&arguments.root_lifetime), lifetime(&arguments.certificate_lifetime))?;
        let connected = Arc::<Connected>::default();
        Ok(Self {
            client,
            world: Arc::new(World::new(&arguments.watch_namespaces)),
            publisher: Arc::default(),
            reports: Arc::new(Reports::new(connected.clone())),
            connected,
            authority: Arc::new(Authority::new(arguments.names(), lifetimes)?),
            metrics: Arc::default(),
            issuer: Arc::new(watch::Sender::new(None)),
            api_server,
            outcome: watch::Sender::new(Arc::default()),
            roots: watch::Sender::new(0),
            fence: Fence::default(),
            leader: watch::Sender::new(Leader::Nobody),
            stop: CancellationToken::new(),
        })
    }
}

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    // The Kubernetes client takes the process's provider (decisions.md 23: one for all).
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let shared = Shared::new(&arguments).await?;
    let health = TcpListener::bind(arguments.metrics).await.context("cannot listen for metrics")?;
    let push = TcpListener::bind(arguments.listen).await.context("cannot listen for proxies")?;
    let (health_at, push_at) = (health.local_addr()?, push.local_addr()?);
    tracing::info!(push = %push_at, metrics = %health_at, namespaces = ?arguments.watch_namespaces, "listening");
    tokio::spawn(health::serve(health, telling(&shared), shared.stop.clone()));
    let mut end = signal(SignalKind::terminate())?;
    let election = tokio::select! {
        election = start(&arguments, &shared, push_at) => election,
        _ = end.recv() => return Ok(()),
    };
    let served = tokio::spawn(push::serve(push, service(&arguments, &shared)));
    tokio::select! {
        _ = end.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    tracing::info!("stopping");
    shared.stop.cancel();
    // The Lease is given back, and the streams end: proxies go to another replica at once.
    let _ = tokio::time::timeout(DRAIN, async { (election.await, served.await) }).await;
    Ok(())
}

/// Starts everything but the push server. Returns once there is an authority to serve it with.
async fn start(arguments: &Arguments, shared: &Shared, push_at: SocketAddr) -> JoinHandle<()> {
    let client = || shared.client.clone();
    let us = arguments.advertised(push_at);
    let lead = (shared.fence.clone(), shared.leader.clone());
    let election =
        tokio::spawn(lease::elect(client(), arguments.namespace.clone(), us, lead, shared.stop.clone()));
    shared.world.start(&shared.client);
    tokio::spawn(follow_keys(client(), shared.issuer.clone()));
    let (authority, fence) = (shared.authority.clone(), shared.fence.clone());
    let namespace = arguments.namespace.clone();
    tokio::spawn(authority::keep(client(), namespace, authority, fence, shared.roots.clone()));
    let reconciler = Reconciler {
        world: shared.world.clone(),
        gatherer: Gatherer::new(client(), shared.world.clone()),
        publisher: shared.publisher.clone(),
        authority: shared.authority.clone(),
        issuer: shared.issuer.subscribe(),
        cluster: arguments.cluster(),
        remote_ranges: arguments.remote_ranges.clone(),
        api_server: shared.api_server.subscribe(),
        epoch: epoch(shared, &arguments.namespace).await,
        metrics: shared.metrics.clone(),
        outcome: shared.outcome.clone(),
    };
    tokio::spawn(reconciler.run());
    tokio::spawn(assign(shared.clone()));
    tokio::spawn(leading(arguments, shared).run());
    tokio::spawn(report::forward(Forwarder {
        authority: shared.authority.clone(),
        connected: shared.connected.clone(),
        leader: shared.leader.subscribe(),
        replica: arguments.replica.clone(),
        server_name: arguments.server_name(),
        token: arguments.token.clone(),
    }));
    while !shared.authority.is_ready() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    election
}

fn leading(arguments: &Arguments, shared: &Shared) -> Leading {
    Leading {
        client: shared.client.clone(),
        world: shared.world.clone(),
        publisher: shared.publisher.clone(),
        reports: shared.reports.clone(),
        authority: shared.authority.clone(),
        fence: shared.fence.clone(),
        leader: shared.leader.subscribe(),
        outcome: shared.outcome.subscribe(),
        roots: shared.roots.subscribe(),
        metrics: shared.metrics.clone(),
        events: Events::new(shared.client.clone(), arguments.replica.clone()),
        written: Written::default(),
        failures: Failures::default(),
        words: Arc::default(),
        settled: BTreeMap::new(),
        pinned: Arc::default(),
        copies: Copies::default(),
    }
}

fn service(arguments: &Arguments, shared: &Shared) -> Arc<push::Service<Verifier>> {
    let verifier = if arguments.watch_namespaces.is_empty() {
        Verifier::Review(Box::new(Review::new(shared.client.clone())))
    } else {
        // TokenReview needs a ClusterRole (decisions.md 24).
        Verifier::Keys(ClusterKeys::new(shared.issuer.subscribe()))
    };
    Arc::new(push::Service {
        verifier,
        publisher: shared.publisher.clone(),
        connected: shared.connected.clone(),
        authority: shared.authority.clone(),
        reports: shared.reports.clone(),
        metrics: shared.metrics.clone(),
        roots: shared.roots.clone(),
        own: ServiceAccount {
            namespace: arguments.namespace.clone(),
            name: arguments.service_account.clone(),
        },
        stop: shared.stop.clone(),
    })
}

/// Fleet sizes and observers follow the outcome and who is connected.
async fn assign(shared: Shared) {
    let (mut outcomes, mut members) = (shared.outcome.subscribe(), shared.connected.members());
    let mut others = true;
    let mut last = Arc::<Outcome>::default();
    loop {
        let outcome = outcomes.borrow_and_update().clone();
        members.mark_unchanged();
        let (before, now) = ((&last.compiled, &last.found), (&outcome.compiled, &outcome.found));
        if others || observers::may_differ(before, now) {
            let connected = shared.connected.pods();
            let pods = Pods { found: &outcome.found, connected: &connected };
            let observers = observers::observers(&outcome.compiled, &pods);
            shared.publisher.assign(&observers::sizes(&outcome.compiled, &pods), observers);
        }
        last = outcome;
        others = tokio::select! {
            changed = outcomes.changed() => { if changed.is_err() { return } false }
            changed = members.changed() => { if changed.is_err() { return } true }
        } || members.has_changed().unwrap_or(true);
    }
}

/// What makes watermarks comparable: the uid of namespace kube-system; where that may not be read, of our own.
async fn epoch(shared: &Shared, own: &str) -> String {
    let api: Api<Namespace> = Api::all(shared.client.clone());
    let mut backoff = Backoff::default();
    loop {
        for name in ["kube-system", own] {
            match api.get(name).await {
                Ok(namespace) => return namespace.metadata.uid.unwrap_or_default(),
                Err(kube::Error::Api(status)) if status.code == 403 => {}
                Err(error) => tracing::warn!(%error, name, "cannot read the namespace, trying again"),
            }
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

fn telling(shared: &Shared) -> Arc<Telling> {
    let (scraped, asked) = (shared.clone(), shared.clone());
    Arc::new(Telling {
        metrics: Box::new(move || {
            gather(&scraped);
            scraped.metrics.render()
        }),
        ready: Box::new(move || {
            asked.publisher.is_ready() && asked.authority.is_ready() && !asked.stop.is_cancelled()
        }),
    })
}

/// What is only looked at when somebody asks.
fn gather(shared: &Shared) {
    let Shared { world, metrics, .. } = shared;
    let kinds = [
        ("McpServer", world.servers.len()),
        ("McpGateway", world.gateways.len()),
        ("McpPolicy", world.policies.len()),
        ("Secret", world.secrets.len()),
        ("ConfigMap", world.config_maps.len()),
        ("Namespace", world.namespaces.len()),
        ("Service", world.services.len()),
        ("EndpointSlice", world.slices.len()),
    ];
    for (kind, count) in kinds {
        metrics.objects.get_or_create(&OfKind { kind }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    metrics.config_age.set(world.age().as_secs_f64());
    metrics.leader.set(i64::from(shared.fence.may_write()));
    let outcome = shared.outcome.borrow().clone();
    metrics.count(&outcome);
    if shared.fence.may_write() {
        let words = Words::new(shared.reports.all(), &Words::default());
        metrics.count_proxies(&outcome, &words, &shared.publisher);
    }
    if let Some((root, serving)) = shared.authority.expiries() {
        for (certificate, at) in [("root", root), ("serving", serving)] {
            let label = OfCertificate { certificate };
            metrics.certificate_expiry.get_or_create(&label).set(i64::try_from(at).unwrap_or(i64::MAX));
        }
    }
}
