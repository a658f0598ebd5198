use std::fs;

use super::*;

/// Generous: a change is told of at once.
const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_change_during_the_first_look_is_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, "").unwrap();
    let source = Source::Manifests(vec![folder.path().to_owned()]);
    let read = |source: &Source| {
        let loaded = source::load(source, [0; 32]);
        fs::write(&file, "# another").unwrap();
        loaded
    };
    let (watch, _) = watch_and_read(&source, true, read).unwrap();
    tokio::time::timeout(DEADLINE, watch.unwrap().changed()).await.expect("the change is told of");
}

#[test]
fn without_a_key_a_public_address_lets_nobody_in_and_takes_every_other_change() {
    let server = |name: &str| {
        format!(
            "apiVersion: mcpmesh.io/v1alpha1\nkind: McpServer\nmetadata: {{name: {name}}}\n\
             spec: {{remote: {{url: https://x.example/mcp}}}}\n"
        )
    };
    let key = "apiVersion: v1\nkind: Secret\nmetadata: {name: k, labels: {mcpmesh.io/api-key: 'true'}, \
               annotations: {mcpmesh.io/owner: ann}}\nstringData: {key: 0123456789abcdef}\n";
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("a.yaml", &server("a"));
    write("key.yaml", key);
    let source = Source::Manifests(vec![folder.path().to_owned()]);
    let (public, loopback) = ("192.0.2.1:8080".parse().unwrap(), "127.0.0.1:8080".parse().unwrap());
    let keys = |loaded: &Loaded| {
        let snapshots = loaded.compiled.snapshots.values();
        snapshots.flat_map(|one| one.of_kind(mcpmesh_ir::ResourceKind::ApiKey)).count()
    };
    let mut last = source::load(&source, [0; 32]).unwrap();
    assert!(!shut_if_exposed(&mut last, public) && keys(&last) == 1);

    fs::remove_file(folder.path().join("key.yaml")).unwrap();
    let mut revoked = source::reload(&source, [0; 32], &last).unwrap();
    assert!(!shut_if_exposed(&mut revoked, loopback) && revoked.is_open());
    assert!(shut_if_exposed(&mut revoked, public) && !revoked.is_open());
    assert!(keys(&revoked) == 0 && revoked.compiled.snapshots.len() == 1 && !revoked.is_same(&last));

    write("b.yaml", &server("b"));
    let mut changed = source::reload(&source, [0; 32], &revoked).unwrap();
    assert!(shut_if_exposed(&mut changed, public) && !changed.is_open());
    assert_eq!(changed.inputs.servers().count(), 2);

    write("key.yaml", key);
    let mut mended = source::reload(&source, [0; 32], &changed).unwrap();
    assert!(!shut_if_exposed(&mut mended, public) && !mended.is_open() && keys(&mended) == 1);
}
