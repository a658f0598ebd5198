//! Real servers of others that are reached by URL: server-everything over HTTP, and SDKs of earlier revisions.

use std::path::PathBuf;
use std::time::Duration;

use crate::process::Process;
use crate::tools::{Tools, crate_folder};

/// How long a server may take until it listens.
const START: Duration = Duration::from_secs(60);

/// One real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// npm server-everything over Streamable HTTP.
    Everything,
    /// npm server-everything over HTTP+SSE.
    EverythingSse,
    /// PyPI mcp 1.6.0: HTTP+SSE, revision 2024-11-05.
    Old2024,
    /// PyPI mcp 1.9.4: Streamable HTTP, revision 2025-03-26. A cancelled call breaks its session.
    Old202503,
    /// PyPI mcp 1.12.4: Streamable HTTP, revision 2025-06-18.
    Old202506,
}

impl Server {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Everything, Self::EverythingSse, Self::Old2024, Self::Old202503, Self::Old202506];

    /// Those that speak a revision which nothing new speaks.
    pub const OLD: [Self; 3] = [Self::Old2024, Self::Old202503, Self::Old202506];

    /// A name for manifests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Everything => "everything-http",
            Self::EverythingSse => "everything-sse",
            Self::Old2024 => "old-2024",
            Self::Old202503 => "old-2025-03",
            Self::Old202506 => "old-2025-06",
        }
    }

    /// Starts it and returns the guard and its URL.
    ///
    /// # Errors
    /// When it cannot be started or does not listen in time.
    pub async fn start(self) -> anyhow::Result<(Process, String)> {
        let tools = Tools::installed()?;
        let (words, path) = match self {
            Self::Everything => (everything(tools, "streamableHttp"), "/mcp"),
            Self::EverythingSse => (everything(tools, "sse"), "/sse"),
            Self::Old2024 => (old(tools, "mcp-1.6", "sse"), ""),
            Self::Old202503 => (old(tools, "mcp-1.9", "streamable-http"), ""),
            Self::Old202506 => (old(tools, "mcp-1.12", "streamable-http"), ""),
        };
        let mut command = tools.command(&words[0]);
        command.args(&words[1..]);
        let process = Process::start(self.name(), &mut command)?;
        let origin =
            process.wait_for_line(START, |line| line.starts_with("http://").then(|| line.to_owned())).await?;
        Ok((process, origin + path))
    }
}

fn everything(tools: &Tools, transport: &str) -> Vec<PathBuf> {
    let loopback = crate_folder().join("fixtures/js/loopback.mjs");
    let script = tools.npm_script("mcp-server-everything");
    vec![tools.node(), "--import".into(), loopback, script, transport.into()]
}

fn old(tools: &Tools, environment: &str, transport: &str) -> Vec<PathBuf> {
    vec![tools.python(environment), crate_folder().join("fixtures/python/old.py"), transport.into()]
}
