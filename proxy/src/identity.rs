//! Who calls: the credentials of a request against the keys of its gateway.
//!
//! Keys are compared as SHA-256 hashes by table look-up, so no comparison depends on how much of a key is right.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use http::header::{AUTHORIZATION, HeaderMap};
use mcpmesh_ir::ApiKey;
use mcpmesh_ir::gateway::Anonymous;
use mcpmesh_ir::id::GatewayId;
use mcpmesh_ir::policy::{Caller, Identity, Issuer, Prepared};
use sha2::{Digest, Sha256};

/// What a caller showed, kept so that a long stream can ask again after a change of configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Credential {
    /// Nothing.
    None,
    /// An API key, by its hash.
    ApiKey([u8; 32]),
}

/// Why a request is nobody's. Each is a value of the metric's `reason` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No credentials, and the gateway wants some.
    #[error("credentials required: send `Authorization: Bearer <API key>`")]
    Missing,
    /// Not one well-formed `Bearer` credential.
    #[error("the Authorization header is not one `Bearer` credential")]
    Malformed,
    /// No such key.
    #[error("the API key is not known here")]
    Unknown,
    /// A key past its date.
    #[error("the API key has expired")]
    Expired,
}

impl Refusal {
    /// A fixed word for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing_credentials",
            Self::Malformed => "malformed_credentials",
            Self::Unknown => "unknown_credentials",
            Self::Expired => "expired_credentials",
        }
    }
}

/// The keys of one gateway.
#[derive(Debug)]
pub struct KeyTable {
    anonymous: Anonymous,
    anyone: Known,
    keys: HashMap<[u8; 32], Known>,
}

#[derive(Debug)]
struct Known {
    identity: Identity,
    expires: Option<i64>,
    /// Made by the first request: what the rules say of an identity is the same for all of its requests.
    caller: OnceLock<Arc<Caller>>,
}

impl Known {
    fn new(identity: Identity, expires: Option<i64>) -> Self {
        Self { identity, expires, caller: OnceLock::new() }
    }
}

impl KeyTable {
    /// A key whose hash is no SHA-256 is left out and returned.
    pub fn new(gateway: GatewayId, anonymous: Anonymous, keys: &[ApiKey]) -> (Self, Vec<&ApiKey>) {
        let mut table = HashMap::with_capacity(keys.len());
        let mut rejected = Vec::new();
        for key in keys {
            let mut hash = [0; 32];
            if hex::decode_to_slice(&key.sha256, &mut hash).is_err() {
                rejected.push(key);
                continue;
            }
            let identity = Identity {
                gateway: gateway.clone(),
                issuer: Issuer::ApiKey,
                user: Some(key.owner.clone()),
                groups: key.groups.clone(),
            };
            table.insert(hash, Known::new(identity, key.expires));
        }
        let anyone = Known::new(Identity::anonymous(gateway), None);
        (Self { anonymous, anyone, keys: table }, rejected)
    }

    /// Reads the credentials of a request.
    pub fn credential(headers: &HeaderMap) -> Result<Credential, Refusal> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Ok(Credential::None) };
        if values.next().is_some() {
            return Err(Refusal::Malformed);
        }
        let (scheme, key) = value.as_bytes().split_at_checked(7).ok_or(Refusal::Malformed)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") || key.trim_ascii().is_empty() {
            return Err(Refusal::Malformed);
        }
        Ok(Credential::ApiKey(Sha256::digest(key.trim_ascii()).into()))
    }

    /// When they stop being anybody's, in seconds since the Unix epoch.
    #[must_use]
    pub fn expires(&self, credential: Credential) -> Option<i64> {
        match credential {
            Credential::None => None,
            Credential::ApiKey(hash) => self.keys.get(&hash).and_then(|known| known.expires),
        }
    }

    /// Whose credentials they are at `now` (seconds since the Unix epoch), as `policy` classes them: always the
    /// policy of this table's own configuration.
    pub fn caller(
        &self,
        credential: Credential,
        now: i64,
        policy: &Prepared,
    ) -> Result<Arc<Caller>, Refusal> {
        let known = self.known(credential, now)?;
        let caller = known.caller.get_or_init(|| Arc::new(policy.caller(known.identity.clone())));
        Ok(Arc::clone(caller))
    }

    fn known(&self, credential: Credential, now: i64) -> Result<&Known, Refusal> {
        match credential {
            Credential::None => match self.anonymous {
                Anonymous::Allow => Ok(&self.anyone),
                Anonymous::Deny => Err(Refusal::Missing),
            },
            Credential::ApiKey(hash) => {
                let known = self.keys.get(&hash).ok_or(Refusal::Unknown)?;
                if known.expires.is_some_and(|expires| now >= expires) {
                    return Err(Refusal::Expired);
                }
                Ok(known)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn table(anonymous: Anonymous, expires: Option<i64>) -> KeyTable {
        let key = ApiKey {
            secret: mcpmesh_ir::SecretId::new("a", "k"),
            sha256: hex::encode(Sha256::digest(b"s3cret")),
            owner: "alice".to_owned(),
            groups: vec!["finance".to_owned()],
            expires,
        };
        KeyTable::new(GatewayId::new("a", "gw"), anonymous, &[key]).0
    }

    fn ask(table: &KeyTable, values: &[&str], now: i64) -> Result<Option<String>, Refusal> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        let credential = KeyTable::credential(&headers)?;
        table.known(credential, now).map(|known| known.identity.user.clone())
    }

    #[test]
    fn a_known_key_is_its_owner_in_any_case_of_the_scheme() {
        let table = table(Anonymous::Deny, None);
        for scheme in ["Bearer", "bearer", "BEARER"] {
            assert_eq!(ask(&table, &[&format!("{scheme} s3cret")], 0), Ok(Some("alice".to_owned())));
        }
    }

    #[test]
    fn an_unknown_or_malformed_credential_is_never_anonymous() {
        let table = table(Anonymous::Allow, None);
        assert_eq!(ask(&table, &["Bearer S3cret"], 0), Err(Refusal::Unknown));
        for values in [&["Basic s3cret"][..], &["Bearer"], &["Bearer  "], &["Bearer s3cret", "Bearer s3cret"]]
        {
            assert_eq!(ask(&table, values, 0), Err(Refusal::Malformed), "{values:?}");
        }
    }

    #[test]
    fn without_credentials_the_gateway_decides() {
        assert_eq!(ask(&table(Anonymous::Allow, None), &[], 0), Ok(None));
        assert_eq!(ask(&table(Anonymous::Deny, None), &[], 0), Err(Refusal::Missing));
    }

    #[test]
    fn a_key_is_refused_from_its_expiry_on() {
        let table = table(Anonymous::Deny, Some(100));
        assert!(ask(&table, &["Bearer s3cret"], 99).is_ok());
        assert_eq!(ask(&table, &["Bearer s3cret"], 100), Err(Refusal::Expired));
    }
}
