//! Secret bytes: a resource of their own, referenced by name, never inlined (decisions.md 10).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::resource::{Body, ResourceKind};

/// The referenced keys of one Secret. Its Debug output names the keys only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Key to value, as text: headers and environment variables cannot hold other bytes.
    pub data: BTreeMap<String, String>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.data.keys()).finish()
    }
}

impl Body for Secret {
    const KIND: ResourceKind = ResourceKind::Secret;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_keys_and_no_value() {
        let secret = Secret { data: BTreeMap::from([("token".to_owned(), "canary".to_owned())]) };
        assert_eq!(format!("{secret:?}"), r#"{"token"}"#);
    }
}
