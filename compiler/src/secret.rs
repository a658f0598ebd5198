//! References to Secrets: found or not, and only the keys that are referenced travel (decisions.md 7 and 10).

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit, Mac};
use mcpmesh_ir::resource::{self, Resource};
use mcpmesh_ir::{SecretId, Version, secret};
use serde::Serialize;
use sha2::Sha256;

use crate::diagnostic::{Findings, Reason};
use crate::inputs::{Inputs, Secret};

/// A key of a Secret.
pub(crate) type KeyRef = (SecretId, String);

/// Finds a Secret of the referring object's namespace; `path` is that of its name.
pub(crate) fn find<'i>(
    inputs: &'i Inputs,
    id: &SecretId,
    path: &str,
    findings: &mut Findings,
) -> Option<&'i Secret> {
    let found = inputs.secret(id);
    if found.is_none() {
        findings.error(
            path,
            Reason::SecretNotFound,
            format!("no Secret {id}"),
            "create it, or correct the name",
        );
    }
    found
}

/// A key's value as text. `path` is that of the reference.
pub(crate) fn value<'i>(
    inputs: &'i Inputs,
    (id, key): (&SecretId, &str),
    path: &str,
    findings: &mut Findings,
) -> Option<&'i str> {
    let secret = find(inputs, id, &format!("{path}.name"), findings)?;
    let Some(bytes) = secret.data.get(key) else {
        let keys: Vec<_> = secret.data.keys().map(String::as_str).collect();
        let help = format!("it has {}", if keys.is_empty() { "no keys".to_owned() } else { keys.join(", ") });
        let message = format!("Secret {id} has no key {key:?}");
        findings.error(&format!("{path}.key"), Reason::SecretNotFound, message, &help);
        return None;
    };
    let text = std::str::from_utf8(bytes).ok();
    if text.is_none() {
        let message = format!("key {key:?} of Secret {id} is not text");
        findings.error(&format!("{path}.key"), Reason::InvalidSecret, message, "store UTF-8 text there");
    }
    text
}

/// The Secret resources that hold these keys and no others.
pub(crate) fn resources<'k>(
    inputs: &Inputs,
    keys: impl Iterator<Item = &'k KeyRef>,
) -> Result<Vec<Resource>, resource::Error> {
    let mut bodies: BTreeMap<&SecretId, secret::Secret> = BTreeMap::new();
    for (id, key) in keys {
        let bytes = inputs.secret(id).and_then(|secret| secret.data.get(key));
        let Some(text) = bytes.and_then(|bytes| String::from_utf8(bytes.clone()).ok()) else { continue };
        let body = bodies.entry(id).or_insert_with(|| secret::Secret { data: BTreeMap::new() });
        body.data.insert(key.clone(), text);
    }
    bodies.iter().map(|(id, body)| versioned(&inputs.install.version_key, id, body)).collect()
}

/// Versions a Secret by its content.
fn versioned(key: &[u8; 32], id: &SecretId, body: &secret::Secret) -> Result<Resource, resource::Error> {
    let name = id.to_string();
    let mac = keyed(key, &(&name, body))?;
    Resource::with_version(name, body, Version::keyed(&mac))
}

/// The hex form of a keyed hash.
pub(crate) fn digest<T: Serialize>(key: &[u8; 32], content: &T) -> Result<String, resource::Error> {
    keyed(key, content).map(hex::encode)
}

/// A keyed hash: with a plain one, whoever sees it could try out likely values.
fn keyed<T: Serialize>(key: &[u8; 32], content: &T) -> Result<[u8; 32], resource::Error> {
    // RFC 2104: a key shorter than a block is filled up with zeros.
    let mut block = [0; 64];
    block.iter_mut().zip(key).for_each(|(byte, key)| *byte = *key);
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(resource::canonical(content)?.get().as_bytes());
    Ok(mac.finalize().into_bytes().into())
}
