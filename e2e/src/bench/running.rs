//! Processes under measurement: started on a port of their own, ended with their guard, watched through `/proc`.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

const START: Duration = Duration::from_secs(20);

/// A running process that listens. Dropping it ends it.
pub(super) struct Running {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    child: Child,
}

/// A port that nobody listens on at the moment.
pub(super) fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

impl Running {
    /// Starts `command`, which was told to listen on `address`; waits until it does. What it says goes to a file.
    pub(super) fn start(
        name: &'static str,
        command: &mut Command,
        address: SocketAddr,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let said = folder.join(format!("{name}.stderr"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&said)?).spawn();
        let child = child.with_context(|| format!("starting {name}: {:?}", command.get_program()))?;
        let mut running = Self { name, address, child };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = running.child.try_wait()?.is_some();
            if ended || began.elapsed() > START {
                bail!("{name} does not listen: {}", std::fs::read_to_string(&said).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(running)
    }

    /// CPU time that it has used, its children's included.
    pub(super) fn cpu(&self) -> Duration {
        let pid = self.child.id();
        let nanos = tasks(pid) + children(pid).into_iter().map(tasks).sum::<u64>();
        Duration::from_nanos(nanos)
    }

    /// Resident memory in KiB, its children's included.
    pub(super) fn rss(&self) -> u64 {
        let pid = self.child.id();
        resident(pid) + children(pid).into_iter().map(resident).sum::<u64>()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM, so that nginx ends its worker, too.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() > Duration::from_secs(3) {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Nanoseconds on a CPU of all threads that live.
fn tasks(pid: u32) -> u64 {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let of = |task: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    tasks.filter_map(of).sum()
}

fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
