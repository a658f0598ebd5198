//! The keys of sealed handles on one machine: a file that only its owner can read (decisions.md 17).

use std::io::Write;
use std::path::Path;

use crate::mcp::handle::{self, KeyRing};

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
    #[error("the key file {0} holds no key; delete it to have a new one made")]
    Content(String),
    /// No randomness.
    #[error("cannot make a key")]
    Key(#[source] handle::Error),
}

/// The ring of a state folder, made when there is none; without a folder, one that lasts as long as the process.
pub fn load(folder: Option<&Path>) -> Result<KeyRing, Error> {
    let Some(folder) = folder else { return KeyRing::generate().map_err(Error::Key) };
    let path = folder.join("handles.key");
    let failed = |source| Error::File { path: path.display().to_string(), source };
    if !path.exists() {
        std::fs::create_dir_all(folder).map_err(failed)?;
        let secret = handle::generate_secret().map_err(Error::Key)?;
        let mut file = private(&path).map_err(failed)?;
        file.write_all(hex::encode(secret.as_slice()).as_bytes()).map_err(failed)?;
    }
    let text = std::fs::read_to_string(&path).map_err(failed)?;
    let secret = hex::decode(text.trim()).map_err(|_| Error::Content(path.display().to_string()))?;
    KeyRing::new(&secret, None).map_err(|_| Error::Content(path.display().to_string()))
}

#[cfg(unix)]
fn private(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(not(unix))]
fn private(path: &Path) -> std::io::Result<std::fs::File> {
    std::fs::OpenOptions::new().write(true).create_new(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::handle::{Binding, Purpose};

    #[test]
    fn a_handle_outlives_the_process_that_sealed_it() {
        let folder = tempfile::tempdir().unwrap();
        let binding = Binding { gateway_uid: "u", principal: "p" };
        let sealed = load(Some(folder.path())).unwrap().seal(Purpose::Cursor, &binding, 10, &1).unwrap();
        let again = load(Some(folder.path())).unwrap();
        assert_eq!(again.open::<i32>(Purpose::Cursor, &binding, 5, &sealed), Ok(1));
    }

    #[cfg(unix)]
    #[test]
    fn the_key_file_is_its_owners_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let _ring = load(Some(folder.path())).unwrap();
        let mode = std::fs::metadata(folder.path().join("handles.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_holds_something_else_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("handles.key"), "zz").unwrap();
        assert!(matches!(load(Some(folder.path())), Err(Error::Content(_))));
    }
}
