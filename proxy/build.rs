//! Writes the client of the push protocol, and the server that tests stand in for the operator with.

use std::path::PathBuf;

use tonic_build::manual::Builder;

include!("../ir/push_service.rs");

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=../ir/push_service.rs");
    let out = std::env::var_os("OUT_DIR").map(PathBuf::from).ok_or(std::io::ErrorKind::NotFound)?;
    let server = out.join("server");
    std::fs::create_dir_all(&server)?;
    Builder::new().build_server(false).build_transport(false).out_dir(&out).compile(&[push_service()]);
    Builder::new().build_client(false).build_transport(false).out_dir(&server).compile(&[push_service()]);
    Ok(())
}
