//! Finds and signals what a shim's server has started.

#[cfg(target_os = "linux")]
use rustix::process::Pid;
use rustix::process::Signal;

/// From now on a process whose parent ends becomes our child instead of init's.
#[cfg(target_os = "linux")]
pub(super) fn adopt_orphans() {
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Only Linux can adopt: elsewhere the process group is all that is ended.
#[cfg(not(target_os = "linux"))]
pub(super) fn adopt_orphans() {}

/// Signals everything below this process.
#[cfg(target_os = "linux")]
pub(super) fn signal(signal: Signal) {
    for pid in below(rustix::process::getpid()) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Signals this process's group: the shim has a handler for SIGTERM, and SIGKILL is the last thing that it does.
#[cfg(not(target_os = "linux"))]
pub(super) fn signal(signal: Signal) {
    let _ = rustix::process::kill_current_process_group(signal);
}

/// All descendants, found through the parents that /proc names.
#[cfg(target_os = "linux")]
fn below(root: Pid) -> Vec<Pid> {
    let all: Vec<(Pid, Pid)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: i32| Some((Pid::from_raw(pid)?, parent(pid)?)))
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&ancestor) = found.get(next) {
        next += 1;
        found.extend(all.iter().filter(|(_, parent)| *parent == ancestor).map(|(pid, _)| *pid));
    }
    found.remove(0);
    found
}

#[cfg(target_os = "linux")]
fn parent(pid: i32) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // "PID (NAME) STATE PPID ...": the name may hold anything, so what counts starts after its last parenthesis.
    let raw = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
    Pid::from_raw(raw)
}
