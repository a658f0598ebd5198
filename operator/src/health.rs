//! `/metrics`, `/readyz` and `/livez`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// For a request's head to arrive: longer than the pause between two scrapes over one connection.
const HEAD_TIME: Duration = Duration::from_secs(120);

/// What the endpoints tell.
pub(crate) struct Telling {
    /// The metrics' text, gathered anew.
    pub(crate) metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// A configuration is published and certificates can be signed. The API server's absence later changes nothing.
    pub(crate) ready: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Serves until `stop`.
pub(crate) async fn serve(listener: TcpListener, telling: Arc<Telling>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: waiting is all that helps.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let telling = telling.clone();
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let answer = answer(request.method(), request.uri().path(), &telling);
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

fn answer(method: &Method, path: &str, telling: &Telling) -> Response<Full<Bytes>> {
    let plain = "text/plain; charset=utf-8";
    match path {
        _ if method != Method::GET => text(StatusCode::METHOD_NOT_ALLOWED, plain, String::new()),
        "/metrics" => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            text(StatusCode::OK, kind, (telling.metrics)())
        }
        "/livez" => text(StatusCode::OK, plain, "ok\n".to_owned()),
        "/readyz" if (telling.ready)() => text(StatusCode::OK, plain, "ok\n".to_owned()),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, plain, "nothing is published yet\n".to_owned()),
        _ => text(StatusCode::NOT_FOUND, plain, "not found\n".to_owned()),
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_that_is_not_ready_is_alive() {
        let telling = Telling { metrics: Box::new(String::new), ready: Box::new(|| false) };
        let status = |path| answer(&Method::GET, path, &telling).status();
        assert_eq!(status("/livez"), StatusCode::OK);
        assert_eq!(status("/readyz"), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer(&Method::POST, "/livez", &telling).status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
