//! Copies this program, for a container whose image does not have it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes beside the file and renames: whoever runs the file runs all of it. Mode 0755.
pub(crate) fn to(dest: &Path) -> io::Result<()> {
    let from = std::env::current_exe()?;
    let mut name = dest.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let beside = dest.with_file_name(name);
    let mut copy = OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(&beside)?;
    io::copy(&mut File::open(from)?, &mut copy)?;
    // The umask may have taken bits away; and the file may be executed only once nobody writes to it.
    copy.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    copy.sync_all()?;
    drop(copy);
    fs::rename(&beside, dest)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_copy_is_whole_and_can_be_run_by_all() {
        let folder = tempfile::tempdir().unwrap();
        let dest = folder.path().join("copy");
        fs::write(&dest, "an older one").unwrap();
        to(&dest).unwrap();
        assert_eq!(fs::metadata(&dest).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(
            fs::metadata(&dest).unwrap().len(),
            fs::metadata(std::env::current_exe().unwrap()).unwrap().len()
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
