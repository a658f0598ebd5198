//! Metrics, readiness and the redacted configuration, on a runtime of their own: a scrape delays no request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mcpmesh_ir::{ResourceKind, Snapshot};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Shared;
use crate::readiness::Readiness;

/// For a request's head to arrive: longer than the pause between two scrapes over one connection.
const HEAD_TIME: Duration = Duration::from_secs(120);

/// What the endpoints tell.
#[derive(Clone)]
pub struct Telling {
    /// All metrics.
    pub metrics: Shared,
    /// Whether requests may come.
    pub ready: Arc<Readiness>,
    /// The snapshots in force.
    pub snapshots: Arc<ArcSwap<Vec<Snapshot>>>,
}

/// What a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// `/metrics`, `/readyz`, `/livez`.
    Metrics,
    /// `/config_dump`.
    Admin,
}

/// Serves one port until `stop`.
pub async fn serve(listener: TcpListener, port: Port, telling: Telling, stop: CancellationToken) {
    let local = listener.local_addr().ok();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: waiting is all that helps.
                tracing::warn!(%error, ?port, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let telling = telling.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = answer(&request, port, local, &telling);
            async move { Ok::<_, Infallible>(answer) }
        });
        tokio::spawn(async move {
            let mut builder = Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
}

fn answer<B>(
    request: &Request<B>,
    port: Port,
    local: Option<SocketAddr>,
    telling: &Telling,
) -> Response<Full<Bytes>> {
    let host = crate::http::host(request.headers(), request.uri()).unwrap_or_default();
    // A page that rebinds its own name to this machine must not read what is told here.
    if local.is_some_and(|local| local.ip().is_loopback()) && !crate::http::is_loopback(host) {
        return text(StatusCode::FORBIDDEN, "text/plain", "this Host is not served here\n".to_owned());
    }
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", String::new());
    }
    match (port, request.uri().path()) {
        (Port::Metrics, "/metrics") => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            text(StatusCode::OK, kind, telling.metrics.render())
        }
        (Port::Metrics, "/livez") => text(StatusCode::OK, "text/plain", "ok\n".to_owned()),
        (Port::Metrics, "/readyz") => match telling.ready.verdict() {
            Ok(word) => text(StatusCode::OK, "text/plain", format!("{word}\n")),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{why}\n")),
        },
        (Port::Admin, "/config_dump") => {
            let dump = serde_json::to_string_pretty(&redacted(&telling.snapshots.load())).unwrap_or_default();
            text(StatusCode::OK, "application/json", dump)
        }
        _ => text(StatusCode::NOT_FOUND, "text/plain", "not found\n".to_owned()),
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The snapshots with every Secret's values and every key's hash taken out.
fn redacted(snapshots: &[Snapshot]) -> serde_json::Value {
    let mut dump = serde_json::to_value(snapshots).unwrap_or_default();
    let resources =
        dump.as_array_mut().into_iter().flatten().filter_map(|one| one.get_mut("resources")?.as_array_mut());
    for resource in resources.flatten() {
        let kind = resource.get("type").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        let Some(body) = resource.get_mut("body") else { continue };
        if kind == ResourceKind::Secret.to_string() {
            let values = body.get_mut("data").and_then(serde_json::Value::as_object_mut);
            values
                .into_iter()
                .flat_map(|data| data.values_mut())
                .for_each(|value| *value = "[redacted]".into());
        } else if kind == ResourceKind::ApiKey.to_string()
            && let Some(hash) = body.get_mut("sha256")
        {
            *hash = "[redacted]".into();
        } else if let Some(url) = body.pointer_mut("/endpoint/remote/url") {
            *url = shown(url.as_str().unwrap_or_default()).into();
        }
    }
    dump
}

/// A URL without what may be a credential: its user, its query.
fn shown(url: &str) -> String {
    let Ok(mut url) = url::Url::parse(url) else { return "[not a URL]".to_owned() };
    if url.query().is_some() {
        url.set_query(Some("[redacted]"));
    }
    // A URL that cannot have a user has none.
    let _ = (url.set_username(""), url.set_password(None));
    url.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mcpmesh_ir::{ApiKey, GatewayId, Resource, Secret, SecretId};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_asks_nothing_holds_no_connection_for_ever() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let telling = Telling {
            metrics: Shared::default(),
            ready: Arc::default(),
            snapshots: Arc::new(ArcSwap::from_pointee(Vec::new())),
        };
        tokio::spawn(serve(listener, Port::Metrics, telling, CancellationToken::new()));
        for begun in [&b""[..], b"GET /livez HT"] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(begun).await.unwrap();
            let ended = tokio::time::timeout(HEAD_TIME * 10, client.read_to_end(&mut Vec::new())).await;
            assert!(ended.is_ok(), "{begun:?}");
        }
    }

    #[test]
    fn a_dump_shows_no_secret_and_no_hash() {
        let secret = Secret { data: BTreeMap::from([("token".to_owned(), "canary-1".to_owned())]) };
        let key = ApiKey {
            secret: SecretId::new("a", "k"),
            sha256: "canary-2".to_owned(),
            owner: "alice".to_owned(),
            groups: vec![],
            expires: None,
        };
        let resources = vec![Resource::new("a/s", &secret).unwrap(), Resource::new("a/k", &key).unwrap()];
        let dump = redacted(&[Snapshot::new(GatewayId::new("a", "gw"), resources)]).to_string();
        assert!(!dump.contains("canary"));
        assert!(dump.contains("alice"));
    }
}
