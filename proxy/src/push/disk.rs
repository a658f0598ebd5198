//! The last good configuration on disk, sealed: what a proxy boots from while the operator is away.
//!
//! One file for each fleet and gateway uid, replaced as a whole (written beside, synced, renamed). AES-256-GCM with a
//! random nonce; the fleet is authenticated with it, so that no other fleet's file is taken for ours. Beside it, in the
//! same way, the process's certificate of the mesh.

mod certificate;

pub(super) use certificate::Signed;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use mcpmesh_ir::{FleetId, push::Update};
use prost::Message;
use sha2::{Digest, Sha256};

/// How a file begins: format and version.
const MAGIC: &[u8; 8] = b"MCPMESH1";
/// How a file's name ends.
const SUFFIX: &str = ".sealed";
/// A file that is larger was not written by us.
const LARGEST: u64 = 1 << 30;

/// Why the disk is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The key is not 32 bytes in hex.
    #[error("{0} holds no key: 64 hex digits")]
    Key(String),
    /// Another key, another fleet, or damage.
    #[error("{0} cannot be opened with this fleet's key")]
    Sealed(String),
    /// Opened, but not what should be there.
    #[error("{0} holds something else")]
    Content(String),
    /// Nothing could be sealed.
    #[error("nothing can be encrypted with this fleet's key")]
    Seal,
}

/// What is kept.
#[derive(Clone, PartialEq, Message)]
struct Saved {
    /// The whole configuration, as one update from nothing.
    #[prost(message, optional, tag = "1")]
    update: Option<Update>,
    /// Seconds since 1970 when the operator sent it.
    #[prost(uint64, tag = "2")]
    at: u64,
}

/// Where the last good configuration of a fleet is kept.
pub struct Store {
    folder: PathBuf,
    fleet: FleetId,
    key: RandomizedNonceKey,
}

impl Store {
    /// A fleet's files in a folder, sealed with the key (64 hex digits) in a file.
    pub fn open(folder: PathBuf, key: &Path, fleet: FleetId) -> Result<Self, Error> {
        let hex = fs::read_to_string(key).map_err(at(key))?;
        let key = hex::decode(hex.trim())
            .ok()
            .and_then(|bytes| RandomizedNonceKey::new(&AES_256_GCM, &bytes).ok())
            .ok_or_else(|| Error::Key(key.display().to_string()))?;
        Ok(Self { folder, fleet, key })
    }

    /// The newest file that opens, and when the operator sent what it holds. Those that don't open are told, too.
    pub(super) fn load(&self) -> (Option<(Update, SystemTime)>, Vec<Error>) {
        let mut errors = Vec::new();
        let mut files = match self.files() {
            Ok(files) => files,
            Err(error) => return (None, vec![error]),
        };
        let written = |path: &PathBuf| fs::metadata(path).and_then(|found| found.modified()).ok();
        files.sort_by_cached_key(|path| std::cmp::Reverse(written(path)));
        for path in files {
            match self.read(&path) {
                Ok(found) => return (Some(found), errors),
                Err(error) => errors.push(error),
            }
        }
        (None, errors)
    }

    /// Replaces what is kept. `uid`: the gateway's.
    pub(super) fn save(&self, uid: &str, update: Update, at_time: SystemTime) -> Result<(), Error> {
        let since = at_time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let saved = Saved { update: Some(update), at: since.as_secs() };
        let path = self.folder.join(format!("{}{}{SUFFIX}", self.prefix(), short(uid)));
        self.write(&path, saved.encode_to_vec())?;
        // Those of an earlier gateway of this name.
        for old in self.files()?.into_iter().filter(|old| *old != path) {
            fs::remove_file(&old).map_err(at(&old))?;
        }
        Ok(())
    }

    fn read(&self, path: &Path) -> Result<(Update, SystemTime), Error> {
        let Saved { update, at } = self.open_file(path)?;
        let when = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(at));
        update.zip(when).ok_or_else(|| Error::Content(path.display().to_string()))
    }

    /// Seals this into a file.
    fn write(&self, path: &Path, content: Vec<u8>) -> Result<(), Error> {
        let sealed = self.seal(content)?;
        fs::create_dir_all(&self.folder).map_err(at(&self.folder))?;
        replace(path, &sealed).map_err(at(path))
    }

    /// Opens a sealed file.
    fn open_file<M: Message + Default>(&self, path: &Path) -> Result<M, Error> {
        let name = || path.display().to_string();
        if fs::metadata(path).map_err(at(path))?.len() > LARGEST {
            return Err(Error::Content(name()));
        }
        let mut bytes = fs::read(path).map_err(at(path))?;
        let open = self.unseal(&mut bytes).ok_or_else(|| Error::Sealed(name()))?;
        M::decode(open).map_err(|_| Error::Content(name()))
    }

    fn seal(&self, mut content: Vec<u8>) -> Result<Vec<u8>, Error> {
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(self.bound()), &mut content)
            .map_err(|_| Error::Seal)?;
        Ok([MAGIC.as_slice(), nonce.as_ref().as_slice(), &content].concat())
    }

    fn unseal<'a>(&self, file: &'a mut [u8]) -> Option<&'a [u8]> {
        let (magic, rest) = file.split_at_mut_checked(MAGIC.len())?;
        let (nonce, sealed) = rest.split_at_mut_checked(NONCE_LEN)?;
        if magic != MAGIC {
            return None;
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let open = self.key.open_in_place(nonce, Aad::from(self.bound()), sealed).ok()?;
        Some(open)
    }

    /// What is authenticated with the content.
    fn bound(&self) -> Vec<u8> {
        [MAGIC.as_slice(), self.fleet.to_string().as_bytes()].concat()
    }

    fn prefix(&self) -> String {
        format!("{}-", short(&self.fleet.to_string()))
    }

    /// This fleet's files; none where there is no folder yet.
    fn files(&self) -> Result<Vec<PathBuf>, Error> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(at(&self.folder)(error)),
        };
        let prefix = self.prefix();
        let ours = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(&prefix) && name.ends_with(SUFFIX))
        };
        Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(ours).collect())
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    move |source| Error::File { path: path.display().to_string(), source }
}

/// A name of fixed length for a text of any.
fn short(text: &str) -> String {
    let mut hex = hex::encode(Sha256::digest(text));
    hex.truncate(16);
    hex
}

/// Either the old bytes or the new ones are there, whenever the machine stops.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use mcpmesh_ir::GatewayId;
    use mcpmesh_ir::push::Resource;

    use super::*;

    const CANARY: &str = "canary-7f3a";

    fn store(folder: &Path, key: &str, fleet: &str) -> Store {
        let file = folder.join("key");
        fs::write(&file, format!("{key}\n")).unwrap();
        Store::open(folder.join("state"), &file, FleetId::Gateway(GatewayId::new("a", fleet))).unwrap()
    }

    fn update(revision: &str) -> Update {
        let body = format!(r#"{{"data":{{"token":"{CANARY}"}}}}"#).into_bytes();
        let secret = Resource {
            kind: "Secret".to_owned(),
            name: CANARY.to_owned(),
            body: body.into(),
            ..Resource::default()
        };
        Update { revision: revision.to_owned(), changed: vec![secret], ..Update::default() }
    }

    fn time(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_was_saved_last_is_loaded_and_is_the_only_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), &"ab".repeat(32), "gw");
        assert!(matches!(store.load(), (None, errors) if errors.is_empty()));
        store.save("uid-1", update("one"), time(1)).unwrap();
        store.save("uid-1", update("two"), time(2)).unwrap();
        store.save("uid-2", update("three"), time(3)).unwrap();
        let (found, errors) = store.load();
        assert!(errors.is_empty());
        assert!(found == Some((update("three"), time(3))));
        assert_eq!(fs::read_dir(folder.path().join("state")).unwrap().count(), 1);
    }

    #[test]
    fn no_byte_of_a_secret_is_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path(), &"ab".repeat(32), "gw").save("uid", update("one"), time(1)).unwrap();
        for entry in fs::read_dir(folder.path().join("state")).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            assert!(!bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes()));
            assert!(!path.display().to_string().contains(CANARY));
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn another_key_another_fleet_and_any_damage_are_told_and_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let own = store(folder.path(), &"ab".repeat(32), "gw");
        own.save("uid", update("one"), time(1)).unwrap();
        let path = own.files().unwrap().remove(0);
        let other_key = store(folder.path(), &"cd".repeat(32), "gw");
        assert!(matches!(other_key.load(), (None, errors) if matches!(errors[..], [Error::Sealed(_)])));
        let other_fleet = store(folder.path(), &"ab".repeat(32), "other");
        assert!(matches!(other_fleet.load(), (None, errors) if errors.is_empty()));
        let moved = path.with_file_name(format!("{}{}{SUFFIX}", other_fleet.prefix(), short("uid")));
        fs::copy(&path, moved).unwrap();
        assert!(matches!(other_fleet.load(), (None, errors) if matches!(errors[..], [Error::Sealed(_)])));
        let whole = fs::read(&path).unwrap();
        for damaged in [&whole[..whole.len() - 1], &whole[..10], &[], b"plain text of somebody else's"] {
            fs::write(&path, damaged).unwrap();
            assert!(matches!(own.load(), (None, errors) if matches!(errors[..], [Error::Sealed(_)])));
        }
    }

    #[test]
    fn a_key_that_is_none_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        for text in ["", "zz", "abcd"] {
            fs::write(&file, text).unwrap();
            let fleet = FleetId::Gateway(GatewayId::new("a", "gw"));
            assert!(matches!(Store::open(folder.path().to_owned(), &file, fleet), Err(Error::Key(_))));
        }
    }
}
