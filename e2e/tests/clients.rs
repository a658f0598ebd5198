//! Real clients against a federation of real servers, through `mcpmesh up`. `clients_direct` and `servers_direct` run
//! both ends without the mesh.

use anyhow::{Context as _, ensure};
use mcpmesh_e2e::clients::Client;
use mcpmesh_e2e::federation::{Federation, open_gateway, remote};
use mcpmesh_e2e::fixture::Fixture;
use mcpmesh_e2e::http;
use mcpmesh_e2e::mesh::{Manifests, Mesh};
use mcpmesh_e2e::process::eventually;
use mcpmesh_e2e::servers::Server;
use serde_json::{Value, json};

const STEPS: [&str; 9] =
    ["initialize", "tools", "prompts", "resources", "call", "read", "prompt", "progress", "cancel"];
/// What is asked of server-everything over each transport.
const EACH: [&str; 5] = ["read", "prompt", "complete", "progress", "cancel"];

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
        cancels_came((&fixture, "cancellations"), cancelled).await.with_context(|| format!("{client:?}"))?;
    }
    Ok(())
}

/// Waits until a server has heard of so many cancelled calls, which a tool of it tells.
async fn cancels_came((client, tool): (&http::Client, &str), expected: i32) -> anyhow::Result<()> {
    eventually("the cancel reached the server", || async {
        let call = json!({"name": tool, "arguments": {}});
        let counted = client.modern("tools/call", call).await?.response()?;
        let counted = counted["result"]["content"][0]["text"].as_str().map(str::to_owned);
        ensure!(counted == Some(expected.to_string()), "{tool}: {counted:?} of {expected}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_server_of_each_old_revision_does_everything_for_every_client() -> anyhow::Result<()> {
    let manifests = Manifests::new()?;
    let (mut text, mut processes) = (open_gateway("Always"), Vec::new());
    for server in Server::OLD {
        let (process, url) = server.start().await?;
        text += &remote(server.name(), &url);
        processes.push(process);
    }
    manifests.write("mesh.yaml", &text)?;
    let mesh = Mesh::up(manifests.path(), &[]).await?;
    let tools = Server::OLD.map(|server| format!("{}_wait", server.name()));
    listed(&mesh, &tools.each_ref().map(String::as_str)).await?;
    let client = http::Client::new(&mesh.endpoint)?;
    let resources = client.modern("resources/list", json!({})).await?.response()?;
    let resources: Vec<_> = resources["result"]["resources"].as_array().into_iter().flatten().collect();
    for server in Server::OLD.map(Server::name) {
        let uris = resources.iter().filter_map(|resource| resource["uri"].as_str());
        let own = uris.clone().find(|uri| uri.contains(&format!("/{server}/")));
        let own = own.with_context(|| format!("no resource of {server} in {resources:?}"))?;
        let [echo, greet, wait, cancellations] =
            ["echo", "greet", "wait", "cancellations"].map(|name| format!("{server}_{name}"));
        let arguments = [
            ["--call", &echo],
            ["--args", r#"{"text": "hello"}"#],
            ["--read", own],
            ["--prompt", &greet],
            ["--prompt-args", r#"{"name": "a"}"#],
            ["--progress", &wait],
            ["--progress-args", r#"{"seconds": 0.3}"#],
            ["--cancel", &wait],
            ["--cancel-args", r#"{"seconds": 60}"#],
        ];
        let mut cancelled = 0;
        for one in Client::ALL {
            in_both_eras(one, &mesh.endpoint, arguments.as_flattened(), &STEPS).await?;
            cancelled += 1 + i32::from(one.speaks_modern());
            cancels_came((&client, &cancellations), cancelled).await.with_context(|| format!("{one:?}"))?;
        }
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
    let client = http::Client::new(&mesh.endpoint)?;
    let mut all: Vec<_> =
        calls.iter().flat_map(|(tool, arguments)| ["--call", tool, "--args", arguments]).collect();
    let http = everything(&client, "everything-http").await?;
    all.extend(http.iter().map(String::as_str));
    for client in Client::ALL {
        in_both_eras(client, &mesh.endpoint, &all, &[&STEPS[..], &EACH].concat()).await?;
    }
    // The same over the other transports.
    let over_stdio = everything(&client, "everything").await?;
    let over_sse = everything(&client, "everything-sse").await?;
    let over_stdio: Vec<_> = over_stdio.iter().map(String::as_str).collect();
    let over_sse: Vec<_> = over_sse.iter().map(String::as_str).collect();
    for client in Client::ALL {
        in_both_eras(client, &mesh.endpoint, &over_stdio, &EACH).await?;
    }
    in_both_eras(Client::Rmcp, &mesh.endpoint, &over_sse, &EACH).await?;
    for server in ["everything", "memory", "time"] {
        let started = format!("default/{server}: started ");
        ensure!(mesh.process.output().contains(&started), "{started}: {}", mesh.process.output());
    }
    Ok(())
}

/// What server-everything is asked under this name: a resource, a prompt, completions of a prompt's arguments and of a
/// template's, progress and cancellation of a tool.
async fn everything(client: &http::Client, server: &str) -> anyhow::Result<Vec<String>> {
    let listed = async |method: &str, list: &str, key: &str, part: &str| {
        let reply = client.modern(method, json!({})).await?.response()?;
        let items = reply["result"][list].as_array().with_context(|| reply.to_string())?;
        // A server's own URIs are wrapped behind its name.
        let own = |text: &&str| text.contains(&format!("/{server}/")) && text.contains(part);
        let found = items.iter().filter_map(|item| item[key].as_str()).find(own);
        found.map(str::to_owned).with_context(|| format!("{method}: no {part} of {server} in {reply}"))
    };
    let resource = listed("resources/list", "resources", "uri", "architecture").await?;
    let template = listed("resources/templates/list", "resourceTemplates", "uriTemplate", "text").await?;
    let prompt = json!({"type": "ref/prompt", "name": format!("{server}_completable-prompt")});
    let completions = [
        json!({"ref": prompt, "argument": {"name": "department", "value": "S"}}),
        json!({"ref": prompt, "argument": {"name": "name", "value": "E"},
               "context": {"arguments": {"department": "Sales"}}}),
        json!({"ref": {"type": "ref/resource", "uri": template},
               "argument": {"name": "resourceId", "value": "7"}}),
    ];
    let mut asked = vec!["--read".to_owned(), resource];
    asked.extend(["--prompt".to_owned(), format!("{server}_simple-prompt")]);
    asked.extend(completions.iter().flat_map(|one| ["--complete".to_owned(), one.to_string()]));
    let tool = format!("{server}_trigger-long-running-operation");
    asked.extend(long_running(&tool).map(str::to_owned));
    Ok(asked)
}

/// Progress and cancellation of a tool of server-everything.
fn long_running(tool: &str) -> [&str; 8] {
    let (short, long) = (r#"{"duration": 1, "steps": 3}"#, r#"{"duration": 60, "steps": 60}"#);
    ["--progress", tool, "--progress-args", short, "--cancel", tool, "--cancel-args", long]
}
