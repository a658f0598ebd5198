//! Pure: objects in, snapshots, workloads and diagnostics out.
//!
//! `manifest` reads YAML and JSON text into objects that know their lines, [`compile()`] turns objects into what the
//! proxies serve and what is run. Equal inputs give equal bytes; nothing here does I/O, reads the clock or the
//! environment, or fails: a user's mistake is a [`Diagnostic`] (docs/adr/0003).

pub mod child;
pub mod diagnostic;
pub mod inject;
pub mod inputs;
pub mod manifest;
pub mod workload;

mod api_key;
mod compile;
mod config_map;
mod gateway;
mod likeness;
mod memo;
mod policy;
mod secret;
mod server;
mod sidecar;

pub use api_key::is_user;
pub use child::Child;
pub use compile::{ByNamespace, Compiled, IMPLIED_GATEWAY, IMPLIED_POLICY, PolicyTarget, compile};
pub use diagnostic::{Diagnostic, Location, ObjectKind, ObjectRef, Reason, Severity, findings_of};
pub use inputs::{Cluster, ClusterIssuer, ConfigMap, Inputs, Install, Objects, Secret, Service};
pub use memo::Memo;
pub use workload::{EnvValue, EnvVar, Launch, Transport, Workload};
