//! The unit on the wire, on disk and in `--config`: a typed, named, content-addressed JSON body.
//!
//! decisions.md 10, docs/adr/0001. The version is the SHA-256 of the canonical body (RFC 8785), so that equal
//! content has an equal version wherever it was compiled, and a difference is all that ever travels.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// What a resource's body is. The order is the order in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ResourceKind {
    /// [`crate::Gateway`]
    Gateway,
    /// [`crate::Server`]
    Server,
    /// [`crate::Policy`], decoded strictly
    Policy,
    /// [`crate::ApiKey`]
    ApiKey,
    /// [`crate::TokenIssuer`]
    TokenIssuer,
    /// [`crate::Secret`]
    Secret,
}

impl std::str::FromStr for ResourceKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let kinds =
            [Self::Gateway, Self::Server, Self::Policy, Self::ApiKey, Self::TokenIssuer, Self::Secret];
        kinds.into_iter().find(|kind| kind.to_string() == text).ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// A resource type that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no resource type that this version knows")]
pub struct UnknownKind(String);

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl From<String> for Version {
    /// A version as it came over the wire.
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// Hex SHA-256 of a canonical body (of a Secret: a keyed hash, since a plain one would let a reader guess it).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(String);

impl Version {
    /// The version of a canonical body.
    #[must_use]
    pub fn of(canonical: &[u8]) -> Self {
        Self(hex::encode(Sha256::digest(canonical)))
    }

    /// A version computed elsewhere, such as a Secret's keyed hash, as hex.
    #[must_use]
    pub fn keyed(digest: &[u8]) -> Self {
        Self(hex::encode(digest))
    }

    /// The hex text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A body type of one resource kind.
pub trait Body: Serialize + DeserializeOwned {
    /// The kind that holds this body.
    const KIND: ResourceKind;
}

/// One resource: what is published, stored and acknowledged as a whole.
#[derive(Clone, Serialize, Deserialize)]
pub struct Resource {
    /// What the body is.
    #[serde(rename = "type")]
    pub kind: ResourceKind,
    /// `namespace/name` of the object that it was compiled from.
    pub name: String,
    /// Hash of the body.
    pub version: Version,
    /// Features that a reader must know to apply this body; an unknown one rejects the resource.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
    /// Canonical JSON.
    pub body: Box<RawValue>,
}

/// Why a resource could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The body has no JSON form.
    #[error("the body has no canonical form")]
    Encode(#[source] serde_json::Error),
    /// The body is not what its type says.
    #[error("{kind} {name} cannot be read")]
    Decode {
        /// The resource's kind.
        kind: ResourceKind,
        /// The resource's name.
        name: String,
        /// What the decoder said.
        #[source]
        source: serde_json::Error,
    },
    /// The version is not the body's hash.
    #[error("{kind} {name}: the version is not the hash of the body")]
    Version {
        /// The resource's kind.
        kind: ResourceKind,
        /// The resource's name.
        name: String,
    },
    /// A feature that this build does not have.
    #[error("{kind} {name} requires {feature:?}, which this version does not know")]
    Requires {
        /// The resource's kind.
        kind: ResourceKind,
        /// The resource's name.
        name: String,
        /// The unknown feature.
        feature: String,
    },
    /// Asked to read a body as another kind's.
    #[error("{name} is a {kind}, not a {wanted}")]
    Kind {
        /// The resource's kind.
        kind: ResourceKind,
        /// The resource's name.
        name: String,
        /// The kind asked for.
        wanted: ResourceKind,
    },
}

impl Resource {
    /// Encodes `body` canonically and names it by its hash.
    pub fn new<B: Body>(name: impl Into<String>, body: &B) -> Result<Self, Error> {
        let canonical = canonical(body)?;
        let version = Version::of(canonical.get().as_bytes());
        Ok(Self { kind: B::KIND, name: name.into(), version, requires: Vec::new(), body: canonical })
    }

    /// As [`Resource::new`], with a version from elsewhere (Secrets).
    pub fn with_version<B: Body>(name: impl Into<String>, body: &B, version: Version) -> Result<Self, Error> {
        Ok(Self { version, ..Self::new(name, body)? })
    }

    /// Reads the body. Checks the kind, `requires` (no feature exists yet) and, but for Secrets, the version.
    pub fn decode<B: Body>(&self) -> Result<B, Error> {
        let (kind, name) = (self.kind, self.name.clone());
        if kind != B::KIND {
            return Err(Error::Kind { kind, name, wanted: B::KIND });
        }
        if let Some(feature) = self.requires.first() {
            return Err(Error::Requires { kind, name, feature: feature.clone() });
        }
        if kind != ResourceKind::Secret && Version::of(self.body.get().as_bytes()) != self.version {
            return Err(Error::Version { kind, name });
        }
        serde_json::from_str(self.body.get()).map_err(|source| Error::Decode { kind, name, source })
    }
}

/// Without the body, which may be a Secret's.
impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource")
            .field("kind", &self.kind)
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, &self.name, &self.version, &self.requires)
            == (other.kind, &other.name, &other.version, &other.requires)
    }
}

impl Eq for Resource {}

/// The canonical JSON (RFC 8785) of a value.
pub fn canonical<T: Serialize>(value: &T) -> Result<Box<RawValue>, Error> {
    let text = serde_json_canonicalizer::to_string(value).map_err(Error::Encode)?;
    RawValue::from_string(text).map_err(Error::Encode)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Secret;

    fn secret() -> Secret {
        Secret { data: BTreeMap::from([("token".to_owned(), "canary".to_owned())]) }
    }

    #[test]
    fn debug_output_never_holds_a_body() {
        let resource = Resource::new("a/s", &secret()).unwrap();
        assert!(!format!("{resource:?}").contains("canary"));
    }

    #[test]
    fn a_body_that_was_changed_under_its_version_is_refused() {
        let key = crate::ApiKey {
            secret: crate::SecretId::new("a", "s"),
            sha256: String::new(),
            owner: "alice".to_owned(),
            groups: Vec::new(),
            expires: None,
        };
        let mut resource = Resource::new("a/s", &key).unwrap();
        let changed = resource.body.get().replace("alice", "mallory");
        resource.body = RawValue::from_string(changed).unwrap();
        assert!(matches!(resource.decode::<crate::ApiKey>(), Err(Error::Version { .. })));
    }

    #[test]
    fn a_resource_that_requires_an_unknown_feature_is_refused() {
        let mut resource = Resource::new("a/s", &secret()).unwrap();
        resource.requires.push("time-travel".to_owned());
        assert!(matches!(resource.decode::<Secret>(), Err(Error::Requires { .. })));
    }
}
