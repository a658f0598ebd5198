//! The headers that mirror the body (2026-07-28, Streamable HTTP, "Request metadata"; SEP-2243).
//! The body decides; headers are only compared with it.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;

use super::envelope::{Message, Method, Params, Request};
use super::era::{METHOD, NAME, single};
use super::fault::Fault;

mod params;

pub use params::{Invalid, ParamHeaders};

const OPEN: &str = "=?base64?";
const CLOSE: &str = "?=";

/// Writes a value as a header may carry it: as it stands when it is visible ASCII with inner blanks
/// and cannot be taken for the encoded form, else in base64 between markers.
#[must_use]
pub fn encode(value: &str) -> Cow<'_, str> {
    let plain = value.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    let blank = |c: char| c == ' ' || c == '\t';
    let marked = value.starts_with(OPEN) && value.ends_with(CLOSE);
    if plain && !value.starts_with(blank) && !value.ends_with(blank) && !marked {
        return Cow::Borrowed(value);
    }
    Cow::Owned(format!("{OPEN}{}{CLOSE}", STANDARD.encode(value)))
}

/// Reads a header's value. A value that lacks either marker is literal.
///
/// # Errors
/// [`Malformed`] for base64 that is not strict or not UTF-8, and for characters that
/// a literal may not hold.
pub fn decode(value: &str) -> Result<Cow<'_, str>, Malformed> {
    let value = value.trim_matches([' ', '\t']);
    let inner = value.strip_prefix(OPEN).and_then(|rest| rest.strip_suffix(CLOSE));
    let Some(inner) = inner else {
        let literal = value.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
        return if literal { Ok(Cow::Borrowed(value)) } else { Err(Malformed) };
    };
    let bytes = STANDARD.decode(inner).map_err(|_| Malformed)?;
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Malformed)
}

/// A header's value is not what the codec writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed header value")]
pub struct Malformed;

/// Holds `Mcp-Method` and `Mcp-Name` of a modern request to its body.
///
/// # Errors
/// -32020 when one is missing, repeated, malformed or different.
pub fn verify(headers: &HeaderMap, request: &Request) -> Result<(), Fault> {
    match single(headers, &METHOD)? {
        Some(method) if method == request.method.as_str() => {}
        Some(_) => return Err(Fault::HeaderMismatch("Mcp-Method does not match the body".into())),
        None => return Err(Fault::HeaderMismatch("Mcp-Method is required".into())),
    }
    verify_name(headers, &request.method, &request.params, true)
}

/// Legacy messages need none of these headers, but one that lies may mislead what stood before us.
///
/// # Errors
/// -32020 when one is there and differs.
pub fn verify_if_present(headers: &HeaderMap, message: &Message) -> Result<(), Fault> {
    let (method, params) = match message {
        Message::Request(request) => (&request.method, &request.params),
        Message::Notification(said) => (&said.method, &said.params),
        Message::Response(_) => return Ok(()),
    };
    match single(headers, &METHOD)? {
        Some(text) if text != method.as_str() => {
            return Err(Fault::HeaderMismatch("Mcp-Method does not match the body".into()));
        }
        _ => {}
    }
    verify_name(headers, method, params, false)
}

fn verify_name(headers: &HeaderMap, method: &Method, params: &Params, required: bool) -> Result<(), Fault> {
    let Some(member) = method.name_member() else { return Ok(()) };
    let header = single(headers, &NAME)?;
    if header.is_none() && !required {
        return Ok(());
    }
    let Some(expected) = params.str(member)? else {
        // The body lacks what the method needs; that is the method's fault to tell.
        return Ok(());
    };
    let header = header.ok_or_else(|| Fault::HeaderMismatch("Mcp-Name is required".into()))?;
    match decode(header) {
        Ok(name) if name == expected => Ok(()),
        Ok(_) => Err(Fault::HeaderMismatch("Mcp-Name does not match the body".into())),
        Err(Malformed) => Err(Fault::HeaderMismatch("Mcp-Name is malformed".into())),
    }
}

#[cfg(test)]
mod tests;
