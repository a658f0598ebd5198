//! The name of a fleet's children.

use mcpmesh_ir::FleetId;

/// `NAME-mcpgateway` or `NAME-mcpserver`.
pub(crate) fn base_name(fleet: &FleetId) -> String {
    match fleet {
        FleetId::Gateway(id) => format!("{}-mcpgateway", id.name),
        FleetId::Server(id) => format!("{}-mcpserver", id.name),
    }
}
