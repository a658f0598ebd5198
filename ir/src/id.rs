//! Stable identities. A rule, a metric and a log line name an object by these, never by an advertised name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is not `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id such as namespace/name")]
pub struct NotAnId(String);

impl NotAnId {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name {
            /// The namespace of the object.
            pub namespace: String,
            /// `metadata.name` of the object.
            pub name: String,
        }

        impl $name {
            /// An id of these two parts; neither may hold a slash (Kubernetes names cannot).
            pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
                Self { namespace: namespace.into(), name: name.into() }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.namespace, self.name)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                match text.split_once('/') {
                    Some((ns, name)) if !ns.is_empty() && !name.is_empty() && !name.contains('/') => {
                        Ok(Self::new(ns, name))
                    }
                    _ => Err(NotAnId(text.to_owned())),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotAnId;

            fn try_from(text: String) -> Result<Self, NotAnId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

id!(
    /// An McpServer. On the wire: `"namespace/name"`.
    ServerId
);
id!(
    /// An McpGateway. On the wire: `"namespace/name"`.
    GatewayId
);
id!(
    /// An McpPolicy. On the wire: `"namespace/name"`.
    PolicyId
);
id!(
    /// A Secret. On the wire: `"namespace/name"`.
    SecretId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text() {
        let id = ServerId::new("team-a", "payments");
        assert_eq!(id.to_string().parse::<ServerId>(), Ok(id));
    }

    #[test]
    fn a_text_without_exactly_one_slash_is_no_id() {
        for text in ["", "a", "/a", "a/", "a/b/c"] {
            assert!(text.parse::<ServerId>().is_err(), "{text:?}");
        }
    }
}
