//! An operator that does as the test says, over real TLS and gRPC on loopback.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use mcpmesh_ir::push::{
    Ack, Behind, FromProxy, Hello, Observation, Report, Reported, Said, SignRequest, SignResponse, ToProxy,
    Told, Update,
};
use mcpmesh_proxy::upstream::tls::provider;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use self::generated::push_server::{Push, PushServer};

#[expect(
    unused_qualifications,
    unreachable_pub,
    clippy::allow_attributes,
    clippy::too_many_lines,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/server/mcpmesh.push.v1.Push.rs"));
}

/// The mesh's authority.
pub(crate) struct Authority {
    /// It answers with an error.
    pub(crate) refuses: AtomicBool,
    /// How often it did.
    pub(crate) refused: watch::Sender<u32>,
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let pem = params.self_signed(&key).unwrap().pem();
        let (refuses, refused) = (AtomicBool::new(false), watch::Sender::new(0));
        Self { refuses, refused, issuer: Issuer::new(params, key), pem }
    }

    fn server(&self) -> rustls::ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    fn sign(&self, request: &SignRequest) -> SignResponse {
        let mut csr = CertificateSigningRequestParams::from_der(&request.csr.as_slice().into()).unwrap();
        let uri = format!("spiffe://mcpmesh/{}", request.fleet);
        csr.params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        // More than half of its life is over: it is renewed as soon as may be.
        csr.params.not_before = (SystemTime::now() - Duration::from_secs(3000)).into();
        csr.params.not_after = (SystemTime::now() + Duration::from_secs(600)).into();
        SignResponse { chain: csr.signed_by(&self.issuer).unwrap().pem(), roots: self.pem.clone() }
    }
}

/// A stream that a proxy opened.
pub(crate) struct Session {
    pub(crate) token: String,
    said: Streaming<FromProxy>,
    tell: mpsc::Sender<Result<ToProxy, Status>>,
    sequence: u64,
}

impl Session {
    async fn said(&mut self) -> Said {
        self.said.message().await.unwrap().unwrap().said.unwrap()
    }

    pub(crate) async fn hello(&mut self) -> Hello {
        let Said::Hello(hello) = self.said().await else { panic!("not a hello") };
        hello
    }

    pub(crate) async fn ack(&mut self) -> Ack {
        let Said::Ack(ack) = self.said().await else { panic!("not an acknowledgement") };
        ack
    }

    pub(crate) async fn observation(&mut self) -> Observation {
        let Said::Observation(observation) = self.said().await else { panic!("not an observation") };
        observation
    }

    pub(crate) async fn update(&mut self, update: Update) {
        self.sequence += 1;
        let told = Some(Told::Update(Update { sequence: self.sequence, ..update }));
        self.tell.send(Ok(ToProxy { told })).await.unwrap();
    }

    pub(crate) async fn behind(&mut self) {
        self.tell.send(Ok(ToProxy { told: Some(Told::Behind(Behind {})) })).await.unwrap();
    }

    /// Until the proxy has gone.
    pub(crate) async fn ended(mut self) {
        self.tell.closed().await;
        while let Ok(Some(_)) = self.said.message().await {}
    }
}

/// See the file.
pub(crate) struct Operator {
    pub(crate) address: String,
    pub(crate) authority: Arc<Authority>,
    sessions: mpsc::UnboundedReceiver<Session>,
    /// Connections that ended before anything could be said on them.
    turned_away: mpsc::UnboundedReceiver<()>,
    /// What a pod has.
    pub(crate) folder: tempfile::TempDir,
}

impl Operator {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::new());
        fs::write(folder.path().join("ca.crt"), &authority.pem).unwrap();
        fs::write(folder.path().join("token"), "token-1").unwrap();
        fs::write(folder.path().join("state-key"), "ab".repeat(32)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (opened, sessions) = mpsc::unbounded_channel();
        let (refused, turned_away) = mpsc::unbounded_channel();
        let tls = TlsAcceptor::from(Arc::new(authority.server()));
        tokio::spawn(serve(listener, tls, Served { opened, authority: authority.clone() }, refused));
        Self { address, authority, sessions, turned_away, folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The next stream.
    pub(crate) async fn session(&mut self) -> Session {
        self.sessions.recv().await.unwrap()
    }

    /// The next stream and what its proxy has.
    pub(crate) async fn greeted(&mut self) -> (Session, Hello) {
        let mut session = self.session().await;
        let hello = session.hello().await;
        (session, hello)
    }

    /// The next connection whose peer did not believe us.
    pub(crate) async fn turned_away(&mut self) {
        self.turned_away.recv().await.unwrap();
    }

    pub(crate) fn nobody_came(&mut self) -> bool {
        self.sessions.try_recv().is_err()
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, served: Served, refused: mpsc::UnboundedSender<()>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, service) = (tls.clone(), TowerToHyperService::new(PushServer::new(served.clone())));
        let refused = refused.clone();
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else {
                let _ = refused.send(());
                return;
            };
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

#[derive(Clone)]
struct Served {
    opened: mpsc::UnboundedSender<Session>,
    authority: Arc<Authority>,
}

#[tonic::async_trait]
impl Push for Served {
    type SubscribeStream = ReceiverStream<Result<ToProxy, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<FromProxy>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let token = request.metadata().get("authorization").unwrap().to_str().unwrap().to_owned();
        let (tell, told) = mpsc::channel(16);
        let session = Session { token, said: request.into_inner(), tell, sequence: 0 };
        self.opened.send(session).map_err(|_| Status::unavailable("over"))?;
        Ok(Response::new(ReceiverStream::new(told)))
    }

    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        assert!(request.metadata().get("authorization").is_some());
        if self.authority.refuses.load(Ordering::Relaxed) {
            self.authority.refused.send_modify(|count| *count += 1);
            return Err(Status::internal("the authority's key is not there"));
        }
        Ok(Response::new(self.authority.sign(request.get_ref())))
    }

    async fn report(&self, _: Request<Report>) -> Result<Response<Reported>, Status> {
        Err(Status::unimplemented("for operators"))
    }
}
