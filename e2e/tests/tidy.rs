//! What the house asks for and no lint checks (ARCHITECTURE.md, CONTRIBUTING.md): sizes, names, headers, words that
//! must not stay, and what each crate must never reach.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use mcpmesh_e2e::tools::crate_folder;

/// Lines of a file without its tests.
const LONGEST_FILE: usize = 600;

/// Lines of a module's `//!` header.
const LONGEST_HEADER: usize = 5;

/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 9] =
    ["util", "utils", "helper", "helpers", "common", "misc", "manager", "impl", "mod"];

/// Words that must not stay in code, in pieces so that this file may hold them.
const LEFTOVERS: [&str; 6] = [
    concat!("to", "do!("),
    concat!("db", "g!("),
    concat!("unimpl", "emented!("),
    concat!("#[ig", "nore"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

/// What `compile` must not read: equal inputs make equal bytes (house.md, decisions.md 9).
const IMPURE: [&str; 6] =
    ["std::fs", "std::env", "std::process", "SystemTime::now", "Instant::now", "Timestamp::now"];

/// What a crate must never use, not even through another (decisions.md 13).
const NEVER: [(&str, &[&str]); 4] = [
    ("mcpmesh-crds", &["tokio", "hyper", "mcpmesh-ir", "mcpmesh-compiler", "mcpmesh-proxy"]),
    ("mcpmesh-ir", &["kube", "kube-core", "k8s-openapi", "tokio", "hyper", "mcpmesh-crds"]),
    ("mcpmesh-compiler", &["kube-client", "tokio", "hyper", "rand", "getrandom", "mcpmesh-proxy"]),
    ("mcpmesh-proxy", &["kube", "kube-core", "k8s-openapi", "mcpmesh-crds", "mcpmesh-compiler"]),
];

/// One of our own source files.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// Of a test target, or a module that exists for tests only.
    fn is_test(&self) -> bool {
        self.path.components().any(|part| part.as_os_str() == "tests") || self.stem() == "tests"
    }

    fn stem(&self) -> &str {
        self.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
    }

    /// The lines of the product, and those of the tests below them.
    fn halves(&self) -> (&str, &str) {
        if self.is_test() {
            return ("", &self.text);
        }
        self.text.split_at(self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len()))
    }

    fn is_in(&self, folder: &str) -> bool {
        self.path.starts_with(root().join(folder))
    }
}

fn root() -> PathBuf {
    crate_folder().join("..")
}

/// Every Rust file of ours: of each crate the sources, tests and fuzz targets.
fn sources() -> anyhow::Result<Vec<Source>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root())? {
        let folder = entry?.path();
        if folder.join("Cargo.toml").is_file() {
            for part in ["src", "tests", "benches", "fuzz/src", "fuzz/fuzz_targets"] {
                collect(&folder.join(part), &mut found)?;
            }
        }
    }
    ensure!(found.len() > 50, "only {} files found: is this the workspace?", found.len());
    found.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(found)
}

fn collect(folder: &Path, found: &mut Vec<Source>) -> anyhow::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(Source { text: fs::read_to_string(&path)?, path });
        }
    }
    Ok(())
}

/// Fails with every file to which `complaint` has something to say.
fn nothing_to_say_of(complaint: impl Fn(&Source) -> Vec<String>) -> anyhow::Result<()> {
    let mut said = Vec::new();
    for source in sources()? {
        said.extend(complaint(&source).iter().map(|what| format!("{}: {what}", source.path.display())));
    }
    assert!(said.is_empty(), "\n{}", said.join("\n"));
    Ok(())
}

/// The words that occur in a text, each with its line.
fn occurring(text: &str, words: &[&str]) -> Vec<String> {
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(number, line)| {
            let word = words.iter().find(|word| line.contains(**word))?;
            Some(format!("`{word}` in its line {}: {}", number + 1, line.trim()))
        })
        .collect()
}

#[test]
fn files_are_short() -> anyhow::Result<()> {
    nothing_to_say_of(|source| {
        let lines = source.halves().0.lines().count();
        (lines > LONGEST_FILE).then(|| format!("{lines} lines, at most {LONGEST_FILE}")).into_iter().collect()
    })
}

#[test]
fn modules_have_names_that_say_something() -> anyhow::Result<()> {
    nothing_to_say_of(|source| {
        let name = source.stem();
        EMPTY_NAMES.contains(&name).then(|| format!("`{name}` is no name")).into_iter().collect()
    })
}

#[test]
fn modules_open_with_what_they_are_for() -> anyhow::Result<()> {
    nothing_to_say_of(|source| {
        // A `tests.rs` is what its parent's header says, tested.
        let header = source.text.lines().take_while(|line| line.starts_with("//!")).count();
        let wrong = header > LONGEST_HEADER || (header == 0 && source.stem() != "tests");
        wrong.then(|| format!("a header of {header} lines, not 1 to {LONGEST_HEADER}")).into_iter().collect()
    })
}

#[test]
fn nothing_is_left_over() -> anyhow::Result<()> {
    nothing_to_say_of(|source| occurring(&source.text, &LEFTOVERS))
}

/// A sleep on the real clock is a test that is slow and flaky: only a paused clock may, and a loop that looks again.
#[test]
fn no_test_waits_for_the_clock() -> anyhow::Result<()> {
    nothing_to_say_of(|source| {
        let tests = source.halves().1;
        if tests.contains("start_paused") {
            return occurring(tests, &[concat!("thread::", "sleep(")]);
        }
        let looking_again = |line: &str| line.contains("while ") || line.contains("loop {");
        let pairs = tests.lines().zip(tests.lines().skip(1));
        let slept =
            pairs.filter(|(before, line)| line.contains(concat!("sl", "eep(")) && !looking_again(before));
        slept.map(|(_, line)| format!("sleeps: {}", line.trim())).collect()
    })
}

#[test]
fn compiling_reads_nothing_but_its_inputs() -> anyhow::Result<()> {
    let pure = ["ir/src", "compiler/src", "proxy/src/mcp"];
    nothing_to_say_of(|source| {
        if !pure.iter().any(|folder| source.is_in(folder)) {
            return Vec::new();
        }
        occurring(source.halves().0, &IMPURE)
    })
}

#[test]
fn no_crate_reaches_what_it_must_never_use() -> anyhow::Result<()> {
    let mut said = Vec::new();
    for (package, never) in NEVER {
        let arguments = ["tree", "--locked", "-e", "normal", "--prefix", "none", "--format", "{p}", "-p"];
        let output = Command::new(env!("CARGO"))
            .args(arguments)
            .arg(package)
            .current_dir(root())
            .output()
            .context("cargo tree")?;
        ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
        let tree = String::from_utf8(output.stdout)?;
        let reached = |name: &&&str| tree.lines().any(|line| line.split(' ').next() == Some(**name));
        said.extend(never.iter().filter(reached).map(|name| format!("{package} reaches {name}")));
    }
    assert!(said.is_empty(), "\n{}", said.join("\n"));
    Ok(())
}
