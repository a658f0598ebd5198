//! What takes longest: GitOps by Flux, the shipped images, clusters of a test's own, two nodes, one of them behind a link
//! that can be cut.

mod dockerfile;
mod gitops;
mod namespaced;
mod new_pod;
mod nodes;
mod partition;
mod remotes;
mod rotation;
