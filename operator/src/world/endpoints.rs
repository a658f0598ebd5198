//! Services and the addresses behind them, cut down to what a compile reads.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::DynamicObject;

/// The label of a slice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A Service's ports: number, and name (empty without one).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ports(pub(crate) Vec<(u16, String)>);

impl Ports {
    pub(crate) fn read(object: DynamicObject) -> Option<Self> {
        let service: Service = object.try_parse().ok()?;
        let ports = service.spec?.ports.unwrap_or_default();
        let port = |port: k8s_openapi::api::core::v1::ServicePort| {
            Some((u16::try_from(port.port).ok()?, port.name.unwrap_or_default()))
        };
        Some(Self(ports.into_iter().filter_map(port).collect()))
    }
}

/// One EndpointSlice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    /// The Service that it belongs to.
    pub(crate) service: String,
    /// Target ports by the name of the Service's port.
    pub(crate) ports: Vec<(String, u16)>,
    /// Addresses that are ready, each with the pod behind it.
    pub(crate) ready: Vec<(IpAddr, Option<String>)>,
}

impl Slice {
    pub(crate) fn read(object: DynamicObject) -> Option<Self> {
        let slice: EndpointSlice = object.try_parse().ok()?;
        let service = slice.metadata.labels?.remove(SERVICE_NAME)?;
        let ports = slice
            .ports
            .unwrap_or_default()
            .into_iter()
            .filter_map(|port| Some((port.name.unwrap_or_default(), u16::try_from(port.port?).ok()?)));
        let mut ready = Vec::new();
        for endpoint in slice.endpoints {
            // discovery/v1: an absent condition means ready.
            if endpoint.conditions.and_then(|conditions| conditions.ready) == Some(false) {
                continue;
            }
            let pod = endpoint.target_ref.filter(|target| target.kind.as_deref() == Some("Pod"));
            let pod = pod.and_then(|target| target.name);
            let addresses = endpoint.addresses.iter().filter_map(|address| address.parse().ok());
            ready.extend(addresses.map(|address| (address, pod.clone())));
        }
        ready.sort();
        Some(Self { service, ports: ports.collect(), ready })
    }

    /// The ready addresses, at every port.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let at = |port: u16| self.ready.iter().map(move |(ip, _)| SocketAddr::new(*ip, port));
        self.ports.iter().flat_map(move |(_, port)| at(*port))
    }
}

/// The ready addresses by port of a Service.
pub(crate) fn addresses<S: Borrow<Slice>>(ports: &Ports, slices: &[S]) -> BTreeMap<u16, Vec<SocketAddr>> {
    let of = |name: &str| {
        let found = slices.iter().map(Borrow::borrow).flat_map(|slice: &Slice| {
            let targets = slice.ports.iter().filter(|(port, _)| port == name);
            targets.flat_map(|(_, port)| slice.ready.iter().map(|(ip, _)| SocketAddr::new(*ip, *port)))
        });
        let mut found: Vec<_> = found.collect();
        found.sort_unstable();
        found.dedup();
        found
    };
    ports.0.iter().map(|(port, name)| (*port, of(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_the_ready_addresses_of_its_name() {
        let slice = |name: &str, port, ip: &str| Slice {
            service: "s".to_owned(),
            ports: vec![(name.to_owned(), port)],
            ready: vec![(ip.parse().unwrap(), None)],
        };
        let ports = Ports(vec![(80, "mcp".to_owned()), (81, "other".to_owned())]);
        let slices =
            [slice("mcp", 8080, "10.0.0.2"), slice("mcp", 8080, "10.0.0.1"), slice("x", 9, "10.0.0.3")];
        let found = addresses(&ports, &slices);
        assert_eq!(found[&80], ["10.0.0.1:8080".parse().unwrap(), "10.0.0.2:8080".parse().unwrap()]);
        assert!(found[&81].is_empty());
    }
}
