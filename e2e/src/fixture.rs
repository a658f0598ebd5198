//! Starts the fixture servers that play `fixtures/catalogue.json`, each on a port of its own.

use std::path::PathBuf;
use std::time::Duration;

use crate::mesh::built;
use crate::process::Process;
use crate::tools::{Tools, crate_folder};

/// How long a fixture may take until it listens.
const START: Duration = Duration::from_secs(60);

/// Which implementation plays the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fixture {
    /// PyPI `mcp` 2.x; without the tasks extension.
    Python,
    /// crates.io `rmcp` 3.x; with the tasks extension.
    Rmcp,
}

impl Fixture {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Python, Self::Rmcp];

    /// A short name for tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "mcp 2.3.0 (PyPI)",
            Self::Rmcp => "rmcp 3 (crates.io)",
        }
    }

    /// Whether it plays the tasks extension too.
    #[must_use]
    pub fn has_tasks(self) -> bool {
        match self {
            Self::Python => false,
            Self::Rmcp => true,
        }
    }

    /// The command line; `--port 0` or `--stdio` is to be added.
    ///
    /// # Errors
    /// When the tools cannot be installed.
    pub fn command_line(self) -> anyhow::Result<Vec<PathBuf>> {
        Ok(match self {
            Self::Python => {
                vec![Tools::installed()?.python("mcp-2"), crate_folder().join("fixtures/python/server.py")]
            }
            Self::Rmcp => vec![built("fixture-rmcp")?],
        })
    }

    /// Starts it and returns the guard and its URL.
    ///
    /// # Errors
    /// When it cannot be started or does not listen in time.
    pub async fn start(self) -> anyhow::Result<(Process, String)> {
        let words = self.command_line()?;
        let mut command = Tools::installed()?.command(&words[0]);
        command.args(&words[1..]).args(["--port", "0"]);
        let process = Process::start(self.name(), &mut command)?;
        let url =
            process.wait_for_line(START, |line| line.starts_with("http").then(|| line.to_owned())).await?;
        Ok((process, url))
    }
}
