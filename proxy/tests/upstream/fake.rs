//! Fake servers: HTTP on a port of their own, processes behind duplex pipes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, Method as Verb, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mcpmesh_ir::ServerId;
use mcpmesh_proxy::mcp::envelope::Method;
use mcpmesh_proxy::mcp::era::Era;
use mcpmesh_proxy::mcp::meta::Capabilities;
use mcpmesh_proxy::upstream::*;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::sync::mpsc;

pub(crate) type Answer = Response<BoxBody<Bytes, std::io::Error>>;

/// One request as a server saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) verb: Verb,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
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

/// A server on 127.0.0.1 that ends with this handle.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub(crate) async fn start<F>(handle: F) -> Self
    where
        F: Fn(Seen) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, handle) = (Arc::clone(&seen), Arc::new(handle));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (log, handle) = (Arc::clone(&log), Arc::clone(&handle));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (log, handle) = (Arc::clone(&log), Arc::clone(&handle));
                    async move {
                        let (head, body) = request.into_parts();
                        let body =
                            body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                        let path = head.uri.path_and_query().unwrap().to_string();
                        let seen = Seen { verb: head.method, path, headers: head.headers, body };
                        log.lock().unwrap().push(seen.clone());
                        Ok::<_, Infallible>(handle(seen).await)
                    }
                });
                connections.spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
        Self { address, seen, task }
    }

    pub(crate) fn config(&self, path: &str, transport: Transport) -> Config {
        let url = format!("http://{}{path}", self.address).parse().unwrap();
        let mut config = Config::new(ServerId::new("ns", "fake"), Endpoint::Remote { url, transport });
        config.egress = mcpmesh_ir::EgressRule::private();
        config
    }

    pub(crate) fn upstream(&self) -> Arc<Upstream> {
        Upstream::start(self.config("/mcp", Transport::Auto), Deps::default())
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn methods(&self) -> Vec<String> {
        self.seen()
            .iter()
            .map(|seen| format!("{} {}", seen.verb, seen.method()).trim_end().to_owned())
            .collect()
    }
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

pub(crate) fn json(code: u16, body: &Value) -> Answer {
    let mut answer = status(code, &body.to_string());
    answer.headers_mut().insert("content-type", "application/json; charset=utf-8".parse().unwrap());
    answer
}

pub(crate) fn result(seen: &Seen, result: Value) -> Answer {
    json(200, &json!({"jsonrpc": "2.0", "id": seen.body["id"], "result": result}))
}

pub(crate) fn error(code: u16, seen: &Seen, error: Value) -> Answer {
    json(code, &json!({"jsonrpc": "2.0", "id": seen.body["id"], "error": error}))
}

/// An event stream of these chunks, then the end.
pub(crate) fn events<T: Into<String>>(chunks: Vec<T>) -> Answer {
    let chunks: Vec<_> = chunks.into_iter().map(|text| Ok(Bytes::from(text.into()))).collect();
    event_stream(stream::iter(chunks))
}

pub(crate) fn event_stream(
    body: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + Sync + 'static,
) -> Answer {
    let mut answer = Response::new(boxed(body));
    answer.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
    answer
}

/// An event stream that the test feeds.
pub(crate) fn fed() -> (mpsc::UnboundedSender<String>, Answer) {
    let (feed, fed) = mpsc::unbounded_channel::<String>();
    let body = stream::unfold(fed, |mut fed| async move {
        let text = fed.recv().await?;
        Some((Ok(Bytes::from(text)), fed))
    });
    (feed, event_stream(body))
}

pub(crate) fn data(message: &Value) -> String {
    format!("data: {message}\n\n")
}

pub(crate) const CAPABILITIES: &str = r#"{"tools":{},"logging":{}}"#;

fn capabilities() -> Value {
    serde_json::from_str(CAPABILITIES).unwrap()
}

/// What a modern server answers to everything but calls.
pub(crate) fn modern(seen: &Seen) -> Answer {
    if seen.verb != Verb::POST {
        return status(405, "");
    }
    if !seen.is_modern() {
        let data = json!({"supported": ["2026-07-28"], "requested": ""});
        return error(400, seen, json!({"code": -32022, "message": "Unsupported", "data": data}));
    }
    match seen.method() {
        "server/discover" => result(
            seen,
            json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": capabilities(),
                   "instructions": "be nice", "ttlMs": 10, "cacheScope": "public",
                   "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "fake", "version": "1"}}}),
        ),
        "tools/list" => result(
            seen,
            json!({"resultType": "complete", "tools": [tool("echo")], "ttlMs": 9, "cacheScope": "public"}),
        ),
        "tools/call" => result(seen, json!({"resultType": "complete", "content": []})),
        _ => error(404, seen, json!({"code": -32601, "message": "Method not found"})),
    }
}

/// What a server with sessions answers to everything but calls.
pub(crate) fn legacy(seen: &Seen) -> Answer {
    if seen.verb == Verb::GET {
        return status(405, "");
    }
    if seen.verb == Verb::DELETE {
        return status(204, "");
    }
    if seen.method() == "initialize" {
        let mut answer = result(seen, initialized());
        answer.headers_mut().insert("mcp-session-id", "s-1".parse().unwrap());
        return answer;
    }
    if seen.header("mcp-session-id").is_none() {
        // A TypeScript server's words, which name our own version.
        let message =
            "Bad Request: Unsupported protocol version: 2026-07-28 (supported versions: 2025-11-25)";
        return json(
            400,
            &json!({"jsonrpc": "2.0", "error": {"code": -32000, "message": message}, "id": null}),
        );
    }
    match seen.method() {
        "tools/list" => result(seen, json!({"tools": [tool("echo")]})),
        "tools/call" => result(seen, json!({"content": []})),
        method if method.starts_with("notifications/") => status(202, ""),
        _ => result(seen, json!({})),
    }
}

pub(crate) fn initialized() -> Value {
    json!({"protocolVersion": "2025-11-25", "capabilities": capabilities(), "serverInfo": {"name": "old", "version": "1"}})
}

pub(crate) fn tool(name: &str) -> Value {
    json!({"name": name, "inputSchema": {"type": "object"}})
}

pub(crate) fn call(era: Era) -> Outgoing {
    let mut call =
        Outgoing::new(era, Method::ToolsCall, Bytes::from_static(br#""name":"echo","arguments":{}"#));
    call.name = Some("echo".into());
    call
}

/// A client of this caller that declares these capabilities and has a session with us, and what it hears outside of calls.
pub(crate) fn hearing(
    caller: &str,
    declared: &'static [u8],
) -> (Arc<SessionLink>, mpsc::Receiver<Unsolicited>) {
    let (inbox, hears) = mpsc::channel(8);
    (SessionLink::new(caller, Capabilities::new(Bytes::from_static(declared)), None, inbox), hears)
}

/// As [`hearing`], of a client that does not listen.
pub(crate) fn link(caller: &str, declared: &'static [u8]) -> Arc<SessionLink> {
    hearing(caller, declared).0
}

/// A call in such a session.
pub(crate) fn linked(link: &Arc<SessionLink>) -> Outgoing {
    let mut request = call(Era::Legacy);
    request.session = Some(Arc::clone(link));
    request
}

/// The whole of a reply: its events but the last, and the response.
pub(crate) async fn drain(reply: &mut Reply) -> (Vec<Event>, Result<Value, Error>) {
    let mut before = Vec::new();
    loop {
        match reply.next().await.expect("a response or an error") {
            Ok(Event::Response(body)) => {
                let raw = body.collect().await;
                return (before, raw.map(|raw| serde_json::from_slice(&raw).unwrap()));
            }
            Ok(event) => before.push(event),
            Err(error) => return (before, Err(error)),
        }
    }
}

pub(crate) async fn send(upstream: &Upstream, request: Outgoing) -> Result<Value, Error> {
    drain(&mut upstream.send(request).await?).await.1
}

/// Waits for an observation of this kind.
pub(crate) async fn observe(upstream: &Upstream, wanted: impl Fn(&Observation) -> bool) -> Arc<Observation> {
    let mut observation = upstream.observation();
    let seen = tokio::time::timeout(Duration::from_secs(60), observation.wait_for(|one| wanted(one))).await;
    Arc::clone(&seen.expect("the observation came").unwrap())
}

pub(crate) async fn ready(upstream: &Upstream) -> Arc<Observation> {
    observe(upstream, |one| one.state == State::Ready).await
}

/// Waits until `done` holds; each look lets the runtime go on.
pub(crate) async fn until(what: &str, done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A process as a test plays it.
pub(crate) struct Process {
    lines: tokio::io::Lines<BufReader<DuplexStream>>,
    stdout: DuplexStream,
}

impl Process {
    /// The next message that the process reads; `None` when its stdin is closed.
    pub(crate) async fn read(&mut self) -> Option<Value> {
        let line = self.lines.next_line().await.ok()??;
        Some(serde_json::from_str(&line).unwrap())
    }

    pub(crate) async fn say(&mut self, line: &str) {
        let _ = self.stdout.write_all(format!("{line}\n").as_bytes()).await;
    }

    pub(crate) async fn result(&mut self, request: &Value, result: Value) {
        self.say(&json!({"jsonrpc": "2.0", "id": request["id"], "result": result}).to_string()).await;
    }

    pub(crate) async fn error(&mut self, request: &Value, code: i64) {
        let error = json!({"code": code, "message": "no"});
        self.say(&json!({"jsonrpc": "2.0", "id": request["id"], "error": error}).to_string()).await;
    }

    /// Plays an ordinary server of sessions until its stdin closes, calls included.
    pub(crate) async fn play_legacy(&mut self) {
        while let Some(message) = self.read().await {
            self.legacy(&message).await;
        }
    }

    pub(crate) async fn legacy(&mut self, message: &Value) {
        match message["method"].as_str().unwrap_or_default() {
            "server/discover" => self.error(message, -32601).await,
            "initialize" => self.result(message, initialized()).await,
            "tools/list" => self.result(message, json!({"tools": [tool("echo")]})).await,
            "tools/call" => self.result(message, json!({"content": []})).await,
            _ => {}
        }
    }
}

/// Starts processes that `play` acts, numbered from 0. Counts the living.
pub(crate) struct Processes {
    play: Box<dyn Fn(usize, Process) -> BoxFuture<'static, ()> + Send + Sync>,
    pub(crate) started: Mutex<usize>,
    pub(crate) living: Arc<()>,
}

struct Ends(
    #[expect(dead_code, reason = "its count is what is looked at")] Arc<()>,
    tokio::task::AbortHandle,
);

impl Drop for Ends {
    fn drop(&mut self) {
        self.1.abort();
    }
}

impl Processes {
    pub(crate) fn new<F>(play: F) -> Arc<Self>
    where
        F: Fn(usize, Process) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    {
        Arc::new(Self { play: Box::new(play), started: Mutex::new(0), living: Arc::new(()) })
    }

    pub(crate) fn upstream(self: &Arc<Self>) -> Arc<Upstream> {
        let deps = Deps { connector: Some(Arc::clone(self) as Arc<dyn Connector>), ..Deps::default() };
        Upstream::start(Config::new(ServerId::new("ns", "stdio"), Endpoint::Workload), deps)
    }

    pub(crate) fn started(&self) -> usize {
        *self.started.lock().unwrap()
    }

    pub(crate) fn living(&self) -> usize {
        Arc::strong_count(&self.living) - 1
    }
}

impl Connector for Processes {
    fn connect(&self, _: &ServerId) -> BoxFuture<'static, Result<Connected, ConnectError>> {
        let (stdin, theirs) = tokio::io::duplex(64 << 10);
        let (stdout, ours) = tokio::io::duplex(64 << 10);
        let mut started = self.started.lock().unwrap();
        let process = Process { lines: BufReader::new(theirs).lines(), stdout };
        let (gone, ended) = tokio::sync::oneshot::channel::<()>();
        let play = (self.play)(*started, process);
        let task = tokio::spawn(async move {
            play.await;
            drop(gone);
        });
        *started += 1;
        let guard = Box::new(Ends(Arc::clone(&self.living), task.abort_handle()));
        let ended = Box::pin(async move { drop(ended.await) });
        Box::pin(async move {
            Ok(Connected::Stdio { stdin: Box::new(stdin), stdout: Box::new(ours), guard, ended })
        })
    }
}
