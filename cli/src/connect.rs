//! `mcpmesh connect`: the configuration with which a client uses the endpoint, shown or written.

mod merge;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::args::{Client, ConnectArgs};
use crate::exit::{Failure, Outcome};
use crate::private_file;

/// Where a client keeps its servers and what an entry looks like.
struct Recipe {
    title: &'static str,
    /// Relative to the home folder, or to the current one for a project's file.
    file: PathBuf,
    /// The member that holds the servers.
    member: &'static str,
    entry: Value,
    /// A link that installs the entry, where the client has one.
    link: Option<String>,
    /// A command that does so.
    command: Option<String>,
    /// What the user does afterwards.
    then: String,
}

/// Runs `mcpmesh connect`.
pub(crate) fn run(args: &ConnectArgs) -> Outcome {
    let recipe = recipe(args);
    let file = args.file.clone().unwrap_or_else(|| recipe.file.clone());
    if args.write { write(args, &recipe, &file) } else { show(args, &recipe, &file) }
}

fn show(args: &ConnectArgs, recipe: &Recipe, file: &Path) -> Outcome {
    let whole = json!({ recipe.member: { &args.name: recipe.entry } });
    let text = serde_json::to_string_pretty(&whole).context("cannot write JSON")?;
    anstream::println!(
        "{}: put this into {} (or repeat with --write)\n\n{text}",
        recipe.title,
        file.display()
    );
    if let Some(command) = &recipe.command {
        anstream::println!("\nor run\n\n  {command}");
    }
    if let Some(link) = &recipe.link {
        anstream::println!("\nor open\n\n  {link}");
    }
    anstream::println!("\n{}", recipe.then);
    Ok(())
}

fn write(args: &ConnectArgs, recipe: &Recipe, file: &Path) -> Outcome {
    let old = match fs::read_to_string(file) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Failure::failed(format!("cannot read {}: {error}", file.display()))),
    };
    let new = merge::merge(old.as_deref().unwrap_or_default(), recipe.member, &args.name, &recipe.entry)
        .with_context(|| format!("{} is left as it is", file.display()))?;
    if old.as_deref() == Some(&new) {
        anstream::println!("{} has this already.", file.display());
        return Ok(());
    }
    let before = fs::metadata(file).map_or(0o600, |found| found.permissions().mode() & 0o777);
    if let Some(old) = &old {
        let backup = backup(file);
        private_file::replace(&backup, old.as_bytes(), before)
            .with_context(|| format!("cannot write the backup {}", backup.display()))?;
        anstream::println!("backup   {}", backup.display());
    }
    // A key is its owner's alone, whoever could read the file before.
    let mode = if args.key.is_some() { before & 0o700 } else { before };
    private_file::replace(file, new.as_bytes(), mode)
        .with_context(|| format!("cannot write {}", file.display()))?;
    let private = if mode == before { "" } else { " (readable by you only: it holds the key)" };
    anstream::println!("written  {}{private}\n\n{}", file.display(), recipe.then);
    Ok(())
}

/// A name that is free: the first backup is the one that has nothing of ours in it.
fn backup(file: &Path) -> PathBuf {
    let name = |number: u32| {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(if number == 1 { ".bak".to_owned() } else { format!(".bak.{number}") });
        file.with_file_name(name)
    };
    let taken = |path: &PathBuf| path.symlink_metadata().is_ok();
    (1..).map(name).find(|path| !taken(path)).unwrap_or_else(|| name(0))
}

fn recipe(args: &ConnectArgs) -> Recipe {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    match args.client {
        Client::Cursor => cursor(args, &home),
        Client::ClaudeCode => claude_code(args),
        Client::ClaudeDesktop => claude_desktop(args, &home),
        Client::Vscode => vscode(args),
        Client::Windsurf => Recipe {
            title: "Windsurf",
            file: home.join(".codeium/windsurf/mcp_config.json"),
            member: "mcpServers",
            entry: with_headers(
                json!({ "serverUrl": args.url.as_str() }),
                bearer(args, |name| format!("${{env:{name}}}")),
            ),
            link: None,
            command: None,
            then: "Then refresh the MCP servers in Windsurf's settings.".to_owned(),
        },
    }
}

fn cursor(args: &ConnectArgs, home: &Path) -> Recipe {
    let entry =
        with_headers(json!({ "url": args.url.as_str() }), bearer(args, |name| format!("${{env:{name}}}")));
    let query: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("name", &args.name)
        .append_pair("config", &BASE64_STANDARD.encode(entry.to_string()))
        .finish();
    Recipe {
        title: "Cursor",
        file: home.join(".cursor/mcp.json"),
        member: "mcpServers",
        entry,
        link: Some(format!("cursor://anysphere.cursor-deeplink/mcp/install?{query}")),
        command: None,
        then: "Then enable it in Cursor's settings under MCP.".to_owned(),
    }
}

fn claude_code(args: &ConnectArgs) -> Recipe {
    let headers = bearer(args, |name| format!("${{{name}}}"));
    let option =
        headers.as_ref().map(|value| format!(" --header {}", quote(&format!("Authorization: {value}"))));
    let command = format!(
        "claude mcp add --transport http {} {}{}",
        quote(&args.name),
        quote(args.url.as_str()),
        option.unwrap_or_default()
    );
    Recipe {
        title: "Claude Code",
        file: PathBuf::from(".mcp.json"),
        member: "mcpServers",
        entry: with_headers(json!({ "type": "http", "url": args.url.as_str() }), headers),
        link: None,
        command: Some(command),
        then: "Then start `claude` in this folder; /mcp shows the server.".to_owned(),
    }
}

/// Claude Desktop's file knows programs only, so a bridge makes the connection.
fn claude_desktop(args: &ConnectArgs, home: &Path) -> Recipe {
    let folder =
        if cfg!(target_os = "macos") { "Library/Application Support/Claude" } else { ".config/Claude" };
    let mut words = vec!["-y".to_owned(), "mcp-remote".to_owned(), args.url.to_string()];
    words.extend(["--transport".to_owned(), "http-only".to_owned()]);
    let mut entry = json!({ "command": "npx" });
    let mut then =
        "Then restart Claude Desktop. It needs Node.js 18 or newer, which runs the bridge.".to_owned();
    // No blank in the argument: Claude Desktop on Windows would split it there.
    match (&args.key, &args.key_env) {
        (Some(key), _) => {
            words.extend(["--header".to_owned(), "Authorization:${MCPMESH_AUTHORIZATION}".to_owned()]);
            entry["env"] = json!({ "MCPMESH_AUTHORIZATION": format!("Bearer {key}") });
        }
        (None, Some(name)) => {
            words.extend(["--header".to_owned(), format!("Authorization:${{{name}}}")]);
            then = format!("Set {name} to `Bearer KEY`, the whole of the header. {then}");
        }
        (None, None) => {}
    }
    entry["args"] = json!(words);
    Recipe {
        title: "Claude Desktop",
        file: home.join(folder).join("claude_desktop_config.json"),
        member: "mcpServers",
        entry,
        link: None,
        command: None,
        then,
    }
}

fn vscode(args: &ConnectArgs) -> Recipe {
    let entry = with_headers(
        json!({ "type": "http", "url": args.url.as_str() }),
        bearer(args, |name| format!("${{env:{name}}}")),
    );
    let mut named = json!({ "name": args.name });
    if let (Some(named), Some(entry)) = (named.as_object_mut(), entry.as_object()) {
        named.extend(entry.clone());
    }
    let link: String = form_urlencoded::byte_serialize(named.to_string().as_bytes()).collect();
    Recipe {
        title: "Visual Studio Code",
        file: PathBuf::from(".vscode/mcp.json"),
        member: "servers",
        entry,
        link: Some(format!("vscode:mcp/install?{}", link.replace('+', "%20"))),
        command: Some(format!("code --add-mcp {}", quote(&named.to_string()))),
        then: "Then start it from the command palette: MCP: List Servers.".to_owned(),
    }
}

/// The Authorization header's value, when a key is wanted: the key, or the client's way to name a variable.
fn bearer(args: &ConnectArgs, reference: impl Fn(&str) -> String) -> Option<String> {
    let key = args.key.clone().or_else(|| args.key_env.as_deref().map(reference))?;
    Some(format!("Bearer {key}"))
}

fn with_headers(mut entry: Value, authorization: Option<String>) -> Value {
    if let Some(value) = authorization {
        entry["headers"] = json!({ "Authorization": value });
    }
    entry
}

/// A word for a POSIX shell; a variable in it stays for the client.
fn quote(word: &str) -> String {
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=@".contains(c));
    if plain && !word.is_empty() { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}
