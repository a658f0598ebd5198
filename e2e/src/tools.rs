//! Where the foreign tools are (node, the conformance suite, Python environments): what `setup.sh` installed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, bail};
use tokio::process::Command;

/// The folder of this crate: fixtures, clients and `setup.sh` lie there.
#[must_use]
pub fn crate_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The installed tools and the environment in which they run.
#[derive(Debug, Clone)]
pub struct Tools {
    cache: PathBuf,
    environment: BTreeMap<String, String>,
}

impl Tools {
    /// Runs `setup.sh` once per process (a moment when everything is installed) and reads what it wrote.
    ///
    /// # Errors
    /// When something cannot be installed; the message holds the script's own words.
    pub fn installed() -> anyhow::Result<&'static Self> {
        static TOOLS: OnceLock<Result<Tools, String>> = OnceLock::new();
        match TOOLS.get_or_init(|| Self::install().map_err(|error| format!("{error:#}"))) {
            Ok(tools) => Ok(tools),
            Err(message) => bail!("{message}"),
        }
    }

    fn install() -> anyhow::Result<Self> {
        let script = crate_folder().join("setup.sh");
        let output = std::process::Command::new(&script).arg("-q").output().context("starting setup.sh")?;
        if !output.status.success() {
            bail!("{} failed:\n{}", script.display(), String::from_utf8_lossy(&output.stderr));
        }
        let file = PathBuf::from(String::from_utf8(output.stdout)?.trim_end());
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let cache = file.parent().context("the environment file has no folder")?.to_owned();
        Ok(Self { cache, environment: parse_environment(&text, &std::env::var("PATH").unwrap_or_default()) })
    }

    /// A command that sees the installed node, npx, uv and uvx before those of the machine.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        self.equip(&mut command);
        command
    }

    /// Lets a command see them too.
    pub fn equip(&self, command: &mut Command) {
        command.envs(&self.environment).env("NO_COLOR", "1");
    }

    /// The Python interpreter of one environment, named as its pins in `python/`: `mcp-2`, `servers`, ...
    #[must_use]
    pub fn python(&self, environment: &str) -> PathBuf {
        self.cache.join("venv").join(environment).join("bin/python")
    }

    /// An executable of one Python environment, such as `mcp-server-time` of `servers`.
    #[must_use]
    pub fn python_script(&self, environment: &str, name: &str) -> PathBuf {
        self.cache.join("venv").join(environment).join("bin").join(name)
    }

    /// The node that the npm packages run on.
    #[must_use]
    pub fn node(&self) -> PathBuf {
        self.cache.join("bin/node")
    }

    /// An executable of the installed npm packages, to be run by [`Self::node`].
    #[must_use]
    pub fn npm_script(&self, name: &str) -> PathBuf {
        self.node_modules().join(".bin").join(name)
    }

    /// Where the npm packages are.
    #[must_use]
    pub fn node_modules(&self) -> PathBuf {
        self.cache.join("npm/node_modules")
    }

    /// The cache folder itself.
    #[must_use]
    pub fn cache(&self) -> &Path {
        &self.cache
    }
}

/// Reads the lines `export NAME='VALUE'` that setup.sh writes; `"$PATH"` after a value stands for the PATH of now.
fn parse_environment(text: &str, path: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.replace("\"$PATH\"", path).replace('\'', "")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::parse_environment;

    #[test]
    fn environment_lines_become_pairs_and_extend_path() {
        let parsed = parse_environment("export PATH='/c/bin:'\"$PATH\"\nexport A='b c'\n", "/usr/bin:/bin");
        assert_eq!(parsed["PATH"], "/c/bin:/usr/bin:/bin");
        assert_eq!(parsed["A"], "b c");
    }
}
