//! A proxy and its operator, over real TLS and gRPC: what is applied, told, kept and taken up again.

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mcpmesh_ir::gateway::{Anonymous, Attachment, Gateway, Level, LevelKind, Listener, ListenerTls, Naming};
use mcpmesh_ir::push::{Resource, Update, Watermark};
use mcpmesh_ir::server::{Endpoint, Server};
use mcpmesh_ir::{Fleet, FleetId, GatewayId, PolicyId, ServerId};
use mcpmesh_proxy::mesh::Mesh;
use mcpmesh_proxy::push::{LastGood, Settings, Store, Subscriber};
use mcpmesh_proxy::{Options, Proxy, push};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::operator::{Authority, Operator};

fn id() -> GatewayId {
    GatewayId::new("a", "gw")
}

fn fleet_id() -> FleetId {
    FleetId::Gateway(id())
}

fn gateway() -> Gateway {
    let listener = Listener {
        name: "mcp".to_owned(),
        port: 8080,
        hostname: None,
        path: "/mcp".to_owned(),
        allowed_origins: vec![],
        tls: None,
    };
    let servers =
        vec![Attachment { server: ServerId::new("a", "s"), prefix: "s".to_owned(), levels: vec![] }];
    let policies = vec![PolicyId::new("a", "p")];
    Gateway {
        id: id(),
        uid: "uid-of-gw".to_owned(),
        listeners: vec![listener],
        servers,
        naming: Naming::Always,
        anonymous: Anonymous::Allow,
        api_keys: vec![],
        token_issuers: vec![],
        peers: vec![],
        levels: vec![Level { kind: LevelKind::Gateway, policies, closed: None }],
    }
}

fn server() -> Server {
    Server {
        id: ServerId::new("a", "s"),
        endpoint: Endpoint::Workload { digest: "d".to_owned() },
        headers: vec![],
        tools: Default::default(),
        timeouts: Default::default(),
        lock: None,
    }
}

fn fleet(gateway: &Gateway) -> Fleet {
    let server = mcpmesh_ir::Resource::new("a/s", &server()).unwrap();
    Fleet::new(fleet_id(), [mcpmesh_ir::Resource::new("a/gw", gateway).unwrap(), server])
}

fn mark(version: u64) -> Option<Watermark> {
    Some(Watermark { epoch: "e".to_owned(), versions: [("McpGateway".to_owned(), version)].into() })
}

/// All of a fleet, to somebody who has nothing.
fn whole(fleet: &Fleet, version: u64) -> Update {
    let changed = fleet.resources.iter().map(Resource::from).collect();
    Update { revision: fleet.revision(), watermark: mark(version), changed, ..Update::default() }
}

/// Nothing new to somebody who has all of a fleet.
fn nothing(fleet: &Fleet, version: u64) -> Update {
    Update { changed: vec![], ..whole(fleet, version) }
}

/// A proxy with its subscription.
struct Pod {
    proxy: Arc<Proxy>,
    mesh: Mesh,
    bypass: watch::Sender<bool>,
    stop: CancellationToken,
    subscribed: AbortOnDropHandle<()>,
}

impl Pod {
    /// Boots; the operator may be there or not.
    async fn boot(operator: &Operator) -> Self {
        let address = operator.address.clone();
        Self::boot_with(operator, &address, Duration::from_secs(3600)).await
    }

    /// Boots; takes the operator's copy when there is nothing else after this time.
    async fn boot_with(operator: &Operator, address: &str, patience: Duration) -> Self {
        let options = Options::new(([127, 0, 0, 1], 0).into());
        let mesh = options.mesh.clone();
        let (bypass, bypassed) = watch::channel(false);
        let store = Store::open(operator.path("state"), &operator.path("state-key"), fleet_id());
        let settings = Settings {
            operator: push::Operator::new(address, operator.folder.path().to_owned()).unwrap(),
            fleet: fleet_id(),
            pod: "gw-1".to_owned(),
            store: store.unwrap(),
            last_good: LastGood { folder: operator.path("last-good"), patience },
            bypass: bypassed,
            mesh: mesh.clone(),
        };
        let proxy = Proxy::start(options).await.unwrap();
        let subscriber = Subscriber::boot(Arc::clone(&proxy), settings).await;
        let stop = CancellationToken::new();
        let subscribed = AbortOnDropHandle::new(tokio::spawn(subscriber.run(stop.clone())));
        Self { proxy, mesh, bypass, stop, subscribed }
    }

    /// As a process ends: what is in force is on the disk then.
    async fn end(self) {
        self.stop.cancel();
        self.subscribed.await.unwrap();
    }

    fn readiness(&self) -> Result<&'static str, &'static str> {
        self.proxy.readiness().verdict()
    }

    fn metric(&self, line: &str) -> bool {
        self.proxy.metrics().render().lines().any(|one| one == line)
    }
}

#[tokio::test]
async fn a_new_proxy_is_ready_once_it_has_acknowledged_its_first_update() {
    let mut operator = Operator::start().await;
    let pod = Pod::boot(&operator).await;
    assert_eq!(pod.readiness(), Err("no configuration yet"));
    let (mut session, hello) = operator.greeted().await;
    assert_eq!(session.token, "Bearer token-1");
    assert_eq!((hello.fleet.as_str(), hello.pod.as_str()), ("gateway/a/gw", "gw-1"));
    assert!(hello.have.is_empty());
    let fleet = fleet(&gateway());
    session.update(whole(&fleet, 1)).await;
    let ack = session.ack().await;
    assert_eq!((ack.sequence, ack.revision), (1, fleet.revision()));
    assert!(ack.rejections.is_empty(), "{:?}", ack.rejections);
    assert_eq!(pod.readiness(), Ok("ok"));
    assert_eq!(pod.proxy.paths(), [(id(), "/mcp".to_owned())]);
    let info = format!("mcpmesh_proxy_config_revision_info{{revision=\"{}\"}} 1", fleet.revision());
    assert!(pod.metric(&info));
    assert!(pod.metric("mcpmesh_proxy_config_stale 0"));
}

#[tokio::test]
async fn roots_that_are_no_certificates_change_nothing_and_break_no_stream() {
    let mut operator = Operator::start().await;
    let pod = Pod::boot(&operator).await;
    pod.mesh.certified().await;
    let (mut session, _) = operator.greeted().await;
    let fleet = fleet(&gateway());
    session.update(Update { roots: "damaged".to_owned(), ..whole(&fleet, 1) }).await;
    assert_eq!(session.ack().await.sequence, 1);
    session.update(Update { roots: Authority::new().pem, ..nothing(&fleet, 2) }).await;
    assert_eq!(session.ack().await.sequence, 2);
    assert_eq!(*pod.mesh.installed().borrow(), 1);
}

#[tokio::test]
async fn what_a_proxy_cannot_apply_is_in_every_acknowledgement_until_it_is_gone() {
    let mut operator = Operator::start().await;
    let _pod = Pod::boot(&operator).await;
    let (mut session, _) = operator.greeted().await;
    let fleet = fleet(&gateway());
    let strange = |kind: &str, name: &str, body: &str| Resource {
        kind: kind.to_owned(),
        name: name.to_owned(),
        body: body.to_owned().into(),
        ..Resource::default()
    };
    let mut update = whole(&fleet, 1);
    update.changed.extend([strange("Guardrail", "a/x", "{}"), strange("Policy", "a/p", r#"{"newer":1}"#)]);
    session.update(update).await;
    let expected = ["Guardrail a/x", "Policy a/p"];
    let rejected = |ack: mcpmesh_ir::push::Ack| -> Vec<String> {
        ack.rejections.iter().map(|one| format!("{} {}", one.kind, one.name)).collect()
    };
    assert_eq!(rejected(session.ack().await), expected);
    // Confirmed again, with a fleet of another size: nothing else changes.
    session.update(Update { fleet_size: 3, ..nothing(&fleet, 2) }).await;
    assert_eq!(rejected(session.ack().await), expected);
    let gone = |kind: &str, name: &str| mcpmesh_ir::push::Have {
        kind: kind.to_owned(),
        name: name.to_owned(),
        version: String::new(),
    };
    let removed = vec![gone("Guardrail", "a/x"), gone("Policy", "a/p")];
    session.update(Update { removed, ..nothing(&fleet, 3) }).await;
    assert!(session.ack().await.rejections.is_empty());
}

#[tokio::test]
async fn what_a_later_operator_adds_is_ignored_but_in_a_policy_where_it_is_rejected() {
    let mut operator = Operator::start().await;
    let pod = Pod::boot(&operator).await;
    let (mut session, _) = operator.greeted().await;
    // As a later version would write it: one more field, and the hash of that.
    let later = |mut resource: mcpmesh_ir::Resource| {
        let mut body: serde_json::Value = serde_json::from_str(resource.body.get()).unwrap();
        body["fieldOfTomorrow"] = true.into();
        resource.body = mcpmesh_ir::resource::canonical(&body).unwrap();
        resource.version = mcpmesh_ir::Version::of(resource.body.get().as_bytes());
        resource
    };
    let policy = mcpmesh_ir::policy::Policy {
        id: PolicyId::new("a", "p"),
        mode: mcpmesh_ir::policy::Mode::Enforce,
        access: vec![],
        limits: vec![],
    };
    let policy = mcpmesh_ir::Resource::new("a/p", &policy).unwrap();
    let mut needy = policy.clone();
    needy.requires.push("a-feature-of-tomorrow".to_owned());
    let others = fleet(&gateway()).resources.into_iter().map(later);
    for (wrong, reason) in [(later(policy.clone()), "fieldOfTomorrow"), (needy, "a-feature-of-tomorrow")] {
        let fleet = Fleet::new(fleet_id(), others.clone().chain([wrong]));
        session.update(whole(&fleet, 1)).await;
        let ack = session.ack().await;
        assert_eq!(ack.revision, fleet.revision());
        let [rejected] = ack.rejections.as_slice() else { panic!("{:?}", ack.rejections) };
        assert_eq!((rejected.kind.as_str(), rejected.name.as_str()), ("Policy", "a/p"));
        assert!(rejected.reason.contains(reason), "{}", rejected.reason);
        assert_eq!(pod.proxy.paths(), [(id(), "/mcp".to_owned())], "the gateway is not served");
    }
    let fleet = Fleet::new(fleet_id(), others.chain([policy]));
    session.update(whole(&fleet, 2)).await;
    assert!(session.ack().await.rejections.is_empty());
}

#[tokio::test]
async fn a_proxy_that_was_cut_off_says_what_it_has_with_a_token_read_anew() {
    let mut operator = Operator::start().await;
    let pod = Pod::boot(&operator).await;
    let (mut session, _) = operator.greeted().await;
    let fleet = fleet(&gateway());
    session.update(whole(&fleet, 7)).await;
    session.ack().await;
    fs::write(operator.path("token"), "token-2").unwrap();
    drop(session);
    let (mut session, hello) = operator.greeted().await;
    assert_eq!(session.token, "Bearer token-2");
    assert_eq!(hello.have.len(), fleet.resources.len());
    assert_eq!(hello.watermark, mark(7));
    assert_eq!(pod.readiness(), Ok("ok"));
    // This replica has not seen that much: the next may have.
    session.behind().await;
    session.ended().await;
    let (mut session, _) = operator.greeted().await;
    session.update(nothing(&fleet, 8)).await;
    assert_eq!(session.ack().await.revision, fleet.revision());
}

#[tokio::test]
async fn an_update_that_is_behind_is_refused_and_never_in_force() {
    let mut operator = Operator::start().await;
    let pod = Pod::boot(&operator).await;
    let (mut session, _) = operator.greeted().await;
    session.update(whole(&fleet(&gateway()), 7)).await;
    session.ack().await;
    let mut earlier = gateway();
    earlier.listeners[0].path = "/earlier".to_owned();
    session.update(whole(&fleet(&earlier), 6)).await;
    session.ended().await;
    let (_session, hello) = operator.greeted().await;
    assert_eq!(hello.watermark, mark(7));
    assert_eq!(pod.proxy.paths(), [(id(), "/mcp".to_owned())]);
}

#[tokio::test]
async fn a_proxy_that_has_something_else_than_the_operator_thinks_asks_for_all_of_it() {
    let mut operator = Operator::start().await;
    let _pod = Pod::boot(&operator).await;
    let (mut session, _) = operator.greeted().await;
    let fleet = fleet(&gateway());
    let mut half = whole(&fleet, 1);
    half.changed.truncate(1);
    session.update(half).await;
    session.ended().await;
    let (mut session, hello) = operator.greeted().await;
    assert!(hello.have.is_empty());
    session.update(whole(&fleet, 1)).await;
    assert_eq!(session.ack().await.revision, fleet.revision());
}

#[tokio::test]
async fn a_restarted_proxy_serves_from_its_disk_before_the_operator_has_said_anything() {
    let mut operator = Operator::start().await;
    let fleet = fleet(&gateway());
    let pod = Pod::boot(&operator).await;
    let (mut session, _) = operator.greeted().await;
    session.update(whole(&fleet, 7)).await;
    session.ack().await;
    pod.end().await;
    drop(session);
    let pod = Pod::boot(&operator).await;
    assert!(pod.readiness().unwrap().contains("stale"));
    assert_eq!(pod.proxy.paths(), [(id(), "/mcp".to_owned())]);
    assert!(pod.metric("mcpmesh_proxy_config_stale 1"));
    let (mut session, hello) = loop {
        let (session, hello) = operator.greeted().await;
        if !hello.have.is_empty() {
            break (session, hello);
        }
    };
    assert_eq!(hello.watermark, mark(7));
    session.update(nothing(&fleet, 8)).await;
    assert_eq!(session.ack().await.revision, fleet.revision());
    assert_eq!(pod.readiness(), Ok("ok"));
    assert!(pod.metric("mcpmesh_proxy_config_stale 0"));
}

/// What an operator keeps in the fleet's last-good Secret.
fn keep_copy(operator: &Operator, update: Update) {
    let copy = mcpmesh_ir::push::LastGood { fleet: fleet_id().to_string(), update: Some(update), at: 1 };
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(&prost::Message::encode_to_vec(&copy)).unwrap();
    fs::create_dir_all(operator.path("last-good")).unwrap();
    fs::write(operator.path("last-good/configuration"), packer.finish().unwrap()).unwrap();
}

/// Until the proxy serves, and says that it may be out of date.
async fn serving_stale(pod: &Pod) {
    while !pod.readiness().is_ok_and(|said| said.contains("stale")) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_new_proxy_without_an_operator_boots_from_its_copy_and_says_stale() {
    let mut operator = Operator::start().await;
    let fleet = fleet(&gateway());
    keep_copy(&operator, whole(&fleet, 7));
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let pod = Pod::boot_with(&operator, &nobody.to_string(), Duration::ZERO).await;
    serving_stale(&pod).await;
    assert_eq!(pod.proxy.paths(), [(id(), "/mcp".to_owned())]);
    assert!(pod.metric("mcpmesh_proxy_config_stale 1"));
    drop(pod);
    // An operator that takes the stream and says nothing is as good as none; then it gets what the copy is.
    let address = operator.address.clone();
    let pod = Pod::boot_with(&operator, &address, Duration::ZERO).await;
    serving_stale(&pod).await;
    let (mut session, hello) = loop {
        let (session, hello) = operator.greeted().await;
        if !hello.have.is_empty() {
            break (session, hello);
        }
    };
    assert_eq!(hello.watermark, mark(7), "nothing older than the copy is taken any more");
    session.update(nothing(&fleet, 8)).await;
    session.ack().await;
    assert_eq!(pod.readiness(), Ok("ok"));
}

#[tokio::test]
async fn a_copy_is_not_taken_in_place_of_what_the_operator_or_the_disk_says() {
    let mut operator = Operator::start().await;
    let mut other = gateway();
    other.listeners[0].path = "/old".to_owned();
    keep_copy(&operator, whole(&fleet(&other), 1));
    let fleet = fleet(&gateway());
    let pod = Pod::boot(&operator).await;
    let (mut session, hello) = operator.greeted().await;
    assert!(hello.have.is_empty());
    session.update(whole(&fleet, 7)).await;
    session.ack().await;
    pod.end().await;
    drop(session);
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let pod = Pod::boot_with(&operator, &nobody.to_string(), Duration::ZERO).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(pod.proxy.paths(), [(id(), "/mcp".to_owned())]);
}

#[tokio::test]
async fn a_file_that_was_damaged_is_ignored_and_counted() {
    let mut operator = Operator::start().await;
    let pod = Pod::boot(&operator).await;
    let fleet = fleet(&gateway());
    let (mut session, _) = operator.greeted().await;
    session.update(whole(&fleet, 1)).await;
    session.ack().await;
    pod.end().await;
    drop(session);
    for entry in fs::read_dir(operator.path("state")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|name| name == "sealed") {
            fs::write(path, "damaged").unwrap();
        }
    }
    let pod = Pod::boot(&operator).await;
    assert_eq!(pod.readiness(), Err("no configuration yet"));
    assert!(pod.metric("mcpmesh_proxy_config_disk_errors_total 1"));
}

#[tokio::test]
async fn a_restarted_sidecar_has_its_certificate_before_the_operator_has_said_anything() {
    let operator = Operator::start().await;
    let pod = Pod::boot(&operator).await;
    pod.mesh.certified().await;
    pod.end().await;
    operator.authority.refuses.store(true, Ordering::Relaxed);
    let pod = Pod::boot(&operator).await;
    pod.mesh.certified().await;
    assert_eq!(pod.mesh.id(), Some(fleet_id()));
    pod.end().await;
    for entry in fs::read_dir(operator.path("state")).unwrap() {
        fs::write(entry.unwrap().path(), "damaged").unwrap();
    }
    let mut refused = operator.authority.refused.subscribe();
    refused.mark_unchanged();
    let pod = Pod::boot(&operator).await;
    refused.changed().await.unwrap();
    assert!(!pod.mesh.ready(), "it was asked for a new one, for the disk had none");
}

#[tokio::test]
async fn a_listener_of_the_mesh_waits_for_the_certificate() {
    let mut operator = Operator::start().await;
    let pod = Pod::boot(&operator).await;
    let mut installed = pod.mesh.installed();
    installed.wait_for(|times| *times > 0).await.unwrap();
    assert_eq!(pod.mesh.id(), Some(fleet_id()));
    let mut meshed = gateway();
    meshed.listeners[0].tls = Some(ListenerTls::Mesh {});
    let (mut session, _) = operator.greeted().await;
    session.update(whole(&fleet(&meshed), 1)).await;
    session.ack().await;
    // The certificate is there; what stands behind it is not.
    assert_eq!(pod.readiness(), Err("not every server has answered yet"));
}

#[tokio::test]
async fn a_failed_renewal_keeps_the_certificate_that_is_valid_and_is_tried_again() {
    let operator = Operator::start().await;
    let pod = Pod::boot(&operator).await;
    let mut installed = pod.mesh.installed();
    installed.wait_for(|times| *times == 1).await.unwrap();
    operator.authority.refuses.store(true, Ordering::Relaxed);
    // Renewed no sooner than after ten seconds: only the clock jumps there.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    tokio::time::resume();
    let mut refused = operator.authority.refused.subscribe();
    refused.wait_for(|count| *count >= 2).await.unwrap();
    assert_eq!(*installed.borrow(), 1);
    assert_eq!(pod.mesh.id(), Some(fleet_id()));
    assert!(pod.mesh.server().is_some(), "handshakes go on with it");
    operator.authority.refuses.store(false, Ordering::Relaxed);
    installed.wait_for(|times| *times == 2).await.unwrap();
}

#[tokio::test]
async fn an_operator_of_another_authority_is_told_nothing() {
    let mut operator = Operator::start().await;
    let own = fs::read(operator.path("ca.crt")).unwrap();
    fs::write(operator.path("ca.crt"), Authority::new().pem).unwrap();
    let pod = Pod::boot(&operator).await;
    // It comes for its configuration and for a certificate, and again: none gets through.
    for _ in 0..4 {
        operator.turned_away().await;
    }
    assert!(operator.nobody_came());
    assert!(!pod.mesh.ready());
    // The roots are read anew on each attempt.
    fs::write(operator.path("ca.crt"), own).unwrap();
    operator.greeted().await;
}

#[tokio::test]
async fn an_observer_tells_how_its_servers_are() {
    let mut operator = Operator::start().await;
    let pod = Pod::boot(&operator).await;
    let (mut session, _) = operator.greeted().await;
    let observe = vec!["a/s".to_owned(), "a/not-here".to_owned()];
    session.update(Update { observe, ..whole(&fleet(&gateway()), 1) }).await;
    session.ack().await;
    let observation = session.observation().await;
    assert_eq!(observation.server, "a/s");
    let observed: mcpmesh_ir::catalog::Observed = serde_json::from_slice(&observation.body).unwrap();
    assert_eq!((observed.index, observed.bypassable), (None, false));
    pod.bypass.send_replace(true);
    let observation = session.observation().await;
    let observed: mcpmesh_ir::catalog::Observed = serde_json::from_slice(&observation.body).unwrap();
    assert!(observed.bypassable);
}
