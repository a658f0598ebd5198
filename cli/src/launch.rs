//! From a workload to the command line that runs it on this machine, or to what is missing here.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use mcpmesh_compiler::workload::{Environment, Launch, Transport, Workload};
use mcpmesh_proxy::process::{self, Inherited, Plan};
use url::Url;

/// How long a container engine may take to say that it is there.
const ENGINE_ANSWERS: Duration = Duration::from_secs(5);

/// Why a workload cannot run here: what is missing and what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("npx not found: install Node.js 20 or newer (https://nodejs.org), then it starts by itself")]
    NoNpx,
    #[error(
        "uvx not found: install uv (https://docs.astral.sh/uv/getting-started/installation), then it starts by itself"
    )]
    NoUvx,
    #[error("neither docker nor podman found: install one to run container servers")]
    NoEngine,
    #[error("{0} is installed, but its engine does not answer: start it")]
    EngineDown(&'static str),
    #[error("no free port on 127.0.0.1: {0}")]
    NoPort(String),
}

/// What to run, and where it answers when it speaks HTTP.
#[derive(Debug)]
pub(crate) struct Launched {
    /// What to run.
    pub(crate) plan: Plan,
    /// Where it answers; none for stdio.
    pub(crate) url: Option<Url>,
}

/// Finds the runner and makes the command line.
pub(crate) async fn prepare(workload: &Workload, environment: Environment) -> Result<Launched, Error> {
    match &workload.launch {
        Launch::Npm { package, version, args } => {
            let runner = find("npx").ok_or(Error::NoNpx)?;
            let argv = npx(runner, package, version.as_deref(), args);
            Ok(stdio(plan(argv, environment, None)))
        }
        Launch::PyPI { package, version, args } => {
            let argv = uvx(&find, package, version.as_deref(), args).ok_or(Error::NoUvx)?;
            Ok(stdio(plan(argv, environment, None)))
        }
        Launch::Container { image, command, args, transport } => {
            let (engine, path) = engine().await?;
            let name = container_name(&workload.server.name);
            let port = match transport {
                Transport::Stdio {} => None,
                Transport::StreamableHttp { port, path } => Some(Published::new(*port, path)?),
            };
            let run = Run { name: &name, image, command, args, port: port.as_ref() };
            let argv = run.argv(path, &environment);
            tracing::debug!(server = %workload.server, engine, container = name, "runs a container");
            let container = argv.first().cloned().map(|engine| (engine, name));
            let Environment(mut variables) = environment;
            variables.retain(|(name, _)| !steers_client(name));
            let plan = plan(argv, Environment(variables), container);
            Ok(Launched { plan, url: port.map(|port| port.url) })
        }
    }
}

fn plan(argv: Vec<OsString>, environment: Environment, container: Option<(OsString, String)>) -> Plan {
    let Environment(variables) = environment;
    Plan { argv, inherited: Inherited::Listed, environment: process::Environment(variables), container }
}

fn stdio(plan: Plan) -> Launched {
    Launched { plan, url: None }
}

fn npx(runner: PathBuf, package: &str, version: Option<&str>, args: &[String]) -> Vec<OsString> {
    let spec = version.map_or_else(|| package.to_owned(), |version| format!("{package}@{version}"));
    let mut argv: Vec<OsString> = vec![runner.into(), "-y".into(), spec.into()];
    argv.extend(args.iter().map(OsString::from));
    argv
}

/// uvx, or what does the same: `uv tool run`, `pipx run`.
fn uvx(
    find: &dyn Fn(&str) -> Option<PathBuf>,
    package: &str,
    version: Option<&str>,
    args: &[String],
) -> Option<Vec<OsString>> {
    let spec = version.map_or_else(|| package.to_owned(), |version| format!("{package}=={version}"));
    // The program is called like the package, extras apart.
    let program = package.split_once('[').map_or(package, |(name, _)| name);
    let (runner, words): (PathBuf, &[&str]) = if let Some(uvx) = find("uvx") {
        (uvx, &["--from"])
    } else if let Some(uv) = find("uv") {
        (uv, &["tool", "run", "--from"])
    } else {
        (find("pipx")?, &["run", "--spec"])
    };
    let mut argv: Vec<OsString> = vec![runner.into()];
    argv.extend(words.iter().map(OsString::from));
    argv.extend([spec.into(), program.into()]);
    argv.extend(args.iter().map(OsString::from));
    Some(argv)
}

/// A program of the PATH.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

/// The first container engine that answers.
async fn engine() -> Result<(&'static str, PathBuf), Error> {
    let mut silent = None;
    for name in ["docker", "podman"] {
        let Some(path) = find(name) else { continue };
        let mut version = tokio::process::Command::new(&path);
        version.args(["info", "--format", "ok"]).kill_on_drop(true);
        version.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match tokio::time::timeout(ENGINE_ANSWERS, version.status()).await {
            Ok(Ok(status)) if status.success() => return Ok((name, path)),
            _ => silent = silent.or(Some(name)),
        }
    }
    Err(silent.map_or(Error::NoEngine, Error::EngineDown))
}

fn container_name(server: &str) -> String {
    let mut bytes = [0u8; 6];
    // Not a secret; a name that is taken only fails to start, and the next one differs.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    format!("mcpmesh-{server}-{}", hex::encode(bytes))
}

/// A container's port, published on loopback.
#[derive(Debug)]
struct Published {
    inside: u16,
    outside: u16,
    url: Url,
}

impl Published {
    fn new(inside: u16, path: &str) -> Result<Self, Error> {
        let none = |reason: String| Error::NoPort(reason);
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| none(error.to_string()))?;
        let outside = listener.local_addr().map_err(|error| none(error.to_string()))?.port();
        let url = Url::parse(&format!("http://127.0.0.1:{outside}{path}"))
            .map_err(|error| none(error.to_string()))?;
        Ok(Self { inside, outside, url })
    }
}

/// A `docker run` or `podman run`.
struct Run<'a> {
    name: &'a str,
    image: &'a str,
    command: &'a [String],
    args: &'a [String],
    port: Option<&'a Published>,
}

impl Run<'_> {
    fn argv(&self, engine: PathBuf, environment: &Environment) -> Vec<OsString> {
        let mut argv: Vec<OsString> = vec![engine.into()];
        let mut add = |words: &[&str]| argv.extend(words.iter().map(OsString::from));
        add(&["run", "--interactive", "--rm", "--init", "--name", self.name]);
        add(&["--label", "app.kubernetes.io/managed-by=mcpmesh"]);
        if let Some(port) = self.port {
            add(&["--publish", &format!("127.0.0.1:{}:{}", port.outside, port.inside)]);
        }
        for (name, value) in &environment.0 {
            // By name, so that no value stands in a process list; but what would steer the engine's own client.
            if steers_client(name) {
                add(&["--env", &format!("{name}={value}")]);
            } else {
                add(&["--env", name]);
            }
        }
        if let Some((entry, _)) = self.command.split_first() {
            add(&["--entrypoint", entry]);
        }
        add(&[self.image]);
        for word in self.command.iter().skip(1).chain(self.args) {
            add(&[word]);
        }
        argv
    }
}

fn steers_client(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    upper.starts_with("DOCKER_")
        || upper.starts_with("CONTAINER")
        || upper.starts_with("LD_")
        || upper.starts_with("XDG_")
        || ["PATH", "HOME", "TMPDIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"].contains(&upper.as_str())
}

#[cfg(test)]
mod tests;
