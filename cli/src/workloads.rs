//! The processes of a folder's servers, started when the proxy asks and replaced when their objects change.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mcpmesh_compiler::workload::{Environment, Workload};
use mcpmesh_compiler::{Compiled, Inputs};
use mcpmesh_ir::ServerId;
use mcpmesh_proxy::upstream::{ConnectError, Connected, Connector};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::launch;
use crate::process::{self, Guard};

/// What runs, by server. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Workloads {
    entries: Arc<Mutex<BTreeMap<ServerId, Arc<Entry>>>>,
    children: TaskTracker,
}

/// One server's workload as it is now. Another version of it is another entry.
struct Entry {
    workload: Workload,
    environment: Environment,
    /// Ends what was started for this version.
    stop: CancellationToken,
    /// A container that speaks HTTP is kept between connections: it may take long to come up.
    http: Mutex<Option<Http>>,
}

struct Http {
    url: Url,
    _guard: Guard,
    _stdin: tokio::process::ChildStdin,
    ended: CancellationToken,
}

/// The old versions of what has changed. They end when this is dropped, which is after the new ones are in force.
pub(crate) struct Replaced(Vec<Arc<Entry>>);

impl Drop for Replaced {
    fn drop(&mut self) {
        self.0.iter().for_each(|entry| entry.stop.cancel());
    }
}

impl Workloads {
    /// From now on, connections go to these.
    pub(crate) fn set(&self, compiled: &Compiled, inputs: &Inputs) -> Replaced {
        let mut entries = self.entries.lock();
        let mut next = BTreeMap::new();
        for (server, workload) in &compiled.workloads {
            let environment = workload.environment(&inputs.secrets);
            let same = entries
                .get(server)
                .filter(|entry| entry.workload == *workload && entry.environment == environment);
            let entry = same.cloned().unwrap_or_else(|| Entry::new(workload.clone(), environment));
            next.insert(server.clone(), entry);
        }
        let kept =
            |server: &ServerId, old: &Arc<Entry>| next.get(server).is_some_and(|new| Arc::ptr_eq(new, old));
        let replaced =
            entries.iter().filter(|(server, old)| !kept(server, old)).map(|(_, old)| old.clone()).collect();
        *entries = next;
        Replaced(replaced)
    }

    /// Ends everything and waits until nothing is left.
    pub(crate) async fn end(&self) {
        drop(Replaced(std::mem::take(&mut *self.entries.lock()).into_values().collect()));
        self.children.close();
        self.children.wait().await;
    }
}

impl Connector for Workloads {
    fn connect(&self, server: &ServerId) -> BoxFuture<'static, Result<Connected, ConnectError>> {
        let entry = self.entries.lock().get(server).cloned();
        let children = self.children.clone();
        let server = server.clone();
        async move {
            let entry = entry.ok_or_else(|| ConnectError(format!("nothing runs for {server}")))?;
            entry.connect(&server, &children).await.map_err(ConnectError)
        }
        .boxed()
    }
}

impl Entry {
    fn new(workload: Workload, environment: Environment) -> Arc<Self> {
        Arc::new(Self { workload, environment, stop: CancellationToken::new(), http: Mutex::new(None) })
    }

    async fn connect(&self, server: &ServerId, children: &TaskTracker) -> Result<Connected, String> {
        if let Some(url) = self.running() {
            return Ok(Connected::Http { url, guard: Box::new(()) });
        }
        let launched = launch::prepare(&self.workload, self.environment.clone())
            .await
            .map_err(|error| error.to_string())?;
        let program = launched.plan.argv.first().map(|word| word.to_string_lossy().into_owned());
        let running = process::start(server, &launched.plan, children, self.stop.clone())
            .map_err(|error| format!("cannot start {}: {error}", program.unwrap_or_default()))?;
        let process::Running { stdin, stdout, guard } = running;
        let Some(url) = launched.url else {
            return Ok(Connected::Stdio {
                stdin: Box::new(stdin),
                stdout: Box::new(stdout),
                guard: Box::new(guard),
            });
        };
        let ended = CancellationToken::new();
        let over = ended.clone();
        let output = process::log(server.clone(), stdout);
        children.spawn(async move {
            output.await;
            over.cancel();
        });
        *self.http.lock() = Some(Http { url: url.clone(), _guard: guard, _stdin: stdin, ended });
        Ok(Connected::Http { url, guard: Box::new(()) })
    }

    fn running(&self) -> Option<Url> {
        let mut http = self.http.lock();
        if http.as_ref().is_some_and(|http| http.ended.is_cancelled()) {
            *http = None;
        }
        http.as_ref().map(|http| http.url.clone())
    }
}
