//! On a cluster with a node: our own programs, as the build makes them, in real pods.

mod attached;
mod images;
mod listener;
mod mesh;
mod monitoring;
mod past_gateways;
mod rollouts;
