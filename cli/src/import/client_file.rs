//! The servers of a client's configuration file, whichever client wrote it.

use std::collections::BTreeMap;

use jsonc_parser::ParseOptions;
use serde::Deserialize;
use serde_json::Value;

/// One server as clients describe it. Fields that only some of them write are optional; others are ignored, since
/// they tune the client, not the server.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Entry {
    #[serde(skip)]
    pub(super) name: String,
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

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) entries: Vec<Entry>,
    /// Names of entries that are not what clients write, each with what is wrong with it.
    pub(super) broken: Vec<(String, String)>,
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
    let file: Value =
        jsonc_parser::parse_to_serde_value(text.trim_start_matches('\u{feff}'), &ParseOptions::default())
            .map_err(|error| Error::Json(error.to_string()))?;
    let servers = servers(&file).ok_or(Error::NoServers)?;
    let mut contents = Contents::default();
    for (name, value) in servers {
        match Entry::deserialize(value) {
            Ok(entry) => contents.entries.push(Entry { name: name.clone(), ..entry }),
            Err(error) => contents.broken.push((name.clone(), error.to_string())),
        }
    }
    Ok(contents)
}

fn servers(file: &Value) -> Option<&serde_json::Map<String, Value>> {
    // Claude, Cursor, Windsurf; .vscode/mcp.json; VS Code's settings.json.
    [file.get("mcpServers"), file.get("servers"), file.pointer("/mcp/servers")]
        .into_iter()
        .flatten()
        .find_map(Value::as_object)
}
