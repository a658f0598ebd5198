//! The MCP server of the benchmarks: both eras, small and large results, short lists; it does as little as it can.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::TcpListener;

/// Tools of each server but the first, which has `small`, `big` and `secret`.
pub(super) const TOOLS: usize = 10;
/// The number of a server that takes its time.
pub(super) const SLOW: usize = 1_000;
/// How long.
pub(super) const SLOWNESS: Duration = Duration::from_millis(100);
/// The number of a server that never answers.
pub(super) const HUNG: usize = 1_001;
/// Bytes of text in the large result.
pub(super) const LARGE: usize = 1 << 20;

const SESSION: &str = "b3f1c0de4a7d4f0e9a1c5d2e8f607182";

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: &'a str,
    #[serde(borrow)]
    params: Option<Params<'a>>,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow)]
    name: Option<&'a str>,
}

/// A body of some pieces and of known length.
struct Pieces(VecDeque<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

struct Server {
    calls: AtomicU64,
    large: Bytes,
}

/// Serves until the process is killed. `GET /count` tells how many tools were called.
pub(super) async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let server = Arc::new(Server { calls: AtomicU64::new(0), large: large() });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let server = Arc::clone(&server);
        let service = service_fn(move |request| {
            let server = Arc::clone(&server);
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        // A connection that breaks is its client's matter.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

impl Server {
    async fn answer(&self, request: Request<Incoming>) -> Response<Pieces> {
        if request.method() == Method::GET && request.uri().path() == "/count" {
            return answer(StatusCode::OK, [Bytes::from(self.calls.load(Ordering::Relaxed).to_string())]);
        }
        if request.method() != Method::POST {
            return answer(StatusCode::METHOD_NOT_ALLOWED, []);
        }
        let number = request.uri().path().rsplit('/').next().and_then(|last| last.parse::<usize>().ok());
        match number {
            Some(SLOW) => tokio::time::sleep(SLOWNESS).await,
            Some(HUNG) => std::future::pending().await,
            _ => {}
        }
        let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
        let body = body.unwrap_or_default();
        let Ok(head) = serde_json::from_slice::<Head<'_>>(&body) else {
            return answer(StatusCode::BAD_REQUEST, []);
        };
        let Some(id) = head.id else { return answer(StatusCode::ACCEPTED, []) };
        let mut result = vec![Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{},"result":"#, id.get()))];
        match head.method {
            "tools/call" => {
                self.calls.fetch_add(1, Ordering::Relaxed);
                if head.params.and_then(|params| params.name) == Some("big") {
                    result.push(self.large.clone());
                } else {
                    result.push(Bytes::from_static(SMALL.as_bytes()));
                }
            }
            "tools/list" => result.push(Bytes::from(list(number.unwrap_or(0)))),
            "server/discover" => result.push(Bytes::from_static(DISCOVERED.as_bytes())),
            "initialize" => result.push(Bytes::from_static(INITIALIZED.as_bytes())),
            _ => result.push(Bytes::from_static(b"{}")),
        }
        result.push(Bytes::from_static(b"}"));
        let mut answer = answer(StatusCode::OK, result);
        if head.method == "initialize" {
            answer.headers_mut().insert("mcp-session-id", HeaderValue::from_static(SESSION));
        }
        answer
    }
}

const SMALL: &str = r#"{"content":[{"type":"text","text":"It is 14:05 in Berlin, 21 degrees and clear."}],"isError":false,"resultType":"complete"}"#;
const DISCOVERED: &str = r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"serverInfo":{"name":"bench","version":"1"},"ttlMs":3600000,"cacheScope":"public"}"#;
const INITIALIZED: &str = r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"bench","version":"1"}}"#;

fn answer(status: StatusCode, pieces: impl IntoIterator<Item = Bytes>) -> Response<Pieces> {
    let mut answer = Response::new(Pieces(pieces.into_iter().collect()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// A log as tools return them: lines of eighty characters, quotes here and there.
fn large() -> Bytes {
    let mut text = String::with_capacity(LARGE + 256);
    text.push_str(r#"{"content":[{"type":"text","text":""#);
    let mut line = 0;
    while text.len() < LARGE {
        line += 1;
        let quoted = if line % 4 == 0 { r#"user=\"alice\""# } else { "user=anonymous" };
        text.push_str(&format!(
            r"2026-11-23T05:00:00Z INFO request {line:07} {quoted} took 17 ms and ended well\n"
        ));
    }
    text.push_str(r#""}],"isError":false,"resultType":"complete"}"#);
    Bytes::from(text)
}

fn list(server: usize) -> String {
    let names: Vec<String> = match server {
        0 => ["small", "big", "secret"].map(str::to_owned).to_vec(),
        _ => (0..TOOLS).map(|tool| format!("tool_{tool}")).collect(),
    };
    let tools: Vec<_> = names.iter().map(|name| tool(name)).collect();
    format!(
        r#"{{"tools":[{}],"resultType":"complete","ttlMs":3600000,"cacheScope":"public"}}"#,
        tools.join(",")
    )
}

fn tool(name: &str) -> String {
    serde_json::json!({
        "name": name,
        "title": "A tool of the benchmark",
        "description": "Looks something up and says what it found, in a sentence or two, as real tools do.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "What to look for."},
                "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10},
            },
            "required": ["query"],
        },
        "annotations": {"readOnlyHint": true},
    })
    .to_string()
}
