//! Whose tokens a gateway takes: those of the cluster's service accounts.

use mcpmesh_crds::ServiceAccounts;
use mcpmesh_ir::resource::Resource;
use mcpmesh_ir::{TokenIssuer, push};
use serde_json::value::RawValue;

use super::Front;
use crate::diagnostic::{Findings, Reason};
use crate::inputs::{ClusterIssuer, Inputs};

const PATH: &str = "spec.authentication.serviceAccounts";

/// The issuer of service-account tokens, when the gateway takes any.
pub(super) fn service_accounts(
    front: &Front<'_>,
    inputs: &Inputs,
    findings: &mut Findings,
) -> Option<Resource> {
    let given = front.object?.spec.authentication.as_ref()?.service_accounts.as_ref()?;
    let audience = format!("{}.{}.mcpgateway", front.id.name, front.id.namespace);
    resource(given, (format!("{}:service-accounts", front.id), audience), inputs, findings)
}

/// The issuer as a resource of this name. `audience` is whom tokens are for where nobody says.
pub(crate) fn resource(
    given: &ServiceAccounts,
    (name, audience): (String, String),
    inputs: &Inputs,
    findings: &mut Findings,
) -> Option<Resource> {
    let audiences = if given.audiences.is_empty() { vec![audience] } else { given.audiences.clone() };
    if inputs.install.cluster.is_none() {
        let help = "use apiKeys here; with a cluster, apply it there";
        findings.error(PATH, Reason::NotInCluster, "there are no service accounts on one machine", help);
        return None;
    }
    let known = inputs.cluster_issuer();
    let Some((ClusterIssuer { issuer, .. }, keys)) = known.and_then(|known| Some((known, key_set(known)?)))
    else {
        let message = "the cluster's issuer of tokens cannot be read: no service account is let in";
        let help = "let the operator read /.well-known/openid-configuration and /openid/v1/jwks";
        findings.error(PATH, Reason::IssuerUnavailable, message, help);
        return None;
    };
    if !are_own(&audiences, issuer, findings) {
        return None;
    }
    let body = TokenIssuer { issuer: issuer.clone(), audiences, keys };
    Resource::new(name, &body).ok()
}

fn key_set(known: &ClusterIssuer) -> Option<Box<RawValue>> {
    RawValue::from_string(known.keys.clone()).ok()
}

/// A token for somebody else must not be taken: whoever gets it could go there in the caller's name.
fn are_own(audiences: &[String], issuer: &str, findings: &mut Findings) -> bool {
    let mut good = true;
    for (index, audience) in audiences.iter().enumerate() {
        let message = if audience.is_empty() || audience.chars().any(char::is_control) {
            format!("{audience:?} is no audience")
        } else if audience == push::AUDIENCE {
            "tokens for the operator are for nobody else".to_owned()
        } else if audience == issuer || audience.starts_with("https://kubernetes.default") {
            "tokens for the API server are for nobody else".to_owned()
        } else {
            continue;
        };
        let help = "choose one that names this gateway, or leave audiences out";
        findings.error(&format!("{PATH}.audiences[{index}]"), Reason::InvalidValue, message, help);
        good = false;
    }
    good
}
