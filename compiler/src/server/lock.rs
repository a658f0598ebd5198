//! Which tool definitions a lock lets through.

use std::collections::BTreeMap;

use mcpmesh_crds::{Lock, LockMode};
use mcpmesh_ir::server;

use crate::diagnostic::{Findings, Reason};

/// What the proxies enforce: nothing unless the mode is Enforce. Warn is the operator's to say.
pub(super) fn lock(lock: Option<&Lock>, findings: &mut Findings) -> Option<server::Lock> {
    let Lock { mode, tools } = lock?;
    let mut pinned = BTreeMap::new();
    for (index, tool) in tools.iter().enumerate() {
        let path = format!("spec.lock.tools[{index}]");
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if tool.digest.len() != 64 || !tool.digest.bytes().all(hex) {
            let message = format!("{:?} is not a digest", tool.digest);
            let help = "64 hexadecimal digits in lower case; `mcpmesh lock` writes them";
            findings.error(&format!("{path}.digest"), Reason::InvalidValue, message, help);
        }
        if pinned.insert(tool.name.clone(), tool.digest.clone()).is_some() {
            let message = format!("the tool {:?} is there twice", tool.name);
            findings.error(&format!("{path}.name"), Reason::DuplicateName, message, "remove one");
        }
    }
    match mode {
        LockMode::Off | LockMode::Warn => None,
        LockMode::Enforce => Some(server::Lock { tools: pinned }),
    }
}
