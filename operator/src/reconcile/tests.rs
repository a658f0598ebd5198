use std::time::SystemTime;

use crate::authority::{Lifetimes, Material};

use super::*;

fn authority() -> Authority {
    let authority = Authority::new(vec!["operator".to_owned()], Lifetimes::default()).unwrap();
    let now = SystemTime::now();
    authority.load(Material::generate(Lifetimes::default(), now).unwrap(), now).unwrap();
    authority
}

/// Over an API server that is not there: nothing of this asks it anything.
fn reconciler(world: &Arc<World>) -> Reconciler {
    let nowhere = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let client = kube::Client::try_from(nowhere).unwrap();
    let (_, issuer) = watch::channel(Some(ClusterIssuer::default()));
    Reconciler {
        world: world.clone(),
        gatherer: Gatherer::new(client, world.clone()),
        publisher: Arc::default(),
        authority: Arc::new(authority()),
        issuer,
        cluster: Cluster::default(),
        allow_private: false,
        epoch: "e".to_owned(),
        metrics: Arc::default(),
        outcome: watch::Sender::new(Arc::default()),
    }
}

/// Lists every kind but one.
fn list_all_but_policies(world: &World) {
    world.servers.reset(None, Vec::new(), 7);
    world.gateways.reset(None, Vec::new(), 7);
    world.secrets.reset(None, Vec::new(), 7);
    world.namespaces.reset(None, Vec::new(), 7);
    world.services.reset(None, Vec::new(), 7);
    world.slices.reset(None, Vec::new(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nothing_is_published_before_every_kind_has_been_listed() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let world = Arc::new(World::new(&[]));
    let mut reconciler = reconciler(&world);
    list_all_but_policies(&world);
    let publisher = reconciler.publisher.clone();
    let (mut memo, mut backoff) = (Memo::default(), Backoff::default());
    assert_eq!(reconciler.step(&mut memo, &mut backoff, Instant::now()).await, None);
    assert!(!publisher.is_ready(), "a policy that is not listed yet may deny");
    world.policies.reset(None, Vec::new(), 7);
    assert_eq!(reconciler.step(&mut memo, &mut backoff, Instant::now()).await, None);
    assert!(publisher.is_ready());
}
