//! `mcpmesh __engine ENGINE run ...`: becomes a container engine's client that is given some of the container's variables
//! by a file. Its own environment would steer it, and its command line is for everybody to read. The file has no name:
//! nothing is left of it, whatever ends us.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::{FdFlags, fcntl_setfd};

/// The first argument that makes our binary an engine's client.
pub(crate) const SUBCOMMAND: &str = "__engine";

/// What the file holds: one `NAME=VALUE` a line. Taken out before the engine starts.
pub(super) const VARIABLES: &str = "MCPMESH_CONTAINER_ENV";

/// Exit code when the engine cannot be started, as shells have it.
const NOT_STARTED: u8 = 127;

/// Becomes the engine; returns only when that fails.
pub(crate) fn run(words: impl Iterator<Item = OsString>) -> u8 {
    let Err(error) = become_engine(words);
    // On the server's own stderr, as the shim does: whoever started us logs it under the server's name.
    let _ = writeln!(io::stderr(), "cannot start the container engine: {error}");
    NOT_STARTED
}

fn become_engine(mut words: impl Iterator<Item = OsString>) -> io::Result<Infallible> {
    let engine = words.next().ok_or(io::ErrorKind::InvalidInput)?;
    let run = words.next().ok_or(io::ErrorKind::InvalidInput)?;
    let file = unnamed(std::env::var(VARIABLES).unwrap_or_default().as_bytes())?;
    // No other thread is there that could start a process meanwhile.
    fcntl_setfd(&file, FdFlags::empty())?;
    let mut command = Command::new(engine);
    command.arg(run).arg("--env-file").arg(format!("/dev/fd/{}", file.as_raw_fd())).args(words);
    Err(command.env_remove(VARIABLES).exec())
}

/// In memory: what a folder for temporary files holds may reach a disk.
#[cfg(target_os = "linux")]
fn nameless() -> io::Result<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    Ok(File::from(memfd_create("environment", MemfdFlags::CLOEXEC)?))
}

#[cfg(not(target_os = "linux"))]
fn nameless() -> io::Result<File> {
    tempfile::tempfile()
}

/// A file without a name, at its beginning.
fn unnamed(content: &[u8]) -> io::Result<File> {
    let mut file = nameless()?;
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}
