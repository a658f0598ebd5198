//! Who calls: the credentials of a request against the keys, issuers and peers of its gateway.
//!
//! Keys are compared as SHA-256 hashes by table look-up, so no comparison depends on how much of a key is right.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderMap};
use mcpmesh_ir::gateway::{Anonymous, Assertion};
use mcpmesh_ir::id::GatewayId;
use mcpmesh_ir::policy::{Caller, Identity, Issuer, Prepared};
use mcpmesh_ir::{ApiKey, FleetId, Gateway, TokenIssuer};
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

pub(crate) mod assertion;
mod token;

use token::Verifier;

/// Verified tokens and asserted callers that are remembered.
const REMEMBERED: usize = 4096;

/// How a request came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// By a listener for everybody: credentials count.
    Open,
    /// By a listener for peers alone: the fleet of the client's certificate counts, and its word.
    Mesh(Option<FleetId>),
}

/// What a caller showed, kept so that a long stream can ask again after a change of configuration.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// Nothing.
    None,
    /// An API key, by its hash.
    ApiKey([u8; 32]),
    /// A token of an issuer, and its hash.
    Token(Arc<str>, [u8; 32]),
    /// A gateway that showed its certificate, and for whom it says to call; none: it does not say.
    Peer(GatewayId, Option<Arc<Assertion>>),
}

/// Without what would let somebody else show it.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::ApiKey(_) => "ApiKey",
            Self::Token(..) => "Token",
            Self::Peer(..) => "Peer",
        })
    }
}

impl Credential {
    /// Whether a gateway asks for itself ([`Assertion::observer`]).
    #[must_use]
    pub fn observes(&self) -> bool {
        matches!(self, Self::Peer(_, Some(assertion)) if assertion.observer)
    }
}

/// Why a request is nobody's. Each is a value of the metric's `reason` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No credentials, and the gateway wants some.
    #[error("credentials required: send `Authorization: Bearer <API key or token>`")]
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
    /// A token that does not hold here and now.
    #[error("the token is not valid here")]
    Token,
    /// Not a gateway that may come here.
    #[error("only gateways that this server is attached to are let in")]
    Stranger,
    /// A gateway that does not say for whom it calls.
    #[error("the request does not say for whom it is made")]
    Unasserted,
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
            Self::Token => "invalid_token",
            Self::Stranger => "unknown_peer",
            Self::Unasserted => "malformed_assertion",
        }
    }

    /// The HTTP status of the answer.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Missing | Self::Malformed | Self::Unknown | Self::Expired | Self::Token => {
                StatusCode::UNAUTHORIZED
            }
            Self::Stranger => StatusCode::FORBIDDEN,
            Self::Unasserted => StatusCode::BAD_REQUEST,
        }
    }
}

/// Those whom one gateway knows.
#[derive(Debug)]
pub struct KeyTable {
    gateway: GatewayId,
    anonymous: Anonymous,
    anyone: Arc<Known>,
    keys: HashMap<[u8; 32], Arc<Known>>,
    /// By `iss`.
    issuers: HashMap<String, Verifier>,
    peers: HashSet<GatewayId>,
    /// Tokens that were verified, by their hashes.
    tokens: Cache<[u8; 32], Arc<Known>>,
    asserted: Cache<Identity, Arc<Known>>,
}

#[derive(Debug)]
struct Known {
    identity: Identity,
    expires: Option<i64>,
    /// Made by the first request: what the rules say of an identity is the same for all of its requests.
    caller: OnceLock<Arc<Caller>>,
}

impl Known {
    fn new(identity: Identity, expires: Option<i64>) -> Arc<Self> {
        Arc::new(Self { identity, expires, caller: OnceLock::new() })
    }

    fn has_expired(&self, now: i64) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }
}

impl KeyTable {
    /// A key whose hash is no SHA-256 is left out and returned.
    pub fn new<'k>(gateway: &Gateway, keys: &'k [ApiKey]) -> (Self, Vec<&'k ApiKey>) {
        let id = &gateway.id;
        let mut table = HashMap::with_capacity(keys.len());
        let mut rejected = Vec::new();
        for key in keys {
            let mut hash = [0; 32];
            if hex::decode_to_slice(&key.sha256, &mut hash).is_err() {
                rejected.push(key);
                continue;
            }
            let identity = Identity {
                gateway: id.clone(),
                issuer: Issuer::ApiKey,
                user: Some(key.owner.clone()),
                groups: key.groups.clone(),
            };
            table.insert(hash, Known::new(identity, key.expires));
        }
        let table = Self {
            gateway: id.clone(),
            anonymous: gateway.anonymous,
            anyone: Known::new(Identity::anonymous(id.clone()), None),
            keys: table,
            issuers: HashMap::new(),
            peers: gateway.peers.iter().cloned().collect(),
            tokens: Cache::new(REMEMBERED),
            asserted: Cache::new(REMEMBERED),
        };
        (table, rejected)
    }

    /// Takes an issuer's tokens, too.
    ///
    /// # Errors
    /// Why its keys cannot be used.
    pub fn trust(&mut self, issuer: &TokenIssuer) -> Result<(), String> {
        self.issuers.insert(issuer.issuer.clone(), Verifier::new(issuer)?);
        Ok(())
    }

    /// Reads the credentials of a request. Where only peers come, their word alone counts, and nowhere else.
    pub fn credential(headers: &HeaderMap, arrival: &Arrival) -> Result<Credential, Refusal> {
        match arrival {
            Arrival::Open => Self::bearer(headers),
            // Whether it may come is the table's to say, and comes first: a stranger learns nothing more.
            Arrival::Mesh(Some(FleetId::Gateway(peer))) => {
                Ok(Credential::Peer(peer.clone(), assertion::read(headers, peer).map(Arc::new)))
            }
            Arrival::Mesh(_) => Err(Refusal::Stranger),
        }
    }

    fn bearer(headers: &HeaderMap) -> Result<Credential, Refusal> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Ok(Credential::None) };
        if values.next().is_some() {
            return Err(Refusal::Malformed);
        }
        let (scheme, key) = value.as_bytes().split_at_checked(7).ok_or(Refusal::Malformed)?;
        let key = key.trim_ascii();
        if !scheme.eq_ignore_ascii_case(b"bearer ") || key.is_empty() {
            return Err(Refusal::Malformed);
        }
        let hash = Sha256::digest(key).into();
        match std::str::from_utf8(key) {
            Ok(text) if token::is_token(text) => Ok(Credential::Token(text.into(), hash)),
            _ => Ok(Credential::ApiKey(hash)),
        }
    }

    /// When they stop being anybody's, in seconds since the Unix epoch.
    #[must_use]
    pub fn expires(&self, credential: &Credential, now: i64) -> Option<i64> {
        match self.known(credential, now) {
            Ok(known) => known.expires,
            Err(_) => Some(0),
        }
    }

    /// Whose credentials they are at `now` (seconds since the Unix epoch), as `policy` classes them: always the
    /// policy of this table's own configuration.
    pub fn caller(
        &self,
        credential: &Credential,
        now: i64,
        policy: &Prepared,
    ) -> Result<Arc<Caller>, Refusal> {
        let known = self.known(credential, now)?;
        let caller = known.caller.get_or_init(|| Arc::new(policy.caller(known.identity.clone())));
        Ok(Arc::clone(caller))
    }

    fn known(&self, credential: &Credential, now: i64) -> Result<Arc<Known>, Refusal> {
        match credential {
            Credential::None => match self.anonymous {
                Anonymous::Allow => Ok(Arc::clone(&self.anyone)),
                Anonymous::Deny => Err(Refusal::Missing),
            },
            Credential::ApiKey(hash) => {
                let known = self.keys.get(hash).ok_or(Refusal::Unknown)?;
                if known.has_expired(now) { Err(Refusal::Expired) } else { Ok(Arc::clone(known)) }
            }
            Credential::Token(text, hash) => {
                let known = self.tokens.get(hash).or_else(|| self.verified(text, *hash, now));
                known.filter(|known| !known.has_expired(now)).ok_or(Refusal::Token)
            }
            Credential::Peer(peer, assertion) => {
                if !self.peers.contains(peer) {
                    return Err(Refusal::Stranger);
                }
                let identity = &assertion.as_ref().ok_or(Refusal::Unasserted)?.identity;
                Ok(self.asserted.get(identity).unwrap_or_else(|| {
                    let known = Known::new(identity.clone(), None);
                    self.asserted.insert(identity.clone(), Arc::clone(&known));
                    known
                }))
            }
        }
    }

    fn verified(&self, text: &str, hash: [u8; 32], now: i64) -> Option<Arc<Known>> {
        let verifier = self.issuers.get(&token::claimed_issuer(text)?)?;
        let token::Verified { identity, expires } = verifier.verify(text, &self.gateway, now)?;
        let known = Known::new(identity, Some(expires));
        self.tokens.insert(hash, Arc::clone(&known));
        Some(known)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use http::HeaderValue;

    use super::*;

    pub(in crate::identity) fn gateway(anonymous: Anonymous) -> Gateway {
        Gateway {
            id: GatewayId::new("a", "gw"),
            uid: String::new(),
            listeners: vec![],
            servers: vec![],
            naming: mcpmesh_ir::gateway::Naming::Always,
            anonymous,
            api_keys: vec![],
            token_issuers: vec![],
            peers: vec![],
            levels: vec![],
        }
    }

    fn table(anonymous: Anonymous, expires: Option<i64>) -> KeyTable {
        let key = ApiKey {
            secret: mcpmesh_ir::SecretId::new("a", "k"),
            sha256: hex::encode(Sha256::digest(b"s3cret")),
            owner: "alice".to_owned(),
            groups: vec!["finance".to_owned()],
            expires,
        };
        KeyTable::new(&gateway(anonymous), &[key]).0
    }

    fn ask(table: &KeyTable, values: &[&str], now: i64) -> Result<Option<String>, Refusal> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        let credential = KeyTable::credential(&headers, &Arrival::Open)?;
        table.known(&credential, now).map(|known| known.identity.user.clone())
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
