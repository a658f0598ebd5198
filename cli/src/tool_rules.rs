//! Which of a server's tools its McpServer keeps, and what they are called.

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

/// The server's own name of a tool that is named by it, or by the name that the McpServer gives it.
pub(crate) fn own_name<'a>(server: &'a Server, named: &'a str) -> &'a str {
    let overrides = &server.tools.overrides;
    let renamed = || overrides.iter().find(|(_, over)| over.rename.as_deref() == Some(named));
    if overrides.contains_key(named) {
        return named;
    }
    renamed().map_or(named, |(name, _)| name)
}

/// The name that the McpServer gives a tool, where it is another one than the server's own.
pub(crate) fn shown_name<'a>(server: &'a Server, name: &str) -> Option<&'a str> {
    server.tools.overrides.get(name)?.rename.as_deref().filter(|shown| *shown != name)
}
