//! `mcpmesh up` as a user sees it: what it prints, what it reloads, what it leaves behind.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail like tests")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const MCPMESH: &str = env!("CARGO_BIN_EXE_mcpmesh");

/// Generous: what is waited for takes a second on an idle machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A folder with objects, and `npx` replaced by the fixture.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::create_dir(folder.path("mesh")).unwrap();
        files.iter().for_each(|(name, text)| folder.write(name, text));
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let file = self.path("mesh").join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        // As editors do it.
        let beside = self.path("beside");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, file).unwrap();
    }

    fn command(&self, path: &str) -> Command {
        let mut command = Command::new(MCPMESH);
        command
            .env("PATH", path)
            .env("NO_COLOR", "1")
            .env("TOKEN", "from-the-environment")
            .env("UNRELATED", "not-for-servers")
            .current_dir(self.path("mesh"));
        command
    }

    fn up(&self) -> Up {
        self.up_with(&[])
    }

    fn up_with(&self, options: &[&str]) -> Up {
        self.up_in(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures:/usr/bin:/bin"), options)
    }

    fn up_in(&self, path: &str, options: &[&str]) -> Up {
        let mut command = self.command(path);
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let any = "127.0.0.1:0";
        command
            .args(["up", "--listen", any, "--metrics", any, "--admin", any])
            .args(options)
            .arg("--state-dir");
        let mut child = command.arg(self.path("state")).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        let mut up = Up { child, lines, endpoint: String::new() };
        up.endpoint = up.line(|line| line.strip_prefix("endpoint  ").map(str::to_owned));
        up
    }

    fn wait_for_log(&self, text: &str) {
        wait_for(text, || {
            fs::read_to_string(self.path("log")).unwrap_or_default().contains(text).then_some(())
        });
    }
}

/// A running `mcpmesh up`.
struct Up {
    child: Child,
    lines: Receiver<String>,
    endpoint: String,
}

impl Up {
    fn line<T>(&self, wanted: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let line = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            if let Some(found) = wanted(&line.expect("the line that is waited for")) {
                return found;
            }
        }
    }

    fn wait_for_server(&self, line: &str) {
        self.line(|found| found.starts_with(&format!("server  {line}")).then_some(()));
    }

    fn call(&self, tool: &str) -> Output {
        call(&self.endpoint, tool)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn call(endpoint: &str, tool: &str) -> Output {
    let output = Command::new(MCPMESH).args(["call", tool, "--url", endpoint]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

fn wait_for<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

fn wait_for_end_of(pids: &Path) {
    for pid in fs::read_to_string(pids).unwrap().lines() {
        let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        wait_for("the end of a server", || rustix::process::test_kill_process(pid).is_err().then_some(()));
    }
}

fn server(name: &str, args: &str) -> String {
    format!(
        "apiVersion: mcpmesh.io/v1alpha1\nkind: McpServer\nmetadata: {{name: {name}}}\n\
         spec: {{package: {{registry: Npm, name: fake, version: \"1\", args: [{args}]}}}}\n"
    )
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_folder_is_served_and_everything_ends_in_order() {
    let folder = Folder::new(&[]);
    let pids = folder.path("pids");
    let env = format!(
        "env: [{{name: PIDS, value: {}}}, {{name: SECRET, valueFrom: {{secretKeyRef: {{name: s, key: token}}}}}}]",
        pids.display()
    );
    let with_env = server("one", "hello").replace("args:", &format!("{env}, args:"));
    let with_env = with_env.replace("args:", "envFrom: [{prefix: MAP_, configMapRef: {name: m}}], args:");
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {token: \"${env:TOKEN}\"}\n";
    folder.write("one.yaml", &format!("{with_env}---\n{secret}"));
    let map = |place: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata: {{PLACE: {place}}}\n")
    };
    folder.write("map.yaml", &map("\"${env:TOKEN}\""));
    let mut up = folder.up();
    up.line(|line| line.starts_with("metrics   http://127.0.0.1:").then_some(()));
    up.line(|line| {
        (line.starts_with("admin     http://127.0.0.1:") && line.ends_with("/config_dump")).then_some(())
    });
    up.wait_for_server("one  Ready  2025-06-18  3  -");

    assert_eq!(text(&up.call("one/args")), "-y fake@1 hello");
    let env = text(&up.call("one/env"));
    assert!(env.contains("SECRET=from-the-environment"), "{env}");
    assert!(!env.contains("not-for-servers"), "{env}");
    // What is in a ConfigMap is what it says.
    assert!(env.contains("MAP_PLACE=${env:TOKEN}"), "{env}");
    folder.write("map.yaml", &map("oslo"));
    wait_for("the changed ConfigMap", || text(&up.call("one/env")).contains("MAP_PLACE=oslo").then_some(()));
    folder.wait_for_log("default/one: started with: -y fake@1 hello");
    let log = fs::read_to_string(folder.path("log")).unwrap();
    assert!(!log.contains("from-the-environment"), "{log}");

    up.signal(Signal::TERM);
    assert_eq!(up.child.wait().unwrap().code(), Some(0));
    wait_for_end_of(&pids);
}

#[test]
fn after_a_kill_9_no_server_is_left() {
    let folder = Folder::new(&[]);
    let pids = folder.path("pids");
    let env = format!("env: [{{name: PIDS, value: {}}}], args:", pids.display());
    folder.write("one.yaml", &server("one", "").replace("args:", &env));
    let mut up = folder.up();
    up.wait_for_server("one  Ready");
    up.signal(Signal::KILL);
    up.child.wait().unwrap();
    wait_for_end_of(&pids);
}

#[test]
fn a_good_change_is_in_force_and_a_bad_one_changes_nothing() {
    let folder = Folder::new(&[("one.yaml", &server("one", "first"))]);
    let up = folder.up();
    up.wait_for_server("one  Ready");

    folder.write("two.yaml", &server("two", ""));
    up.wait_for_server("two  Ready");

    folder.write("two.yaml", "kind: [");
    folder.wait_for_log("two.yaml:1:7: unclosed bracket");
    folder.wait_for_log("McpServer default/two stays as it was: mend two.yaml:1:7");
    assert_eq!(text(&up.call("two/args")), "-y fake@1");

    folder.write("two.yaml", &server("two", "").replace("registry", "registri"));
    folder.wait_for_log("did you mean `registry`?");
    folder.write("one.yaml", &server("one", "second"));
    wait_for("the change", || (text(&up.call("one/args")) == "-y fake@1 second").then_some(()));
    assert_eq!(text(&up.call("two/args")), "-y fake@1");

    fs::remove_file(folder.path("mesh/two.yaml")).unwrap();
    up.wait_for_server("two  Removed");
}

#[test]
fn a_mistake_in_a_policy_does_not_keep_a_key_that_is_taken_away() {
    let folder = Folder::new(&[("one.yaml", &server("one", "")), ("front.yaml", FRONT), ("ann.yaml", KEY)]);
    folder.write("p.yaml", ALL_MAY);
    let bob = KEY.replace("name: ann", "name: bob").replace("owner: ann", "owner: bob");
    folder.write("bob.yaml", &bob.replace("0123456789abcdef", "fedcba9876543210"));
    let up = folder.up();
    up.wait_for_server("one  Ready");
    let bobs = Some("fedcba9876543210");
    assert_eq!((code(&up, ANNS), code(&up, bobs)), (Some(0), Some(0)));
    folder.write("p.yaml", &ALL_MAY.replace("Allow", "Alow"));
    folder.wait_for_log("p.yaml:6:30: McpPolicy default/p: spec.access[0].effect: unknown variant `Alow`");
    fs::remove_file(folder.path("mesh/ann.yaml")).unwrap();
    wait_for("the end of the key", || (code(&up, ANNS) == Some(1)).then_some(()));
    assert_eq!(code(&up, bobs), Some(0));
    folder.wait_for_log("McpPolicy default/p stays as it was: mend p.yaml:6:30");
}

const FRONT: &str = "apiVersion: mcpmesh.io/v1alpha1\nkind: McpGateway\nmetadata: {name: front}\n\
                     spec: {authentication: {apiKeys: {}}}\n";
const ALL_MAY: &str = "apiVersion: mcpmesh.io/v1alpha1\nkind: McpPolicy\nmetadata: {name: p}\nspec:\n  \
                       targetRefs: [{kind: McpGateway, name: front}]\n  \
                       access: [{name: r, effect: Allow, from: [{authenticated: {}}]}]\n";

#[test]
fn without_a_watch_the_files_are_served_as_they_were() {
    let folder = Folder::new(&[("one.yaml", &server("one", "first"))]);
    let (watching, still) = (folder.up(), folder.up_with(&["--no-watch"]));
    still.wait_for_server("one  Ready");
    // Whoever sees the second change has had time for the first.
    for change in ["second", "third"] {
        folder.write("one.yaml", &server("one", change));
        let changed = format!("-y fake@1 {change}");
        wait_for("the change", || (text(&watching.call("one/args")) == changed).then_some(()));
    }
    assert_eq!(text(&still.call("one/args")), "-y fake@1 first");
}

/// A server `one` whose tool `gate` waits for the file `gate`.
fn gated(folder: &Folder, args: &str) -> String {
    let env = format!("env: [{{name: GATE, value: {}}}], args:", folder.path("gate").display());
    server("one", args).replace("args:", &env)
}

/// A call that waits at the gate.
fn call_gate(folder: &Folder, up: &Up) -> JoinHandle<Output> {
    up.wait_for_server("one  Ready");
    let endpoint = up.endpoint.clone();
    let call = std::thread::spawn(move || call(&endpoint, "one/gate"));
    wait_for("the call", || folder.path("gate.waiting").exists().then_some(()));
    call
}

#[test]
fn a_change_drops_no_request() {
    let folder = Folder::new(&[]);
    folder.write("one.yaml", &gated(&folder, "first"));
    let up = folder.up();
    let waiting = call_gate(&folder, &up);
    folder.write("one.yaml", &gated(&folder, "second"));
    folder.wait_for_log("the changed configuration is in force");
    assert_eq!(text(&up.call("one/args")), "-y fake@1 second");
    fs::write(folder.path("gate"), "").unwrap();
    assert_eq!(text(&waiting.join().unwrap()), "through");
}

#[test]
fn a_call_in_flight_has_its_answer_before_the_end() {
    let folder = Folder::new(&[]);
    folder.write("one.yaml", &gated(&folder, ""));
    let mut up = folder.up();
    let waiting = call_gate(&folder, &up);
    up.signal(Signal::INT);
    folder.wait_for_log("waits for requests in flight");
    fs::write(folder.path("gate"), "").unwrap();
    assert_eq!(text(&waiting.join().unwrap()), "through");
    assert_eq!(up.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let folder = Folder::new(&[]);
    folder.write("one.yaml", &gated(&folder, ""));
    let mut up = folder.up();
    let waiting = call_gate(&folder, &up);
    up.signal(Signal::INT);
    folder.wait_for_log("waits for requests in flight");
    up.signal(Signal::INT);
    assert_eq!(up.child.wait().unwrap().code(), Some(130));
    assert!(waiting.join().is_err());
}

#[test]
fn a_key_opens_what_the_policy_says_and_nothing_else() {
    let front = "apiVersion: mcpmesh.io/v1alpha1\nkind: McpGateway\nmetadata: {name: front}\n\
                 spec: {authentication: {apiKeys: {}}}\n---\n\
                 apiVersion: mcpmesh.io/v1alpha1\nkind: McpPolicy\nmetadata: {name: p}\nspec:\n  \
                 targetRefs: [{kind: McpGateway, name: front}]\n  \
                 access: [{name: args, effect: Allow, from: [{group: staff}], to: {tools: [args]}}]\n";
    let folder = Folder::new(&[("one.yaml", &server("one", "")), ("front.yaml", front)]);
    let mut create = Command::new(MCPMESH);
    create.args(["key", "create", "--owner", "ann", "--group", "staff", "--out"]);
    let created = create.arg(folder.path("mesh/ann.yaml")).output().unwrap();
    let said = String::from_utf8_lossy(&created.stderr).into_owned();
    let key = said.split_whitespace().find(|word| word.starts_with("mcpmesh_")).unwrap();

    let up = folder.up();
    up.wait_for_server("one  Ready");
    let call = |tool: &str, key: &str| {
        let output = Command::new(MCPMESH).args(["call", tool, "--url", &up.endpoint, "--key", key]).output();
        (text(output.as_ref().unwrap()), output.unwrap().status.code())
    };
    assert_eq!(call("one/args", key), ("-y fake@1".to_owned(), Some(0)));
    assert_eq!(call("one/env", key), (String::new(), Some(1)));
    assert_eq!(call("one/args", "mcpmesh_wrong"), (String::new(), Some(1)));
    let refused = |key: &[&str]| {
        let output = Command::new(MCPMESH).args(["tools", "--url", &up.endpoint]).args(key).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (given, why) in [
        (&[][..], "credentials required: send `Authorization: Bearer <API key or token>`"),
        (&["--key", "mcpmesh_wrong"], "the API key is not known here"),
        (
            &["--header", "Authorization: Basic eDp5"],
            "the Authorization header is not one `Bearer` credential",
        ),
    ] {
        let (code, said) = refused(given);
        let expected = format!("HTTP status 401: {why}; give a key that it knows with --key or MCPMESH_KEY");
        assert!(code == Some(1) && said.contains(&expected), "{given:?}: {said}");
    }
    folder.wait_for_log("no_matching_allow");
}

/// A Secret that holds an API key of ann.
const KEY: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: ann, labels: {mcpmesh.io/api-key: \"true\"}, \
                   annotations: {mcpmesh.io/owner: ann}}\nstringData: {key: 0123456789abcdef}\n";

/// The exit code of a call to `one/args` with ann's key, or without any.
fn code(up: &Up, key: Option<&str>) -> Option<i32> {
    let mut call = Command::new(MCPMESH);
    call.args(["call", "one/args", "--url", &up.endpoint]);
    if let Some(key) = key {
        call.args(["--key", key]);
    }
    call.output().unwrap().status.code()
}

const ANNS: Option<&str> = Some("0123456789abcdef");

#[test]
fn a_mistake_in_the_only_key_opens_nothing_and_its_end_is_said_aloud() {
    let folder = Folder::new(&[("one.yaml", &server("one", "")), ("key.yaml", KEY)]);
    let up = folder.up();
    up.wait_for_server("one  Ready");
    assert_eq!((code(&up, ANNS), code(&up, None)), (Some(0), Some(1)));

    folder.write("key.yaml", &KEY.replace("0123456789abcdef", "short"));
    folder.wait_for_log("the key has fewer than 16 characters");
    wait_for("the end of the key", || (code(&up, ANNS) == Some(1)).then_some(()));
    assert_eq!(code(&up, None), Some(1));

    folder.write("key.yaml", &KEY.replace("stringData", "data").replace("0123456789abcdef", "'%'"));
    folder.wait_for_log("Secret default/ann stays as it was: mend key.yaml");
    assert_eq!((code(&up, ANNS), code(&up, None)), (Some(1), Some(1)));

    fs::remove_file(folder.path("mesh/key.yaml")).unwrap();
    folder.wait_for_log("THE ENDPOINT IS NOW OPEN TO ANYONE ON THIS MACHINE");
    wait_for("the open endpoint", || (code(&up, None) == Some(0)).then_some(()));
}

#[test]
fn a_key_is_revoked_in_a_folder_that_replaced_the_one_we_started_in() {
    let folder = Folder::new(&[("one.yaml", &server("one", "")), ("key.yaml", KEY)]);
    let up = folder.up();
    up.wait_for_server("one  Ready");
    assert_eq!(code(&up, ANNS), Some(0));

    fs::rename(folder.path("mesh"), folder.path("away")).unwrap();
    folder.wait_for_log("mesh is gone: what was read of it last stays in force");
    assert_eq!((code(&up, ANNS), code(&up, None)), (Some(0), Some(1)));

    folder.write("one.yaml", &server("one", "again"));
    folder.write("key.yaml", &KEY.replace("0123456789abcdef", "fedcba9876543210"));
    wait_for("the end of the key", || (code(&up, ANNS) == Some(1)).then_some(()));
    assert_eq!(code(&up, Some("fedcba9876543210")), Some(0));

    folder.write("key.yaml", KEY);
    wait_for("the key in the new folder", || (code(&up, ANNS) == Some(0)).then_some(()));
}

#[test]
fn an_endpoint_that_moves_with_a_change_of_the_files_is_named() {
    let folder = Folder::new(&[("one.yaml", &server("one", ""))]);
    let up = folder.up();
    up.wait_for_server("one  Ready");
    let gateway = |name: &str| {
        format!("apiVersion: mcpmesh.io/v1alpha1\nkind: McpGateway\nmetadata: {{name: {name}}}\nspec: {{}}\n")
    };
    folder.write("gateways.yaml", &format!("{}---\n{}", gateway("a"), gateway("b")));
    let at = &up.endpoint;
    folder.wait_for_log(&format!("clients must be told: {at} is now {at}/default/a, {at}/default/b"));
}

#[test]
fn a_clients_configuration_is_served_where_there_is_no_yaml() {
    let config = r#"{"servers": {"My Server": {"command": "npx", "args": ["-y", "fake", "--from=client"]}}}"#;
    let folder = Folder::new(&[(".vscode/mcp.json", config)]);
    let up = folder.up();
    up.wait_for_server("my-server  Ready");
    assert_eq!(text(&up.call("my-server/args")), "-y fake --from=client");
}

/// A server of this namespace, called as its prefix.
fn renaming(name: &str, namespace: &str, args: &str) -> String {
    let tools = "tools: {exclude: [env], overrides: [{name: args, as: words}]}";
    let server = server(name, args).replace("spec: {", &format!("spec: {{{tools}, "));
    server.replace("metadata: {", &format!("metadata: {{namespace: {namespace}, "))
}

#[test]
fn a_tool_is_called_by_the_name_that_is_listed_or_by_its_server_and_never_at_another_server() {
    let front = "apiVersion: mcpmesh.io/v1alpha1\nkind: McpGateway\nmetadata: {name: front}\nspec:\n  \
                 authentication: {anonymous: Allow}\n  \
                 servers: {refs: [{name: one, prefix: first}, {name: two}]}\n---\n\
                 apiVersion: mcpmesh.io/v1alpha1\nkind: McpPolicy\nmetadata: {name: p}\nspec:\n  \
                 targetRefs: [{kind: McpGateway, name: front}]\n  \
                 access: [{name: all, effect: Allow, from: [{anyone: {}}]}]\n";
    let (one, two) = (renaming("one", "default", "of-one"), server("two", "of-two"));
    let folder = Folder::new(&[("front.yaml", front), ("one.yaml", &one), ("two.yaml", &two)]);
    let up = folder.up();
    // Whichever of them is first.
    let mut missing = BTreeSet::from(["one", "two"]);
    while !missing.is_empty() {
        let ready = |line: &str| {
            line.strip_prefix("server  ")?.split_once("  Ready").map(|(name, _)| name.to_owned())
        };
        missing.remove(up.line(ready).as_str());
    }
    for name in ["first_words", "first/words"] {
        assert_eq!(text(&up.call(name)), "-y fake@1 of-one", "{name}");
    }
    let refused = |name: &str| {
        let output = Command::new(MCPMESH).args(["call", name, "--url", &up.endpoint]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = refused("team-a/two/args");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("without namespaces"), "{said}");
    let (code, said) = refused("one/args");
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("Unknown tool: one_args (-32602); `mcpmesh tools` lists what this caller has"),
        "{said}"
    );
}

#[test]
fn commands_on_a_folder_take_either_name_and_keep_to_its_objects() {
    let folder = Folder::new(&[("one.yaml", &renaming("one", "team-a", "of-one"))]);
    let call = |name: &str| {
        let mut call = folder.command(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures:/usr/bin:/bin"));
        call.args(["call", name, "-f", "."]).output().unwrap()
    };
    for name in ["team-a/one/words", "team-a/one/args"] {
        assert_eq!(text(&call(name)), "-y fake@1 of-one", "{name}");
    }
    folder.write("one.yaml", &renaming("one", "team-a", "").replace("name: args", "name: nothing"));
    let mut tools = folder.command(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures:/usr/bin:/bin"));
    let listed = tools.args(["tools", "-f", "."]).output().unwrap();
    let said = String::from_utf8_lossy(&listed.stderr).into_owned();
    assert!(said.contains("team-a/one: it has no tool \"nothing\""), "{said}");

    let excluded = call("team-a/one/env");
    let said = String::from_utf8_lossy(&excluded.stderr).into_owned();
    assert_eq!((text(&excluded), excluded.status.code()), (String::new(), Some(1)), "{said}");
    assert!(said.contains("leave env out"), "{said}");
}

#[test]
fn a_missing_runner_is_a_condition_of_its_server_alone() {
    let folder = Folder::new(&[("one.yaml", &server("one", ""))]);
    let up = folder.up_in("/no/programs/here", &[]);
    let reason = up.line(|line| line.strip_prefix("server  one  Failed  -  -  ").map(str::to_owned));
    assert!(reason.starts_with("npx not found: install Node.js"), "{reason}");
}

#[test]
fn a_server_that_ends_says_why_in_the_table() {
    let folder = Folder::new(&[]);
    let after = "\\nnpm error\\nnpm error A complete log of this run can be found in: /x.log\\n    at run (x.js:1)\\nNode.js v22.1.0";
    let env = format!("env: [{{name: FAIL, value: \"ImportError: no module{after}\"}}], args:");
    folder.write("one.yaml", &server("one", "").replace("args:", &env));
    let up = folder.up();
    up.wait_for_server("one  Failed  -  -  ImportError: no module (exit status: 1)");
}

#[test]
fn a_port_that_is_taken_is_named_with_its_option() {
    let folder = Folder::new(&[("one.yaml", &server("one", ""))]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let any = "127.0.0.1:0";
    for (option, others) in [("--listen", ["--metrics", "--admin"]), ("--metrics", ["--listen", "--admin"])] {
        let mut command = folder.command("/no/programs/here");
        command.args(["up", option, &address]).args(others.iter().flat_map(|other| [other, any]));
        let output = command.arg("--state-dir").arg(folder.path("state")).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(&format!("{option} {address}: the port is taken")), "{said}");
    }
}

#[test]
fn a_listener_with_tls_is_served_with_it_and_never_plain() {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let lines = |pem: &str| pem.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let (chain, key) = (lines(&pair.cert.pem()), lines(&pair.signing_key.serialize_pem()));
    let gateway = "apiVersion: mcpmesh.io/v1alpha1\nkind: McpGateway\nmetadata: {name: g}\n\
        spec:\n  listeners: [{name: web, tls: {secretRef: {name: pair}}}]\n  authentication: {anonymous: Allow}\n";
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: pair}}\nstringData:\n  tls.crt: |\n{chain}  tls.key: |\n{key}"
    );
    let folder = Folder::new(&[("g.yaml", gateway), ("pair.yaml", &secret)]);
    let up = folder.up();
    let address = up.endpoint.strip_prefix("https://").and_then(|rest| rest.strip_suffix("/mcp"));
    let mut plain = TcpStream::connect(address.expect(&up.endpoint)).unwrap();
    plain.write_all(b"GET /mcp HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said);
    assert!(!said.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&said));
    let asked = Command::new(MCPMESH).args(["tools", "--url", &up.endpoint]).output().unwrap();
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(asked.status.code() == Some(1) && said.contains("certificate"), "TLS was spoken: {said}");
}
