//! A Service of the server's namespace: the addresses behind it, as the cluster says (decisions.md 22).

use std::net::SocketAddr;

use mcpmesh_crds::{RemoteTransport, Service, ServiceSidecar};
use mcpmesh_ir::egress::Refusal;
use mcpmesh_ir::server::{Endpoint, Transport};
use mcpmesh_ir::{EgressRule, FleetId, ServerId};

use crate::child::{SIDECAR_PORT, base_name};
use crate::diagnostic::{Findings, Reason};
use crate::inputs::Inputs;

/// The Service's port itself, and the addresses behind it.
pub(super) fn endpoint(
    id: &ServerId,
    service: &Service,
    inputs: &Inputs,
    findings: &mut Findings,
) -> Option<(Endpoint, Vec<SocketAddr>)> {
    let Service { name, port, path, transport, sidecar } = service;
    if (transport, sidecar) == (&RemoteTransport::Sse, &ServiceSidecar::Injected) {
        let message = "a sidecar speaks Streamable HTTP with its server";
        findings.error("spec.service.transport", Reason::InvalidUnion, message, "remove it, or the sidecar");
    }
    if inputs.install.cluster.is_none() {
        let help = "use remote, package or container here; with a cluster, apply it there";
        findings.error("spec.service", Reason::NotInCluster, "there are no Services on one machine", help);
        return None;
    }
    let path = path.as_deref().unwrap_or("/mcp");
    if !is_path(path) {
        let message = format!("{path:?} is not a path");
        findings.error("spec.service.path", Reason::InvalidValue, message, "such as /mcp");
    }
    let found = inputs.of(&id.namespace).services.get(name);
    let Some(found) = found else {
        let message = format!("no Service {}/{name}", id.namespace);
        findings.error(
            "spec.service.name",
            Reason::ServiceNotFound,
            message,
            "create it, or correct the name",
        );
        return None;
    };
    let Some(addresses) = found.ports.get(port) else {
        let ports: Vec<_> = found.ports.keys().map(ToString::to_string).collect();
        let help = format!("it has {}", if ports.is_empty() { "none".to_owned() } else { ports.join(", ") });
        let message = format!("Service {}/{name} has no port {port}", id.namespace);
        findings.error("spec.service.port", Reason::ServiceNotFound, message, &help);
        return None;
    };
    let addresses = reachable(addresses);
    if addresses.is_empty() {
        let message = format!("nothing behind Service {}/{name} is ready", id.namespace);
        findings.warning("spec.service", Reason::NoEndpoints, message, "look at its pods");
    }
    let host = format!("{name}.{}.svc:{port}", id.namespace);
    let transport = transport_of(*transport);
    let path = path.to_owned();
    Some((Endpoint::Service { addresses: addresses.clone(), host, path, transport, mesh: None }, addresses))
}

/// The addresses of a port, sorted, each once. Private ones are what Services have; what no pod can have is left out,
/// so that nobody who writes endpoints leads a proxy to itself or to a metadata service.
pub(crate) fn reachable(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let rule = EgressRule::private();
    let possible = |address: &&SocketAddr| {
        !address.ip().to_canonical().is_loopback() && rule.judge(**address) != Err(Refusal::Never)
    };
    let mut addresses: Vec<SocketAddr> = addresses.iter().filter(possible).copied().collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The proxies beside a server that is run: behind the Service that the operator makes for it.
pub(super) fn of_children(id: &ServerId, inputs: &Inputs) -> Vec<SocketAddr> {
    let base = base_name(&FleetId::Server(id.clone()));
    let service = inputs.of(&id.namespace).services.get(&base);
    let found = service.and_then(|service| service.ports.get(&SIDECAR_PORT));
    found.map(|found| reachable(found)).unwrap_or_default()
}

/// The proxies in the pods behind a Service of the team's own: the same pods, on the proxies' port.
pub(super) fn sidecars(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let beside: Vec<_> =
        addresses.iter().map(|address| SocketAddr::new(address.ip(), SIDECAR_PORT)).collect();
    reachable(&beside)
}

/// Whether a text is an absolute path without query.
pub(crate) fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte))
}

/// How MCP is spoken over HTTP.
pub(super) fn transport_of(transport: RemoteTransport) -> Transport {
    match transport {
        RemoteTransport::Auto => Transport::Auto,
        RemoteTransport::StreamableHttp => Transport::StreamableHttp,
        RemoteTransport::Sse => Transport::Sse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_pod_can_have_is_no_address_and_the_rest_is_in_order() {
        let given = [
            "10.0.0.2:80",
            "127.0.0.1:80",
            "10.0.0.1:80",
            "240.0.0.1:80",
            "[fd00::1]:80",
            "169.254.169.254:80",
            "[::ffff:127.0.0.1]:80",
            "0.0.0.0:80",
            "[fd00:ec2::254]:80",
            "100.100.100.200:80",
            "[64:ff9b::a9fe:a9fe]:80",
            "255.255.255.255:80",
        ];
        let given: Vec<SocketAddr> = given.iter().map(|text| text.parse().unwrap()).collect();
        let kept: Vec<_> = reachable(&given).iter().map(ToString::to_string).collect();
        assert_eq!(kept, ["10.0.0.1:80", "10.0.0.2:80", "240.0.0.1:80", "[fd00::1]:80"]);
    }
}
