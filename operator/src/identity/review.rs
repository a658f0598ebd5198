//! Asks the API server (authentication.k8s.io/v1 TokenReview).

use std::time::Instant;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::Api;
use kube::api::PostParams;
use mcpmesh_ir::push::AUDIENCE;

use super::{Cache, Error, ServiceAccount};

/// TokenReview with our audience.
pub(crate) struct Review {
    api: Api<TokenReview>,
    cache: Cache,
}

impl Review {
    pub(crate) fn new(client: kube::Client) -> Self {
        Self { api: Api::all(client), cache: Cache::default() }
    }

    pub(super) async fn verify(&self, token: &str) -> Result<ServiceAccount, Error> {
        if let Some(account) = self.cache.get(token, Instant::now()) {
            return Ok(account);
        }
        let spec =
            TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![AUDIENCE.to_owned()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer = self.api.create(&PostParams::default(), &review).await;
        let status = answer.map_err(|error| Error::Unavailable(error.into()))?.status.unwrap_or_default();
        if status.authenticated != Some(true) {
            return Err(Error::Refused(status.error.unwrap_or_else(|| "not authenticated".to_owned())));
        }
        // An API server that knows no audiences answers without: it has not checked ours.
        if !status.audiences.unwrap_or_default().iter().any(|audience| audience == AUDIENCE) {
            return Err(Error::Refused(format!("not for the audience {AUDIENCE}")));
        }
        let user = status.user.and_then(|user| user.username).unwrap_or_default();
        let account = ServiceAccount::of_user(&user);
        let account = account.ok_or_else(|| Error::Refused("not of a service account".to_owned()))?;
        self.cache.put(token, account.clone(), Instant::now());
        Ok(account)
    }
}
