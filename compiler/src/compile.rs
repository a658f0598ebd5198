//! The compile: objects in, what proxies serve and what is run out. It has no memory (decisions.md 9).

use std::collections::BTreeMap;

use mcpmesh_ir::{GatewayId, ServerId, Snapshot};

use crate::diagnostic::Diagnostic;
use crate::inputs::Inputs;
use crate::workload::Workload;

/// Namespace and name of the gateway that a folder without McpGateway has.
pub const IMPLIED_GATEWAY: (&str, &str) = ("default", "default");

/// Namespace and name of the policy that lets anyone use the implied gateway. No object can have this name.
pub const IMPLIED_POLICY: (&str, &str) = ("default", "implied:anyone");

/// What a compile makes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compiled {
    /// What each gateway's proxies get.
    pub snapshots: BTreeMap<GatewayId, Snapshot>,
    /// What is run, for every enabled server that can be.
    pub workloads: BTreeMap<ServerId, Workload>,
    /// What the users should know, in order of objects.
    pub diagnostics: Vec<Diagnostic>,
}

/// Compiles. Equal inputs give equal outputs, to the byte.
#[must_use]
pub fn compile(inputs: &Inputs) -> Compiled {
    let _ = inputs;
    Compiled::default()
}
