//! What the objects name outside our kinds: Secrets and ConfigMaps to read, Services to follow.

use std::collections::BTreeSet;

use mcpmesh_compiler::Objects;
use mcpmesh_compiler::child::base_name;
use mcpmesh_crds::{EnvFromSource, EnvReference, GatewayAuthentication, McpServer};
use mcpmesh_ir::FleetId;

/// The Secrets of a namespace that its objects name.
pub(super) fn secrets(objects: &Objects) -> BTreeSet<String> {
    let servers = || objects.servers.values();
    let headers = servers()
        .flat_map(|server| server.spec.credentials.iter().flat_map(|credentials| &credentials.headers))
        .map(|header| header.secret_key_ref.name.clone());
    let listeners = objects.gateways.values().flat_map(|gateway| &gateway.spec.listeners);
    let certificates = listeners.filter_map(|listener| Some(listener.tls.as_ref()?.secret_ref.name.clone()));
    let variables = servers().flat_map(|server| variables(server)).filter_map(|named| match named {
        EnvReference::Secret(name) => Some(name.clone()),
        EnvReference::ConfigMap(_) => None,
    });
    headers.chain(certificates).chain(variables).collect()
}

/// The ConfigMaps of a namespace that its servers take variables from.
pub(super) fn config_maps(objects: &Objects) -> BTreeSet<String> {
    let named = objects.servers.values().flat_map(|server| variables(server));
    let maps = named.filter_map(|named| match named {
        EnvReference::Secret(_) => None,
        EnvReference::ConfigMap(name) => Some(name.clone()),
    });
    maps.collect()
}

/// The names of what a server that is run takes variables from.
fn variables(server: &McpServer) -> impl Iterator<Item = EnvReference<'_, String>> {
    let (package, container) = (server.spec.package.as_ref(), server.spec.container.as_ref());
    let package = package.map(|package| (&package.env, &package.env_from));
    let given = package.into_iter().chain(container.map(|container| (&container.env, &container.env_from)));
    given.flat_map(|(env, env_from)| {
        let keys = env.iter().filter_map(|variable| variable.value_from.as_ref()?.reference());
        let keys = keys.map(|reference| match reference {
            EnvReference::Secret(key) => EnvReference::Secret(&key.name),
            EnvReference::ConfigMap(key) => EnvReference::ConfigMap(&key.name),
        });
        let whole = env_from.iter().filter_map(EnvFromSource::reference);
        keys.chain(whole.map(|reference| match reference {
            EnvReference::Secret(from) => EnvReference::Secret(&from.name),
            EnvReference::ConfigMap(from) => EnvReference::ConfigMap(&from.name),
        }))
    })
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
