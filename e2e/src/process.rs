//! A child process as a guard: its lines can be awaited with a deadline, and dropping it ends its whole group.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{interval, timeout};

/// How long [`eventually`] tries.
const EVENTUALLY: Duration = Duration::from_secs(60);

/// Repeats an assertion until it holds, for what another process does in its own time.
///
/// # Errors
/// With the last reason when it does not hold within a minute.
pub async fn eventually<T, F: Future<Output = anyhow::Result<T>>>(
    what: &str,
    attempt: impl FnMut() -> F,
) -> anyhow::Result<T> {
    eventually_within(EVENTUALLY, what, attempt).await
}

/// Repeats an assertion until it holds, with a deadline of its own.
///
/// # Errors
/// With the last reason when it does not hold in time.
pub async fn eventually_within<T, F: Future<Output = anyhow::Result<T>>>(
    deadline: Duration,
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let mut pause = interval(Duration::from_millis(100));
    let mut last = None;
    let held = timeout(deadline, async {
        loop {
            pause.tick().await;
            match attempt().await {
                Ok(value) => return value,
                Err(error) => last = Some(error),
            }
        }
    })
    .await;
    held.map_err(|_| {
        last.unwrap_or_else(|| anyhow!("no attempt ended"))
            .context(format!("not so within {deadline:?}: {what}"))
    })
}

/// A running child, the leader of a process group of its own.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    group: Option<Pid>,
    stdout: Lines,
    stderr: Lines,
}

impl Process {
    /// Starts `command` with no input; everything that it writes is kept.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: impl Into<String>, command: &mut Command) -> anyhow::Result<Self> {
        let name = name.into();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}: {:?}", command.as_std().get_program()))?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let stdout = Lines::collect(child.stdout.take().context("no stdout")?);
        let stderr = Lines::collect(child.stderr.take().context("no stderr")?);
        Ok(Self { name, child, group, stdout, stderr })
    }

    /// Waits until `pick` finds what it looks for in a line of stdout, the earlier ones included.
    ///
    /// # Errors
    /// When the deadline passes or the output ends first; the message holds what the process wrote.
    pub async fn wait_for_line<T>(
        &self,
        deadline: Duration,
        pick: impl Fn(&str) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut lines = self.stdout.0.clone();
        let found = timeout(deadline, async {
            loop {
                let seen = lines.borrow_and_update().clone();
                if let Some(found) = seen.iter().find_map(|line| pick(line)) {
                    return Some(found);
                }
                if lines.changed().await.is_err() {
                    return lines.borrow().iter().find_map(|line| pick(line));
                }
            }
        })
        .await;
        match found {
            Ok(Some(found)) => Ok(found),
            Ok(None) => bail!("{} ended its output without the line\n{}", self.name, self.output()),
            Err(_) => bail!("{} did not write the line within {deadline:?}\n{}", self.name, self.output()),
        }
    }

    /// Everything written so far, for messages of failed tests.
    #[must_use]
    pub fn output(&self) -> String {
        format!("--- stdout\n{}\n--- stderr\n{}", self.stdout.text(), self.stderr.text())
    }

    /// Everything written to stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Everything written to stdout so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// The process id, while it has not been waited for.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends a signal to the process alone (not to its group).
    ///
    /// # Errors
    /// When it has ended already.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.child.id().context("it has ended")?;
        let pid = Pid::from_raw(i32::try_from(id)?).context("no such process id")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When the deadline passes first.
    pub async fn exited(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        match timeout(deadline, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("{} still runs after {deadline:?}\n{}", self.name, self.output()),
        }
    }

    /// Asks it to end (SIGTERM) and waits.
    ///
    /// # Errors
    /// When it has ended already or does not end within the deadline.
    pub async fn terminate(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.exited(deadline).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Also after the leader's own end: its children may live on in the group.
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The lines of one output stream as far as they came; the sender is gone when the stream has ended.
#[derive(Debug)]
struct Lines(watch::Receiver<Arc<Vec<String>>>);

impl Lines {
    fn collect(stream: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let (sender, receiver) = watch::channel(Arc::default());
        tokio::spawn(async move {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                sender.send_modify(|lines: &mut Arc<Vec<String>>| Arc::make_mut(lines).push(text));
                line.clear();
            }
        });
        Self(receiver)
    }

    fn text(&self) -> String {
        self.0.borrow().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Pid, test_kill_process};
    use tokio::process::Command;

    use super::Process;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Process {
        Process::start("sh", Command::new("sh").args(["-c", script])).expect("sh starts")
    }

    #[tokio::test]
    async fn lines_are_found_whenever_they_came() {
        let process = shell("echo one; echo port 17; sleep 60");
        let port =
            process.wait_for_line(DEADLINE, |line| line.strip_prefix("port ").map(str::to_owned)).await;
        assert_eq!(port.expect("the line comes"), "17");
        process.wait_for_line(DEADLINE, |line| (line == "one").then_some(())).await.expect("still there");
    }

    #[tokio::test]
    async fn an_early_end_is_an_error_that_holds_stderr() {
        let mut process = shell("echo broken >&2; exit 3");
        assert_eq!(process.exited(DEADLINE).await.expect("ends").code(), Some(3));
        let error = process.wait_for_line(DEADLINE, |_| None::<()>).await.expect_err("no line").to_string();
        assert!(error.contains("ended its output"), "{error}");
    }

    #[tokio::test]
    async fn dropping_ends_grandchildren_too() {
        let process = shell("sleep 600 & echo $!; wait");
        let grandchild: i32 =
            process.wait_for_line(DEADLINE, |line| line.parse().ok()).await.expect("its id is printed");
        let grandchild = Pid::from_raw(grandchild).expect("a process id");
        assert!(test_kill_process(grandchild).is_ok());
        drop(process);
        // An ended orphan may stay a zombie until init reaps it; a zombie has no command line.
        let command_line = format!("/proc/{}/cmdline", grandchild.as_raw_nonzero());
        let ended = tokio::time::timeout(DEADLINE, async {
            while std::fs::read(&command_line).is_ok_and(|words| !words.is_empty()) {
                tokio::task::yield_now().await;
            }
        });
        assert!(ended.await.is_ok());
    }
}
