//! The push server: differences of configuration to proxies, certificates for them, reports of other replicas.

mod session;
mod stream;
mod tls;

/// What the build script made of `ir/push_service.rs`.
#[expect(
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated"
)]
pub(crate) mod service {
    include!(concat!(env!("OUT_DIR"), "/mcpmesh.push.v1.Push.rs"));
}

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use mcpmesh_ir::FleetId;
use mcpmesh_ir::push::{FromProxy, Report, Reported, Said, SignRequest, SignResponse, ToProxy};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::authority::Authority;
use crate::connected::Connected;
use crate::identity::{Error, ServiceAccount, Verify};
use crate::metrics::Metrics;
use crate::publish::Publisher;
use crate::report::Reports;
use service::push_server::{Push, PushServer};

/// How long a proxy may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest message: a certificate request, an acknowledgement, or the catalogue of a large server.
const MESSAGE: usize = 16 << 20;

/// What the service works on.
pub(crate) struct Service<V> {
    pub(crate) verifier: V,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) connected: Arc<Connected>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) metrics: Arc<Metrics>,
    /// Told of other roots of the authority.
    pub(crate) roots: watch::Sender<u64>,
    /// The operator's own service account: that of the other replicas.
    pub(crate) own: ServiceAccount,
    /// Ends all streams.
    pub(crate) stop: CancellationToken,
}

impl<V: Verify> Service<V> {
    async fn caller(&self, metadata: &MetadataMap) -> Result<ServiceAccount, Status> {
        let header = metadata.get("authorization").and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer "));
        let Some(token) = token.filter(|token| !token.is_empty()) else {
            return Err(Status::unauthenticated("a service-account token is needed"));
        };
        self.verifier.verify(token).await.map_err(|error| match &error {
            Error::Refused(_) => Status::unauthenticated(error.to_string()),
            Error::Unavailable(source) => {
                tracing::warn!(%source, "{error}");
                Status::unavailable(error.to_string())
            }
        })
    }

    /// A caller gets its own fleet's and nothing else.
    fn allow(account: &ServiceAccount, fleet: &str) -> Result<FleetId, Status> {
        let id: FleetId = fleet.parse().map_err(|_| Status::invalid_argument("no such fleet"))?;
        if account.is_of(&id) {
            return Ok(id);
        }
        let ServiceAccount { namespace, name } = account;
        tracing::warn!(%namespace, service_account = %name, fleet, "refused a proxy that is not of this fleet");
        Err(Status::permission_denied("the token is not of this fleet's service account"))
    }
}

#[tonic::async_trait]
impl<V: Verify> Push for Arc<Service<V>> {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<ToProxy, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<FromProxy>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let account = self.caller(request.metadata()).await?;
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(PATIENCE, inbound.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no Hello came"))??;
        let Some(Said::Hello(hello)) = first.and_then(|message| message.said) else {
            return Err(Status::invalid_argument("the first message is Hello"));
        };
        let fleet = Service::<V>::allow(&account, &hello.fleet)?;
        if hello.pod.is_empty() || hello.pod.len() > 253 {
            return Err(Status::invalid_argument("pod is the name of a pod"));
        }
        tracing::info!(%fleet, pod = hello.pod, version = hello.version, "a proxy has come");
        let (to_proxy, outbound) = mpsc::channel(4);
        let stream = stream::ProxyStream::new(self, fleet, &hello, to_proxy);
        tokio::spawn(stream.serve(inbound, self.stop.clone()));
        Ok(Response::new(Box::pin(ReceiverStream::new(outbound))))
    }

    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let account = self.caller(request.metadata()).await?;
        let SignRequest { fleet, csr } = request.into_inner();
        let fleet = Service::<V>::allow(&account, &fleet)?;
        let signed = self.authority.sign(&fleet, &csr).map_err(|error| {
            tracing::warn!(%fleet, %error, "cannot sign");
            match error {
                crate::authority::Error::Request(_) => Status::invalid_argument(error.to_string()),
                _ => Status::unavailable(error.to_string()),
            }
        })?;
        Ok(Response::new(signed))
    }

    async fn report(&self, request: Request<Report>) -> Result<Response<Reported>, Status> {
        let account = self.caller(request.metadata()).await?;
        if account != self.own {
            return Err(Status::permission_denied("reports come from replicas of the operator"));
        }
        self.reports.take(request.into_inner());
        Ok(Response::new(Reported {}))
    }
}

/// Serves until `stop`. Connections are TLS 1.3 with the certificate that the authority has at that moment.
pub(crate) async fn serve<V: Verify>(
    listener: TcpListener,
    service: Arc<Service<V>>,
) -> Result<(), tonic::transport::Error> {
    let stop = service.stop.clone();
    let incoming = tls::accept(listener, service.authority.clone(), stop.clone());
    let server =
        PushServer::new(service).max_decoding_message_size(MESSAGE).max_encoding_message_size(usize::MAX);
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .add_service(server)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
}

#[cfg(test)]
mod tests;
