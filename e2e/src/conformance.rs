//! Runs the official conformance suite against a URL and reads its verdicts.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::process::Process;
use crate::tools::Tools;

/// How long one run may take; some 10 s alone on a machine.
const RUN: Duration = Duration::from_secs(300);

/// How much of a failed check's message is kept; some quote whole lists of tools.
const MESSAGE: usize = 600;

/// Which scenarios to run, and the revision that the suite speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The frozen requirements of a revision.
    Requirements(&'static str),
    /// Every scenario that applies to a revision without a frozen set.
    Suite(&'static str),
}

impl Target {
    /// What must be shown, with the number of scored scenarios.
    pub const ALL: [(Self, usize); 4] = [
        (Self::Requirements("2026-07-28"), 37),
        (Self::Requirements("2025-11-25"), 30),
        (Self::Suite("2025-06-18"), 27),
        (Self::Suite("2025-03-26"), 1),
    ];

    /// The revision of the protocol.
    #[must_use]
    pub fn revision(self) -> &'static str {
        match self {
            Self::Requirements(revision) | Self::Suite(revision) => revision,
        }
    }

    fn arguments(self) -> Vec<&'static str> {
        match self {
            Self::Requirements(revision) => vec!["--requirements", revision],
            Self::Suite(revision) => vec!["--suite", "all", "--spec-version", revision],
        }
    }
}

/// The suite's verdict on one scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// As `conformance list` names it.
    pub name: String,
    /// Whether the suite ticked it.
    pub passed: bool,
    /// Whether it counts for the revision.
    pub scored: bool,
    /// What went wrong, check by check.
    pub failures: Vec<String>,
}

/// One run of the suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was run.
    pub target: Target,
    /// Every scenario, in the suite's order.
    pub scenarios: Vec<Scenario>,
}

impl Report {
    /// Passed and all scenarios, of those that count or of the others.
    #[must_use]
    pub fn score(&self, scored: bool) -> (usize, usize) {
        let all = || self.scenarios.iter().filter(|scenario| scenario.scored == scored);
        (all().filter(|scenario| scenario.passed).count(), all().count())
    }

    /// The failed scenarios that count and what went wrong in them, one line each check; empty when all is well.
    #[must_use]
    pub fn failures(&self) -> String {
        let mut text = String::new();
        for scenario in self.scenarios.iter().filter(|scenario| !scenario.passed) {
            let note = if scenario.scored { "" } else { " (not scored)" };
            let _ = writeln!(text, "{} {}{note}", self.target.revision(), scenario.name);
            for failure in &scenario.failures {
                let _ = writeln!(text, "    {failure}");
            }
        }
        text
    }
}

/// Runs the suite against `url`. One run at a time on a machine: it measures pauses and is heavy on the processor.
///
/// # Errors
/// When the suite cannot be run or prints no summary. Failed scenarios are no error.
pub async fn run(url: &str, target: Target) -> anyhow::Result<Report> {
    let tools = Tools::installed()?;
    let lock = File::create(tools.cache().join("conformance.lock"))?;
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
    let results = tempfile::Builder::new().prefix("mcpmesh-conformance-").tempdir()?;
    let mut command = tools.command(tools.node());
    command.arg(tools.npm_script("conformance")).args(["server", "--url", url]).args(target.arguments());
    command.arg("-o").arg(results.path());
    let mut process = Process::start("conformance", &mut command)?;
    process.exited(RUN).await?;
    process.wait_for_line(RUN, |line| line.starts_with("Total:").then_some(())).await?;
    drop(lock);
    let mut scenarios = parse_summary(&process.stdout());
    if scenarios.is_empty() {
        bail!("the suite printed no verdicts\n{}", process.output());
    }
    for scenario in scenarios.iter_mut().filter(|scenario| !scenario.passed) {
        scenario.failures = read_failures(results.path(), &scenario.name)?;
    }
    Ok(Report { target, scenarios })
}

/// Reads the lines after `=== SUMMARY ===`: first every scenario with its counts, then the names that don't count.
fn parse_summary(text: &str) -> Vec<Scenario> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    for line in text.lines().skip_while(|line| !line.contains("=== SUMMARY ===")) {
        let Some((passed, rest)) = verdict(line.trim_start()) else { continue };
        if let Some((name, _)) = rest.split_once(": ") {
            scenarios.push(Scenario { name: name.to_owned(), passed, scored: true, failures: Vec::new() });
        } else if let Some((name, _)) = rest.split_once(" (") {
            scenarios
                .iter_mut()
                .filter(|scenario| scenario.name == name)
                .for_each(|found| found.scored = false);
        }
    }
    scenarios
}

fn verdict(line: &str) -> Option<(bool, &str)> {
    line.strip_prefix("✓ ").map(|rest| (true, rest)).or_else(|| Some((false, line.strip_prefix("✗ ")?)))
}

/// The messages of the failed checks in `server-SCENARIO-TIME/checks.json`.
fn read_failures(results: &Path, scenario: &str) -> anyhow::Result<Vec<String>> {
    let prefix = format!("server-{scenario}-2");
    let mut failures = Vec::new();
    for entry in std::fs::read_dir(results)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(&prefix) {
            continue;
        }
        let checks = std::fs::read(entry.path().join("checks.json")).context("reading checks.json")?;
        let checks: Vec<Value> = serde_json::from_slice(&checks)?;
        failures.extend(checks.iter().filter(|check| check["status"] == "FAILURE").map(|check| {
            let message =
                check["errorMessage"].as_str().map_or_else(|| check["details"].to_string(), str::to_owned);
            let start: String = message.chars().take(MESSAGE).collect();
            format!("{}: {start}", check["id"].as_str().unwrap_or("?"))
        }));
    }
    Ok(failures)
}

/// A table of runs: one line for each subject and revision.
#[must_use]
pub fn table(runs: &[(&str, Report)]) -> String {
    let mut text = format!("{:<24} {:<12} {:>8} {:>12}\n", "server", "revision", "passed", "not scored");
    for (subject, report) in runs {
        let (passed, all) = report.score(true);
        let (extra, extras) = report.score(false);
        let revision = report.target.revision();
        let _ = writeln!(
            text,
            "{subject:<24} {revision:<12} {:>8} {:>12}",
            format!("{passed}/{all}"),
            format!("{extra}/{extras}")
        );
    }
    text
}

/// Prints a table past the capture of the test runner: `make test` shows it.
///
/// # Errors
/// When stdout is closed.
pub fn print_table(title: &str, runs: &[(&str, Report)]) -> std::io::Result<()> {
    write!(std::io::stdout().lock(), "\n{title}\n{}\n", table(runs))
}

#[cfg(test)]
mod tests {
    use super::{Report, Target, parse_summary, table};

    const SUMMARY: &str = "noise\n✓ not-this: 1 passed, 0 failed\n=== SUMMARY ===\n\
        ✓ ping: 2 passed, 0 failed\n✗ caching: 7 passed, 1 failed\n✗ tasks-lifecycle: 1 passed, 8 failed\n\n\
        Total: 10 passed, 9 failed\n\nNot scored for 2026-07-28: 1 scenario(s) run, 1 failing.\n\
        \x20 ✗ tasks-lifecycle (extension)\n";

    #[test]
    fn the_summary_tells_verdicts_and_what_counts() {
        let report = Report { target: Target::Requirements("2026-07-28"), scenarios: parse_summary(SUMMARY) };
        assert_eq!(report.score(true), (1, 2));
        assert_eq!(report.score(false), (0, 1));
        assert!(report.failures().contains("2026-07-28 caching\n"));
        assert!(table(&[("fixture", report)]).contains("1/2"));
    }
}
