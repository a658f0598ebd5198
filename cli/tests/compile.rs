//! `mcpmesh compile`: what is written, for whom, and when nothing is.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use assert_cmd::Command;
use mcpmesh_ir::Snapshot;

fn compile(source: &Path, out: &Path) -> assert_cmd::assert::Assert {
    Command::new(env!("CARGO_BIN_EXE_mcpmesh")).arg("compile").arg(source).arg("--out").arg(out).assert()
}

#[test]
fn the_quickstart_becomes_one_snapshot_that_only_its_owner_reads() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("mesh.json");
    compile(Path::new("../manifests/quickstart"), &out).success();
    let snapshots: Vec<Snapshot> = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    assert_eq!(snapshots.len(), 1);
    assert_eq!(snapshots[0].gateway.to_string(), "default/main");
    assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn objects_with_errors_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("bad.yaml"), folder.path().join("mesh.json"));
    let bad = "apiVersion: mcpmesh.io/v1alpha1\nkind: McpServer\nmetadata: {name: a}\nspec: {}\n";
    std::fs::write(&source, bad).unwrap();
    compile(&source, &out).failure().code(1);
    assert!(!out.exists());
}
