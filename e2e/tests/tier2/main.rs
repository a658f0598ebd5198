//! On a cluster with a node: our own programs, as the build makes them, in real pods.

mod images;
mod mesh;
