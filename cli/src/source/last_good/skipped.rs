//! Files that are empty and documents that are skipped, as none of ours. One more than at the last reading, in a file that
//! misses an object, may be what is left of it: half written, or with its first lines gone.

use std::collections::{BTreeMap, BTreeSet};

use mcpmesh_compiler::manifest::Unread;
use mcpmesh_compiler::{Diagnostic, Location, ObjectKind, Reason, Severity};

use super::closes;

/// What each file has of it, by how the file is shown.
#[derive(Debug, Default)]
pub(in crate::source) struct Skipped(BTreeMap<String, Vec<Note>>);

#[derive(Debug, Clone, PartialEq)]
struct Note {
    /// What was said of a document; none of an empty file.
    said: Option<String>,
    at: Location,
}

impl Skipped {
    /// Takes note of a file's text and of what was found in it.
    pub(in crate::source) fn note(&mut self, file: &str, text: &str, found: &[Diagnostic]) {
        let empty = || Note { said: None, at: Location { file: file.to_owned(), line: 0, column: 0 } };
        let skipped =
            found.iter().filter(|one| one.reason == Reason::IgnoredKind && one.severity == Severity::Note);
        let skipped = skipped
            .filter_map(|one| Some(Note { said: Some(one.message.clone()), at: one.location.clone()? }));
        let notes = text.trim().is_empty().then(empty).into_iter().chain(skipped).collect();
        self.0.insert(file.to_owned(), notes);
    }

    /// Where something is missing, what may be left of it. There the last reading remains what the next is compared to.
    pub(in crate::source) fn doubts(
        &mut self,
        last: &Self,
        missed: impl Fn(&str) -> BTreeSet<ObjectKind>,
    ) -> (Vec<Unread>, Vec<Diagnostic>) {
        let mut doubts = (Vec::new(), Vec::new());
        for (file, notes) in &mut self.0 {
            let before = last.0.get(file).map(Vec::as_slice).unwrap_or_default();
            let count =
                |notes: &[Note], said: &Note| notes.iter().filter(|note| note.said == said.said).count();
            let new = notes.iter().find(|note| count(notes, note) > count(before, note));
            let Some(new) = new.cloned() else { continue };
            let unread = new.unread(&missed(file));
            if !unread.is_empty() {
                doubts.0.extend(unread);
                doubts.1.push(doubt(&new));
                *notes = before.to_vec();
            }
        }
        doubts
    }
}

impl Note {
    /// What may have been here of what is missed: anything, where that may close something. Servers are missed of an empty
    /// file alone, which an editor leaves for a moment before it writes; they end, and their calls fail, when they go.
    fn unread(&self, missed: &BTreeSet<ObjectKind>) -> Vec<Unread> {
        let text = || Unread::text(self.at.clone());
        if missed.iter().copied().any(closes) {
            return vec![text()];
        }
        let missed = missed.iter().filter(|_| self.said.is_none());
        missed.map(|kind| Unread { kind: Some(*kind), ..text() }).collect()
    }
}

fn doubt(note: &Note) -> Diagnostic {
    let (message, help) = match note.said {
        Some(_) => (
            "an object of this file is missing, and this may be what is left of it",
            "mend it; if the object is meant to be gone, move this into another file",
        ),
        None => (
            "the file is empty, and an object that was in it is missing",
            "write it again; if the object is meant to be gone, remove the file",
        ),
    };
    Diagnostic {
        object: None,
        path: String::new(),
        severity: Severity::Error,
        reason: Reason::InvalidSyntax,
        message: message.to_owned(),
        help: Some(help.to_owned()),
        location: Some(note.at.clone()),
    }
}
