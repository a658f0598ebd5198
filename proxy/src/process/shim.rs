//! The process between us and a server that we run: it leads the server's process group and ends it with us, when the pipe that is
//! its stdin closes for whatever reason (a `kill -9` of us included), or with a server that closed its own stdin and runs on: the
//! server's stdin is closed, then the group gets SIGTERM, then SIGKILL. On Linux the shim also adopts orphaned grandchildren, so
//! that one that left the group is ended as well. Plain threads: no runtime, a few pages of memory.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

mod descendants;

/// The first argument that makes our binary a shim.
pub const SUBCOMMAND: &str = "__shim";
/// `--container ENGINE NAME`: a container that is removed at the end, since it is no descendant of ours.
pub const CONTAINER: &str = "--container";

/// How long a server may take to end by itself once its stdin is closed, and again after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);
/// Exit code when the program cannot be started, as shells have it.
const NOT_STARTED: u8 = 127;

enum Event {
    /// The server ended with this code.
    Exited(u8),
    /// No child is left, adopted ones included.
    Alone,
    /// Whoever started us is gone or wants us to end.
    Ending,
    /// The server took no more of its stdin: it is ending, or cannot be asked anything any more.
    Deaf,
}

struct Plan {
    argv: Vec<OsString>,
    container: Option<(OsString, OsString)>,
}

impl Plan {
    fn parse(mut args: impl Iterator<Item = OsString>) -> Option<Self> {
        let mut container = None;
        loop {
            let word = args.next()?;
            if word == "--" {
                break;
            }
            if word != CONTAINER {
                return None;
            }
            container = Some((args.next()?, args.next()?));
        }
        let argv: Vec<_> = args.collect();
        (!argv.is_empty()).then_some(Self { argv, container })
    }
}

/// Runs the program after `--` and returns its exit code, once nothing that it started is left.
pub fn run(args: impl Iterator<Item = OsString>) -> u8 {
    let Some(plan) = Plan::parse(args) else {
        complain(format_args!("{SUBCOMMAND} is internal: it runs a server under our own binary"));
        return 2;
    };
    match supervise(&plan) {
        Ok(code) => code,
        Err(error) => {
            let program = plan.argv.first().map(|word| word.to_string_lossy()).unwrap_or_default();
            complain(format_args!("{program}: {error}"));
            NOT_STARTED
        }
    }
}

/// On stderr, which is the server's own: whoever started us logs it under the server's name.
fn complain(what: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = writeln!(io::stderr(), "{what}");
}

fn supervise(plan: &Plan) -> io::Result<u8> {
    let (events, inbox) = mpsc::channel();
    // Registered before the child exists: the handlers are not inherited across exec.
    let mut signals = signal_hook::iterator::Signals::new([
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGHUP,
    ])?;
    descendants::adopt_orphans();
    let (program, args) = plan.argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut child = Command::new(program).args(args).stdin(Stdio::piped()).spawn()?;
    let pid = Pid::from_child(&child);
    let from_us = io::stdin().as_fd().try_clone_to_owned()?;
    if let Some(to_child) = child.stdin.take() {
        forward(from_us.try_clone()?, to_child, events.clone());
    }
    hang_up(from_us, events.clone());
    let asked = events.clone();
    thread::spawn(move || signals.forever().try_for_each(|_| asked.send(Event::Ending)));
    reap(pid, events);
    let code = wait_and_end(&inbox);
    if let Some((engine, name)) = &plan.container {
        remove_container(engine, name);
    }
    Ok(code)
}

/// Copies our stdin to the server's, and closes the server's with ours. The end of ours is what `hang_up` tells.
fn forward(from_us: OwnedFd, mut to_child: ChildStdin, events: Sender<Event>) {
    thread::spawn(move || {
        io::copy(&mut File::from(from_us), &mut to_child).or_else(|_| events.send(Event::Deaf).map(|()| 0))
    });
}

/// Notices that the other end of our stdin is gone even while `forward` is stuck on a server that does not read.
fn hang_up(from_us: OwnedFd, events: Sender<Event>) {
    thread::spawn(move || {
        loop {
            let mut fds = [PollFd::new(&from_us, PollFlags::empty())];
            match rustix::event::poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => {}
                _ => break,
            }
        }
        events.send(Event::Ending)
    });
}

/// Waits for every child, so that adopted ones leave no zombies.
fn reap(child: Pid, events: Sender<Event>) {
    thread::spawn(move || {
        loop {
            match rustix::process::wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) if pid == child => events.send(Event::Exited(exit_code(status))).ok(),
                Ok(_) | Err(rustix::io::Errno::INTR) => Some(()),
                Err(_) => break,
            };
        }
        events.send(Event::Alone)
    });
}

fn exit_code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn wait_and_end(inbox: &Receiver<Event>) -> u8 {
    let mut code = None;
    let mut deaf = false;
    // Until the server ends by itself or is to end.
    match inbox.recv() {
        Ok(Event::Exited(own)) => code = Some(own),
        Ok(Event::Deaf) => deaf = true,
        Ok(Event::Alone | Event::Ending) | Err(_) => {}
    }
    // It has seen the end of its stdin: most servers go now. One that was ending anyway has said why.
    if code.is_none() && alone_within(inbox, GRACE, &mut code) {
        return code.unwrap_or(0);
    }
    if deaf && code.is_none() {
        complain(format_args!("it closed its standard input and runs on, so it is ended"));
    }
    descendants::signal(Signal::TERM);
    if alone_within(inbox, GRACE, &mut code) {
        return code.unwrap_or(0);
    }
    // Repeated, since a process may have forked between our look and our signal.
    for _ in 0..20 {
        descendants::signal(Signal::KILL);
        if alone_within(inbox, Duration::from_millis(50), &mut code) {
            break;
        }
    }
    code.unwrap_or(137)
}

fn alone_within(inbox: &Receiver<Event>, time: Duration, code: &mut Option<u8>) -> bool {
    let deadline = Instant::now() + time;
    loop {
        match inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Alone) => return true,
            Ok(Event::Exited(own)) => *code = Some(own),
            Ok(Event::Ending | Event::Deaf) => {}
            Err(_) => return false,
        }
    }
}

fn remove_container(engine: &OsString, name: &OsString) {
    // It is gone already when it heeded its stdin or SIGTERM; then this says so and nobody needs to hear it.
    let mut remove = Command::new(engine);
    remove.args(["rm", "--force"]).arg(name);
    remove.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _ = remove.status();
}
