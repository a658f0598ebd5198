//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use ipnet::IpNet;
use mcpmesh_compiler::Cluster;
use mcpmesh_crds::Duration;

/// Watches McpServers, McpGateways and McpPolicies, pushes configuration to proxies, makes their pods and writes status.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    /// The operator's own namespace. Its policies make the mesh level.
    #[arg(long, env = "POD_NAMESPACE", default_value = "mcpmesh-system")]
    pub(crate) namespace: String,
    /// This replica's name.
    #[arg(long, env = "POD_NAME", default_value = "mcpmesh-operator")]
    pub(crate) replica: String,
    /// Where other replicas find this one: ADDRESS:PORT. Left out: POD_IP with the port of --listen.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) advertise: Option<String>,
    /// The pod's address.
    #[arg(long, env = "POD_IP", hide = true)]
    pub(crate) pod_ip: Option<std::net::IpAddr>,
    /// The operator's service account: other replicas report with its token.
    #[arg(long, value_name = "NAME", default_value = "mcpmesh-operator")]
    pub(crate) service_account: String,
    /// A token of that service account for the audience mcpmesh-operator.
    #[arg(long, value_name = "FILE", default_value = "/var/run/mcpmesh/identity/token")]
    pub(crate) token: PathBuf,
    /// Serves these namespaces only. Left out: the whole cluster.
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',')]
    pub(crate) watch_namespaces: Vec<String>,
    /// Where proxies come.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:9443")]
    pub(crate) listen: SocketAddr,
    /// Metrics and health: /metrics, /readyz, /livez.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:17020")]
    pub(crate) metrics: SocketAddr,
    /// What proxies are told to connect to. Left out: mcpmesh-operator.NAMESPACE.svc:9443.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) operator_address: Option<String>,
    /// The image that holds mcpmesh-proxy.
    #[arg(long, value_name = "IMAGE", default_value = concat!("ghcr.io/mcpmesh/mcpmesh-proxy:", env!("CARGO_PKG_VERSION")))]
    pub(crate) proxy_image: String,
    /// The image with npx in which npm packages run.
    #[arg(long, value_name = "IMAGE", default_value = "docker.io/library/node:24-slim")]
    pub(crate) npm_image: String,
    /// The image with uvx in which PyPI packages run.
    #[arg(long, value_name = "IMAGE", default_value = "ghcr.io/astral-sh/uv:python3.13-bookworm-slim")]
    pub(crate) pypi_image: String,
    /// The npm registry of npm packages, where their own env names none. Left out: npm's.
    #[arg(long, value_name = "URL")]
    pub(crate) npm_registry: Option<String>,
    /// The index of PyPI packages, where their own env names none. Left out: uv's.
    #[arg(long, value_name = "URL")]
    pub(crate) pypi_index: Option<String>,
    /// Lets remote servers be in these ranges too, not at public addresses only: whoever may write an McpServer then
    /// reaches what the proxies reach there. The API server, link-local and metadata addresses stay closed.
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', value_parser = mcpmesh_ir::egress::range)]
    pub(crate) remote_ranges: Vec<IpNet>,
    /// How long the certificates of proxies last.
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    pub(crate) certificate_lifetime: Duration,
    /// How long the mesh's root certificate lasts; the next one appears at half of it. At least four times as long as
    /// certificates and four minutes more.
    #[arg(long, value_name = "DURATION", default_value = "8760h")]
    pub(crate) root_lifetime: Duration,
}

impl Arguments {
    /// The TLS name of the operator.
    pub(crate) fn server_name(&self) -> String {
        format!("mcpmesh-operator.{}.svc", self.namespace)
    }

    /// The names of the operator's certificate: its TLS name, and what proxies are told to connect to.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = vec![self.server_name()];
        let host = self.operator_address.as_deref().and_then(|address| address.rsplit_once(':'));
        names.extend(host.map(|(host, _)| host.trim_matches(['[', ']']).to_owned()));
        names.dedup();
        names
    }

    /// What the installation settles for the compile.
    pub(crate) fn cluster(&self) -> Cluster {
        let address = self.operator_address.clone();
        Cluster {
            operator_namespace: self.namespace.clone(),
            operator_address: address.unwrap_or_else(|| format!("{}:9443", self.server_name())),
            proxy_image: self.proxy_image.clone(),
            npm_image: self.npm_image.clone(),
            pypi_image: self.pypi_image.clone(),
            npm_registry: self.npm_registry.clone(),
            pypi_index: self.pypi_index.clone(),
            token_issuer: None,
        }
    }

    /// Where other replicas find this one, once the port is known.
    pub(crate) fn advertised(&self, listening: SocketAddr) -> String {
        let ip = self.pod_ip.unwrap_or_else(|| listening.ip());
        self.advertise.clone().unwrap_or_else(|| SocketAddr::new(ip, listening.port()).to_string())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent_and_have_defaults() {
        Arguments::command().debug_assert();
        let arguments =
            Arguments::parse_from(["mcpmesh-operator", "--namespace", "mesh", "--watch-namespaces", "a,b"]);
        assert_eq!(arguments.cluster().operator_address, "mcpmesh-operator.mesh.svc:9443");
        assert_eq!(arguments.watch_namespaces, ["a", "b"]);
        assert_eq!(arguments.names(), ["mcpmesh-operator.mesh.svc"]);
        let elsewhere = Arguments::parse_from(["mcpmesh-operator", "--operator-address", "[::1]:9443"]);
        assert_eq!(elsewhere.names(), ["mcpmesh-operator.mcpmesh-system.svc", "::1"]);
    }

    #[test]
    fn ranges_of_remote_servers_are_a_list_and_none_of_them_is_closed_for_good() {
        let words =
            ["mcpmesh-operator", "--remote-ranges", "10.20.3.4/16,fd12::/48", "--remote-ranges=127.0.0.0/8"];
        let ranges = Arguments::parse_from(words).remote_ranges;
        let texts: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.20.0.0/16", "fd12::/48", "127.0.0.0/8"]);
        for wrong in ["10.20.0.0", "169.254.0.0/16", "10.0.0.0/8,,fe80::/10"] {
            let error =
                Arguments::try_parse_from(["mcpmesh-operator", "--remote-ranges", wrong]).unwrap_err();
            assert!(error.to_string().contains("--remote-ranges"), "{error}");
        }
    }
}
