//! An API key's hash and whom it stands for (decisions.md 21).

use serde::{Deserialize, Serialize};

use crate::id::SecretId;
use crate::resource::{Body, ResourceKind};

/// One API key of a gateway. The key itself is nowhere in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// The Secret that it came from, for logs and `can-i`.
    pub secret: SecretId,
    /// Hex SHA-256 of the key.
    pub sha256: String,
    /// The user that it authenticates.
    pub owner: String,
    /// The user's groups, sorted, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Seconds since the Unix epoch from which the key is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
}

impl Body for ApiKey {
    const KIND: ResourceKind = ResourceKind::ApiKey;
}
