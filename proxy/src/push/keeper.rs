//! Keeps the newest configuration on the disk, beside the stream: neither the next update nor a request waits for a
//! disk. What changes while one is written is written next, as a whole.

use std::sync::Arc;
use std::time::SystemTime;

use mcpmesh_ir::push::Update;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};

use super::{Causes, Settings};
use crate::proxy::Proxy;

/// What is to be on the disk.
#[derive(Clone)]
struct Wanted {
    /// The gateway's.
    uid: String,
    update: Update,
    at: SystemTime,
}

/// The task that writes.
pub(super) struct Keeper {
    wanted: watch::Sender<Option<Wanted>>,
    task: JoinHandle<()>,
}

impl Keeper {
    pub(super) fn start(settings: Arc<Settings>, proxy: Arc<Proxy>) -> Self {
        let (wanted, newest) = watch::channel(None);
        Self { wanted, task: tokio::spawn(keep(newest, settings, proxy)) }
    }

    /// Has this written, soon.
    pub(super) fn keep(&self, uid: String, update: Update) {
        self.wanted.send_replace(Some(Wanted { uid, update, at: SystemTime::now() }));
    }

    /// Once the last one is written.
    ///
    /// # Errors
    /// When the task panicked.
    pub(super) async fn end(self) -> Result<(), JoinError> {
        drop(self.wanted);
        self.task.await
    }
}

/// Until nobody wants anything written any more. Where it fails the proxy goes on without, and says so.
async fn keep(mut newest: watch::Receiver<Option<Wanted>>, settings: Arc<Settings>, proxy: Arc<Proxy>) {
    while newest.changed().await.is_ok() {
        let Some(Wanted { uid, update, at }) = newest.borrow_and_update().clone() else { continue };
        let settings = Arc::clone(&settings);
        let saved = tokio::task::spawn_blocking(move || settings.store.save(&uid, update, at)).await;
        if let Ok(Err(error)) = saved {
            tracing::error!(error = %Causes(&error), "the last good configuration is not kept");
            proxy.metrics().configuration.disk_error();
        }
    }
}
