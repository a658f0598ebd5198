//! Files and folders to compiled objects: read, parse, resolve `${env:NAME}`, gather, compile, locate.

mod cluster;
mod environment;
mod files;
mod last_good;
mod pick;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use mcpmesh_compiler::manifest::{self, Located, Unread};
use mcpmesh_compiler::{
    Compiled, Diagnostic, IMPLIED_GATEWAY, Inputs, Install, Location, ObjectKind, ObjectRef, Reason,
    Severity, compile,
};
use mcpmesh_ir::gateway::Anonymous;
use mcpmesh_ir::{EgressRule, Gateway, GatewayId, ResourceKind};

use crate::args::SecretsTo;
use crate::exit::Failure;
use crate::import;

pub(crate) use files::{display, names_manifest, whole};
pub(crate) use pick::{clients_own, find, is_ourselves, pick};

use files::{files, folders_with_manifests};
use last_good::Gaps;
use last_good::skipped::Skipped;

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
        /// Where it was looked for: there was no YAML of ours.
        beside: Vec<PathBuf>,
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
    /// Something cannot be read of which nothing is known: what it may close is closed, or there is no start at all.
    pub(crate) unreadable: bool,
    gaps: Gaps,
    skipped: Skipped,
    paths: Paths,
}

/// The path of each file, by how it is shown.
type Paths = BTreeMap<String, PathBuf>;

impl Loaded {
    /// A client's configuration has no fields of an McpServer.
    fn in_words_of(mut self, source: &Source) -> Self {
        if let Source::Client { .. } = source {
            let unpinned = |found: &&mut Diagnostic| found.reason == Reason::UnpinnedPackage;
            for found in self.diagnostics.iter_mut().filter(unpinned) {
                found.path.clear();
                found.help = Some("write NAME@VERSION or NAME==VERSION in its args".to_owned());
            }
        }
        self
    }

    /// True when there is an error among the diagnostics.
    pub(crate) fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// What stays as it was read last, since it cannot be read now: a sentence for each object.
    pub(crate) fn held(&self) -> impl Iterator<Item = String> {
        self.gaps.held()
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

    /// Lets nobody in through the implied gateway.
    pub(crate) fn shut(&mut self) {
        self.inputs.install.unread_secret = true;
        self.compiled = compile(&self.inputs);
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

/// Reads and compiles what is meant for a cluster, as its operator would. Fails only where a path cannot be read.
pub(crate) fn load_for_cluster(
    paths: &[PathBuf],
    operator_namespace: &str,
    remote_ranges: &[IpNet],
) -> anyhow::Result<Loaded> {
    let mut loaded = Reading::default();
    loaded.add_all(&files(paths)?);
    loaded.note_folders(paths);
    Ok(loaded.compile_for_cluster(operator_namespace, remote_ranges))
}

/// Reads and compiles. Fails where a path is not there.
pub(crate) fn load(source: &Source, version_key: [u8; 32]) -> anyhow::Result<Loaded> {
    if let Source::Manifests(paths) = source {
        // At the start a path that is not there is a mistake, and no file of what is in force.
        files(paths)?;
    }
    Ok(read(source)?.compile(version_key, None).in_words_of(source))
}

/// As [`load`], after a change: what cannot be read stays as it is in `last`, the reading that is in force.
pub(crate) fn reload(source: &Source, version_key: [u8; 32], last: &Loaded) -> anyhow::Result<Loaded> {
    Ok(read(source)?.compile(version_key, Some(last)).in_words_of(source))
}

fn read(source: &Source) -> anyhow::Result<Reading> {
    let mut reading = Reading::default();
    match source {
        Source::Manifests(paths) => {
            let (files, missing) = files::files_and_missing(paths);
            reading.add_all(&files);
            for (path, error) in missing {
                reading.add(&path, Err(error));
            }
            reading.note_folders(paths);
        }
        Source::Client { file, own, beside } => {
            let mut imported = import::read(file, "default", SecretsTo::File)?;
            imported.servers.retain(|server| !pick::leads_to(server, *own));
            reading.add(file, Ok(import::documents(&imported)?.into_bytes()));
            // We wrote that text: without a server in the configuration it is empty, and whole.
            reading.skipped = Skipped::default();
            reading.stand_at(&imported.places);
            reading.diagnostics.extend(imported.notes.iter().map(|note| said_of_client(file, note)));
            let (yaml, _) = files::files_and_missing(beside);
            reading.diagnostics.extend(yaml.iter().map(|yaml| left_aside(yaml, file)));
        }
    }
    Ok(reading)
}

/// The text of a file, or why there is none.
fn text_of(read: io::Result<Vec<u8>>) -> Result<String, (String, &'static str)> {
    let bytes = read.map_err(|error| (format!("it cannot be read: {error}"), "make it readable"))?;
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| ("the file is not UTF-8".to_owned(), "save it as UTF-8"))?;
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

#[derive(Default)]
struct Reading {
    objects: Vec<Located>,
    diagnostics: Vec<Diagnostic>,
    unread: Vec<Unread>,
    skipped: Skipped,
    paths: Paths,
}

impl Reading {
    fn add_all(&mut self, files: &[PathBuf]) {
        files.iter().for_each(|file| self.add(file, std::fs::read(file)));
    }

    fn add(&mut self, path: &Path, read: io::Result<Vec<u8>>) {
        let file = display(path);
        self.paths.insert(file.clone(), path.to_owned());
        match text_of(read) {
            Ok(text) => {
                let parsed = manifest::parse(&file, &text);
                self.skipped.note(&file, &text, &parsed.diagnostics);
                self.objects.extend(parsed.objects);
                self.diagnostics.extend(parsed.diagnostics);
                self.unread.extend(parsed.unread);
            }
            Err((message, help)) => {
                let location = Location { file, line: 0, column: 0 };
                self.unread.push(Unread::text(location.clone()));
                self.diagnostics.push(Diagnostic {
                    object: None,
                    path: String::new(),
                    severity: Severity::Error,
                    reason: Reason::InvalidSyntax,
                    message,
                    help: Some(help.to_owned()),
                    location: Some(location),
                });
            }
        }
    }

    /// Lines of the YAML that a client's configuration became are no lines of its file: the entries have some there.
    fn stand_at(&mut self, places: &BTreeMap<String, (u64, u64)>) {
        let place = |object: &ObjectRef| {
            let name = object.name.strip_suffix(import::SECRETS).unwrap_or(&object.name);
            places.get(&object.name).or_else(|| places.get(name)).copied().unwrap_or_default()
        };
        for diagnostic in &mut self.diagnostics {
            let place = diagnostic.object.as_ref().map(place).unwrap_or_default();
            let location = diagnostic.location.iter_mut();
            location.for_each(|location| (location.line, location.column) = place);
        }
        for object in &mut self.objects {
            object.stand_at(place(&object.reference));
        }
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

    fn compile(mut self, version_key: [u8; 32], last: Option<&Loaded>) -> Loaded {
        environment::resolve(&mut self.objects, &mut self.diagnostics, |name| std::env::var(name).ok());
        let gaps = self.fill_gaps(last);
        // A gateway that could not be read is not the absence of one: nothing is opened in its place.
        let install = Install {
            implied_gateway: !gaps.gateway,
            unread_secret: gaps.secret,
            remotes: EgressRule::private(),
            version_key,
            ..Install::default()
        };
        let (mut inputs, mut gathered) = manifest::gather(&self.objects, install);
        inputs.install.unread_secret |= gathered.iter().any(hides_a_key);
        if inputs.install.unread_secret && inputs.has_implied_gateway() {
            gathered.push(closed());
        }
        gaps.close(&mut inputs);
        self.finish(inputs, gathered, gaps)
    }

    /// `${env:NAME}` is a text as any other there.
    fn compile_for_cluster(mut self, operator_namespace: &str, remote_ranges: &[IpNet]) -> Loaded {
        let gaps = self.fill_gaps(None);
        let install = Install {
            remotes: EgressRule::new(remote_ranges, []),
            cluster: Some(cluster::installation(operator_namespace)),
            ..Install::default()
        };
        let (mut inputs, mut gathered) = manifest::gather(&self.objects, install);
        gathered.extend(cluster::assume(&mut inputs));
        self.finish(inputs, gathered, gaps)
    }

    /// Of two policies of one name neither can be taken for what is meant: the second may be the stricter one.
    fn fill_gaps(&mut self, last: Option<&Loaded>) -> Gaps {
        let doubled = last_good::doubled(&self.objects);
        self.unread.extend(doubled.iter().map(|(unread, _)| unread.clone()));
        match last {
            Some(last) => {
                // Gathering finds them no more.
                self.diagnostics.extend(doubled.into_iter().map(|(_, diagnostic)| diagnostic));
                let known = (last, &self.paths);
                let missed = |file: &str| last_good::missed(file, &self.objects, &self.unread, known);
                let (unread, said) = self.skipped.doubts(&last.skipped, missed);
                self.unread.extend(unread);
                self.diagnostics.extend(said);
                let gaps = Gaps::fill(&mut self.objects, &self.unread, (last, &self.paths));
                // Those of objects that stay as they were.
                last.paths.iter().for_each(|(file, path)| {
                    self.paths.entry(file.clone()).or_insert_with(|| path.clone());
                });
                gaps
            }
            None => Gaps::unknown(&self.unread),
        }
    }

    fn finish(mut self, inputs: Inputs, mut gathered: Vec<Diagnostic>, gaps: Gaps) -> Loaded {
        manifest::locate(&self.objects, &mut gathered);
        let mut compiled = compile(&inputs);
        gaps.locate(&mut compiled.diagnostics);
        manifest::locate(&self.objects, &mut compiled.diagnostics);
        let mut diagnostics = std::mem::take(&mut self.diagnostics);
        diagnostics.extend(gathered);
        let unreadable = gaps.are_unknown();
        // What was not read may be what another object misses.
        let sure = |found: &&Diagnostic| !unreadable || found.severity == Severity::Error;
        diagnostics.extend(compiled.diagnostics.iter().filter(sure).cloned());
        point_to_secrets(&mut diagnostics);
        diagnostics.sort_by(|a, b| (a.severity, &a.location).cmp(&(b.severity, &b.location)));
        let Self { objects, skipped, paths, .. } = self;
        Loaded { objects, inputs, compiled, diagnostics, unreadable, gaps, skipped, paths }
    }
}

/// What an object misses of a Secret that is there and wrong is mended with that Secret.
fn point_to_secrets(diagnostics: &mut [Diagnostic]) {
    let wrong = |found: &&Diagnostic| found.severity == Severity::Error;
    let wrong: Vec<(String, String, String)> = diagnostics
        .iter()
        .filter(wrong)
        .filter_map(|found| {
            let secret = found.object.as_ref().filter(|object| object.kind == ObjectKind::Secret)?;
            let key = found.path.split_once('.').map_or("", |(_, key)| key);
            Some((secret.to_string(), key.to_owned(), found.location.as_ref()?.to_string()))
        })
        .collect();
    let missed = |found: &&mut Diagnostic| found.reason == Reason::SecretNotFound;
    for found in diagnostics.iter_mut().filter(missed) {
        let cause = wrong.iter().find(|(secret, key, _)| {
            found.message == format!("no {secret}") || found.message == format!("{secret} has no key {key:?}")
        });
        if let Some((secret, _, at)) = cause {
            found.message = format!("{secret} cannot be used as it is");
            found.help = Some(format!("mend {at}"));
        }
    }
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
        location: Some(Location { file: display(file), line: note.place.0, column: note.place.1 }),
    }
}

/// YAML beside a client's configuration.
fn left_aside(yaml: &Path, client: &Path) -> Diagnostic {
    let nothing = "left aside: no McpServer, McpGateway, McpPolicy or Secret is in it".to_owned();
    let (severity, message, help) = if pick::configures(yaml) {
        let client = display(client);
        let message = format!(
            "not in force: a start takes the YAML in place of {client}, and there was none at this one"
        );
        let help = format!(
            "start again, with the servers too: `mcpmesh import {client} --out DIR` makes YAML of them"
        );
        (Severity::Warning, message, Some(help))
    } else {
        (Severity::Note, nothing, None)
    };
    Diagnostic {
        object: None,
        path: String::new(),
        severity,
        reason: Reason::IgnoredKind,
        message,
        help,
        location: Some(Location { file: display(yaml), line: 0, column: 0 }),
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
        message: "what cannot be read may be an API key or an McpGateway: callers without a key are refused"
            .to_owned(),
        help: Some("mend it".to_owned()),
        location: None,
    }
}

#[cfg(test)]
mod tests;
