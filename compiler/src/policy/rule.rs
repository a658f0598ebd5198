//! A policy's rules and limits: whom they speak of, what they speak of, how much they grant.

use mcpmesh_crds as crds;
use mcpmesh_ir::policy::{
    AccessRule, AnnotationMatch, Dimension, Effect, IssuerMatch, Limit, Rate, Subject, To,
};
use mcpmesh_ir::{GatewayId, policy};
use url::Url;

use crate::diagnostic::{Findings, Reason};
use crate::inputs::Inputs;
use crate::server::check_globs;

/// What a policy's words are meant in.
pub(super) struct Scope<'i> {
    /// Where names without a namespace are.
    namespace: &'i str,
    /// Who vouches for service accounts; none where there are none.
    cluster: Option<&'i str>,
}

impl<'i> Scope<'i> {
    pub(super) fn new(namespace: &'i str, inputs: &'i Inputs) -> Self {
        Self { namespace, cluster: inputs.cluster_issuer().map(|cluster| cluster.issuer.as_str()) }
    }
}

pub(super) fn access(
    scope: &Scope<'_>,
    rule: &crds::AccessRule,
    path: &str,
    findings: &mut Findings,
) -> AccessRule {
    let crds::AccessRule { name, effect, from, to } = rule;
    if from.is_empty() {
        let message = "the rule speaks of nobody";
        let help = "say `from: [{anyone: {}}]` for everyone";
        findings.error(&format!("{path}.from"), Reason::InvalidValue, message, help);
    }
    let effect = match effect {
        crds::Effect::Allow => Effect::Allow,
        crds::Effect::Deny => Effect::Deny,
    };
    let from = subjects(scope, from, &format!("{path}.from"), findings);
    AccessRule { name: name.clone(), effect, from, to: objects(scope.namespace, to.as_ref(), path, findings) }
}

pub(super) fn limit(scope: &Scope<'_>, limit: &crds::Limit, path: &str, findings: &mut Findings) -> Limit {
    let crds::Limit { name, from, to, per, requests } = limit;
    let mut per: Vec<Dimension> = per.iter().copied().map(dimension).collect();
    per.sort_unstable();
    per.dedup();
    if per.contains(&Dimension::Group) && !from.iter().any(|subject| subject.group.is_some()) {
        let message = "per Group counts the groups that `from` names, and it names none";
        let help = "add `from: [{group: NAME}]`, or count per Principal";
        findings.error(&format!("{path}.per"), Reason::InvalidUnion, message, help);
    }
    Limit {
        name: name.clone(),
        from: subjects(scope, from, &format!("{path}.from"), findings),
        to: objects(scope.namespace, to.as_ref(), path, findings),
        per,
        requests: rate(requests, &format!("{path}.requests"), findings),
    }
}

fn dimension(dimension: crds::Dimension) -> Dimension {
    match dimension {
        crds::Dimension::Principal => Dimension::Principal,
        crds::Dimension::Group => Dimension::Group,
        crds::Dimension::Tool => Dimension::Tool,
        crds::Dimension::Server => Dimension::Server,
    }
}

/// The bounds keep a token's interval within what nanoseconds can say.
fn rate(requests: &crds::Requests, path: &str, findings: &mut Findings) -> Rate {
    const MAX: u32 = 1_000_000;
    let crds::Requests { count, window, burst } = requests;
    let rate = Rate { count: *count, window_ms: window.as_millis(), burst: burst.unwrap_or(*count) };
    let mut check = |good: bool, field: &str, message: String, help: &str| {
        if !good {
            findings.error(&format!("{path}.{field}"), Reason::InvalidValue, message, help);
        }
    };
    let bounds = format!("give 1 to {MAX}");
    let help = "a Deny rule refuses everything";
    check((1..=MAX).contains(&rate.count), "count", format!("{} is out of bounds", rate.count), &bounds);
    check(
        rate.count == 0 || (1..=MAX).contains(&rate.burst),
        "burst",
        format!("{} is out of bounds", rate.burst),
        &bounds,
    );
    check(rate.window_ms > 0, "window", "a window takes some time".to_owned(), help);
    rate
}

fn subjects(scope: &Scope<'_>, from: &[crds::Subject], path: &str, findings: &mut Findings) -> Vec<Subject> {
    let subject = |(index, from)| subject(scope, from, &format!("{path}[{index}]"), findings);
    from.iter().enumerate().filter_map(subject).collect()
}

fn subject(scope: &Scope<'_>, from: &crds::Subject, path: &str, findings: &mut Findings) -> Option<Subject> {
    let crds::Subject { user, group, service_account, authenticated, anyone, issuer, gateway } = from;
    let vouched = issuer_match(scope.namespace, issuer.as_deref(), gateway.as_ref(), path, findings)?;
    let alone = issuer.is_none() && gateway.is_none();
    let mut refuse = |message: &str, help: &str| {
        findings.error(path, Reason::InvalidUnion, message, help);
        None
    };
    match (user, group, service_account, authenticated, anyone) {
        (Some(name), None, None, None, None) if !name.is_empty() => {
            Some(Subject::User { name: name.clone(), issuer: vouched })
        }
        (None, Some(name), None, None, None) if !name.is_empty() => {
            Some(Subject::Group { name: name.clone(), issuer: vouched })
        }
        (None, None, Some(account), None, None) if issuer.is_none() => {
            account_user(scope, (account, gateway.as_ref()), path, findings)
        }
        (None, None, Some(_), None, None) => {
            refuse("a serviceAccount has no issuer", "remove it: the cluster vouches for it")
        }
        (None, None, None, Some(crds::Empty {}), None) => Some(Subject::Authenticated { issuer: vouched }),
        (None, None, None, None, Some(crds::Empty {})) if alone => Some(Subject::Anyone {}),
        (None, None, None, None, Some(_)) => {
            refuse("anyone has no issuer and no gateway", "use authenticated")
        }
        _ => refuse(
            "a subject is one of user, group, serviceAccount, authenticated and anyone",
            "write each as an item of its own: items unite",
        ),
    }
}

/// In no token: whom an issuer that is not known vouches for.
const NOBODYS: &str = "";

/// A service account as its tokens call it (Kubernetes, "Service account tokens": `sub`).
fn account_user(
    scope: &Scope<'_>,
    (account, gateway): (&crds::ServiceAccountRef, Option<&crds::GatewayRef>),
    path: &str,
    findings: &mut Findings,
) -> Option<Subject> {
    let crds::ServiceAccountRef { name, namespace } = account;
    let namespace = namespace.as_deref().unwrap_or(scope.namespace);
    let known = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
    };
    let path = format!("{path}.serviceAccount");
    if !known(name) || !known(namespace) {
        let message = format!("{namespace}/{name} cannot be a service account");
        findings.error(&path, Reason::InvalidValue, message, "give the names of a ServiceAccount");
        return None;
    }
    if scope.cluster.is_none() {
        let message = "no caller is known as a service account here";
        findings.warning(
            &path,
            Reason::NotInCluster,
            message,
            "in a cluster that names its issuer, they are",
        );
    }
    let issuer = scope.cluster.unwrap_or(NOBODYS).to_owned();
    let issuer = match gateway {
        None => IssuerMatch::Issuer(issuer),
        Some(gateway) => IssuerMatch::IssuerAt { issuer, gateway: gateway_id(scope.namespace, gateway) },
    };
    Some(Subject::User { name: format!("system:serviceaccount:{namespace}:{name}"), issuer })
}

fn issuer_match(
    namespace: &str,
    issuer: Option<&str>,
    gateway: Option<&crds::GatewayRef>,
    path: &str,
    findings: &mut Findings,
) -> Option<IssuerMatch> {
    match (issuer, gateway) {
        (None, None) => Some(IssuerMatch::Namespace(namespace.to_owned())),
        (None, Some(gateway)) => Some(IssuerMatch::Gateway(gateway_id(namespace, gateway))),
        (Some(issuer), gateway) => {
            if Url::parse(issuer).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
                let issuer = issuer.to_owned();
                return Some(match gateway {
                    None => IssuerMatch::Issuer(issuer),
                    Some(gateway) => {
                        IssuerMatch::IssuerAt { issuer, gateway: gateway_id(namespace, gateway) }
                    }
                });
            }
            let message = format!("{issuer:?} is not an issuer's URL");
            findings.error(
                &format!("{path}.issuer"),
                Reason::InvalidUrl,
                message,
                "such as https://accounts.example.com",
            );
            None
        }
    }
}

fn gateway_id(namespace: &str, gateway: &crds::GatewayRef) -> GatewayId {
    GatewayId::new(gateway.namespace.as_deref().unwrap_or(namespace), &gateway.name)
}

fn objects(namespace: &str, to: Option<&crds::To>, path: &str, findings: &mut Findings) -> To {
    let Some(to) = to else { return To::default() };
    let path = format!("{path}.to");
    let crds::To { servers, tools, prompts, resources, methods, annotations } = to;
    for (field, globs) in [("tools", tools), ("prompts", prompts), ("resources", resources)] {
        check_globs(globs, &format!("{path}.{field}"), findings);
    }
    let servers = servers.iter().enumerate().filter_map(|(index, pattern)| {
        server_glob(namespace, pattern, &format!("{path}.servers[{index}]"), findings)
    });
    To {
        servers: servers.collect(),
        tools: tools.clone(),
        prompts: prompts.clone(),
        resources: resources.clone(),
        methods: methods.iter().copied().map(method).collect(),
        annotations: annotations.map(annotation_match).unwrap_or_default(),
    }
}

/// A bare name is one of the policy's namespace. Each side must be a glob by itself, or a brace around the slash
/// would make a pattern that matches nothing: fatal in a Deny.
fn server_glob(namespace: &str, pattern: &str, path: &str, findings: &mut Findings) -> Option<String> {
    let (left, right) = pattern.split_once('/').unwrap_or((namespace, pattern));
    let whole = format!("{left}/{right}");
    let problem = if right.contains('/') || left.is_empty() || right.is_empty() {
        format!("{pattern:?} is neither `name` nor `namespace/name`")
    } else {
        match policy::NameGlobs::new(&[left.to_owned(), right.to_owned()]) {
            Ok(_) => return Some(whole),
            Err(error) => error.to_string(),
        }
    };
    let help = "such as `payments`, `team-a/payments`, `team-a/*` or `*/*`";
    findings.error(path, Reason::InvalidGlob, problem, help);
    None
}

fn method(method: crds::Method) -> String {
    let method = match method {
        crds::Method::ToolsCall => "tools/call",
        crds::Method::PromptsGet => "prompts/get",
        crds::Method::ResourcesRead => "resources/read",
        crds::Method::CompletionComplete => "completion/complete",
    };
    method.to_owned()
}

fn annotation_match(annotations: crds::ToolAnnotations) -> AnnotationMatch {
    let crds::ToolAnnotations { read_only_hint, destructive_hint, idempotent_hint, open_world_hint } =
        annotations;
    AnnotationMatch {
        read_only: read_only_hint,
        destructive: destructive_hint,
        idempotent: idempotent_hint,
        open_world: open_world_hint,
    }
}
