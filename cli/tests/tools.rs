//! `tools` and `call` on a folder: what they print for people and for programs, and where arguments come from.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::fs;
use std::path::PathBuf;

use assert_cmd::Command;
use serde_json::{Value, json};

/// A folder with the server `one` of `default` and the server `two` of `team-a`.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (namespace, name) in [("default", "one"), ("team-a", "two")] {
            let object = format!(
                "apiVersion: mcpmesh.io/v1alpha1\nkind: McpServer\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
                 spec: {{package: {{registry: Npm, name: fake, version: \"1\", args: [{name}]}}}}\n"
            );
            fs::write(folder.path(&format!("{name}.yaml")), object).unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Standard output of a command that succeeds.
    fn run(&self, words: &[&str], input: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcpmesh"));
        command.env("PATH", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures:/usr/bin:/bin"));
        command.env("NO_COLOR", "1").current_dir(self.0.path());
        let done = command.args(words).args(["-f", "."]).write_stdin(input).assert().success();
        String::from_utf8(done.get_output().stdout.clone()).unwrap()
    }
}

#[test]
fn tools_are_listed_by_the_names_that_call_takes() {
    let folder = Folder::new();
    let listed = folder.run(&["tools"], "");
    assert_eq!(
        listed,
        "one/args         Says its arguments\none/env          \none/gate         \n\
         team-a/two/args  Says its arguments\nteam-a/two/env   \nteam-a/two/gate  \n"
    );
    for name in listed.lines().filter_map(|line| line.split(' ').next()).filter(|name| name.ends_with("args"))
    {
        let server = name.trim_end_matches("/args").trim_start_matches("team-a/");
        assert_eq!(folder.run(&["call", name], ""), format!("-y fake@1 {server}\n"));
    }
}

#[test]
fn programs_get_the_definitions_as_json() {
    let listed: Value = serde_json::from_str(&Folder::new().run(&["tools", "-o", "json"], "")).unwrap();
    let tool =
        json!({"name": "args", "description": "Says its arguments", "inputSchema": {"type": "object"}});
    assert_eq!(listed[0], json!({"name": "one/args", "tool": tool}));
    assert_eq!(listed[3]["name"], "team-a/two/args");
    assert_eq!(listed.as_array().unwrap().len(), 6);
}

#[test]
fn programs_get_the_whole_result_as_json() {
    let result: Value =
        serde_json::from_str(&Folder::new().run(&["call", "one/args", "-o", "json"], "")).unwrap();
    assert_eq!(result, json!({"content": [{"type": "text", "text": "-y fake@1 one"}]}));
}

#[test]
fn arguments_come_from_the_command_line_a_file_or_standard_input() {
    let folder = Folder::new();
    fs::write(folder.path("arguments.json"), "{\"n\": 2}").unwrap();
    for (given, input, number) in
        [("{\"n\": 1}", "", 1), ("@arguments.json", "", 2), ("-", "{\n  \"n\": 3\n}\n", 3)]
    {
        let said = folder.run(&["call", "one/args", "--args", given], input);
        assert_eq!(said, format!("-y fake@1 one n={number}\n"), "{given}");
    }
}
