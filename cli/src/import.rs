//! `mcpmesh import`: the configuration of an MCP client becomes McpServers and Secrets.
//!
//! `up` uses the same translation, in memory, for a folder that has a client's configuration and no YAML.

mod client_file;
mod docker_run;
mod launcher;
mod secrets;
mod translate;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use mcpmesh_compiler::manifest;
use mcpmesh_compiler::{Diagnostic, Install, Severity, compile};
use mcpmesh_ir::EgressRule;

use crate::args::{ImportArgs, SecretsTo};
use crate::exit::{Failure, Outcome};
use crate::private_file;
use crate::source;

pub(crate) use translate::{Imported, Note, SECRETS};

/// Files in which clients keep their servers, in the order in which `up` looks for them.
pub(crate) const KNOWN: [&str; 3] = [".mcp.json", ".cursor/mcp.json", ".vscode/mcp.json"];

/// Reads a client's configuration and translates it.
pub(crate) fn read(file: &Path, namespace: &str, secrets: SecretsTo) -> anyhow::Result<Imported> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let contents = client_file::parse(&text).with_context(|| file.display().to_string())?;
    let around = translate::Around::of(file, namespace);
    Ok(translate::translate(&contents, &around, secrets))
}

/// Runs `mcpmesh import`.
pub(crate) fn run(args: &ImportArgs) -> Outcome {
    let secrets = match (args.secrets, &args.out) {
        (Some(SecretsTo::File), None) => {
            return Err(Failure::usage("--secrets file needs --out DIR: secrets are not printed"));
        }
        (Some(chosen), _) => chosen,
        (None, Some(_)) => SecretsTo::File,
        (None, None) => SecretsTo::Env,
    };
    let mut imported = read(&args.file, &args.namespace, secrets)?;
    leave_out_ourselves(&mut imported);
    let mistakes = mistakes(&imported)?;
    imported.notes.extend(mistakes);
    match &args.out {
        None => anstream::print!("{}", documents(&imported)?),
        Some(folder) => write(&imported, folder, secrets)?,
    }
    for note in &imported.notes {
        note.say();
    }
    if imported.notes.iter().any(|note| note.error) { Err(Failure::Said) } else { Ok(()) }
}

/// What `connect` wrote leads to the mesh that the servers are for: it would stand behind itself.
fn leave_out_ourselves(imported: &mut Imported) {
    let (ours, others): (Vec<_>, Vec<_>) =
        std::mem::take(&mut imported.servers).into_iter().partition(source::is_ourselves);
    imported.servers = others;
    for server in ours {
        let name = server.pointer("/metadata/name").and_then(serde_json::Value::as_str).unwrap_or_default();
        let place = imported.places.get(name).copied().unwrap_or_default();
        let secret = format!("{name}{SECRETS}");
        imported.secrets.retain(|one| one.pointer("/metadata/name").is_none_or(|name| *name != *secret));
        imported.notes.retain(|note| note.place != place);
        imported.notes.push(Note {
            error: false,
            server: name.to_owned(),
            place,
            message: "leads to mcpmesh itself: it is left out".to_owned(),
        });
    }
}

/// What a compile finds wrong with the servers that were made: what a client takes, such as a range of versions, an
/// McpServer may not.
fn mistakes(imported: &Imported) -> anyhow::Result<Vec<Note>> {
    let parsed = manifest::parse("", &documents(imported)?);
    let install = Install { implied_gateway: true, remotes: EgressRule::private(), ..Install::default() };
    let (inputs, gathered) = manifest::gather(&parsed.objects, install);
    let all = parsed.diagnostics.into_iter().chain(gathered).chain(compile(&inputs).diagnostics);
    let errors = all.filter(|found| found.severity == Severity::Error);
    let note = |Diagnostic { object, path, message, help, .. }| {
        let help = help.map(|help| format!("; {help}")).unwrap_or_default();
        let server = object.map(|object| object.name).unwrap_or_default();
        let place = imported.places.get(&server).copied().unwrap_or_default();
        Note { error: true, server, place, message: format!("{path}: {message}{help}") }
    };
    Ok(errors.map(note).collect())
}

fn write(imported: &Imported, folder: &Path, secrets: SecretsTo) -> Outcome {
    let servers = folder.join("servers.yaml");
    let private = folder.join("secrets.yaml");
    let split = secrets == SecretsTo::File && !imported.secrets.is_empty();
    let exists = [Some(&servers), split.then_some(&private)].into_iter().flatten().find(|path| path.exists());
    if let Some(path) = exists {
        return Err(Failure::failed(format!(
            "{} exists: move it away or choose another --out",
            path.display()
        )));
    }
    if split {
        let text = yaml(&imported.secrets)?;
        private_file::write(&private, text.as_bytes())
            .with_context(|| format!("cannot write {}", private.display()))?;
        anstream::println!("{} (mode 0600: keep it out of version control)", private.display());
    }
    let text = if split { yaml(&imported.servers)? } else { documents(imported)? };
    private_file::replace(&servers, text.as_bytes(), 0o644)
        .with_context(|| format!("cannot write {}", servers.display()))?;
    anstream::println!("{}", servers.display());
    anstream::eprintln!("Next: mcpmesh up {}", folder.display());
    Ok(())
}

/// Everything as one YAML stream.
pub(crate) fn documents(imported: &Imported) -> anyhow::Result<String> {
    let mut all = imported.servers.clone();
    all.extend(imported.secrets.iter().cloned());
    yaml(&all)
}

fn yaml(objects: &[serde_json::Value]) -> anyhow::Result<String> {
    let mut text = String::new();
    for object in objects {
        let separator = if text.is_empty() { "" } else { "---\n" };
        let document = serde_saphyr::to_string(object).context("cannot write YAML")?;
        write!(text, "{separator}{document}")?;
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
