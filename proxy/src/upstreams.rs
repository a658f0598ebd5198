//! The upstreams of a process: one client per server, shared by all gateways and kept over a change of
//! configuration as long as what it connects to is the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};
use mcpmesh_ir::server::{self, Server};
use mcpmesh_ir::{EgressRule, Secret, SecretId, ServerId};
use url::Url;

use crate::upstream::{Addresses, Config, Deps, Endpoint, Timeouts, Transport, Upstream};

/// Why a server cannot be connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The URL does not parse.
    #[error("{0:?} is not a URL")]
    Url(String),
    /// A header's name is none.
    #[error("{0:?} is not a header name")]
    HeaderName(String),
    /// A header's value cannot be sent.
    #[error("the value of header {0} cannot be sent: it has line breaks or other control characters")]
    HeaderValue(String),
    /// A Secret or its key did not come along.
    #[error("key {key:?} of Secret {secret} is missing")]
    Secret {
        /// The Secret.
        secret: SecretId,
        /// The key.
        key: String,
    },
}

/// A running client and what it was started for.
struct Running {
    same: String,
    /// What may change while it runs.
    addresses: Option<Addresses>,
    upstream: Arc<Upstream>,
    since: Instant,
}

/// See the module.
pub struct Upstreams {
    deps: Deps,
    running: HashMap<ServerId, Running>,
}

impl Upstreams {
    /// None yet.
    #[must_use]
    pub fn new(deps: Deps) -> Self {
        Self { deps, running: HashMap::new() }
    }

    /// The client to a server, and since when there is one. Must be called inside a runtime.
    pub fn get(
        &mut self,
        server: &Server,
        secrets: &BTreeMap<SecretId, Secret>,
    ) -> Result<(Arc<Upstream>, Instant), Error> {
        let config = config(server, secrets)?;
        let same = identity(server, secrets);
        if let Some(running) = self.running.get(&server.id).filter(|running| running.same == same) {
            if let (Some(addresses), server::Endpoint::Service { addresses: now, .. }) =
                (&running.addresses, &server.endpoint)
            {
                addresses.replace(now);
            }
            return Ok((Arc::clone(&running.upstream), running.since));
        }
        let addresses = match &config.endpoint {
            Endpoint::Service { addresses, .. } => Some(addresses.clone()),
            Endpoint::Remote { .. } | Endpoint::Workload => None,
        };
        let upstream = Upstream::start(config, self.deps.clone());
        let since = Instant::now();
        let running = Running { same, addresses, upstream: Arc::clone(&upstream), since };
        self.running.insert(server.id.clone(), running);
        Ok((upstream, since))
    }

    /// The client to a server, if there is one.
    #[must_use]
    pub fn find(&self, server: &ServerId) -> Option<Arc<Upstream>> {
        self.running.get(server).map(|running| Arc::clone(&running.upstream))
    }

    /// Forgets servers that no gateway has any more; requests in flight keep theirs to the end.
    pub fn retain(&mut self, keep: impl Fn(&ServerId) -> bool) -> Vec<ServerId> {
        let gone: Vec<_> = self.running.keys().filter(|id| !keep(id)).cloned().collect();
        self.running.retain(|id, _| keep(id));
        gone
    }

    /// All, in order of their ids.
    #[must_use]
    pub fn all(&self) -> Vec<(ServerId, Arc<Upstream>)> {
        let mut all: Vec<_> =
            self.running.iter().map(|(id, running)| (id.clone(), Arc::clone(&running.upstream))).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

/// Everything that a connection depends on, Secrets included, but for addresses that come and go. It stays in memory and is never shown.
fn identity(server: &Server, secrets: &BTreeMap<SecretId, Secret>) -> String {
    let values: Vec<_> = server
        .headers
        .iter()
        .map(|header| secrets.get(&header.secret).and_then(|secret| secret.data.get(&header.key)))
        .collect();
    let mut endpoint = server.endpoint.clone();
    if let server::Endpoint::Service { addresses, .. } = &mut endpoint {
        addresses.clear();
    }
    serde_json::to_string(&(&endpoint, &server.headers, &server.timeouts, values)).unwrap_or_default()
}

fn config(server: &Server, secrets: &BTreeMap<SecretId, Secret>) -> Result<Config, Error> {
    let (endpoint, egress) = match &server.endpoint {
        server::Endpoint::Remote { url, transport, egress } => {
            let parsed = Url::parse(url).map_err(|_| Error::Url(url.clone()))?;
            (Endpoint::Remote { url: parsed, transport: spoken(*transport) }, egress.clone())
        }
        server::Endpoint::Service { addresses, host, path, transport, mesh } => {
            let scheme = if mesh.is_some() { "https" } else { "http" };
            let text = format!("{scheme}://{host}{path}");
            let url = Url::parse(&text).map_err(|_| Error::Url(text))?;
            let addresses = Addresses::new(addresses.clone());
            let endpoint =
                Endpoint::Service { addresses, url, transport: spoken(*transport), mesh: mesh.clone() };
            (endpoint, EgressRule::private())
        }
        server::Endpoint::Workload { .. } => (Endpoint::Workload, EgressRule::private()),
    };
    let mut config = Config::new(server.id.clone(), endpoint);
    config.egress = egress;
    config.timeouts = Timeouts {
        connect: Duration::from_millis(server.timeouts.connect_ms),
        first_byte: Duration::from_millis(server.timeouts.first_byte_ms),
        total: Duration::from_millis(server.timeouts.total_ms),
    };
    for header in &server.headers {
        config.headers.push(credential(header, secrets)?);
    }
    Ok(config)
}

fn spoken(transport: server::Transport) -> Transport {
    match transport {
        server::Transport::Auto => Transport::Auto,
        server::Transport::StreamableHttp => Transport::StreamableHttp,
        server::Transport::Sse => Transport::Sse,
    }
}

fn credential(
    header: &server::CredentialHeader,
    secrets: &BTreeMap<SecretId, Secret>,
) -> Result<(HeaderName, HeaderValue), Error> {
    let missing = || Error::Secret { secret: header.secret.clone(), key: header.key.clone() };
    let secret =
        secrets.get(&header.secret).and_then(|secret| secret.data.get(&header.key)).ok_or_else(missing)?;
    let name: HeaderName = header.name.parse().map_err(|_| Error::HeaderName(header.name.clone()))?;
    let mut value = HeaderValue::from_str(&format!("{}{}", header.prefix, secret.trim_end_matches('\n')))
        .map_err(|_| Error::HeaderValue(header.name.clone()))?;
    value.set_sensitive(true);
    Ok((name, value))
}
