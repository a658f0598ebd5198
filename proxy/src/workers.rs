//! The threads that serve connections. Each connection stays on one of them, with all that its requests do, upstream
//! connections included ([`crate::upstream`] keeps a pool for each thread): nobody wakes another thread for a call.

use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

/// Bytes from outside that are read where they came, in less than a millisecond.
const SHORT: usize = 128 << 10;
/// A worker's clock ticks this often: sooner than any timer of a request. For a timer that is due before all others tokio
/// wakes the thread by a system call, even where it is that thread which sets it.
const TICK: Duration = Duration::from_secs(5);
/// Threads that read what is long, in the whole process.
const LONG_READERS: usize = 2;
/// How far they stand back for the workers (`nice`): theirs are the processors that those leave.
const STAND_BACK: i32 = 10;

/// Never driven: only its threads for what blocks are used. Nobody else may use them, for a thread that once stood back
/// cannot come forward again.
static READERS: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    let stand_back = || {
        // Refused, they read all the same.
        let _ = rustix::process::nice(STAND_BACK);
    };
    Builder::new_current_thread()
        .thread_name("long-reader")
        .max_blocking_threads(LONG_READERS)
        .on_thread_start(stand_back)
        .build()
});

/// Reads so many bytes; many of them on a thread apart: the other connections of this one do not wait for it.
pub async fn read<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if bytes <= SHORT {
        return work();
    }
    let Ok(readers) = READERS.as_ref() else { return work() };
    // Nobody waits for it any more: it does not begin.
    match AbortOnDropHandle::new(readers.spawn_blocking(work)).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The process ends, and with it whoever waits.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Gives way between the pieces of what is long: to the other connections of this thread, and to the other threads of
/// this processor, which would else wait until a slice of its time is over.
pub async fn give_way() {
    std::thread::yield_now();
    tokio::task::yield_now().await;
}

/// Where connections are served. Clones are the same threads; they end with the last.
#[derive(Clone, Default)]
pub struct Workers(Option<Arc<Threads>>);

struct Threads {
    all: Vec<Worker>,
    _end: DropGuard,
}

struct Worker {
    runtime: Handle,
    /// Connections that it has.
    open: Arc<AtomicUsize>,
}

impl Workers {
    /// Those of the runtime that accepts: for tests, whose clock they share.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// One for each processor that the process may use.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn for_processors() -> io::Result<Self> {
        Self::start(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
    }

    /// So many.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(count: NonZeroUsize) -> io::Result<Self> {
        let end = CancellationToken::new();
        let start = |number| Worker::start(number, end.clone());
        let all = (0..count.get()).map(start).collect::<io::Result<_>>()?;
        Ok(Self(Some(Arc::new(Threads { all, _end: end.drop_guard() }))))
    }

    /// Serves a connection on the thread that has fewest.
    ///
    /// # Errors
    /// When it cannot be moved there.
    pub fn serve<F>(
        &self,
        stream: TcpStream,
        work: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let least = self
            .0
            .as_ref()
            .and_then(|threads| threads.all.iter().min_by_key(|worker| worker.open.load(Ordering::Relaxed)));
        let Some(worker) = least else {
            tokio::spawn(work(stream));
            return Ok(());
        };
        let (stream, open) = (stream.into_std()?, Open::one_of(&worker.open));
        worker.runtime.spawn(async move {
            let _open = open;
            match TcpStream::from_std(stream) {
                Ok(stream) => work(stream).await,
                Err(error) => tracing::warn!(%error, "cannot serve a connection"),
            }
        });
        Ok(())
    }
}

impl Worker {
    fn start(number: usize, end: CancellationToken) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || runtime.block_on(end.run_until_cancelled(tick())))?;
        Ok(Self { runtime: handle, open: Arc::default() })
    }
}

async fn tick() {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
    }
}

/// A connection, as long as it is open.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn one_of(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::thread::ThreadId;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    /// Both ends of a connection.
    async fn connection(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn connections_are_shared_out_evenly_and_stay_where_they_are() {
        let workers = Workers::start(NonZeroUsize::new(3).unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut clients = Vec::new();
        for _ in 0..9 {
            let (client, server) = connection(&listener).await;
            let tell = tell.clone();
            let work = |mut stream: TcpStream| async move {
                tell.send((std::thread::current().id(), false)).unwrap();
                // Until the client goes.
                stream.read_to_end(&mut Vec::new()).await.unwrap();
                tell.send((std::thread::current().id(), true)).unwrap();
            };
            workers.serve(server, work).unwrap();
            clients.push(client);
        }
        let mut seen: HashMap<(ThreadId, bool), usize> = HashMap::new();
        for _ in 0..9 {
            *seen.entry(told.recv().await.unwrap()).or_default() += 1;
        }
        assert_eq!(seen.values().copied().collect::<Vec<_>>(), [3, 3, 3], "{seen:?}");
        drop(clients);
        for _ in 0..9 {
            *seen.entry(told.recv().await.unwrap()).or_default() += 1;
        }
        assert!(seen.len() == 6 && seen.values().all(|count| *count == 3), "they moved: {seen:?}");
    }

    #[tokio::test]
    async fn what_is_long_is_read_apart() {
        let here = std::thread::current().id();
        assert_eq!(read(SHORT, || std::thread::current().id()).await, here);
        assert_ne!(read(SHORT + 1, || std::thread::current().id()).await, here);
    }

    #[tokio::test]
    #[should_panic = "of the work"]
    async fn a_panic_of_long_work_is_its_callers() {
        read(SHORT + 1, || panic!("a panic of the work")).await;
    }

    #[tokio::test]
    async fn without_threads_a_connection_is_served_where_it_was_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (_client, server) = connection(&listener).await;
        let (tell, mut told) = mpsc::unbounded_channel();
        let work = |_| async move { tell.send(std::thread::current().id()).unwrap() };
        Workers::none().serve(server, work).unwrap();
        assert_eq!(told.recv().await, Some(std::thread::current().id()));
    }
}
