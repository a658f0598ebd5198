//! From a client's entries to McpServers and Secrets, with a note for whatever could not be kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use super::client_file::{Contents, Entry, Place};
use super::docker_run::Container;
use super::launcher::{self, Source};
use super::secrets::{self, Value};
use crate::args::SecretsTo;
use crate::names;

/// What the name of a server's Secret ends with, after that of the server.
pub(crate) const SECRETS: &str = "-secrets";

const API_VERSION: &str = "mcpmesh.io/v1alpha1";

/// The objects that a client's configuration became.
#[derive(Debug, Default)]
pub(crate) struct Imported {
    /// McpServers.
    pub(crate) servers: Vec<Json>,
    /// Secrets.
    pub(crate) secrets: Vec<Json>,
    /// What the user should know.
    pub(crate) notes: Vec<Note>,
    /// Where the entry stands of which an McpServer of this name and its Secret are made.
    pub(crate) places: BTreeMap<String, Place>,
}

/// Something that the user should know of one server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// The server could not be imported.
    pub(crate) error: bool,
    /// The client's name of the server.
    pub(crate) server: String,
    /// Where its entry stands.
    pub(crate) place: Place,
    /// What is the matter and what to do.
    pub(crate) message: String,
}

impl Note {
    /// Prints it.
    pub(crate) fn say(&self) {
        let (word, color) = if self.error {
            ("error", anstyle::AnsiColor::Red)
        } else {
            ("note", anstyle::AnsiColor::Yellow)
        };
        let style = color.on_default().bold();
        anstream::eprintln!("{style}{word}{style:#}: server {:?}: {}", self.server, self.message);
    }
}

/// Where a configuration is, since its values may refer to that.
pub(super) struct Around {
    namespace: String,
    workspace: PathBuf,
}

impl Around {
    pub(super) fn of(file: &Path, namespace: &str) -> Self {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let folder = file.parent().unwrap_or(Path::new("/"));
        let inside = folder.file_name().is_some_and(|name| name == ".vscode" || name == ".cursor");
        let workspace = if inside { folder.parent().unwrap_or(folder) } else { folder };
        Self { namespace: namespace.to_owned(), workspace: workspace.to_owned() }
    }

    fn expand(&self, text: &str) -> String {
        let home = std::env::var("HOME").unwrap_or_default();
        text.replace("${workspaceFolder}", &self.workspace.to_string_lossy()).replace("${userHome}", &home)
    }
}

pub(super) fn translate(contents: &Contents, place: &Around, secrets: SecretsTo) -> Imported {
    let mut imported = Imported::default();
    let mut taken: Vec<String> = Vec::new();
    let mut variables = BTreeMap::new();
    for entry in &contents.entries {
        let name = names::unique(&entry.name, &taken);
        taken.push(name.clone());
        imported.places.insert(name.clone(), entry.place);
        let mut server =
            Server { entry, name, place, to: secrets, data: BTreeMap::new(), notes: Vec::new(), variables };
        match server.object() {
            Ok(object) => imported.servers.push(object),
            Err(reason) => server.note(true, reason),
        }
        imported.notes.append(&mut server.notes);
        imported.secrets.extend(server.secret());
        variables = server.variables;
    }
    let broken = contents.broken.iter().map(|(name, place, reason)| Note {
        error: true,
        server: name.clone(),
        place: *place,
        message: format!("its entry is none that clients know: {reason}"),
    });
    imported.notes.extend(broken);
    imported
}

/// What some clients know of a server and an McpServer does not, with what to do instead.
const DROPPED: [(&str, &str); 4] = [
    ("envFile", "write its variables into env of the McpServer, secret ones by way of a Secret"),
    ("cwd", "give whole paths in the arguments"),
    ("oauth", "put a token into a Secret, and name it in spec.credentials"),
    ("auth", "put a token into a Secret, and name it in spec.credentials"),
];

struct Server<'a> {
    entry: &'a Entry,
    name: String,
    place: &'a Around,
    to: SecretsTo,
    /// Of the server's Secret.
    data: BTreeMap<String, String>,
    notes: Vec<Note>,
    /// Environment variables that references use so far, with the value that each stands for.
    variables: BTreeMap<String, String>,
}

impl Server<'_> {
    fn object(&mut self) -> Result<Json, String> {
        let mut spec = match (&self.entry.command, &self.entry.url) {
            (Some(command), _) => {
                let args: Vec<String> = self.entry.args.iter().map(|word| self.place.expand(word)).collect();
                let source = launcher::read(command, &args)?;
                self.source(source)?
            }
            (None, Some(url)) => {
                let headers =
                    self.entry.headers.iter().map(|(name, value)| (name.clone(), value.to_string()));
                let headers = headers.collect();
                self.remote(url, headers)?
            }
            (None, None) => return Err("has neither a command nor a url: give it one of them".to_owned()),
        };
        for (field, advice) in DROPPED {
            if self.entry.rest.contains_key(field) {
                self.note(
                    false,
                    format!("its {field} is left out, which an McpServer does not have: {advice}"),
                );
            }
        }
        if self.entry.command.is_some() && self.entry.url.is_some() {
            self.note(false, "has a command and a url: the url is left out".to_owned());
        }
        if self.entry.disabled {
            spec.insert("state".to_owned(), json!("Disabled"));
        }
        if self.entry.name != self.name {
            let message =
                format!("is called {:?}, since names are of a-z, 0-9 and -, at most 32 long", self.name);
            self.note(false, message);
        }
        Ok(json!({
            "apiVersion": API_VERSION,
            "kind": "McpServer",
            "metadata": { "name": self.name, "namespace": self.place.namespace },
            "spec": spec,
        }))
    }

    fn source(&mut self, source: Source) -> Result<Map<String, Json>, String> {
        match source {
            Source::Remote { url, headers } => {
                let headers = headers.into_iter().map(|(name, value)| (name, self.given(&value)));
                let headers = headers.collect();
                self.remote(&url, headers)
            }
            Source::Package { registry, name, version, args } => {
                self.look_at(&args)?;
                let env = self.entry.env.iter();
                let env: Vec<_> = env
                    .map(|(name, value)| (name.clone(), value.as_ref().map(ToString::to_string)))
                    .collect();
                let mut package = Map::from_iter([
                    ("registry".to_owned(), json!(registry)),
                    ("name".to_owned(), json!(name)),
                ]);
                package.extend(version.map(|version| ("version".to_owned(), json!(version))));
                fill(&mut package, "args", args.into_iter().map(Json::from).collect());
                fill(&mut package, "env", self.env(env));
                Ok(Map::from_iter([("package".to_owned(), Json::Object(package))]))
            }
            Source::Container(container) => self.container(container),
        }
    }

    fn container(&mut self, container: Container) -> Result<Map<String, Json>, String> {
        let Container { image, command, args, env } = container;
        self.look_at(&args)?;
        // What `-e NAME` passes on is what the client gives to `docker`, else what our own environment has.
        let env: Vec<_> = env
            .into_iter()
            .map(|(name, value)| {
                let given = || self.entry.env.get(&name)?.as_ref().map(ToString::to_string);
                let value = value.or_else(given);
                (name, value)
            })
            .collect();
        let mut object = Map::from_iter([("image".to_owned(), json!(image))]);
        fill(&mut object, "command", command.into_iter().map(Json::from).collect());
        fill(&mut object, "args", args.into_iter().map(Json::from).collect());
        fill(&mut object, "env", self.env(env));
        Ok(Map::from_iter([("container".to_owned(), Json::Object(object))]))
    }

    /// A text with the values that the client's `env` gives to the variables in it.
    fn given(&self, text: &str) -> String {
        let values = self.entry.env.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        values.fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("${{{name}}}"), &value.to_string())
        })
    }

    /// A URL stands in the object as it is.
    fn look_at_url(&mut self, url: &str) {
        let Ok(url) = url::Url::parse(url) else { return };
        let mut query = url.query_pairs();
        let secret =
            query.find(|(name, value)| secrets::is_secret(name, value)).map(|(name, _)| name.into_owned());
        if let Some(name) = secret {
            let message = format!(
                "{name:?} in the query of its URL looks like a secret and stands in the YAML: keep that private, or \
                 send it as a header if the server takes one"
            );
            self.note(false, message);
        }
        if url.password().is_some() {
            self.note(false, "the password in its URL stands in the YAML: send it as a header".to_owned());
        }
    }

    fn remote(&mut self, url: &str, headers: Vec<(String, String)>) -> Result<Map<String, Json>, String> {
        if url.contains("${") {
            return Err(format!(
                "its url {url:?} holds a reference, which only env and headers can hold: write its value there"
            ));
        }
        let transport = match self.entry.transport.as_deref() {
            Some("sse") => "Sse",
            Some("http" | "streamable-http" | "streamableHttp" | "streamable_http") => "StreamableHttp",
            _ => "Auto",
        };
        self.look_at_url(url);
        let remote = json!({ "url": url, "transport": transport });
        let mut spec = Map::from_iter([("remote".to_owned(), remote)]);
        let headers: Vec<Json> =
            headers.into_iter().map(|(name, value)| self.header(&name, &value)).collect();
        if !headers.is_empty() {
            spec.insert("credentials".to_owned(), json!({ "headers": headers }));
        }
        Ok(spec)
    }

    /// Values of headers come from Secrets only, so each is one.
    fn header(&mut self, name: &str, value: &str) -> Json {
        let (scheme, value) = match value.split_once(' ') {
            Some((scheme, value))
                if ["bearer", "basic", "token"].contains(&scheme.to_ascii_lowercase().as_str()) =>
            {
                (Some(format!("{scheme} ")), value)
            }
            _ => (None, value),
        };
        self.look_at_defaults(value);
        let key = name.to_ascii_lowercase();
        let variable = format!("{}_{}", secrets::shout(&self.name), secrets::shout(name));
        match secrets::judge(name, value) {
            Value::Reference(reference) => self.keep(&key, &variable, Value::Reference(reference)),
            Value::Plain(value) | Value::Secret(value) => self.keep(&key, &variable, Value::Secret(value)),
        }
        let mut header = Map::from_iter([("name".to_owned(), json!(name))]);
        header.extend(scheme.map(|scheme| ("prefix".to_owned(), json!(scheme))));
        header.insert("secretKeyRef".to_owned(), json!({ "name": self.secret_name(), "key": key }));
        Json::Object(header)
    }

    fn env(&mut self, env: Vec<(String, Option<String>)>) -> Vec<Json> {
        let mut entries = Vec::new();
        for (name, value) in env {
            self.look_at_defaults(value.as_deref().unwrap_or_default());
            let value = match value {
                Some(value) => secrets::judge(&name, &self.place.expand(&value)),
                None => Value::Reference(format!("${{env:{name}}}")),
            };
            if let Value::Plain(value) = value {
                entries.push(json!({ "name": name, "value": value }));
                continue;
            }
            self.keep(&name, &name, value);
            let reference = json!({ "name": self.secret_name(), "key": name });
            entries.push(json!({ "name": name, "valueFrom": { "secretKeyRef": reference } }));
        }
        entries
    }

    /// Puts a value into the server's Secret: itself, or a reference to an environment variable.
    fn keep(&mut self, key: &str, variable: &str, value: Value) {
        let stored = match (value, self.to) {
            (Value::Plain(text) | Value::Secret(text), SecretsTo::File) => text,
            (Value::Plain(text) | Value::Secret(text), SecretsTo::Env) => self.refer(variable, &text),
            (Value::Reference(text), _) => {
                for name in secrets::variables(&text).map(str::to_owned).collect::<Vec<_>>() {
                    self.note(
                        false,
                        format!("takes {name} from the environment: set it before `mcpmesh up`"),
                    );
                }
                text
            }
        };
        self.data.insert(key.to_owned(), stored);
    }

    fn refer(&mut self, variable: &str, value: &str) -> String {
        // Two servers may give one variable different values.
        let own = format!("{}_{variable}", secrets::shout(&self.name));
        let clash = self.variables.get(variable).is_some_and(|other| other != value);
        let variable = if clash { own } else { variable.to_owned() };
        self.note(
            false,
            format!("its secret is now ${{env:{variable}}}: set {variable} before `mcpmesh up`, to the value it had"),
        );
        let reference = format!("${{env:{variable}}}");
        self.variables.insert(variable, value.to_owned());
        reference
    }

    /// Of `${NAME:-default}` only the name is kept: a Secret's reference has no default.
    fn look_at_defaults(&mut self, value: &str) {
        for inside in
            value.split("${").skip(1).filter_map(|rest| rest.split_once('}').map(|(inside, _)| inside))
        {
            if let Some((name, _)) = inside.split_once(":-") {
                self.note(
                    false,
                    format!("the default of {name} is left out, which a reference here cannot have"),
                );
            }
        }
    }

    /// Arguments stand in the object as they are.
    fn look_at(&mut self, args: &[String]) -> Result<(), String> {
        if let Some(word) = args.iter().find(|word| word.contains("${")) {
            return Err(format!(
                "the argument {word:?} is a reference, which only env and headers can hold: write its value there"
            ));
        }
        if args.iter().any(|word| secrets::looks_secret(word)) {
            self.note(
                false,
                "an argument looks like a secret and stands in the YAML: pass it in env".to_owned(),
            );
        }
        Ok(())
    }

    fn secret(&self) -> Option<Json> {
        (!self.data.is_empty()).then(|| {
            json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": { "name": self.secret_name(), "namespace": self.place.namespace },
                "stringData": self.data,
            })
        })
    }

    fn secret_name(&self) -> String {
        format!("{}{SECRETS}", self.name)
    }

    fn note(&mut self, error: bool, message: String) {
        self.notes.push(Note { error, server: self.entry.name.clone(), place: self.entry.place, message });
    }
}

fn fill(object: &mut Map<String, Json>, key: &str, items: Vec<Json>) {
    if !items.is_empty() {
        object.insert(key.to_owned(), Json::Array(items));
    }
}
