//! Generates the server and the client of the push service.

include!("../ir/push_service.rs");

fn main() {
    tonic_build::manual::Builder::new().build_transport(false).compile(&[push_service()]);
    println!("cargo::rerun-if-changed=../ir/push_service.rs");
}
