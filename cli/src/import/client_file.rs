//! The servers of a client's configuration file, whichever client wrote it.

use std::collections::BTreeMap;

use jsonc_parser::ast::{Object, ObjectProp, Value as Json};
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use mcpmesh_compiler::manifest::plain_words;
use serde::Deserialize;
use serde_json::Value;

/// One server as clients describe it. Fields that only some of them write are optional; others are ignored, since
/// they tune the client, not the server.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Entry {
    #[serde(skip)]
    pub(super) name: String,
    #[serde(skip)]
    pub(super) place: Place,
    #[serde(default)]
    pub(super) command: Option<String>,
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, Option<Scalar>>,
    #[serde(default, alias = "serverUrl", alias = "httpUrl")]
    pub(super) url: Option<String>,
    #[serde(default, rename = "type", alias = "transport")]
    pub(super) transport: Option<String>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, Scalar>,
    #[serde(default)]
    pub(super) disabled: bool,
    /// What else is there.
    #[serde(flatten)]
    pub(super) rest: BTreeMap<String, Value>,
}

/// Line and column of an entry, both from 1.
pub(crate) type Place = (u64, u64);

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) entries: Vec<Entry>,
    /// Entries that are not what clients write: the name of each, its place, and what is wrong with it.
    pub(super) broken: Vec<(String, Place, String)>,
}

/// A value that people write with or without quotes.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Scalar {
    Text(String),
    Number(serde_json::Number),
    Bool(bool),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
            Self::Bool(value) => value.fmt(f),
        }
    }
}

/// Why a file is no client configuration.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("not JSON: {0}")]
    Json(String),
    #[error("no \"mcpServers\" or \"servers\" object: is this an MCP client's configuration?")]
    NoServers,
}

/// Reads JSON with comments, as VS Code and Cursor allow.
pub(super) fn parse(text: &str) -> Result<Contents, Error> {
    let text = text.trim_start_matches('\u{feff}');
    let tree = parse_to_ast(text, &CollectOptions::default(), &ParseOptions::default())
        .map_err(|error| Error::Json(error.to_string()))?;
    let Some(Json::Object(file)) = tree.value else { return Err(Error::NoServers) };
    let servers = servers(&file).ok_or(Error::NoServers)?;
    // In order of names, of which the last counts where one is there twice.
    let entries: BTreeMap<&str, &ObjectProp<'_>> =
        servers.properties.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    let mut contents = Contents::default();
    for (name, ObjectProp { range, value, .. }) in entries {
        let (name, place) = (name.to_owned(), place(text, range.start));
        match Entry::deserialize(Value::from(value.clone())) {
            Ok(entry) => contents.entries.push(Entry { name, place, ..entry }),
            Err(error) => contents.broken.push((name, place, reason(&error.to_string()))),
        }
    }
    Ok(contents)
}

/// What is wrong with an entry, with what to write.
fn reason(said: &str) -> String {
    let (message, help) = plain_words(said);
    help.map_or_else(|| message.clone(), |help| format!("{message}; {help}"))
}

fn servers<'t>(file: &'t Object<'t>) -> Option<&'t Object<'t>> {
    // Claude, Cursor, Windsurf; .vscode/mcp.json; VS Code's settings.json.
    let inner = || file.get_object("mcp")?.get_object("servers");
    file.get_object("mcpServers").or_else(|| file.get_object("servers")).or_else(inner)
}

/// Where a byte of a text stands.
fn place(text: &str, at: usize) -> Place {
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line.try_into().unwrap_or(0), column.try_into().unwrap_or(0))
}
