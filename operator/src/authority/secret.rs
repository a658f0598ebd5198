//! The authority's Secret: whoever comes first makes it, the leader rotates it, everybody reads it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use tokio::sync::watch;

use super::{Authority, Error, Material};
use crate::lease::Fence;
use crate::watch::Backoff;

/// The Secret's name.
const NAME: &str = "mcpmesh-ca";

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(20);

/// Why the Secret could not be kept.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot read or write Secret mcpmesh-ca")]
    Api(#[from] kube::Error),
    #[error("cannot use Secret mcpmesh-ca")]
    Authority(#[from] Error),
}

/// Loads the authority and keeps it loaded, for ever. Tells `changed` of each other bundle of roots.
pub(crate) async fn keep(
    client: kube::Client,
    namespace: String,
    authority: Arc<Authority>,
    fence: Fence,
    changed: watch::Sender<u64>,
) {
    let api = Api::namespaced(client, &namespace);
    let mut backoff = Backoff::default();
    loop {
        let before = authority.roots().ok();
        let pause = match look(&api, &authority, &fence).await {
            Ok(()) => {
                backoff.reset();
                LOOK
            }
            Err(failure) => {
                // What is loaded stays in force.
                tracing::warn!(error = &failure as &dyn std::error::Error, "the certificate authority");
                backoff.next()
            }
        };
        if before != authority.roots().ok() {
            changed.send_modify(|count| *count += 1);
        }
        tokio::time::sleep(pause).await;
    }
}

async fn look(api: &Api<Secret>, authority: &Authority, fence: &Fence) -> Result<(), Failure> {
    let now = SystemTime::now();
    let Some(secret) = api.get_opt(NAME).await? else {
        let material = Material::generate(authority.lifetimes, now)?;
        // When another replica is first, this fails and the next look finds what it made.
        api.create(&PostParams::default(), &secret_of(&material, ObjectMeta::default())).await?;
        authority.load(material, now)?;
        return Ok(());
    };
    let data = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
    let material = Material::read(&data)?;
    let due = if fence.may_write() { material.rotated(authority.lifetimes, now)? } else { None };
    let Some(rotated) = due else { return Ok(authority.load(material, now)?) };
    let version = ObjectMeta { resource_version: secret.metadata.resource_version, ..ObjectMeta::default() };
    api.replace(NAME, &PostParams::default(), &secret_of(&rotated, version)).await?;
    tracing::info!("rotated the certificate authority by one step");
    Ok(authority.load(rotated, now)?)
}

fn secret_of(material: &Material, metadata: ObjectMeta) -> Secret {
    let labels = BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "mcpmesh-operator".to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), "mcpmesh-operator".to_owned()),
    ]);
    Secret {
        metadata: ObjectMeta { name: Some(NAME.to_owned()), labels: Some(labels), ..metadata },
        type_: Some("Opaque".to_owned()),
        data: Some(material.write().into_iter().map(|(key, value)| (key, ByteString(value))).collect()),
        ..Secret::default()
    }
}
