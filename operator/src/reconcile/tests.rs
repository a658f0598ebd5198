use std::time::SystemTime;

use crate::authority::{Lifetimes, Material};
use crate::world::endpoints::Slice;

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
    let (_, api_server) = watch::channel(Some(BTreeSet::from([SocketAddr::from(([10, 96, 0, 1], 443))])));
    Reconciler {
        world: world.clone(),
        gatherer: Gatherer::new(client, world.clone()),
        publisher: Arc::default(),
        authority: Arc::new(authority()),
        issuer,
        cluster: Cluster::default(),
        remote_ranges: vec!["10.0.0.0/8".parse().unwrap()],
        api_server,
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
    world.config_maps.reset(None, Vec::new(), 7);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nothing_is_published_before_it_is_known_where_the_api_server_is() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let world = Arc::new(World::new(&[]));
    let mut reconciler = reconciler(&world);
    let (told, api_server) = watch::channel(None);
    reconciler.api_server = api_server;
    list_all_but_policies(&world);
    world.policies.reset(None, Vec::new(), 7);
    let publisher = reconciler.publisher.clone();
    let (mut memo, mut backoff) = (Memo::default(), Backoff::default());
    assert!(reconciler.step(&mut memo, &mut backoff, Instant::now()).await.is_some());
    assert!(!publisher.is_ready(), "a remote may lead there");
    told.send_replace(Some(BTreeSet::new()));
    assert_eq!(reconciler.step(&mut memo, &mut backoff, Instant::now()).await, None);
    assert!(publisher.is_ready());
}

#[tokio::test]
async fn the_endpoints_of_the_api_server_are_closed_like_the_address_that_pods_know() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let world = Arc::new(World::new(&[]));
    let reconciler = reconciler(&world);
    let slice = |service: &str, ip: [u8; 4]| Slice {
        service: service.to_owned(),
        ports: vec![("https".to_owned(), 6443)],
        ready: vec![(ip.into(), None)],
    };
    let at = |ip: [u8; 4], port: u16| SocketAddr::from((ip, port));
    let entry = |namespace: &str, slice: Slice| ((namespace.to_owned(), "one".to_owned()), slice, 7);
    let tenants = entry("team-a", slice("kubernetes", [10, 0, 0, 6]));
    world.slices.reset(None, vec![tenants], 7);
    assert_eq!(reconciler.remotes().unwrap().excluded, [at([10, 96, 0, 1], 443)]);
    world.inputs.send_replace(None);
    let key = ("default".to_owned(), "kubernetes".to_owned());
    world.slices.apply(None, key, Some(slice("kubernetes", [10, 0, 0, 5])), 8);
    assert!(world.inputs.borrow().is_some(), "a change of them leads to a compile");
    let excluded = [at([10, 0, 0, 5], 6443), at([10, 96, 0, 1], 443)];
    assert_eq!(reconciler.remotes().unwrap().excluded, excluded);
}
