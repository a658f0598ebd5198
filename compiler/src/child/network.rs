//! NetworkPolicies: what may come in and go out. They know addresses and ports; whom a host name means, the proxy
//! checks when it connects (decisions.md 22).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use mcpmesh_ir::egress::{NEVER, NOT_GLOBAL_V4};
use mcpmesh_ir::server::Endpoint;
use mcpmesh_ir::{EgressRule, FleetId};
use url::Url;

use super::name::{SERVER_LABEL, label_value, metadata, selector};
use super::{Child, DIRECT_PORT, OBSERVABILITY_PORT, PUSH_PORT, SIDECAR_PORT};
use crate::inputs::Cluster;

const IPV4: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));

/// All of IPv6 that is assigned for global unicast.
const GLOBAL_V6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3));

/// Where clouds keep credentials, besides link-local addresses.
const METADATA_V4: &str = "100.100.100.200/32";
const METADATA_V6: &str = "fd00:ec2::254/128";

/// Where a gateway's proxies must get to.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    /// Ports of URLs, with where these may lead.
    remotes: BTreeSet<(u16, EgressRule)>,
    /// Ports of pods, by namespace.
    pods: BTreeMap<String, BTreeSet<u16>>,
}

impl Upstreams {
    /// Adds a server of a namespace.
    pub(super) fn add(&mut self, namespace: &str, endpoint: &Endpoint) {
        match endpoint {
            Endpoint::Remote { url, egress, .. } => {
                let port = Url::parse(url).ok().and_then(|url| url.port_or_known_default());
                self.remotes.extend(port.map(|port| (port, egress.clone())));
            }
            Endpoint::Service { mesh: Some(_), .. } | Endpoint::Workload { .. } => {}
            Endpoint::Service { addresses, mesh: None, .. } => {
                let ports = self.pods.entry(namespace.to_owned()).or_default();
                ports.extend(addresses.iter().map(std::net::SocketAddr::port));
            }
        }
    }

    /// Ports of URLs by where they may lead: mostly one set, since exclusions are of single ports.
    fn by_peers(&self) -> Vec<(Vec<NetworkPolicyPeer>, BTreeSet<u16>)> {
        let mut grouped: Vec<(Vec<NetworkPolicyPeer>, BTreeSet<u16>)> = Vec::new();
        for (port, egress) in &self.remotes {
            let peers = remote(egress, *port);
            match grouped.iter_mut().find(|(known, _)| *known == peers) {
                Some((_, ports)) => _ = ports.insert(*port),
                None => grouped.push((peers, BTreeSet::from([*port]))),
            }
        }
        grouped
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
    for (peers, ports) in upstreams.by_peers() {
        out.push(rule(&ports, peers));
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

/// What a rule opens at a port: global unicast, and its ranges.
fn remote(egress: &EgressRule, port: u16) -> Vec<NetworkPolicyPeer> {
    if egress.allow_private {
        return everything_but_link_local();
    }
    let at_port = egress.excluded.iter().filter(|excluded| excluded.port() == port);
    let excluded: Vec<IpNet> = at_port.map(|excluded| excluded.ip().into()).collect();
    let global = [(IPV4, &NOT_GLOBAL_V4[..]), (GLOBAL_V6, &[])];
    let ranges = egress.ranges.iter().map(|range| (*range, &NEVER[..]));
    global.into_iter().chain(ranges).filter_map(|(net, never)| opened(net, never, &excluded)).collect()
}

/// A range but for what of it stays closed; none where that is all.
fn opened(net: IpNet, never: &[IpNet], excluded: &[IpNet]) -> Option<NetworkPolicyPeer> {
    let mut except: Vec<IpNet> = Vec::new();
    for closed in never.iter().chain(excluded) {
        if closed.contains(&net) {
            return None;
        }
        // Kubernetes wants no more than what lies inside, and is told nothing twice.
        if net.contains(closed) && !except.iter().any(|known| known.contains(closed)) {
            except.push(*closed);
        }
    }
    let except: Vec<String> = except.iter().map(ToString::to_string).collect();
    Some(block(&net.to_string(), &except.iter().map(String::as_str).collect::<Vec<_>>()))
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
    let v4 = block("0.0.0.0/0", &["169.254.0.0/16", METADATA_V4]);
    let v6 = block("::/0", &["fe80::/10", METADATA_V6]);
    vec![any_namespace(), v4, v6]
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

    fn remote(url: &str, egress: &EgressRule) -> Endpoint {
        Endpoint::Remote { url: url.to_owned(), transport: Transport::Auto, egress: egress.clone() }
    }

    /// The rules of what goes out.
    fn rules(endpoints: &[(&str, Endpoint)]) -> Vec<NetworkPolicyEgressRule> {
        let mut upstreams = Upstreams::default();
        for (namespace, endpoint) in endpoints {
            upstreams.add(namespace, endpoint);
        }
        let fleet = FleetId::Gateway(GatewayId::new("a", "g"));
        let made = of_gateway(&fleet, &BTreeSet::from([8080]), &upstreams, &Cluster::default());
        let Child::NetworkPolicy(policy) = made else { panic!("not a NetworkPolicy") };
        policy.spec.unwrap().egress.unwrap()
    }

    fn ports(rule: &NetworkPolicyEgressRule) -> Vec<i32> {
        let number = |port: &NetworkPolicyPort| match port.port {
            Some(IntOrString::Int(number)) => number,
            ref other => panic!("{other:?}"),
        };
        rule.ports.iter().flatten().map(number).collect()
    }

    /// Each rule of what goes out, as its ports and how many peers it has.
    fn out(endpoints: &[(&str, Endpoint)]) -> Vec<(Vec<i32>, usize)> {
        rules(endpoints).iter().map(|rule| (ports(rule), rule.to.as_ref().map_or(0, Vec::len))).collect()
    }

    /// The ranges that are open at a port, each with its exceptions.
    fn blocks(endpoints: &[(&str, Endpoint)], port: i32) -> Vec<(String, Vec<String>)> {
        let open = rules(endpoints).into_iter().filter(|rule| ports(rule).contains(&port));
        let blocks = open.flat_map(|rule| rule.to.unwrap_or_default()).filter_map(|peer| peer.ip_block);
        blocks.map(|block| (block.cidr, block.except.unwrap_or_default())).collect()
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
            ("a", remote("https://x.example.com/mcp", &EgressRule::default())),
            ("a", remote("https://z.example.com:8443/mcp", &EgressRule::default())),
            ("a", remote("http://y.example.com:81/mcp", &EgressRule::private())),
        ];
        let expected = [(vec![8000, 9000], 1), (vec![8000], 1), (vec![81], 3), (vec![443, 8443], 2)];
        assert_eq!(out(&endpoints)[3..], expected);
    }

    #[test]
    fn no_address_of_cloud_metadata_is_open_to_a_server() {
        let blocks: Vec<IPBlock> =
            everything_but_link_local().into_iter().filter_map(|peer| peer.ip_block).collect();
        let parsed = |net: &str| net.parse::<IpNet>().unwrap();
        for metadata in ["169.254.169.254/32", "100.100.100.200/32", "fd00:ec2::254/128"].map(parsed) {
            assert!(
                NEVER.iter().any(|never| never.contains(&metadata)),
                "{metadata}: no rule of ours opens it"
            );
            let of_family = blocks.iter().filter(|block| parsed(&block.cidr).contains(&metadata));
            for block in of_family {
                let except = block.except.as_deref().unwrap_or_default();
                assert!(except.iter().any(|closed| parsed(closed).contains(&metadata)), "{metadata}");
            }
        }
    }

    #[test]
    fn a_range_is_open_but_for_metadata_and_the_api_server_at_its_port() {
        let ranges = ["10.0.0.0/8", "100.64.0.0/10", "10.9.9.9/32"].map(|net| net.parse().unwrap());
        let excluded = ["10.96.0.1:443", "10.9.9.9:6443", "34.1.2.3:6443"].map(|at| at.parse().unwrap());
        let egress = EgressRule::new(&ranges, excluded);
        let endpoints = [
            ("a", remote("https://x.example.com/mcp", &egress)),
            ("a", remote("https://x.example.com:6443/mcp", &egress)),
            ("a", remote("https://x.example.com:8443/mcp", &egress)),
        ];
        let shared = || ("100.64.0.0/10".to_owned(), vec!["100.100.100.200/32".to_owned()]);
        let open = |net: &str, except: &[&str]| {
            (net.to_owned(), except.iter().map(|&net| net.to_owned()).collect::<Vec<_>>())
        };
        let (at_443, at_6443, at_8443) =
            (blocks(&endpoints, 443), blocks(&endpoints, 6443), blocks(&endpoints, 8443));
        let one = open("10.9.9.9/32", &[]);
        assert_eq!(at_443[2..], [open("10.0.0.0/8", &["10.96.0.1/32"]), one.clone(), shared()]);
        assert_eq!(
            at_6443[2..],
            [open("10.0.0.0/8", &["10.9.9.9/32"]), shared()],
            "all of 10.9.9.9 is closed"
        );
        assert_eq!(at_8443[2..], [open("10.0.0.0/8", &[]), one, shared()]);
        assert_eq!(at_443[0].1.len() + 1, at_6443[0].1.len(), "a public address of the API server");
        assert_eq!(at_6443[0].1.last().unwrap(), "34.1.2.3/32");
        assert_eq!(at_443[1], open("2000::/3", &[]));
    }
}
