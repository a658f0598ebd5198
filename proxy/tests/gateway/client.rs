//! Clients of both eras that can misbehave.

use std::collections::VecDeque;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use mcpmesh_proxy::mcp::sse::{Event, Splitter};
use serde_json::{Value, json};

use super::harness::{Answered, Gate, soon};

/// A client that speaks 2026-07-28.
#[derive(Clone)]
pub(crate) struct Modern<'g> {
    pub(crate) gate: &'g Gate,
    pub(crate) key: Option<String>,
    pub(crate) capabilities: Value,
}

pub(crate) const META: &str = "io.modelcontextprotocol/protocolVersion";

impl Modern<'_> {
    pub(crate) fn message(&self, id: &Value, method: &str, params: &Value) -> Value {
        let mut params = params.clone();
        params["_meta"][META] = "2026-07-28".into();
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = self.capabilities.clone();
        json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
    }

    pub(crate) fn request(&self, id: impl Into<Value>, method: &str, params: &Value) -> Request<Full<Bytes>> {
        let message = self.message(&id.into(), method, params);
        self.with_body(method, params, message.to_string())
    }

    pub(crate) fn with_body(
        &self,
        method: &str,
        params: &Value,
        body: impl Into<Bytes>,
    ) -> Request<Full<Bytes>> {
        let name = params["name"].as_str().or_else(|| params["uri"].as_str());
        let encoded = name.map(|name| mcpmesh_proxy::mcp::header::encode(name).into_owned());
        let mut headers = vec![
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", method),
        ];
        headers.extend(encoded.as_deref().map(|name| ("mcp-name", name)));
        headers.extend(self.key.as_deref().map(|key| ("authorization", key)));
        self.gate.request("POST", &headers, body)
    }

    pub(crate) async fn ask(&self, method: &str, params: Value) -> Answered {
        self.gate.ask(self.request(1, method, &params)).await
    }

    pub(crate) async fn call(&self, name: &str, arguments: Value) -> Answered {
        self.ask("tools/call", json!({"name": name, "arguments": arguments})).await
    }

    pub(crate) async fn tools(&self) -> Vec<String> {
        self.ask("tools/list", json!({})).await.names("tools", "name")
    }

    pub(crate) async fn open(&self, id: impl Into<Value>, method: &str, params: Value) -> Events {
        Events::of(self.gate.send(self.request(id, method, &params)).await)
    }
}

/// A client with a session.
#[derive(Clone)]
pub(crate) struct Legacy<'g> {
    pub(crate) gate: &'g Gate,
    pub(crate) key: Option<String>,
    pub(crate) session: String,
    pub(crate) revision: String,
}

impl Legacy<'_> {
    pub(crate) async fn initialize(&self, capabilities: &Value) -> Answered {
        let params = json!({"protocolVersion": self.revision, "capabilities": capabilities,
                            "clientInfo": {"name": "test", "version": "0"}});
        let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let mut headers = vec![("accept", "application/json, text/event-stream")];
        headers.extend(self.key.as_deref().map(|key| ("authorization", key)));
        self.gate.post(&headers, body.to_string()).await
    }

    pub(crate) fn headers(&self) -> Vec<(&str, &str)> {
        let mut headers = vec![
            ("accept", "application/json, text/event-stream"),
            ("mcp-session-id", self.session.as_str()),
        ];
        if self.revision.as_str() >= "2025-06-18" {
            headers.push(("mcp-protocol-version", self.revision.as_str()));
        }
        headers.extend(self.key.as_deref().map(|key| ("authorization", key)));
        headers
    }

    pub(crate) fn request(&self, id: impl Into<Value>, method: &str, params: &Value) -> Request<Full<Bytes>> {
        let body = json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": params});
        self.gate.request("POST", &self.headers(), body.to_string())
    }

    pub(crate) async fn ask_as(&self, id: impl Into<Value>, method: &str, params: Value) -> Answered {
        self.gate.ask(self.request(id, method, &params)).await
    }

    pub(crate) async fn ask(&self, method: &str, params: Value) -> Answered {
        self.ask_as(1, method, params).await
    }

    pub(crate) async fn call(&self, name: &str, arguments: Value) -> Answered {
        self.ask("tools/call", json!({"name": name, "arguments": arguments})).await
    }

    pub(crate) async fn tools(&self) -> Vec<String> {
        self.ask("tools/list", json!({})).await.names("tools", "name")
    }

    pub(crate) async fn said(&self, method: &str, params: Value) -> Answered {
        let body = json!({"jsonrpc": "2.0", "method": method, "params": params});
        self.gate.post(&self.headers(), body.to_string()).await
    }

    pub(crate) async fn post(&self, body: Value) -> Answered {
        self.gate.post(&self.headers(), body.to_string()).await
    }

    pub(crate) async fn open(&self, id: impl Into<Value>, method: &str, params: Value) -> Events {
        Events::of(self.gate.send(self.request(id, method, &params)).await)
    }

    /// Its own stream.
    pub(crate) async fn get(&self, last: Option<&str>) -> Events {
        let mut headers = self.headers();
        headers.extend(last.map(|last| ("last-event-id", last)));
        Events::of(self.gate.send(self.gate.request("GET", &headers, "")).await)
    }

    pub(crate) async fn delete(&self) -> StatusCode {
        self.gate.ask(self.gate.request("DELETE", &self.headers(), "")).await.status
    }
}

/// An event stream.
pub(crate) struct Events {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    body: Incoming,
    splitter: Splitter,
    ready: VecDeque<Event>,
}

impl Events {
    fn of(response: http::Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        Self {
            status: head.status,
            headers: head.headers,
            body,
            splitter: Splitter::new(64 << 20),
            ready: VecDeque::new(),
        }
    }

    /// The next bytes as they are, comments included. Not to be mixed with events of which a part was read.
    pub(crate) async fn raw(&mut self) -> Bytes {
        let frame = soon("bytes of a stream", self.body.frame()).await.unwrap().unwrap();
        frame.into_data().unwrap()
    }

    /// The next event, priming ones included; none at the end, however it comes.
    pub(crate) async fn event(&mut self) -> Option<Event> {
        soon("an event", async {
            loop {
                if let Some(event) = self.ready.pop_front() {
                    return Some(event);
                }
                // Comments that keep the stream alive are not what is waited for.
                let frame = self.body.frame().await?.ok()?;
                if let Ok(data) = frame.into_data() {
                    self.ready.extend(self.splitter.feed(&data).unwrap());
                }
            }
        })
        .await
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            let event = self.event().await?;
            if !event.data.is_empty() {
                return Some(serde_json::from_slice(&event.data).unwrap());
            }
        }
    }

    pub(crate) async fn expect(&mut self, what: &str) -> Value {
        self.next().await.unwrap_or_else(|| panic!("the stream ended before {what}"))
    }

    /// All messages to the end.
    pub(crate) async fn all(&mut self) -> Vec<Value> {
        let mut all = Vec::new();
        while let Some(message) = self.next().await {
            all.push(message);
        }
        all
    }
}
