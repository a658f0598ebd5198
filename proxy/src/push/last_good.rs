//! The operator's copy of the last good configuration, in a Secret that is mounted where it exists: what a new pod boots
//! from while every operator is away (decisions.md 12).
//!
//! Not sealed: it is a Secret of the namespace whose Secrets it was made of, mounted in memory like the key would be.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use flate2::read::GzDecoder;
use mcpmesh_ir::FleetId;
use mcpmesh_ir::push::{self, LAST_GOOD_KEY, Update};
use prost::Message;

use super::disk::Error;

/// What is larger once it is unpacked was not written by an operator: a fleet's configuration is at most one message.
const LARGEST: u64 = 256 << 20;

/// Where the copy is mounted, and when it is taken.
#[derive(Debug, Clone)]
pub struct LastGood {
    /// The folder; empty or absent where the operator has written none.
    pub folder: PathBuf,
    /// How long a pod with an empty disk waits for the operator.
    pub patience: Duration,
}

impl LastGood {
    /// The copy and when it was written; none: there is none.
    pub(super) fn read(&self, fleet: &FleetId) -> Result<Option<(Update, SystemTime)>, Error> {
        let path = self.folder.join(LAST_GOOD_KEY);
        let file_error = |source| Error::File { path: path.display().to_string(), source };
        match fs::metadata(&path) {
            // The operator leaves it empty where it has nothing that fits.
            Ok(found) if found.len() == 0 => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => _ = found.map_err(file_error)?,
        }
        let content = || Error::Content(path.display().to_string());
        let mut bytes = Vec::new();
        let unpacked = GzDecoder::new(File::open(&path).map_err(file_error)?).take(LARGEST);
        { unpacked }.read_to_end(&mut bytes).map_err(file_error)?;
        let push::LastGood { fleet: of, update, at } =
            push::LastGood::decode(&*bytes).map_err(|_| content())?;
        let when = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(at));
        match (update, when) {
            (Some(update), Some(when)) if of == fleet.to_string() => Ok(Some((update, when))),
            _ => Err(content()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use mcpmesh_ir::GatewayId;

    use super::*;

    fn fleet(name: &str) -> FleetId {
        FleetId::Gateway(GatewayId::new("a", name))
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn a_copy_is_taken_by_its_own_fleet_and_by_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let last_good = LastGood { folder: folder.path().to_owned(), patience: Duration::ZERO };
        let own = fleet("gw");
        assert!(matches!(last_good.read(&own), Ok(None)), "there is none");
        let path = folder.path().join(LAST_GOOD_KEY);
        fs::write(&path, "").unwrap();
        assert!(matches!(last_good.read(&own), Ok(None)), "none fits");
        let update = Update { revision: "r".to_owned(), ..Update::default() };
        let copy = push::LastGood { fleet: own.to_string(), update: Some(update.clone()), at: 5 };
        fs::write(&path, packed(&copy.encode_to_vec())).unwrap();
        let when = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
        assert_eq!(last_good.read(&own).unwrap(), Some((update, when)));
        assert!(matches!(last_good.read(&fleet("other")), Err(Error::Content(_))));
        fs::write(&path, packed(b"something else")).unwrap();
        assert!(matches!(last_good.read(&own), Err(Error::Content(_))));
        fs::write(&path, "not packed").unwrap();
        assert!(matches!(last_good.read(&own), Err(Error::File { .. })));
    }
}
