//! What is read from a pipe, and what is written where there is no room.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

const SERVER: &str = "apiVersion: mcpmesh.io/v1alpha1\nkind: McpServer\nmetadata: {name: a}\nspec: {remote: {url: https://x.example/mcp}}\n";

fn mcpmesh(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcpmesh"));
    command.args(args).env("NO_COLOR", "1").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(output: &Output) -> (Option<i32>, String) {
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn what_comes_through_a_pipe_is_checked_as_a_file_is() {
    let check = |input: &str| {
        let mut child = mcpmesh(&["check", "/dev/stdin"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        text(&child.wait_with_output().unwrap())
    };
    assert_eq!(
        check(SERVER),
        (Some(0), "1 server, 0 gateways, 0 policies: 0 errors, 0 warnings\n".to_owned())
    );
    let (code, said) = check(&SERVER.replace("url", "uri"));
    assert!(code == Some(1) && said.starts_with("/dev/stdin:4:17: error: McpServer default/a: "), "{said}");
    assert_eq!(check(""), (Some(1), "error: no objects found in /dev/stdin\n".to_owned()));
}

#[test]
fn a_full_disk_is_an_error_like_any_other() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = mcpmesh(&["key", "create", "--owner", "ann"]).stdout(full).output().unwrap();
    let said = "error: cannot write to standard output: No space left on device (os error 28)\n".to_owned();
    assert_eq!(text(&output), (Some(1), said));
}
