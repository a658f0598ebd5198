//! Messages of the upstream's that are rewritten whole: its notifications and its requests.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use super::{Malformed, Rewriter, Rules, UriWrap};
use crate::mcp::envelope::Id;
use crate::mcp::era::{Era, Revision};
use crate::mcp::json;
use crate::mcp::meta::PROGRESS_TOKEN;

/// Readdresses a request of the upstream's (`sampling/createMessage`, `elicitation/create`,
/// `roots/list`): its id, and the URIs in the messages that it shows.
///
/// # Errors
/// [`Malformed`]
pub fn rewrite_request(raw: &[u8], id: Id, uris: Option<UriWrap>) -> Result<Bytes, Malformed> {
    let mut rewriter = Rewriter::new(Rules { uris, ..Rules::new(id, Revision::LATEST_LEGACY, Era::Legacy) });
    rewriter.request = true;
    let mut out = BytesMut::with_capacity(raw.len() + 64);
    rewriter.feed(raw, &mut out)?;
    rewriter.finish()?;
    Ok(out.freeze())
}

/// Restores the client's progress token, JSON text for JSON text. `None` when there is none.
#[must_use]
pub fn rewrite_progress(raw: &Bytes, token: &[u8]) -> Option<Bytes> {
    json::member(json::member(raw, "params")?, PROGRESS_TOKEN)?;
    splice_path(raw, &["params", PROGRESS_TOKEN], token)
}

/// The resource that a `notifications/resources/updated` is about.
#[must_use]
pub fn updated_uri(raw: &[u8]) -> Option<Cow<'_, str>> {
    json::text(json::member(json::member(raw, "params")?, "uri")?)
}

impl UriWrap {
    /// Wraps `params.uri` of `notifications/resources/updated`.
    #[must_use]
    pub fn wrap_updated(&self, raw: &Bytes) -> Option<Bytes> {
        let uri = updated_uri(raw)?;
        splice_path(raw, &["params", "uri"], &super::quoted(&self.apply(&uri)))
    }
}

/// Values that one completion may have (server/utilities/completion).
const MOST_VALUES: usize = 100;

/// A response to `completion/complete` with at most 100 values.
#[must_use]
pub fn cut_completion(raw: &Bytes) -> Bytes {
    let cut = || {
        let path = ["result", "completion", "values"];
        let values = path.iter().try_fold(raw.as_ref(), |object, name| json::member(object, name))?;
        let kept = json::elements(values).filter(|values| values.len() > MOST_VALUES)?;
        let kept = [b"[", kept.get(..MOST_VALUES)?.join(&b',').as_slice(), b"]"].concat();
        splice_path(&splice_path(raw, &path, &kept)?, &["result", "completion", "hasMore"], b"true")
    };
    cut().unwrap_or_else(|| raw.clone())
}

/// Sets the value at a path of member names; what is missing of the path is made, every other byte
/// is kept. `None` when the path leads through something that is no object.
#[must_use]
pub fn splice_path(raw: &Bytes, path: &[&str], new: &[u8]) -> Option<Bytes> {
    let mut object: &[u8] = raw;
    for (step, name) in path.iter().enumerate() {
        let members = json::members(object)?;
        if let Some((_, value)) = members.iter().find(|(key, _)| key == name) {
            object = value;
            continue;
        }
        let open = object.iter().position(|byte| *byte == b'{')? + 1;
        let mut text = nested(path.get(step..)?, new);
        if !members.is_empty() {
            text.push(b',');
        }
        return replace(raw, object.get(open..open)?, &text);
    }
    replace(raw, object, new)
}

/// `"a":{"b":new}`
fn nested(path: &[&str], new: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for (depth, name) in path.iter().enumerate() {
        if depth > 0 {
            text.push(b'{');
        }
        json::push_text(&mut text, name);
        text.push(b':');
    }
    text.extend_from_slice(new);
    text.extend(std::iter::repeat_n(b'}', path.len().saturating_sub(1)));
    text
}

/// Takes the member at a path out; a message that has none comes back as it was.
#[must_use]
pub fn remove_path(raw: &Bytes, path: &[&str]) -> Bytes {
    let remove = || {
        let (last, parents) = path.split_last()?;
        let object = parents.iter().try_fold(raw.as_ref(), |object, name| json::member(object, name))?;
        let members = json::members(object)?;
        if !members.iter().any(|(key, _)| key == last) {
            return None;
        }
        let mut text = vec![b'{'];
        for (key, value) in members.iter().filter(|(key, _)| key != last) {
            if text.len() > 1 {
                text.push(b',');
            }
            json::push_text(&mut text, key);
            text.push(b':');
            text.extend_from_slice(value);
        }
        text.push(b'}');
        replace(raw, object, &text)
    };
    remove().unwrap_or_else(|| raw.clone())
}

/// Puts `new` where `old`, a slice of `whole`, stands.
fn replace(whole: &Bytes, old: &[u8], new: &[u8]) -> Option<Bytes> {
    let start = (old.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let mut out = Vec::with_capacity(whole.len() + new.len());
    out.extend_from_slice(whole.get(..start)?);
    out.extend_from_slice(new);
    out.extend_from_slice(whole.get(start + old.len()..)?);
    Some(Bytes::from(out))
}
