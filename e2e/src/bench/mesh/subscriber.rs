//! A subscriber: what a proxy is to the operator. It decodes every resource, acknowledges, and notes when.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use futures_util::stream;
use http::uri::PathAndQuery;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use mcpmesh_ir::push::{Ack, FromProxy, Hello, Said, ToProxy, Told, Update};
use mcpmesh_ir::{Resource, Server};
use prost::Message as _;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::Request;
use tonic::metadata::MetadataValue;

/// How a subscriber proves itself, and where.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) operator: String,
    /// PEM.
    pub(super) roots: String,
    pub(super) token: String,
    pub(super) fleet: String,
    pub(super) pod: String,
}

/// What all subscribers have acknowledged.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// By server: its total timeout in ms, by which the bench knows its changes again, the pod and the moment.
    servers: HashMap<String, Vec<(u64, String, Instant)>>,
    /// Subscribers that have had a configuration.
    pub(super) configured: usize,
    /// Bytes of the longest update with one resource.
    pub(super) longest: usize,
}

impl Record {
    /// When the last of this many pods had a change of a server, or a later one.
    pub(super) fn in_force(&self, server: &str, total_ms: u64, expected: usize) -> Option<Instant> {
        let mut first: BTreeMap<&str, Instant> = BTreeMap::new();
        for (total, pod, at) in self.servers.get(server)? {
            if (total_ms..100_000).contains(total) {
                first.entry(pod).or_insert(*at);
            }
        }
        (first.len() >= expected).then(|| first.into_values().max()).flatten()
    }
}

pub(super) type Log = Arc<Mutex<Record>>;

/// A running one. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Subscriber(JoinHandle<()>);

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Subscriber {
    /// Subscribes from nothing, and goes on until it is dropped.
    pub(super) fn start(identity: Identity, log: Log) -> Self {
        Self(tokio::spawn(async move {
            if let Err(error) = subscribe(&identity, &log).await {
                tracing::error!(pod = identity.pod, "a subscriber ended: {error:#}");
            }
        }))
    }
}

async fn subscribe(identity: &Identity, log: &Log) -> anyhow::Result<()> {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls(&identity.roots)?)
        .https_only()
        .enable_http2()
        .build();
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build(connector);
    let origin = format!("https://{}", identity.operator).parse()?;
    let mut line = tonic::client::Grpc::with_origin(client, origin).max_decoding_message_size(256 << 20);
    let (say, said) = mpsc::channel::<FromProxy>(4);
    let (fleet, pod) = (identity.fleet.clone(), identity.pod.clone());
    let hello = Hello { fleet, pod, version: "bench".to_owned(), ..Hello::default() };
    say.send(FromProxy { said: Some(Said::Hello(hello)) }).await?;
    let said = stream::unfold(said, async |mut said| Some((said.recv().await?, said)));
    let mut request = Request::new(said);
    let bearer = MetadataValue::try_from(format!("Bearer {}", identity.token))?;
    request.metadata_mut().insert("authorization", bearer);
    line.ready().await.context("no connection")?;
    let path = PathAndQuery::from_static("/mcpmesh.push.v1.Push/Subscribe");
    let codec = tonic_prost::ProstCodec::<FromProxy, ToProxy>::default();
    let mut told = line.streaming(request, path, codec).await?.into_inner();
    let mut is_first = true;
    while let Some(message) = told.message().await? {
        let Some(Told::Update(update)) = message.told else { continue };
        let (bytes, sequence, revision) = (update.encoded_len(), update.sequence, update.revision.clone());
        let (resources, servers) = decode(update)?;
        let ack = Ack { sequence, revision, rejections: Vec::new() };
        say.send(FromProxy { said: Some(Said::Ack(ack)) }).await?;
        let at = Instant::now();
        let mut record = log.lock().map_err(|_| anyhow::anyhow!("a panic"))?;
        for (server, total) in servers {
            record.servers.entry(server).or_default().push((total, identity.pod.clone(), at));
        }
        record.configured += usize::from(resources > 0 && std::mem::take(&mut is_first));
        record.longest = record.longest.max(if resources == 1 { bytes } else { 0 });
    }
    anyhow::bail!("the operator closed the stream")
}

fn decode(update: Update) -> anyhow::Result<(usize, Vec<(String, u64)>)> {
    let count = update.changed.len();
    let mut servers = Vec::new();
    for wire in update.changed {
        let resource = Resource::try_from(wire)?;
        if resource.kind == mcpmesh_ir::ResourceKind::Server {
            let server: Server = resource.decode()?;
            servers.push((resource.name, server.timeouts.total_ms));
        }
    }
    Ok((count, servers))
}

fn tls(roots: &str) -> anyhow::Result<rustls::ClientConfig> {
    let mut store = rustls::RootCertStore::empty();
    store.add_parsable_certificates(CertificateDer::pem_slice_iter(roots.as_bytes()).filter_map(Result::ok));
    ensure!(!store.is_empty(), "no roots");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(store)
        .with_no_client_auth())
}
