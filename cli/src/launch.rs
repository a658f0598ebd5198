//! From a workload to the command line that runs it on this machine, or to what is missing here.

mod engine;

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use mcpmesh_compiler::workload::{Environment, Launch, Transport, Workload};
use mcpmesh_proxy::process::{self, Inherited, Plan};
use url::Url;

pub(crate) use engine::{SUBCOMMAND as ENGINE, run as become_engine};

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
    #[error(
        "the variable {0} would steer the container engine itself, and its value has a line break, with which it cannot \
         be given to the container alone: rename it, or write its value in one line"
    )]
    LineBreak(String),
    #[error("cannot tell where this program is: {0}")]
    NoSelf(String),
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
            let path = engine().await?;
            let name = container_name(&workload.server.name);
            let port = match transport {
                Transport::Stdio {} => None,
                Transport::StreamableHttp { port, path } => Some(Published::new(*port, path)?),
            };
            let run = Run { name: &name, image, command, args, port: port.as_ref() };
            let variables = Variables::of(environment)?;
            let mut argv = run.argv(&path, &variables.by_name);
            if !variables.by_file.is_empty() {
                let own = std::env::current_exe().map_err(|error| Error::NoSelf(error.to_string()))?;
                argv.splice(0..0, [own.into(), ENGINE.into()]);
            }
            let plan = plan(argv, variables.of_process(), Some((path.into(), name)));
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
async fn engine() -> Result<PathBuf, Error> {
    let mut silent = None;
    for name in ["docker", "podman"] {
        let Some(path) = find(name) else { continue };
        let mut version = tokio::process::Command::new(&path);
        version.args(["info", "--format", "ok"]).kill_on_drop(true);
        version.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match tokio::time::timeout(ENGINE_ANSWERS, version.status()).await {
            Ok(Ok(status)) if status.success() => return Ok(path),
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
    /// The variables by name, so that no value stands in a process list.
    fn argv(&self, engine: &Path, variables: &[(String, String)]) -> Vec<OsString> {
        let mut argv: Vec<OsString> = vec![engine.into()];
        let mut add = |words: &[&str]| argv.extend(words.iter().map(OsString::from));
        add(&["run", "--interactive", "--rm", "--init", "--name", self.name]);
        add(&["--label", "app.kubernetes.io/managed-by=mcpmesh"]);
        if let Some(port) = self.port {
            add(&["--publish", &format!("127.0.0.1:{}:{}", port.outside, port.inside)]);
        }
        for (name, _) in variables {
            add(&["--env", name]);
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

/// A container's variables, by how it gets them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Variables {
    /// From the environment of the engine's client.
    by_name: Vec<(String, String)>,
    /// Lines of a file: in its environment they would steer the client.
    by_file: String,
}

impl Variables {
    fn of(Environment(all): Environment) -> Result<Self, Error> {
        let mut variables = Self::default();
        for (name, value) in all {
            if !steers_client(&name) {
                variables.by_name.push((name, value));
            } else if value.contains(['\n', '\r']) {
                return Err(Error::LineBreak(name));
            } else {
                variables.by_file.push_str(&format!("{name}={value}\n"));
            }
        }
        Ok(variables)
    }

    /// What the process gets that becomes the engine's client.
    fn of_process(self) -> Environment {
        let Self { by_name: mut all, by_file } = self;
        if !by_file.is_empty() {
            all.push((engine::VARIABLES.to_owned(), by_file));
        }
        Environment(all)
    }
}

/// What docker, podman, the dynamic linker and our own binary heed, or a part of them.
fn steers_client(name: &str) -> bool {
    const STARTS: [&str; 9] =
        ["DOCKER_", "CONTAINER", "BUILDAH_", "STORAGE_", "LD_", "DYLD_", "XDG_", "SSL_CERT_", "MCPMESH_"];
    const WHOLE: [&str; 9] = [
        "PATH",
        "HOME",
        "TMPDIR",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
        "REGISTRY_AUTH_FILE",
        "GODEBUG",
    ];
    let upper = name.to_ascii_uppercase();
    STARTS.iter().any(|start| upper.starts_with(start)) || WHOLE.contains(&upper.as_str())
}

#[cfg(test)]
mod tests;
