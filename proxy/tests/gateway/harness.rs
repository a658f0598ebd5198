//! The proxy on a port of its own, a configuration built in code, and clients that can misbehave.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mcpmesh_ir::gateway::{Anonymous, Attachment, Gateway, Level, LevelKind, Listener, Naming};
use mcpmesh_ir::policy::{
    AccessRule, Dimension, Effect, IssuerMatch, Limit, Mode, Policy, Rate, Subject, To,
};
use mcpmesh_ir::server::{CredentialHeader, Endpoint, Server, Timeouts, ToolRules, Transport};
use mcpmesh_ir::{ApiKey, GatewayId, PolicyId, Resource, Secret, SecretId, ServerId, Snapshot};
use mcpmesh_proxy::mcp::sse::{Event, Splitter};
use mcpmesh_proxy::{Options, Proxy};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fake::Fake;

/// How long anything is waited for that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Awaits what must come.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("never: {what}"),
    }
}

/// Waits until `done` holds; each look lets the runtime go on.
pub(crate) async fn until(what: &str, done: impl Fn() -> bool) {
    soon(what, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Where the access log goes.
#[derive(Clone, Default)]
pub(crate) struct Sink(pub(crate) Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A configuration in the making.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) naming: Naming,
    pub(crate) anonymous: Anonymous,
    pub(crate) keys: Vec<ApiKey>,
    pub(crate) servers: Vec<Server>,
    pub(crate) secrets: BTreeMap<String, Secret>,
    pub(crate) policies: Vec<Policy>,
    pub(crate) server_levels: BTreeMap<String, Vec<Level>>,
    pub(crate) allowed_origins: Vec<String>,
    /// Replaces the body of a policy's resource by what no proxy understands.
    pub(crate) spoiled: Option<PolicyId>,
}

pub(crate) fn gateway_id() -> GatewayId {
    GatewayId::new("a", "gw")
}

pub(crate) fn anyone() -> Vec<Subject> {
    vec![Subject::Anyone {}]
}

pub(crate) fn user(name: &str) -> Vec<Subject> {
    vec![Subject::User { name: name.into(), issuer: IssuerMatch::Gateway(gateway_id()) }]
}

pub(crate) fn rule(name: &str, effect: Effect, from: Vec<Subject>, to: To) -> AccessRule {
    AccessRule { name: name.into(), effect, from, to }
}

pub(crate) fn tools(globs: &[&str]) -> To {
    To { tools: globs.iter().map(|glob| (*glob).to_owned()).collect(), ..To::default() }
}

pub(crate) fn policy(name: &str, access: Vec<AccessRule>) -> Policy {
    Policy { id: PolicyId::new("a", name), mode: Mode::Enforce, access, limits: vec![] }
}

pub(crate) fn limit(name: &str, per: Vec<Dimension>, count: u32) -> Limit {
    Limit {
        name: name.into(),
        from: vec![],
        to: To::default(),
        per,
        requests: Rate { count, window_ms: 3_600_000, burst: count },
    }
}

pub(crate) fn key(secret: &str, owner: &str) -> ApiKey {
    ApiKey {
        secret: SecretId::new("a", owner),
        sha256: hex::encode(Sha256::digest(secret.as_bytes())),
        owner: owner.to_owned(),
        groups: vec![],
        expires: None,
    }
}

impl Setup {
    /// Everyone may use everything of these servers, named `s0`, `s1`...
    pub(crate) fn open(fakes: &[&Fake]) -> Self {
        let servers = fakes.iter().enumerate().map(|(index, fake)| server(&format!("s{index}"), &fake.url()));
        Self {
            naming: Naming::Always,
            anonymous: Anonymous::Allow,
            keys: vec![],
            servers: servers.collect(),
            secrets: BTreeMap::new(),
            policies: vec![policy("open", vec![rule("all", Effect::Allow, anyone(), To::default())])],
            server_levels: BTreeMap::new(),
            allowed_origins: vec![],
            spoiled: None,
        }
    }

    pub(crate) fn keys(mut self, owners: &[&str]) -> Self {
        self.keys = owners.iter().map(|owner| key(&format!("key-{owner}"), owner)).collect();
        self
    }

    pub(crate) fn policy(mut self, policy: Policy) -> Self {
        self.policies.push(policy);
        self
    }

    pub(crate) fn naming(mut self, naming: Naming) -> Self {
        self.naming = naming;
        self
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let gateway = Gateway {
            id: gateway_id(),
            uid: "uid-gw".into(),
            listeners: vec![Listener {
                name: "mcp".into(),
                port: 8080,
                hostname: None,
                path: "/mcp".into(),
                allowed_origins: self.allowed_origins.clone(),
                tls: None,
            }],
            servers: self.servers.iter().map(|server| self.attachment(server)).collect(),
            naming: self.naming,
            anonymous: self.anonymous,
            api_keys: self.keys.iter().map(|key| key.secret.to_string()).collect(),
            token_issuers: Vec::new(),
            peers: Vec::new(),
            levels: vec![Level {
                kind: LevelKind::Gateway,
                policies: self.policies.iter().map(|policy| policy.id.clone()).collect(),
                closed: None,
            }],
        };
        let mut resources = vec![Resource::new(gateway_id().to_string(), &gateway).unwrap()];
        resources.extend(self.servers.iter().map(|one| Resource::new(one.id.to_string(), one).unwrap()));
        resources.extend(self.keys.iter().map(|one| Resource::new(one.secret.to_string(), one).unwrap()));
        resources.extend(self.secrets.iter().map(|(name, one)| Resource::new(name.clone(), one).unwrap()));
        for policy in &self.policies {
            let mut resource = Resource::new(policy.id.to_string(), policy).unwrap();
            if self.spoiled.as_ref() == Some(&policy.id) {
                resource.requires.push("a-feature-of-tomorrow".into());
            }
            resources.push(resource);
        }
        Snapshot::new(gateway_id(), resources)
    }

    fn attachment(&self, server: &Server) -> Attachment {
        Attachment {
            server: server.id.clone(),
            prefix: server.id.name.clone(),
            levels: self.server_levels.get(&server.id.name).cloned().unwrap_or_default(),
        }
    }
}

pub(crate) fn server(name: &str, url: &str) -> Server {
    Server {
        id: ServerId::new("a", name),
        endpoint: Endpoint::Remote { url: url.into(), transport: Transport::Auto, allow_private: true },
        headers: vec![],
        tools: ToolRules::default(),
        timeouts: Timeouts::default(),
        lock: None,
    }
}

pub(crate) fn bearer(secret: &str) -> CredentialHeader {
    CredentialHeader {
        name: "authorization".into(),
        prefix: "Bearer ".into(),
        secret: secret.parse().unwrap(),
        key: "token".into(),
    }
}

/// A running proxy.
pub(crate) struct Gate {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) log: Sink,
    client: Client<HttpConnector, Full<Bytes>>,
    http2: Client<HttpConnector, Full<Bytes>>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answered {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {:?}", self.status, self.body))
    }

    pub(crate) fn code(&self) -> i64 {
        self.json()["error"]["code"].as_i64().unwrap_or_else(|| panic!("no error: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn names(&self, list: &str, key: &str) -> Vec<String> {
        let json = self.json();
        let list = json["result"][list].as_array().unwrap_or_else(|| panic!("no {list}: {json}"));
        list.iter().map(|one| one[key].as_str().unwrap().to_owned()).collect()
    }
}

impl Gate {
    pub(crate) async fn start(setup: &Setup) -> Self {
        Self::with(setup, |_| {}).await
    }

    pub(crate) async fn with(setup: &Setup, change: impl FnOnce(&mut Options)) -> Self {
        let log = Sink::default();
        let mut options = Options::new(SocketAddr::from(([127, 0, 0, 1], 0)));
        options.access_log = Some(Box::new(log.clone()));
        // Tests wait for what must come, however busy the machine is.
        options.bounds.list_grace = PATIENCE;
        change(&mut options);
        let proxy = Proxy::start(options).await.unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let http2 = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        let gate = Self { proxy, log, client, http2 };
        let rejected = gate.proxy.apply(vec![setup.snapshot()]);
        assert!(rejected.is_empty() || setup.spoiled.is_some(), "{rejected:?}");
        gate
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/mcp", self.proxy.data_addr())
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> http::Response<Incoming> {
        soon("an answer's head", self.client.request(request)).await.unwrap()
    }

    pub(crate) async fn send2(&self, request: Request<Full<Bytes>>) -> Answered {
        whole(soon("an answer's head", self.http2.request(request)).await.unwrap()).await
    }

    pub(crate) async fn ask(&self, request: Request<Full<Bytes>>) -> Answered {
        whole(self.send(request).await).await
    }

    /// Posts these very bytes.
    pub(crate) async fn post(&self, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answered {
        self.ask(self.request("POST", headers, body)).await
    }

    pub(crate) fn request(
        &self,
        verb: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(verb).uri(self.url());
        if verb == "POST" && !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(body.into())).unwrap()
    }

    /// A modern client without credentials, or with the key of this owner.
    pub(crate) fn modern(&self, owner: Option<&str>) -> Modern<'_> {
        let key = owner.map(|owner| format!("Bearer key-{owner}"));
        Modern { gate: self, key, capabilities: json!({}) }
    }

    /// Opens a legacy session.
    pub(crate) async fn legacy(&self, owner: Option<&str>, revision: &str) -> Legacy<'_> {
        self.legacy_with(owner, revision, json!({})).await
    }

    pub(crate) async fn legacy_with(
        &self,
        owner: Option<&str>,
        revision: &str,
        capabilities: Value,
    ) -> Legacy<'_> {
        let mut legacy = Legacy {
            gate: self,
            key: owner.map(|owner| format!("Bearer key-{owner}")),
            session: String::new(),
            revision: revision.to_owned(),
        };
        let answered = legacy.initialize(&capabilities).await;
        legacy.session =
            answered.header("mcp-session-id").unwrap_or_else(|| panic!("{answered:?}")).to_owned();
        legacy.said("notifications/initialized", json!({})).await;
        legacy
    }

    /// What `/metrics` says.
    pub(crate) async fn metrics(&self) -> String {
        self.page(self.proxy.metrics_addr(), "/metrics").await
    }

    pub(crate) async fn config_dump(&self) -> String {
        self.page(self.proxy.admin_addr(), "/config_dump").await
    }

    async fn page(&self, address: SocketAddr, path: &str) -> String {
        let uri = format!("http://{address}{path}");
        let answered = self.ask(Request::get(uri).body(Full::default()).unwrap()).await;
        assert_eq!(answered.status, 200);
        String::from_utf8(answered.body.to_vec()).unwrap()
    }

    /// Writes bytes on a connection of its own and reads one answer.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        self.raw_until(bytes, is_whole).await
    }

    /// Writes bytes on a connection of its own and reads until the proxy closes it.
    pub(crate) async fn raw_to_end(&self, bytes: &[u8]) -> String {
        self.raw_until(bytes, |_| false).await
    }

    async fn raw_until(&self, bytes: &[u8], done: impl Fn(&[u8]) -> bool) -> String {
        let mut stream = TcpStream::connect(self.proxy.data_addr()).await.unwrap();
        // The proxy may have said no and closed before all is written.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        soon("the end of a raw connection", async {
            let mut chunk = [0; 4096];
            while let Ok(read) = stream.read(&mut chunk).await {
                answer.extend_from_slice(&chunk[..read]);
                if read == 0 || done(&answer) {
                    break;
                }
            }
        })
        .await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// A head and as many bytes of body as it announces.
pub(crate) fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length:").map(str::trim).map(str::to_owned)
        })
        .and_then(|length| length.parse::<usize>().ok());
    length.is_some_and(|length| body.len() >= length)
}

pub(crate) async fn whole(response: http::Response<Incoming>) -> Answered {
    let (head, body) = response.into_parts();
    let body = soon("an answer's body", body.collect()).await.unwrap().to_bytes();
    Answered { status: head.status, headers: head.headers, body }
}

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
    async fn initialize(&self, capabilities: &Value) -> Answered {
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
    body: Incoming,
    splitter: Splitter,
    ready: VecDeque<Event>,
}

impl Events {
    fn of(response: http::Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        Self { status: head.status, body, splitter: Splitter::new(64 << 20), ready: VecDeque::new() }
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
