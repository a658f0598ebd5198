//! What the objects name outside our kinds: Secrets to read, Services to follow.

use std::collections::BTreeSet;

use mcpmesh_compiler::Objects;
use mcpmesh_compiler::child::base_name;
use mcpmesh_crds::{EnvFromSource, EnvVar, GatewayAuthentication};
use mcpmesh_ir::FleetId;

/// The Secrets of a namespace that its objects name.
pub(super) fn secrets(objects: &Objects) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for server in objects.servers.values() {
        let mut add = |name: &str| _ = found.insert(name.to_owned());
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
    for gateway in objects.gateways.values() {
        for tls in gateway.spec.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
            found.insert(tls.secret_ref.name.clone());
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

/// Whether a gateway or a server of the namespace takes API keys.
pub(super) fn takes_keys(objects: &Objects) -> bool {
    let takes = |given: Option<&GatewayAuthentication>| given.is_some_and(|given| given.api_keys.is_some());
    objects.gateways.values().any(|gateway| takes(gateway.spec.authentication.as_ref()))
        || objects.servers.values().any(|server| takes(server.spec.authentication.as_ref()))
}

/// The Services of a namespace that its servers name, and those of its fleets, which tell how many proxies there are.
pub(super) fn services(objects: &Objects) -> BTreeSet<String> {
    let servers = || objects.servers.iter();
    let named = servers().filter_map(|(_, server)| Some(server.spec.service.as_ref()?.name.clone()));
    let run =
        servers().filter(|(_, server)| server.spec.package.is_some() || server.spec.container.is_some());
    let run = run.map(|(id, _)| FleetId::Server(id.clone()));
    let gateways = objects.gateways.keys().map(|id| FleetId::Gateway(id.clone()));
    run.chain(gateways).map(|fleet| base_name(&fleet)).chain(named).collect()
}
