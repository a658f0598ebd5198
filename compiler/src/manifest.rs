//! Text to objects: multi-document YAML and JSON, with the line and column of every field.

mod decode;
mod node;
mod wording;

use std::collections::BTreeMap;
use std::sync::Arc;

use mcpmesh_crds::{McpGateway, McpPolicy, McpServer, TargetRef};
use mcpmesh_ir::{GatewayId, PolicyId, SecretId, ServerId};
use serde_json::Value;
use serde_saphyr::{MessageFormatter, Spanned, UserMessageFormatter};

use crate::diagnostic::{Diagnostic, Location, ObjectKind, ObjectRef, Reason, Severity, printable};
use crate::inputs::{ConfigMap, Inputs, Install, Secret};
use node::Node;

pub(crate) use decode::is_name;
pub(crate) use node::{Document, Place};
pub use wording::plain_words;

/// What a text holds.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// Every object that could be read.
    pub objects: Vec<Located>,
    /// What could not be read, and notes on what was skipped.
    pub diagnostics: Vec<Diagnostic>,
    /// What may have been an object and could not be read as one.
    pub unread: Vec<Unread>,
}

/// A document that is no valid object, or a text that is no YAML.
#[derive(Debug, Clone, PartialEq)]
pub struct Unread {
    /// Its kind; none when it does not say so.
    pub kind: Option<ObjectKind>,
    /// Which object it is; none when it does not say so, or when what is wrong may be its name or namespace.
    pub reference: Option<ObjectRef>,
    /// Of an McpPolicy: what it may close, which is all of its namespace where that cannot be read. Empty for anything
    /// else, and for one that only watches.
    pub targets: Vec<TargetRef>,
    /// Where it is wrong.
    pub location: Location,
}

impl Unread {
    /// A text that cannot be read at all.
    #[must_use]
    pub fn text(location: Location) -> Self {
        Self { kind: None, reference: None, targets: Vec::new(), location }
    }

    /// Whether it may be an object of this kind.
    #[must_use]
    pub fn may_be(&self, kind: ObjectKind) -> bool {
        self.kind.is_none_or(|known| known == kind)
    }
}

/// An object, and where each of its fields stands.
#[derive(Debug, Clone)]
pub struct Located {
    /// Its kind, namespace (`default` where it names none) and name.
    pub reference: ObjectRef,
    /// The object.
    pub object: Object,
    file: Arc<str>,
    places: BTreeMap<String, Place>,
}

/// An object of a kind that a compile reads.
#[derive(Debug, Clone)]
pub enum Object {
    /// An McpServer.
    Server(Box<McpServer>),
    /// An McpGateway.
    Gateway(Box<McpGateway>),
    /// An McpPolicy.
    Policy(Box<McpPolicy>),
    /// A core/v1 Secret.
    Secret(Secret),
    /// A core/v1 ConfigMap.
    ConfigMap(ConfigMap),
    /// A core/v1 Namespace: its labels.
    Namespace(BTreeMap<String, String>),
}

impl Located {
    /// Stands as a whole at one place: the text that was read is not the one that the user sees. (0, 0) is the file.
    pub fn stand_at(&mut self, place: (u64, u64)) {
        self.places = BTreeMap::from([(String::new(), place)]);
    }

    /// The file that it stands in, as the caller named it.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Where a path such as `spec.access[0].to.tools[1]` stands: at its value, or at what is there of it.
    #[must_use]
    pub fn location(&self, path: &str) -> Location {
        let (line, column) = nearest(&self.places, path);
        Location { file: self.file.to_string(), line, column }
    }
}

/// Reads one file's text. A document that is no valid object is a diagnostic, and the others are read all the same; a
/// text that is neither YAML nor JSON is one diagnostic. No diagnostic shows a Secret's value.
#[must_use]
pub fn parse(file: &str, text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    match serde_saphyr::from_multiple_with_options::<Spanned<Node>>(text, options()) {
        Ok(documents) => {
            let file: Arc<str> = file.into();
            for document in documents {
                parsed.add(&file, Document::new(document));
            }
        }
        Err(error) => parsed.fail(syntax(file, &error), None),
    }
    parsed
}

/// Bounds what hostile or broken text can cost: a folder's files are small.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        budget: serde_saphyr::budget! { max_depth: 48, max_nodes: 200_000, max_events: 1_000_000 },
    }
}

/// The documents of a text, of whatever kind, to be written again. A number such as `0644` is octal, as kubectl takes it.
pub(crate) fn documents(file: &str, text: &str) -> Result<Vec<Document>, Diagnostic> {
    let mut options = options();
    options.legacy_octal_numbers = true;
    let documents = serde_saphyr::from_multiple_with_options::<Spanned<Node>>(text, options);
    let documents = documents.map_err(|error| syntax(file, &error))?;
    Ok(documents.into_iter().map(Document::new).collect())
}

fn syntax(file: &str, error: &serde_saphyr::Error) -> Diagnostic {
    let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
    let message = UserMessageFormatter.format_message(error.without_snippet()).into_owned();
    // What was counted is said in the words of the parser's code.
    let bounded = message.split_once(": limits breached").map(|(message, _)| message.to_owned());
    let help = bounded.is_some().then(|| "split it into several files".to_owned());
    Diagnostic {
        object: None,
        path: String::new(),
        severity: Severity::Error,
        reason: Reason::InvalidSyntax,
        message: printable(bounded.unwrap_or(message)),
        help,
        location: Some(Location { file: file.to_owned(), line, column }),
    }
}

impl Parsed {
    /// Keeps what is wrong with a text, or with the document that is given.
    fn fail(&mut self, diagnostic: Diagnostic, document: Option<&Value>) {
        if let Some(location) = diagnostic.location.clone().filter(|_| diagnostic.severity == Severity::Error)
        {
            let reference = document.and_then(decode::certain);
            let policy = reference.as_ref().filter(|reference| reference.kind == ObjectKind::McpPolicy);
            let targets =
                policy.zip(document).map(|(policy, value)| decode::targets(value, &policy.namespace));
            let kind = document.and_then(|value| decode::kind(value).ok());
            self.unread.push(Unread { kind, reference, targets: targets.unwrap_or_default(), location });
        }
        self.diagnostics.push(diagnostic);
    }

    fn add(&mut self, file: &Arc<str>, document: Document) {
        match decode::items_of(&document.value) {
            Some((api, kind)) => self.unfold(file, document, (&api, &kind)),
            None => self.object(file, document),
        }
    }

    /// A list, as `kubectl get -o yaml` prints it, is the objects in it.
    fn unfold(&mut self, file: &Arc<str>, document: Document, (api, kind): (&str, &str)) {
        let (line, column) = nearest(&document.places, "items");
        let Some(items) = document.items() else {
            let diagnostic = Diagnostic {
                object: None,
                path: "items".to_owned(),
                severity: Severity::Error,
                reason: Reason::InvalidField,
                message: "the list has no items".to_owned(),
                help: Some("write `items: []` for a list of nothing".to_owned()),
                location: Some(Location { file: file.to_string(), line, column }),
            };
            return self.fail(diagnostic, None);
        };
        for mut item in items {
            if let Some(object) = item.value.as_object_mut().filter(|_| !kind.is_empty()) {
                object.entry("apiVersion").or_insert_with(|| api.into());
                object.entry("kind").or_insert_with(|| kind.into());
            }
            self.object(file, item);
        }
    }

    fn object(&mut self, file: &Arc<str>, document: Document) {
        let Document { value, places, keys } = document;
        if value.is_null() {
            return;
        }
        let reference = decode::reference(&value);
        match (decode::object(value.clone()), reference) {
            (Ok(object), Some(reference)) => {
                self.objects.push(Located { reference, object, file: file.clone(), places });
            }
            (Ok(_), None) => {}
            (Err(mistake), object) => {
                let key = keys.get(&mistake.path).filter(|_| mistake.at_key).copied();
                let (line, column) = key.unwrap_or_else(|| nearest(&places, &mistake.path));
                let diagnostic = Diagnostic {
                    object,
                    path: printable(mistake.path),
                    severity: mistake.severity,
                    reason: mistake.reason,
                    message: printable(mistake.message),
                    help: mistake.help.map(printable),
                    location: Some(Location { file: file.to_string(), line, column }),
                };
                self.fail(diagnostic, Some(&value));
            }
        }
    }
}

/// The place of a path, else of the nearest thing around it that is there.
pub(crate) fn nearest(places: &BTreeMap<String, Place>, mut path: &str) -> Place {
    loop {
        if let Some(&place) = places.get(path) {
            return place;
        }
        if path.is_empty() {
            return (0, 0);
        }
        path = path.rfind(['.', '[']).and_then(|cut| path.get(..cut)).unwrap_or_default();
    }
}

/// Gathers objects into inputs. An object that is there twice is a diagnostic; the first one stands.
#[must_use]
pub fn gather(objects: &[Located], install: Install) -> (Inputs, Vec<Diagnostic>) {
    let mut inputs = Inputs { install, ..Inputs::default() };
    let mut diagnostics = Vec::new();
    let mut first: BTreeMap<&ObjectRef, &Located> = BTreeMap::new();
    for located in objects {
        let ObjectRef { namespace, name, .. } = &located.reference;
        if let Some(earlier) = first.get(&located.reference) {
            diagnostics.push(duplicate(located, earlier));
            continue;
        }
        first.insert(&located.reference, located);
        match &located.object {
            Object::Server(server) => {
                inputs
                    .of_mut(namespace)
                    .servers
                    .insert(ServerId::new(namespace, name), Arc::new((**server).clone()));
            }
            Object::Gateway(gateway) => {
                inputs
                    .of_mut(namespace)
                    .gateways
                    .insert(GatewayId::new(namespace, name), Arc::new((**gateway).clone()));
            }
            Object::Policy(policy) => {
                inputs
                    .of_mut(namespace)
                    .policies
                    .insert(PolicyId::new(namespace, name), Arc::new((**policy).clone()));
            }
            Object::Secret(secret) => {
                inputs
                    .of_mut(namespace)
                    .secrets
                    .insert(SecretId::new(namespace, name), Arc::new(secret.clone()));
            }
            Object::ConfigMap(map) => {
                inputs.of_mut(namespace).config_maps.insert(name.clone(), Arc::new(map.clone()));
            }
            Object::Namespace(labels) => {
                Arc::make_mut(&mut inputs.labels).insert(name.clone(), labels.clone());
            }
        }
    }
    (inputs, diagnostics)
}

fn duplicate(located: &Located, earlier: &Located) -> Diagnostic {
    Diagnostic {
        object: Some(located.reference.clone()),
        path: String::new(),
        severity: Severity::Error,
        reason: Reason::DuplicateObject,
        message: format!("this object is already at {}", earlier.location("metadata.name")),
        help: Some("rename one of them, or remove it".to_owned()),
        location: Some(located.location("metadata.name")),
    }
}

/// Fills in where diagnostics of a compile stand in the files.
pub fn locate(objects: &[Located], diagnostics: &mut [Diagnostic]) {
    for diagnostic in diagnostics.iter_mut().filter(|diagnostic| diagnostic.location.is_none()) {
        let object = objects.iter().find(|object| Some(&object.reference) == diagnostic.object.as_ref());
        diagnostic.location = object.map(|object| object.location(&diagnostic.path));
    }
}

#[cfg(test)]
mod tests;
