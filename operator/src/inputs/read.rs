//! Secrets and ConfigMaps that something names: their content, read once for each version.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1;
use kube::{Api, Resource};
use mcpmesh_compiler::{ConfigMap, Secret};
use serde::de::DeserializeOwned;

/// An object that could not be read. What was served before stays.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {kind} {name}")]
pub(crate) struct Error {
    kind: &'static str,
    name: String,
    source: kube::Error,
}

/// What was read, and of which version it is, by name.
pub(super) type Versions<T> = BTreeMap<String, (String, Arc<T>)>;

/// What a compile reads of an object.
pub(super) trait Content {
    /// The object.
    type Of: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned;
    const KIND: &'static str;
    fn of(object: Self::Of) -> Self;
}

impl Content for Secret {
    type Of = v1::Secret;
    const KIND: &'static str = "Secret";

    fn of(object: v1::Secret) -> Self {
        Self {
            labels: object.metadata.labels.unwrap_or_default(),
            annotations: object.metadata.annotations.unwrap_or_default(),
            data: object.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect(),
        }
    }
}

impl Content for ConfigMap {
    type Of = v1::ConfigMap;
    const KIND: &'static str = "ConfigMap";

    fn of(object: v1::ConfigMap) -> Self {
        Self {
            data: object.data.unwrap_or_default(),
            binary: object.binary_data.unwrap_or_default().into_keys().collect(),
        }
    }
}

/// Reads those that are wanted and there, as `version` tells, and forgets all others.
pub(super) async fn all<T: Content>(
    api: &Api<T::Of>,
    wanted: &BTreeSet<String>,
    version: impl Fn(&str) -> Option<String>,
    known: &mut Versions<T>,
) -> Result<(), Error> {
    known.retain(|name, _| wanted.contains(name) && version(name).is_some());
    for name in wanted {
        let Some(version) = version(name) else { continue };
        if known.get(name).is_some_and(|(known, _)| *known == version) {
            continue;
        }
        match api.get_opt(name).await {
            Ok(Some(object)) => _ = known.insert(name.clone(), (version, Arc::new(T::of(object)))),
            Ok(None) => _ = known.remove(name),
            // Not ours to read is as not there: the object that names it says so.
            Err(kube::Error::Api(status)) if status.code == 403 => _ = known.remove(name),
            Err(source) => return Err(Error { kind: T::KIND, name: name.clone(), source }),
        }
    }
    Ok(())
}
