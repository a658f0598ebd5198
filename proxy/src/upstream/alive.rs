//! Whether a session over HTTP is alive after a call in it ended without an answer. There are servers (PyPI mcp 1.9 among
//! them) whose session dies of a cancelled call: it is still known, and whatever is asked in it ends without an answer. A
//! session that others share shall not die for them with one client's cancel, so it is tried with a `ping` (2025-03-26,
//! basic/utilities/ping), and is lost when that is not answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::StatusCode;

use super::error::{Error, Kind};
use super::http::{HttpLine, Whole};
use super::wire::{self, MetaParts};
use crate::mcp::envelope::Method;
use crate::mcp::era::Era;

/// Ids of pings go down from the largest that every client reads right: those of calls go up from the least.
const LAST_ID: u64 = (1 << 53) - 1;

impl HttpLine {
    /// Tells the server that a call is given up, then sees to it that the session still answers. In the background, unless
    /// too much is there.
    pub(crate) fn give_up(self: &Arc<Self>, id: u64) {
        let line = Arc::clone(self);
        self.aside(async move {
            // Known to a server or not: it is asked.
            let _ = line.say(wire::cancelled(id)).await;
            if line.session.is_some() && !line.is_alive().await {
                line.lost.cancel();
                // Whatever it still is there.
                let _ = line.delete().await;
            }
        });
    }

    /// Not where it is known that it is not: a server that is slow or away for a moment may keep the session.
    async fn is_alive(&self) -> bool {
        match tokio::time::timeout(self.http.timeouts.connect, self.ping()).await {
            Ok(Ok(Whole::Refused(refused))) => refused.status != StatusCode::NOT_FOUND,
            Ok(Err(error)) => error.kind != Kind::Reset,
            Ok(Ok(Whole::Message(..) | Whole::Other)) | Err(_) => true,
        }
    }

    async fn ping(&self) -> Result<Whole, Error> {
        let id = LAST_ID - self.pings.fetch_add(1, Ordering::Relaxed);
        let body: Bytes = wire::request(id, &Method::Ping, b"", &MetaParts::default(), Era::Legacy);
        self.http.post(self.headers(None), body).await?.whole(id, self.http.max_bytes).await
    }
}
