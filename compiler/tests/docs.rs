//! Every YAML block of the documentation compiles: the blocks of a page are one folder of objects. Warnings pass, since
//! an example may leave out the policy that is beside its point.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

#[path = "installed/cluster.rs"]
mod installed;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mcpmesh_compiler::{Install, Service, Severity, compile, manifest};
use mcpmesh_ir::EgressRule;

/// The pages for users. Those of adr/ show fragments.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> =
        docs.filter(|path| path.extension().is_some_and(|one| one == "md")).collect();
    pages.push(root.join("README.md"));
    pages.sort();
    pages
}

/// The page's blocks as one text of several documents, each line where it stands in the page, so that a diagnostic
/// names the page's own line.
fn manifests(page: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    for line in page.lines() {
        match line {
            "```yaml" => {
                inside = true;
                text.push_str("---");
            }
            "```" => inside = false,
            _ if inside => text.push_str(line),
            _ => {}
        }
        text.push('\n');
    }
    text
}

fn complaints(page: &Path) -> Vec<String> {
    let text = manifests(&fs::read_to_string(page).unwrap());
    let name = page.file_name().unwrap().to_str().unwrap();
    let parsed = manifest::parse(name, &text);
    let install = Install {
        remotes: EgressRule::private(),
        version_key: [7; 32],
        cluster: Some(installed::cluster()),
        ..Install::default()
    };
    let (mut inputs, duplicates) = manifest::gather(&parsed.objects, install);
    let servers: Vec<_> = inputs.servers().map(|(id, server)| (id.clone(), server.clone())).collect();
    for (id, server) in servers {
        if let Some(named) = &server.spec.service {
            let ports = BTreeMap::from([(named.port, vec![SocketAddr::from(([10, 0, 0, 1], named.port))])]);
            inputs.of_mut(&id.namespace).services.insert(named.name.clone(), Arc::new(Service { ports }));
        }
    }
    let mut compiled = compile(&inputs);
    manifest::locate(&parsed.objects, &mut compiled.diagnostics);
    let all = parsed.diagnostics.iter().chain(&duplicates).chain(&compiled.diagnostics);
    all.filter(|found| found.severity == Severity::Error).map(ToString::to_string).collect()
}

#[test]
fn every_yaml_block_of_the_documentation_compiles() {
    let pages = pages();
    let complaints: Vec<String> = pages.iter().flat_map(|page| complaints(page)).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn each_kind_has_a_page_with_examples() {
    for kind in ["mcpserver", "mcpgateway", "mcppolicy"] {
        let page = pages().into_iter().find(|page| page.file_stem().is_some_and(|stem| stem == kind));
        let text = fs::read_to_string(page.unwrap()).unwrap();
        assert!(text.matches("```yaml").count() >= 3, "{kind} has too few examples");
    }
}

#[test]
fn a_block_keeps_its_lines() {
    let text = manifests("# Title\n\n```yaml\nkind: A\n```\n\nwords\n```yaml\nkind: B\n```\n");
    assert_eq!(text, "\n\n---\nkind: A\n\n\n\n---\nkind: B\n\n");
}
