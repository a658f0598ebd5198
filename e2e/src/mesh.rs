//! The product as its users start it: `mcpmesh up` over a folder of manifests, on ports of the kernel's choice.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;

use crate::process::Process;
use crate::tools::Tools;

/// How long `mcpmesh up` may take until it prints its addresses (far more than it should; the machine may be busy).
const START: Duration = Duration::from_secs(60);

/// A temporary folder of manifests.
#[derive(Debug)]
pub struct Manifests(TempDir);

impl Manifests {
    /// An empty folder.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self(tempfile::Builder::new().prefix("mcpmesh-e2e-").tempdir()?))
    }

    /// Writes (or replaces) one file, by rename as editors do.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let new = self.0.path().join(format!(".{name}.new"));
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(new, self.0.path().join(name))?)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// One running `mcpmesh up`.
#[derive(Debug)]
pub struct Mesh {
    /// The process itself: its output, signals.
    pub process: Process,
    /// `http://127.0.0.1:PORT/mcp`
    pub endpoint: String,
    /// `http://127.0.0.1:PORT/metrics`
    pub metrics: String,
    // Keys and last-good files stay out of the home folder; removed with the guard.
    _state: TempDir,
}

impl Mesh {
    /// Starts `mcpmesh up FOLDER` with further arguments and waits for its addresses.
    ///
    /// # Errors
    /// When the program is not built, or does not print its addresses.
    pub async fn up(folder: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let state = tempfile::Builder::new().prefix("mcpmesh-state-").tempdir()?;
        let mut command = Tools::installed()?.command(program()?);
        command.arg("up").arg(folder);
        command.args(["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(arguments).env("XDG_STATE_HOME", state.path());
        let process = Process::start("mcpmesh up", &mut command)?;
        let endpoint = process.wait_for_line(START, |line| address(line, "endpoint")).await?;
        let metrics = process.wait_for_line(START, |line| address(line, "metrics")).await?;
        Ok(Self { process, endpoint, metrics, _state: state })
    }
}

/// The program under test: `MCPMESH_BIN`, else what this build has made.
///
/// # Errors
/// When there is none.
pub fn program() -> anyhow::Result<PathBuf> {
    let Some(path) = std::env::var_os("MCPMESH_BIN").map(PathBuf::from) else {
        return built("mcpmesh");
    };
    path.canonicalize().with_context(|| format!("MCPMESH_BIN={}", path.display()))
}

/// A program of this workspace, of the same target and profile as the one that asks.
///
/// # Errors
/// When it is not built.
pub fn built(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    // Tests lie in `deps`, programs beside it.
    let program = own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|file| file.is_file());
    program.with_context(|| format!("{name} is not built: cargo build --workspace --bins"))
}

/// The address in a line such as `endpoint  http://127.0.0.1:8080/mcp`.
fn address(line: &str, label: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    (words.next() == Some(label)).then_some(())?;
    words.next().filter(|word| word.starts_with("http")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn addresses_are_read_from_the_plain_lines() {
        let line = "endpoint  http://127.0.0.1:40001/mcp";
        assert_eq!(address(line, "endpoint").as_deref(), Some("http://127.0.0.1:40001/mcp"));
        assert_eq!(address(line, "metrics"), None);
        assert_eq!(address("endpoint: soon", "endpoint"), None);
    }
}
