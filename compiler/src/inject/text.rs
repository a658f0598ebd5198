//! A YAML stream cut into its documents, each with the text that it stands in.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::diagnostic::{Diagnostic, Location, Reason, Severity};
use crate::manifest::{self, Place};

/// A document with its separator before it. The pieces of a text, one after the other, are the text.
pub(super) struct Piece<'t> {
    pub(super) text: &'t str,
    pub(super) value: Value,
    places: BTreeMap<String, Place>,
    /// How many lines are before it.
    before: u64,
}

/// Cuts a text. A line that begins with `---` is a separator wherever it stands (YAML 1.2.2, 9.1.2).
pub(super) fn pieces<'t>(file: &str, text: &'t str) -> Result<Vec<Piece<'t>>, Diagnostic> {
    let mut pieces = Vec::new();
    let (mut start, mut end, mut before, mut line) = (0, 0, 0, 0);
    for full in text.split_inclusive('\n') {
        if is_separator(full) && end > start {
            pieces.push(piece(file, text.get(start..end).unwrap_or_default(), before)?);
            (start, before) = (end, line);
        }
        end += full.len();
        line += 1;
    }
    if end > start {
        pieces.push(piece(file, text.get(start..end).unwrap_or_default(), before)?);
    }
    Ok(pieces)
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Nothing but blank lines, comments, directives and ends of documents.
fn is_bare(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#') || line.starts_with('%') || line == "..."
}

fn piece<'t>(file: &str, text: &'t str, before: u64) -> Result<Piece<'t>, Diagnostic> {
    // The separator's own line may hold something, whose column stays.
    let body = if is_separator(text) { text.replacen("---", "   ", 1) } else { text.to_owned() };
    let mut piece = Piece { text, value: Value::Null, places: BTreeMap::new(), before };
    if body.lines().all(is_bare) {
        return Ok(piece);
    }
    let mut documents = manifest::documents(file, &body).map_err(|mut found| {
        found.location = found.location.map(|at| piece.moved(at));
        found
    })?;
    if documents.len() > 1 {
        return Err(Diagnostic {
            object: None,
            path: String::new(),
            severity: Severity::Error,
            reason: Reason::InvalidSyntax,
            message: "two documents without `---` between them".to_owned(),
            help: Some("put it there".to_owned()),
            location: Some(piece.location(file, "")),
        });
    }
    if let Some(document) = documents.pop() {
        (piece.value, piece.places) = (document.value, document.places);
    }
    Ok(piece)
}

impl Piece<'_> {
    /// The text at a JSON pointer.
    pub(super) fn at(&self, pointer: &str) -> Option<&str> {
        self.value.pointer(pointer)?.as_str()
    }

    /// `Deployment name`, as far as it says so.
    pub(super) fn named(&self) -> String {
        let words = [self.at("/kind"), self.at("/metadata/name")];
        words.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    pub(super) fn location(&self, file: &str, path: &str) -> Location {
        let (line, column) = manifest::nearest(&self.places, path);
        self.moved(Location { file: file.to_owned(), line, column })
    }

    fn moved(&self, location: Location) -> Location {
        let line = if location.line > 0 { location.line + self.before } else { 0 };
        Location { line, ..location }
    }

    /// The piece with another value: separator and leading comments stay, JSON stays JSON.
    pub(super) fn rewritten(&self, value: &Value) -> Result<String, serde_saphyr::SerializeError> {
        let separates = |line: &str| is_separator(line) && is_bare(line.trim_start_matches('-'));
        let head = self.text.split_inclusive('\n').take_while(|line| is_bare(line) || separates(line));
        let mut out: String = head.collect();
        let rest = self.text.get(out.len()..).unwrap_or_default();
        if is_separator(rest) {
            out.push_str("---\n");
        }
        let is_json = rest.trim_start_matches('-').trim_start().starts_with('{');
        let made = if is_json { format!("{value:#}") } else { serde_saphyr::to_string(value)? };
        let made = made.trim_end_matches('\n');
        let line_end = if self.text.contains("\r\n") { "\r\n" } else { "\n" };
        out.push_str(&made.replace('\n', line_end));
        out.push_str(line_end);
        Ok(out)
    }
}
