//! Writes the CustomResourceDefinitions to a folder: `crdgen [FOLDER]`, `manifests/crds` where none is given.

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).map_or_else(|| PathBuf::from("manifests/crds"), PathBuf::from);
    fs::create_dir_all(&folder)?;
    for (name, text) in mcpmesh_crds::definitions().map_err(io::Error::other)? {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}
