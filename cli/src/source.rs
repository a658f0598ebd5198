//! Files and folders to compiled objects: read, parse, resolve `${env:NAME}`, gather, compile, locate.

mod cluster;
mod environment;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;
use ipnet::IpNet;
use mcpmesh_compiler::manifest::{self, Located};
use mcpmesh_compiler::{
    Compiled, Diagnostic, IMPLIED_GATEWAY, Inputs, Install, Location, ObjectKind, ObjectRef, Reason,
    Severity, compile,
};
use mcpmesh_ir::gateway::Anonymous;
use mcpmesh_ir::{EgressRule, Gateway, GatewayId, ResourceKind};

use crate::args::SecretsTo;
use crate::exit::Failure;
use crate::import;

/// Where objects come from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// YAML and JSON in these files and folders.
    Manifests(Vec<PathBuf>),
    /// A client's configuration.
    Client {
        /// The file.
        file: PathBuf,
        /// The port of our own endpoint, to which the file leads as well once `connect` has written it.
        own: u16,
    },
}

/// Everything that one reading of the files gave.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The objects, with their places.
    pub(crate) objects: Vec<Located>,
    /// What was compiled.
    pub(crate) inputs: Inputs,
    /// What it was compiled to.
    pub(crate) compiled: Compiled,
    /// Everything that is wrong, errors first.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Something could not be read at all, so that applying the rest might open what it closes (decisions.md 9).
    pub(crate) unreadable: bool,
}

impl Loaded {
    /// True when there is an error among the diagnostics.
    pub(crate) fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// True when there is nothing to serve.
    pub(crate) fn is_empty(&self) -> bool {
        self.inputs.servers().next().is_none() && self.inputs.gateways().next().is_none()
    }

    /// True when both would serve and run the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        // Snapshots name the content of Secrets and workloads.
        (&self.compiled.snapshots, &self.compiled.workloads)
            == (&other.compiled.snapshots, &other.compiled.workloads)
    }

    /// The implied gateway is in force and lets everyone in, since there is no key either.
    pub(crate) fn is_open(&self) -> bool {
        let implied = GatewayId::new(IMPLIED_GATEWAY.0, IMPLIED_GATEWAY.1);
        let snapshot =
            self.compiled.snapshots.get(&implied).filter(|_| self.inputs.gateways().next().is_none());
        let mut gateways = snapshot.into_iter().flat_map(|snapshot| snapshot.of_kind(ResourceKind::Gateway));
        // What cannot be told is taken for open.
        gateways.any(|resource| {
            resource.decode::<Gateway>().map_or(true, |one| one.anonymous == Anonymous::Allow)
        })
    }

    /// The only gateway, or the one that is named.
    pub(crate) fn gateway(&self, named: Option<&GatewayId>) -> Result<GatewayId, Failure> {
        let all = || self.compiled.snapshots.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let mut gateways = self.compiled.snapshots.keys();
        match (named, gateways.next(), gateways.next()) {
            (Some(named), ..) if self.compiled.snapshots.contains_key(named) => Ok(named.clone()),
            (Some(named), ..) => {
                Err(Failure::failed(format!("there is no gateway {named}; there are: {}", all())))
            }
            (None, Some(only), None) => Ok(only.clone()),
            (None, None, _) => Err(Failure::failed("the objects make no gateway: see `mcpmesh check`")),
            (None, ..) => {
                Err(Failure::usage(format!("several gateways: choose one with --gateway: {}", all())))
            }
        }
    }
}

/// Where `up` serves unless told otherwise.
const OWN_PORT: u16 = 8080;

/// What `up` would serve of these paths: YAML where there is some, else a client's configuration, else nothing. `own`
/// is the port of our own endpoint.
pub(crate) fn pick(paths: &[PathBuf], own: u16) -> anyhow::Result<Option<Source>> {
    if let [only] = paths
        && let Some(file) = as_client_configuration(only)
    {
        return Ok(Some(Source::Client { file, own }));
    }
    if !files(paths)?.is_empty() {
        return Ok(Some(Source::Manifests(paths.to_vec())));
    }
    let client = paths.iter().find_map(|path| client_configuration(path));
    Ok(client.map(|file| Source::Client { file, own }))
}

/// As [`pick`], for a command that serves nothing itself.
pub(crate) fn find(paths: &[PathBuf]) -> anyhow::Result<Source> {
    pick(paths, OWN_PORT)?.ok_or_else(|| {
        let shown: Vec<String> = paths.iter().map(|path| display(path)).collect();
        let below = paths.iter().flat_map(|path| folders_with_manifests(path)).map(|path| display(&path));
        let below: Vec<String> = below.collect();
        let advice = match below.as_slice() {
            [] => String::new(),
            below => format!(
                "; there is some in {}: name it, since folders in folders are not read",
                below.join(", ")
            ),
        };
        let known = import::KNOWN.join(", ");
        anyhow::anyhow!(
            "no objects found: there is no YAML in {}, nor any of {known}{advice}",
            shown.join(", ")
        )
    })
}

/// Reads and compiles what is meant for a cluster, as its operator would. Fails only where a path cannot be read.
pub(crate) fn load_for_cluster(
    paths: &[PathBuf],
    operator_namespace: &str,
    remote_ranges: &[IpNet],
) -> anyhow::Result<Loaded> {
    let mut loaded = Reading::default();
    texts(paths)?.iter().for_each(|(file, bytes)| loaded.add(file, bytes));
    loaded.note_folders(paths);
    Ok(loaded.compile_for_cluster(operator_namespace, remote_ranges))
}

fn texts(paths: &[PathBuf]) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut texts = Vec::new();
    for file in files(paths)? {
        let text = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        texts.push((display(&file), text));
    }
    Ok(texts)
}

/// Reads and compiles. Fails only where a path cannot be read.
pub(crate) fn load(source: &Source, version_key: [u8; 32]) -> anyhow::Result<Loaded> {
    let mut loaded = Reading::default();
    match source {
        Source::Manifests(paths) => {
            texts(paths)?.iter().for_each(|(file, bytes)| loaded.add(file, bytes));
            loaded.note_folders(paths);
        }
        Source::Client { file, own } => {
            let mut imported = import::read(file, "default", SecretsTo::File)?;
            imported.servers.retain(|server| !leads_to(server, *own));
            loaded.add(&display(file), import::documents(&imported)?.as_bytes());
            loaded.forget_lines();
            loaded.diagnostics.extend(imported.notes.iter().map(|note| said_of_client(file, note)));
        }
    }
    Ok(loaded.compile(version_key))
}

#[derive(Default)]
struct Reading {
    objects: Vec<Located>,
    diagnostics: Vec<Diagnostic>,
}

impl Reading {
    fn add(&mut self, file: &str, bytes: &[u8]) {
        match std::str::from_utf8(bytes) {
            Ok(text) => {
                let parsed = manifest::parse(file, text.trim_start_matches('\u{feff}'));
                self.objects.extend(parsed.objects);
                self.diagnostics.extend(parsed.diagnostics);
            }
            Err(_) => self.diagnostics.push(Diagnostic {
                object: None,
                path: String::new(),
                severity: Severity::Error,
                reason: Reason::InvalidSyntax,
                message: "the file is not UTF-8".to_owned(),
                help: Some("save it as UTF-8".to_owned()),
                location: Some(Location { file: file.to_owned(), line: 0, column: 0 }),
            }),
        }
    }

    /// Lines of the YAML that a client's configuration became are no lines of its file.
    fn forget_lines(&mut self) {
        for location in self.diagnostics.iter_mut().filter_map(|diagnostic| diagnostic.location.as_mut()) {
            (location.line, location.column) = (0, 0);
        }
        self.objects.iter_mut().for_each(Located::forget_places);
    }

    /// YAML that somebody may take for read.
    fn note_folders(&mut self, paths: &[PathBuf]) {
        let below = paths.iter().flat_map(|path| folders_with_manifests(path));
        let named = |folder: &PathBuf| {
            paths.iter().any(|path| path.canonicalize().ok() == folder.canonicalize().ok())
        };
        for folder in below.filter(|folder| !named(folder)) {
            self.diagnostics.push(Diagnostic {
                object: None,
                path: String::new(),
                severity: Severity::Note,
                reason: Reason::IgnoredKind,
                message: "folders in folders are not read".to_owned(),
                help: Some("name it as well to have its YAML read".to_owned()),
                location: Some(Location { file: display(&folder), line: 0, column: 0 }),
            });
        }
    }

    fn compile(mut self, version_key: [u8; 32]) -> Loaded {
        let unreadable = self.diagnostics.iter().any(hides_a_rule);
        let unread_secret = self.diagnostics.iter().any(hides_a_key);
        environment::resolve(&mut self.objects, &mut self.diagnostics, |name| std::env::var(name).ok());
        // A gateway that could not be read is not the absence of one: nothing is opened in its place.
        let install = Install {
            implied_gateway: !unreadable,
            unread_secret,
            remotes: EgressRule::private(),
            version_key,
            cluster: None,
        };
        let (mut inputs, mut gathered) = manifest::gather(&self.objects, install);
        inputs.install.unread_secret |= gathered.iter().any(hides_a_key);
        if inputs.install.unread_secret && inputs.has_implied_gateway() {
            gathered.push(closed());
        }
        self.finish(inputs, gathered, unreadable)
    }

    /// `${env:NAME}` is a text as any other there.
    fn compile_for_cluster(self, operator_namespace: &str, remote_ranges: &[IpNet]) -> Loaded {
        let unreadable = self.diagnostics.iter().any(hides_a_rule);
        let install = Install {
            remotes: EgressRule::new(remote_ranges, []),
            cluster: Some(cluster::installation(operator_namespace)),
            ..Install::default()
        };
        let (mut inputs, mut gathered) = manifest::gather(&self.objects, install);
        gathered.extend(cluster::assume(&mut inputs));
        self.finish(inputs, gathered, unreadable)
    }

    fn finish(self, inputs: Inputs, mut gathered: Vec<Diagnostic>, unreadable: bool) -> Loaded {
        manifest::locate(&self.objects, &mut gathered);
        // Of two policies of one name only the first is read, and the second may be the stricter one.
        let unreadable = unreadable || gathered.iter().any(hides_a_rule);
        let mut compiled = compile(&inputs);
        manifest::locate(&self.objects, &mut compiled.diagnostics);
        let mut diagnostics = self.diagnostics;
        diagnostics.extend(gathered);
        // What was not read may be what another object misses.
        let sure = |found: &&Diagnostic| !unreadable || found.severity == Severity::Error;
        diagnostics.extend(compiled.diagnostics.iter().filter(sure).cloned());
        diagnostics.sort_by(|a, b| (a.severity, &a.location).cmp(&(b.severity, &b.location)));
        Loaded { objects: self.objects, inputs, compiled, diagnostics, unreadable }
    }
}

/// What cannot be read may have been a policy or a gateway, whose absence would open something.
fn hides_a_rule(diagnostic: &Diagnostic) -> bool {
    let harmless = diagnostic.object.as_ref().is_some_and(|object| match object.kind {
        ObjectKind::McpServer | ObjectKind::Secret | ObjectKind::ConfigMap | ObjectKind::Namespace => true,
        ObjectKind::McpGateway | ObjectKind::McpPolicy => false,
    });
    diagnostic.severity == Severity::Error && !harmless
}

/// What the translation of a client's server has to say.
fn said_of_client(file: &Path, note: &import::Note) -> Diagnostic {
    Diagnostic {
        object: Some(ObjectRef::new(ObjectKind::McpServer, "default", &note.server)),
        path: String::new(),
        severity: if note.error { Severity::Error } else { Severity::Note },
        reason: Reason::InvalidValue,
        message: note.message.clone(),
        help: None,
        location: Some(Location { file: display(file), line: 0, column: 0 }),
    }
}

/// A Secret that cannot be read may have been the API key that closes the implied gateway.
fn hides_a_key(diagnostic: &Diagnostic) -> bool {
    let secret = diagnostic.object.as_ref().is_some_and(|object| object.kind == ObjectKind::Secret);
    diagnostic.severity == Severity::Error && secret
}

fn closed() -> Diagnostic {
    Diagnostic {
        object: None,
        path: String::new(),
        severity: Severity::Warning,
        reason: Reason::InvalidApiKey,
        message: "a Secret cannot be read and may be an API key: callers without a key are refused"
            .to_owned(),
        help: Some("mend that Secret".to_owned()),
        location: None,
    }
}

/// The files that `paths` mean, in order of their names: a folder means its own YAML, not that of folders in it.
fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = BTreeSet::new();
    for path in paths {
        let about = || format!("cannot read {}", display(path));
        if !std::fs::metadata(path).with_context(about)?.is_dir() {
            files.insert(path.clone());
            continue;
        }
        for entry in std::fs::read_dir(path).with_context(about)? {
            let file = entry.with_context(about)?.path();
            if names_manifest(&file) && file.is_file() {
                files.insert(file);
            }
        }
    }
    // A file that is named twice is one file.
    let mut seen = BTreeSet::new();
    Ok(files.into_iter().filter(|file| file.canonicalize().map_or(true, |file| seen.insert(file))).collect())
}

/// The folders in a folder that hold YAML.
fn folders_with_manifests(folder: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let hidden = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let below = entries(folder).map(|entry| entry.path()).filter(|path| !hidden(path) && path.is_dir());
    let mut found: Vec<PathBuf> =
        below.filter(|path| entries(path).any(|entry| names_manifest(&entry.path()))).collect();
    found.sort();
    found
}

/// A file of a folder that may hold objects, by its name. JSON in a folder mostly is something else, so that it has to
/// be named.
pub(crate) fn names_manifest(file: &Path) -> bool {
    let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let yaml = file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    !hidden && yaml
}

/// The file as the user would write it.
fn display(file: &Path) -> String {
    let here = std::env::current_dir().ok();
    let inside = here.and_then(|here| file.strip_prefix(here).ok()).unwrap_or(file);
    let shown = inside.strip_prefix("./").unwrap_or(inside);
    if shown.as_os_str().is_empty() { ".".to_owned() } else { shown.display().to_string() }
}

/// A path that was given in the folder `home`, without dots that mean the folder itself.
pub(crate) fn whole(home: &Path, path: &Path) -> PathBuf {
    home.join(path).components().collect()
}

/// The path as a client's configuration, when it is one.
fn as_client_configuration(path: &Path) -> Option<PathBuf> {
    let json = path.extension().is_some_and(|extension| extension == "json") && path.is_file();
    let imported = json.then(|| import::read(path, "default", SecretsTo::File).ok()).flatten();
    imported.map(|_| path.to_owned())
}

/// True for a server at this port of this machine: serving ourselves would have no end.
fn leads_to(server: &serde_json::Value, port: u16) -> bool {
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

/// The client's configuration that a folder without YAML has.
fn client_configuration(folder: &Path) -> Option<PathBuf> {
    import::KNOWN.iter().map(|name| folder.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests;
