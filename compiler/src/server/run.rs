//! Servers that are run for the user: packages and containers, and their environment.

use std::collections::BTreeMap;

use mcpmesh_crds::{Container, ContainerTransport, EnvFromSource, EnvVar as EnvField, Package, Registry};
use mcpmesh_ir::{SecretId, ServerId};

use super::service::is_path;
use crate::diagnostic::{Findings, Reason};
use crate::inputs::Inputs;
use crate::secret;
use crate::sidecar::RESERVED_PORTS;
use crate::workload::{EnvValue, EnvVar, Launch, Transport, Workload};

pub(super) fn package(
    id: &ServerId,
    package: &Package,
    inputs: &Inputs,
    findings: &mut Findings,
) -> Option<Workload> {
    let path = "spec.package";
    let Package { registry, name, version, args, env: variables, env_from } = package;
    let known = match registry {
        Registry::Npm => is_npm_name(name),
        Registry::PyPI => is_pypi_name(name),
    };
    if !known {
        let message = format!("{name:?} is not a package name");
        let help = "the name alone: the version has a field of its own";
        findings.error("spec.package.name", Reason::InvalidValue, message, help);
    }
    match version {
        Some(version) if !is_version(version) => {
            let message = format!("{version:?} is not a version");
            findings.error(
                "spec.package.version",
                Reason::InvalidValue,
                message,
                "such as 1.2.3; ranges are not taken",
            );
        }
        Some(_) => {}
        None => {
            let message = "without a version, whatever is published next is run";
            findings.note(path, Reason::UnpinnedPackage, message, "add spec.package.version");
        }
    }
    check_words(args, "spec.package.args", findings);
    let env = environment(id, (variables, env_from, path), inputs, findings);
    let (package, version, args) = (name.clone(), version.clone(), args.clone());
    let launch = match registry {
        Registry::Npm => Launch::Npm { package, version, args },
        Registry::PyPI => Launch::PyPI { package, version, args },
    };
    Some(Workload { server: id.clone(), launch, env })
}

/// Names begin with a letter or digit (a scope with an at sign), so that none is taken for an option.
fn is_npm_name(name: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_alphanumeric())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte))
    };
    match name.strip_prefix('@') {
        Some(scoped) => scoped.split_once('/').is_some_and(|(scope, name)| part(scope) && part(name)),
        None => part(name),
    }
}

fn is_pypi_name(name: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_alphanumeric())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    match name.strip_suffix(']') {
        Some(name) => {
            name.split_once('[').is_some_and(|(name, extras)| part(name) && extras.split(',').all(part))
        }
        None => part(name),
    }
}

fn is_version(version: &str) -> bool {
    version.starts_with(|first: char| first.is_ascii_alphanumeric())
        && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+!_-".contains(&byte))
}

pub(super) fn container(
    id: &ServerId,
    container: &Container,
    inputs: &Inputs,
    findings: &mut Findings,
) -> Option<Workload> {
    let Container { image, command, args, env: variables, env_from, .. } = container;
    let good = image.starts_with(|first: char| first.is_ascii_alphanumeric())
        && image.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._/:@-".contains(&byte));
    if !good {
        let message = format!("{image:?} is not an image reference");
        findings.error(
            "spec.container.image",
            Reason::InvalidValue,
            message,
            "such as ghcr.io/owner/image:tag",
        );
    }
    check_words(command, "spec.container.command", findings);
    check_words(args, "spec.container.args", findings);
    let env = environment(id, (variables, env_from, "spec.container"), inputs, findings);
    let transport = transport(container, findings)?;
    if let Transport::StreamableHttp { port, .. } = &transport
        && inputs.install.cluster.is_some()
        && RESERVED_PORTS.contains(port)
    {
        let message = format!("port {port} is that of the proxy beside it");
        findings.error("spec.container.port", Reason::ReservedPort, message, "let it listen on another");
    }
    let (image, command, args) = (image.clone(), command.clone(), args.clone());
    Some(Workload { server: id.clone(), launch: Launch::Container { image, command, args, transport }, env })
}

fn transport(container: &Container, findings: &mut Findings) -> Option<Transport> {
    let path = container.path.as_deref();
    match (container.transport, container.port) {
        (ContainerTransport::Stdio, None) if path.is_none() => Some(Transport::Stdio {}),
        (ContainerTransport::Stdio, _) => {
            let message = "port and path are for `transport: StreamableHttp`";
            let help = "add `transport: StreamableHttp`, or remove them";
            findings.error("spec.container", Reason::InvalidUnion, message, help);
            None
        }
        (ContainerTransport::StreamableHttp, Some(port)) if port > 0 => {
            let path = path.unwrap_or("/mcp").to_owned();
            if !is_path(&path) {
                let message = format!("{path:?} is not a path");
                findings.error("spec.container.path", Reason::InvalidValue, message, "such as /mcp");
            }
            Some(Transport::StreamableHttp { port, path })
        }
        (ContainerTransport::StreamableHttp, _) => {
            let help = "add spec.container.port, where the container listens";
            findings.error("spec.container", Reason::InvalidUnion, "port is missing", help);
            None
        }
    }
}

/// No process can be given a NUL.
fn check_words(words: &[String], path: &str, findings: &mut Findings) {
    for (index, _) in words.iter().enumerate().filter(|(_, word)| word.contains('\0')) {
        findings.error(&format!("{path}[{index}]"), Reason::InvalidValue, "it holds a NUL byte", "remove it");
    }
}

type Fields<'s> = (&'s [EnvField], &'s [EnvFromSource], &'s str);

/// As in core/v1: later sources win over earlier ones, and `env` over all of them.
fn environment(
    id: &ServerId,
    (env, env_from, path): Fields<'_>,
    inputs: &Inputs,
    findings: &mut Findings,
) -> Vec<EnvVar> {
    let mut variables = BTreeMap::new();
    for (index, source) in env_from.iter().enumerate() {
        whole_secret(
            id,
            source,
            &format!("{path}.envFrom[{index}]"),
            inputs,
            &mut Collect { variables: &mut variables, findings },
        );
    }
    let mut named = std::collections::BTreeSet::new();
    for (index, field) in env.iter().enumerate() {
        let path = format!("{path}.env[{index}]");
        check_name(&field.name, &format!("{path}.name"), findings);
        if !named.insert(&field.name) {
            let message = format!("the variable {} is there twice", field.name);
            findings.error(&format!("{path}.name"), Reason::DuplicateName, message, "remove one");
        }
        match value(id, field, &path, inputs, findings) {
            Some(value) => variables.insert(field.name.clone(), value),
            None => variables.remove(&field.name),
        };
    }
    variables.into_iter().map(|(name, value)| EnvVar { name, value }).collect()
}

struct Collect<'c> {
    variables: &'c mut BTreeMap<String, EnvValue>,
    findings: &'c mut Findings,
}

fn whole_secret(id: &ServerId, source: &EnvFromSource, path: &str, inputs: &Inputs, into: &mut Collect<'_>) {
    let secret = SecretId::new(&id.namespace, &source.secret_ref.name);
    if source.secret_ref.optional == Some(true) && inputs.secret(&secret).is_none() {
        return;
    }
    let path = format!("{path}.secretRef");
    let Some(found) = secret::find(inputs, &secret, &format!("{path}.name"), into.findings) else { return };
    for key in found.data.keys() {
        let name = format!("{}{key}", source.prefix.as_deref().unwrap_or_default());
        check_name(&name, &path, into.findings);
        if text(inputs, (&secret, key), &path, into.findings) {
            into.variables.insert(name, EnvValue::Secret { secret: secret.clone(), key: key.clone() });
        }
    }
}

/// None: the variable is left out, or its mistake is reported.
fn value(
    id: &ServerId,
    field: &EnvField,
    path: &str,
    inputs: &Inputs,
    findings: &mut Findings,
) -> Option<EnvValue> {
    let reference = match (&field.value, &field.value_from) {
        (Some(_), Some(_)) => {
            findings.error(
                path,
                Reason::InvalidUnion,
                "value and valueFrom exclude each other",
                "remove one",
            );
            return None;
        }
        (literal, None) => {
            let literal = literal.clone().unwrap_or_default();
            check_words(std::slice::from_ref(&literal), &format!("{path}.value"), findings);
            return Some(EnvValue::Literal(literal));
        }
        (None, Some(source)) => &source.secret_key_ref,
    };
    let secret = SecretId::new(&id.namespace, &reference.name);
    let there = inputs.secret(&secret).is_some_and(|secret| secret.data.contains_key(&reference.key));
    if reference.optional == Some(true) && !there {
        return None;
    }
    let path = format!("{path}.valueFrom.secretKeyRef");
    text(inputs, (&secret, &reference.key), &path, findings)
        .then(|| EnvValue::Secret { secret, key: reference.key.clone() })
}

/// Whether a Secret's value can be an environment variable's.
fn text(inputs: &Inputs, key: (&SecretId, &str), path: &str, findings: &mut Findings) -> bool {
    let Some(value) = secret::value(inputs, key, path, findings) else { return false };
    if value.contains('\0') {
        let message = format!("key {:?} of Secret {} holds a NUL byte", key.1, key.0);
        findings.error(path, Reason::InvalidSecret, message, "an environment variable cannot");
    }
    true
}

fn check_name(name: &str, path: &str, findings: &mut Findings) {
    if name.is_empty() || name.contains('=') || name.bytes().any(|byte| !(b' '..=b'~').contains(&byte)) {
        let message = format!("{name:?} is not the name of an environment variable");
        findings.error(path, Reason::InvalidValue, message, "use letters, digits and underscores");
    }
}
