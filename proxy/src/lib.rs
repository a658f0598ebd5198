//! The data plane: many MCP servers behind one endpoint.
//!
//! A request passes the rooms from left to right and none imports one to its left:
//! listener -> routes -> gateway (http, mcp, session) -> identity -> catalog -> `ir::policy::decide`, limit -> upstream.

pub mod access_log;
pub mod bridge;
pub mod bypass;
pub mod catalog;
pub mod certificate;
pub mod config;
pub mod gateway;
mod hidden_text;
pub mod http;
pub mod identity;
pub mod limit;
pub mod listener;
pub mod mcp;
pub mod mesh;
pub mod metrics;
pub mod observability;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod push;
pub mod readiness;
pub mod ring;
pub mod routes;
pub mod session;
pub mod upstream;
pub mod upstreams;
pub mod workers;

pub use ports::Bind;
pub use proxy::{Options, Proxy};
