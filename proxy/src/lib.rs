//! The data plane of MCP Mesh.

pub mod mcp;
pub mod upstream;
