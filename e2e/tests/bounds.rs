//! Bodies made to be expensive: what they cost in memory, which only a process of its own can show. What they are
//! answered stands in the proxy's own tests.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use mcpmesh_e2e::federation::{open_gateway, remote};
use mcpmesh_e2e::fixture::Fixture;
use mcpmesh_e2e::http::Client;
use mcpmesh_e2e::mesh::{Manifests, Mesh};
use serde_json::json;

/// Bytes that one request may have.
const LIMIT: usize = 4 << 20;

/// The most memory that the process has had at once, in bytes.
fn peak(mesh: &Mesh) -> anyhow::Result<usize> {
    let id = mesh.process.id().context("the process has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: usize = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

fn call(arguments: &str) -> Bytes {
    let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"echo","_meta":{meta},"arguments":{arguments}}}}}"#
    ))
}

#[tokio::test]
async fn a_body_made_to_be_expensive_costs_less_than_twice_the_limit() -> anyhow::Result<()> {
    let (_process, fixture) = Fixture::Rmcp.start().await?;
    let manifests = Manifests::new()?;
    manifests.write("mesh.yaml", &(open_gateway("OnConflict") + &remote("fixture", &fixture)))?;
    let mesh = Mesh::up(manifests.path(), &[]).await?;
    let client = Client::new(&mesh.endpoint)?;
    client.modern("tools/call", json!({"name": "echo", "arguments": {"text": "hello"}})).await?;
    let many: Vec<String> = (0..1_000_000).map(|number| format!("\"{number}\":1")).collect();
    let (few, many) = (many[..300_000].join(","), many.join(","));
    let headers =
        [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "echo")];
    for (what, arguments, status) in [
        ("depth", format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)), 400),
        ("objects", format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000)), 400),
        ("keys", format!("{{{few}}}"), 400),
        ("a million keys", format!("{{{many}}}"), 413),
        ("length", format!(r#"{{"text":"{}"}}"#, "x".repeat(LIMIT)), 413),
    ] {
        // Once: what one thread gives back is not what another takes.
        let before = peak(&mesh)?;
        let answered = client.post(&headers, call(&arguments)).await;
        // Who sends more than is read may meet a closed connection.
        ensure!(answered.is_err() || answered.is_ok_and(|reply| reply.status.as_u16() == status), "{what}");
        let grown = peak(&mesh)?.saturating_sub(before);
        ensure!(grown < 2 * LIMIT, "{what}: {grown} bytes");
    }
    Ok(())
}
