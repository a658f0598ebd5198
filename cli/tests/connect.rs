//! `connect --write` merges: nothing of a client's file is lost, and there is a backup.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use assert_cmd::Command;
use serde_json::{Value, json};

fn connect(folder: &std::path::Path, extra: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcpmesh"));
    command.args(["connect", "vscode", "--write"]).args(extra).current_dir(folder).assert()
}

#[test]
fn a_written_configuration_keeps_the_old_one_and_a_backup() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(".vscode/mcp.json");
    connect(folder.path(), &[]).success();
    let first = fs::read_to_string(&file).unwrap();
    assert!(first.contains("http://127.0.0.1:8080/mcp"), "{first}");
    assert!(!file.with_extension("json.bak").exists());

    let mine = first.replacen('{', "{\n  // mine", 1);
    fs::write(&file, &mine).unwrap();
    connect(folder.path(), &["--url", "http://127.0.0.1:9/mcp"]).success();
    let second = fs::read_to_string(&file).unwrap();
    assert!(second.contains("// mine") && second.contains("http://127.0.0.1:9/mcp"), "{second}");
    assert_eq!(fs::read_to_string(file.with_extension("json.bak")).unwrap(), mine);

    connect(folder.path(), &["--url", "http://127.0.0.1:10/mcp"]).success();
    assert_eq!(fs::read_to_string(file.with_extension("json.bak")).unwrap(), mine);
    assert_eq!(fs::read_to_string(file.with_extension("json.bak.2")).unwrap(), second);
}

#[test]
fn each_clients_own_file_is_written_in_its_own_words() {
    let url = "http://127.0.0.1:8080/mcp";
    let desktop = if cfg!(target_os = "macos") {
        "Library/Application Support/Claude/claude_desktop_config.json"
    } else {
        ".config/Claude/claude_desktop_config.json"
    };
    let bridge = json!({
        "command": "npx",
        "args": ["-y", "mcp-remote", url, "--transport", "http-only", "--header", "Authorization:${MESH_KEY}"],
    });
    let with = |value: &str, mut entry: Value| {
        entry["headers"] = json!({ "Authorization": value });
        entry
    };
    for (client, file, member, entry) in [
        ("cursor", ".cursor/mcp.json", "mcpServers", with("Bearer ${env:MESH_KEY}", json!({ "url": url }))),
        (
            "claude-code",
            ".mcp.json",
            "mcpServers",
            with("Bearer ${MESH_KEY}", json!({ "type": "http", "url": url })),
        ),
        ("claude-desktop", desktop, "mcpServers", bridge),
        (
            "vscode",
            ".vscode/mcp.json",
            "servers",
            with("Bearer ${env:MESH_KEY}", json!({ "type": "http", "url": url })),
        ),
        (
            "windsurf",
            ".codeium/windsurf/mcp_config.json",
            "mcpServers",
            with("Bearer ${env:MESH_KEY}", json!({ "serverUrl": url })),
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcpmesh"));
        command.args(["connect", client, "--write", "--key-env", "MESH_KEY"]);
        let done = command.env("HOME", folder.path()).current_dir(folder.path()).assert().success();
        let said = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
        assert!(said.starts_with("written  ") && said.contains("\n\n"), "{client}: {said}");
        let written: Value =
            serde_json::from_str(&fs::read_to_string(folder.path().join(file)).unwrap()).unwrap();
        assert_eq!(written, json!({ member: { "mcpmesh": entry } }), "{client}");
    }
}

#[test]
fn a_file_that_gets_a_key_is_its_owners_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mcp.json");
    fs::write(&file, "{}").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let mode = || fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    connect(folder.path(), &["--file", "mcp.json"]).success();
    assert_eq!(mode(), 0o644);
    connect(folder.path(), &["--file", "mcp.json", "--key", "mcpmesh_k"]).success();
    assert_eq!(mode(), 0o600);
}

#[test]
fn a_file_that_cannot_be_merged_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mcp.json");
    fs::write(&file, "{ broken").unwrap();
    connect(folder.path(), &["--file", "mcp.json"]).code(1);
    assert_eq!(fs::read_to_string(&file).unwrap(), "{ broken");
}
