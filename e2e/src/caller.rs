//! A client that calls one tool without pause while a test breaks things.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{anyhow, ensure};
use serde_json::json;

use crate::http::Client;

/// A thread that calls, with a runtime of its own: the test's may be blocked by what it breaks.
#[derive(Debug)]
pub struct Caller {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<u64>>>,
}

impl Caller {
    /// Calls `tool` at `endpoint` until the guard goes.
    ///
    /// # Errors
    /// When the endpoint is malformed.
    pub fn start(endpoint: &str, tool: &str) -> anyhow::Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let (client, tool, stopped) = (Client::new(endpoint)?, tool.to_owned(), stop.clone());
        let thread = thread::Builder::new().name("caller".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut answered = 0;
                while !stopped.load(Ordering::Relaxed) {
                    call(&client, &tool).await.map_err(|error| {
                        error.context(format!("after {answered} calls that were answered"))
                    })?;
                    answered += 1;
                }
                Ok(answered)
            })
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it, and returns how many calls were answered: all of them.
    ///
    /// # Errors
    /// When one was not.
    pub fn end(mut self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(0) };
        thread.join().map_err(|_| anyhow!("the caller panicked"))?
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One call that has to be answered by the tool itself.
///
/// # Errors
/// When it is not.
pub async fn call(client: &Client, tool: &str) -> anyhow::Result<()> {
    let reply = client.modern("tools/call", json!({"name": tool, "arguments": {}})).await?;
    let answer = reply.response()?;
    ensure!(answer["result"]["content"].is_array(), "{}: {answer}", reply.status);
    Ok(())
}
