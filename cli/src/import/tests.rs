use super::*;
use crate::args::SecretsTo;

fn import(text: &str, secrets: SecretsTo) -> Imported {
    let contents = client_file::parse(text).unwrap();
    translate::translate(
        &contents,
        &translate::Around::of(Path::new("/w/.vscode/mcp.json"), "default"),
        secrets,
    )
}

const VSCODE: &str = r#"{
  // comments are fine
  "inputs": [{ "id": "gh-token", "type": "promptString", "password": true }],
  "servers": {
    "GitHub (work)": {
      "command": "docker",
      "args": ["run", "-i", "--rm", "-e", "GITHUB_TOKEN", "-e", "LOG=debug", "ghcr.io/github/github-mcp-server", "stdio"],
      "env": { "GITHUB_TOKEN": "${input:gh-token}" },
    },
    "files": { "command": "npx", "args": ["-y", "@acme/files@1.0.0", "${workspaceFolder}/docs"], "env": { "DEPTH": 3 } },
    "remote": { "type": "http", "url": "https://mcp.example.com/mcp", "headers": { "Authorization": "Bearer abc" } },
  },
}"#;

#[test]
fn a_configuration_becomes_servers_and_secrets() {
    let imported = import(VSCODE, SecretsTo::File);
    let names: Vec<_> = imported.servers.iter().map(|s| s["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["github-work", "files", "remote"]);
    let container = &imported.servers[0]["spec"]["container"];
    assert_eq!(container["args"], serde_json::json!(["stdio"]));
    assert_eq!(container["env"][0]["valueFrom"]["secretKeyRef"]["name"], "github-work-secrets");
    assert_eq!(container["env"][1], serde_json::json!({"name": "LOG", "value": "debug"}));
    assert_eq!(imported.servers[1]["spec"]["package"]["args"], serde_json::json!(["/w/docs"]));
    assert_eq!(imported.servers[1]["spec"]["package"]["env"][0]["value"], "3");
    let header = &imported.servers[2]["spec"]["credentials"]["headers"][0];
    assert_eq!(header["prefix"], "Bearer ");
    assert_eq!(imported.secrets[0]["stringData"]["GITHUB_TOKEN"], "${env:GH_TOKEN}");
    assert_eq!(imported.secrets[1]["stringData"]["authorization"], "abc");
}

#[test]
fn in_env_mode_no_secret_value_is_in_the_output() {
    let text = r#"{"mcpServers": {
        "a": {"command": "uvx", "args": ["x"], "env": {"API_KEY": "canary-1"}},
        "b": {"command": "uvx", "args": ["y"], "env": {"API_KEY": "canary-2"}},
        "c": {"url": "https://example.com", "headers": {"X-Key": "canary-3"}}}}"#;
    let imported = import(text, SecretsTo::Env);
    let yaml = documents(&imported).unwrap();
    assert!(!yaml.contains("canary"), "{yaml}");
    for variable in ["${env:API_KEY}", "${env:B_API_KEY}", "${env:C_X_KEY}"] {
        assert!(yaml.contains(variable), "{variable}: {yaml}");
    }
    assert!(!format!("{:?}", imported.notes).contains("canary"));
}

#[test]
fn a_server_that_cannot_be_said_in_yaml_hides_no_other() {
    let text = r#"{"mcpServers": {"local": {"command": "node", "args": ["x.js"]}, "ok": {"command": "uvx", "args": ["x"]}}}"#;
    let imported = import(text, SecretsTo::File);
    assert_eq!(imported.servers.len(), 1);
    assert!(imported.notes.iter().any(|note| note.error && note.server == "local"));
}

#[test]
fn a_file_that_is_no_configuration_says_so() {
    assert!(client_file::parse("{}").unwrap_err().to_string().contains("mcpServers"));
    assert!(client_file::parse("nonsense").unwrap_err().to_string().starts_with("not JSON"));
}

#[test]
fn a_header_of_a_bridge_takes_its_value_from_the_entrys_env() {
    let text = r#"{"mcpServers": {"r": {"command": "npx",
        "args": ["-y", "mcp-remote", "https://x.example/mcp", "--header", "Authorization:${AUTH}", "--header", "X-Team:${TEAM}"],
        "env": {"AUTH": "Bearer canary-1"}}}}"#;
    let imported = import(text, SecretsTo::File);
    let headers = &imported.servers[0]["spec"]["credentials"]["headers"];
    assert_eq!((&headers[0]["name"], &headers[0]["prefix"]), (&"Authorization".into(), &"Bearer ".into()));
    assert_eq!(imported.secrets[0]["stringData"]["authorization"], "canary-1");
    assert_eq!(imported.secrets[0]["stringData"]["x-team"], "${env:TEAM}");
    assert!(!documents(&import(text, SecretsTo::Env)).unwrap().contains("canary"));
}

#[test]
fn what_is_dropped_or_stands_in_the_open_is_said() {
    let text = r#"{"mcpServers": {
        "a": {"command": "uvx", "args": ["x"], "envFile": ".env", "cwd": "/srv"},
        "b": {"url": "https://x.example/mcp?api_key=canary-1&page=2", "oauth": {"clientId": "c"}},
        "c": {"url": "https://x.example/mcp?page=2"}}}"#;
    let notes = import(text, SecretsTo::Env).notes;
    let said = |server: &str| -> Vec<&str> {
        notes.iter().filter(|note| note.server == server).map(|note| note.message.as_str()).collect()
    };
    assert!(said("a").iter().any(|text| text.contains("envFile")), "{notes:?}");
    assert!(said("a").iter().any(|text| text.contains("cwd")), "{notes:?}");
    assert!(said("b").iter().any(|text| text.contains("oauth")), "{notes:?}");
    assert!(said("b").iter().any(|text| text.contains("\"api_key\" in the query")), "{notes:?}");
    assert!(said("c").is_empty() && !format!("{notes:?}").contains("canary"), "{notes:?}");
}

#[test]
fn an_entry_that_cannot_be_read_hides_no_other() {
    let text =
        r#"{"mcpServers": {"bad": {"command": ["x"]}, "ok": {"command": "uvx", "args": ["x"]}, "odd": 3}}"#;
    let imported = import(text, SecretsTo::File);
    assert_eq!(imported.servers.len(), 1);
    let broken: Vec<_> =
        imported.notes.iter().filter(|note| note.error).map(|note| note.server.as_str()).collect();
    assert_eq!(broken, ["bad", "odd"]);
    let said = imported.notes.last().map(|note| note.message.as_str());
    let wanted = "its entry is none that clients know: invalid type: integer `3`, expected a mapping; write its fields";
    assert_eq!(said, Some(wanted));
}

#[test]
fn what_connect_wrote_is_no_server_of_the_mesh() {
    let text = r#"{"mcpServers": {
        "bridge": {"command": "npx", "args": ["mcp-remote", "http://127.0.0.1:8080/mcp", "--header", "Authorization:${A}"], "env": {"A": "Bearer canary"}},
        "mcpmesh": {"url": "http://localhost:8080/mcp"},
        "ok": {"url": "http://localhost:8081/mcp", "headers": {"X": "y"}}}}"#;
    let mut imported = import(text, SecretsTo::Env);
    leave_out_ourselves(&mut imported);
    let all = documents(&imported).unwrap();
    assert!(all.contains("localhost:8081") && !all.contains(":8080") && !all.contains("bridge"), "{all}");
    let said: Vec<_> =
        imported.notes.iter().map(|note| (note.error, &*note.server, &*note.message)).collect();
    let ours = "leads to mcpmesh itself: it is left out";
    assert_eq!(said[1..], [(false, "bridge", ours), (false, "mcpmesh", ours)]);
}
