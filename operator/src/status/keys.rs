//! Whether the Secrets that are meant to be API keys are usable: of those that are not, the object that takes them tells.

use mcpmesh_compiler::{Diagnostic, Reason};
use mcpmesh_crds::GatewayAuthentication;

use super::conditions::{Answer, Said, said};

/// The condition; none for an object that takes no API keys.
pub(super) fn usable(given: Option<&GatewayAuthentication>, findings: &[Diagnostic]) -> Option<Said> {
    given?.api_keys.as_ref()?;
    let wrong: Vec<_> = findings.iter().filter(|one| one.reason == Reason::InvalidApiKey).collect();
    Some(match wrong.as_slice() {
        [] => said(Answer::True, "KeysUsable", ""),
        wrong => said(Answer::False, "InvalidApiKey", super::messages(wrong)),
    })
}
