//! One object's JSON as clients see it: the upstream's own bytes, with the members replaced that are ours.

use bytes::Bytes;
use mcpmesh_ir::catalog::Hints;
use mcpmesh_ir::server::ToolOverride;

use crate::mcp::json;
use crate::mcp::uri;

/// A tool's definition with its advertised name and what its McpServer overrides.
pub(super) fn tool(
    raw: &[u8],
    advertised: &str,
    change: Option<&ToolOverride>,
    wrap: Option<&str>,
) -> Option<Bytes> {
    let mut edit = Edit::of(raw)?;
    edit.set("name", &text(advertised));
    if let Some(change) = change {
        if let Some(title) = &change.title {
            edit.set("title", &text(title));
        }
        if let Some(description) = &change.description {
            edit.set("description", &text(description));
        }
        if !change.annotations.is_empty() {
            edit.set("annotations", &annotations(edit.get("annotations"), change)?);
        }
    }
    if let Some(prefix) = wrap {
        edit.wrap_ui(prefix);
    }
    Some(edit.into_bytes())
}

/// The upstream's annotations with the pinned hints put over them.
fn annotations(claimed: Option<&[u8]>, change: &ToolOverride) -> Option<Vec<u8>> {
    let mut edit = Edit::of(claimed.unwrap_or(b"{}"))?;
    let pinned = serde_json::to_vec(&change.annotations).ok()?;
    for (key, value) in json::members(&pinned)? {
        edit.set(&key, value);
    }
    if let Some(title) = &change.title {
        edit.replace("title", &text(title));
    }
    Some(edit.into_bytes().to_vec())
}

/// An object with one member, its key, replaced.
pub(super) fn renamed(raw: &[u8], key: &str, value: &str) -> Option<Bytes> {
    let mut edit = Edit::of(raw)?;
    edit.set(key, &text(value));
    Some(edit.into_bytes())
}

/// What an upstream says of its tool.
pub(super) fn hints(raw: &[u8]) -> Hints {
    json::member(raw, "annotations").and_then(|raw| serde_json::from_slice(raw).ok()).unwrap_or_default()
}

fn text(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    json::push_text(&mut out, text);
    out
}

/// An object's members, in order, some of them replaced.
struct Edit<'a>(Vec<(String, std::borrow::Cow<'a, [u8]>)>);

impl<'a> Edit<'a> {
    fn of(raw: &'a [u8]) -> Option<Self> {
        let members = json::members(raw)?;
        Some(Self(members.into_iter().map(|(key, value)| (key.into_owned(), value.into())).collect()))
    }

    fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_ref())
    }

    fn replace(&mut self, key: &str, value: &[u8]) -> bool {
        let found = self.0.iter_mut().find(|(name, _)| name == key);
        found.map(|(_, old)| *old = value.to_vec().into()).is_some()
    }

    fn set(&mut self, key: &str, value: &[u8]) {
        if !self.replace(key, value) {
            self.0.push((key.to_owned(), value.to_vec().into()));
        }
    }

    /// `_meta.ui.resourceUri` names a resource of the same server (MCP Apps).
    fn wrap_ui(&mut self, prefix: &str) {
        let wrapped = || {
            let meta = self.get("_meta")?;
            let ui = json::member(meta, "ui")?;
            let original = json::member(ui, "resourceUri").and_then(json::text)?;
            let ui = renamed(ui, "resourceUri", &uri::wrap(prefix, &original))?;
            let mut meta = Edit::of(meta)?;
            meta.set("ui", &ui);
            Some(meta.into_bytes())
        };
        if let Some(meta) = wrapped() {
            self.set("_meta", &meta);
        }
    }

    fn into_bytes(self) -> Bytes {
        let mut out = Vec::with_capacity(self.0.iter().map(|(key, value)| key.len() + value.len() + 4).sum());
        out.push(b'{');
        for (index, (key, value)) in self.0.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            json::push_text(&mut out, key);
            out.push(b':');
            out.extend_from_slice(value);
        }
        out.push(b'}');
        Bytes::from(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_keeps_every_byte_but_what_is_ours() {
        let raw = br#"{"name":"x","inputSchema":{"b":1e2, "a":90071992547409931}}"#;
        let shown = tool(raw, "p_x", None, None).unwrap();
        assert_eq!(shown, r#"{"name":"p_x","inputSchema":{"b":1e2, "a":90071992547409931}}"#);
    }

    #[test]
    fn pinned_hints_stand_over_the_upstreams_words() {
        let raw = br#"{"name":"x","annotations":{"title":"t","readOnlyHint":true}}"#;
        let change = ToolOverride {
            annotations: Hints { read_only_hint: Some(false), ..Hints::default() },
            ..ToolOverride::default()
        };
        let shown = tool(raw, "x", Some(&change), None).unwrap();
        assert_eq!(shown, r#"{"name":"x","annotations":{"title":"t","readOnlyHint":false}}"#);
    }

    #[test]
    fn a_ui_resource_is_wrapped_like_any_other() {
        let raw = br#"{"name":"x","_meta":{"k":1,"ui":{"resourceUri":"ui://a"}}}"#;
        let shown = tool(raw, "x", None, Some("p")).unwrap();
        assert_eq!(shown, r#"{"name":"x","_meta":{"k":1,"ui":{"resourceUri":"mcpmesh://p/ui%3A%2F%2Fa"}}}"#);
    }
}
