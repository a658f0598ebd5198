//! Which files paths mean, and how they are shown.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// The files that `paths` mean, in order of their names: a folder means its own YAML, not that of folders in it.
pub(super) fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = BTreeSet::new();
    for path in paths {
        files.extend(below(path).with_context(|| format!("cannot read {}", display(path)))?);
    }
    Ok(once(files))
}

/// As [`files`], with the paths that cannot be read, and why.
pub(super) fn files_and_missing(paths: &[PathBuf]) -> (Vec<PathBuf>, Vec<(PathBuf, io::Error)>) {
    let (mut files, mut missing) = (BTreeSet::new(), Vec::new());
    for path in paths {
        match below(path) {
            Ok(found) => files.extend(found),
            Err(error) => missing.push((path.clone(), error)),
        }
    }
    (once(files), missing)
}

fn below(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let files = std::fs::read_dir(path)?.map(|entry| Ok(entry?.path()));
    let files: io::Result<Vec<PathBuf>> = files.collect();
    Ok(files?.into_iter().filter(|file| names_manifest(file) && may_be_file(file)).collect())
}

/// What cannot be looked at, such as a link that leads nowhere, is left to the reading, which says so.
fn may_be_file(path: &Path) -> bool {
    std::fs::metadata(path).map_or_else(|_| !is_gone(path), |found| found.is_file())
}

/// Whether nothing of that name is there, no link either.
pub(super) fn is_gone(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// A file that is named twice is one file.
fn once(files: BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    files.into_iter().filter(|file| file.canonicalize().map_or(true, |file| seen.insert(file))).collect()
}

/// The folders in a folder that hold YAML.
pub(super) fn folders_with_manifests(folder: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let hidden = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let below = entries(folder).map(|entry| entry.path()).filter(|path| !hidden(path) && path.is_dir());
    let mut found: Vec<PathBuf> =
        below.filter(|path| entries(path).any(|entry| names_manifest(&entry.path()))).collect();
    found.sort();
    found
}

/// A file of a folder that may hold objects, by its name. JSON in a folder mostly is something else, so that it has to
/// be named.
pub(crate) fn names_manifest(file: &Path) -> bool {
    let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let yaml = file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    !hidden && yaml
}

/// The file as the user would write it.
pub(crate) fn display(file: &Path) -> String {
    let here = std::env::current_dir().ok();
    let inside = here.and_then(|here| file.strip_prefix(here).ok()).unwrap_or(file);
    let shown = inside.strip_prefix("./").unwrap_or(inside);
    if shown.as_os_str().is_empty() { ".".to_owned() } else { shown.display().to_string() }
}

/// A path that was given in the folder `home`, without dots that mean the folder itself.
pub(crate) fn whole(home: &Path, path: &Path) -> PathBuf {
    home.join(path).components().collect()
}
