//! The mesh as users install it: by helm, in pods, with the quickstart in a tenant's namespace.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use http::StatusCode;
use mcpmesh_crds::McpServer;
use mcpmesh_e2e::cluster::{Cluster, Namespace, Sandbox, Tier};
use mcpmesh_e2e::http::Client;
use mcpmesh_e2e::process::eventually_within;
use mcpmesh_e2e::tools::Tools;
use serde_json::{Value, json};

/// How long all of the quickstart may take until it is ready (some 12 s; the machine may be busy).
const READY: Duration = Duration::from_secs(180);

/// The key of manifests/quickstart.
const KEY: &str = "mcpmesh-quickstart-demo-key";

/// Opens a TLS connection without a certificate of the mesh and says whether a request on it is answered.
const AROUND: &str = "
import socket, ssl, sys
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
try:
    tls = context.wrap_socket(socket.create_connection((sys.argv[1], 17080), 10))
    tls.sendall(b'POST /local HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 0\\r\\n\\r\\n')
    print('answered' if tls.recv(1) else 'closed')
except ssl.SSLError as error:
    print('refused', error.reason)
except ConnectionResetError:
    print('refused')
";

/// PyPI mcp 2.x lists and calls.
const SDK: &str = "
import anyio, sys
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
async def main():
    http = create_mcp_http_client(headers={'Authorization': 'Bearer ' + sys.argv[2]})
    async with Client(streamable_http_client(sys.argv[1], http_client=http), mode='auto') as client:
        tools = await client.list_tools()
        print(sorted(tool.name for tool in tools.tools))
        result = await client.call_tool('everything_echo', {'message': 'from a pod'})
        print(result.content[0].text)
anyio.run(main)
";

/// What a program prints, run inside the cluster's network with its DNS.
async fn printed(sandbox: &Sandbox<'_>, words: &[&str]) -> anyhow::Result<String> {
    let (program, arguments) = words.split_first().context("no program")?;
    let output = sandbox.cluster.command(program)?.args(arguments).env("MCPMESH_KEY", KEY).output().await?;
    Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

async fn call(client: &Client, tool: &str, arguments: Value) -> anyhow::Result<(StatusCode, Value)> {
    let reply = client.modern("tools/call", json!({"name": tool, "arguments": arguments})).await?;
    Ok((reply.status, reply.response()?))
}

#[test]
fn the_quickstart_runs_in_pods_and_answers_denies_limits_and_lets_nobody_around_the_gateway()
-> anyhow::Result<()> {
    Cluster::shared(Tier::Two)?.test(async |sandbox| {
        sandbox.cluster.install_mesh().await?;
        let namespace = sandbox.namespace().await?;
        namespace.apply_folder("manifests/quickstart").await?;
        namespace.gateway_ready("main", 2).await?;
        let host = format!("main-mcpgateway.{}.svc.cluster.local", namespace.name());

        let tools = Tools::installed()?;
        let python = tools.python("mcp-2");
        let python = python.to_str().context("no text")?;
        let endpoint = format!("http://{host}:8080/mcp");
        // The status tells what one replica has seen; the other is a moment behind.
        let seen = eventually_within(READY, "an SDK client lists and calls", || async {
            let seen = printed(sandbox, &[python, "-c", SDK, &endpoint, KEY]).await?;
            ensure!(seen.contains("Echo: from a pod") && seen.contains("time_get_current_time"), "{seen}");
            Ok(seen)
        })
        .await?;
        ensure!(!seen.contains("get-env"), "a denied tool is listed: {seen}");

        let address = sandbox.service_ip(&namespace, "main-mcpgateway").await?;
        let client = Client::new(&format!("http://{address}:8080/mcp"))?;
        let (status, _) = call(&client, "everything_echo", json!({"message": "x"})).await?;
        ensure!(status == StatusCode::UNAUTHORIZED, "without a key: {status}");
        let client = client.with_header("authorization", &format!("Bearer {KEY}"));
        let (_, denied) = call(&client, "everything_get-env", json!({})).await?;
        ensure!(denied["error"]["code"] == -32602, "{denied}");

        limits(&namespace, &client).await?;
        around(sandbox, &namespace, python).await
    })
}

/// Two replicas share the limit: one each, so that the third call at the latest is refused.
async fn limits(namespace: &Namespace<'_>, client: &Client) -> anyhow::Result<()> {
    namespace
        .apply(
            "apiVersion: mcpmesh.io/v1alpha1
kind: McpPolicy
metadata: {name: two-a-day}
spec:
  targetRefs: [{kind: McpGateway, name: main}]
  limits: [{name: sums, to: {tools: [get-sum]}, requests: {count: 2, window: 24h}}]
",
        )
        .await?;
    eventually_within(READY, "the limit holds", || async {
        let (status, answer) = call(client, "everything_get-sum", json!({"a": 1, "b": 2})).await?;
        ensure!(status == StatusCode::TOO_MANY_REQUESTS, "{status}: {answer}");
        let wait = answer["error"]["data"]["retryAfterMs"].as_u64();
        ensure!(wait.is_some_and(|wait| wait > 0), "{answer}");
        Ok(())
    })
    .await
}

/// The server's own Service answers nobody who is not a gateway of the mesh.
async fn around(sandbox: &Sandbox<'_>, namespace: &Namespace<'_>, python: &str) -> anyhow::Result<()> {
    let server = sandbox.service_ip(namespace, "everything-mcpserver").await?.to_string();
    let said = printed(sandbox, &[python, "-c", AROUND, &server]).await?;
    ensure!(said.starts_with("refused") || said.starts_with("closed"), "{said}");
    let status = namespace.api::<McpServer>().get("everything").await?.status.context("no status")?;
    let catalog = status.catalog.context("no catalogue")?;
    ensure!(catalog.tools == 12 && catalog.digest.len() == 64, "{catalog:?}");
    Ok(())
}
