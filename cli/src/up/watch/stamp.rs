//! What a look at the files finds without reading them.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::source::names_manifest;

/// Every path that was given, as it is now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamps(BTreeMap<PathBuf, Option<Stamp>>);

/// A file or folder, links followed.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    file: File,
    /// Of a folder: the files in it that count. None for a file.
    files: Option<BTreeMap<PathBuf, Option<File>>>,
}

/// Another content means another of these: whoever sets a file's times cannot set when that was done.
#[derive(Debug, PartialEq, Eq)]
struct File {
    /// Device and inode.
    id: (u64, u64),
    size: u64,
    /// Seconds and nanoseconds of the last write and of the last change of the inode.
    times: [i64; 4],
}

impl Stamps {
    pub(super) fn of(paths: &[PathBuf]) -> Self {
        Self(paths.iter().map(|path| (path.clone(), Stamp::of(path))).collect())
    }

    /// The paths that are there no more.
    pub(super) fn gone_since<'a>(&'a self, now: &'a Self) -> impl Iterator<Item = &'a Path> {
        let gone = |path: &PathBuf| now.0.get(path).is_none_or(Option::is_none);
        self.0
            .iter()
            .filter(move |(path, stamp)| stamp.is_some() && gone(path))
            .map(|(path, _)| path.as_path())
    }

    /// Whether the given paths lead where they led.
    pub(super) fn same_folders(&self, other: &Self) -> bool {
        let ids = |stamps: &Self| -> Vec<_> {
            let folder = |stamp: &Stamp| stamp.files.is_some().then_some(stamp.file.id);
            stamps.0.values().map(|stamp| stamp.as_ref().map(folder)).collect()
        };
        ids(self) == ids(other)
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        if !found.is_dir() {
            return Some(Self { file: File::of(&found), files: None });
        }
        let entries =
            fs::read_dir(path).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
        let counting = entries.filter(|path| names_manifest(path));
        let files = counting
            .map(|path| {
                let file = fs::metadata(&path).ok().map(|found| File::of(&found));
                (path, file)
            })
            .collect();
        // The folder's own times change with files that do not count.
        let file = File { size: 0, times: [0; 4], ..File::of(&found) };
        Some(Self { file, files: Some(files) })
    }
}

impl File {
    fn of(found: &Metadata) -> Self {
        Self {
            id: (found.dev(), found.ino()),
            size: found.size(),
            times: [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()],
        }
    }
}
