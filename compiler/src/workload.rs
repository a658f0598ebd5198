//! What is run for a server: the operator and `mcpmesh inject` make pods of it, `mcpmesh up` a child process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use mcpmesh_ir::{SecretId, ServerId};
use serde::{Deserialize, Serialize};

use crate::inputs::Secret;

/// One McpServer's process. Never part of a snapshot: nothing that came over the network starts a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// The server that it is.
    pub server: ServerId,
    /// What is started.
    pub launch: Launch,
    /// Its environment, besides what the runner gives every process. Each name once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
}

/// What is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Launch {
    /// An npm package, run by npx, spoken to over stdio.
    Npm {
        /// `name` or `@scope/name`.
        package: String,
        /// The version; none for the latest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        /// Arguments of the package's program.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        args: Vec<String>,
    },
    /// A PyPI package, run by uvx, spoken to over stdio.
    #[serde(rename = "pypi")]
    PyPI {
        /// `name` or `name[extra]`.
        package: String,
        /// The version; none for the latest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        /// Arguments of the package's program.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        args: Vec<String>,
    },
    /// A container.
    Container {
        /// The image's reference.
        image: String,
        /// Replaces the image's entry point; empty keeps it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        command: Vec<String>,
        /// Arguments.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        args: Vec<String>,
        /// How MCP is spoken with it.
        transport: Transport,
    },
}

/// How MCP is spoken with a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Transport {
    /// Its standard input and output.
    Stdio {},
    /// Streamable HTTP on a port of its own.
    StreamableHttp {
        /// The TCP port.
        port: u16,
        /// The endpoint's path.
        path: String,
    },
}

/// One environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: EnvValue,
}

/// A variable's value. Debug output never holds a Secret's value, since it is not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EnvValue {
    /// As the object says it.
    Literal(String),
    /// A Secret's key; the compile has seen it there.
    Secret {
        /// The Secret.
        secret: SecretId,
        /// Its key.
        key: String,
    },
}

/// A resolved environment. Its Debug output names the variables only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(pub Vec<(String, String)>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Workload {
    /// The environment with the Secrets' values in it. Of the inputs that this was compiled from nothing is missing.
    #[must_use]
    pub fn environment(&self, secrets: &BTreeMap<SecretId, Arc<Secret>>) -> Environment {
        let value = |value: &EnvValue| match value {
            EnvValue::Literal(text) => Some(text.clone()),
            EnvValue::Secret { secret, key } => {
                let bytes = secrets.get(secret)?.data.get(key)?;
                String::from_utf8(bytes.clone()).ok()
            }
        };
        Environment(self.env.iter().filter_map(|var| Some((var.name.clone(), value(&var.value)?))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_has_the_secrets_values_and_shows_none() {
        let id = SecretId::new("default", "s");
        let data = BTreeMap::from([("token".to_owned(), b"canary".to_vec())]);
        let secrets = BTreeMap::from([(id.clone(), Arc::new(Secret { data, ..Secret::default() }))]);
        let var = |name: &str, value| EnvVar { name: name.to_owned(), value };
        let workload = Workload {
            server: ServerId::new("default", "a"),
            launch: Launch::Npm { package: "a".to_owned(), version: None, args: Vec::new() },
            env: vec![
                var("PLAIN", EnvValue::Literal("text".to_owned())),
                var("TOKEN", EnvValue::Secret { secret: id, key: "token".to_owned() }),
            ],
        };
        let environment = workload.environment(&secrets);
        let expected =
            [("PLAIN", "text"), ("TOKEN", "canary")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(environment.0, expected);
        assert!(!format!("{environment:?}{workload:?}{secrets:?}").contains("canary"));
    }
}
