//! Real clients against a federation of real servers, through `mcpmesh up`. `clients_direct` and `servers_direct` run
//! both ends without the mesh.

use anyhow::{Context as _, ensure};
use mcpmesh_e2e::clients::Client;
use mcpmesh_e2e::federation::{Federation, open_gateway, remote};
use mcpmesh_e2e::fixture::Fixture;
use mcpmesh_e2e::http;
use mcpmesh_e2e::mesh::{Manifests, Mesh};
use mcpmesh_e2e::process::eventually;
use serde_json::{Value, json};

const STEPS: [&str; 9] =
    ["initialize", "tools", "prompts", "resources", "call", "read", "prompt", "progress", "cancel"];

/// Waits until a tool of each server is listed.
async fn listed(mesh: &Mesh, tools: &[&str]) -> anyhow::Result<()> {
    let client = http::Client::new(&mesh.endpoint)?;
    eventually("a tool of each server is listed", || async {
        let mut cursor = None;
        let mut names = Vec::new();
        loop {
            let params = cursor.take().map_or_else(|| json!({}), |cursor: Value| json!({"cursor": cursor}));
            let reply = client.modern("tools/list", params).await?.response()?;
            let page = reply["result"]["tools"].as_array().with_context(|| reply.to_string())?;
            names.extend(page.iter().filter_map(|tool| Some(tool["name"].as_str()?.to_owned())));
            cursor = reply["result"].get("nextCursor").cloned();
            if cursor.is_none() {
                break;
            }
        }
        let missing: Vec<_> = tools.iter().filter(|tool| !names.iter().any(|name| name == *tool)).collect();
        ensure!(missing.is_empty(), "missing {missing:?} in {names:?}");
        Ok(())
    })
    .await
    .with_context(|| mesh.process.output())
}

/// Runs a client as it opens by itself, and in the era without sessions where it can.
async fn in_both_eras(client: Client, url: &str, arguments: &[&str], steps: &[&str]) -> anyhow::Result<()> {
    client.passes(url, arguments, steps).await?;
    if client.speaks_modern() {
        let modern: Vec<_> = ["--mode", "modern"].into_iter().chain(arguments.iter().copied()).collect();
        client.passes(url, &modern, steps).await?;
    }
    Ok(())
}

#[tokio::test]
async fn every_client_does_everything_on_a_fixture() -> anyhow::Result<()> {
    let (_process, fixture) = Fixture::Rmcp.start().await?;
    let manifests = Manifests::new()?;
    manifests.write("mesh.yaml", &(open_gateway("OnConflict") + &remote("fixture", &fixture)))?;
    let mesh = Mesh::up(manifests.path(), &[]).await?;
    listed(&mesh, &["echo"]).await?;
    let text = r#"{"text": "hello"}"#;
    let arguments = [
        ["--call", "echo"],
        ["--args", text],
        ["--read", "test://static-text"],
        ["--prompt", "test_prompt_with_arguments"],
        ["--prompt-args", r#"{"arg1": "a", "arg2": "b"}"#],
        ["--progress", "test_tool_with_progress"],
        ["--cancel", "wait"],
        ["--cancel-args", r#"{"seconds": 60}"#],
    ];
    let fixture = http::Client::new(&fixture)?;
    let mut cancelled = 0;
    for client in Client::ALL {
        in_both_eras(client, &mesh.endpoint, arguments.as_flattened(), &STEPS).await?;
        cancelled += 1 + i32::from(client.speaks_modern());
        eventually("the cancel reached the server", || async {
            let call = json!({"name": "cancellations", "arguments": {}});
            let counted = fixture.modern("tools/call", call).await?.response()?;
            let counted = counted["result"]["content"][0]["text"].as_str().map(str::to_owned);
            ensure!(counted == Some(cancelled.to_string()), "{client:?}: {counted:?} of {cancelled}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_federation_of_real_servers_answers_every_client() -> anyhow::Result<()> {
    let federation = Federation::start().await?;
    let mesh = Mesh::up(federation.manifests.path(), &[]).await?;
    let repository = json!({"repo_path": federation.folder.path()}).to_string();
    let folder = json!({"path": federation.folder.path()}).to_string();
    let (message, text) = (r#"{"message": "hello"}"#, r#"{"text": "hello"}"#);
    let calls = [
        ("everything_echo", message),
        ("everything-http_echo", message),
        ("everything-sse_echo", message),
        ("old-2024_echo", text),
        ("old-2025-03_echo", text),
        ("old-2025-06_echo", text),
        ("memory_read_graph", "{}"),
        ("filesystem_list_directory", folder.as_str()),
        ("time_get_current_time", r#"{"timezone": "UTC"}"#),
        ("git_git_status", repository.as_str()),
    ];
    listed(&mesh, &calls.map(|(tool, _)| tool)).await?;
    let resources =
        http::Client::new(&mesh.endpoint)?.modern("resources/list", json!({})).await?.response()?;
    let listed = resources["result"]["resources"].as_array().context("no resources")?;
    let old =
        listed.iter().find(|resource| resource["name"].as_str().is_some_and(|name| name.contains("text")));
    let uri = old.and_then(|resource| resource["uri"].as_str()).with_context(|| resources.to_string())?;
    let mut all: Vec<_> =
        calls.iter().flat_map(|(tool, arguments)| ["--call", tool, "--args", arguments]).collect();
    all.extend(["--read", uri, "--prompt", "everything-http_simple-prompt"]);
    all.extend(long_running("everything-http_trigger-long-running-operation"));
    for client in Client::ALL {
        in_both_eras(client, &mesh.endpoint, &all, &STEPS).await?;
    }
    // The same over the other transports.
    for server in ["everything", "everything-sse"] {
        let operation = format!("{server}_trigger-long-running-operation");
        in_both_eras(Client::Rmcp, &mesh.endpoint, &long_running(&operation), &["progress", "cancel"])
            .await?;
    }
    Ok(())
}

/// Progress and cancellation of a tool of server-everything.
fn long_running(tool: &str) -> [&str; 8] {
    let (short, long) = (r#"{"duration": 1, "steps": 3}"#, r#"{"duration": 60, "steps": 60}"#);
    ["--progress", tool, "--progress-args", short, "--cancel", tool, "--cancel-args", long]
}
