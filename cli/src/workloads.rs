//! The processes of a folder's servers, started when the proxy asks and replaced when their objects change.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mcpmesh_compiler::workload::{Environment, Workload};
use mcpmesh_compiler::{Compiled, Inputs};
use mcpmesh_ir::ServerId;
use mcpmesh_proxy::process::{Children, Guard, Running};
use mcpmesh_proxy::upstream::{ConnectError, Connected, Connector};
use parking_lot::Mutex;
use tokio::process::ChildStdin;
use tokio::task::JoinHandle;
use url::Url;

use crate::launch::{self, Launched};

/// What runs, by server. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Workloads {
    entries: Arc<Mutex<BTreeMap<ServerId, Arc<Entry>>>>,
    children: Children,
}

/// One server's workload as it is now. Another version of it is another entry.
struct Entry {
    workload: Workload,
    environment: Environment,
    /// A container that speaks HTTP is kept between connections: it may take long to come up.
    http: Mutex<Option<Arc<Http>>>,
}

/// A container that speaks HTTP. It ends when neither its entry nor a connection holds it.
struct Http {
    url: Url,
    /// Ends with the container.
    output: JoinHandle<()>,
    _guard: Guard,
    _stdin: ChildStdin,
}

impl Workloads {
    /// From now on, connections go to these. What a change replaces runs until the proxy lets go of it, which is when
    /// the last request to it has its answer.
    pub(crate) fn set(&self, compiled: &Compiled, inputs: &Inputs) {
        let mut entries = self.entries.lock();
        let mut next = BTreeMap::new();
        for (server, workload) in &compiled.workloads {
            let environment = workload.environment(&inputs.of(&server.namespace).secrets);
            let same = entries
                .get(server)
                .filter(|entry| entry.workload == **workload && entry.environment == environment);
            let new = || {
                Arc::new(Entry {
                    workload: Workload::clone(workload),
                    environment: environment.clone(),
                    http: Mutex::default(),
                })
            };
            next.insert(server.clone(), same.cloned().unwrap_or_else(new));
        }
        *entries = next;
    }

    /// Ends everything and waits until nothing is left.
    pub(crate) async fn end(&self) {
        self.entries.lock().clear();
        self.children.end().await;
    }

    /// As [`Children::forget_words`].
    pub(crate) fn forget_words(&self, server: &ServerId) {
        self.children.forget_words(server);
    }

    /// As [`Children::last_words`].
    pub(crate) fn last_words(&self, server: &ServerId) -> Option<String> {
        self.children.last_words(server)
    }
}

impl Connector for Workloads {
    fn connect(&self, server: &ServerId) -> BoxFuture<'static, Result<Connected, ConnectError>> {
        let entry = self.entries.lock().get(server).cloned();
        let (workloads, server) = (self.clone(), server.clone());
        async move {
            let entry = entry.ok_or_else(|| ConnectError(format!("nothing runs for {server}")))?;
            workloads.reach(&entry, &server).await.map_err(ConnectError)
        }
        .boxed()
    }
}

impl Workloads {
    async fn reach(&self, entry: &Entry, server: &ServerId) -> Result<Connected, String> {
        if let Some(http) = entry.running() {
            return Ok(Connected::Http { url: http.url.clone(), guard: Box::new(http) });
        }
        let launched = launch::prepare(&entry.workload, entry.environment.clone());
        let Launched { plan, url } = launched.await.map_err(|error| error.to_string())?;
        let Running { stdin, stdout, guard, ended } =
            self.children.start(server, &plan).map_err(|error| {
                let program = plan.argv.first().map(|word| word.to_string_lossy().into_owned());
                format!("cannot start {}: {error}", program.unwrap_or_default())
            })?;
        let Some(url) = url else {
            let (stdin, stdout) = (Box::new(stdin), Box::new(stdout));
            return Ok(Connected::Stdio { stdin, stdout, guard: Box::new(guard), ended });
        };
        let output = self.children.log(server, stdout);
        let http = Arc::new(Http { url: url.clone(), output, _guard: guard, _stdin: stdin });
        *entry.http.lock() = Some(http.clone());
        Ok(Connected::Http { url, guard: Box::new(http) })
    }
}

impl Entry {
    fn running(&self) -> Option<Arc<Http>> {
        let mut http = self.http.lock();
        if http.as_ref().is_some_and(|http| http.output.is_finished()) {
            *http = None;
        }
        http.clone()
    }
}
