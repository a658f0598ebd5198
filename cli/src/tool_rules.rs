//! Which of a server's tools its McpServer keeps.

use anyhow::Context;
use mcpmesh_ir::Server;
use mcpmesh_ir::policy::NameGlobs;

/// Whether a tool, by the server's own name, exists behind a gateway.
pub(crate) fn exists(server: &Server, tool: &str) -> anyhow::Result<bool> {
    let globs = |patterns: &[String]| NameGlobs::new(patterns).context("a glob of the McpServer's tools");
    let rules = &server.tools;
    // An empty list matches everything: as an include that is meant, as an exclude not.
    let excluded = !rules.exclude.is_empty() && globs(&rules.exclude)?.matches(tool);
    Ok(!excluded && globs(&rules.include)?.matches(tool))
}
