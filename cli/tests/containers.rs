//! Containers under `mcpmesh up`, with a stand-in for the engine: what it is told, and that nothing is left to it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const MCPMESH: &str = env!("CARGO_BIN_EXE_mcpmesh");

/// Generous: what is waited for takes a second on an idle machine.
const DEADLINE: Duration = Duration::from_secs(60);

const SERVER: &str = "apiVersion: mcpmesh.io/v1alpha1\nkind: McpServer\nmetadata: {name: boxed}\nspec: {container: {image: \
                      \"acme/boxed:1\", args: [-v], env: [{name: TOKEN, value: canary}]}}\n";

/// A folder with one server, and what the engine was told.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::create_dir(folder.path("mesh")).unwrap();
        fs::create_dir(folder.path("tmp")).unwrap();
        fs::write(folder.path("mesh/boxed.yaml"), SERVER).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs `mcpmesh up` until it says a line that starts like this; returns the endpoint.
    fn up(&self, wanted: &str) -> (Child, String) {
        self.up_in(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/engine:/usr/bin:/bin"), wanted)
    }

    /// As [`Folder::up`], with the programs of this PATH.
    fn up_in(&self, path: &str, wanted: &str) -> (Child, String) {
        let any = "127.0.0.1:0";
        let mut child = Command::new(MCPMESH)
            .args(["up", "mesh", "--listen", any, "--metrics", any, "--admin", any, "--state-dir", "state"])
            .env("PATH", path)
            .env("DOCKER_HOST", self.0.path())
            .env("TMPDIR", self.path("tmp"))
            .env("NO_COLOR", "1")
            .current_dir(self.0.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        let mut endpoint = String::new();
        let deadline = Instant::now() + DEADLINE;
        while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if let Some(found) = line.strip_prefix("endpoint  ") {
                found.clone_into(&mut endpoint);
            }
            if line.starts_with(wanted) {
                return (child, endpoint);
            }
        }
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        unreachable!("it ended ({ended}) without saying: {wanted}");
    }

    /// A folder of programs with podman alone among engines, whatever this machine has.
    fn only_podman(&self) -> String {
        let programs = self.path("bin");
        fs::create_dir(&programs).unwrap();
        // What the fixtures start.
        for name in ["env", "cat", "sed", "tr", "sleep"] {
            let found = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(name));
            symlink(found.iter().find(|file| file.exists()).unwrap(), programs.join(name)).unwrap();
        }
        format!("{}:{}", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/podman"), programs.display())
    }

    fn told(&self) -> Vec<String> {
        fs::read_to_string(self.path("engine")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// The name of the container that was run.
    fn container(&self) -> String {
        let run = self.told().into_iter().find(|line| line.starts_with("run ")).unwrap();
        run.split(' ').find(|word| word.starts_with("mcpmesh-boxed-")).unwrap().to_owned()
    }

    fn wait_for_removal(&self) {
        let removal = format!("rm --force {}", self.container());
        let deadline = Instant::now() + DEADLINE;
        while !self.told().contains(&removal) {
            assert!(Instant::now() < deadline, "no {removal}: {:?}", self.told());
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_container_is_run_called_and_removed_at_the_end() {
    let folder = Folder::new();
    let (mut up, endpoint) = folder.up("server  boxed  Ready");
    let run = format!(
        "run --interactive --rm --init --name {} --label app.kubernetes.io/managed-by=mcpmesh --env TOKEN acme/boxed:1 -v",
        folder.container()
    );
    assert!(folder.told().contains(&run), "{:?}", folder.told());
    let call = Command::new(MCPMESH).args(["call", "boxed/args", "--url", &endpoint]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&call.stdout).trim(), "canary", "{call:?}");
    kill_process(Pid::from_child(&up), Signal::TERM).unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(0));
    folder.wait_for_removal();
}

#[test]
fn podman_is_taken_where_there_is_no_docker() {
    let folder = Folder::new();
    let (mut up, endpoint) = folder.up_in(&folder.only_podman(), "server  boxed  Ready");
    let call = Command::new(MCPMESH).args(["call", "boxed/args", "--url", &endpoint]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&call.stdout).trim(), "canary", "{call:?}");
    up.kill().unwrap();
    up.wait().unwrap();
    folder.wait_for_removal();
}

#[test]
fn without_an_engine_the_server_says_what_to_install() {
    let folder = Folder::new();
    let reason =
        "server  boxed  Failed  -  -  neither docker nor podman found: install one to run container servers";
    let (mut up, _) = folder.up_in("/no/programs/here", reason);
    up.kill().unwrap();
    up.wait().unwrap();
}

#[test]
fn a_secret_whose_name_would_steer_the_engine_reaches_the_container_alone() {
    let folder = Folder::new();
    let secret = "{name: DOCKER_PASSWORD, valueFrom: {secretKeyRef: {name: s, key: password}}}";
    let server = SERVER.replace("env: [", &format!("env: [{secret}, {{name: HTTPS_PROXY, value: inside}}, "));
    let values = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: hunter2}\n";
    fs::write(folder.path("mesh/boxed.yaml"), format!("{server}---\n{values}")).unwrap();
    if cfg!(target_os = "linux") {
        // No folder for temporary files is needed: it may be on a disk.
        fs::remove_dir(folder.path("tmp")).unwrap();
    }
    let (mut up, _) = folder.up("server  boxed  Ready");
    let told = folder.told();
    assert!(told.iter().any(|line| line.starts_with("run --env-file /dev/fd/")), "{told:?}");
    assert!(!told.iter().any(|line| line.contains("hunter2")), "{told:?}");
    assert_eq!(
        fs::read_to_string(folder.path("env-file")).unwrap(),
        "DOCKER_PASSWORD=hunter2\nHTTPS_PROXY=inside\n"
    );
    let environment = fs::read_to_string(folder.path("environment")).unwrap();
    assert!(environment.contains("TOKEN=canary"), "{environment}");
    assert!(!environment.contains("hunter2") && !environment.contains("inside"), "{environment}");
    up.kill().unwrap();
    up.wait().unwrap();
    folder.wait_for_removal();
}

#[test]
fn a_line_break_that_cannot_be_given_to_the_container_is_a_condition_of_the_server() {
    let folder = Folder::new();
    let server = SERVER.replace("name: TOKEN, value: canary", "name: DOCKER_KEY, value: \"a\\nb\"");
    fs::write(folder.path("mesh/boxed.yaml"), server).unwrap();
    let (mut up, _) = folder.up("server  boxed  Failed  -  -  the variable DOCKER_KEY would steer");
    up.kill().unwrap();
    up.wait().unwrap();
}

#[test]
fn after_a_kill_9_the_container_is_removed() {
    let folder = Folder::new();
    let (mut up, _) = folder.up("server  boxed  Ready");
    up.kill().unwrap();
    up.wait().unwrap();
    folder.wait_for_removal();
}

#[test]
fn an_engine_that_does_not_answer_is_a_condition_of_the_server() {
    let folder = Folder::new();
    fs::write(folder.path("down"), "").unwrap();
    let reason = "server  boxed  Failed  -  -  docker is installed, but its engine does not answer: start it";
    let (mut up, _) = folder.up(reason);
    up.kill().unwrap();
    up.wait().unwrap();
    assert!(folder.told().iter().all(|line| line.starts_with("info ")), "{:?}", folder.told());
}
