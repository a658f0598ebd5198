//! Small messages that are rewritten whole: notifications and requests from upstream.

use bytes::Bytes;

use super::UriWrap;
use crate::mcp::json;

/// Rebuilds a message with the value of one `params` member made anew; other bytes are kept.
/// `None` when the message has no such member.
#[must_use]
pub fn rewrite_params(raw: &Bytes, key: &str, new: &[u8]) -> Option<Bytes> {
    let params = json::member(raw, "params")?;
    let old = json::member(params, key)?;
    Some(splice(raw, old, new))
}

/// Restores the client's progress token, JSON text for JSON text.
#[must_use]
pub fn rewrite_progress(raw: &Bytes, token: &[u8]) -> Option<Bytes> {
    rewrite_params(raw, super::super::meta::PROGRESS_TOKEN, token)
}

impl UriWrap {
    /// Wraps `params.uri` of `notifications/resources/updated`.
    #[must_use]
    pub fn wrap_updated(&self, raw: &Bytes) -> Option<Bytes> {
        let uri = json::text(json::member(json::member(raw, "params")?, "uri")?)?;
        rewrite_params(raw, "uri", &super::quoted(&self.apply(&uri)))
    }
}

/// Replaces a slice of `whole` by other bytes.
fn splice(whole: &Bytes, old: &[u8], new: &[u8]) -> Bytes {
    let place = whole.slice_ref(old);
    let start = place.as_ptr() as usize - whole.as_ptr() as usize;
    let mut out = Vec::with_capacity(whole.len() + new.len());
    out.extend_from_slice(whole.get(..start).unwrap_or_default());
    out.extend_from_slice(new);
    out.extend_from_slice(whole.get(start + old.len()..).unwrap_or_default());
    Bytes::from(out)
}
