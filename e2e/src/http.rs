//! A tiny HTTP and JSON-RPC client that can be wrong on purpose: any headers, any bytes, and raw TCP.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::builderstates::WantsProtocols1;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
pub const DEADLINE: Duration = Duration::from_secs(30);

const BOTH: (&str, &str) = ("accept", "application/json, text/event-stream");
const JSON: (&str, &str) = ("content-type", "application/json");
/// The revision without sessions.
pub const MODERN: &str = "2026-07-28";

/// Talks to one endpoint.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: Uri,
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
    headers: Vec<(String, String)>,
}

impl Client {
    /// A client of `endpoint`, such as `http://127.0.0.1:8080/mcp`.
    ///
    /// # Errors
    /// When the address is malformed.
    pub fn new(endpoint: &str) -> anyhow::Result<Self> {
        Self::over(endpoint, HttpsConnectorBuilder::new().with_tls_config(trusting("")?).https_or_http())
    }

    /// A client of an `https` endpoint that must be `name`, by these certificates in PEM or what they have signed.
    ///
    /// # Errors
    /// When the address, the name or a certificate is malformed.
    pub fn trusting(endpoint: &str, name: &str, roots: &str) -> anyhow::Result<Self> {
        let name = FixedServerNameResolver::new(ServerName::try_from(name.to_owned())?);
        let builder = HttpsConnectorBuilder::new().with_tls_config(trusting(roots)?).https_only();
        Self::over(endpoint, builder.with_server_name_resolver(name))
    }

    fn over(endpoint: &str, builder: HttpsConnectorBuilder<WantsProtocols1>) -> anyhow::Result<Self> {
        let pool = Pool::builder(TokioExecutor::new()).build(builder.enable_http1().build());
        Ok(Self { endpoint: endpoint.parse()?, pool, headers: Vec::new() })
    }

    /// The same client with one more header on every request (`authorization`, say).
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends exactly these headers (and those of [`Self::with_header`]) and this body; waits for the answer's head.
    ///
    /// # Errors
    /// When nothing answers in time.
    pub async fn open(
        &self,
        method: Method,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Stream> {
        let mut request = Request::builder().method(method).uri(self.endpoint.clone());
        let own = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in own.chain(headers.iter().copied()) {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body.into()))?;
        let response = timeout(DEADLINE, self.pool.request(request)).await.context("no answer in time")??;
        let (head, body) = response.into_parts();
        Ok(Stream {
            status: head.status,
            headers: head.headers,
            body,
            rest: Vec::new(),
            ready: VecDeque::new(),
        })
    }

    /// As [`Self::open`], and reads the whole body.
    ///
    /// # Errors
    /// When the answer does not end in time.
    pub async fn send(
        &self,
        method: Method,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Reply> {
        self.open(method, headers, body).await?.read_to_end().await
    }

    /// POSTs a body as MCP clients do, with more headers.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn post(&self, headers: &[(&str, &str)], body: impl Into<Bytes>) -> anyhow::Result<Reply> {
        let headers: Vec<_> = [BOTH, JSON].into_iter().chain(headers.iter().copied()).collect();
        self.send(Method::POST, &headers, body).await
    }

    /// A well-formed request of the modern era; `params` without `_meta` gets one that declares nothing.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn modern(&self, method: &str, params: Value) -> anyhow::Result<Reply> {
        self.open_modern(method, params).await?.read_to_end().await
    }

    /// As [`Self::modern`], for answers that are read message by message.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_modern(&self, method: &str, mut params: Value) -> anyhow::Result<Stream> {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": {"name": "mcpmesh-e2e", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        if let Some(given) = params.as_object_mut() {
            let given = given.entry("_meta").or_insert_with(|| json!({}));
            for (key, value) in meta.as_object().into_iter().flatten() {
                if given.get(key).is_none() {
                    given[key] = value.clone();
                }
            }
        }
        let name = ["name", "uri", "taskId"].iter().find_map(|key| params[*key].as_str()).map(str::to_owned);
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let mut headers = vec![BOTH, JSON, ("mcp-protocol-version", MODERN), ("mcp-method", method)];
        headers.extend(name.iter().map(|name| ("mcp-name", name.as_str())));
        self.open(Method::POST, &headers, body).await
    }

    /// Opens a legacy session of one revision, up to and with `notifications/initialized`.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn legacy(&self, version: &str, capabilities: Value) -> anyhow::Result<Session> {
        let params = json!({
            "protocolVersion": version,
            "capabilities": capabilities,
            "clientInfo": {"name": "mcpmesh-e2e", "version": "1"},
        });
        let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}).to_string();
        let reply = self.post(&[], body).await?;
        let initialized = reply.response()?["result"].clone();
        let version = initialized["protocolVersion"].as_str().context("initialize was refused")?.to_owned();
        let id = reply.headers.get("mcp-session-id").map(|id| id.to_str().map(str::to_owned)).transpose()?;
        let session = Session { client: self.clone(), id, version, initialized };
        session.post(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await?;
        Ok(session)
    }
}

/// Gets a plain page, such as `/metrics`.
///
/// # Errors
/// When nothing answers in time.
pub async fn get(url: &str) -> anyhow::Result<Reply> {
    Client::new(url)?.send(Method::GET, &[], "").await
}

fn trusting(roots: &str) -> anyhow::Result<ClientConfig> {
    let mut trusted = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        trusted.add(certificate?)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(trusted).with_no_client_auth())
}

/// A legacy session.
#[derive(Debug, Clone)]
pub struct Session {
    client: Client,
    /// `Mcp-Session-Id`, where the server gave one.
    pub id: Option<String>,
    /// The negotiated revision.
    pub version: String,
    /// The result of `initialize`.
    pub initialized: Value,
}

impl Session {
    /// Sends one request and reads its answer to the end.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn request(&self, method: &str, params: Value) -> anyhow::Result<Reply> {
        self.post(json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})).await
    }

    /// POSTs any message in the session.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn post(&self, message: Value) -> anyhow::Result<Reply> {
        self.open(Method::POST, message.to_string()).await?.read_to_end().await
    }

    /// Sends any method and body with the session's headers; a GET opens the stream of the server's own messages.
    ///
    /// # Errors
    /// As [`Client::open`].
    pub async fn open(&self, method: Method, body: impl Into<Bytes>) -> anyhow::Result<Stream> {
        let mut headers = vec![BOTH, JSON, ("mcp-protocol-version", self.version.as_str())];
        headers.extend(self.id.iter().map(|id| ("mcp-session-id", id.as_str())));
        self.client.open(method, &headers, body).await
    }
}

/// An answer whose body is still coming. Dropping it closes the stream.
#[derive(Debug)]
pub struct Stream {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: Incoming,
    rest: Vec<u8>,
    ready: VecDeque<Value>,
}

impl Stream {
    /// The next JSON-RPC message of an event stream; `None` when it ends. Comments and empty events are skipped.
    ///
    /// # Errors
    /// When nothing comes in time or an event is no JSON.
    pub async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Ok(Some(message));
            }
            let frame = timeout(DEADLINE, self.body.frame()).await.context("no event in time")?;
            let Some(frame) = frame else { return Ok(None) };
            if let Ok(data) = frame?.into_data() {
                self.rest.extend_from_slice(&data);
            }
            while let Some((event, used)) = cut_event(&self.rest) {
                let data = event_data(&event);
                self.rest.drain(..used);
                if !data.is_empty() {
                    self.ready.push_back(serde_json::from_str(&data).context("an event is no JSON")?);
                }
            }
        }
    }

    /// The next piece of the body as it came; `None` at its end.
    ///
    /// # Errors
    /// When nothing comes in time, or the body breaks off.
    pub async fn piece(&mut self) -> anyhow::Result<Option<Bytes>> {
        let frame = timeout(DEADLINE, self.body.frame()).await.context("no piece in time")?;
        Ok(frame.transpose()?.map(|frame| frame.into_data().unwrap_or_default()))
    }

    /// Reads the rest of the body.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn read_to_end(self) -> anyhow::Result<Reply> {
        let body =
            timeout(DEADLINE, self.body.collect()).await.context("the answer did not end in time")??;
        Ok(Reply { status: self.status, headers: self.headers, body: body.to_bytes() })
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: Bytes,
}

impl Reply {
    /// Every JSON-RPC message in it, from a JSON body or an event stream.
    ///
    /// # Errors
    /// When the body is neither.
    pub fn messages(&self) -> anyhow::Result<Vec<Value>> {
        let kind = self.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("text/event-stream") {
            return Ok(vec![serde_json::from_slice(&self.body).with_context(|| format!("{self:?}"))?]);
        }
        let (mut messages, mut rest) = (Vec::new(), self.body.to_vec());
        rest.extend_from_slice(b"\n\n");
        while let Some((event, used)) = cut_event(&rest) {
            let data = event_data(&event);
            rest.drain(..used);
            if !data.is_empty() {
                messages.push(serde_json::from_str(&data)?);
            }
        }
        Ok(messages)
    }

    /// The one message that carries a result or an error.
    ///
    /// # Errors
    /// When there is none.
    pub fn response(&self) -> anyhow::Result<Value> {
        let answers = |message: &Value| message.get("result").is_some() || message.get("error").is_some();
        self.messages()?.into_iter().find(answers).with_context(|| format!("no response in {self:?}"))
    }
}

/// Cuts the first whole event (lines up to an empty one) off `bytes`; returns it and how many bytes it took.
fn cut_event(bytes: &[u8]) -> Option<(String, usize)> {
    let mut start = 0;
    while let Some(length) = bytes[start..].iter().position(|byte| *byte == b'\n') {
        let line = &bytes[start..start + length];
        start += length + 1;
        if line.is_empty() || line == b"\r" {
            return Some((String::from_utf8_lossy(&bytes[..start]).into_owned(), start));
        }
    }
    None
}

fn event_data(event: &str) -> String {
    let lines = event.lines().filter_map(|line| line.strip_prefix("data:"));
    lines.map(|data| data.strip_prefix(' ').unwrap_or(data)).collect::<Vec<_>>().join("\n")
}

/// Writes these very bytes to the endpoint's port and reads until the server closes; for smuggling and broken HTTP.
///
/// # Errors
/// When the port does not answer, or the connection is still open at the deadline; the message holds what came.
pub async fn raw(endpoint: &str, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let endpoint: Uri = endpoint.parse()?;
    let authority = endpoint.authority().context("no authority")?;
    let mut connection = TcpStream::connect(authority.as_str()).await?;
    // A server may well refuse and close before all of it is written.
    let _ = connection.write_all(bytes).await;
    let mut answer = Vec::new();
    match timeout(DEADLINE, connection.read_to_end(&mut answer)).await {
        Ok(Ok(_)) => Ok(answer),
        Ok(Err(_)) if !answer.is_empty() => Ok(answer),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => bail!("still open after {DEADLINE:?}, got {:?}", String::from_utf8_lossy(&answer)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};
    use serde_json::json;

    use super::{Reply, cut_event, event_data};

    #[test]
    fn events_are_cut_at_empty_lines_of_either_kind() {
        let (event, used) =
            cut_event(b"id: 1\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\nrest").expect("a whole event");
        assert_eq!((event_data(&event).as_str(), used), ("{\"a\":\n1}", 32));
        assert_eq!(cut_event(b"data: 1\n"), None);
    }

    #[test]
    fn the_response_is_found_among_notifications() {
        let body =
            ": ping\n\ndata: {\"method\":\"notifications/progress\"}\n\ndata: {\"id\":1,\"result\":{}}\n\n";
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "text/event-stream".parse().expect("a header value"));
        let reply = Reply { status: StatusCode::OK, headers, body: Bytes::from_static(body.as_bytes()) };
        assert_eq!(reply.messages().expect("events").len(), 2);
        assert_eq!(reply.response().expect("a response")["result"], json!({}));
    }
}
