//! Two namespaces that cannot see, use or harm each other, and what their people may do.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::{Event, Secret};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use mcpmesh_crds::{McpGateway, McpPolicy, McpServer, condition};
use mcpmesh_e2e::cluster::{Cluster, Namespace};
use mcpmesh_e2e::operator::{NAMESPACE, Operator};
use mcpmesh_e2e::process::eventually;
use serde_json::{Value, json};

use crate::tenant::{Tenant, answers, apply, open_gateway, open_policy, refuses, said};

/// Gives a user one of the chart's roles in a namespace.
async fn bind(namespace: &Namespace<'_>, user: &str, role: &str) -> anyhow::Result<()> {
    let binding = json!({
        "metadata": {"name": format!("{user}-is-{role}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": format!("mcpmesh-{role}")},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    });
    let binding: RoleBinding = serde_json::from_value(binding)?;
    namespace.api().create(&PostParams::default(), &binding).await?;
    Ok(())
}

/// What `kubectl auth can-i` asks.
async fn can(client: &Client, verb: &str, resource: &str, namespace: Option<&str>) -> anyhow::Result<bool> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let group = match resource {
        "mcpservers" | "mcpgateways" | "mcppolicies" => "mcpmesh.io",
        "deployments" => "apps",
        "customresourcedefinitions" => "apiextensions.k8s.io",
        "clusterroles" | "rolebindings" => "rbac.authorization.k8s.io",
        "leases" => "coordination.k8s.io",
        _ => "",
    };
    let attributes = ResourceAttributes {
        verb: Some(verb.to_owned()),
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource: Some(subresource.to_owned()),
        namespace: namespace.map(str::to_owned),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await?;
    Ok(answer.status.context("no answer")?.allowed)
}

/// That the API server refuses what was tried.
fn forbidden<T: std::fmt::Debug>(what: &str, tried: Result<T, kube::Error>) -> anyhow::Result<()> {
    match tried {
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(()),
        other => bail!("{what}: {other:?}"),
    }
}

const OURS: [&str; 3] = ["mcpservers", "mcpgateways", "mcppolicies"];

#[test]
fn each_role_may_do_its_work_in_its_namespace_and_nothing_else() -> anyhow::Result<()> {
    Cluster::operated()?.test(async |sandbox| {
        Operator::shared().await?;
        let (own, other) = (sandbox.namespace().await?, sandbox.namespace().await?);
        let writable: [(&str, &[&str]); 3] = [("viewer", &[]), ("editor", &OURS[..2]), ("admin", &OURS)];
        for (role, writes) in writable {
            let user = format!("{role}-of-{}", own.name());
            bind(&own, &user, role).await?;
            let client = sandbox.cluster.client_as(&user).await?;
            for resource in OURS {
                let here = Some(own.name());
                for verb in ["get", "list", "watch"] {
                    ensure!(can(&client, verb, resource, here).await?, "{role} cannot {verb} {resource}");
                }
                for verb in ["create", "update", "patch", "delete"] {
                    let may = can(&client, verb, resource, here).await?;
                    ensure!(may == writes.contains(&resource), "{role} can {verb} {resource}: {may}");
                    let status = format!("{resource}/status");
                    ensure!(!can(&client, verb, &status, here).await?, "{role} can {verb} {status}");
                }
                for place in [Some(other.name()), Some(NAMESPACE), None] {
                    for verb in ["get", "list", "watch", "create", "patch", "delete"] {
                        let may = can(&client, verb, resource, place).await?;
                        ensure!(!may, "{role} can {verb} {resource} in {place:?}");
                    }
                }
            }
            let others =
                ["secrets", "pods", "configmaps", "serviceaccounts", "deployments", "rolebindings", "leases"];
            for resource in others {
                for (verb, place) in [("get", own.name()), ("create", own.name()), ("get", NAMESPACE)] {
                    let may = can(&client, verb, resource, Some(place)).await?;
                    ensure!(!may, "{role} can {verb} {resource} in {place}");
                }
            }
            for resource in ["namespaces", "nodes", "customresourcedefinitions", "clusterroles"] {
                for verb in ["list", "create", "delete"] {
                    ensure!(!can(&client, verb, resource, None).await?, "{role} can {verb} {resource}");
                }
            }
        }
        let ask = |namespace: String| {
            let user = format!("admin-of-{}", own.name());
            let words = ["auth", "can-i", "create", "mcppolicies", "--as", &user, "-n", &namespace];
            let words = words.map(str::to_owned);
            async move { sandbox.cluster.kubectl(words).await }
        };
        ensure!(ask(own.name().to_owned()).await?.trim() == "yes", "kubectl says no");
        ensure!(ask(other.name().to_owned()).await.is_err(), "kubectl says yes of the other namespace");
        Ok(())
    })
}

#[test]
fn whoever_tries_more_than_the_role_is_refused() -> anyhow::Result<()> {
    Cluster::operated()?.test(async |sandbox| {
        Operator::shared().await?;
        let (own, other) = (sandbox.namespace().await?, sandbox.namespace().await?);
        apply::<McpServer>(&other, "theirs", json!({"remote": {"url": "https://mcp.example.com/mcp"}}))
            .await?;
        let user = |role: &str| format!("{role}-in-{}", own.name());
        for role in ["viewer", "editor", "admin"] {
            bind(&own, &user(role), role).await?;
        }
        let admin = sandbox.cluster.client_as(&user("admin")).await?;
        let editor = sandbox.cluster.client_as(&user("editor")).await?;
        let viewer = sandbox.cluster.client_as(&user("viewer")).await?;
        let post = PostParams::default();
        let server: McpServer =
            object("McpServer", "made", &json!({"remote": {"url": "https://mcp.example.com/mcp"}}))?;
        let gateway: McpGateway = object("McpGateway", "made", &open_gateway())?;
        let policy: McpPolicy = object("McpPolicy", "made", &open_policy("made"))?;

        let servers =
            |client: &Client, namespace: &str| Api::<McpServer>::namespaced(client.clone(), namespace);
        let policies =
            |client: &Client, namespace: &str| Api::<McpPolicy>::namespaced(client.clone(), namespace);
        forbidden("a viewer makes a server", servers(&viewer, own.name()).create(&post, &server).await)?;
        servers(&editor, own.name()).create(&post, &server).await?;
        Api::<McpGateway>::namespaced(editor.clone(), own.name()).create(&post, &gateway).await?;
        forbidden("an editor makes a policy", policies(&editor, own.name()).create(&post, &policy).await)?;
        policies(&admin, own.name()).create(&post, &policy).await?;
        ensure!(servers(&viewer, own.name()).get("made").await?.spec == server.spec, "another spec");

        for client in [&viewer, &editor, &admin] {
            forbidden("reads another's server", servers(client, other.name()).get("theirs").await)?;
            forbidden(
                "lists all servers",
                Api::<McpServer>::all(client.clone()).list(&ListParams::default()).await,
            )?;
            let status = json!({"status": {"gateways": 7}});
            let (made, params) = (servers(client, own.name()), PatchParams::default());
            forbidden("writes a status", made.patch_status("made", &params, &Patch::Merge(&status)).await)?;
            let secrets = Api::<Secret>::namespaced(client.clone(), own.name());
            forbidden("reads the keys of the proxies", secrets.get("made-mcpgateway-keys").await)?;
            let secrets = Api::<Secret>::namespaced(client.clone(), NAMESPACE);
            forbidden("reads the authority's key", secrets.get("mcpmesh-ca").await)?;
        }
        forbidden(
            "writes into the other namespace",
            servers(&admin, other.name()).create(&post, &server).await,
        )?;
        forbidden("makes the mesh level", policies(&admin, NAMESPACE).create(&post, &policy).await)
    })
}

fn object<K: serde::de::DeserializeOwned>(kind: &str, name: &str, spec: &Value) -> anyhow::Result<K> {
    let object =
        json!({"apiVersion": "mcpmesh.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    Ok(serde_json::from_value(object)?)
}

/// The conditions of a gateway once they speak of it, without what differs for its name or time.
async fn told(namespace: &Namespace<'_>, gateway: &str, server: &str) -> anyhow::Result<String> {
    let api = namespace.api::<McpGateway>();
    let status = eventually("the gateway is told", || async {
        let status = api.get(gateway).await?.status.context("no status")?;
        ensure!(!said(&status.conditions, condition::RESOLVED_REFS).is_empty(), "{status:?}");
        Ok(status)
    });
    let status = status.await?;
    let mut text = format!("servers {:?} tools {:?}", status.servers, status.tools);
    for one in status.conditions {
        text.push_str(&format!("\n{} {} {} {}", one.type_, one.status, one.reason, one.message));
    }
    let revision = status.revision.unwrap_or_else(|| "none".to_owned());
    Ok(text.replace(server, "SERVER").replace(&revision, "REVISION"))
}

/// What the events of a gateway say, without the server's name; there is one.
async fn events(namespace: &Namespace<'_>, gateway: &str, server: &str) -> anyhow::Result<BTreeSet<String>> {
    let api = namespace.api::<Event>();
    eventually("there is an event", || async {
        let list = api.list(&ListParams::default()).await?.items;
        let of = list.into_iter().filter(|event| event.involved_object.name.as_deref() == Some(gateway));
        let said =
            of.map(|event| format!("{:?} {:?}", event.reason, event.message).replace(server, "SERVER"));
        let said: BTreeSet<String> = said.collect();
        ensure!(!said.is_empty(), "none");
        Ok(said)
    })
    .await
}

#[test]
fn a_tenant_learns_nothing_of_anothers_server_and_cannot_use_it_until_it_is_exported() -> anyhow::Result<()> {
    Cluster::operated()?.test(async |sandbox| {
        let operator = Operator::shared().await?;
        let owner = Tenant::start(sandbox, operator).await?;
        let thief = Tenant::start(sandbox, operator).await?;
        let theirs = owner.namespace.name();
        let naming = |server: &str| {
            let mut spec = open_gateway();
            spec["servers"] = json!({"refs": [{"name": server, "namespace": theirs, "prefix": "s"}]});
            spec
        };
        apply::<McpGateway>(&thief.namespace, "is-there", naming("fixture")).await?;
        apply::<McpGateway>(&thief.namespace, "is-not-there", naming("no-such")).await?;
        let there = told(&thief.namespace, "is-there", "fixture").await?;
        let not_there = told(&thief.namespace, "is-not-there", "no-such").await?;
        ensure!(there == not_there, "what is there reads otherwise than what is not:\n{there}\n---\n{not_there}");
        ensure!(there.contains("ServerNotFound"), "{there}");
        let there = events(&thief.namespace, "is-there", "fixture").await?;
        let not_there = events(&thief.namespace, "is-not-there", "no-such").await?;
        ensure!(there == not_there, "the events differ: {there:?} {not_there:?}");
        let seen = owner.namespace.api::<McpServer>().get("fixture").await?.status.context("no status")?;
        ensure!(seen.gateways == Some(1), "a gateway that may not use it is counted: {seen:?}");

        // All namespaces, please: none but its own comes.
        let mut greedy = open_gateway();
        greedy["servers"] = json!({"namespaces": {"from": "All"}});
        apply::<McpGateway>(&thief.namespace, "main", greedy).await?;
        let generation = thief.namespace.api::<McpGateway>().get("main").await?.metadata.generation;
        let servers = async || {
            let status = thief.namespace.api::<McpGateway>().get("main").await?.status.context("no status")?;
            ensure!(status.observed_generation == generation, "not yet seen");
            anyhow::Ok(status.servers.unwrap_or_default().attached)
        };
        let attached = eventually("the operator has seen it", &servers).await?;
        ensure!(attached == 1, "{attached} servers");
        let dump = thief.pod.config_dump().await?.to_string();
        ensure!(!dump.contains(theirs), "the other's namespace is in the configuration: {dump}");

        let url = owner.namespace.api::<McpServer>().get("fixture").await?.spec.remote.context("no remote")?.url;
        let exported = json!({"remote": {"url": url}, "exportTo": {"namespaces": {
            "from": "Selector", "selector": {"matchLabels": {"kubernetes.io/metadata.name": thief.namespace.name()}}}}});
        apply::<McpServer>(&owner.namespace, "shared", exported).await?;
        eventually("what is exported is attached", || async {
            let attached = servers().await?;
            ensure!(attached == 2, "{attached} servers");
            Ok(())
        })
        .await
    })
}

#[test]
fn a_secret_reaches_only_the_proxies_of_its_namespace_and_a_token_only_its_own_fleet() -> anyhow::Result<()> {
    Cluster::operated()?.test(async |sandbox| {
        let operator = Operator::shared().await?;
        let owner = Tenant::start(sandbox, operator).await?;
        let mut thief = Tenant::start(sandbox, operator).await?;
        let secret = json!({"metadata": {"name": "canary"}, "stringData": {"token": "canary-of-the-owner"}});
        let secret: Secret = serde_json::from_value(secret)?;
        owner.namespace.api().create(&PostParams::default(), &secret).await?;
        let url = owner.namespace.api::<McpServer>().get("fixture").await?.spec.remote.context("no remote")?.url;
        let spec = json!({
            "remote": {"url": url}, "exportTo": {"namespaces": {"from": "All"}},
            "credentials": {"headers": [{"name": "authorization", "secretKeyRef": {"name": "canary", "key": "token"}}]},
        });
        apply::<McpServer>(&owner.namespace, "paid", spec).await?;
        let mut greedy = open_gateway();
        greedy["servers"] = json!({"namespaces": {"from": "All"}});
        apply::<McpGateway>(&thief.namespace, "main", greedy).await?;
        let id = format!("{}/canary", owner.namespace.name());
        eventually("the owner's proxy has the Secret", || async {
            let dump = owner.pod.config_dump().await?.to_string();
            ensure!(dump.contains(&id), "{dump}");
            ensure!(!dump.contains("canary-of-the-owner"), "a dump shows a Secret");
            Ok(())
        })
        .await?;
        let refused = owner.namespace.api::<McpServer>();
        eventually("the export is refused", || async {
            let conditions = refused.get("paid").await?.status.context("no status")?.conditions;
            let said = said(&conditions, condition::RESOLVED_REFS);
            ensure!(said == "False CredentialsNotExportable", "{conditions:?}");
            Ok(())
        })
        .await?;
        answers(&thief.pod.client()?).await?;
        let dump = thief.pod.config_dump().await?.to_string();
        ensure!(!dump.contains("canary") && !dump.contains(owner.namespace.name()), "{dump}");

        // With its own token it asks for the other's fleet.
        thief.pod.restart_as(&format!("gateway/{}/main", owner.namespace.name())).await?;
        eventually("the operator refuses", || async {
            let log = thief.pod.log();
            ensure!(log.contains("not of this fleet's service account"), "{log}");
            Ok(())
        })
        .await?;
        let (status, said) = thief.pod.readiness().await?;
        ensure!(status == http::StatusCode::SERVICE_UNAVAILABLE, "{status}: {said}");
        let told = operator.log()?;
        ensure!(told.contains("refused a proxy that is not of this fleet"), "the operator's log does not say so");
        Ok(())
    })
}

#[test]
fn a_policy_of_the_operators_namespace_holds_for_the_tenants_that_it_selects() -> anyhow::Result<()> {
    Cluster::operated()?.test(async |sandbox| {
        let operator = Operator::shared().await?;
        let tenant = Tenant::start(sandbox, operator).await?;
        let other = Tenant::start(sandbox, operator).await?;
        let name = format!("closes-{}", tenant.namespace.name());
        let policy: McpPolicy = object("McpPolicy", &name, &json!({
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": tenant.namespace.name()}},
            "access": [{"name": "none", "effect": "Deny", "from": [{"anyone": {}}]}],
        }))?;
        let mesh: Api<McpPolicy> = Api::namespaced(sandbox.client(), NAMESPACE);
        mesh.create(&PostParams::default(), &policy).await?;
        refuses(&tenant.pod.client()?).await?;
        answers(&other.pod.client()?).await?;
        // In a tenant's namespace the same words mean nothing.
        let own: McpPolicy = object("McpPolicy", "reaches-out", &json!({
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": other.namespace.name()}},
            "access": [{"name": "none", "effect": "Deny", "from": [{"anyone": {}}]}],
        }))?;
        let policies = tenant.namespace.api::<McpPolicy>();
        policies.create(&PostParams::default(), &own).await?;
        eventually("it is refused", || async {
            let conditions = policies.get("reaches-out").await?.status.context("no status")?.conditions;
            ensure!(said(&conditions, condition::STALLED).starts_with("True"), "{conditions:?}");
            Ok(())
        })
        .await?;
        answers(&other.pod.client()?).await?;
        mesh.delete(&name, &kube::api::DeleteParams::default()).await?;
        answers(&tenant.pod.client()?).await
    })
}
