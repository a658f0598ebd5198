//! What the fixture plays: `fixtures/catalogue.json`, the same for every implementation.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The questions of one round, by the key of the answer.
pub(crate) type Questions = BTreeMap<String, Value>;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Catalogue {
    tools: Vec<Value>,
    task_tools: Vec<Value>,
    prompts: Vec<Value>,
    pub(crate) resources: Value,
    pub(crate) templates: Value,
}

/// How a tool behaves.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Play {
    /// This result, with the arguments filled in.
    Result(Value),
    /// These lines of log.
    Log(Vec<String>),
    /// These steps of progress.
    Progress(Vec<f64>),
    /// Steps of progress until done or cancelled.
    Wait {},
    /// How many of those were cancelled.
    Cancellations {},
    /// An answer after a pause; this SDK cannot drop a stream from within a call.
    Reconnect {},
    /// An error unless the client declared these capabilities.
    Requires(Value),
    /// A change notice for `tools` or `prompts`.
    Notify(String),
    /// Questions to the client.
    Ask(Ask),
}

/// Questions in rounds, then a reply made of the answers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ask {
    pub(crate) rounds: Vec<Questions>,
    pub(crate) reply: String,
    /// Keeps what it knows in integrity-protected request state.
    #[serde(default)]
    pub(crate) sealed: bool,
    /// Leaves out what the client did not declare instead of refusing.
    #[serde(default)]
    pub(crate) declared_only: bool,
}

impl Catalogue {
    pub(crate) fn load() -> anyhow::Result<Self> {
        Ok(serde_json::from_str(include_str!("../../../fixtures/catalogue.json"))?)
    }

    /// All tools as listed.
    pub(crate) fn tools(&self) -> Value {
        self.tools.iter().chain(&self.task_tools).cloned().collect()
    }

    pub(crate) fn prompts(&self) -> Value {
        self.prompts.iter().cloned().collect()
    }

    pub(crate) fn tool(&self, name: &str) -> Option<&Value> {
        self.tools.iter().chain(&self.task_tools).find(|tool| tool["name"] == name)
    }

    pub(crate) fn task_tool(&self, name: &str) -> Option<&Value> {
        self.task_tools.iter().find(|tool| tool["name"] == name)
    }

    pub(crate) fn play(&self, name: &str) -> Option<Play> {
        let tool = self.tools.iter().find(|tool| tool["name"] == name)?;
        serde_json::from_value(tool["play"].clone()).ok()
    }

    pub(crate) fn prompt(&self, name: &str) -> Option<&Value> {
        self.prompts.iter().find(|prompt| prompt["name"] == name)
    }

    /// The contents of a resource, listed or made from a template.
    pub(crate) fn read(&self, uri: &str) -> Option<Value> {
        let rows = |rows: &Value| rows.as_array().cloned().unwrap_or_default();
        if let Some(mut found) = rows(&self.resources).into_iter().find(|resource| resource["uri"] == uri) {
            found
                .as_object_mut()?
                .retain(|key, _| ["uri", "mimeType", "text", "blob"].contains(&key.as_str()));
            return Some(found);
        }
        rows(&self.templates).into_iter().find_map(|template| {
            let id =
                uri.strip_prefix(template["prefix"].as_str()?)?.strip_suffix(template["suffix"].as_str()?)?;
            let text = fill(&template["text"], &serde_json::json!({"id": id}));
            Some(serde_json::json!({"uri": uri, "mimeType": template["mimeType"], "text": text}))
        })
    }
}

/// Replaces `{a.b}` in every string by what the path names in `values`; other braces stay.
pub(crate) fn fill(template: &Value, values: &Value) -> Value {
    match template {
        Value::String(text) => Value::String(fill_text(text, values)),
        Value::Array(items) => items.iter().map(|item| fill(item, values)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), fill(value, values)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

pub(crate) fn fill_text(text: &str, values: &Value) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let (before, from_open) = rest.split_at(open);
        filled.push_str(before);
        let found = from_open.find('}').and_then(|close| {
            let path = &from_open[1..close];
            Some((path.split('.').try_fold(values, |value, step| value.get(step))?, close))
        });
        let (replacement, used) = match found {
            Some((Value::String(text), close)) => (text.clone(), close + 1),
            Some((value, close)) => (value.to_string(), close + 1),
            None => ("{".to_owned(), 1),
        };
        filled.push_str(&replacement);
        rest = &from_open[used..];
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Catalogue, fill_text};

    #[test]
    fn every_tool_has_a_play_that_this_fixture_knows() {
        let catalogue = Catalogue::load().expect("the catalogue parses");
        for tool in &catalogue.tools {
            let name = tool["name"].as_str().expect("a name");
            assert!(catalogue.play(name).is_some(), "{name}");
        }
    }

    #[test]
    fn only_known_paths_are_filled() {
        let values = json!({"a": {"b": "x", "n": 1}});
        assert_eq!(fill_text(r#"{"k":"{a.b}{a.n}{c}"}"#, &values), r#"{"k":"x1{c}"}"#);
    }
}
