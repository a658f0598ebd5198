//! A program of the build becomes an image from scratch, and a pod that can be called.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use http::Method;
use k8s_openapi::api::core::v1::Pod;

use mcpmesh_e2e::cluster::{Cluster, Image, Namespace, Sandbox, Tier};
use mcpmesh_e2e::http::Client;
use mcpmesh_e2e::mesh::built;
use mcpmesh_e2e::process::eventually_within;

/// How long a pod may take until it is ready (a few seconds; the machine may be busy).
const READY: Duration = Duration::from_secs(90);

/// An image of one of the build's programs.
fn load(sandbox: &Sandbox<'_>, reference: &str, program: &str) -> anyhow::Result<()> {
    let content = built(program)?;
    sandbox.cluster.load(&Image { reference, content: &content, entry_point: &[] })
}

/// As the operator hardens them.
const SECURITY: &str = "{runAsNonRoot: true, runAsUser: 65532, allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, \
    capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}";

/// A proxy without gateways: its own listeners answer all the same.
fn proxy() -> String {
    format!(
        "apiVersion: v1
kind: ConfigMap
metadata: {{name: proxy}}
data: {{config.json: '[]'}}
---
apiVersion: v1
kind: Service
metadata: {{name: proxy}}
spec: {{selector: {{app: proxy}}, ports: [{{name: metrics, port: 80, targetPort: 17020}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: proxy, labels: {{app: proxy}}}}
spec:
  automountServiceAccountToken: false
  containers:
    - name: proxy
      image: mcpmesh.test/proxy:e2e
      args: [--config, /etc/mcpmesh/config.json, --listen, '0.0.0.0:8080', --metrics, '0.0.0.0:17020']
      securityContext: {SECURITY}
      readinessProbe: {{httpGet: {{path: /livez, port: 17020}}, periodSeconds: 1}}
      volumeMounts: [{{name: config, mountPath: /etc/mcpmesh}}]
  volumes: [{{name: config, configMap: {{name: proxy}}}}]
"
    )
}

async fn ready(namespace: &Namespace<'_>, name: &str) -> anyhow::Result<IpAddr> {
    let pods = namespace.api::<Pod>();
    eventually_within(READY, "the pod is ready", || async {
        let status = pods.get(name).await?.status.context("no status")?;
        let ready =
            status.conditions.iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
        ensure!(ready, "phase {:?}", status.phase);
        Ok(status.pod_ip.context("no address")?.parse()?)
    })
    .await
}

#[test]
fn the_proxy_runs_from_scratch_and_its_service_and_pod_answer() -> anyhow::Result<()> {
    Cluster::shared(Tier::Two)?.test(async |sandbox| {
        load(sandbox, "mcpmesh.test/proxy:e2e", "mcpmesh-proxy")?;
        let namespace = sandbox.namespace().await?;
        namespace.apply(&proxy()).await?;
        let pod = ready(&namespace, "proxy").await?;
        let service = sandbox.service_ip(&namespace, "proxy").await?;
        for address in [format!("{service}:80"), format!("{pod}:17020")] {
            eventually_within(READY, "metrics are served", || async {
                let client = Client::new(&format!("http://{address}/metrics"))?;
                let reply = client.send(Method::GET, &[], "").await?;
                let text = String::from_utf8_lossy(&reply.body);
                ensure!(text.contains("mcpmesh_requests_in_flight 0"), "{address}: {text}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    })
}
