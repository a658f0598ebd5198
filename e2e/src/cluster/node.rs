//! A place on a node: what runs there sees the network as the node does, even while the node is cut off from all others.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use rustix::fd::AsFd as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::{Builder, Runtime};

use super::Cluster;

/// One thread in a node's network. Dropping it ends what runs there.
#[derive(Debug)]
pub struct Place {
    runtime: Option<Runtime>,
    failed: Arc<Mutex<Option<anyhow::Error>>>,
}

impl Cluster {
    /// A place on a tier 3 node.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn place(&self, node: u8) -> anyhow::Result<Place> {
        let path = self.script()?.network_of(node);
        let failed = Arc::<Mutex<Option<anyhow::Error>>>::default();
        let note = Arc::clone(&failed);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .on_thread_start(move || {
                if let Err(error) = enter(&path) {
                    note.lock().unwrap_or_else(PoisonError::into_inner).replace(error);
                }
            })
            .build()?;
        Ok(Place { runtime: Some(runtime), failed })
    }
}

fn enter(path: &Path) -> anyhow::Result<()> {
    let network = File::open(path).with_context(|| path.display().to_string())?;
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
        .context("entering the node's network")
}

impl Place {
    /// Runs something there. What it spawns goes on there.
    ///
    /// # Errors
    /// With its own, or when the network cannot be entered.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = anyhow::Result<T>> + Send + 'static,
    ) -> anyhow::Result<T> {
        let done = self.runtime.as_ref().context("it has ended")?.spawn(work).await?;
        if let Some(error) = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bail!(error);
        }
        done
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Tests run in a runtime, which must not wait for another.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
