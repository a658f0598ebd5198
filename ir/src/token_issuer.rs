//! An issuer of tokens with the keys that verify them.

use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
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
    #[serde(serialize_with = "parsed")]
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

/// The canonical form has no raw text in it.
fn parsed<S: Serializer>(keys: &RawValue, serializer: S) -> Result<S::Ok, S::Error> {
    serde_json::from_str::<Value>(keys.get()).map_err(S::Error::custom)?.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Resource;

    #[test]
    fn an_issuer_survives_its_canonical_form() {
        let keys = RawValue::from_string(r#"{"keys": [{"kid": "a"}]}"#.to_owned()).unwrap();
        let body = TokenIssuer { issuer: "https://i".to_owned(), audiences: vec!["a".to_owned()], keys };
        let resource = Resource::new("a/gw:service-accounts".to_owned(), &body).unwrap();
        let read: TokenIssuer = resource.decode().unwrap();
        assert_eq!(read.keys.get(), r#"{"keys":[{"kid":"a"}]}"#);
    }
}
