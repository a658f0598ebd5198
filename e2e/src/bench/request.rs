//! MCP requests rendered to the bytes of HTTP/1.1.

use bytes::Bytes;
use serde_json::{Value, json};

/// Who asks, and in which era.
#[derive(Debug, Clone, Default)]
pub(super) struct Caller {
    /// The legacy session; none: modern.
    pub(super) session: Option<String>,
    /// The API key.
    pub(super) key: Option<String>,
    /// The request's id: unique among those of a session that are in flight.
    pub(super) id: usize,
}

impl Caller {
    /// A modern caller with this key.
    pub(super) fn with_key(key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..Self::default() }
    }

    /// A request; `name` is the tool.
    pub(super) fn request(&self, path: &str, method: &str, name: Option<&str>) -> Bytes {
        let mut params = json!({});
        if let Some(name) = name {
            params = json!({"name": name, "arguments": {"query": "weather in Berlin", "limit": 3}});
        }
        let mut headers = String::new();
        let mut header = |name: &str, value: &str| headers.push_str(&format!("{name}: {value}\r\n"));
        match &self.session {
            Some(session) => {
                header("Mcp-Protocol-Version", "2025-11-25");
                header("Mcp-Session-Id", session);
            }
            None => {
                header("Mcp-Protocol-Version", "2026-07-28");
                header("Mcp-Method", method);
                if let Some(name) = name {
                    header("Mcp-Name", name);
                }
                params["_meta"] = json!({
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
                    "io.modelcontextprotocol/clientCapabilities": {},
                });
            }
        }
        self.post(
            path,
            &headers,
            &json!({"jsonrpc": "2.0", "id": self.id, "method": method, "params": params}),
        )
    }

    /// `initialize` of a legacy session.
    pub(super) fn initialize(&self, path: &str) -> Bytes {
        let params = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "bench", "version": "1"},
        });
        self.post(path, "", &json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}))
    }

    fn post(&self, path: &str, headers: &str, body: &Value) -> Bytes {
        self.raw(path, headers, &body.to_string())
    }

    /// Any body.
    pub(super) fn raw(&self, path: &str, headers: &str, body: &str) -> Bytes {
        let key = self.key.as_ref().map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
        Bytes::from(format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\n{headers}{key}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }
}

/// A GET.
pub(super) fn get(path: &str) -> Bytes {
    Bytes::from(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}
