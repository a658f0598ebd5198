//! Whether an item of a list is one: clients read a list as a whole, and many refuse all of it for one item that is not as
//! the protocol defines it. What no revision allows (schema.ts of 2025-03-26 to 2026-07-28) is left out alone.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::hidden_text::deceives;
use crate::mcp::envelope::Method;

/// Bytes of one definition. It is read by models, each time that they are given the list.
const LONGEST: usize = 256 << 10;
/// Characters of a reason that are told: it may repeat what the server says.
const TOLD: usize = 120;

type Text<'a> = Cow<'a, str>;
type Object<'a> = BTreeMap<Text<'a>, IgnoredAny>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "read to see whether they can be")]
struct Tool<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    title: Option<Text<'a>>,
    description: Option<Text<'a>>,
    input_schema: InputSchema<'a>,
    output_schema: Option<Object<'a>>,
    annotations: Option<ToolAnnotations<'a>>,
    #[serde(rename = "_meta")]
    meta: Option<Object<'a>>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "read to see whether they can be")]
struct InputSchema<'a> {
    r#type: ObjectType,
    #[serde(borrow)]
    properties: Option<Object<'a>>,
    required: Option<Vec<Text<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum ObjectType {
    Object,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "read to see whether they can be")]
struct ToolAnnotations<'a> {
    #[serde(borrow)]
    title: Option<Text<'a>>,
    read_only_hint: Option<bool>,
    destructive_hint: Option<bool>,
    idempotent_hint: Option<bool>,
    open_world_hint: Option<bool>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "read to see whether they can be")]
struct Prompt<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    title: Option<Text<'a>>,
    description: Option<Text<'a>>,
    arguments: Option<Vec<PromptArgument<'a>>>,
    #[serde(rename = "_meta")]
    meta: Option<Object<'a>>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "read to see whether they can be")]
struct PromptArgument<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    title: Option<Text<'a>>,
    description: Option<Text<'a>>,
    required: Option<bool>,
}

/// A resource, or a template, whose URI is looked at elsewhere.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "read to see whether they can be")]
struct Resource<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    title: Option<Text<'a>>,
    description: Option<Text<'a>>,
    mime_type: Option<Text<'a>>,
    size: Option<f64>,
    annotations: Option<Annotations<'a>>,
    #[serde(rename = "_meta")]
    meta: Option<Object<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "read to see whether they can be")]
struct Annotations<'a> {
    #[serde(borrow)]
    audience: Option<Vec<Text<'a>>>,
    priority: Option<f64>,
    last_modified: Option<Text<'a>>,
}

/// What is wrong with an item of the list that this method asks for.
pub(super) fn mistake(method: &Method, raw: &str) -> Option<String> {
    if raw.len() > LONGEST {
        return Some(format!("{} bytes are more than {LONGEST}", raw.len()));
    }
    let read = match method {
        Method::ToolsList => serde_json::from_str::<Tool<'_>>(raw).map(drop),
        Method::PromptsList => serde_json::from_str::<Prompt<'_>>(raw).map(drop),
        _ => serde_json::from_str::<Resource<'_>>(raw).map(drop),
    };
    let words = read.err()?.to_string();
    Some(words.chars().filter(|letter| !deceives(*letter) && !letter.is_control()).take(TOLD).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_one(method: &Method, raw: &str) -> bool {
        mistake(method, raw).is_none()
    }

    #[test]
    fn what_every_revision_allows_is_one() {
        for tool in [
            r#"{"name":"a","inputSchema":{"type":"object"}}"#,
            r#"{"name":"\u00e4\n","title":null,"description":"d","inputSchema":{"type":"object","properties":{"a":true},"required":["a"],"x":1},
                "outputSchema":{"type":"array"},"annotations":{"readOnlyHint":true,"later":1},"_meta":{},"icons":[],"later":1}"#,
        ] {
            assert!(is_one(&Method::ToolsList, tool), "{tool}");
        }
        for prompt in
            [r#"{"name":"a"}"#, r#"{"name":"a","arguments":[{"name":"b","required":true,"later":1}]}"#]
        {
            assert!(is_one(&Method::PromptsList, prompt), "{prompt}");
        }
        let resource = r#"{"uri":"a:b","name":"a","size":3,"annotations":{"audience":["user"],"priority":1,"lastModified":"x"}}"#;
        assert!(is_one(&Method::ResourcesList, resource));
        assert!(is_one(&Method::ResourcesTemplatesList, r#"{"uriTemplate":"a:{b}","name":"a"}"#));
    }

    #[test]
    fn what_none_allows_is_not() {
        for tool in [
            r#""a""#,
            r#"{"inputSchema":{"type":"object"}}"#,
            r#"{"name":1,"inputSchema":{"type":"object"}}"#,
            r#"{"name":"a"}"#,
            r#"{"name":"a","inputSchema":{}}"#,
            r#"{"name":"a","inputSchema":{"type":"array"}}"#,
            r#"{"name":"a","inputSchema":[]}"#,
            r#"{"name":"a","inputSchema":{"type":"object","required":"a"}}"#,
            r#"{"name":"a","inputSchema":{"type":"object","properties":[]}}"#,
            r#"{"name":"a","inputSchema":{"type":"object"},"outputSchema":"x"}"#,
            r#"{"name":"a","inputSchema":{"type":"object"},"description":{}}"#,
            r#"{"name":"a","inputSchema":{"type":"object"},"annotations":[]}"#,
            r#"{"name":"a","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":"yes"}}"#,
        ] {
            assert!(!is_one(&Method::ToolsList, tool), "{tool}");
        }
        for prompt in
            [r#"{"name":"a","arguments":{}}"#, r#"{"name":"a","arguments":[{}]}"#, r#"{"description":"x"}"#]
        {
            assert!(!is_one(&Method::PromptsList, prompt), "{prompt}");
        }
        for resource in [
            r#"{"uri":"a:b"}"#,
            r#"{"uri":"a:b","name":"a","mimeType":1}"#,
            r#"{"uri":"a:b","name":"a","size":"3"}"#,
        ] {
            assert!(!is_one(&Method::ResourcesList, resource), "{resource}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_one_short_line_and_a_huge_one_is_not_read() {
        let forged = format!(r#"{{"name":"a","inputSchema":{{"type":"\u001b[31m\n{}"}}}}"#, "x".repeat(500));
        let said = mistake(&Method::ToolsList, &forged).unwrap();
        assert!(said.chars().count() <= TOLD && !said.chars().any(char::is_control), "{said:?}");
        let huge = format!(
            r#"{{"name":"a","description":"{}","inputSchema":{{"type":"object"}}}}"#,
            "x".repeat(LONGEST)
        );
        assert!(mistake(&Method::ToolsList, &huge).unwrap().contains("are more than 262144"));
    }
}
