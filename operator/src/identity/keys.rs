//! The cluster's issuer of service-account tokens and its key set (OpenID Connect discovery through the API server).

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use mcpmesh_compiler::ClusterIssuer;
use mcpmesh_ir::push::AUDIENCE;
use serde::Deserialize;
use tokio::sync::watch;

use super::{Error, ServiceAccount};
use crate::watch::Backoff;

/// How often the key set is read again.
const REFRESH: Duration = Duration::from_secs(300);

/// Verifies tokens by the cluster's keys.
pub(crate) struct ClusterKeys {
    issuer: watch::Receiver<Option<ClusterIssuer>>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

impl ClusterKeys {
    pub(crate) fn new(issuer: watch::Receiver<Option<ClusterIssuer>>) -> Self {
        Self { issuer }
    }

    pub(super) fn verify(&self, token: &str) -> Result<ServiceAccount, Error> {
        let refused = |error: jsonwebtoken::errors::Error| Error::Refused(error.to_string());
        let Some(known) = self.issuer.borrow().clone() else {
            return Err(Error::Unavailable("the cluster's keys are not known yet".into()));
        };
        let keys: JwkSet =
            serde_json::from_str(&known.keys).map_err(|error| Error::Unavailable(error.into()))?;
        let header = decode_header(token).map_err(refused)?;
        // The token chooses the key, never the algorithm: only those of the API server's own keys.
        let algorithms = [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384];
        let algorithm = algorithms.into_iter().find(|known| *known == header.alg);
        let key = header.kid.as_deref().and_then(|kid| keys.find(kid));
        let (Some(algorithm), Some(key)) = (algorithm, key) else {
            return Err(Error::Refused("signed by no key of this cluster".to_owned()));
        };
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[&known.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        let key = DecodingKey::from_jwk(key).map_err(refused)?;
        let claims: Claims = decode(token, &key, &validation).map_err(refused)?.claims;
        ServiceAccount::of_user(&claims.sub)
            .ok_or_else(|| Error::Refused("not of a service account".to_owned()))
    }
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
}

/// Reads issuer and keys at once and every five minutes, and tells of a change.
pub(crate) async fn follow_keys(client: kube::Client, found: Arc<watch::Sender<Option<ClusterIssuer>>>) {
    let mut backoff = Backoff::default();
    loop {
        let pause = match read(&client).await {
            Ok(issuer) => {
                backoff.reset();
                found.send_if_modified(|known| {
                    let changed = known.as_ref() != Some(&issuer);
                    *known = Some(issuer);
                    changed
                });
                REFRESH
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read the cluster's issuer of service-account tokens");
                backoff.next()
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn read(client: &kube::Client) -> Result<ClusterIssuer, kube::Error> {
    let get = |path: &str| Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError);
    let discovery: Discovery = client.request(get("/.well-known/openid-configuration")?).await?;
    let keys = client.request_text(get("/openid/v1/jwks")?).await?;
    Ok(ClusterIssuer { issuer: discovery.issuer, keys })
}
