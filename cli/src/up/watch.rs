//! Says when the files may have changed. Folders are watched, not files: editors replace a file by renaming.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use tokio::sync::mpsc;

use crate::source::{Source, names_manifest};

/// Long enough for an editor to finish, short enough to seem immediate.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// A watch over a source's files; it ends when this is dropped.
pub(super) struct Watch {
    _debouncer: Debouncer<RecommendedWatcher, RecommendedCache>,
    changes: mpsc::Receiver<()>,
}

impl Watch {
    /// Watches from now on.
    pub(super) fn start(source: &Source) -> anyhow::Result<Self> {
        let watched = Watched::of(source)?;
        let folders = watched.folders();
        let (announce, changes) = mpsc::channel(1);
        let report = move |result: DebounceEventResult| {
            let relevant = match result {
                Ok(events) => events.iter().any(|event| watched.concerns(event)),
                // Events were lost: look.
                Err(_) => true,
            };
            if relevant {
                // Full means that a look is due already.
                let _ = announce.try_send(());
            }
        };
        let mut debouncer = new_debouncer(DEBOUNCE, None, report).context("cannot watch files")?;
        for folder in &folders {
            debouncer
                .watch(folder, RecursiveMode::NonRecursive)
                .with_context(|| format!("cannot watch {}: try --no-watch", folder.display()))?;
        }
        Ok(Self { _debouncer: debouncer, changes })
    }

    /// Waits for the next change.
    pub(super) async fn changed(&mut self) {
        // The sender lives in the debouncer, so there is always another event to wait for.
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// What is looked at, by canonical paths, as events have them.
struct Watched {
    /// Folders whose manifests count.
    manifests: BTreeSet<PathBuf>,
    /// Files that count by themselves.
    files: BTreeSet<PathBuf>,
}

impl Watched {
    fn of(source: &Source) -> anyhow::Result<Self> {
        let paths = match source {
            Source::Manifests(paths) => paths.clone(),
            Source::Client { file, .. } => vec![file.clone()],
        };
        let mut watched = Self { manifests: BTreeSet::new(), files: BTreeSet::new() };
        for path in paths {
            let about = || format!("cannot watch {}", path.display());
            if path.is_dir() {
                watched.manifests.insert(path.canonicalize().with_context(about)?);
            } else {
                // The folder's canonical path, not the file's: a link may come to lead elsewhere.
                let whole = std::path::absolute(&path).with_context(about)?;
                let (Some(folder), Some(name)) = (whole.parent(), whole.file_name()) else { continue };
                watched.files.insert(folder.canonicalize().with_context(about)?.join(name));
            }
        }
        Ok(watched)
    }

    fn folders(&self) -> BTreeSet<PathBuf> {
        let parents = self.files.iter().filter_map(|file| file.parent());
        parents.map(PathBuf::from).chain(self.manifests.iter().cloned()).collect()
    }

    fn concerns(&self, event: &Event) -> bool {
        let written = match event.kind {
            // Our own reading must not make us read again.
            EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
            _ => true,
        };
        let known = |path: &PathBuf| {
            let folder = path.parent().is_some_and(|folder| self.manifests.contains(folder));
            (folder && names_manifest(path)) || self.files.contains(path)
        };
        written && (event.need_rescan() || event.paths.iter().any(known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_replaced_by_renaming_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch::start(&Source::Manifests(vec![folder.path().to_owned()])).unwrap();
        std::fs::write(folder.path().join(".a.yaml.swp"), "x").unwrap();
        std::fs::rename(folder.path().join(".a.yaml.swp"), folder.path().join("a.yaml")).unwrap();
        watch.changed().await;
    }

    #[test]
    fn only_manifests_and_named_files_count() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("dir")).unwrap();
        let source = Source::Manifests(vec![root.join("dir"), root.join("one.json")]);
        let watched = Watched::of(&source).unwrap();
        let concerns =
            |kind: EventKind, path: &str| watched.concerns(&Event::new(kind).add_path(root.join(path)));
        let modified = EventKind::Modify(notify::event::ModifyKind::Any);
        assert!(concerns(modified, "dir/a.yaml") && concerns(modified, "one.json"));
        assert!(!concerns(modified, "dir/a.txt") && !concerns(modified, "two.yaml"));
        let read = EventKind::Access(AccessKind::Open(AccessMode::Any));
        assert!(!concerns(read, "dir/a.yaml"));
    }
}
