//! What clients of old revisions must not be shown, by the revision that brought it. The slow path:
//! the message is in memory. What stays keeps its bytes.

use bytes::Bytes;

use super::era::{Era, Revision};
use super::json;

/// The members of an object that stay, in order.
struct Rebuilt {
    out: Vec<u8>,
}

impl Rebuilt {
    fn new(capacity: usize) -> Self {
        let mut out = Vec::with_capacity(capacity);
        out.push(b'{');
        Self { out }
    }

    fn member(&mut self, key: &str, value: &[u8]) {
        if self.out.len() > 1 {
            self.out.push(b',');
        }
        json::push_text(&mut self.out, key);
        self.out.push(b':');
        self.out.extend_from_slice(value);
    }

    fn finish(mut self) -> Bytes {
        self.out.push(b'}');
        Bytes::from(self.out)
    }
}

/// Does a client of this revision need [`response`]?
#[must_use]
pub fn is_needed(target: Revision) -> bool {
    target < Revision::V2025_06_18
}

/// A whole response as a client of `target` may read it: no `structuredContent`, no titles, links
/// as text. Anything that is no result comes back as it was.
#[must_use]
pub fn response(raw: &Bytes, target: Revision) -> Bytes {
    let Some(members) = json::members(raw).filter(|_| is_needed(target)) else { return raw.clone() };
    let mut rebuilt = Rebuilt::new(raw.len());
    for (key, value) in members {
        if key == "result" {
            rebuilt.member(&key, &result(value, target));
        } else {
            rebuilt.member(&key, value);
        }
    }
    rebuilt.finish()
}

fn result(raw: &[u8], target: Revision) -> Bytes {
    let Some(members) = json::members(raw) else { return Bytes::copy_from_slice(raw) };
    let mut rebuilt = Rebuilt::new(raw.len());
    for (key, value) in members {
        match key.as_ref() {
            "structuredContent" => {}
            "content" => rebuilt.member(&key, &each(value, |block| content(block, target))),
            "messages" => rebuilt.member(&key, &each(value, |said| message(said, target))),
            "tools" | "prompts" | "resources" | "resourceTemplates" => {
                rebuilt.member(&key, &each(value, |entry| item(entry, target)));
            }
            _ => rebuilt.member(&key, value),
        }
    }
    rebuilt.finish()
}

fn each(array: &[u8], mut change: impl FnMut(&[u8]) -> Bytes) -> Bytes {
    let Some(elements) = json::elements(array) else { return Bytes::copy_from_slice(array) };
    let mut out = Vec::with_capacity(array.len());
    out.push(b'[');
    for (index, element) in elements.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&change(element));
    }
    out.push(b']');
    Bytes::from(out)
}

fn message(raw: &[u8], target: Revision) -> Bytes {
    let Some(members) = json::members(raw) else { return Bytes::copy_from_slice(raw) };
    let mut rebuilt = Rebuilt::new(raw.len());
    for (key, value) in members {
        match key.as_ref() {
            "content" => rebuilt.member(&key, &content(value, target)),
            _ => rebuilt.member(&key, value),
        }
    }
    rebuilt.finish()
}

/// One content block: a kind that the revision lacks becomes text.
fn content(raw: &[u8], target: Revision) -> Bytes {
    let text = |name: &str| json::member(raw, name).and_then(json::text);
    let said = match text("type").as_deref() {
        Some("resource_link") => {
            format!("{}: {}", text("name").unwrap_or("resource".into()), text("uri").unwrap_or_default())
        }
        Some("audio") if target < Revision::V2025_03_26 => {
            format!("[{}]", text("mimeType").unwrap_or("audio".into()))
        }
        _ => return Bytes::copy_from_slice(raw),
    };
    let mut rebuilt = Rebuilt::new(said.len() + 32);
    rebuilt.member("type", b"\"text\"");
    let mut quoted = Vec::with_capacity(said.len() + 2);
    json::push_text(&mut quoted, &said);
    rebuilt.member("text", &quoted);
    rebuilt.finish()
}

/// One tool, prompt, resource or template of a list as a client of `target` may read it: titles
/// and `outputSchema` since 2025-06-18, an `outputSchema` of another type than object since
/// 2026-07-28.
#[must_use]
pub fn item(raw: &[u8], target: Revision) -> Bytes {
    let old = is_needed(target);
    let members = if target.era() == Era::Legacy { json::members(raw) } else { None };
    let Some(members) = members else { return Bytes::copy_from_slice(raw) };
    let hidden = |key: &str, value: &[u8]| match key {
        "title" => old,
        "outputSchema" => old || !describes_object(value),
        _ => false,
    };
    if !members.iter().any(|(key, value)| hidden(key, value)) {
        return Bytes::copy_from_slice(raw);
    }
    let mut rebuilt = Rebuilt::new(raw.len());
    members
        .iter()
        .filter(|(key, value)| !hidden(key, value))
        .for_each(|(key, value)| rebuilt.member(key, value));
    rebuilt.finish()
}

fn describes_object(schema: &[u8]) -> bool {
    json::member(schema, "type").and_then(json::text).as_deref() == Some("object")
}

#[cfg(test)]
mod tests;
