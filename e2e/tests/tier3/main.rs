//! What takes longest: GitOps by Flux, the shipped images, a cluster with two nodes, one of them behind a link that can
//! be cut.

mod dockerfile;
mod gitops;
mod nodes;
