//! What is said of an McpPolicy.

use mcpmesh_compiler::{Diagnostic, ObjectKind, ObjectRef, PolicyTarget, Severity};
use mcpmesh_crds::{
    AncestorRef, CONTROLLER, GROUP, McpPolicy, McpPolicyStatus, PolicyAncestor, TargetKind, condition,
};
use mcpmesh_ir::PolicyId;

use super::View;
use super::conditions::{Answer, Conditions, Said, said};

/// The status of a policy.
pub(crate) fn policy(view: &View, id: &PolicyId, object: &McpPolicy) -> McpPolicyStatus {
    let before = object.status.clone().unwrap_or_default();
    let reference = ObjectRef::new(ObjectKind::McpPolicy, &id.namespace, &id.name);
    let generation = object.metadata.generation;
    let findings = view.findings(&reference);
    let rejected = view.rejected(&reference);
    let mut conditions = Conditions::new(&before.conditions, generation, view.now);
    let stopped = conditions.of_findings(findings, rejected.clone(), false);
    conditions.set(condition::READY, stopped.unwrap_or_else(|| said(Answer::True, "Ready", "")));
    let named = view.policy_targets.get(id).map(|named| &**named).unwrap_or_default();
    let ancestors = named.iter().enumerate().map(|(index, target)| {
        let reference = ancestor(target);
        let known = before.ancestors.iter().find(|known| known.ancestor_ref == reference);
        let known = known.map(|known| known.conditions.as_slice()).unwrap_or_default();
        let mut conditions = Conditions::new(known, generation, view.now);
        conditions.set(condition::ACCEPTED, accepted(findings, rejected.as_deref(), (index, target)));
        PolicyAncestor {
            ancestor_ref: reference,
            controller_name: CONTROLLER.to_owned(),
            conditions: conditions.finish(),
        }
    });
    McpPolicyStatus {
        observed_generation: generation,
        ancestors: ancestors.take(16).collect(),
        conditions: conditions.finish(),
    }
}

/// Of one target: why the policy is not attached to it, else what is wrong with the policy as a whole.
fn accepted(
    findings: &[Diagnostic],
    rejected: Option<&str>,
    (index, target): (usize, &PolicyTarget),
) -> Said {
    let is_of_targets = |finding: &&Diagnostic| finding.path.starts_with("spec.targetRefs[");
    if let Some(reason) = target.refused {
        let this = format!("spec.targetRefs[{index}]");
        let why = findings.iter().find(|finding| finding.path.starts_with(&this));
        return said(Answer::False, &reason.to_string(), why.map(super::message).unwrap_or_default());
    }
    let mut errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
    match (errors.find(|finding| !is_of_targets(finding)), rejected) {
        (Some(finding), _) => said(Answer::False, &finding.reason.to_string(), super::message(finding)),
        (None, Some(why)) => said(Answer::False, "RejectedByProxy", why),
        (None, None) => said(Answer::True, "Accepted", ""),
    }
}

fn ancestor(target: &PolicyTarget) -> AncestorRef {
    let (group, kind) = match target.kind {
        TargetKind::McpGateway => (GROUP, "McpGateway"),
        TargetKind::McpServer => (GROUP, "McpServer"),
        TargetKind::Namespace => ("", "Namespace"),
    };
    AncestorRef { group: group.to_owned(), kind: kind.to_owned(), name: target.name.clone() }
}
