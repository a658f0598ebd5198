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
