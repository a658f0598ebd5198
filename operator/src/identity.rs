//! Who calls: a service-account token becomes a service account.

mod keys;
mod review;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mcpmesh_ir::FleetId;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

pub(crate) use keys::{ClusterKeys, follow_keys};
use mcpmesh_compiler::child::base_name;
pub(crate) use review::Review;

/// How long an answer holds.
const HOLDS: Duration = Duration::from_secs(60);

/// How many answers are kept.
const KEPT: usize = 20_000;

/// A service account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceAccount {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl ServiceAccount {
    /// `system:serviceaccount:NAMESPACE:NAME`
    pub(crate) fn of_user(user: &str) -> Option<Self> {
        let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        (!namespace.is_empty() && !name.is_empty() && !name.contains(':'))
            .then(|| Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// Whether it is that of a fleet's proxies.
    pub(crate) fn is_of(&self, fleet: &FleetId) -> bool {
        self.namespace == fleet.namespace() && self.name == base_name(fleet)
    }
}

/// Why a token names nobody.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Not valid, or not for us.
    #[error("the token is not valid here: {0}")]
    Refused(String),
    /// Nobody could say.
    #[error("the token cannot be verified now")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What verifies tokens.
pub(crate) trait Verify: Send + Sync + 'static {
    /// The service account that a token is of.
    fn verify(&self, token: &str) -> impl Future<Output = Result<ServiceAccount, Error>> + Send;
}

/// Either way of an installation.
pub(crate) enum Verifier {
    /// The API server is asked: a token ends with its pod.
    Review(Box<Review>),
    /// Only the key set is needed: a token lives as long as it says.
    Keys(ClusterKeys),
}

impl Verify for Verifier {
    async fn verify(&self, token: &str) -> Result<ServiceAccount, Error> {
        match self {
            Self::Review(review) => review.verify(token).await,
            Self::Keys(keys) => keys.verify(token),
        }
    }
}

/// Answers by the hash of the token, for a short time. Only good ones: a bad token is asked about again.
#[derive(Default)]
struct Cache(Mutex<BTreeMap<[u8; 32], (Instant, ServiceAccount)>>);

impl Cache {
    fn get(&self, token: &str, now: Instant) -> Option<ServiceAccount> {
        let cache = self.0.lock();
        let (at, account) = cache.get(&<[u8; 32]>::from(Sha256::digest(token)))?;
        (now.saturating_duration_since(*at) < HOLDS).then(|| account.clone())
    }

    fn put(&self, token: &str, account: ServiceAccount, now: Instant) {
        let mut cache = self.0.lock();
        if cache.len() >= KEPT {
            cache.retain(|_, (at, _)| now.saturating_duration_since(*at) < HOLDS);
        }
        if cache.len() < KEPT {
            cache.insert(Sha256::digest(token).into(), (now, account));
        }
    }
}

#[cfg(test)]
mod tests {
    use mcpmesh_ir::GatewayId;

    use super::*;

    #[test]
    fn a_service_account_serves_its_own_fleet_only() {
        let account = ServiceAccount::of_user("system:serviceaccount:a:gw-mcpgateway").unwrap();
        assert!(account.is_of(&FleetId::Gateway(GatewayId::new("a", "gw"))));
        assert!(!account.is_of(&FleetId::Gateway(GatewayId::new("b", "gw"))));
        assert!(!account.is_of(&FleetId::Gateway(GatewayId::new("a", "other"))));
        for user in
            ["alice", "system:serviceaccount:a", "system:serviceaccount::b", "system:serviceaccount:a:b:c"]
        {
            assert_eq!(ServiceAccount::of_user(user), None, "{user}");
        }
    }

    #[test]
    fn an_answer_holds_for_a_minute() {
        let cache = Cache::default();
        let account = ServiceAccount { namespace: "a".to_owned(), name: "b".to_owned() };
        let start = Instant::now();
        cache.put("token", account.clone(), start);
        assert_eq!(cache.get("token", start + Duration::from_secs(59)), Some(account));
        assert_eq!(cache.get("token", start + HOLDS), None);
        assert_eq!(cache.get("other", start), None);
    }
}
