//! The data plane of MCP Mesh.

pub mod mcp;
