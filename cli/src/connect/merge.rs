//! Puts one entry into a client's file and leaves every other character of it, comments included, as it is.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstRootNode};
use serde_json::Value;

/// Why a file cannot be merged into.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("it is not JSON: {0}")]
    Json(String),
    #[error("its {0:?} is not an object")]
    NotAnObject(String),
}

/// The text of the file with `member.name` set to `entry`.
pub(super) fn merge(text: &str, member: &str, name: &str, entry: &Value) -> Result<String, Error> {
    let text = if text.trim().is_empty() { "{}\n" } else { text };
    let root =
        CstRootNode::parse(text, &ParseOptions::default()).map_err(|error| Error::Json(error.to_string()))?;
    let object = root.object_value_or_create().ok_or_else(|| Error::NotAnObject("top level".to_owned()))?;
    let servers =
        object.object_value_or_create(member).ok_or_else(|| Error::NotAnObject(member.to_owned()))?;
    match servers.get(name) {
        Some(property) if property.to_serde_value().as_ref() == Some(entry) => {}
        Some(property) => property.set_value(input(entry)),
        None => drop(servers.append(name, input(entry))),
    }
    Ok(root.to_string())
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(items) => CstInputValue::Array(items.iter().map(input).collect()),
        Value::Object(members) => {
            CstInputValue::Object(members.iter().map(|(key, value)| (key.clone(), input(value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_else_in_the_file_stays() {
        let text = "{\n  // mine\n  \"theme\": \"dark\",\n  \"mcpServers\": {\n    \"other\": { \"command\": \"x\" }\n  }\n}\n";
        let merged =
            merge(text, "mcpServers", "mcpmesh", &json!({"url": "http://127.0.0.1:8080/mcp"})).unwrap();
        assert!(
            merged.contains("// mine") && merged.contains("\"other\": { \"command\": \"x\" }"),
            "{merged}"
        );
        let value: Value = jsonc_parser::parse_to_serde_value(&merged, &ParseOptions::default()).unwrap();
        assert_eq!(value["mcpServers"]["mcpmesh"]["url"], "http://127.0.0.1:8080/mcp");
    }

    #[test]
    fn merging_again_changes_nothing() {
        let entry = json!({"url": "http://127.0.0.1:8080/mcp"});
        let once = merge("", "servers", "mcpmesh", &entry).unwrap();
        assert_eq!(merge(&once, "servers", "mcpmesh", &entry).unwrap(), once);
        let other = merge(&once, "servers", "mcpmesh", &json!({"url": "http://127.0.0.1:1/mcp"})).unwrap();
        assert!(other.contains("127.0.0.1:1/") && !other.contains("8080"), "{other}");
    }

    #[test]
    fn a_file_that_is_no_object_is_refused() {
        for text in ["[1]", "{\"servers\": []}", "{"] {
            assert!(merge(text, "servers", "x", &json!({})).is_err(), "{text}");
        }
    }
}
