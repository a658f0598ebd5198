//! The children of a server that is run: its pods, each with a proxy in it or beside it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ConfigMapEnvSource, ConfigMapKeySelector, Container, EnvFromSource, EnvVar, EnvVarSource, Lifecycle,
    LifecycleHandler, SecretEnvSource, SecretKeySelector, SleepAction,
};
use mcpmesh_crds::{EnvKeySelector, EnvSource, McpServerSpec, Workload as Given};
use mcpmesh_ir::{FleetId, ServerId};

use super::gateway::{account, service_of, service_port};
use super::pod::{self, Parts, Rollout};
use super::{Child, DIGEST_ANNOTATION, DIRECT_PORT, SIDECAR_PORT, availability, network, proxy};
use crate::inputs::Cluster;
use crate::workload::{Launch, Transport};

/// What a proxy beside or around a server asks for; the server's own is the user's to say.
const SIDECAR_REQUESTS: [(&str, &str); 2] = [("cpu", "10m"), ("memory", "32Mi")];

/// How long a server serves on after it was told to end, while its address disappears from the gateways.
const LEAVING_SECONDS: i64 = 5;

/// Where a package's runner keeps what it downloads.
const HOME: &str = "/home/mcpmesh";
const HOME_VOLUME: &str = "mcpmesh-home";

/// The one folder that every server may write to.
const TEMPORARY: &str = "/tmp";
const TEMPORARY_VOLUME: &str = "mcpmesh-tmp";

/// What a server's children are made of.
pub(crate) struct ServerPlan<'a> {
    pub(crate) id: &'a ServerId,
    pub(crate) spec: &'a McpServerSpec,
    pub(crate) launch: &'a Launch,
    /// The keyed hash of what is run.
    pub(crate) digest: &'a str,
    /// The names of the variables that it is given, by whole Secrets too.
    pub(crate) variables: &'a BTreeSet<&'a str>,
    pub(crate) cluster: &'a Cluster,
}

/// The children of a server, in the order in which they are applied.
pub(crate) fn server(plan: &ServerPlan<'_>) -> Vec<Child> {
    let fleet = FleetId::Server(plan.id.clone());
    let given = plan.spec.workload.clone().unwrap_or_default();
    let replicas = Some(given.replicas.unwrap_or(1));
    let direct = plan.spec.authentication.is_some();
    let mut ports = vec![service_port("mcp", SIDECAR_PORT)];
    ports.extend(direct.then(|| service_port("direct", DIRECT_PORT)));
    let service = service_of(&fleet, "ClusterIP", ports);
    let mut children = vec![
        account(&fleet),
        network::of_server(&fleet, direct),
        Child::Service(Box::new(service)),
        deployment(&fleet, plan, &given, replicas),
    ];
    children.extend(availability::disruption_budget(&fleet, replicas));
    children
}

fn deployment(fleet: &FleetId, plan: &ServerPlan<'_>, given: &Given, replicas: Option<i32>) -> Child {
    let claims = given.volumes.iter().any(|volume| volume.persistent_volume_claim.is_some());
    let rollout = if claims { Rollout::Recreate } else { Rollout::Surge };
    let parts = parts(fleet, plan, given);
    Child::Deployment(Box::new(pod::deployment(fleet, (replicas, rollout), given.pod.as_ref(), parts)))
}

fn parts(fleet: &FleetId, plan: &ServerPlan<'_>, given: &Given) -> Parts {
    let mut volumes = proxy::volumes(fleet);
    volumes.push(proxy::empty_volume(TEMPORARY_VOLUME));
    if is_package(plan.launch) {
        volumes.push(proxy::empty_volume(HOME_VOLUME));
    }
    volumes.extend(pod::core::<Vec<_>>(&given.volumes));
    let main = main_container(plan, given);
    let annotations = BTreeMap::from([(DIGEST_ANNOTATION.to_owned(), plan.digest.to_owned())]);
    match argv(plan.launch) {
        Argv::Bridged(argv) => {
            volumes.push(proxy::empty_volume(proxy::BINARY));
            let main = bridged(fleet, plan, main, &argv);
            Parts { init_containers: vec![copy(plan.cluster)], containers: vec![main], volumes, annotations }
        }
        Argv::Beside { port, path, command, args } => {
            let main = Container { command: pod::some(command), args: pod::some(args), ..leaving(main) };
            let upstream = format!("http://127.0.0.1:{port}{path}");
            let sidecar = sidecar(fleet, &upstream, plan.cluster);
            Parts { init_containers: vec![sidecar], containers: vec![main], volumes, annotations }
        }
    }
}

/// Who starts the server's process.
enum Argv {
    /// The bridge: MCP is spoken over standard input and output.
    Bridged(Vec<String>),
    /// The kubelet: MCP is spoken over HTTP. Empty lists are the image's own.
    Beside { port: u16, path: String, command: Vec<String>, args: Vec<String> },
}

fn argv(launch: &Launch) -> Argv {
    match launch {
        Launch::Npm { package, version, args } => {
            let package = version.as_ref().map_or_else(|| package.clone(), |one| format!("{package}@{one}"));
            Argv::Bridged(words(&["npx", "--yes", &package], args))
        }
        Launch::PyPI { package, version, args } => {
            let given = version.as_ref().map_or_else(|| package.clone(), |one| format!("{package}=={one}"));
            // The program is called like the package, extras apart.
            let program = package.split_once('[').map_or(package.as_str(), |(name, _)| name);
            Argv::Bridged(words(&["uvx", "--from", &given, program], args))
        }
        Launch::Container { command, args, transport: Transport::Stdio {}, .. } => {
            Argv::Bridged(command.iter().chain(args).map(|word| literal(word)).collect())
        }
        Launch::Container { command, args, transport: Transport::StreamableHttp { port, path }, .. } => {
            let all = |words: &[String]| words.iter().map(|word| literal(word)).collect();
            Argv::Beside { port: *port, path: path.clone(), command: all(command), args: all(args) }
        }
    }
}

fn words(first: &[&str], rest: &[String]) -> Vec<String> {
    first.iter().copied().chain(rest.iter().map(String::as_str)).map(literal).collect()
}

/// Kubernetes replaces `$(NAME)` in commands, arguments and values; on one machine nobody does, and one object means
/// one thing everywhere. `$$` stands for a dollar.
fn literal(word: &str) -> String {
    if word.contains("$(") || word.contains("$$") { word.replace('$', "$$") } else { word.to_owned() }
}

fn is_package(launch: &Launch) -> bool {
    match launch {
        Launch::Npm { .. } | Launch::PyPI { .. } => true,
        Launch::Container { .. } => false,
    }
}

/// The server's container, whoever starts its process: image, environment, resources and mounts.
fn main_container(plan: &ServerPlan<'_>, given: &Given) -> Container {
    let image = match plan.launch {
        Launch::Npm { .. } => &plan.cluster.npm_image,
        Launch::PyPI { .. } => &plan.cluster.pypi_image,
        Launch::Container { image, .. } => image,
    };
    let resources = given.pod.as_ref().and_then(|pod| pod.resources.as_ref());
    let (env, env_from) = environment(plan);
    let mut mounts: Vec<k8s_openapi::api::core::v1::VolumeMount> = pod::core(&given.volume_mounts);
    // A user may bring a /tmp of a certain kind.
    if mounts.iter().all(|mount| mount.mount_path != TEMPORARY) {
        mounts.push(proxy::mount(TEMPORARY_VOLUME, TEMPORARY, false));
    }
    if is_package(plan.launch) && mounts.iter().all(|mount| mount.mount_path != HOME) {
        mounts.push(proxy::mount(HOME_VOLUME, HOME, false));
    }
    Container {
        name: "server".to_owned(),
        image: Some(image.clone()),
        env: pod::some(env),
        env_from: pod::some(env_from),
        resources: pod::some(pod::resources(resources, &[])),
        security_context: Some(proxy::security_context()),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

/// Straight from the spec: the kubelet resolves references, so that no Secret's value is in a Deployment.
fn environment(plan: &ServerPlan<'_>) -> (Vec<EnvVar>, Vec<EnvFromSource>) {
    let none = (&[][..], &[][..]);
    let (env, env_from) = match (&plan.spec.package, &plan.spec.container) {
        (Some(package), _) => (package.env.as_slice(), package.env_from.as_slice()),
        (None, Some(container)) => (container.env.as_slice(), container.env_from.as_slice()),
        (None, None) => none,
    };
    let ours = if is_package(plan.launch) { runner_env() } else { Vec::new() };
    let ours = ours.into_iter().filter(|variable| !plan.variables.contains(variable.name.as_str()));
    let ours = ours.chain(registry(plan));
    let all = ours.chain(env.iter().map(variable)).collect();
    (all, env_from.iter().map(all_keys).collect())
}

/// What npx and uvx need where only the home folder can be written.
fn runner_env() -> Vec<EnvVar> {
    vec![
        proxy::variable("HOME", HOME),
        proxy::variable("XDG_CACHE_HOME", &format!("{HOME}/.cache")),
        proxy::variable("XDG_DATA_HOME", &format!("{HOME}/.local/share")),
        proxy::variable("npm_config_cache", &format!("{HOME}/.npm")),
        proxy::variable("npm_config_update_notifier", "false"),
        proxy::variable("UV_CACHE_DIR", &format!("{HOME}/.cache/uv")),
        proxy::variable("UV_TOOL_DIR", &format!("{HOME}/.local/share/uv/tools")),
    ]
}

/// Where the installation has its packages come from, unless the server says so itself in one of its runner's ways.
fn registry(plan: &ServerPlan<'_>) -> Option<EnvVar> {
    let (name, ways, place): (&str, &[&str], _) = match plan.launch {
        Launch::Npm { .. } => ("npm_config_registry", &["npm_config_registry"], &plan.cluster.npm_registry),
        Launch::PyPI { .. } => {
            let ways = &["UV_DEFAULT_INDEX", "UV_INDEX_URL"];
            ("UV_DEFAULT_INDEX", ways, &plan.cluster.pypi_index)
        }
        Launch::Container { .. } => return None,
    };
    // npm reads its variables in any case.
    let says = |given: &&str| ways.iter().any(|way| way.eq_ignore_ascii_case(given));
    if plan.variables.iter().any(says) {
        return None;
    }
    place.as_ref().map(|url| proxy::variable(name, &literal(url)))
}

fn variable(given: &mcpmesh_crds::EnvVar) -> EnvVar {
    let secret = |key: &EnvKeySelector| SecretKeySelector {
        name: key.name.clone(),
        key: key.key.clone(),
        optional: key.optional,
    };
    let config_map = |key: &EnvKeySelector| ConfigMapKeySelector {
        name: key.name.clone(),
        key: key.key.clone(),
        optional: key.optional,
    };
    EnvVar {
        name: given.name.clone(),
        value: given.value.as_deref().map(literal),
        value_from: given.value_from.as_ref().map(|from| EnvVarSource {
            secret_key_ref: from.secret_key_ref.as_ref().map(secret),
            config_map_key_ref: from.config_map_key_ref.as_ref().map(config_map),
            ..EnvVarSource::default()
        }),
    }
}

fn all_keys(given: &mcpmesh_crds::EnvFromSource) -> EnvFromSource {
    let secret = |from: &EnvSource| SecretEnvSource { name: from.name.clone(), optional: from.optional };
    let config_map =
        |from: &EnvSource| ConfigMapEnvSource { name: from.name.clone(), optional: from.optional };
    EnvFromSource {
        prefix: given.prefix.clone(),
        secret_ref: given.secret_ref.as_ref().map(secret),
        config_map_ref: given.config_map_ref.as_ref().map(config_map),
    }
}

/// The proxy starts the server and speaks to its standard input and output. So the probes are the proxy's.
fn bridged(fleet: &FleetId, plan: &ServerPlan<'_>, main: Container, argv: &[String]) -> Container {
    let mut around = proxy::container(&main.name, main.image.as_deref().unwrap_or_default());
    let mut command = vec![format!("{}/mcpmesh-proxy", proxy::BINARY_FOLDER), "bridge".to_owned()];
    command.extend(proxy::arguments(fleet, plan.cluster));
    command.push("--".to_owned());
    command.extend_from_slice(argv);
    around.command = Some(command);
    around.env.get_or_insert_default().extend(main.env.unwrap_or_default());
    around.env_from = main.env_from;
    around.resources = main.resources;
    around.ports.get_or_insert_default().push(proxy::port("mcp", SIDECAR_PORT));
    let mounts = around.volume_mounts.get_or_insert_default();
    mounts.push(proxy::mount(proxy::BINARY, proxy::BINARY_FOLDER, true));
    mounts.extend(main.volume_mounts.unwrap_or_default());
    around
}

/// Puts the static proxy where the server's image can start it.
fn copy(cluster: &Cluster) -> Container {
    Container {
        name: "mcpmesh-copy".to_owned(),
        image: Some(cluster.proxy_image.clone()),
        args: Some(vec!["copy".to_owned(), format!("{}/mcpmesh-proxy", proxy::BINARY_FOLDER)]),
        resources: Some(pod::resources(None, &SIDECAR_REQUESTS)),
        security_context: Some(proxy::security_context()),
        volume_mounts: Some(vec![proxy::mount(proxy::BINARY, proxy::BINARY_FOLDER, false)]),
        ..Container::default()
    }
}

/// The proxy beside a server that speaks HTTP: a native sidecar, there before the server and after it.
pub(super) fn sidecar(fleet: &FleetId, upstream: &str, cluster: &Cluster) -> Container {
    let mut sidecar = proxy::container(proxy::BESIDE, &cluster.proxy_image);
    let mut args = vec!["sidecar".to_owned(), "--upstream".to_owned(), upstream.to_owned()];
    args.extend(proxy::arguments(fleet, cluster));
    sidecar.args = Some(args);
    sidecar.restart_policy = Some("Always".to_owned());
    sidecar.resources = Some(pod::resources(None, &SIDECAR_REQUESTS));
    sidecar.ports.get_or_insert_default().push(proxy::port("mcp", SIDECAR_PORT));
    sidecar
}

/// A sidecar is told to end after the server; so the server must outlast its own address.
fn leaving(main: Container) -> Container {
    let sleep = LifecycleHandler {
        sleep: Some(SleepAction { seconds: LEAVING_SECONDS }),
        ..LifecycleHandler::default()
    };
    Container { lifecycle: Some(Lifecycle { pre_stop: Some(sleep), ..Lifecycle::default() }), ..main }
}
