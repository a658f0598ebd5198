use mcpmesh_compiler::{ObjectKind, Reason};
use mcpmesh_crds::{McpGateway, McpPolicy, McpPolicyStatus, McpServer, TargetKind, condition};
use mcpmesh_ir::PolicyId;
use mcpmesh_ir::catalog::{CatalogIndex, IndexedTool, Observed, ObservedState, ServerInfo};
use mcpmesh_ir::push::{Observation, ProxyReport, Rejection};
use serde_json::json;

use super::*;

const GATEWAY: &str = "gateway/a/gw";

fn gateway_object() -> McpGateway {
    let object = json!({"metadata": {"name": "gw", "namespace": "a", "generation": 3}, "spec": {}});
    typed("McpGateway", object)
}

fn server_object() -> McpServer {
    let spec = json!({"remote": {"url": "https://a.example"}});
    typed("McpServer", json!({"metadata": {"name": "s", "namespace": "a", "generation": 3}, "spec": spec}))
}

fn policy_object() -> McpPolicy {
    let targets = json!([{"kind": "McpGateway", "name": "gw"}, {"kind": "McpServer", "name": "gone"}]);
    let spec = json!({"targetRefs": targets});
    typed("McpPolicy", json!({"metadata": {"name": "p", "namespace": "a", "generation": 3}, "spec": spec}))
}

fn typed<K: serde::de::DeserializeOwned>(kind: &str, mut object: serde_json::Value) -> K {
    object["apiVersion"] = json!("mcpmesh.io/v1alpha1");
    object["kind"] = json!(kind);
    serde_json::from_value(object).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn error(kind: ObjectKind, name: &str, path: &str, reason: Reason) -> Diagnostic {
    Diagnostic {
        object: Some(ObjectRef::new(kind, "a", name)),
        path: path.to_owned(),
        severity: Severity::Error,
        reason,
        message: "wrong".to_owned(),
        help: None,
        location: None,
    }
}

fn report(pod: &str, revision: &str) -> ProxyReport {
    ProxyReport {
        fleet: GATEWAY.to_owned(),
        pod: pod.to_owned(),
        revision: revision.to_owned(),
        ..ProxyReport::default()
    }
}

fn saw(state: ObservedState) -> ProxyReport {
    let tool = IndexedTool { name: "t".to_owned(), digest: "d".to_owned(), ..IndexedTool::default() };
    let index = CatalogIndex {
        versions: vec!["2025-11-25".to_owned()],
        tools: vec![tool],
        ..CatalogIndex::default()
    };
    let seen = Observed {
        state,
        server_info: Some(ServerInfo { name: "n".to_owned(), version: "1".to_owned() }),
        index: Some(index),
        bypassable: false,
    };
    let observation =
        Observation { server: "a/s".to_owned(), body: serde_json::to_vec(&seen).unwrap().into() };
    ProxyReport { observations: vec![observation], ..report("p1", "r") }
}

fn view(findings: &[Diagnostic], reports: Vec<ProxyReport>) -> View {
    let words = Words::new(reports, &Words::default());
    let mut view = View::new(findings.to_vec(), Arc::new(words), at(100));
    view.revisions = BTreeMap::from([(GATEWAY.parse().unwrap(), "r".to_owned())]);
    view.attached = BTreeMap::from([(GatewayId::new("a", "gw"), [ServerId::new("a", "s")].into())]);
    view.gateways = BTreeMap::from([(ServerId::new("a", "s"), vec![GatewayId::new("a", "gw")])]);
    view
}

fn answers(conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition]) -> Vec<String> {
    conditions.iter().map(|one| format!("{}={} {}", one.type_, one.status, one.reason)).collect()
}

fn gateway_answers(view: &View) -> Vec<String> {
    answers(&gateway(view, &GatewayId::new("a", "gw"), &gateway_object()).conditions)
}

fn server_answers(view: &View) -> Vec<String> {
    answers(&server(view, &ServerId::new("a", "s"), &server_object()).conditions)
}

#[test]
fn a_gateway_is_programmed_when_every_connected_proxy_has_the_revision() {
    let cases = [
        (vec![], "Programmed=False NoProxies"),
        (vec![report("p1", "r"), report("p2", "old")], "Programmed=False Progressing"),
        (vec![report("p1", "r"), report("p2", "r")], "Programmed=True Programmed"),
    ];
    for (reports, expected) in cases {
        let found = gateway_answers(&view(&[], reports));
        assert!(found.contains(&expected.to_owned()), "{found:?}");
        assert!(!found.iter().any(|one| one.starts_with("Stalled")), "{found:?}");
    }
}

#[test]
fn a_gateway_counts_its_proxies_servers_and_tools() {
    let mut reports = vec![saw(ObservedState::Ready), report("p2", "old")];
    reports[1].rejections = Vec::new();
    let status = gateway(&view(&[], reports), &GatewayId::new("a", "gw"), &gateway_object());
    let proxies = status.proxies.unwrap();
    assert_eq!((proxies.in_sync, proxies.total), (1, 2));
    let servers = status.servers.unwrap();
    assert_eq!((servers.attached, servers.ready, status.tools), (1, 1, Some(1)));
    assert_eq!(status.url.as_deref(), Some("http://gw-mcpgateway.a.svc:8080/mcp"));
    assert_eq!((status.revision.as_deref(), status.observed_generation), (Some("r"), Some(3)));
}

#[test]
fn a_rejection_is_said_of_the_object_that_caused_it_and_of_no_other() {
    let mut rejecting = report("p1", "r");
    rejecting.rejections = vec![Rejection {
        kind: "Policy".to_owned(),
        name: "a/p".to_owned(),
        reason: "unknown field x".to_owned(),
    }];
    let view = view(&[], vec![rejecting]);
    let policy = policy(&view, &PolicyId::new("a", "p"), &policy_object());
    let found = answers(&policy.conditions);
    let expected =
        ["Accepted=False RejectedByProxy", "Ready=False RejectedByProxy", "Stalled=True RejectedByProxy"];
    assert_eq!(found, expected);
    assert!(policy.conditions[0].message.contains("unknown field x"));
    assert!(gateway_answers(&view).contains(&"Programmed=True Programmed".to_owned()));
    assert_eq!(view.in_sync(&GATEWAY.parse().unwrap()), (1, 0, 1));
}

#[test]
fn what_only_the_user_can_mend_is_stalled_and_not_ready() {
    let found = server_answers(&view(
        &[error(ObjectKind::McpServer, "s", "spec.remote.url", Reason::InvalidUrl)],
        vec![],
    ));
    for expected in [
        "Accepted=False InvalidUrl",
        "ResolvedRefs=True ResolvedRefs",
        "Ready=False InvalidUrl",
        "Stalled=True InvalidUrl",
    ] {
        assert!(found.contains(&expected.to_owned()), "{found:?}");
    }
    let found =
        server_answers(&view(&[error(ObjectKind::McpServer, "s", "spec", Reason::SecretNotFound)], vec![]));
    for expected in
        ["Accepted=True Accepted", "ResolvedRefs=False SecretNotFound", "Stalled=True SecretNotFound"]
    {
        assert!(found.contains(&expected.to_owned()), "{found:?}");
    }
}

#[test]
fn a_server_is_ready_and_verified_by_the_word_of_its_observer() {
    let failed = ObservedState::Failed { reason: "refused".to_owned() };
    let cases = [
        (vec![], "Ready=False Pending", "Verified=Unknown Pending"),
        (vec![saw(ObservedState::Connecting)], "Ready=False Connecting", "Verified=Unknown Connecting"),
        (vec![saw(failed)], "Ready=False Unreachable", "Verified=False HandshakeFailed"),
        (vec![saw(ObservedState::Ready)], "Ready=True Ready", "Verified=True Handshake"),
    ];
    for (reports, ready, verified) in cases {
        let found = server_answers(&view(&[], reports));
        assert!(found.contains(&ready.to_owned()) && found.contains(&verified.to_owned()), "{found:?}");
    }
}

#[test]
fn a_server_tells_what_it_speaks_and_offers() {
    let status =
        server(&view(&[], vec![saw(ObservedState::Ready)]), &ServerId::new("a", "s"), &server_object());
    assert_eq!(status.protocol.unwrap().versions, ["2025-11-25"]);
    assert_eq!(status.server_info.unwrap().name, "n");
    let catalog = status.catalog.unwrap();
    assert_eq!((catalog.tools, catalog.digest.len()), (1, 64));
    assert_eq!((status.gateways, status.address), (Some(1), None));
}

#[test]
fn a_server_with_pods_tells_the_port_that_callers_can_use() {
    let mut view = view(&[], vec![saw(ObservedState::Ready)]);
    view.revisions.insert("server/a/s".parse().unwrap(), "r".to_owned());
    let package = json!({"registry": "Npm", "name": "p", "version": "1.0.0"});
    let injected = json!({"name": "own", "port": 80, "sidecar": "Injected"});
    let cases = [
        (json!({"package": package}), Some("s-mcpserver.a.svc:17080")),
        (json!({"package": package, "authentication": {"apiKeys": {}}}), Some("s-mcpserver.a.svc:17081")),
        (json!({"service": injected, "authentication": {"apiKeys": {}}}), Some("own.a.svc:17081")),
        (json!({"service": injected}), None),
    ];
    for (spec, expected) in cases {
        let object = typed("McpServer", json!({"metadata": {"name": "s", "namespace": "a"}, "spec": spec}));
        let status = server(&view, &ServerId::new("a", "s"), &object);
        assert_eq!(status.address.as_deref(), expected, "{spec}");
    }
}

#[test]
fn without_a_gateway_a_server_is_not_verified_and_nothing_more_is_asked() {
    let mut alone = view(&[], vec![]);
    alone.attached.clear();
    alone.gateways.clear();
    let found = server_answers(&alone);
    assert!(found.contains(&"Verified=Unknown NotAttached".to_owned()), "{found:?}");
    assert!(found.contains(&"Ready=True NotAttached".to_owned()), "{found:?}");
}

#[test]
fn pods_that_are_not_ready_hold_back_ready() {
    let fleet: FleetId = "server/a/s".parse().unwrap();
    let mut view = view(&[], vec![saw(ObservedState::Ready)]);
    view.revisions.insert(fleet.clone(), "r".to_owned());
    view.deployed.insert(fleet.clone());
    assert!(server_answers(&view).contains(&"Ready=False Progressing".to_owned()));
    let done = Rollout { observed: true, wanted: 2, updated: 2, ready: 2, stuck: false };
    view.rollouts.insert(fleet.clone(), done);
    assert!(server_answers(&view).contains(&"Ready=True Ready".to_owned()));
    view.rollouts.insert(fleet, Rollout { stuck: true, ..done });
    assert!(server_answers(&view).contains(&"Ready=False RolloutStuck".to_owned()));
}

#[test]
fn a_policy_says_of_each_target_what_is_wrong_with_it() {
    let missing = error(ObjectKind::McpPolicy, "p", "spec.targetRefs[1].name", Reason::TargetNotFound);
    let id = PolicyId::new("a", "p");
    let target = |kind, name: &str, refused| PolicyTarget { kind, name: name.to_owned(), refused };
    let named = [
        target(TargetKind::McpGateway, "gw", None),
        target(TargetKind::McpServer, "gone", Some(Reason::TargetNotFound)),
    ];
    let found_in = |findings: &[Diagnostic]| {
        let mut view = view(findings, vec![]);
        view.policy_targets = BTreeMap::from([(id.clone(), named.clone().into())]);
        policy(&view, &id, &policy_object())
    };
    let of = |status: &McpPolicyStatus| -> Vec<_> {
        status.ancestors.iter().map(|one| answers(&one.conditions)[0].clone()).collect()
    };
    let status = found_in(std::slice::from_ref(&missing));
    assert_eq!(of(&status), ["Accepted=True Accepted", "Accepted=False TargetNotFound"]);
    assert_eq!(status.ancestors[1].conditions[0].message, "spec.targetRefs[1].name: wrong");
    let broken = error(ObjectKind::McpPolicy, "p", "spec.access[0].to", Reason::InvalidGlob);
    assert_eq!(
        of(&found_in(&[broken, missing])),
        ["Accepted=False InvalidGlob", "Accepted=False TargetNotFound"]
    );
    assert_eq!(status.ancestors[0].controller_name, "mcpmesh.io/operator");
}

#[test]
fn a_condition_keeps_its_time_until_its_status_changes() {
    let mut object = gateway_object();
    let id = GatewayId::new("a", "gw");
    object.status = Some(gateway(&view(&[], vec![]), &id, &object));
    let mut later = view(&[], vec![report("p1", "r")]);
    later.now = at(200);
    let status = gateway(&later, &id, &object);
    let time = |kind: &str| {
        let one = status.conditions.iter().find(|one| one.type_ == kind).unwrap();
        one.last_transition_time.0.as_second()
    };
    assert_eq!((time(condition::ACCEPTED), time(condition::READY)), (100, 200));
    object.status = Some(status.clone());
    later.now = at(300);
    assert_eq!(gateway(&later, &id, &object), status, "nothing differs, so nothing is written");
}

#[test]
fn secrets_that_are_no_api_keys_are_said_of_the_gateway_that_takes_them() {
    let mut object = gateway_object();
    let id = GatewayId::new("a", "gw");
    let of = |findings: &[Diagnostic], object: &McpGateway| {
        let status = gateway(&view(findings, vec![]), &id, object);
        status.conditions.into_iter().find(|one| one.type_ == condition::KEYS_USABLE)
    };
    assert!(of(&[], &object).is_none(), "it takes none");
    object.spec.authentication = serde_json::from_value(json!({"apiKeys": {}})).unwrap();
    assert_eq!(of(&[], &object).unwrap().status, "True");
    let path = "spec.authentication.apiKeys";
    let wrong = error(ObjectKind::McpGateway, "gw", path, Reason::InvalidApiKey);
    let wrong = Diagnostic { severity: Severity::Warning, ..wrong };
    let found = of(&[wrong], &object).unwrap();
    assert_eq!((found.status.as_str(), found.reason.as_str()), ("False", "InvalidApiKey"));
    assert_eq!(found.message, "spec.authentication.apiKeys: wrong");
}

#[test]
fn a_rejected_issuer_of_tokens_is_its_gateways() {
    let mut rejecting = report("p1", "r");
    let (kind, name) = ("TokenIssuer".to_owned(), "a/gw:service-accounts".to_owned());
    rejecting.rejections = vec![Rejection { kind, name, reason: "no keys".to_owned() }];
    let found = gateway_answers(&view(&[], vec![rejecting]));
    assert!(found.contains(&"Accepted=False RejectedByProxy".to_owned()), "{found:?}");
}

#[test]
fn a_container_whose_port_answers_at_the_pods_address_is_not_ready_until_its_owner_mends_it() {
    let mut seen = saw(ObservedState::Ready);
    let mut body: Observed = serde_json::from_slice(&seen.observations[0].body).unwrap();
    body.bypassable = true;
    seen.observations[0].body = serde_json::to_vec(&body).unwrap().into();
    let view = view(&[], vec![seen]);
    let container = json!({"image": "i", "transport": "StreamableHttp", "port": 3000});
    let mut object = server_object();
    object.spec.remote = None;
    object.spec.container = serde_json::from_value(container).unwrap();
    let id = ServerId::new("a", "s");
    let found = answers(&server(&view, &id, &object).conditions);
    for expected in ["Ready=False Bypassable", "Stalled=True Bypassable", "Verified=True Handshake"] {
        assert!(found.contains(&expected.to_owned()), "{found:?}");
    }
    // A team's own pods may have probes of the kubelet's that need the address; a NetworkPolicy closes it to others.
    assert!(server_answers(&view).contains(&"Ready=True Ready".to_owned()));
}
