//! A namespaced install knows no namespaces' labels and may not look into others: only `from: Same` holds
//! (decisions.md 24).

use std::sync::Arc;

use mcpmesh_compiler::{Diagnostic, ObjectKind, ObjectRef, Objects, Reason, Severity};
use mcpmesh_crds::{From, LabelSelector, NamespaceSelection};

/// Refuses every other choice and puts `Same` in its place.
pub(super) fn to_namespaces(objects: &mut Objects, diagnostics: &mut Vec<Diagnostic>) {
    for (id, server) in &mut objects.servers {
        if server.spec.export_to.as_ref().is_none_or(|exports| exports.namespaces.from == From::Same) {
            continue;
        }
        let choice = Arc::make_mut(server).spec.export_to.as_mut().map(|exports| &mut exports.namespaces);
        let object = || ObjectRef::new(ObjectKind::McpServer, &id.namespace, &id.name);
        refuse(choice, "spec.exportTo.namespaces.from", object, diagnostics);
    }
    for (id, gateway) in &mut objects.gateways {
        let chosen = gateway.spec.servers.as_ref().and_then(|servers| servers.namespaces.as_ref());
        if chosen.is_none_or(|choice| choice.from == From::Same) {
            continue;
        }
        let servers = Arc::make_mut(gateway).spec.servers.as_mut();
        let choice = servers.and_then(|servers| servers.namespaces.as_mut());
        let object = || ObjectRef::new(ObjectKind::McpGateway, &id.namespace, &id.name);
        refuse(choice, "spec.servers.namespaces.from", object, diagnostics);
    }
    for (id, policy) in &mut objects.policies {
        let known = policy.spec.namespace_selector.as_ref().is_none_or(needs_no_labels);
        if !known {
            // A mesh level only takes away: where it is not known whom it spares, it spares nobody.
            Arc::make_mut(policy).spec.namespace_selector = Some(LabelSelector::default());
            let object = ObjectRef::new(ObjectKind::McpPolicy, &id.namespace, &id.name);
            let message =
                "this installation does not know the labels of namespaces: it holds for all that are served";
            let help = "select by kubernetes.io/metadata.name, or use a cluster-wide installation";
            diagnostics.push(finding(object, "spec.namespaceSelector", message, help));
        }
    }
}

/// Whether a selector asks only for the label that every namespace has.
fn needs_no_labels(selector: &LabelSelector) -> bool {
    let expressions = selector.match_expressions.iter().map(|requirement| &requirement.key);
    selector.match_labels.keys().chain(expressions).all(|key| key == "kubernetes.io/metadata.name")
}

fn refuse(
    choice: Option<&mut NamespaceSelection>,
    path: &str,
    object: impl FnOnce() -> ObjectRef,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let Some(choice) = choice else { return };
    *choice = NamespaceSelection::default();
    let message = "this installation serves single namespaces and crosses none: Same holds";
    diagnostics.push(finding(object(), path, message, "use `from: Same`, or a cluster-wide installation"));
}

fn finding(object: ObjectRef, path: &str, message: &str, help: &str) -> Diagnostic {
    Diagnostic {
        object: Some(object),
        path: path.to_owned(),
        severity: Severity::Error,
        reason: Reason::InvalidValue,
        message: message.to_owned(),
        help: Some(help.to_owned()),
        location: None,
    }
}

#[cfg(test)]
mod tests {
    use mcpmesh_ir::ServerId;

    use super::*;

    #[test]
    fn an_export_to_other_namespaces_is_refused_and_taken_back() {
        let mut server = mcpmesh_crds::McpServer::new("s", mcpmesh_crds::McpServerSpec::default());
        let namespaces = NamespaceSelection { from: From::All, selector: None };
        server.spec.export_to = Some(mcpmesh_crds::ExportTo { namespaces });
        let mut objects = Objects::default();
        objects.servers.insert(ServerId::new("a", "s"), Arc::new(server));
        let mut diagnostics = Vec::new();
        to_namespaces(&mut objects, &mut diagnostics);
        assert_eq!(diagnostics.len(), 1);
        let server = &objects.servers[&ServerId::new("a", "s")];
        assert_eq!(server.spec.export_to.as_ref().unwrap().namespaces.from, From::Same);
    }

    #[test]
    fn a_mesh_policy_that_selects_by_labels_holds_for_all() {
        let policy = |selector: serde_json::Value| {
            let policy = serde_json::json!({
                "apiVersion": "mcpmesh.io/v1alpha1", "kind": "McpPolicy", "metadata": {"name": "p", "namespace": "mesh"},
                "spec": {"namespaceSelector": selector},
            });
            let policy: mcpmesh_crds::McpPolicy = serde_json::from_value(policy).unwrap();
            let mut objects = Objects::default();
            objects.policies.insert(mcpmesh_ir::PolicyId::new("mesh", "p"), policy.into());
            let mut diagnostics = Vec::new();
            to_namespaces(&mut objects, &mut diagnostics);
            let selector =
                objects.policies.into_values().next().unwrap().spec.namespace_selector.clone().unwrap();
            (diagnostics.len(), selector == LabelSelector::default())
        };
        assert_eq!(policy(serde_json::json!({"matchLabels": {"tier": "gold"}})), (1, true));
        let by_name = serde_json::json!({"matchLabels": {"kubernetes.io/metadata.name": "a"}});
        assert_eq!(policy(by_name), (0, false));
    }
}
