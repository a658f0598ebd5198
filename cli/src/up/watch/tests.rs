use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

/// A watch of `mesh` in a folder that holds a.yaml in it.
fn watched(root: &Path) -> Watch {
    fs::create_dir_all(root.join("mesh")).unwrap();
    fs::write(root.join("mesh/a.yaml"), "1").unwrap();
    Watch::start(&Source::Manifests(vec![root.join("mesh")])).unwrap()
}

#[tokio::test]
async fn a_file_replaced_by_renaming_is_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let mut watch = Watch::start(&Source::Manifests(vec![folder.path().to_owned()])).unwrap();
    fs::write(folder.path().join(".a.yaml.swp"), "x").unwrap();
    fs::rename(folder.path().join(".a.yaml.swp"), folder.path().join("a.yaml")).unwrap();
    watch.changed().await;
}

#[tokio::test]
async fn yaml_beside_a_clients_configuration_is_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(".mcp.json");
    fs::write(&file, "{}").unwrap();
    let source = Source::Client { file, own: 0, beside: vec![folder.path().to_owned()] };
    let mut watch = Watch::start(&source).unwrap();
    fs::write(folder.path().join("ann.yaml"), "x").unwrap();
    watch.changed().await;
}

#[tokio::test]
async fn a_folder_that_is_gone_and_comes_back_is_watched_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut watch = watched(root);
    fs::rename(root.join("mesh"), root.join("away")).unwrap();
    watch.changed().await;
    fs::create_dir(root.join("mesh")).unwrap();
    fs::write(root.join("mesh/a.yaml"), "2").unwrap();
    watch.changed().await;
    // The new folder, not the one that was moved away.
    fs::write(root.join("mesh/b.yaml"), "3").unwrap();
    watch.changed().await;
}

#[tokio::test]
async fn a_folder_that_is_replaced_at_once_is_watched_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut watch = watched(root);
    fs::create_dir(root.join("other")).unwrap();
    fs::rename(root.join("mesh"), root.join("away")).unwrap();
    fs::rename(root.join("other"), root.join("mesh")).unwrap();
    watch.changed().await;
    fs::write(root.join("mesh/b.yaml"), "3").unwrap();
    watch.changed().await;
}

#[tokio::test]
async fn a_link_that_is_turned_to_another_folder_is_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (name, text) in [("one", "1"), ("two", "2")] {
        fs::create_dir(root.join(name)).unwrap();
        fs::write(root.join(name).join("a.yaml"), text).unwrap();
    }
    symlink("one", root.join("mesh")).unwrap();
    let mut watch = Watch::start(&Source::Manifests(vec![root.join("mesh")])).unwrap();
    symlink("two", root.join("beside")).unwrap();
    fs::rename(root.join("beside"), root.join("mesh")).unwrap();
    watch.changed().await;
    fs::write(root.join("two/b.yaml"), "3").unwrap();
    watch.changed().await;
}

/// The layout of a volume of a ConfigMap or Secret: the files are links through `..data`, which alone is replaced.
#[tokio::test]
async fn a_mounted_volume_that_is_replaced_is_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (name, text) in [("..1", "1"), ("..2", "2")] {
        fs::create_dir(root.join(name)).unwrap();
        fs::write(root.join(name).join("m.yaml"), text).unwrap();
    }
    symlink("..1", root.join("..data")).unwrap();
    symlink("..data/m.yaml", root.join("m.yaml")).unwrap();
    let mut of_folder = Watch::start(&Source::Manifests(vec![root.to_owned()])).unwrap();
    let mut of_file = Watch::start(&Source::Manifests(vec![root.join("m.yaml")])).unwrap();
    symlink("..2", root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    of_folder.changed().await;
    of_file.changed().await;
}

#[test]
fn a_look_finds_what_no_event_tells() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, "1").unwrap();
    let paths = [folder.path().to_owned(), file.clone()];
    let first = Stamps::of(&paths);
    assert_eq!(first, Stamps::of(&paths));
    fs::write(folder.path().join("notes.txt"), "x").unwrap();
    assert_eq!(first, Stamps::of(&paths));
    fs::write(&file, "22").unwrap();
    let second = Stamps::of(&paths);
    assert!(first != second && first.same_folders(&second));
    fs::remove_file(&file).unwrap();
    let third = Stamps::of(&paths);
    assert_eq!(second.gone_since(&third).collect::<Vec<_>>(), [file.as_path()]);
}

#[test]
fn only_manifests_and_named_files_count() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::create_dir(root.join("dir")).unwrap();
    let watched = Watched::of(&[root.join("dir"), root.join("one.json")]).unwrap();
    let concerns = |path: &str| watched.concerns(&Event::new(EventKind::Any).add_path(root.join(path)));
    assert!(concerns("dir/a.yaml") && concerns("one.json"));
    assert!(!concerns("dir/a.txt") && !concerns("two.yaml"));
    let kind = |kind: EventKind| is_written(&Event::new(kind));
    assert!(kind(EventKind::Modify(notify::event::ModifyKind::Any)));
    assert!(!kind(EventKind::Access(AccessKind::Open(AccessMode::Any))));
}
