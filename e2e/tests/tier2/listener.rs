//! A listener with TLS: its certificate is replaced while clients call.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use mcpmesh_e2e::cluster::{Cluster, FIXTURE, Namespace, Tier};
use mcpmesh_e2e::http::Client;
use mcpmesh_e2e::process::eventually;
use mcpmesh_e2e::traffic::{Plan, Traffic, open_gateway};
use serde_json::json;
use tokio::process::Command;

/// What the certificates are for.
const NAME: &str = "mcp.example.com";

fn mesh() -> String {
    let gateway =
        open_gateway("listeners: [{name: https, port: 8443, tls: {secretRef: {name: front-door}}}]");
    format!(
        "{gateway}---
apiVersion: mcpmesh.io/v1alpha1
kind: McpServer
metadata: {{name: piped}}
spec: {{container: {{image: {FIXTURE}, command: [/fixture-rmcp, --stdio]}}}}
"
    )
}

/// A certificate and its key in PEM, known by nobody but itself.
async fn certificate() -> anyhow::Result<(String, String)> {
    let folder = tempfile::tempdir()?;
    let subject = format!("/CN={NAME}");
    let names = format!("subjectAltName=DNS:{NAME}");
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    openssl.args(["-days", "2", "-keyout", "key", "-out", "crt", "-subj", &subject, "-addext", &names]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]).current_dir(folder.path());
    let output = openssl.output().await.context("starting openssl")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name));
    Ok((read("crt")?, read("key")?))
}

async fn show(namespace: &Namespace<'_>, (certificate, key): &(String, String)) -> anyhow::Result<()> {
    let data = BTreeMap::from([("tls.crt", certificate), ("tls.key", key)]);
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "front-door"},
        "type": "kubernetes.io/tls",
        "stringData": data,
    });
    let secrets = namespace.api::<Secret>();
    secrets.patch("front-door", &PatchParams::apply("e2e").force(), &Patch::Apply(&secret)).await?;
    Ok(())
}

/// The certificate that new connections are shown is this one, on every proxy: of so many in a row, all are.
async fn is_shown(endpoint: &str, certificate: &str) -> anyhow::Result<()> {
    for _ in 0..20 {
        Client::trusting(endpoint, NAME, certificate)?.modern("tools/list", json!({})).await?;
    }
    Ok(())
}

#[test]
fn a_listeners_certificate_is_replaced_under_traffic_and_no_request_fails() -> anyhow::Result<()> {
    Cluster::shared(Tier::Two)?.test(async |sandbox| {
        sandbox.cluster.install_mesh().await?;
        let namespace = sandbox.namespace().await?;
        let (first, second) = (certificate().await?, certificate().await?);
        show(&namespace, &first).await?;
        namespace.apply(&mesh()).await?;
        namespace.gateway_ready("main", 1).await?;
        let address = sandbox.service_ip(&namespace, "main-mcpgateway").await?;
        let endpoint = format!("https://{address}:8443/mcp");
        let tls = Some((NAME, format!("{}{}", first.0, second.0)));
        let traffic =
            Traffic::start(Plan { endpoint: endpoint.clone(), tools: vec!["piped_echo"], tls }).await?;
        is_shown(&endpoint, &first.0).await?;
        traffic.goes_on(50).await?;
        show(&namespace, &second).await?;
        eventually("the second certificate is shown", || is_shown(&endpoint, &second.0)).await?;
        traffic.goes_on(50).await?;
        traffic.stop().await?.lost_nothing(100)
    })
}
