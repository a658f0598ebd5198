//! One McpServer: its source, credentials, tools and exports.

pub(crate) mod authentication;
mod environment;
mod lock;
mod remote;
mod run;
pub(crate) mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use mcpmesh_crds::{
    ExportTo, From as Namespaces, McpServer, McpServerSpec, ServiceSidecar, State, ToolAnnotations,
    ToolOverride,
};
use mcpmesh_ir::catalog::Hints;
use mcpmesh_ir::policy::NameGlobs;
use mcpmesh_ir::resource::{self, Resource};
use mcpmesh_ir::server::{self, Endpoint};
use mcpmesh_ir::{SecretId, ServerId};

use crate::child::{self, Child};
use crate::diagnostic::{Diagnostic, Findings, ObjectKind, ObjectRef, Reason};
use crate::inputs::Inputs;
use crate::secret::{self, KeyRef};
use crate::sidecar::{self, Door};
use crate::workload::Workload;
use authentication::Direct;

/// An enabled server without errors.
#[derive(Debug)]
pub(crate) struct CompiledServer {
    pub(crate) id: ServerId,
    /// For the selectors of gateways.
    pub(crate) labels: BTreeMap<String, String>,
    /// None: its own namespace only.
    pub(crate) exports: Option<ExportTo>,
    /// The keys of Secrets that its headers take.
    pub(crate) keys: BTreeSet<KeyRef>,
    pub(crate) workload: Option<Arc<Workload>>,
    /// What the operator makes for it, where it is run in a cluster.
    pub(crate) children: Option<Arc<Vec<Child>>>,
    /// As the gateways of its own namespace see it.
    pub(crate) inside: Resource,
    /// As the gateways of other namespaces see it.
    pub(crate) outside: Resource,
    /// As its sidecars see it, where it has any: in a cluster, when it is run there.
    pub(crate) beside: Option<Resource>,
    /// Whom its sidecars let in who are no gateways.
    pub(crate) direct: Option<Direct>,
}

/// A server by itself: usable, or the word for why not.
#[derive(Debug)]
pub(crate) struct ServerPart {
    pub(crate) outcome: Result<CompiledServer, &'static str>,
    pub(crate) findings: Vec<Diagnostic>,
}

/// Compiles one server by itself.
pub(crate) fn compile(id: &ServerId, object: &McpServer, inputs: &Inputs) -> ServerPart {
    let mut findings = Findings::new(ObjectRef::new(ObjectKind::McpServer, &id.namespace, &id.name));
    let spec = &object.spec;
    let source = source(id, spec, inputs, &mut findings);
    let mut keys = BTreeSet::new();
    let headers = headers(id, spec, inputs, &mut keys, &mut findings);
    let tools = tools(spec, &mut findings);
    let lock = lock::lock(spec.lock.as_ref(), &mut findings);
    let timeouts = timeouts(spec, &mut findings);
    child::check_server(spec, inputs.install.cluster.is_some(), &mut findings);
    let invalid = findings.has_errors();
    // A mistake there keeps callers out who are no gateways, and takes the server from nobody.
    let (direct, refused) = authentication::direct(id, spec, inputs, &mut findings);
    let exports = exports(spec, !keys.is_empty(), &mut findings);
    let outcome = match source {
        _ if spec.state == State::Disabled => Err("is disabled"),
        Some(Source { endpoint, workload, sidecars }) if !invalid => {
            let body = server::Server { id: id.clone(), endpoint, headers, tools, timeouts, lock };
            let labels = object.metadata.labels.clone().unwrap_or_default();
            let children = match (&workload, &inputs.install.cluster) {
                (Some(run), Some(cluster)) => Some(child::of_server(spec, run, inputs, cluster)),
                (None, Some(_)) if sidecars.is_some() => Some(child::of_injected(id, direct.is_some())),
                _ => None,
            };
            views(&body, sidecars.as_deref()).map_err(|_| "has no canonical form").map(
                |(inside, outside, beside)| CompiledServer {
                    id: id.clone(),
                    labels,
                    exports,
                    keys,
                    workload: workload.map(Arc::new),
                    children: children.map(Arc::new),
                    inside,
                    outside,
                    beside,
                    direct,
                },
            )
        }
        _ => Err("has errors"),
    };
    let findings = findings.into_list().into_iter().chain(refused).collect();
    ServerPart { outcome, findings }
}

/// A server as the gateways of its namespace, those of others, and its own sidecars see it.
fn views(
    body: &server::Server,
    sidecars: Option<&[SocketAddr]>,
) -> Result<(Resource, Resource, Option<Resource>), resource::Error> {
    let made = |body: &server::Server| Resource::new(body.id.to_string(), body);
    if let Some(sidecars) = sidecars {
        let inside = made(&sidecar::upstream(body, Door::Local, sidecars))?;
        let outside = made(&sidecar::upstream(body, Door::Exported, sidecars))?;
        return Ok((inside, outside, Some(made(&sidecar::beside(body))?)));
    }
    let one = made(body)?;
    Ok((one.clone(), one, None))
}

/// What a server is, as the proxies see it that are nearest to it.
struct Source {
    endpoint: Endpoint,
    workload: Option<Workload>,
    /// Where gateways find the proxies beside it; none when there are none.
    sidecars: Option<Vec<SocketAddr>>,
}

impl Source {
    /// Gateways go there themselves.
    fn direct(endpoint: Endpoint) -> Self {
        Self { endpoint, workload: None, sidecars: None }
    }
}

fn source(id: &ServerId, spec: &McpServerSpec, inputs: &Inputs, findings: &mut Findings) -> Option<Source> {
    let run = |workload: Option<Workload>| {
        let workload = workload?;
        let environment = workload.environment(&inputs.of(&id.namespace).secrets);
        let digest = secret::digest(&inputs.install.version_key, &(&workload, &environment.0)).ok()?;
        let sidecars = inputs.install.cluster.is_some().then(|| service::of_children(id, inputs));
        Some(Source { endpoint: Endpoint::Workload { digest }, workload: Some(workload), sidecars })
    };
    match (&spec.remote, &spec.service, &spec.package, &spec.container) {
        (Some(remote), None, None, None) => {
            remote::endpoint(remote, &inputs.install.remotes, findings).map(Source::direct)
        }
        (None, Some(service), None, None) => {
            let (endpoint, addresses) = service::endpoint(id, service, inputs, findings)?;
            Some(match service.sidecar {
                ServiceSidecar::None => Source::direct(endpoint),
                ServiceSidecar::Injected => {
                    let key = &inputs.install.version_key;
                    let digest = secret::digest(key, &(id, service)).ok()?;
                    let endpoint = Endpoint::Workload { digest };
                    Source { endpoint, workload: None, sidecars: Some(service::sidecars(&addresses)) }
                }
            })
        }
        (None, None, Some(package), None) => run(run::package(id, package, inputs, findings)),
        (None, None, None, Some(container)) => run(run::container(id, container, inputs, findings)),
        _ => {
            let message = "a server has exactly one source";
            let help = "give one of remote, service, package and container";
            findings.error("spec", Reason::InvalidUnion, message, help);
            None
        }
    }
}

fn headers(
    id: &ServerId,
    spec: &McpServerSpec,
    inputs: &Inputs,
    keys: &mut BTreeSet<KeyRef>,
    findings: &mut Findings,
) -> Vec<server::CredentialHeader> {
    let Some(credentials) = &spec.credentials else { return Vec::new() };
    if spec.remote.is_none() && spec.service.is_none() {
        let message = "only a remote server or a Service is given headers";
        findings.error(
            "spec.credentials",
            Reason::InvalidUnion,
            message,
            "give a package or container env instead",
        );
        return Vec::new();
    }
    if spec.service.as_ref().is_some_and(|service| service.sidecar == ServiceSidecar::Injected) {
        let message = "an injected sidecar is given no headers: it knows gateways by their certificates";
        findings.error(
            "spec.credentials",
            Reason::InvalidUnion,
            message,
            "give the server's own pods what it needs",
        );
        return Vec::new();
    }
    let mut names = BTreeSet::new();
    let mut headers = Vec::new();
    for (index, header) in credentials.headers.iter().enumerate() {
        let path = format!("spec.credentials.headers[{index}]");
        let name = header.name.to_ascii_lowercase();
        remote::check_header_name(&name, &path, findings);
        if !names.insert(name.clone()) {
            let message = format!("the header {name} is there twice");
            findings.error(&format!("{path}.name"), Reason::DuplicateName, message, "remove one");
        }
        let prefix = header.prefix.clone().unwrap_or_default();
        let secret = SecretId::new(&id.namespace, &header.secret_key_ref.name);
        let key = header.secret_key_ref.key.clone();
        if let Some(value) = secret::value(inputs, (&secret, &key), &format!("{path}.secretKeyRef"), findings)
        {
            remote::check_header_value(&prefix, value, &path, findings);
            keys.insert((secret.clone(), key.clone()));
        }
        headers.push(server::CredentialHeader { name, prefix, secret, key });
    }
    if let Some(remote) = &spec.remote {
        remote::warn_of_cleartext(remote, findings);
    }
    headers
}

fn exports(spec: &McpServerSpec, credentials: bool, findings: &mut Findings) -> Option<ExportTo> {
    let exports = spec.export_to.as_ref()?;
    check_namespaces(&exports.namespaces, "spec.exportTo.namespaces", findings);
    if exports.namespaces.from == Namespaces::Same {
        return None;
    }
    if credentials {
        let message = "a server with credentials cannot be used from other namespaces yet: a Secret's bytes stay in \
                       its namespace";
        let help = "remove spec.exportTo, or put a gateway into this namespace";
        findings.error("spec.exportTo", Reason::CredentialsNotExportable, message, help);
        return None;
    }
    Some(exports.clone())
}

/// Whether a choice of namespaces says one thing.
pub(crate) fn check_namespaces(
    choice: &mcpmesh_crds::NamespaceSelection,
    path: &str,
    findings: &mut Findings,
) -> bool {
    let consistent = (choice.from == Namespaces::Selector) == choice.selector.is_some();
    if !consistent {
        let message = "selector is needed with `from: Selector`, and only there";
        findings.error(path, Reason::InvalidUnion, message, "add `from: Selector`, or remove the selector");
    }
    consistent
}

fn tools(spec: &McpServerSpec, findings: &mut Findings) -> server::ToolRules {
    let Some(tools) = &spec.tools else { return server::ToolRules::default() };
    check_globs(&tools.include, "spec.tools.include", findings);
    check_globs(&tools.exclude, "spec.tools.exclude", findings);
    let mut overrides = BTreeMap::new();
    let mut shown = BTreeSet::new();
    for (index, tool) in tools.overrides.iter().enumerate() {
        let path = format!("spec.tools.overrides[{index}]");
        if overrides.insert(tool.name.clone(), override_of(tool)).is_some() {
            let message = format!("the tool {:?} is there twice", tool.name);
            findings.error(&format!("{path}.name"), Reason::DuplicateName, message, "put both into one");
        }
        let Some(rename) = &tool.rename else { continue };
        let path = format!("{path}.as");
        if !is_tool_name(rename) {
            let help = "use at most 64 letters, digits, underscores, dashes and dots";
            findings.error(&path, Reason::InvalidValue, format!("{rename:?} is not a tool name"), help);
        }
        if !shown.insert(rename) {
            let message = format!("two tools are shown as {rename:?}");
            findings.error(&path, Reason::DuplicateName, message, "choose another name");
        }
    }
    server::ToolRules { include: tools.include.clone(), exclude: tools.exclude.clone(), overrides }
}

/// MCP 2025-11-25, server/tools, "Tool Names", with room for a prefix.
fn is_tool_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

/// Reports each pattern that is not a glob. True when all are.
pub(crate) fn check_globs(patterns: &[String], path: &str, findings: &mut Findings) -> bool {
    let mut good = true;
    for (index, pattern) in patterns.iter().enumerate() {
        let message = match NameGlobs::new(std::slice::from_ref(pattern)) {
            Ok(_) if !pattern.is_empty() => continue,
            Ok(_) => "an empty pattern matches nothing".to_owned(),
            Err(error) => error.to_string(),
        };
        let help = "`*` and `?` are wildcards, `[ab]` and `{one,two}` choices; `[*]` is a star itself";
        findings.error(&format!("{path}[{index}]"), Reason::InvalidGlob, message, help);
        good = false;
    }
    good
}

fn override_of(tool: &ToolOverride) -> server::ToolOverride {
    server::ToolOverride {
        rename: tool.rename.clone(),
        title: tool.title.clone(),
        description: tool.description.clone(),
        annotations: tool.annotations.map(hints).unwrap_or_default(),
    }
}

fn hints(annotations: ToolAnnotations) -> Hints {
    let ToolAnnotations { read_only_hint, destructive_hint, idempotent_hint, open_world_hint } = annotations;
    Hints { read_only_hint, destructive_hint, idempotent_hint, open_world_hint }
}

fn timeouts(spec: &McpServerSpec, findings: &mut Findings) -> server::Timeouts {
    let mut timeouts = server::Timeouts::default();
    let Some(given) = &spec.timeouts else { return timeouts };
    let mcpmesh_crds::Timeouts { connect, first_byte, total } = given;
    let fields = [
        ("connect", connect, &mut timeouts.connect_ms),
        ("firstByte", first_byte, &mut timeouts.first_byte_ms),
        ("total", total, &mut timeouts.total_ms),
    ];
    for (name, given, millis) in fields {
        match given.as_ref().map(mcpmesh_crds::Duration::as_millis) {
            None => {}
            Some(0) => {
                let path = format!("spec.timeouts.{name}");
                findings.error(
                    &path,
                    Reason::InvalidValue,
                    "nothing can be done in no time",
                    "leave it out, or raise it",
                );
            }
            Some(given) => *millis = given,
        }
    }
    timeouts
}
