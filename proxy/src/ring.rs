//! The keys of sealed handles (decisions.md 17): on one machine a file that only its owner can read, in a fleet one
//! that all of its proxies get.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::Zeroizing;

use crate::mcp::handle::{self, KeyRing};

/// Where keys come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Source {
    /// They last as long as the process.
    #[default]
    Process,
    /// A folder of this machine's; they are made when there are none.
    Folder(PathBuf),
    /// A file that somebody else made: a key in hex on its first line and, while keys change, the one before it on the
    /// second. What one proxy of a fleet seals, all others open.
    File(PathBuf),
}

/// Why there is no key ring.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("cannot use the key file {path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("the key file {0} holds no key: 64 hex digits")]
    Content(String),
    /// No randomness.
    #[error("cannot make a key")]
    Key(#[source] handle::Error),
}

/// The ring of a source.
///
/// # Errors
/// When the file cannot be read, made or understood.
pub fn load(source: &Source) -> Result<KeyRing, Error> {
    match source {
        Source::Process => KeyRing::generate().map_err(Error::Key),
        Source::Folder(folder) => made(folder),
        Source::File(path) => read(path),
    }
}

/// That of a folder, made when there is none.
fn made(folder: &Path) -> Result<KeyRing, Error> {
    let path = folder.join("handles.key");
    let failed = |source| Error::File { path: path.display().to_string(), source };
    if !path.exists() {
        std::fs::create_dir_all(folder).map_err(failed)?;
        let secret = handle::generate_secret().map_err(Error::Key)?;
        place(&path, hex::encode(secret.as_slice()).as_bytes()).map_err(failed)?;
    }
    read(&path)
}

/// Puts a file there that is whole from its first moment on, unless there is one by then: that one stands.
fn place(path: &Path, content: &[u8]) -> std::io::Result<()> {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    let beside = path.with_extension(format!("{}-{number}.new", std::process::id()));
    private(&beside)?.write_all(content)?;
    match std::fs::hard_link(&beside, path) {
        Ok(()) => std::fs::remove_file(&beside),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => std::fs::remove_file(&beside),
        // Not every file system has links; there the last of several that start at once wins.
        Err(_) => std::fs::rename(&beside, path),
    }
}

fn read(path: &Path) -> Result<KeyRing, Error> {
    let name = || path.display().to_string();
    let content = || Error::Content(name());
    let text = std::fs::read_to_string(path).map_err(|source| Error::File { path: name(), source })?;
    let key = |line: &str| hex::decode(line.trim()).map(Zeroizing::new).map_err(|_| content());
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let current = key(lines.next().ok_or_else(content)?)?;
    let previous = lines.next().map(key).transpose()?;
    KeyRing::new(&current, previous.as_ref().map(|secret| secret.as_slice())).map_err(|_| content())
}

#[cfg(unix)]
fn private(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(not(unix))]
fn private(path: &Path) -> std::io::Result<std::fs::File> {
    std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::handle::{Binding, Purpose};

    #[test]
    fn a_handle_outlives_the_process_that_sealed_it() {
        let folder = tempfile::tempdir().unwrap();
        let binding = Binding { gateway_uid: "u", principal: "p" };
        let sealed = load(&Source::Folder(folder.path().to_owned()))
            .unwrap()
            .seal(Purpose::Cursor, &binding, 10, &1)
            .unwrap();
        let again = load(&Source::Folder(folder.path().to_owned())).unwrap();
        assert_eq!(again.open::<i32>(Purpose::Cursor, &binding, 5, &sealed), Ok(1));
    }

    #[test]
    fn processes_that_start_at_once_share_one_ring() {
        let folder = tempfile::tempdir().unwrap();
        let binding = Binding { gateway_uid: "u", principal: "p" };
        let together = std::sync::Barrier::new(16);
        let rings: Vec<_> = std::thread::scope(|scope| {
            let start = || {
                together.wait();
                load(&Source::Folder(folder.path().join("state"))).unwrap()
            };
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let sealed = rings[0].seal(Purpose::Cursor, &binding, 10, &1).unwrap();
        assert!(rings.iter().all(|ring| ring.open::<i32>(Purpose::Cursor, &binding, 5, &sealed) == Ok(1)));
        assert_eq!(std::fs::read_dir(folder.path().join("state")).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn the_key_file_is_its_owners_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let _ring = load(&Source::Folder(folder.path().to_owned())).unwrap();
        let mode = std::fs::metadata(folder.path().join("handles.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_holds_something_else_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("handles.key"), "zz").unwrap();
        assert!(matches!(load(&Source::Folder(folder.path().to_owned())), Err(Error::Content(_))));
    }

    #[test]
    fn the_proxies_of_a_fleet_open_each_others_handles_while_keys_change_too() {
        let folder = tempfile::tempdir().unwrap();
        let ring = |text: String| {
            let path = folder.path().join("ring");
            std::fs::write(&path, text).unwrap();
            load(&Source::File(path)).unwrap()
        };
        let (old, new) = ("ab".repeat(32), "cd".repeat(32));
        let binding = Binding { gateway_uid: "u", principal: "p" };
        let sealed = ring(format!("{old}\n")).seal(Purpose::Cursor, &binding, 10, &1).unwrap();
        for opens in [old.clone(), format!("{new}\n{old}\n")] {
            assert_eq!(ring(opens).open::<i32>(Purpose::Cursor, &binding, 5, &sealed), Ok(1));
        }
        assert!(ring(new).open::<i32>(Purpose::Cursor, &binding, 5, &sealed).is_err());
    }
}
