//! Sends this replica's report to the one that leads.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use mcpmesh_ir::push::Report;
use rustls_pki_types::ServerName;
use tokio::sync::watch;
use tonic::Request;
use tonic::metadata::MetadataValue;

use crate::authority::Authority;
use crate::connected::Connected;
use crate::lease::Leader;
use crate::push::service::push_client::PushClient;
use crate::watch::Backoff;

/// A report is repeated so often at least.
const REPEAT: Duration = Duration::from_secs(10);

/// Changes within this time make one report.
const TOGETHER: Duration = Duration::from_millis(50);

const DEADLINE: Duration = Duration::from_secs(5);

/// What forwarding needs.
pub(crate) struct Forwarder {
    pub(crate) authority: Arc<Authority>,
    pub(crate) connected: Arc<Connected>,
    pub(crate) leader: watch::Receiver<Leader>,
    /// This replica's name.
    pub(crate) replica: String,
    /// The TLS name of the operator.
    pub(crate) server_name: String,
    /// A token of our own service account with our own audience.
    pub(crate) token: PathBuf,
}

/// Why a report did not arrive.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot read the token of this replica")]
    Token(#[source] std::io::Error),
    #[error("the token of this replica, the address of the leader or the name of the operator is malformed")]
    Malformed,
    #[error("the certificate authority is not there yet")]
    Authority(#[from] crate::authority::Error),
    #[error("the leader does not take it")]
    Refused(#[from] tonic::Status),
    #[error("the leader did not answer in time")]
    Late,
}

/// Reports for ever while another replica leads.
pub(crate) async fn forward(mut forwarder: Forwarder) {
    let mut changes = forwarder.connected.changes();
    let mut backoff = Backoff::default();
    loop {
        let leader = forwarder.leader.borrow_and_update().clone();
        let pause = match leader {
            Leader::Other(address) => match forwarder.send(&address).await {
                Ok(()) => {
                    backoff.reset();
                    TOGETHER
                }
                Err(error) => {
                    tracing::warn!(
                        leader = address,
                        error = &error as &dyn std::error::Error,
                        "cannot report"
                    );
                    backoff.next()
                }
            },
            Leader::Nobody | Leader::Us => TOGETHER,
        };
        tokio::time::sleep(pause).await;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            changed = forwarder.leader.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(REPEAT) => {}
        }
    }
}

impl Forwarder {
    async fn send(&self, address: &str) -> Result<(), Error> {
        let origin: Uri = format!("https://{address}").parse().map_err(|_| Error::Malformed)?;
        let name = ServerName::try_from(self.server_name.clone()).map_err(|_| Error::Malformed)?;
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(self.authority.client_config()?)
            .https_only()
            .with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(name))
            .enable_http2()
            .build();
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build(connector);
        let token = std::fs::read_to_string(&self.token).map_err(Error::Token)?;
        let bearer =
            MetadataValue::try_from(format!("Bearer {}", token.trim())).map_err(|_| Error::Malformed)?;
        let report = Report { replica: self.replica.clone(), proxies: self.connected.reports() };
        let mut request = Request::new(report);
        request.metadata_mut().insert("authorization", bearer);
        let mut push = PushClient::with_origin(client, origin);
        let sent = tokio::time::timeout(DEADLINE, push.report(request)).await;
        sent.map_err(|_| Error::Late)??;
        Ok(())
    }
}
