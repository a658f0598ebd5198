//! `key create` shows the key once and keeps its hash only.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use assert_cmd::Command;
use sha2::{Digest, Sha256};

#[test]
fn the_secret_holds_the_hash_of_the_key_that_was_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ann.yaml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcpmesh"));
    command.args(["key", "create", "--owner", "ann", "--group", "finance", "--out"]).arg(&file);
    let output = command.assert().success();
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    let key = said.split_whitespace().find(|word| word.starts_with("mcpmesh_")).unwrap();

    let yaml = fs::read_to_string(&file).unwrap();
    assert!(yaml.contains(&hex::encode(Sha256::digest(key.as_bytes()))) && !yaml.contains(key), "{yaml}");
    assert!(yaml.contains("mcpmesh.io/groups: finance"), "{yaml}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    command.assert().code(1);
}
