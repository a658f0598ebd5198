//! Servers that are run for the user: packages and containers.

use mcpmesh_crds::{Container, ContainerTransport, Package, Registry};
use mcpmesh_ir::ServerId;

use super::environment::environment;
use super::service::is_path;
use crate::diagnostic::{Findings, Reason};
use crate::inputs::Inputs;
use crate::sidecar::RESERVED_PORTS;
use crate::workload::{Launch, Transport, Workload};

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
        // What is no whole version, npm takes for a range or a tag.
        Some(version) if *registry == Registry::Npm && semver::Version::parse(version).is_err() => {
            let message = format!("npm runs whatever is published next as {version}");
            findings.note(path, Reason::UnpinnedPackage, message, "give a whole version, such as 1.2.3");
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
pub(super) fn check_words(words: &[String], path: &str, findings: &mut Findings) {
    for (index, _) in words.iter().enumerate().filter(|(_, word)| word.contains('\0')) {
        findings.error(&format!("{path}[{index}]"), Reason::InvalidValue, "it holds a NUL byte", "remove it");
    }
}
