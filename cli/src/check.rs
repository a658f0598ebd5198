//! `mcpmesh check`, and the diagnostics of every other command: what is wrong, where, what to do.

use anstyle::AnsiColor;
use anyhow::Context;
use mcpmesh_compiler::{Diagnostic, Severity};

use crate::args::{CheckArgs, DiagnosticFormat};
use crate::exit::{Failure, Outcome};
use crate::source;

/// Runs `mcpmesh check`.
pub(crate) fn run(args: &CheckArgs) -> Outcome {
    let loaded = if args.cluster {
        // The same complaint where there is nothing at all.
        source::find(&args.paths)?;
        source::load_for_cluster(&args.paths, &args.operator_namespace, &args.remote_ranges)?
    } else {
        source::load(&source::find(&args.paths)?, [0; 32])?
    };
    // Of a pipe it is known only now.
    if loaded.objects.is_empty() && loaded.diagnostics.is_empty() {
        let paths: Vec<String> = args.paths.iter().map(|path| source::display(path)).collect();
        return Err(Failure::failed(format!("no objects found in {}", paths.join(", "))));
    }
    match args.output {
        DiagnosticFormat::Text => {
            loaded.diagnostics.iter().for_each(|diagnostic| anstream::println!("{}", styled(diagnostic)));
            anstream::println!("{}", summary(&loaded));
        }
        DiagnosticFormat::Json => {
            let text = serde_json::to_string_pretty(&loaded.diagnostics).context("cannot write JSON")?;
            anstream::println!("{text}");
        }
        DiagnosticFormat::Github => {
            loaded.diagnostics.iter().for_each(|diagnostic| anstream::println!("{}", github(diagnostic)));
        }
    }
    if loaded.has_errors() { Err(Failure::Said) } else { Ok(()) }
}

fn summary(loaded: &source::Loaded) -> String {
    let inputs = &loaded.inputs;
    let found = |severity| loaded.diagnostics.iter().filter(|found| found.severity == severity).count();
    format!(
        "{}, {}, {}: {}, {}",
        count(inputs.servers().count(), "server", "servers"),
        count(inputs.gateways().count(), "gateway", "gateways"),
        count(inputs.policies().count(), "policy", "policies"),
        count(found(Severity::Error), "error", "errors"),
        count(found(Severity::Warning), "warning", "warnings"),
    )
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Prints diagnostics to stderr, for people.
pub(crate) fn say(diagnostics: &[Diagnostic]) {
    diagnostics.iter().for_each(|diagnostic| anstream::eprintln!("{}", styled(diagnostic)));
}

/// Puts a diagnostic into the log.
pub(crate) fn log(diagnostic: &Diagnostic) {
    // The log says by itself how bad it is.
    let text = diagnostic.to_string().replacen(&format!("{}: ", diagnostic.severity.as_str()), "", 1);
    match diagnostic.severity {
        Severity::Error => tracing::error!("{text}"),
        Severity::Warning => tracing::warn!("{text}"),
        Severity::Note => tracing::info!("{text}"),
    }
}

fn styled(diagnostic: &Diagnostic) -> String {
    let color = match diagnostic.severity {
        Severity::Error => AnsiColor::Red,
        Severity::Warning => AnsiColor::Yellow,
        Severity::Note => AnsiColor::Cyan,
    };
    let style = color.on_default().bold();
    let word = diagnostic.severity.as_str();
    // The first occurrence after the place is the severity's own.
    let text = diagnostic.to_string();
    let start = diagnostic.location.as_ref().map_or(0, |location| location.to_string().len());
    let (place, rest) = text.split_at_checked(start).unwrap_or(("", &text));
    format!("{place}{}", rest.replacen(word, &format!("{style}{word}{style:#}"), 1))
}

/// A workflow command (GitHub Actions, "Workflow commands").
fn github(diagnostic: &Diagnostic) -> String {
    let command = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "notice",
    };
    let mut properties = Vec::new();
    if let Some(location) = &diagnostic.location {
        properties.push(format!("file={}", property(&location.file)));
        if location.line > 0 {
            properties.push(format!("line={},col={}", location.line, location.column));
        }
    }
    properties.push(format!("title={}", property(&diagnostic.reason.to_string())));
    let without_place = Diagnostic { location: None, ..diagnostic.clone() };
    format!("::{command} {}::{}", properties.join(","), data(&without_place.to_string()))
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use mcpmesh_compiler::{Location, Reason};

    use super::*;

    fn diagnostic() -> Diagnostic {
        Diagnostic {
            object: None,
            path: "spec.x".to_owned(),
            severity: Severity::Error,
            reason: Reason::InvalidField,
            message: "100% wrong\nreally".to_owned(),
            help: Some("mend it".to_owned()),
            location: Some(Location { file: "a,b.yaml".to_owned(), line: 3, column: 7 }),
        }
    }

    #[test]
    fn a_workflow_command_cannot_be_broken_by_its_text() {
        let expected = "::error file=a%2Cb.yaml,line=3,col=7,title=InvalidField::error: spec.x: 100%25 wrong%0Areally; mend it";
        assert_eq!(github(&diagnostic()), expected);
    }

    #[test]
    fn the_place_comes_first_so_that_editors_can_jump_there() {
        assert!(
            anstream::adapter::strip_str(&styled(&diagnostic()))
                .to_string()
                .starts_with("a,b.yaml:3:7: error: ")
        );
    }
}
