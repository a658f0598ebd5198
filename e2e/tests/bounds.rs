//! Bodies made to be expensive: what they cost in memory, which only a process of its own can show. What they are
//! answered stands in the proxy's own tests.

use std::convert::Infallible;
use std::iter::repeat_n;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mcpmesh_e2e::federation::{open_gateway, remote};
use mcpmesh_e2e::fixture::Fixture;
use mcpmesh_e2e::http::Client;
use mcpmesh_e2e::mesh::{Manifests, Mesh};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// Bytes that one request may have.
const LIMIT: usize = 4 << 20;
/// Bytes that one answer of a server may have.
const ANSWER: usize = 64 << 20;

/// The most memory that the process has had at once, in bytes.
fn peak(mesh: &Mesh) -> anyhow::Result<usize> {
    let id = mesh.process.id().context("the process has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: usize = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

fn call(arguments: &str) -> Bytes {
    let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"echo","_meta":{meta},"arguments":{arguments}}}}}"#
    ))
}

#[tokio::test]
async fn a_body_made_to_be_expensive_costs_less_than_twice_the_limit() -> anyhow::Result<()> {
    let (_process, fixture) = Fixture::Rmcp.start().await?;
    let manifests = Manifests::new()?;
    manifests.write("mesh.yaml", &(open_gateway("OnConflict") + &remote("fixture", &fixture)))?;
    let mesh = Mesh::up(manifests.path(), &[]).await?;
    let client = Client::new(&mesh.endpoint)?;
    client.modern("tools/call", json!({"name": "echo", "arguments": {"text": "hello"}})).await?;
    let many: Vec<String> = (0..1_000_000).map(|number| format!("\"{number}\":1")).collect();
    let (few, many) = (many[..300_000].join(","), many.join(","));
    let headers =
        [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "echo")];
    for (what, arguments, status) in [
        ("depth", format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)), 400),
        ("objects", format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000)), 400),
        ("keys", format!("{{{few}}}"), 400),
        ("a million keys", format!("{{{many}}}"), 413),
        ("length", format!(r#"{{"text":"{}"}}"#, "x".repeat(LIMIT)), 413),
    ] {
        // Once: what one thread gives back is not what another takes.
        let before = peak(&mesh)?;
        let answered = client.post(&headers, call(&arguments)).await;
        // Who sends more than is read may meet a closed connection.
        ensure!(answered.is_err() || answered.is_ok_and(|reply| reply.status.as_u16() == status), "{what}");
        let grown = peak(&mesh)?.saturating_sub(before);
        ensure!(grown < 2 * LIMIT, "{what}: {grown} bytes");
    }
    Ok(())
}

type Pieces = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

fn body(head: String, endless: Option<&'static [u8]>) -> Pieces {
    // A gigabyte, of which this process holds one piece.
    let pieces =
        endless.into_iter().flat_map(|piece| repeat_n(Bytes::from_static(piece), (1 << 30) / piece.len()));
    let all = std::iter::once(Bytes::from(head)).chain(pieces);
    StreamBody::new(stream::iter(all.map(|piece| Ok(Frame::data(piece)))).boxed())
}

/// A server whose answers are bombs of the kind that its tool is named after.
fn answer(asked: &Value) -> Response<Pieces> {
    const PIECE: &[u8] = &[b'x'; 64 << 10];
    let whole = |result: Value| {
        body(json!({"jsonrpc": "2.0", "id": asked["id"], "result": result}).to_string(), None)
    };
    let begun =
        format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"content":[{{"type":"text","text":""#, asked["id"]);
    let tools = ["event", "json", "gzip", "gzipped-event", "small"];
    let tools = tools.map(|name| json!({"name": name, "inputSchema": {"type": "object"}}));
    let (kind, encoding, body) = match (asked["method"].as_str(), asked["params"]["name"].as_str()) {
        (Some("server/discover"), _) => {
            let said = json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}});
            ("application/json", None, whole(said))
        }
        (Some("tools/list"), _) => {
            ("application/json", None, whole(json!({"resultType": "complete", "tools": tools})))
        }
        (_, Some("event")) => ("text/event-stream", None, body(format!("data: {begun}"), Some(PIECE))),
        (_, Some("json")) => ("application/json", None, body(begun, Some(PIECE))),
        // What it would unpack to is nobody's concern: it must not be unpacked.
        (_, Some("gzip")) => ("application/json", Some("gzip"), body(String::new(), Some(PIECE))),
        (_, Some("gzipped-event")) => ("text/event-stream", Some("gzip"), body(String::new(), Some(PIECE))),
        _ => ("application/json", None, whole(json!({"resultType": "complete", "content": []}))),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().extend(encoding.map(|one| (CONTENT_ENCODING, HeaderValue::from_static(one))));
    response
}

async fn bombs() -> anyhow::Result<(AbortOnDropHandle<()>, String)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/mcp", listener.local_addr()?);
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(async |request: Request<Incoming>| {
                let asked = request.into_body().collect().await?.to_bytes();
                let asked = serde_json::from_slice(&asked).unwrap_or_default();
                Ok::<_, hyper::Error>(answer(&asked))
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    Ok((AbortOnDropHandle::new(serving), url))
}

#[tokio::test]
async fn an_answer_made_to_be_expensive_costs_less_than_twice_the_limit() -> anyhow::Result<()> {
    let (_serving, url) = bombs().await?;
    let manifests = Manifests::new()?;
    manifests.write("mesh.yaml", &(open_gateway("OnConflict") + &remote("bombs", &url)))?;
    let mesh = Mesh::up(manifests.path(), &[]).await?;
    let client = Client::new(&mesh.endpoint)?;
    let call = |name: &str| json!({"name": name, "arguments": {}});
    let small = client.modern("tools/call", call("small")).await?.response()?;
    ensure!(small["result"].is_object(), "{small}");
    for (what, most) in
        [("gzip", LIMIT), ("gzipped-event", LIMIT), ("json", 2 * LIMIT), ("event", 2 * ANSWER)]
    {
        let before = peak(&mesh)?;
        let mut answered = client.open_modern("tools/call", call(what)).await?;
        let mut read = 0;
        let cut = loop {
            match answered.piece().await {
                Ok(Some(piece)) => read += piece.len(),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        // What is sent on as it comes breaks off; what is not is an error, and short.
        ensure!(cut == (what == "json") && read <= ANSWER + LIMIT, "{what}: {read} bytes, cut: {cut}");
        ensure!(cut || read < 1000, "{what}: {read} bytes");
        let grown = peak(&mesh)?.saturating_sub(before);
        ensure!(grown < most, "{what}: {grown} bytes");
    }
    let small = client.modern("tools/call", call("small")).await?.response()?;
    ensure!(small["result"].is_object(), "{small}");
    Ok(())
}
