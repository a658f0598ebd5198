//! A namespaced install knows no namespaces' labels and may not look into others: only `from: Same` holds
//! (decisions.md 24).

use std::sync::Arc;

use mcpmesh_compiler::{Diagnostic, Inputs, ObjectKind, ObjectRef, Reason, Severity};
use mcpmesh_crds::{From, NamespaceSelection};

/// Refuses every other choice and puts `Same` in its place.
pub(super) fn to_namespaces(inputs: &mut Inputs, diagnostics: &mut Vec<Diagnostic>) {
    for (id, server) in &mut inputs.servers {
        if server.spec.export_to.as_ref().is_none_or(|exports| exports.namespaces.from == From::Same) {
            continue;
        }
        let choice = Arc::make_mut(server).spec.export_to.as_mut().map(|exports| &mut exports.namespaces);
        let object = || ObjectRef::new(ObjectKind::McpServer, &id.namespace, &id.name);
        refuse(choice, "spec.exportTo.namespaces.from", object, diagnostics);
    }
    for (id, gateway) in &mut inputs.gateways {
        let chosen = gateway.spec.servers.as_ref().and_then(|servers| servers.namespaces.as_ref());
        if chosen.is_none_or(|choice| choice.from == From::Same) {
            continue;
        }
        let servers = Arc::make_mut(gateway).spec.servers.as_mut();
        let choice = servers.and_then(|servers| servers.namespaces.as_mut());
        let object = || ObjectRef::new(ObjectKind::McpGateway, &id.namespace, &id.name);
        refuse(choice, "spec.servers.namespaces.from", object, diagnostics);
    }
}

fn refuse(
    choice: Option<&mut NamespaceSelection>,
    path: &str,
    object: impl FnOnce() -> ObjectRef,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let Some(choice) = choice else { return };
    *choice = NamespaceSelection::default();
    diagnostics.push(Diagnostic {
        object: Some(object()),
        path: path.to_owned(),
        severity: Severity::Error,
        reason: Reason::InvalidValue,
        message: "this installation serves single namespaces and crosses none: Same holds".to_owned(),
        help: Some("use `from: Same`, or a cluster-wide installation".to_owned()),
        location: None,
    });
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
        let mut inputs = Inputs::default();
        inputs.servers.insert(ServerId::new("a", "s"), Arc::new(server));
        let mut diagnostics = Vec::new();
        to_namespaces(&mut inputs, &mut diagnostics);
        assert_eq!(diagnostics.len(), 1);
        let server = &inputs.servers[&ServerId::new("a", "s")];
        assert_eq!(server.spec.export_to.as_ref().unwrap().namespaces.from, From::Same);
    }
}
