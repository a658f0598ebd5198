//! An HTTP client for each thread that asks: its connections are served by the thread whose calls they carry, so a call
//! wakes nobody ([`crate::workers`]).

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::Connect;
use hyper_util::client::legacy::{Builder, Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use thread_local::ThreadLocal;

/// Connections without a call are kept this long.
const IDLE: Duration = Duration::from_secs(60);
/// Bytes that an answer's head may have, and that are read ahead of a client which takes its time.
const AHEAD: usize = 48 << 10;

/// See the module.
pub(super) struct Clients<C: Send> {
    builder: Builder,
    connector: C,
    each: ThreadLocal<Client<C, Full<Bytes>>>,
}

impl<C: Connect + Clone + Send + Sync + 'static> Clients<C> {
    /// That connect so; `adjust` sets what is not the same for all.
    pub(super) fn new(connector: C, adjust: impl FnOnce(&mut Builder)) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .http1_max_buf_size(AHEAD);
        adjust(&mut builder);
        Self { builder, connector, each: ThreadLocal::new() }
    }

    /// Sends a request over a connection of this thread.
    pub(super) async fn request(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        let client = self.each.get_or(|| self.builder.build(self.connector.clone()));
        client.request(request).await
    }
}
