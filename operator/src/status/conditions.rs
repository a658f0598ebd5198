//! Conditions: what changed carries the time of its change, what did not keeps its own.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use mcpmesh_compiler::Diagnostic;
use mcpmesh_crds::condition;

use super::{errors, messages};

/// True, False or Unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    True,
    False,
    Unknown,
}

impl Answer {
    fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// What a condition says: answer, reason, message.
pub(super) type Said = (Answer, String, String);

pub(super) fn said(answer: Answer, reason: &str, message: impl Into<String>) -> Said {
    (answer, reason.to_owned(), message.into())
}

/// Conditions of one object while they are found.
pub(super) struct Conditions<'a> {
    before: &'a [Condition],
    generation: Option<i64>,
    now: Timestamp,
    list: Vec<Condition>,
}

/// The characters that the API server takes in a condition's message (meta/v1 Condition, maxLength).
const MESSAGE: usize = 32_768;

/// At most so many characters; what was cut ends in an ellipsis.
pub(super) fn cut(text: String, most: usize) -> String {
    if text.chars().nth(most).is_none() {
        return text;
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

impl<'a> Conditions<'a> {
    pub(super) fn new(before: &'a [Condition], generation: Option<i64>, now: Timestamp) -> Self {
        Self { before, generation, now, list: Vec::new() }
    }

    pub(super) fn set(&mut self, kind: &str, (answer, reason, message): Said) {
        let status = answer.as_str().to_owned();
        let before = self.before.iter().find(|one| one.type_ == kind && one.status == status);
        let since = before.map_or(Time(self.now), |one| one.last_transition_time.clone());
        self.list.push(Condition {
            type_: kind.to_owned(),
            status,
            reason,
            message: cut(message, MESSAGE),
            observed_generation: self.generation,
            last_transition_time: since,
        });
    }

    /// Accepted, and ResolvedRefs where `references` says so, of what was found and of what proxies reject. What stops
    /// the object for good, if anything, becomes Stalled and is returned.
    pub(super) fn of_findings(
        &mut self,
        findings: &[Diagnostic],
        rejected: Option<String>,
        references: bool,
    ) -> Option<Said> {
        let (own, refs) = errors(findings);
        let wrong = |list: &[&Diagnostic]| {
            list.first().map(|first| said(Answer::False, &first.reason.to_string(), messages(list)))
        };
        let rejected = rejected.map(|why| said(Answer::False, "RejectedByProxy", why));
        let mut unaccepted = wrong(&own);
        let mut unresolved = wrong(&refs);
        if !references {
            unaccepted = unaccepted.or_else(|| unresolved.take());
        }
        let unaccepted = unaccepted.or(rejected);
        let fine = || said(Answer::True, "Accepted", "");
        self.set(condition::ACCEPTED, unaccepted.clone().unwrap_or_else(fine));
        if references {
            let fine = || said(Answer::True, "ResolvedRefs", "");
            self.set(condition::RESOLVED_REFS, unresolved.clone().unwrap_or_else(fine));
        }
        let stopped = unaccepted.or(unresolved)?;
        let (_, reason, message) = stopped.clone();
        self.set(condition::STALLED, (Answer::True, reason, message));
        Some(stopped)
    }

    pub(super) fn finish(mut self) -> Vec<Condition> {
        self.list.sort_by(|left, right| left.type_.cmp(&right.type_));
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_shows_it() {
        assert_eq!(cut("ä".repeat(4), 4), "ääää");
        assert_eq!(cut("ä".repeat(5), 4), "äää…");
    }

    #[test]
    fn a_message_is_no_longer_than_the_api_server_takes() {
        let mut conditions = Conditions::new(&[], None, Timestamp::UNIX_EPOCH);
        conditions.set("Ready", said(Answer::False, "Broken", "ä".repeat(40_000)));
        assert_eq!(conditions.list[0].message.chars().count(), MESSAGE);
    }
}
