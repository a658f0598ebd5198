//! Starts a server's process under the shim, with a clean environment, and logs what it says on stderr.
//!
//! What is started is said by whoever runs our binary (`mcpmesh up`, `mcpmesh-proxy bridge -- ARGV`). Nothing that came
//! over the network gets here.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mcpmesh_ir::ServerId;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod flood;
pub mod shim;

use flood::Flood;

/// Longest line of a server's stderr that is logged whole, in bytes.
const LONGEST_LINE: u64 = 8 * 1024;

/// Variables that a process gets of ours ([`Inherited::Listed`]): what it takes to find programs, caches, proxies and
/// certificates.
const PASSED_ON: [&str; 44] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TZ",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TMPDIR",
    "TMP",
    "TEMP",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "npm_config_cache",
    "npm_config_registry",
    "npm_config_userconfig",
    "NPM_CONFIG_CACHE",
    "NPM_CONFIG_REGISTRY",
    "NPM_CONFIG_USERCONFIG",
    "UV_CACHE_DIR",
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
    "UV_TOOL_DIR",
    "PIP_INDEX_URL",
    "PIPX_HOME",
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "CONTAINER_HOST",
];

/// Names that begin so are ours and never reach a server.
const OURS: [&str; 2] = ["MCPMESH_", "POD_"];

/// What of our own environment a process gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inherited {
    /// A fixed list: on somebody's machine, our environment is that person's and not meant for servers.
    Listed,
    /// All but `MCPMESH_*` and `POD_*`: in a server's own container, the environment is what was written for it.
    AllButOurs,
}

impl Inherited {
    fn takes(self, name: &OsStr) -> bool {
        let Some(name) = name.to_str() else { return self == Self::AllButOurs };
        match self {
            Self::Listed => PASSED_ON.contains(&name),
            Self::AllButOurs => !OURS.iter().any(|prefix| name.starts_with(prefix)),
        }
    }
}

/// Variables by name. Debug output has no values: they may be secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(pub Vec<(String, String)>);

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// What to run.
#[derive(Debug)]
pub struct Plan {
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// What it gets of ours.
    pub inherited: Inherited,
    /// What it gets besides.
    pub environment: Environment,
    /// Engine and name of the container that `argv` starts.
    pub container: Option<(OsString, String)>,
}

/// A process and the two ends of it.
pub struct Running {
    /// Its standard input.
    pub stdin: ChildStdin,
    /// Its standard output.
    pub stdout: ChildStdout,
    /// Ends it, and all that it started, when dropped.
    pub guard: Guard,
    /// Resolves once it is gone, which may be a while after `guard` was dropped.
    pub ended: BoxFuture<'static, ()>,
}

/// Ends a process group when dropped.
pub struct Guard {
    _end: oneshot::Sender<()>,
}

/// All processes of ours. Cheap to clone.
#[derive(Clone, Default)]
pub struct Children {
    tasks: TaskTracker,
    stop: CancellationToken,
    words: Arc<Mutex<BTreeMap<ServerId, Words>>>,
    floods: Arc<Mutex<BTreeMap<ServerId, Flood>>>,
}

/// What the processes of a server said last.
#[derive(Default)]
struct Words {
    line: String,
    /// How the one before it ended, if it did so by itself.
    ended: Option<String>,
}

/// Whether a line can say why a process ended: not what npm and Node.js write after the reason.
fn tells(line: &str) -> bool {
    let line = line.trim();
    let after = line.starts_with("Node.js v") || line.starts_with("at ");
    !after
        && !line.contains("A complete log of this run can be found in")
        && line != "npm error"
        && line != "}"
}

impl Children {
    /// Starts a process. What it says on stderr is logged under the server's name.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, server: &ServerId, plan: &Plan) -> std::io::Result<Running> {
        let mut child = command(plan)?.spawn()?;
        let taken = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = taken else {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        };
        say_started(server, plan, child.id());
        let logged = self.log(server, stderr);
        let ((end, guard), (gone, ended)) = (oneshot::channel(), oneshot::channel());
        self.tasks.spawn(self.clone().watch(server.clone(), child, (guard, gone), logged));
        let ended = ended.map(|_| ()).boxed();
        Ok(Running { stdin, stdout, guard: Guard { _end: end }, ended })
    }

    /// Logs the lines that a server writes, under its name, and how many it left out of a flood. The task ends with the
    /// output.
    pub fn log(&self, server: &ServerId, output: impl AsyncRead + Unpin + Send + 'static) -> JoinHandle<()> {
        let (children, server) = (self.clone(), server.clone());
        self.tasks.spawn(async move {
            let mut lines = Lines::new(output);
            loop {
                let shut = children.floods.lock().get(&server).and_then(Flood::shut);
                let line = tokio::select! {
                    biased;
                    () = at(shut) => {
                        children.say_left_out(&server);
                        continue;
                    }
                    line = lines.next() => line,
                };
                match line {
                    Some(line) if line.is_empty() => {}
                    Some(line) => children.heard(&server, line),
                    None => return children.say_left_out(&server),
                }
            }
        })
    }

    fn heard(&self, server: &ServerId, line: String) {
        if self.floods.lock().entry(server.clone()).or_default().takes(Instant::now(), line.len()) {
            tracing::info!("{server}: {line}");
        }
        // The last one may say why the process ended, however many there were.
        if tells(&line) {
            self.words.lock().entry(server.clone()).or_default().line = line;
        }
    }

    fn say_left_out(&self, server: &ServerId) {
        let left_out = self.floods.lock().get_mut(server).and_then(Flood::left_out);
        if let Some(left_out) = left_out {
            tracing::warn!("{server}: {left_out}");
        }
    }

    /// How the last process of a server ended, if it did so by itself: more than the silence on its output tells.
    pub fn last_words(&self, server: &ServerId) -> Option<String> {
        self.words.lock().get(server)?.ended.clone()
    }

    /// The server is well: how an earlier process ended is no news any more.
    pub fn forget_words(&self, server: &ServerId) {
        self.words.lock().remove(server);
    }

    /// Ends all processes and waits until nothing of them is left.
    pub async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Waits for the end of a process and brings it about once its guard is gone. `gone` is dropped when it has ended.
    async fn watch(
        self,
        server: ServerId,
        mut child: Child,
        (guard, gone): (oneshot::Receiver<()>, oneshot::Sender<()>),
        logged: JoinHandle<()>,
    ) {
        let status = tokio::select! {
            status = child.wait() => status,
            _ = guard => return say_ended(&server, &terminate(child).await),
            () = self.stop.cancelled() => return say_ended(&server, &terminate(child).await),
        };
        drop(gone);
        let ended = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        tracing::warn!("{server}: its process ended: {ended}");
        // With its last line, which may still be on its way.
        let _ = logged.await;
        let mut words = self.words.lock();
        let Words { line, ended: said } = words.entry(server).or_default();
        let line = std::mem::take(line);
        *said = Some(if line.is_empty() {
            format!("its process ended: {ended}")
        } else {
            format!("{line} ({ended})")
        });
    }
}

/// Never, where there is no such moment.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Each start is on record: what was run for which server, without what its arguments and variables say.
fn say_started(server: &ServerId, plan: &Plan, pid: Option<u32>) {
    let pid = pid.unwrap_or_default();
    let said = |program: &OsStr| printable(&program.to_string_lossy());
    let what = match (&plan.container, plan.argv.split_first()) {
        // Its engine may be started through a program of ours.
        (Some((engine, name)), _) => format!("container {name} by {}", said(engine)),
        (None, Some((program, arguments))) => {
            format!("{} with {} arguments", said(program), arguments.len())
        }
        (None, None) => String::new(),
    };
    tracing::info!("{server}: started {what} as process {pid}");
}

/// One that we ended is on record, too.
fn say_ended(server: &ServerId, status: &std::io::Result<ExitStatus>) {
    match status {
        Ok(status) => tracing::info!("{server}: its process was ended: {status}"),
        Err(error) => tracing::warn!("{server}: its process was ended: {error}"),
    }
}

async fn terminate(mut child: Child) -> std::io::Result<ExitStatus> {
    // The child has not been waited for, so the pid is still its own.
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, Signal::TERM);
    }
    child.wait().await
}

fn command(plan: &Plan) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(shim::SUBCOMMAND);
    if let Some((engine, name)) = &plan.container {
        command.arg(shim::CONTAINER).arg(engine).arg(name);
    }
    command.arg("--").args(&plan.argv);
    command.env_clear();
    command.envs(std::env::vars_os().filter(|(name, _)| plan.inherited.takes(name)));
    command.envs(plan.environment.0.iter().map(|(name, value)| (name, value)));
    // A group of its own: Ctrl-C in the terminal reaches us alone, and we end the servers in order.
    command.process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// Lines of text that a stranger writes: bounded, and without anything that could forge a line or move the cursor.
struct Lines<R> {
    reader: BufReader<R>,
    /// What was read of the next one, when nobody waited for the rest.
    begun: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    fn new(reader: R) -> Self {
        Self { reader: BufReader::new(reader), begun: Vec::new() }
    }

    /// May be dropped and called again: nothing is lost.
    async fn next(&mut self) -> Option<String> {
        let room = LONGEST_LINE.saturating_sub(self.begun.len() as u64);
        let mut limited = tokio::io::AsyncReadExt::take(&mut self.reader, room);
        limited.read_until(b'\n', &mut self.begun).await.ok()?;
        let bytes = std::mem::take(&mut self.begun);
        (!bytes.is_empty()).then(|| printable(String::from_utf8_lossy(&bytes).trim_end()))
    }
}

fn printable(line: &str) -> String {
    line.chars().fold(String::with_capacity(line.len()), |mut text, character| {
        if character.is_control() && character != '\t' {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn a_server_gets_nothing_that_is_ours() {
        let takes = |inherited: Inherited, name: &str| inherited.takes(name.as_ref());
        for name in ["MCPMESH_LOG", "POD_NAME", "POD_IP"] {
            assert!(!takes(Inherited::Listed, name) && !takes(Inherited::AllButOurs, name), "{name}");
        }
        assert!(takes(Inherited::Listed, "PATH") && takes(Inherited::AllButOurs, "PATH"));
        assert!(!takes(Inherited::Listed, "AWS_TOKEN") && takes(Inherited::AllButOurs, "AWS_TOKEN"));
    }

    #[test]
    fn every_start_and_end_is_on_record_without_what_may_be_secret() {
        let log = Log::default();
        let subscriber = {
            let log = log.clone();
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish()
        };
        let plan = |container| Plan {
            argv: ["/bin/a\nb", "--token=canary", "canary"].map(OsString::from).to_vec(),
            inherited: Inherited::Listed,
            environment: Environment(vec![("TOKEN".to_owned(), "canary".to_owned())]),
            container,
        };
        let server = ServerId::new("ns", "s");
        tracing::subscriber::with_default(subscriber, || {
            say_started(&server, &plan(None), Some(7));
            say_started(&server, &plan(Some(("docker".into(), "mcpmesh-s-1".to_owned()))), Some(8));
            say_ended(&server, &Ok(std::os::unix::process::ExitStatusExt::from_raw(15)));
        });
        let text = String::from_utf8(log.0.lock().clone()).unwrap();
        let said: Vec<_> = text.lines().filter_map(|line| line.split_once("ns/s: ")).collect();
        assert_eq!(
            said.iter().map(|(_, said)| *said).collect::<Vec<_>>(),
            [
                r"started /bin/a\nb with 2 arguments as process 7",
                "started container mcpmesh-s-1 by docker as process 8",
                "its process was ended: signal: 15 (SIGTERM)",
            ]
        );
        assert!(said.iter().all(|(head, _)| head.contains("INFO")), "{text}");
    }

    #[tokio::test]
    async fn a_process_that_takes_its_time_has_ended_when_it_is_gone_not_when_it_is_told() {
        let script = "exec 3<&0; trap 'echo told' TERM; cat <&3 & echo ready; wait; wait";
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdin, mut said) = (child.stdin.take(), Lines::new(child.stdout.take().unwrap()));
        assert_eq!(said.next().await.unwrap(), "ready");
        let ((end, guard), (gone, mut ended)) = (oneshot::channel(), oneshot::channel());
        let logged = tokio::spawn(async {});
        tokio::spawn(Children::default().watch(ServerId::new("ns", "s"), child, (guard, gone), logged));
        drop(end);
        assert_eq!(said.next().await.unwrap(), "told");
        assert_eq!(ended.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        drop(stdin);
        assert!(ended.await.is_err(), "dropped");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_on_stderr_is_cut_short_and_said_to_be_so_while_it_lasts_and_at_its_end() {
        let log = Log::default();
        let subscriber = {
            let log = log.clone();
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish()
        };
        let _here = tracing::subscriber::set_default(subscriber);
        let (children, server) = (Children::default(), ServerId::new("ns", "s"));
        let (mut stderr, read) = tokio::io::duplex(1 << 16);
        let logged = children.log(&server, read);
        let text = || String::from_utf8(log.0.lock().clone()).unwrap();
        stderr.write_all("noise\n".repeat(100_000).as_bytes()).await.unwrap();
        stderr.write_all(b"begun").await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(11)).await;
        assert!(text().matches("noise").count() < 1000);
        assert_eq!(text().matches("left out").count(), 1, "while it is silent");
        stderr.write_all(b" and ended\n").await.unwrap();
        stderr.write_all("noise\n".repeat(100_000).as_bytes()).await.unwrap();
        stderr.write_all(b"out of memory\n").await.unwrap();
        drop(stderr);
        logged.await.unwrap();
        assert_eq!(text().matches("left out").count(), 2, "at its end");
        assert!(text().contains("ns/s: begun and ended"));
        assert_eq!(children.words.lock()[&server].line, "out of memory");
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn debug_output_of_an_environment_has_no_values() {
        let environment = Environment(vec![("TOKEN".to_owned(), "canary".to_owned())]);
        assert_eq!(format!("{environment:?}"), r#"{"TOKEN"}"#);
    }

    #[tokio::test]
    async fn a_line_is_bounded_and_cannot_forge_another() {
        let text = format!("one\r\n\u{1b}[2Jtwo\n{}\nlast", "x".repeat(10_000));
        let mut lines = Lines::new(text.as_bytes());
        assert_eq!(lines.next().await.as_deref(), Some("one"));
        assert_eq!(lines.next().await.as_deref(), Some("\\u{1b}[2Jtwo"));
        assert_eq!(lines.next().await.unwrap().len(), 8 * 1024);
        assert_eq!(lines.next().await.unwrap().len(), 10_000 - 8 * 1024);
        assert_eq!(lines.next().await.as_deref(), Some("last"));
        assert_eq!(lines.next().await, None);
    }
}
