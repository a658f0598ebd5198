//! An issuer of tokens with the keys that verify them.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::resource::{Body, ResourceKind};

/// Whose tokens a gateway takes, and how they are verified: without a network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenIssuer {
    /// `iss`, exactly.
    pub issuer: String,
    /// One of these must be among the token's audiences.
    pub audiences: Vec<String>,
    /// A JSON Web Key Set (RFC 7517): public keys only.
    pub keys: Box<RawValue>,
}

impl PartialEq for TokenIssuer {
    fn eq(&self, other: &Self) -> bool {
        (&self.issuer, &self.audiences, self.keys.get())
            == (&other.issuer, &other.audiences, other.keys.get())
    }
}

impl Eq for TokenIssuer {}

impl Body for TokenIssuer {
    const KIND: ResourceKind = ResourceKind::TokenIssuer;
}
