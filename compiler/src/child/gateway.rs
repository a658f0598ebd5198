//! The children of a gateway: a fleet of proxies behind a Service.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Service, ServiceAccount, ServicePort, ServiceSpec, Sysctl};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use mcpmesh_crds::{ProxyFleet, ProxyService, ServiceType};
use mcpmesh_ir::gateway::Listener;
use mcpmesh_ir::server::Endpoint;
use mcpmesh_ir::{FleetId, GatewayId};

use super::network::{self, Upstreams};
use super::pod::{self, Parts, Rollout};
use super::{Child, availability, name, proxy, route};
use crate::inputs::Cluster;

/// What a proxy asks for unless its gateway says otherwise; an autoscaler needs some request.
const REQUESTS: [(&str, &str); 2] = [("cpu", "100m"), ("memory", "128Mi")];

/// What a gateway's children are made of.
pub(crate) struct GatewayPlan<'a> {
    pub(crate) id: &'a GatewayId,
    pub(crate) proxy: &'a ProxyFleet,
    /// Those that can be used; at least one.
    pub(crate) listeners: &'a [Listener],
    /// The endpoints of the servers behind it, with the servers' namespaces.
    pub(crate) upstreams: Vec<(&'a str, &'a Endpoint)>,
    pub(crate) cluster: &'a Cluster,
}

/// The children of a gateway, in the order in which they are applied.
pub(crate) fn gateway(plan: &GatewayPlan<'_>) -> Vec<Child> {
    let fleet = FleetId::Gateway(plan.id.clone());
    let ports: BTreeSet<u16> = plan.listeners.iter().map(|listener| listener.port).collect();
    let mut upstreams = Upstreams::default();
    for (namespace, endpoint) in &plan.upstreams {
        upstreams.add(namespace, endpoint);
    }
    let replicas = availability::replicas(plan.proxy);
    let mut children = vec![
        account(&fleet),
        network::of_gateway(&fleet, &ports, &upstreams, plan.cluster),
        service(&fleet, plan),
        deployment(&fleet, plan, &ports, replicas),
    ];
    children.extend(availability::disruption_budget(&fleet, replicas));
    children.extend(plan.proxy.autoscaling.as_ref().map(|given| availability::autoscaler(&fleet, given)));
    children.extend(plan.proxy.route.as_ref().and_then(|given| route::route(&fleet, given, plan.listeners)));
    children
}

/// The fleet's identity towards the operator; no token of it is ever for the API server.
pub(super) fn account(fleet: &FleetId) -> Child {
    Child::ServiceAccount(Box::new(ServiceAccount {
        metadata: name::metadata(fleet, &BTreeMap::new()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }))
}

fn service(fleet: &FleetId, plan: &GatewayPlan<'_>) -> Child {
    let given = plan.proxy.service.clone().unwrap_or_default();
    let ProxyService { kind, labels, annotations } = given;
    let mut seen = BTreeSet::new();
    let first = plan.listeners.iter().filter(|listener| seen.insert(listener.port));
    let ports = first.map(|listener| service_port(&listener.name, listener.port)).collect();
    let kind = match kind {
        ServiceType::ClusterIP => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
    };
    let mut made = service_of(fleet, kind, ports);
    made.metadata = name::metadata(fleet, &labels);
    made.metadata.annotations = pod::some(annotations);
    Child::Service(Box::new(made))
}

/// A Service in front of a fleet, of both families where the cluster has both.
pub(super) fn service_of(fleet: &FleetId, kind: &str, ports: Vec<ServicePort>) -> Service {
    Service {
        metadata: name::metadata(fleet, &BTreeMap::new()),
        spec: Some(ServiceSpec {
            type_: Some(kind.to_owned()),
            selector: Some(name::chosen_by(fleet)),
            ip_family_policy: Some("PreferDualStack".to_owned()),
            ports: Some(ports),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

pub(super) fn service_port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number.into(),
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::Int(number.into())),
        ..ServicePort::default()
    }
}

fn deployment(
    fleet: &FleetId,
    plan: &GatewayPlan<'_>,
    ports: &BTreeSet<u16>,
    replicas: Option<i32>,
) -> Child {
    let given = plan.proxy.pod.as_ref();
    let mut container = proxy::container("proxy", &plan.cluster.proxy_image);
    container.args = Some(proxy::arguments(fleet, plan.cluster));
    container.resources = Some(pod::resources(given.and_then(|pod| pod.resources.as_ref()), &REQUESTS));
    expose(&mut container, ports);
    let parts = Parts {
        init_containers: Vec::new(),
        containers: vec![container],
        volumes: proxy::volumes(fleet),
        annotations: BTreeMap::new(),
    };
    let mut made = pod::deployment(fleet, (replicas, Rollout::Surge), given, parts);
    if ports.iter().any(|port| *port < 1024) {
        allow_low_ports(&mut made);
    }
    Child::Deployment(Box::new(made))
}

fn expose(container: &mut Container, ports: &BTreeSet<u16>) {
    let named = ports.iter().map(|port| proxy::port(&format!("mcp-{port}"), *port));
    container.ports.get_or_insert_default().extend(named);
}

/// Without root and capabilities a port such as 443 needs this: one of the sysctls that Pod Security "restricted" allows.
fn allow_low_ports(deployment: &mut k8s_openapi::api::apps::v1::Deployment) {
    let spec = deployment.spec.as_mut().and_then(|spec| spec.template.spec.as_mut());
    if let Some(context) = spec.and_then(|spec| spec.security_context.as_mut()) {
        context.sysctls = Some(vec![Sysctl {
            name: "net.ipv4.ip_unprivileged_port_start".to_owned(),
            value: "0".to_owned(),
        }]);
    }
}
