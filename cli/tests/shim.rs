//! Nothing that a server started outlives us: not after a `kill -9`, not when it left its process group.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const MCPMESH: &str = env!("CARGO_BIN_EXE_mcpmesh");

/// Generous: what is waited for takes a few seconds on an idle machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn wait_for<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A zombie has ended: only its parent has not looked.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

fn pids(file: &Path, count: usize) -> Vec<String> {
    wait_for("the start of all processes", || {
        let text = fs::read_to_string(file).unwrap_or_default();
        let pids: Vec<_> = text.lines().map(str::to_owned).collect();
        (pids.len() == count).then_some(pids)
    })
}

#[test]
fn after_a_kill_9_of_the_parent_no_process_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let pids_file = folder.path().join("pids");
    // A server that heeds neither its stdin nor SIGTERM, with one grandchild in its group and one in its own session.
    let server =
        "trap '' TERM; sleep 1000 & echo $! >>pids; setsid sleep 1001 & echo $! >>pids; echo $$ >>pids; wait";
    // The parent holds the other end of the shim's stdin, as `mcpmesh up` does.
    let parent =
        format!("mkfifo in; {MCPMESH} __shim -- sh -c \"$SERVER\" <in & echo $! >>pids; exec 3>in; wait");
    let mut parent = Command::new("sh")
        .args(["-c", &parent])
        .env("SERVER", server)
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pids = pids(&pids_file, 4);
    assert!(pids.iter().all(|pid| runs(pid)));
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_for("the end of all processes", || (!pids.iter().any(|pid| runs(pid))).then_some(()));
}

#[test]
fn a_server_that_heeds_its_stdin_ends_by_itself() {
    let mut shim = Command::new(MCPMESH)
        .args(["__shim", "--", "sh", "-c", "cat; echo bye; exit 7"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    shim.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let output = shim.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\nbye\n");
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn a_server_that_closes_its_stdin_and_runs_on_is_ended_though_ours_stays_open() {
    let mut shim = Command::new(MCPMESH)
        .args(["__shim", "--", "sh", "-c", "exec <&-; echo closed; exec sleep 1000"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = shim.stdin.take().unwrap();
    let mut said = [0; 7];
    shim.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"closed\n");
    stdin.write_all(b"{}\n").unwrap();
    let status = wait_for("the end of the server", || shim.try_wait().unwrap());
    assert_eq!(status.code(), Some(128 + 15), "by SIGTERM");
    let mut complaint = String::new();
    shim.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
    assert!(complaint.contains("closed its standard input"), "{complaint}");
}

#[test]
fn what_a_server_leaves_behind_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut shim = Command::new(MCPMESH)
        .args(["__shim", "--", "sh", "-c", "setsid sleep 1000 & echo $! >pids"])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let stdin = shim.stdin.take();
    let pid = pids(&folder.path().join("pids"), 1).remove(0);
    assert_eq!(shim.wait().unwrap().code(), Some(0));
    assert!(!runs(&pid));
    drop(stdin);
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let output = Command::new(MCPMESH).args(["__shim", "--", "/no/such/program"]).output().unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/program"));
}
