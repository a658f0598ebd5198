//! Runs the real clients of `clients/` against a URL and reads their verdicts.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Map, Value};

use crate::mesh::built;
use crate::process::Process;
use crate::tools::{Tools, crate_folder};

/// How long one client may take for all its steps.
const RUN: Duration = Duration::from_secs(180);

/// One SDK's client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// PyPI mcp 2.x: opens with `server/discover`.
    Mcp2,
    /// PyPI mcp 1.x: opens with `initialize`.
    Mcp1,
    /// PyPI fastmcp 4.x: opens with `server/discover`.
    FastMcp,
    /// npm @modelcontextprotocol/sdk 1.x: opens with `initialize`.
    TypeScript1,
    /// npm @modelcontextprotocol/client 2.x: opens with `initialize` unless told otherwise.
    TypeScript2,
    /// crates.io rmcp 3.x: opens with `initialize` unless told otherwise.
    Rmcp,
}

impl Client {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Mcp2, Self::Mcp1, Self::FastMcp, Self::TypeScript1, Self::TypeScript2, Self::Rmcp];

    /// Whether it can be told to speak the era without sessions.
    #[must_use]
    pub fn speaks_modern(self) -> bool {
        !matches!(self, Self::Mcp1 | Self::TypeScript1)
    }

    fn command_line(self, tools: &Tools) -> anyhow::Result<Vec<PathBuf>> {
        let python = |environment: &str, script: &str| {
            vec![tools.python(environment), crate_folder().join("clients/python").join(script)]
        };
        let node = |script: &str| vec![tools.node(), crate_folder().join("clients/js").join(script)];
        Ok(match self {
            Self::Mcp2 => python("mcp-2", "client_mcp2.py"),
            Self::Mcp1 => python("mcp-1", "client_mcp1.py"),
            Self::FastMcp => python("fastmcp", "client_fastmcp.py"),
            Self::TypeScript1 => node("client-v1.mjs"),
            Self::TypeScript2 => node("client-v2.mjs"),
            Self::Rmcp => vec![built("client-rmcp")?],
        })
    }

    /// Runs it; `arguments` are those of `clients/README.md`. The verdicts are by step, and `protocol`.
    ///
    /// # Errors
    /// When it cannot be run or prints no verdicts. Failed steps are no error.
    pub async fn run(self, url: &str, arguments: &[&str]) -> anyhow::Result<Map<String, Value>> {
        let tools = Tools::installed()?;
        let words = self.command_line(tools)?;
        let mut command = tools.command(&words[0]);
        command.args(&words[1..]).arg(url).args(arguments);
        let mut process = Process::start(format!("{self:?}"), &mut command)?;
        let verdicts =
            process.wait_for_line(RUN, |line| line.starts_with('{').then(|| line.to_owned())).await?;
        process.exited(RUN).await?;
        serde_json::from_str(&verdicts).with_context(|| process.output())
    }

    /// Runs it and fails unless each of these steps is `ok`, and every other one too.
    ///
    /// # Errors
    /// With the verdicts, when a step failed or is missing.
    pub async fn passes(self, url: &str, arguments: &[&str], steps: &[&str]) -> anyhow::Result<()> {
        let verdicts = self.run(url, arguments).await?;
        let failed =
            verdicts.values().any(|verdict| verdict.as_str().is_some_and(|text| text.starts_with("error")));
        let missing = steps.iter().any(|step| verdicts.get(*step).is_none_or(|verdict| verdict != "ok"));
        ensure!(!failed && !missing, "{self:?} {arguments:?}: {verdicts:?}");
        Ok(())
    }
}
