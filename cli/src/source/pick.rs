//! Where objects come from: YAML where there is some of ours, else a client's configuration, else nothing.

use std::fmt;
use std::path::{Path, PathBuf};

use mcpmesh_compiler::ObjectKind;
use mcpmesh_compiler::manifest;

use super::files::{display, files, folders_with_manifests};
use super::{Source, text_of};
use crate::args::SecretsTo;
use crate::import;

/// Where `up` serves unless told otherwise.
const OWN_PORT: u16 = 8080;

/// Why there is nothing to read.
#[derive(Debug)]
pub(crate) struct Nothing {
    paths: Vec<PathBuf>,
    /// YAML that holds nothing of ours.
    aside: Vec<PathBuf>,
    /// A client's configuration that has no server but ourselves.
    empty: Option<PathBuf>,
}

/// What `up` would serve of these paths. `own` is the port of our own endpoint.
pub(crate) fn pick(paths: &[PathBuf], own: u16) -> anyhow::Result<Result<Source, Nothing>> {
    if let [only] = paths
        && let Some(file) = as_client_configuration(only)
    {
        return Ok(Ok(Source::Client { file, own, beside: Vec::new() }));
    }
    let aside = files(paths)?;
    if aside.iter().any(|file| configures(file)) {
        return Ok(Ok(Source::Manifests(paths.to_vec())));
    }
    Ok(match clients_own(paths, own) {
        Some(file) => Ok(Source::Client { file, own, beside: paths.to_vec() }),
        None => Err(Nothing { paths: paths.to_vec(), aside, empty: known(paths).next() }),
    })
}

/// As [`pick`], for a command that serves nothing itself.
pub(crate) fn find(paths: &[PathBuf]) -> anyhow::Result<Source> {
    pick(paths, OWN_PORT)?.map_err(|nothing| {
        let below: Vec<String> =
            paths.iter().flat_map(|path| folders_with_manifests(path)).map(|path| display(&path)).collect();
        let advice = match below.as_slice() {
            [] => String::new(),
            below => format!(
                "; there is some in {}: name it, since folders in folders are not read",
                below.join(", ")
            ),
        };
        anyhow::anyhow!("no objects found: {nothing}{advice}")
    })
}

impl fmt::Display for Nothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { paths, aside, empty } = self;
        match aside.as_slice() {
            [] => write!(f, "there is no YAML in {}", list(paths))?,
            aside => write!(f, "no McpServer, McpGateway, McpPolicy or Secret is in {}", list(aside))?,
        }
        match empty {
            None => write!(f, ", nor is there any of {}", import::KNOWN.join(", ")),
            Some(file) => write!(f, ", and {} has no server but mcpmesh itself", display(file)),
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| display(path)).collect::<Vec<_>>().join(", ")
}

/// Whether a file holds something that makes a mesh, or something that cannot be read and may be that.
pub(super) fn configures(file: &Path) -> bool {
    // A pipe can be read once only, and that is the reading's.
    if std::fs::metadata(file).is_ok_and(|found| !found.is_file()) {
        return true;
    }
    let Ok(text) = text_of(std::fs::read(file)) else { return true };
    let parsed = manifest::parse("", &text);
    let counts = |kind: ObjectKind| match kind {
        ObjectKind::McpServer | ObjectKind::McpGateway | ObjectKind::McpPolicy | ObjectKind::Secret => true,
        ObjectKind::ConfigMap | ObjectKind::Namespace => false,
    };
    !parsed.unread.is_empty() || parsed.objects.iter().any(|object| counts(object.reference.kind))
}

/// The clients' configurations that are there, in the order in which they are looked at.
fn known(paths: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
    let all = paths.iter().flat_map(|path| import::KNOWN.iter().map(move |name| path.join(name)));
    all.filter(|file| file.is_file())
}

/// The first client's configuration that has a server which is not ourselves. One that cannot be read is taken, so that
/// it is reported.
pub(crate) fn clients_own(paths: &[PathBuf], own: u16) -> Option<PathBuf> {
    let has_others = |file: &PathBuf| {
        import::read(file, "default", SecretsTo::File).map_or(true, |imported| {
            let failed = imported.notes.iter().any(|note| note.error);
            failed || imported.servers.iter().any(|server| !leads_to(server, own))
        })
    };
    known(paths).find(has_others)
}

/// The path as a client's configuration, when it is one.
fn as_client_configuration(path: &Path) -> Option<PathBuf> {
    let json = path.extension().is_some_and(|extension| extension == "json") && path.is_file();
    let imported = json.then(|| import::read(path, "default", SecretsTo::File).ok()).flatten();
    imported.map(|_| path.to_owned())
}

/// True for a server that is ourselves, as `connect` writes it into a client's configuration.
pub(crate) fn is_ourselves(server: &serde_json::Value) -> bool {
    leads_to(server, OWN_PORT)
}

/// True for a server at this port of this machine: serving ourselves would have no end.
pub(super) fn leads_to(server: &serde_json::Value, port: u16) -> bool {
    let url = server.pointer("/spec/remote/url").and_then(serde_json::Value::as_str);
    url.and_then(|url| url::Url::parse(url).ok()).is_some_and(|url| {
        let here = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback() || address.is_unspecified(),
            Some(url::Host::Ipv6(address)) => address.is_loopback() || address.is_unspecified(),
            None => false,
        };
        here && url.port_or_known_default() == Some(port)
    })
}
