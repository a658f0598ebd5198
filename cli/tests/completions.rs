//! Completion scripts name every command, and may be read by somebody who has had enough.

use std::process::{Command, Stdio};

#[test]
fn a_reader_that_is_gone_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcpmesh"));
    command.args(["completions", "bash"]).stdout(writer).stderr(Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn the_script_of_each_shell_names_every_command() {
    let run = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_mcpmesh")).args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let help = run(&["--help"]);
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let commands: Vec<_> = commands
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty())
        .collect();
    assert!(commands.contains(&"up") && commands.contains(&"can-i") && commands.len() >= 14, "{commands:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]);
        let words: Vec<_> =
            script.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').collect();
        for name in commands.iter().chain(&["create"]) {
            assert!(words.contains(name), "{shell}: {name}");
        }
        assert!(script.contains("no-watch"), "{shell}");
    }
}
