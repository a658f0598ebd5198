//! Callers who come to a server past the gateways: let in where the server says whom, shut out where it does not, and
//! told of where nobody could shut them out.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use http::StatusCode;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Patch, PatchParams};
use mcpmesh_crds::{McpServer, condition};
use mcpmesh_e2e::cluster::{Cluster, FIXTURE, Namespace, Tier};
use mcpmesh_e2e::http::Client;
use mcpmesh_e2e::operator::token;
use mcpmesh_e2e::process::eventually_within;
use serde_json::{Value, json};

/// A rollout, and npm's minutes where the machine is busy.
const TOLD: Duration = Duration::from_secs(300);

/// The keys of two people; only ann may do anything.
const ANN: &str = "key-of-ann-and-nobody-else";
const BOB: &str = "key-of-bob-and-nobody-else";

/// One server that knows callers itself, and a gateway in front of it that knows the same keys.
fn mesh() -> String {
    let key = |name: &str, key: &str| {
        format!(
            "apiVersion: v1
kind: Secret
metadata: {{name: {name}, labels: {{mcpmesh.io/api-key: 'true'}}, annotations: {{mcpmesh.io/owner: {name}}}}}
stringData: {{key: {key}}}
---
"
        )
    };
    format!(
        "{}{}apiVersion: v1
kind: ServiceAccount
metadata: {{name: crawler}}
---
apiVersion: mcpmesh.io/v1alpha1
kind: McpGateway
metadata: {{name: main}}
spec: {{authentication: {{apiKeys: {{}}}}, proxy: {{replicas: 1}}}}
---
apiVersion: mcpmesh.io/v1alpha1
kind: McpPolicy
metadata: {{name: main}}
spec:
  targetRefs: [{{kind: McpGateway, name: main}}]
  access: [{{name: known, effect: Allow, from: [{{authenticated: {{}}}}]}}]
---
apiVersion: mcpmesh.io/v1alpha1
kind: McpServer
metadata: {{name: piped}}
spec:
  container: {{image: {FIXTURE}, command: [/fixture-rmcp, --stdio]}}
  authentication: {{apiKeys: {{}}, serviceAccounts: {{}}}}
---
apiVersion: mcpmesh.io/v1alpha1
kind: McpPolicy
metadata: {{name: piped}}
spec:
  targetRefs: [{{kind: McpServer, name: piped}}]
  access:
    - {{name: these, effect: Allow, from: [{{user: ann}}, {{serviceAccount: {{name: crawler}}}}]}}
    - {{name: no-pictures, effect: Deny, from: [{{anyone: {{}}}}], to: {{tools: [test_image_content]}}}}
  limits: [{{name: two-a-day, per: [Principal], to: {{tools: [echo]}}, requests: {{count: 2, window: 24h}}}}]
",
        key("ann", ANN),
        key("bob", BOB),
    )
}

fn bearer(endpoint: &str, credential: &str) -> anyhow::Result<Client> {
    Ok(Client::new(endpoint)?.with_header("authorization", &format!("Bearer {credential}")))
}

async fn call(client: &Client, tool: &str) -> anyhow::Result<(StatusCode, Value)> {
    let reply = client.modern("tools/call", json!({"name": tool, "arguments": {"text": "hello"}})).await?;
    Ok((reply.status, reply.response()?))
}

async fn is_answered(client: &Client, tool: &str) -> anyhow::Result<()> {
    let (status, answer) = call(client, tool).await?;
    ensure!(
        status == StatusCode::OK && answer["result"]["content"][0]["text"] == "hello",
        "{status}: {answer}"
    );
    Ok(())
}

/// It is called like a tool that nobody has ever heard of.
async fn is_unknown(client: &Client, tool: &str) -> anyhow::Result<()> {
    let (_, denied) = call(client, tool).await?;
    let (_, unknown) = call(client, "no_such_tool").await?;
    let denied = denied.to_string().replace(tool, "no_such_tool");
    ensure!(unknown["error"]["code"] == -32602 && denied == unknown.to_string(), "{denied}, not {unknown}");
    Ok(())
}

#[test]
fn a_server_knows_callers_past_the_gateways_and_judges_and_charges_them_itself() -> anyhow::Result<()> {
    Cluster::shared(Tier::Two)?.test(async |sandbox| {
        sandbox.cluster.install_mesh().await?;
        let namespace = sandbox.namespace().await?;
        namespace.apply(&mesh()).await?;
        namespace.gateway_ready("main", 1).await?;
        let server = sandbox.service_ip(&namespace, "piped-mcpserver").await?;
        let direct = format!("http://{server}:17081/mcp");
        for credential in ["", "Bearer no-such-key", "Basic YW5uOmtleS1vZi1hbm4="] {
            let client = Client::new(&direct)?.with_header("authorization", credential);
            let (status, _) = call(&client, "echo").await?;
            ensure!(status == StatusCode::UNAUTHORIZED, "{credential:?}: {status}");
        }
        let reply = Client::new(&direct)?.modern("tools/list", json!({})).await?;
        ensure!(reply.status == StatusCode::UNAUTHORIZED, "without a credential: {}", reply.status);

        judged(&namespace, &direct).await?;
        let gateway = sandbox.service_ip(&namespace, "main-mcpgateway").await?;
        is_answered(&bearer(&format!("http://{gateway}:8080/mcp"), ANN)?, "piped_echo").await?;
        the_meshs_own_port_is_closed(&namespace, server).await?;
        the_door_closes(&namespace, &direct).await
    })
}

/// By the policies of the server: who is allowed, which tools there are, how often.
async fn judged(namespace: &Namespace<'_>, direct: &str) -> anyhow::Result<()> {
    let (ann, bob) = (bearer(direct, ANN)?, bearer(direct, BOB)?);
    for _ in 0..2 {
        is_answered(&ann, "echo").await?;
    }
    let (status, limited) = call(&ann, "echo").await?;
    let wait = limited["error"]["data"]["retryAfterMs"].as_u64();
    ensure!(
        status == StatusCode::TOO_MANY_REQUESTS && wait.is_some_and(|wait| wait > 0),
        "{status}: {limited}"
    );
    is_unknown(&ann, "test_image_content").await?;
    // Known, but no rule lets him do anything.
    is_unknown(&bob, "echo").await?;
    let listed = bob.modern("tools/list", json!({})).await?.response()?;
    ensure!(listed["result"]["tools"] == json!([]), "{listed}");

    // Somebody else, with an allowance of its own.
    let audience = format!("piped.{}.mcpserver", namespace.name());
    let accounts = namespace.api::<ServiceAccount>();
    let crawler = bearer(direct, &token(&accounts, "crawler", Some(&audience)).await?)?;
    is_answered(&crawler, "echo").await?;
    let stray = bearer(direct, &token(&accounts, "crawler", None).await?)?;
    let (status, _) = call(&stray, "echo").await?;
    ensure!(status == StatusCode::UNAUTHORIZED, "a token for the API server: {status}");
    Ok(())
}

/// Port 17080 asks for a certificate of the mesh; a credential is none.
async fn the_meshs_own_port_is_closed(namespace: &Namespace<'_>, server: IpAddr) -> anyhow::Result<()> {
    let roots = namespace.api::<ConfigMap>().get("mcpmesh-roots").await?.data.unwrap_or_default();
    let roots = roots.get("ca.crt").context("no ca.crt")?;
    let name = format!("piped-mcpserver.{}.svc", namespace.name());
    let key = format!("Bearer {ANN}");
    for path in ["local", "exported", "mcp"] {
        let endpoint = format!("https://{server}:17080/{path}");
        let client = Client::trusting(&endpoint, &name, roots)?.with_header("authorization", &key);
        let refused = client.modern("tools/list", json!({})).await;
        let refused = refused.err().with_context(|| format!("{path} is answered without a certificate"))?;
        let reason = format!("{refused:#}");
        ensure!(reason.contains("CertificateRequired"), "{path}: {reason}");
    }
    let plain = bearer(&format!("http://{server}:17080/mcp"), ANN)?.modern("tools/list", json!({})).await;
    ensure!(plain.is_err(), "without TLS: {plain:?}");
    // And what is the mesh's stands at no other port.
    for path in ["local", "exported"] {
        let client = bearer(&format!("http://{server}:17081/{path}"), ANN)?;
        let reply = client.modern("tools/list", json!({})).await?;
        ensure!(reply.status == StatusCode::NOT_FOUND, "17081/{path}: {}", reply.status);
    }
    Ok(())
}

/// The ports that a NetworkPolicy opens for everybody.
fn open_to_all(policy: &NetworkPolicy) -> Vec<i32> {
    let rules = policy.spec.iter().flat_map(|spec| spec.ingress.iter().flatten());
    let open = rules.filter(|rule| rule.from.as_ref().is_none_or(Vec::is_empty));
    let ports = open.flat_map(|rule| rule.ports.iter().flatten()).filter_map(|port| port.port.as_ref());
    ports.filter_map(|port| if let IntOrString::Int(port) = port { Some(*port) } else { None }).collect()
}

/// Port 17081 is open on its way there as long as the server lets anybody in by it, and no longer.
async fn the_door_closes(namespace: &Namespace<'_>, direct: &str) -> anyhow::Result<()> {
    let policies = namespace.api::<NetworkPolicy>();
    let open = open_to_all(&policies.get("piped-mcpserver").await?);
    ensure!(open == [17081], "open to all: {open:?}");
    let nobody = Patch::Merge(json!({"spec": {"authentication": null}}));
    namespace.api::<McpServer>().patch("piped", &PatchParams::default(), &nobody).await?;
    let pods = namespace.pods("mcpmesh.io/server=piped").await?;
    let past = pods.values().map(|pod| format!("http://{pod}:17081/mcp"));
    let ways: Vec<String> = past.chain([direct.to_owned()]).collect();
    eventually_within(TOLD, "nobody comes in any more", || async {
        let open = open_to_all(&policies.get("piped-mcpserver").await?);
        ensure!(open.is_empty(), "open to all: {open:?}");
        let service: Service = namespace.api().get("piped-mcpserver").await?;
        let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
        ensure!(ports.iter().all(|port| port.port != 17081), "{ports:?}");
        for endpoint in &ways {
            let answer = bearer(endpoint, ANN)?.modern("tools/list", json!({})).await;
            ensure!(answer.is_err(), "{endpoint}: {answer:?}");
        }
        Ok(())
    })
    .await
}

/// What its container gets as variables.
const SETTINGS: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {port: '3001'}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: npm}
data: {HOME: /tmp, npm_config_registry: 'http://10.10.0.1:4873/'}
";

/// A server over HTTP in a container of its own.
fn web(container: &str) -> String {
    format!(
        "apiVersion: mcpmesh.io/v1alpha1
kind: McpServer
metadata: {{name: web}}
spec: {{container: {{{container}, transport: StreamableHttp, port: 3001}}}}
"
    )
}

/// What its conditions Ready and Stalled say of its present form: status and reason of each.
async fn conditions(namespace: &Namespace<'_>) -> anyhow::Result<[String; 2]> {
    let server = namespace.api::<McpServer>().get("web").await?;
    let generation = server.metadata.generation;
    let conditions = server.status.context("no status")?.conditions;
    let says = |kind: &str| {
        let of_now = |one: &&Condition| one.type_ == kind && one.observed_generation == generation;
        let found = conditions.iter().find(of_now);
        found.map(|one| format!("{} {}", one.status, one.reason)).unwrap_or_default()
    };
    Ok([condition::READY, condition::STALLED].map(says))
}

#[test]
fn a_container_that_answers_at_the_pods_address_is_bypassable_until_it_listens_on_loopback_only()
-> anyhow::Result<()> {
    Cluster::shared(Tier::Two)?.test(async |sandbox| {
        sandbox.cluster.install_mesh().await?;
        let namespace = sandbox.namespace().await?;
        // Without what these say it would find no registry.
        namespace.apply(SETTINGS).await?;
        // It listens on every address, whatever one asks of it.
        let everything = "image: mcpmesh.test/npm-runner:e2e, \
            command: [npx, --yes, '@modelcontextprotocol/server-everything@2026.8.31', streamableHttp], \
            env: [{name: PORT, valueFrom: {configMapKeyRef: {name: settings, key: port}}}], \
            envFrom: [{configMapRef: {name: npm}}]";
        namespace.apply(&web(everything)).await?;
        let expected = ["False Bypassable", "True Bypassable"];
        eventually_within(TOLD, "it is said to be bypassable", || async {
            let said = conditions(&namespace).await?;
            ensure!(said == expected, "{said:?}");
            Ok(())
        })
        .await?;
        let fixture = format!("image: {FIXTURE}, command: [/fixture-rmcp, --port, '3001']");
        namespace.apply(&web(&fixture)).await?;
        eventually_within(TOLD, "it is ready", || async {
            let said = conditions(&namespace).await?;
            ensure!(said == ["True Ready", ""], "{said:?}");
            Ok(())
        })
        .await
    })
}
