//! The real clients against the fixture servers themselves, so that a failure behind the mesh is the mesh's.

use mcpmesh_e2e::clients::Client;
use mcpmesh_e2e::fixture::Fixture;

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
    for client in Client::ALL {
        client.passes(&url, &ARGUMENTS, &STEPS).await?;
        if client.speaks_modern() {
            let modern: Vec<_> = ["--mode", "modern"].into_iter().chain(ARGUMENTS).collect();
            client.passes(&url, &modern, &STEPS).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_client_passes_on_the_python_fixture() -> anyhow::Result<()> {
    every_client_passes(Fixture::Python).await
}

#[tokio::test]
async fn every_client_passes_on_the_rmcp_fixture() -> anyhow::Result<()> {
    every_client_passes(Fixture::Rmcp).await
}
