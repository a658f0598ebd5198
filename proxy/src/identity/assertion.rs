//! Callers that a gateway vouches for: the header that it sends to sidecars, on both ends.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue};
use mcpmesh_ir::GatewayId;
use mcpmesh_ir::gateway::{ASSERTION_HEADER, Assertion};
use mcpmesh_ir::policy::Identity;

/// The header's name.
pub(crate) const HEADER: HeaderName = HeaderName::from_static(ASSERTION_HEADER);

/// Reads what a peer asserts. It speaks for callers that it authenticated itself, never for another gateway's.
pub(super) fn read(headers: &HeaderMap, peer: &GatewayId) -> Option<Assertion> {
    let mut values = headers.get_all(HEADER).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let raw = URL_SAFE_NO_PAD.decode(value.as_bytes()).ok()?;
    let assertion: Assertion = serde_json::from_slice(&raw).ok()?;
    (assertion.identity.gateway == *peer).then_some(assertion)
}

/// Writes what a gateway asserts of one caller. It names people: it stays out of Debug output.
pub(crate) fn of_caller(identity: &Identity) -> Option<HeaderValue> {
    write(&Assertion { identity: identity.clone(), observer: false })
}

/// Writes that a gateway asks for itself, to know what there is.
pub(crate) fn of_observer(gateway: GatewayId) -> Option<HeaderValue> {
    write(&Assertion { identity: Identity::anonymous(gateway), observer: true })
}

fn write(assertion: &Assertion) -> Option<HeaderValue> {
    let text = URL_SAFE_NO_PAD.encode(serde_json::to_vec(assertion).ok()?);
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
