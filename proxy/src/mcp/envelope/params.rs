//! The `params` object of a message, as slices of the body.

use std::borrow::Cow;

use bytes::Bytes;

use super::{MemberList, Refusal};
use crate::mcp::json;
use crate::mcp::meta::Meta;

/// The parameters of a message. Absent params are an empty object.
#[derive(Debug, Clone, Default)]
pub struct Params {
    body: Bytes,
    members: MemberList,
    meta: Meta,
}

impl Params {
    pub(super) fn new(body: Bytes, members: MemberList, meta: Meta) -> Self {
        Self { body, members, meta }
    }

    /// The raw JSON of one member.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.members.iter().find(|member| member.is(key, &self.body)).map(|member| member.value(&self.body))
    }

    /// The raw JSON of one member, sharing the body's storage.
    #[must_use]
    pub fn bytes(&self, key: &str) -> Option<Bytes> {
        let member = self.members.iter().find(|member| member.is(key, &self.body))?;
        Some(self.body.slice(member.range()))
    }

    /// One member as text.
    ///
    /// # Errors
    /// -32602 when it is there and no string, or holds a NUL or a lone surrogate.
    pub fn str(&self, key: &str) -> Result<Option<Cow<'_, str>>, Refusal> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match json::text(value) {
            Some(text) if !text.contains('\0') => Ok(Some(text)),
            _ => Err(Refusal::params(format!("{key} must be a string"))),
        }
    }

    /// `_meta`
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The members in the order of the text, `_meta` included.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.members.iter().map(|member| (member.key(&self.body), member.value(&self.body)))
    }

    /// The members other than these.
    pub fn without<'a>(&'a self, keys: &'a [&str]) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.iter().filter(|(name, _)| !keys.contains(name))
    }

    /// The members without braces and without `_meta`: the values of `replace` are put in place
    /// (appended when absent), those of `drop` left out, and every other byte is kept.
    #[must_use]
    pub fn splice(&self, replace: &[(&str, &[u8])], drop: &[&str]) -> Bytes {
        let added: usize = replace.iter().map(|(key, value)| key.len() + value.len() + 4).sum();
        let kept: usize = self.members.iter().map(|member| member.whole().len() + 1).sum();
        let mut out = Vec::with_capacity(kept + added);
        for member in &self.members {
            let key = member.key(&self.body);
            if key == "_meta" || drop.contains(&key) {
                continue;
            }
            if !out.is_empty() {
                out.push(b',');
            }
            let new = replace.iter().find(|(name, _)| *name == key);
            let whole = member.whole();
            let end = if new.is_some() { member.range().start } else { whole.end };
            out.extend_from_slice(self.body.get(whole.start..end).unwrap_or_default());
            if let Some((_, value)) = new {
                out.extend_from_slice(value);
            }
        }
        for (key, value) in replace {
            if self.get(key).is_none() && !drop.contains(key) {
                if !out.is_empty() {
                    out.push(b',');
                }
                json::push_text(&mut out, key);
                out.push(b':');
                out.extend_from_slice(value);
            }
        }
        Bytes::from(out)
    }
}
