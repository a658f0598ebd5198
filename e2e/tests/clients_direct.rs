//! The real clients against the fixture servers themselves, so that a failure behind the mesh is the mesh's.

use anyhow::ensure;
use mcpmesh_e2e::clients::Client;
use mcpmesh_e2e::fixture::Fixture;
use mcpmesh_e2e::http;
use mcpmesh_e2e::process::eventually;
use serde_json::json;

const ARGUMENTS: [&str; 16] = [
    "--call",
    "echo",
    "--args",
    r#"{"text": "hello"}"#,
    "--read",
    "test://static-text",
    "--prompt",
    "test_prompt_with_arguments",
    "--prompt-args",
    r#"{"arg1": "a", "arg2": "b"}"#,
    "--progress",
    "test_tool_with_progress",
    "--cancel",
    "wait",
    "--cancel-args",
    r#"{"seconds": 60}"#,
];
const STEPS: [&str; 9] =
    ["initialize", "tools", "prompts", "resources", "call", "read", "prompt", "progress", "cancel"];

async fn every_client_passes(fixture: Fixture) -> anyhow::Result<()> {
    let (_process, url) = fixture.start().await?;
    let mut cancelled = 0;
    for client in Client::ALL {
        cancelled += 1;
        client.passes(&url, &ARGUMENTS, &STEPS).await?;
        if client.speaks_modern() {
            let modern: Vec<_> = ["--mode", "modern"].into_iter().chain(ARGUMENTS).collect();
            client.passes(&url, &modern, &STEPS).await?;
            cancelled += 1;
        }
    }
    let fixture = http::Client::new(&url)?;
    eventually("every cancel reached the server", || async {
        let reply = fixture.modern("tools/call", json!({"name": "cancellations", "arguments": {}})).await?;
        let counted = reply.response()?["result"]["content"][0]["text"].clone();
        ensure!(counted.as_str() == Some(cancelled.to_string().as_str()), "{counted} of {cancelled}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn every_client_passes_on_the_python_fixture() -> anyhow::Result<()> {
    every_client_passes(Fixture::Python).await
}

#[tokio::test]
async fn every_client_passes_on_the_rmcp_fixture() -> anyhow::Result<()> {
    every_client_passes(Fixture::Rmcp).await
}
