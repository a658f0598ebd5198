//! The proxy on a port of its own.

use std::io::Write;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mcpmesh_proxy::workers::Workers;
use mcpmesh_proxy::{Options, Proxy};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{Legacy, Modern};
use super::setup::Setup;

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
        // As the product runs: what one thread opens another uses.
        options.workers = Workers::start(NonZeroUsize::new(2).unwrap()).unwrap();
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
