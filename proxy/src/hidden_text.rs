//! Characters that make a text show something else than it says (tool poisoning, log forging), and their removal from
//! what servers say of their objects.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

use crate::mcp::json::{self, Error, Key, Limits, Sink};

/// The members whose texts people and models read. Identifiers and schemas' keywords are not among them: they stay as
/// they are.
const SHOWN: [&str; 2] = ["title", "description"];

/// Characters that change what a terminal or a reader sees: controls (JSON escapes only the first 32 of them), line
/// separators, zero width, direction, tags, variation selectors beyond those of emoji.
pub(crate) fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e01ef}')
}

/// Deceives within a text of several lines.
fn hidden(c: char) -> bool {
    deceives(c) && !matches!(c, '\n' | '\r' | '\t')
}

/// A text without its hidden characters.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if text.contains(hidden) { text.replace(hidden, "").into() } else { text.into() }
}

/// An object of a list as clients may see it: titles and descriptions at any depth, and the `name` of what is not
/// called by it, without hidden characters; every other byte as it was. `None` when it is no JSON.
pub(crate) fn stripped(raw: &Bytes, named: Named) -> Option<Bytes> {
    if !suspicious(raw) {
        return Some(raw.clone());
    }
    let found = Texts::of(raw, named)?;
    let mut out = Vec::with_capacity(raw.len());
    let mut at = 0;
    for text in found.hiding {
        let value = json::text(raw.get(text.clone())?)?;
        out.extend_from_slice(raw.get(at..text.start)?);
        json::push_text(&mut out, &visible(&value));
        at = text.end;
    }
    out.extend_from_slice(raw.get(at..)?);
    Some(out.into())
}

/// Whether hidden characters stand in what [`stripped`] would clean.
pub(crate) fn hides(raw: &[u8], named: Named) -> bool {
    suspicious(raw) && Texts::of(raw, named).is_some_and(|found| !found.hiding.is_empty())
}

/// What an object's `name` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// What it is called by (tools, prompts).
    Identifier,
    /// A text to show (resources, templates: they are called by their URI).
    Text,
}

/// Whether a text might hold what deceives: plain ASCII without escapes of code points does not.
fn suspicious(raw: &[u8]) -> bool {
    raw.iter().any(|&byte| byte >= 0x7f)
        || raw.windows(2).any(|pair| matches!(pair, [b'\\', b'u' | b'b' | b'f']))
}

/// The texts of an object that hide something.
struct Texts<'a> {
    raw: &'a [u8],
    named: Named,
    /// Whether the member read last at each depth is one to look at.
    shown: Vec<bool>,
    hiding: Vec<Range<usize>>,
}

impl<'a> Texts<'a> {
    fn of(raw: &'a [u8], named: Named) -> Option<Self> {
        let limits = Limits { depth: 256, members: usize::MAX };
        let mut texts = Self { raw, named, shown: Vec::new(), hiding: Vec::new() };
        json::scan(raw, &limits, &mut texts).ok()?;
        Some(texts)
    }
}

impl<'a> Sink<'a> for Texts<'_> {
    fn key(&mut self, depth: usize, key: &Key<'a>) -> Result<(), Error> {
        let name = depth == 1 && self.named == Named::Text && key.text == "name";
        self.shown.resize(depth, false);
        if let Some(shown) = self.shown.last_mut() {
            *shown = name || SHOWN.contains(&key.text.as_ref());
        }
        Ok(())
    }

    fn value(&mut self, depth: usize, value: Range<usize>) {
        let shown = depth.checked_sub(1).and_then(|depth| self.shown.get(depth)) == Some(&true);
        let text = || self.raw.get(value.clone()).and_then(json::text);
        if shown && text().is_some_and(|text| text.contains(hidden)) {
            self.hiding.push(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn cleaned(raw: &str, named: Named) -> String {
        let bytes = Bytes::copy_from_slice(raw.as_bytes());
        String::from_utf8(stripped(&bytes, named).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn hidden_characters_go_from_titles_and_descriptions_at_any_depth_however_they_are_written() {
        let raw = "{\"name\":\"x\",\"description\":\"a\u{200b}b\\u202ec\\u001b[2Kd\\nwhole 👍 line\\t.\", \
                   \"inputSchema\":{ \"properties\":{\"description\":{\"description\":\"p\u{e0041}q\",\"pattern\":\"\\u200b\"}}}}";
        let clean = "{\"name\":\"x\",\"description\":\"abc[2Kd\\nwhole 👍 line\\t.\", \
                     \"inputSchema\":{ \"properties\":{\"description\":{\"description\":\"pq\",\"pattern\":\"\\u200b\"}}}}";
        assert!(hides(raw.as_bytes(), Named::Identifier));
        assert_eq!(cleaned(raw, Named::Identifier), clean);
        assert!(!hides(clean.as_bytes(), Named::Identifier));
    }

    #[test]
    fn the_name_of_a_resource_is_a_text_and_that_of_a_tool_is_not() {
        let raw = "{\"uri\":\"a:b\",\"name\":\"\u{202e}txt.exe\",\"_meta\":{\"name\":\"\u{200b}\"}}";
        assert_eq!(
            cleaned(raw, Named::Text),
            "{\"uri\":\"a:b\",\"name\":\"txt.exe\",\"_meta\":{\"name\":\"\u{200b}\"}}"
        );
        assert_eq!(cleaned(raw, Named::Identifier), raw);
    }

    #[test]
    fn what_is_not_json_is_not_shown() {
        assert_eq!(stripped(&Bytes::from_static("{\"description\":\u{200b}".as_bytes()), Named::Text), None);
    }

    proptest! {
        #[test]
        fn a_definition_means_the_same_but_for_its_hidden_characters(
            title in "\\PC{0,8}[\\x00-\\x1f\u{200b}-\u{200f}\u{2066}]{0,2}\\PC{0,8}",
            other in "\\PC{0,4}[\u{200b}\\n]?",
        ) {
            let value = json!({"k": other, "deep": [{"title": title}], "description": [title], "title": title});
            let raw = serde_json::to_vec(&value).unwrap();
            let shown: serde_json::Value =
                serde_json::from_slice(&stripped(&raw.into(), Named::Text).unwrap()).unwrap();
            let clean = title.replace(hidden, "");
            let expected = json!({"k": other, "deep": [{"title": clean}], "description": [title], "title": clean});
            prop_assert_eq!(shown, expected);
        }
    }
}
