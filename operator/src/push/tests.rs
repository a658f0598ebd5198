use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use mcpmesh_compiler::Compiled;
use mcpmesh_ir::push::{Ack, Hello, ProxyReport, Told, Update, Watermark};
use mcpmesh_ir::{ApiKey, Fleet, Resource, SecretId};
use rustls_pki_types::ServerName;
use tokio_stream::StreamExt;
use tonic::Code;

use super::service::push_client::PushClient;
use super::*;
use crate::authority::{Lifetimes, Material};
use crate::publish::Marks;

const NAME: &str = "mcpmesh-operator.mcpmesh-system.svc";
const FLEET: &str = "gateway/a/gw";

/// Tokens that are the user's name.
struct Names;

impl Verify for Names {
    async fn verify(&self, token: &str) -> Result<ServiceAccount, Error> {
        ServiceAccount::of_user(token).ok_or_else(|| Error::Refused("unknown".to_owned()))
    }
}

struct Running {
    service: Arc<Service<Names>>,
    address: std::net::SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.service.stop.cancel();
    }
}

type Connector = hyper_rustls::HttpsConnector<hyper_util::client::legacy::connect::HttpConnector>;

impl Running {
    async fn start() -> Self {
        let lifetimes = Lifetimes::default();
        let authority = Authority::new(vec![NAME.to_owned()], lifetimes).unwrap();
        let now = SystemTime::now();
        authority.load(Material::generate(lifetimes, now).unwrap(), now).unwrap();
        let connected = Arc::<Connected>::default();
        let service = Arc::new(Service {
            verifier: Names,
            publisher: Arc::default(),
            reports: Arc::new(Reports::new(connected.clone())),
            connected,
            authority: Arc::new(authority),
            metrics: Arc::default(),
            roots: watch::Sender::new(0),
            own: ServiceAccount {
                namespace: "mcpmesh-system".to_owned(),
                name: "mcpmesh-operator".to_owned(),
            },
            stop: CancellationToken::new(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, service.clone()));
        Self { service, address }
    }

    fn publish(&self, owner: &str, version: u64) {
        let key = ApiKey {
            secret: SecretId::new("a", "k"),
            sha256: String::new(),
            owner: owner.to_owned(),
            groups: Vec::new(),
            expires: None,
        };
        let id: FleetId = FLEET.parse().unwrap();
        let fleet = Fleet::new(id.clone(), [Resource::new("a/k", &key).unwrap()]);
        let mark = mcpmesh_ir::Watermark {
            epoch: "e".to_owned(),
            versions: BTreeMap::from([("McpPolicy".to_owned(), version)]),
        };
        let marks = Marks { changed: mark.clone(), seen: mark };
        let fleets = BTreeMap::from([(id, Arc::new(fleet))]);
        let compiled = Compiled { fleets, ..Compiled::default() };
        let compiled = BTreeMap::from([("a".to_owned(), Arc::new(compiled))]);
        self.service.publisher.publish(&compiled, marks, Instant::now());
    }

    fn client(&self) -> PushClient<Client<Connector, tonic::body::Body>> {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(self.service.authority.client_config().unwrap())
            .https_only()
            .with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(
                ServerName::try_from(NAME).unwrap(),
            ))
            .enable_http2()
            .build();
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build(connector);
        PushClient::with_origin(client, format!("https://{}", self.address).parse().unwrap())
    }

    async fn subscribe(&self, token: &str, version: u64) -> Result<Proxy, Status> {
        let (say, said) = mpsc::channel(8);
        let watermark =
            Watermark { epoch: "e".to_owned(), versions: [("McpPolicy".to_owned(), version)].into() };
        let hello = Hello {
            fleet: FLEET.to_owned(),
            pod: "pod".to_owned(),
            watermark: Some(watermark),
            ..Hello::default()
        };
        say.send(FromProxy { said: Some(Said::Hello(hello)) }).await.unwrap();
        let request = authorized(ReceiverStream::new(said), token);
        let told = self.client().subscribe(request).await?.into_inner();
        Ok(Proxy { say, told })
    }
}

fn authorized<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

struct Proxy {
    say: mpsc::Sender<FromProxy>,
    told: Streaming<ToProxy>,
}

impl Proxy {
    async fn told(&mut self) -> Told {
        self.told.next().await.unwrap().unwrap().told.unwrap()
    }

    async fn update(&mut self) -> Update {
        match self.told().await {
            Told::Update(update) => update,
            Told::Behind(_) => panic!("it is behind"),
        }
    }

    async fn acknowledge(&self, update: &Update) {
        let ack =
            Ack { sequence: update.sequence, revision: update.revision.clone(), rejections: Vec::new() };
        self.say.send(FromProxy { said: Some(Said::Ack(ack)) }).await.unwrap();
    }
}

const OWN: &str = "system:serviceaccount:a:gw-mcpgateway";

#[tokio::test]
async fn a_proxy_gets_its_configuration_and_then_only_what_changed() {
    let running = Running::start().await;
    let mut changes = running.service.connected.changes();
    running.publish("x", 1);
    let mut proxy = running.subscribe(OWN, 0).await.unwrap();
    let first = proxy.update().await;
    assert_eq!((first.sequence, first.changed.len()), (1, 1));
    proxy.acknowledge(&first).await;
    changes
        .wait_for(|_| running.service.connected.reports().iter().any(|one| one.revision == first.revision))
        .await
        .unwrap();
    running.publish("y", 2);
    let second = proxy.update().await;
    assert_eq!(second.sequence, 2);
    assert_ne!(second.revision, first.revision);
    drop(proxy);
    changes.wait_for(|_| running.service.connected.reports().is_empty()).await.unwrap();
}

#[tokio::test]
async fn a_connected_proxy_is_told_of_other_roots_at_once() {
    let running = Running::start().await;
    running.publish("x", 1);
    let mut proxy = running.subscribe(OWN, 0).await.unwrap();
    let first = proxy.update().await;
    assert_eq!(first.roots, running.service.authority.roots().unwrap());
    proxy.acknowledge(&first).await;
    let now = SystemTime::now();
    running.service.authority.load(Material::generate(Lifetimes::default(), now).unwrap(), now).unwrap();
    running.service.roots.send_modify(|times| *times += 1);
    let second = proxy.update().await;
    assert_eq!(second.roots, running.service.authority.roots().unwrap());
    assert_ne!(second.roots, first.roots);
    assert!(second.changed.is_empty() && second.revision == first.revision);
}

#[tokio::test]
async fn a_replica_that_has_seen_less_says_so_and_catches_up() {
    let running = Running::start().await;
    running.publish("x", 5);
    let mut proxy = running.subscribe(OWN, 7).await.unwrap();
    assert!(matches!(proxy.told().await, Told::Behind(_)));
    running.publish("y", 7);
    let update = proxy.update().await;
    assert_eq!(update.watermark.unwrap().versions["McpPolicy"], 7);
}

#[tokio::test]
async fn a_proxy_that_comes_before_the_first_compile_waits_for_it() {
    let running = Running::start().await;
    let mut proxy = running.subscribe(OWN, 0).await.unwrap();
    running.publish("x", 1);
    assert_eq!(proxy.update().await.changed.len(), 1);
}

#[tokio::test]
async fn only_a_fleets_own_service_account_gets_its_configuration() {
    let running = Running::start().await;
    running.publish("x", 1);
    for (token, code) in [
        ("nobody", Code::Unauthenticated),
        ("system:serviceaccount:b:gw-mcpgateway", Code::PermissionDenied),
        ("system:serviceaccount:a:other-mcpgateway", Code::PermissionDenied),
        ("system:serviceaccount:a:gw-mcpserver", Code::PermissionDenied),
        ("system:serviceaccount:mcpmesh-system:mcpmesh-operator", Code::PermissionDenied),
    ] {
        let refused = running.subscribe(token, 0).await.err().unwrap();
        assert_eq!(refused.code(), code, "{token}");
        let sign = SignRequest { fleet: FLEET.to_owned(), csr: Vec::new() };
        let refused = running.client().sign(authorized(sign, token)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{token}");
    }
    let refused = running.client().sign(Request::new(SignRequest::default())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_certificate_is_signed_for_the_fleet_of_the_token() {
    let running = Running::start().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
    let sign = SignRequest { fleet: FLEET.to_owned(), csr };
    let signed = running.client().sign(authorized(sign, OWN)).await.unwrap().into_inner();
    assert!(signed.chain.contains("BEGIN CERTIFICATE") && signed.roots.contains("BEGIN CERTIFICATE"));
    let sign = SignRequest { fleet: FLEET.to_owned(), csr: b"none".to_vec() };
    let refused = running.client().sign(authorized(sign, OWN)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn reports_come_from_the_operator_only() {
    let running = Running::start().await;
    let report = || Report {
        replica: "other".to_owned(),
        proxies: vec![ProxyReport { fleet: FLEET.to_owned(), pod: "p".to_owned(), ..ProxyReport::default() }],
    };
    let refused = running.client().report(authorized(report(), OWN)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let own = "system:serviceaccount:mcpmesh-system:mcpmesh-operator";
    running.client().report(authorized(report(), own)).await.unwrap();
    assert_eq!(running.service.reports.all().len(), 1);
}
