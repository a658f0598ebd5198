//! What `can-i` answers, for people and for programs.

use anstyle::AnsiColor;
use mcpmesh_compiler::{IMPLIED_POLICY, Location};
use mcpmesh_ir::GatewayId;
use mcpmesh_ir::gateway::LevelKind;
use mcpmesh_ir::policy::{PreparedLimit, Reason};
use serde::Serialize;

use super::Question;
use crate::args::{CanIArgs, Verb};

/// Yes or no, and why.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    pub(super) allowed: bool,
    /// A fixed word, as in the access log and the metric.
    pub(super) reason: &'static str,
    /// The same for people.
    pub(super) because: String,
    pub(super) gateway: String,
    pub(super) user: Option<String>,
    pub(super) server: String,
    pub(super) object: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) decided_by: Option<ByRule>,
    /// Where a level lets nothing pass that no Allow rule matches: the ones that it has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) allows: Vec<ByRule>,
    /// The rule of an Audit policy that would turn the answer round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) audit: Option<ByRule>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) limits: Vec<LimitOf>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) notes: Vec<String>,
    #[serde(skip)]
    verb: Option<Verb>,
}

/// A rule and where it stands.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ByRule {
    pub(super) policy: String,
    /// None when the policy as a whole closed its level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rule: Option<String>,
    pub(super) level: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) location: Option<Location>,
}

/// A limit that a call is charged to.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LimitOf {
    policy: String,
    limit: String,
    count: u32,
    window_ms: u64,
    burst: u32,
    enforced: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<Location>,
}

impl LimitOf {
    pub(super) fn new(limit: &PreparedLimit, location: Option<Location>) -> Self {
        Self {
            policy: limit.policy.to_string(),
            limit: limit.name.clone(),
            count: limit.rate.count,
            window_ms: limit.rate.window_ms,
            burst: limit.rate.burst,
            enforced: limit.enforced,
            location,
        }
    }

    fn text(&self) -> String {
        let window = match self.window_ms {
            ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
            ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
            ms => format!("{ms}ms"),
        };
        let audit = if self.enforced { "" } else { ", only recorded" };
        let Self { policy, limit, count, burst, .. } = self;
        format!("{count} in {window}, {burst} at once ({limit} of {policy}{audit})")
    }
}

impl Answer {
    pub(super) fn of(args: &CanIArgs, gateway: &GatewayId, question: &Question) -> Self {
        Self {
            allowed: false,
            reason: "",
            because: String::new(),
            gateway: gateway.to_string(),
            user: args.user.clone(),
            server: question.server.to_string(),
            object: question.object.clone(),
            decided_by: None,
            allows: Vec::new(),
            audit: None,
            limits: Vec::new(),
            notes: Vec::new(),
            verb: Some(args.verb),
        }
    }

    pub(super) fn no(mut self, reason: &'static str, because: &str) -> Self {
        self.reason = reason;
        because.clone_into(&mut self.because);
        self
    }

    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Of the answers that a user's keys have: what can be done with any of them can be done.
    pub(super) fn best(judged: Vec<(Option<String>, Self)>) -> Self {
        let chosen = judged.iter().position(|(_, answer)| answer.allowed).unwrap_or_default();
        let mut answers = judged.into_iter();
        let mut others: Vec<_> = answers.by_ref().take(chosen).collect();
        let best = answers.next().map(|(_, answer)| answer);
        others.extend(answers);
        let mut best = best.unwrap_or_default();
        for (key, other) in others {
            let word = if other.allowed { "yes" } else { "no" };
            best.note(format!("with the API key {}: {word}, {}", key.unwrap_or_default(), other.because));
        }
        best
    }

    /// The rules that would have let it pass.
    pub(super) fn candidates(&mut self, level: LevelKind, allows: Vec<ByRule>) {
        if allows.is_empty() {
            self.because = format!("no policy at the {}'s level has an Allow rule", super::level(level));
        }
        self.allows = allows;
    }

    pub(super) fn decided(&mut self, allowed: bool, reason: Reason, by: Option<ByRule>) {
        self.allowed = allowed;
        self.reason = reason.as_str();
        self.because = match reason {
            Reason::Allowed => "every level passes".to_owned(),
            Reason::DeniedByRule => "a Deny rule matches".to_owned(),
            Reason::NoMatchingAllow(level) => {
                format!("no Allow rule at the {}'s level matches", super::level(level))
            }
            Reason::LevelClosed(level) => {
                format!("an invalid policy closes the {}'s level: see `mcpmesh check`", super::level(level))
            }
            Reason::UnknownServer => "the server is not behind this gateway".to_owned(),
        };
        self.decided_by = by;
    }

    /// Prints it for people.
    pub(super) fn print(&self) {
        let (word, color) = if self.allowed { ("yes", AnsiColor::Green) } else { ("no", AnsiColor::Red) };
        let style = color.on_default().bold();
        let verb = match self.verb {
            Some(Verb::Read) => "read",
            Some(Verb::Get) => "get",
            _ => "call",
        };
        let user = self.user.as_deref().unwrap_or("a caller without credentials");
        anstream::println!("{style}{word}{style:#}: {user}, {verb} {} of {}", self.object, self.server);
        row("because", &self.because);
        if let Some(by) = &self.decided_by {
            by.print();
        }
        for by in &self.allows {
            let at = by.location.as_ref().map(|location| format!(" ({location})")).unwrap_or_default();
            row("allows", &format!("{}{at}", by.text()));
        }
        if let Some(by) = &self.audit {
            row("audit", &format!("{} would turn this round", by.text()));
        }
        row("gateway", &self.gateway);
        self.limits.iter().for_each(|limit| row("limit", &limit.text()));
        self.notes.iter().for_each(|note| row("note", note));
    }
}

impl ByRule {
    fn print(&self) {
        row("rule", &self.text());
        if let Some(location) = &self.location {
            row("at", &location.to_string());
        }
    }

    fn text(&self) -> String {
        if self.policy == format!("{}/{}", IMPLIED_POLICY.0, IMPLIED_POLICY.1) {
            return "none needed: without an McpGateway every server is open to whoever is let in".to_owned();
        }
        match &self.rule {
            Some(rule) => format!("{rule} of McpPolicy {}, at the {}'s level", self.policy, self.level),
            None => format!("McpPolicy {}, at the {}'s level", self.policy, self.level),
        }
    }
}

fn row(name: &str, text: &str) {
    anstream::println!("  {name:<8} {text}");
}
