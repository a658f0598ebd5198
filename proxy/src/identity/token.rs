//! Tokens of issuers whose keys are in the configuration: JSON Web Tokens (RFC 7519), verified without a network.
//!
//! The key decides the algorithm, never the token. Whatever a token says that is not understood refuses it.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use mcpmesh_ir::TokenIssuer;
use mcpmesh_ir::id::GatewayId;
use mcpmesh_ir::policy::{Identity, Issuer};
use serde::Deserialize;

/// Seconds that clocks may differ.
const LEEWAY: i64 = 60;

/// An issuer's keys by their ids.
#[derive(Debug)]
pub(super) struct Verifier {
    audiences: Vec<String>,
    keys: HashMap<String, (DecodingKey, Algorithm)>,
}

/// A verified token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verified {
    pub(super) identity: Identity,
    /// From when on it is refused, in seconds since the Unix epoch.
    pub(super) expires: i64,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audiences,
    exp: f64,
    nbf: Option<f64>,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct Kubernetes {
    namespace: Option<String>,
}

impl Verifier {
    /// Keys of unknown kinds are left out; without any other the issuer cannot be used, and why is returned.
    pub(super) fn new(issuer: &TokenIssuer) -> Result<Self, String> {
        let set: KeySet = serde_json::from_str(issuer.keys.get())
            .map_err(|error| format!("its keys are no JSON Web Key Set: {error}"))?;
        let keys: HashMap<_, _> = set.keys.into_iter().filter_map(usable).collect();
        if keys.is_empty() {
            return Err(
                "none of its keys can verify a token: public keys with a key id are needed".to_owned()
            );
        }
        Ok(Self { audiences: issuer.audiences.clone(), keys })
    }

    /// The identity that a token proves at `now` (seconds since the Unix epoch).
    pub(super) fn verify(&self, token: &str, gateway: &GatewayId, now: i64) -> Option<Verified> {
        let head = head(token)?;
        let (key, algorithm) = self.keys.get(&head.kid?)?;
        // An extension that must be understood is not (RFC 7515, section 4.1.11).
        if head.crit.is_some() {
            return None;
        }
        let mut validation = Validation::new(*algorithm);
        // Times and audiences are judged below, against the clock that was given.
        validation.validate_exp = false;
        validation.validate_aud = false;
        let claims: Claims = jsonwebtoken::decode(token, key, &validation).ok()?.claims;
        let named = match &claims.aud {
            Audiences::One(one) => std::slice::from_ref(one),
            Audiences::Many(many) => many,
        };
        let meant = named.iter().any(|one| self.audiences.contains(one));
        let expires = seconds(claims.exp)?.saturating_add(LEEWAY);
        let begun = match claims.nbf {
            Some(nbf) => now >= seconds(nbf)?.saturating_sub(LEEWAY),
            None => true,
        };
        if !meant || !begun || now >= expires || claims.sub.is_empty() {
            return None;
        }
        let groups = claims.kubernetes.and_then(|known| known.namespace).map(|namespace| {
            vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
        });
        let identity = Identity {
            gateway: gateway.clone(),
            issuer: Issuer::Token(claims.iss),
            user: Some(claims.sub),
            groups: groups.unwrap_or_default(),
        };
        Some(Verified { identity, expires })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "saturates; what is no number of seconds is refused")]
fn seconds(date: f64) -> Option<i64> {
    date.is_finite().then_some(date as i64)
}

fn head(token: &str) -> Option<Head> {
    let raw = URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?;
    serde_json::from_slice(&raw).ok()
}

/// Whether a credential has the form of a token: three parts in base64url, the first of which reads as a header. It is
/// never looked up as an API key then.
pub(super) fn is_token(credential: &str) -> bool {
    let parts: Vec<_> = credential.split('.').collect();
    let encoded =
        |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    parts.len() == 3
        && parts.iter().all(|part| encoded(part))
        && head(credential).is_some_and(|head| !head.alg.is_empty())
}

/// The issuer that a token names. Nobody has verified it yet.
pub(super) fn claimed_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        iss: String,
    }
    let raw = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Named>(&raw).ok().map(|named| named.iss)
}

/// A key with its id and the only algorithm that it verifies.
fn usable(key: serde_json::Value) -> Option<(String, (DecodingKey, Algorithm))> {
    let key: Jwk = serde_json::from_value(key).ok()?;
    let id = key.common.key_id.clone()?;
    if key.common.public_key_use.as_ref().is_some_and(|used| *used != PublicKeyUse::Signature) {
        return None;
    }
    let named = key.common.key_algorithm;
    let algorithm = match (&key.algorithm, named) {
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::RS256) | None) => Algorithm::RS256,
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::RS384)) => Algorithm::RS384,
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::RS512)) => Algorithm::RS512,
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::PS256)) => Algorithm::PS256,
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::PS384)) => Algorithm::PS384,
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::PS512)) => Algorithm::PS512,
        (AlgorithmParameters::EllipticCurve(curve), Some(KeyAlgorithm::ES256) | None)
            if curve.curve == EllipticCurve::P256 =>
        {
            Algorithm::ES256
        }
        (AlgorithmParameters::EllipticCurve(curve), Some(KeyAlgorithm::ES384) | None)
            if curve.curve == EllipticCurve::P384 =>
        {
            Algorithm::ES384
        }
        (AlgorithmParameters::OctetKeyPair(pair), Some(KeyAlgorithm::EdDSA) | None)
            if pair.curve == EllipticCurve::Ed25519 =>
        {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    Some((id, (DecodingKey::from_jwk(&key).ok()?, algorithm)))
}

#[cfg(test)]
mod tests;
