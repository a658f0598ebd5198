//! A fake MCP server of either era that keeps every byte it receives.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, Method as Verb, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{broadcast, mpsc, watch};

pub(crate) type Answer = Response<BoxBody<Bytes, std::io::Error>>;

/// What the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Modern,
    Legacy,
    Both,
}

/// One request as the server saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) verb: Verb,
    pub(crate) headers: HeaderMap,
    pub(crate) raw: Bytes,
    pub(crate) body: Value,
}

impl Seen {
    pub(crate) fn method(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn is_modern(&self) -> bool {
        self.header("mcp-protocol-version") == Some("2026-07-28")
    }
}

/// What it offers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalogue {
    pub(crate) tools: Vec<Value>,
    pub(crate) prompts: Vec<Value>,
    pub(crate) resources: Vec<Value>,
    pub(crate) templates: Vec<Value>,
}

impl Catalogue {
    pub(crate) fn tools(names: &[&str]) -> Self {
        Self { tools: names.iter().map(|name| tool(name)).collect(), ..Self::default() }
    }

    pub(crate) fn resources(mut self, uris: &[&str]) -> Self {
        self.resources = uris.iter().map(|uri| json!({"uri": uri, "name": uri})).collect();
        self
    }

    pub(crate) fn prompts(mut self, names: &[&str]) -> Self {
        self.prompts = names.iter().map(|name| json!({"name": name})).collect();
        self
    }
}

pub(crate) fn tool(name: &str) -> Value {
    json!({"name": name, "inputSchema": {"type": "object"}})
}

type Hook = Arc<dyn Fn(Seen) -> Option<BoxFuture<'static, Answer>> + Send + Sync>;

struct Inner {
    speaks: Speaks,
    catalogue: Mutex<Catalogue>,
    seen: Mutex<Vec<Seen>>,
    bytes: Arc<Mutex<Vec<u8>>>,
    count: watch::Sender<usize>,
    hook: Mutex<Option<Hook>>,
    push: broadcast::Sender<Value>,
    sessions: AtomicUsize,
}

/// A server on 127.0.0.1 that ends with this handle.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Keeps what is read through it.
struct Tap(TcpStream, Arc<Mutex<Vec<u8>>>);

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.0).poll_read(cx, buf);
        self.1.lock().extend_from_slice(&buf.filled()[before..]);
        polled
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Fake {
    pub(crate) async fn start(speaks: Speaks, catalogue: Catalogue) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            speaks,
            catalogue: Mutex::new(catalogue),
            seen: Mutex::default(),
            bytes: Arc::default(),
            count: watch::Sender::new(0),
            hook: Mutex::new(None),
            push: broadcast::Sender::new(256),
            sessions: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&inner);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let _ = socket.set_nodelay(true);
                let inner = Arc::clone(&serving);
                let tap = Tap(socket, Arc::clone(&inner.bytes));
                let service = service_fn(move |request: Request<Incoming>| {
                    let inner = Arc::clone(&inner);
                    async move { Ok::<_, Infallible>(inner.answer(request).await) }
                });
                connections.spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(tap), service)
                        .await;
                });
            }
        });
        Self { address, inner, task }
    }

    pub(crate) async fn modern(tools: &[&str]) -> Self {
        Self::start(Speaks::Modern, Catalogue::tools(tools)).await
    }

    pub(crate) async fn legacy(tools: &[&str]) -> Self {
        Self::start(Speaks::Legacy, Catalogue::tools(tools)).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// Answers before the default does, where it returns something.
    pub(crate) fn hook(
        &self,
        hook: impl Fn(Seen) -> Option<BoxFuture<'static, Answer>> + Send + Sync + 'static,
    ) {
        *self.inner.hook.lock() = Some(Arc::new(hook));
    }

    /// Says a message on every open stream of its own.
    pub(crate) fn push(&self, message: Value) {
        let _ = self.inner.push.send(message);
    }

    /// How many streams are open on which it can say something.
    pub(crate) fn listeners(&self) -> usize {
        self.inner.push.receiver_count()
    }

    pub(crate) fn set(&self, catalogue: Catalogue) {
        *self.inner.catalogue.lock() = catalogue;
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.inner.seen.lock().clone()
    }

    /// What it saw since the last look.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.inner.seen.lock())
    }

    /// Everything that ever came in, heads included.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.inner.bytes.lock().clone()
    }

    pub(crate) fn of(&self, method: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.method() == method).collect()
    }

    pub(crate) fn calls(&self) -> Vec<Seen> {
        self.of("tools/call")
    }

    /// Waits until what it saw satisfies `done`.
    pub(crate) async fn until(&self, what: &str, done: impl Fn(&[Seen]) -> bool) {
        let mut count = self.inner.count.subscribe();
        let waiting = count.wait_for(|_| done(&self.inner.seen.lock()));
        if tokio::time::timeout(super::harness::PATIENCE, waiting).await.is_err() {
            panic!("the server never saw: {what}");
        }
    }
}

impl Inner {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let raw = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let body = serde_json::from_slice(&raw).unwrap_or(Value::Null);
        let seen = Seen { verb: head.method, headers: head.headers, raw, body };
        self.seen.lock().push(seen.clone());
        self.count.send_modify(|count| *count += 1);
        let hook = self.hook.lock().clone();
        if let Some(answer) = hook.and_then(|hook| hook(seen.clone())) {
            return answer.await;
        }
        match (self.speaks, seen.is_modern()) {
            (Speaks::Legacy, true) => json_body(
                400,
                &json!({"jsonrpc": "2.0", "error": {"code": -32000, "message": "no"}, "id": null}),
            ),
            (Speaks::Modern, false) => {
                let data = json!({"supported": ["2026-07-28"], "requested": ""});
                error(400, &seen, json!({"code": -32022, "message": "Unsupported", "data": data}))
            }
            (_, true) => self.modern(&seen),
            (_, false) => self.legacy(&seen),
        }
    }

    fn capabilities() -> Value {
        json!({"tools": {"listChanged": true}, "prompts": {"listChanged": true},
               "resources": {"listChanged": true, "subscribe": true}, "logging": {}, "completions": {}})
    }

    fn modern(&self, seen: &Seen) -> Answer {
        match seen.method() {
            "server/discover" => result(
                seen,
                json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
                       "capabilities": Self::capabilities(), "instructions": "be nice", "ttlMs": 10,
                       "cacheScope": "public"}),
            ),
            "subscriptions/listen" => {
                let meta = json!({"io.modelcontextprotocol/subscriptionId": seen.body["id"]});
                let ack = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
                    "params": {"_meta": meta, "notifications": seen.body["params"]["notifications"]}});
                self.pushed(Some(ack))
            }
            _ => match self.object(seen) {
                Some(mut value) => {
                    value["resultType"] = "complete".into();
                    result(seen, value)
                }
                None => error(404, seen, json!({"code": -32601, "message": "Method not found"})),
            },
        }
    }

    fn legacy(&self, seen: &Seen) -> Answer {
        if seen.verb == Verb::GET {
            return self.pushed(None);
        }
        if seen.verb == Verb::DELETE {
            return status(204, "");
        }
        match seen.method() {
            "initialize" => {
                let number = self.sessions.fetch_add(1, Ordering::Relaxed);
                let mut answer = result(
                    seen,
                    json!({"protocolVersion": "2025-11-25", "capabilities": Self::capabilities(),
                           "serverInfo": {"name": "old", "version": "1"}}),
                );
                answer.headers_mut().insert("mcp-session-id", format!("s-{number}").parse().unwrap());
                answer
            }
            method if method.starts_with("notifications/") || method.is_empty() => status(202, ""),
            _ => match self.object(seen) {
                Some(value) => result(seen, value),
                None => result(seen, json!({})),
            },
        }
    }

    fn object(&self, seen: &Seen) -> Option<Value> {
        let catalogue = self.catalogue.lock().clone();
        let params = &seen.body["params"];
        Some(match seen.method() {
            "tools/list" => page("tools", &catalogue.tools, params),
            "prompts/list" => page("prompts", &catalogue.prompts, params),
            "resources/list" => page("resources", &catalogue.resources, params),
            "resources/templates/list" => page("resourceTemplates", &catalogue.templates, params),
            "tools/call" => {
                json!({"content": [{"type": "text", "text": params["arguments"].to_string()}]})
            }
            "resources/read" => json!({"contents": [{"uri": params["uri"], "text": "here"}]}),
            "prompts/get" => {
                json!({"messages": [{"role": "user", "content": {"type": "text", "text": params["name"]}}]})
            }
            "completion/complete" => json!({"completion": {"values": ["a"]}}),
            _ => return None,
        })
    }

    fn pushed(&self, first: Option<Value>) -> Answer {
        let first = stream::iter(first.map(|first| Ok(Bytes::from(data(&first)))));
        let rest = stream::unfold(self.push.subscribe(), |mut pushed| async move {
            let message = pushed.recv().await.ok()?;
            Some((Ok(Bytes::from(data(&message))), pushed))
        });
        // A comment shows that the stream is open.
        event_stream(stream::iter([Ok(Bytes::from_static(b": open\n\n"))]).chain(first).chain(rest))
    }
}

const PAGE: usize = 400;

fn page(member: &str, all: &[Value], params: &Value) -> Value {
    let from: usize = params["cursor"].as_str().and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
    let mut out = json!({member: all.iter().skip(from).take(PAGE).collect::<Vec<_>>(), "ttlMs": 9, "cacheScope": "public"});
    if from + PAGE < all.len() {
        out["nextCursor"] = (from + PAGE).to_string().into();
    }
    out
}

fn boxed(
    body: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + Sync + 'static,
) -> BoxBody<Bytes, std::io::Error> {
    BodyExt::boxed(StreamBody::new(body.map(|chunk| chunk.map(Frame::data))))
}

pub(crate) fn status(code: u16, body: &str) -> Answer {
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes())).map_err(|never| match never {}).boxed();
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(code).unwrap();
    answer
}

pub(crate) fn json_body(code: u16, body: &Value) -> Answer {
    let mut answer = status(code, &body.to_string());
    answer.headers_mut().insert("content-type", "application/json".parse().unwrap());
    answer
}

pub(crate) fn result(seen: &Seen, result: Value) -> Answer {
    json_body(200, &json!({"jsonrpc": "2.0", "id": seen.body["id"], "result": result}))
}

pub(crate) fn error(code: u16, seen: &Seen, error: Value) -> Answer {
    json_body(code, &json!({"jsonrpc": "2.0", "id": seen.body["id"], "error": error}))
}

pub(crate) fn event_stream(
    body: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + Sync + 'static,
) -> Answer {
    let mut answer = Response::new(boxed(body));
    answer.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
    answer
}

pub(crate) fn json_stream(
    body: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + Sync + 'static,
) -> Answer {
    let mut answer = Response::new(boxed(body));
    answer.headers_mut().insert("content-type", "application/json".parse().unwrap());
    answer
}

/// A stream that the test feeds; it breaks off with an error at `Err`.
pub(crate) fn fed() -> (
    mpsc::UnboundedSender<Result<String, ()>>,
    impl Stream<Item = Result<Bytes, std::io::Error>> + Send + Sync + 'static,
) {
    let (feed, fed) = mpsc::unbounded_channel::<Result<String, ()>>();
    let body = stream::unfold(fed, |mut fed| async move {
        let next = fed.recv().await?;
        Some((next.map(Bytes::from).map_err(|()| std::io::Error::other("reset")), fed))
    });
    (feed, body)
}

pub(crate) fn data(message: &Value) -> String {
    format!("data: {message}\n\n")
}
