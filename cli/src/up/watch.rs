//! Says when the files may have changed: at once by the system's events, and at the latest when a look at names, times
//! and inodes finds a difference. Events alone miss a folder that is replaced, and a link that leads elsewhere.

mod stamp;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::Context;
use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use tokio::sync::mpsc;

use crate::source::{Source, names_manifest};
use stamp::Stamps;

/// Long enough for an editor to finish, short enough to seem immediate.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// How long a change may stay unseen that no event tells of. A look costs a few system calls.
const LOOK: Duration = Duration::from_secs(2);

/// A watch over a source's files; it ends soon after this is dropped.
pub(super) struct Watch {
    changes: mpsc::Receiver<()>,
}

impl Watch {
    /// Watches from now on.
    pub(super) fn start(source: &Source) -> anyhow::Result<Self> {
        let paths = match source {
            Source::Manifests(paths) => paths.clone(),
            // YAML beside it is told of.
            Source::Client { file, beside, .. } => [&[file.clone()][..], beside.as_slice()].concat(),
        };
        let (announce, changes) = mpsc::channel(1);
        let (tell, told) = channel();
        let stamps = Stamps::of(&paths);
        let events = Events::of(&paths, tell.clone())?;
        let watcher = Watcher { paths, stamps, tell, events: Some(events), announce };
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || watcher.run(&told))
            .context("cannot watch files")?;
        Ok(Self { changes })
    }

    /// Waits for the next change.
    pub(super) async fn changed(&mut self) {
        // The watcher lives as long as we do, so there is always another change to wait for.
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// What the system tells of: whether it concerns a file that counts, by its name.
type Told = bool;

/// The thread's own.
struct Watcher {
    /// As the user gave them: what they lead to may change.
    paths: Vec<PathBuf>,
    stamps: Stamps,
    tell: Sender<Told>,
    /// None while the folders cannot be watched.
    events: Option<Events>,
    announce: mpsc::Sender<()>,
}

impl Watcher {
    fn run(mut self, told: &Receiver<Told>) {
        while !self.announce.is_closed() {
            let counts = match told.recv_timeout(LOOK) {
                Ok(counts) => counts,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if self.look() || counts {
                // Full means that a reading is due already.
                let _ = self.announce.try_send(());
            }
        }
    }

    /// Whether anything differs from the last look. Events are asked for anew where the folders are others now.
    fn look(&mut self) -> bool {
        let now = Stamps::of(&self.paths);
        if now == self.stamps {
            return false;
        }
        for gone in self.stamps.gone_since(&now) {
            tracing::warn!(
                "{} is gone: what was read of it last stays in force until it is back",
                gone.display()
            );
        }
        if self.events.is_none() || !now.same_folders(&self.stamps) {
            // The old ones end first: the system counts watches by folder.
            self.events = None;
            self.events = Events::of(&self.paths, self.tell.clone()).ok();
        }
        self.stamps = now;
        true
    }
}

/// The system's events about the folders in which files count now.
struct Events {
    _debouncer: Debouncer<RecommendedWatcher, RecommendedCache>,
}

impl Events {
    fn of(paths: &[PathBuf], tell: Sender<Told>) -> anyhow::Result<Self> {
        let watched = Watched::of(paths)?;
        let (manifests, parents) = (watched.manifests.clone(), watched.parents.clone());
        let report = move |result: DebounceEventResult| {
            let told = match result {
                Ok(events) => {
                    let written = events.iter().filter(|event| is_written(event));
                    // Whatever was written: `..data` of a mounted volume has no name that counts, and leads to all.
                    written.map(|event| watched.concerns(event)).max()
                }
                // Events were lost: read.
                Err(_) => Some(true),
            };
            if let Some(counts) = told {
                let _ = tell.send(counts);
            }
        };
        let mut debouncer = new_debouncer(DEBOUNCE, None, report).context("cannot watch files")?;
        for folder in &manifests {
            debouncer
                .watch(folder, RecursiveMode::NonRecursive)
                .with_context(|| format!("cannot watch {}: try --no-watch", folder.display()))?;
        }
        for folder in parents.difference(&manifests) {
            // Where we may not, a look finds what happens there.
            let _ = debouncer.watch(folder, RecursiveMode::NonRecursive);
        }
        Ok(Self { _debouncer: debouncer })
    }
}

/// Our own reading must not make us read again.
fn is_written(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// What is looked at, by canonical paths, as events have them.
struct Watched {
    /// Folders whose manifests count.
    manifests: BTreeSet<PathBuf>,
    /// Files that count by themselves.
    files: BTreeSet<PathBuf>,
    /// Folders that hold one of the given paths: there it is replaced or a link is turned.
    parents: BTreeSet<PathBuf>,
}

impl Watched {
    fn of(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let mut watched =
            Self { manifests: BTreeSet::new(), files: BTreeSet::new(), parents: BTreeSet::new() };
        for path in paths {
            let about = || format!("cannot watch {}", path.display());
            // The folder's canonical path, not the file's: a link may come to lead elsewhere.
            let whole = std::path::absolute(path).with_context(about)?;
            let entry = whole.parent().zip(whole.file_name());
            let parent = entry.and_then(|(parent, _)| parent.canonicalize().ok());
            if path.is_dir() {
                watched.manifests.insert(path.canonicalize().with_context(about)?);
            } else if let (Some(parent), Some((_, name))) = (&parent, entry) {
                watched.files.insert(parent.join(name));
            }
            watched.parents.extend(parent);
        }
        Ok(watched)
    }

    /// Whether a file that counts was written, whatever its times and size say.
    fn concerns(&self, event: &Event) -> bool {
        let known = |path: &PathBuf| {
            let folder = path.parent().is_some_and(|folder| self.manifests.contains(folder));
            (folder && names_manifest(path)) || self.files.contains(path)
        };
        event.need_rescan() || event.paths.iter().any(known)
    }
}

#[cfg(test)]
mod tests;
