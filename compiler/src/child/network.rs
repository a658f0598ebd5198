//! NetworkPolicies: what may come in and go out. They know addresses and ports; whom a host name means, the proxy
//! checks when it connects (decisions.md 22).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use mcpmesh_ir::FleetId;
use mcpmesh_ir::server::Endpoint;
use url::Url;

use super::name::{SERVER_LABEL, label_value, metadata, selector};
use super::{Child, DIRECT_PORT, OBSERVABILITY_PORT, PUSH_PORT, SIDECAR_PORT};
use crate::inputs::Cluster;

/// What of IPv4 is not global unicast (IANA special-purpose registry), as far as a packet could get there.
const NOT_GLOBAL: [&str; 12] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
];

/// Where clouds keep credentials, besides link-local addresses.
const METADATA_V6: &str = "fd00:ec2::254/128";

/// Where a gateway's proxies must get to.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    /// Ports of URLs on global addresses.
    global: BTreeSet<u16>,
    /// Ports of URLs that may also lead to private addresses.
    private: BTreeSet<u16>,
    /// Ports of pods, by namespace.
    pods: BTreeMap<String, BTreeSet<u16>>,
}

impl Upstreams {
    /// Adds a server of a namespace.
    pub(super) fn add(&mut self, namespace: &str, endpoint: &Endpoint) {
        match endpoint {
            Endpoint::Remote { url, allow_private, .. } => {
                let ports = if *allow_private { &mut self.private } else { &mut self.global };
                ports.extend(Url::parse(url).ok().and_then(|url| url.port_or_known_default()));
            }
            Endpoint::Service { mesh: Some(_), .. } | Endpoint::Workload { .. } => {}
            Endpoint::Service { addresses, mesh: None, .. } => {
                let ports = self.pods.entry(namespace.to_owned()).or_default();
                ports.extend(addresses.iter().map(std::net::SocketAddr::port));
            }
        }
    }
}

/// In: the listeners, from anywhere. Out: DNS, the operator, sidecars, and the upstreams.
pub(super) fn of_gateway(
    fleet: &FleetId,
    listeners: &BTreeSet<u16>,
    upstreams: &Upstreams,
    cluster: &Cluster,
) -> Child {
    let calls = NetworkPolicyIngressRule { ports: Some(tcp(listeners)), from: None };
    let mut out = vec![
        dns(),
        to(&[PUSH_PORT], namespace(&cluster.operator_namespace)),
        to(&[SIDECAR_PORT], sidecars()),
    ];
    for (name, ports) in upstreams.pods.iter().filter(|(_, ports)| !ports.is_empty()) {
        out.push(to(ports, namespace(name)));
    }
    if !upstreams.global.is_empty() {
        out.push(rule(&upstreams.global, vec![block("0.0.0.0/0", &NOT_GLOBAL), block("2000::/3", &[])]));
    }
    if !upstreams.private.is_empty() {
        let peers = everything_but_link_local();
        out.push(rule(&upstreams.private, peers));
    }
    policy(fleet, vec![calls, metrics()], out)
}

/// In: gateways at the sidecar, metrics. Out: everything but link-local and metadata addresses, since what a server
/// needs only the server knows.
pub(super) fn of_server(fleet: &FleetId, direct: bool) -> Child {
    let out = NetworkPolicyEgressRule { ports: None, to: Some(everything_but_link_local()) };
    policy(fleet, into_server(direct), vec![dns(), out])
}

/// Gateways at the sidecar, metrics, and, where callers may come past the gateways, those from anywhere.
fn into_server(direct: bool) -> Vec<NetworkPolicyIngressRule> {
    let past = NetworkPolicyIngressRule { ports: Some(tcp(&[DIRECT_PORT])), from: None };
    [calls(), metrics()].into_iter().chain(direct.then_some(past)).collect()
}

/// In: gateways at the sidecar, metrics; a team that wants more in adds a NetworkPolicy of its own. Out is the team's.
pub(super) fn of_injected(fleet: &FleetId, direct: bool) -> Child {
    let labels = BTreeMap::from([(SERVER_LABEL.to_owned(), label_value(fleet.name()))]);
    Child::NetworkPolicy(Box::new(NetworkPolicy {
        metadata: metadata(fleet, &BTreeMap::new()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector { match_labels: Some(labels), match_expressions: None }),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(into_server(direct)),
            egress: None,
        }),
    }))
}

fn policy(
    fleet: &FleetId,
    ingress: Vec<NetworkPolicyIngressRule>,
    egress: Vec<NetworkPolicyEgressRule>,
) -> Child {
    Child::NetworkPolicy(Box::new(NetworkPolicy {
        metadata: metadata(fleet, &BTreeMap::new()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(fleet)),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(ingress),
            egress: Some(egress),
        }),
    }))
}

fn calls() -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule { ports: Some(tcp(&[SIDECAR_PORT])), from: Some(vec![any_namespace()]) }
}

fn metrics() -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule { ports: Some(tcp(&[OBSERVABILITY_PORT])), from: Some(vec![any_namespace()]) }
}

/// At any address: a cache on the node has a link-local one.
fn dns() -> NetworkPolicyEgressRule {
    let on = |protocol: &str| NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(53)),
        end_port: None,
    };
    NetworkPolicyEgressRule { ports: Some(vec![on("UDP"), on("TCP")]), to: None }
}

fn tcp<'p>(ports: impl IntoIterator<Item = &'p u16>) -> Vec<NetworkPolicyPort> {
    let port = |&number: &u16| NetworkPolicyPort {
        protocol: Some("TCP".to_owned()),
        port: Some(IntOrString::Int(number.into())),
        end_port: None,
    };
    ports.into_iter().map(port).collect()
}

fn to<'p>(ports: impl IntoIterator<Item = &'p u16>, peer: NetworkPolicyPeer) -> NetworkPolicyEgressRule {
    rule(ports, vec![peer])
}

fn rule<'p>(
    ports: impl IntoIterator<Item = &'p u16>,
    peers: Vec<NetworkPolicyPeer>,
) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule { ports: Some(tcp(ports)), to: Some(peers) }
}

fn any_namespace() -> NetworkPolicyPeer {
    NetworkPolicyPeer { namespace_selector: Some(LabelSelector::default()), ..NetworkPolicyPeer::default() }
}

fn namespace(name: &str) -> NetworkPolicyPeer {
    let labels = BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), name.to_owned())]);
    let selector = LabelSelector { match_labels: Some(labels), match_expressions: None };
    NetworkPolicyPeer { namespace_selector: Some(selector), ..NetworkPolicyPeer::default() }
}

/// Pods of servers in any namespace, injected ones too.
fn sidecars() -> NetworkPolicyPeer {
    let has_label = LabelSelectorRequirement {
        key: SERVER_LABEL.to_owned(),
        operator: "Exists".to_owned(),
        values: None,
    };
    NetworkPolicyPeer {
        pod_selector: Some(LabelSelector { match_expressions: Some(vec![has_label]), match_labels: None }),
        ..any_namespace()
    }
}

fn block(cidr: &str, except: &[&str]) -> NetworkPolicyPeer {
    let except: Vec<String> = except.iter().map(|&cidr| cidr.to_owned()).collect();
    let except = (!except.is_empty()).then_some(except);
    NetworkPolicyPeer {
        ip_block: Some(IPBlock { cidr: cidr.to_owned(), except }),
        ..NetworkPolicyPeer::default()
    }
}

/// Pods by their namespaces, too: some network plugins know pods by labels only, never by address.
fn everything_but_link_local() -> Vec<NetworkPolicyPeer> {
    vec![any_namespace(), block("0.0.0.0/0", &["169.254.0.0/16"]), block("::/0", &["fe80::/10", METADATA_V6])]
}

#[cfg(test)]
mod tests {
    use mcpmesh_ir::server::Transport;
    use mcpmesh_ir::{GatewayId, ServerId};

    use super::*;

    fn service(port: u16, mesh: Option<ServerId>) -> Endpoint {
        let addresses = vec![([10, 0, 0, 1], port).into(), ([10, 0, 0, 2], port).into()];
        let (host, path) = (String::new(), String::new());
        Endpoint::Service { addresses, host, path, transport: Transport::Auto, mesh }
    }

    fn remote(url: &str, allow_private: bool) -> Endpoint {
        Endpoint::Remote { url: url.to_owned(), transport: Transport::Auto, allow_private }
    }

    /// Each rule of what goes out, as its ports and how many peers it has.
    fn out(endpoints: &[(&str, Endpoint)]) -> Vec<(Vec<i32>, usize)> {
        let mut upstreams = Upstreams::default();
        for (namespace, endpoint) in endpoints {
            upstreams.add(namespace, endpoint);
        }
        let fleet = FleetId::Gateway(GatewayId::new("a", "g"));
        let made = of_gateway(&fleet, &BTreeSet::from([8080]), &upstreams, &Cluster::default());
        let Child::NetworkPolicy(policy) = made else { panic!("not a NetworkPolicy") };
        let number = |port: NetworkPolicyPort| match port.port {
            Some(IntOrString::Int(number)) => number,
            other => panic!("{other:?}"),
        };
        let rules = policy.spec.unwrap().egress.unwrap().into_iter();
        rules
            .map(|rule| {
                let ports = rule.ports.unwrap().into_iter().map(number).collect();
                (ports, rule.to.unwrap_or_default().len())
            })
            .collect()
    }

    #[test]
    fn a_gateway_gets_out_only_to_what_its_servers_need() {
        let always = vec![(vec![53, 53], 0), (vec![9443], 1), (vec![17080], 1)];
        assert_eq!(out(&[]), always);
        let mesh = service(17080, Some(ServerId::new("b", "s")));
        assert_eq!(out(&[("b", mesh)]), always, "sidecars are always there");
        let endpoints = [
            ("b", service(9000, None)),
            ("b", service(8000, None)),
            ("c", service(8000, None)),
            ("a", remote("https://x.example.com/mcp", false)),
            ("a", remote("http://y.example.com:81/mcp", true)),
        ];
        let expected = [(vec![8000, 9000], 1), (vec![8000], 1), (vec![443], 2), (vec![81], 3)];
        assert_eq!(out(&endpoints)[3..], expected);
    }
}
