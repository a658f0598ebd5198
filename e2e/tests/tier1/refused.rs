//! What must not get in: the API server refuses it with our words, before any operator has seen it.

use anyhow::{Context as _, ensure};
use kube::Resource;
use kube::api::{Patch, PatchParams};
use mcpmesh_crds::{McpGateway, McpPolicy, McpServer};
use mcpmesh_e2e::cluster::{Cluster, Namespace, Tier};
use serde_json::{Value, json};

/// Tries to apply an object, and returns the API server's reason to refuse it.
async fn refusal<K: Resource<DynamicType = ()>>(
    namespace: &Namespace<'_>,
    spec: &Value,
) -> anyhow::Result<String> {
    let kind = K::kind(&());
    let object =
        json!({"apiVersion": K::api_version(&()), "kind": kind, "metadata": {"name": "wrong"}, "spec": spec});
    let params = PatchParams::apply("e2e").validation_strict();
    let answer = namespace.untyped::<K>().patch("wrong", &params, &Patch::Apply(&object)).await;
    let error = answer.err().with_context(|| format!("{kind} was accepted: {spec}"))?;
    match error {
        kube::Error::Api(status) => Ok(status.message),
        other => Err(other.into()),
    }
}

/// Each spec is refused with its message.
async fn all_refused<K: Resource<DynamicType = ()>>(
    namespace: &Namespace<'_>,
    cases: &[(Value, &str)],
) -> anyhow::Result<()> {
    for (spec, expected) in cases {
        let said = refusal::<K>(namespace, spec).await?;
        ensure!(said.contains(expected), "{spec}\nexpected: {expected}\nsaid: {said}");
    }
    Ok(())
}

#[test]
fn a_server_that_means_nothing() -> anyhow::Result<()> {
    let remote = json!({"url": "https://mcp.example.com/mcp"});
    let package = json!({"registry": "Npm", "name": "a", "version": "1.0.0"});
    let http =
        |more: Value| json!({"container": {"image": "a:1", "transport": "StreamableHttp", "port": more}});
    let env = json!([{"name": "A", "value": "1", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]);
    let key = json!({"name": "a", "key": "b"});
    let both = json!({"secretKeyRef": key, "configMapKeyRef": key});
    let one_key = "give exactly one of secretKeyRef and configMapKeyRef";
    let one_map = "give exactly one of secretRef and configMapRef";
    let one_source = "give exactly one of remote, service, package and container";
    let port = "port is needed with transport: StreamableHttp, and only there";
    let cases = [
        (json!({"remote": remote, "package": package}), one_source),
        (json!({}), one_source),
        (json!({"container": {"image": "a:1", "port": 80}}), port),
        (json!({"container": {"image": "a:1", "transport": "StreamableHttp"}}), port),
        (json!({"container": {"image": "a:1", "path": "/mcp"}}), "path is for transport: StreamableHttp"),
        (http(json!(0)), "should be greater than or equal to 1"),
        (http(json!(65536)), "should be less than or equal to 65535"),
        (json!({"container": {"image": "a:1", "env": env}}), "give value or valueFrom, not both"),
        (json!({"container": {"image": "a:1", "env": [{"name": "A", "valueFrom": {}}]}}), one_key),
        (json!({"container": {"image": "a:1", "env": [{"name": "A", "valueFrom": both}]}}), one_key),
        (json!({"container": {"image": "a:1", "envFrom": [{"prefix": "A_"}]}}), one_map),
        (
            json!({"package": package, "credentials": {"headers": [{"name": "Authorization", "secretKeyRef": {"name": "a", "key": "b"}}]}}),
            "credentials are for remote servers and services; a package or container takes env",
        ),
        (
            json!({"remote": remote, "exportTo": {"namespaces": {"from": "All", "selector": {}}}}),
            "selector is needed with from: Selector, and only there",
        ),
        (json!({"remote": remote, "workload": {}}), "workload is for package and container servers"),
        (
            json!({"package": package, "workload": {"volumes": [{"name": "v", "configMap": {"name": "a"}, "emptyDir": {}}]}}),
            "give exactly one of configMap, secret, emptyDir and persistentVolumeClaim",
        ),
        (json!({"remote": remote, "timeouts": {"total": "soon"}}), "spec.timeouts.total"),
        (json!({"remote": {"url": "https://a.example", "transport": "Carrier"}}), "supported values"),
    ];
    Cluster::shared(Tier::One)?.test(async |sandbox| {
        sandbox.install_crds().await?;
        all_refused::<McpServer>(&sandbox.namespace().await?, &cases).await
    })
}

#[test]
fn a_policy_that_means_nothing() -> anyhow::Result<()> {
    let target = json!([{"kind": "McpGateway", "name": "main"}]);
    let from = |subject: Value| json!({"targetRefs": target, "access": [{"name": "a", "effect": "Allow", "from": [subject]}]});
    let limit = |limit: Value| json!({"targetRefs": target, "limits": [limit]});
    let rule = json!({"name": "a", "effect": "Deny", "from": [{"anyone": {}}]});
    let one_target = "give exactly one of targetRefs and namespaceSelector";
    let one_kind = "give exactly one of user, group, serviceAccount, authenticated and anyone";
    let group = "the group of McpGateway and McpServer is mcpmesh.io, that of Namespace is empty";
    let cases = [
        (json!({}), one_target),
        (json!({"targetRefs": target, "namespaceSelector": {}}), one_target),
        (
            from(json!({"serviceAccount": {"name": "a"}, "issuer": "i"})),
            "a serviceAccount has no issuer: the cluster vouches for it",
        ),
        (json!({"targetRefs": []}), "should have at least 1 items"),
        (json!({"targetRefs": [{"kind": "McpGateway", "group": "apps", "name": "main"}]}), group),
        (json!({"targetRefs": [{"kind": "Namespace", "group": "mcpmesh.io", "name": "team"}]}), group),
        (from(json!({"user": "a", "group": "b"})), one_kind),
        (from(json!({})), one_kind),
        (
            from(json!({"anyone": {}, "issuer": "i"})),
            "anyone has no issuer and no gateway; use authenticated",
        ),
        (
            limit(json!({"name": "a", "per": ["Group"], "requests": {"count": 1, "window": "1m"}})),
            "per Group counts the groups that from names: name one there",
        ),
        (
            limit(json!({"name": "a", "requests": {"count": 0, "window": "1m"}})),
            "should be greater than or equal to 1",
        ),
        (json!({"targetRefs": target, "access": [rule, rule]}), "duplicate entries for key"),
    ];
    Cluster::shared(Tier::One)?.test(async |sandbox| {
        sandbox.install_crds().await?;
        all_refused::<McpPolicy>(&sandbox.namespace().await?, &cases).await
    })
}

#[test]
fn a_gateway_that_means_nothing() -> anyhow::Result<()> {
    let cases = [
        (
            json!({"servers": {"namespaces": {"from": "Selector"}}}),
            "selector is needed with from: Selector, and only there",
        ),
        (json!({"listeners": [{"name": "a", "tls": {}}]}), "spec.listeners[0].tls.secretRef: Required value"),
        (
            json!({"proxy": {"replicas": 2, "autoscaling": {"maxReplicas": 3}}}),
            "give replicas or autoscaling, not both",
        ),
        (
            json!({"proxy": {"autoscaling": {"minReplicas": 4, "maxReplicas": 3}}}),
            "minReplicas is above maxReplicas",
        ),
        (json!({"listeners": [{"name": "Web"}]}), "spec.listeners[0].name"),
        (json!({"listeners": [{"name": "a", "port": 70000}]}), "should be less than or equal to 65535"),
        (json!({"listeners": [{"name": "a"}, {"name": "a"}]}), "duplicate entries for key"),
        (json!({"servers": {"refs": [{"name": "a", "prefix": "A_B"}]}}), "spec.servers.refs[0].prefix"),
        (json!({"authentication": {"anonymous": "Maybe"}}), "Unsupported value: \"Maybe\""),
    ];
    Cluster::shared(Tier::One)?.test(async |sandbox| {
        sandbox.install_crds().await?;
        all_refused::<McpGateway>(&sandbox.namespace().await?, &cases).await
    })
}

#[test]
fn a_field_that_does_not_exist() -> anyhow::Result<()> {
    let server = json!({"remote": {"url": "https://a.example", "retries": 3}});
    let gateway = json!({"authentication": {"anonymus": "Allow"}});
    let policy = json!({"targetRefs": [{"kind": "McpGateway", "name": "main"}], "budgets": []});
    Cluster::shared(Tier::One)?.test(async |sandbox| {
        sandbox.install_crds().await?;
        let namespace = sandbox.namespace().await?;
        all_refused::<McpServer>(
            &namespace,
            &[(server, ".spec.remote.retries: field not declared in schema")],
        )
        .await?;
        all_refused::<McpGateway>(
            &namespace,
            &[(gateway, ".spec.authentication.anonymus: field not declared in schema")],
        )
        .await?;
        all_refused::<McpPolicy>(&namespace, &[(policy, ".spec.budgets: field not declared in schema")]).await
    })
}
