//! What the objects name outside our kinds: Secrets to read, Services to follow.

use std::collections::BTreeSet;

use mcpmesh_compiler::Inputs;
use mcpmesh_compiler::child::base_name;
use mcpmesh_crds::{EnvFromSource, EnvVar, GatewayAuthentication};
use mcpmesh_ir::FleetId;

use crate::watch::Key;

/// Secrets by name.
pub(super) fn secrets(inputs: &Inputs) -> BTreeSet<Key> {
    let mut found = BTreeSet::new();
    for (id, server) in &inputs.servers {
        let mut add = |name: &str| _ = found.insert((id.namespace.clone(), name.to_owned()));
        for header in server.spec.credentials.iter().flat_map(|credentials| &credentials.headers) {
            add(&header.secret_key_ref.name);
        }
        if let Some(package) = &server.spec.package {
            environment(&package.env, &package.env_from, &mut add);
        }
        if let Some(container) = &server.spec.container {
            environment(&container.env, &container.env_from, &mut add);
        }
    }
    for (id, gateway) in &inputs.gateways {
        for tls in gateway.spec.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
            found.insert((id.namespace.clone(), tls.secret_ref.name.clone()));
        }
    }
    found
}

fn environment(env: &[EnvVar], from: &[EnvFromSource], add: &mut impl FnMut(&str)) {
    for var in env {
        if let Some(source) = &var.value_from {
            add(&source.secret_key_ref.name);
        }
    }
    for source in from {
        add(&source.secret_ref.name);
    }
}

/// Namespaces with a gateway, or a server, that takes API keys.
pub(super) fn namespaces_with_keys(inputs: &Inputs) -> BTreeSet<String> {
    let takes = |given: Option<&GatewayAuthentication>| given.is_some_and(|given| given.api_keys.is_some());
    let gateways = inputs.gateways.iter();
    let gateways = gateways.filter(|(_, gateway)| takes(gateway.spec.authentication.as_ref()));
    let servers = inputs.servers.iter();
    let servers = servers.filter(|(_, server)| takes(server.spec.authentication.as_ref()));
    let gateways = gateways.map(|(id, _)| id.namespace.clone());
    gateways.chain(servers.map(|(id, _)| id.namespace.clone())).collect()
}

/// Services: those that servers name, and those of every fleet, which tell how many proxies there are.
pub(super) fn services(inputs: &Inputs) -> BTreeSet<Key> {
    let named = inputs
        .servers
        .iter()
        .filter_map(|(id, server)| Some((id.namespace.clone(), server.spec.service.as_ref()?.name.clone())));
    let run = inputs
        .servers
        .iter()
        .filter(|(_, server)| server.spec.package.is_some() || server.spec.container.is_some());
    let servers = run.map(|(id, _)| FleetId::Server(id.clone()));
    let gateways = inputs.gateways.keys().map(|id| FleetId::Gateway(id.clone()));
    let fleets = servers.chain(gateways).map(|fleet| (fleet.namespace().to_owned(), base_name(&fleet)));
    fleets.chain(named).collect()
}
