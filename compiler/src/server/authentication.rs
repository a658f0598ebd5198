//! Whom the proxies beside a server let in who come past the gateways (decisions.md 6).

use mcpmesh_crds::{Anonymous, GatewayAuthentication, McpServerSpec, ServiceSidecar};
use mcpmesh_ir::resource::Resource;
use mcpmesh_ir::{ApiKey, ServerId, gateway};

use crate::api_key;
use crate::diagnostic::{Diagnostic, Findings, Reason};
use crate::gateway::token_issuer;
use crate::inputs::Inputs;

const PATH: &str = "spec.authentication";

/// Who they are. What they may do, the server's policies and those of the mesh level say.
#[derive(Debug)]
pub(crate) struct Direct {
    pub(crate) anonymous: gateway::Anonymous,
    pub(crate) api_keys: Vec<ApiKey>,
    pub(crate) issuer: Option<Resource>,
}

/// Those whom a server's own proxies let in; none where it says nobody or has no proxies. With what is wrong with the
/// Secrets that are meant to be keys.
pub(super) fn direct(
    id: &ServerId,
    spec: &McpServerSpec,
    inputs: &Inputs,
    findings: &mut Findings,
) -> (Option<Direct>, Vec<Diagnostic>) {
    let Some(given) = &spec.authentication else { return (None, Vec::new()) };
    if !has_proxy(spec) {
        let message = "there is no proxy beside the server that could let anybody in";
        let help = "remove it: callers come through a gateway; only packages, containers and injected Services have one";
        findings.error(PATH, Reason::InvalidUnion, message, help);
        return (None, Vec::new());
    }
    if inputs.install.cluster.is_none() {
        let message = "on one machine callers come through a gateway, and nobody past it";
        findings.warning(PATH, Reason::NotInCluster, message, "with a cluster, apply it there");
        return (None, Vec::new());
    }
    let GatewayAuthentication { anonymous, api_keys: takes_keys, service_accounts } = given;
    let (api_keys, refused) = match takes_keys {
        None => (Vec::new(), Vec::new()),
        Some(keys) => api_key::of_namespace(&id.namespace, keys.selector.as_ref(), inputs),
    };
    api_key::tell(&refused, findings);
    let issuer = service_accounts.as_ref().and_then(|given| {
        let audience = format!("{}.{}.mcpserver", id.name, id.namespace);
        token_issuer::resource(given, (format!("{id}:service-accounts"), audience), inputs, findings)
    });
    let anonymous = match anonymous {
        Anonymous::Allow => gateway::Anonymous::Allow,
        Anonymous::Deny => gateway::Anonymous::Deny,
    };
    if anonymous == gateway::Anonymous::Deny && api_keys.is_empty() && issuer.is_none() {
        let help = if takes_keys.is_some() {
            api_key::NONE
        } else {
            "add `apiKeys: {}` and a key of `mcpmesh key create`, or remove spec.authentication"
        };
        findings.warning(PATH, Reason::NoAccess, "nobody can authenticate", help);
    }
    (Some(Direct { anonymous, api_keys, issuer }), refused)
}

fn has_proxy(spec: &McpServerSpec) -> bool {
    let injected = |service: &mcpmesh_crds::Service| service.sidecar == ServiceSidecar::Injected;
    spec.package.is_some() || spec.container.is_some() || spec.service.as_ref().is_some_and(injected)
}
