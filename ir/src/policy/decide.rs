//! The one decision: lists, calls, completion and `can-i` all ask here (product.md, semantics 2 and 3).

use std::hash::{Hash, Hasher};

use super::prepared::{Caller, Prepared, PreparedLevel, PreparedLimit, PreparedRule, Target};
use super::{Dimension, Effect, Mode};
use crate::gateway::LevelKind;
use crate::id::PolicyId;

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on.
    Allow,
    /// Answers as if the object did not exist.
    Deny,
}

/// Why. Each is a value of the metric's `reason` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Every level passed.
    Allowed,
    /// An enforced Deny matched.
    DeniedByRule,
    /// This level needs a matching Allow and has none.
    NoMatchingAllow(LevelKind),
    /// A policy of this level could not be understood.
    LevelClosed(LevelKind),
    /// The server is not attached to this gateway.
    UnknownServer,
}

impl Reason {
    /// A fixed word for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::DeniedByRule => "denied_by_rule",
            Self::NoMatchingAllow(_) => "no_matching_allow",
            Self::LevelClosed(_) => "policy_invalid",
            Self::UnknownServer => "unknown_server",
        }
    }
}

/// The rule that decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleRef<'p> {
    /// Its policy.
    pub policy: &'p PolicyId,
    /// Its name there; none when the policy as a whole closed its level.
    pub rule: Option<&'p str>,
    /// The level that it spoke at.
    pub level: LevelKind,
}

/// What would have been answered were the Audit policies enforced, where that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditNote<'p> {
    /// The other answer.
    pub verdict: Verdict,
    /// Its reason.
    pub reason: Reason,
    /// Its rule.
    pub rule: Option<RuleRef<'p>>,
}

/// An answer with its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'p> {
    /// The answer.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The rule that decided: the Deny, or the Allow at the gateway's level.
    pub rule: Option<RuleRef<'p>>,
    /// What Audit policies would have changed.
    pub audit: Option<AuditNote<'p>>,
}

impl Decision<'_> {
    /// True for [`Verdict::Allow`].
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.verdict == Verdict::Allow
    }
}

/// Judges one caller's use of one object. Pure: equal arguments, equal answers.
#[must_use]
pub fn decide<'p>(prepared: &'p Prepared, caller: &Caller, target: &Target<'_>) -> Decision<'p> {
    let enforced = Judge { prepared, caller, target, audit: false }.judge();
    let audit = prepared
        .has_audit()
        .then(|| Judge { prepared, caller, target, audit: true }.judge())
        .filter(|(verdict, ..)| *verdict != enforced.0)
        .map(|(verdict, reason, rule)| AuditNote { verdict, reason, rule });
    let (verdict, reason, rule) = enforced;
    Decision { verdict, reason, rule, audit }
}

type Answer<'p> = (Verdict, Reason, Option<RuleRef<'p>>);

struct Judge<'p, 'a> {
    prepared: &'p Prepared,
    caller: &'a Caller,
    target: &'a Target<'a>,
    /// Whether Audit policies take part.
    audit: bool,
}

impl<'p> Judge<'p, '_> {
    fn judge(&self) -> Answer<'p> {
        let Some(server) = self.prepared.servers.get(self.target.server) else {
            return (Verdict::Deny, Reason::UnknownServer, None);
        };
        let levels = || self.prepared.gateway_levels.iter().chain(&server.levels);
        if let Some(rule) = levels().find_map(|level| self.matching(level, &server.text, Effect::Deny)) {
            return (Verdict::Deny, Reason::DeniedByRule, Some(rule));
        }
        let mut allowed_by = None;
        let mut gateway_allows = false;
        for level in levels() {
            if let Some(policy) = &level.closed {
                let rule = RuleRef { policy, rule: None, level: level.kind };
                return (Verdict::Deny, Reason::LevelClosed(level.kind), Some(rule));
            }
            match self.matching(level, &server.text, Effect::Allow) {
                Some(rule) if level.kind == LevelKind::Gateway => {
                    gateway_allows = true;
                    allowed_by = Some(rule);
                }
                Some(_) => {}
                None if level.kind == LevelKind::Gateway || self.has_allow(level) => {
                    return (Verdict::Deny, Reason::NoMatchingAllow(level.kind), None);
                }
                None => {}
            }
        }
        if gateway_allows {
            (Verdict::Allow, Reason::Allowed, allowed_by)
        } else {
            (Verdict::Deny, Reason::NoMatchingAllow(LevelKind::Gateway), None)
        }
    }

    fn rules(&self, level: &'p PreparedLevel) -> impl Iterator<Item = (&'p PolicyId, &'p PreparedRule)> {
        let audit = self.audit;
        level
            .policies
            .iter()
            .filter_map(|&index| self.prepared.policies.get(index))
            .filter(move |policy| audit || policy.mode == Mode::Enforce)
            .flat_map(|policy| policy.rules.iter().map(move |rule| (&policy.id, rule)))
    }

    fn has_allow(&self, level: &'p PreparedLevel) -> bool {
        self.rules(level).any(|(_, rule)| rule.effect == Effect::Allow)
    }

    fn matching(&self, level: &'p PreparedLevel, server: &str, effect: Effect) -> Option<RuleRef<'p>> {
        self.rules(level)
            .filter(|(_, rule)| rule.effect == effect)
            .find(|(_, rule)| {
                rule.from.iter().any(|&subject| self.caller.is(subject))
                    && rule.to.matches(server, self.target, effect)
            })
            .map(|(policy, rule)| RuleRef { policy, rule: Some(&rule.name), level: level.kind })
    }
}

/// One bucket to take a token from.
#[derive(Debug, Clone, Copy)]
pub struct Charge<'p> {
    /// The limit.
    pub limit: &'p PreparedLimit,
    group: Option<&'p str>,
}

impl Charge<'_> {
    /// Feeds what tells this bucket from the limit's others.
    pub fn hash_key<H: Hasher>(&self, caller: &Caller, target: &Target<'_>, state: &mut H) {
        for dimension in &self.limit.per {
            match dimension {
                Dimension::Principal => caller.principal.hash(state),
                Dimension::Group => self.group.hash(state),
                Dimension::Tool => {
                    target.server.hash(state);
                    target.object.use_method().hash(state);
                    target.object.name().hash(state);
                }
                Dimension::Server => target.server.hash(state),
            }
        }
    }
}

impl Prepared {
    fn has_audit(&self) -> bool {
        self.policies.iter().any(|policy| policy.mode == Mode::Audit)
    }

    /// Every bucket that a permitted call takes from. `to` without methods means calls, gets, reads and completion,
    /// which are all that is ever charged (decisions.md 8).
    pub fn charges<'p>(
        &'p self,
        caller: &'p Caller,
        target: &'p Target<'p>,
    ) -> impl Iterator<Item = Charge<'p>> {
        let server = self.servers.get(target.server);
        let limits = server.into_iter().flat_map(move |server| {
            let policies = server.limiting.iter().filter_map(|&index| self.policies.get(index));
            policies
                .flat_map(|policy| &policy.limits)
                .filter(move |limit| limit.to.matches(&server.text, target, Effect::Deny))
        });
        limits
            .filter(|limit| limit.from.is_empty() || limit.from.iter().any(|&subject| caller.is(subject)))
            .flat_map(move |limit| limit.buckets(caller))
    }

    /// Every limit in order of its index, for building and carrying over limiters.
    pub fn limits(&self) -> impl Iterator<Item = &PreparedLimit> {
        self.policies.iter().flat_map(|policy| &policy.limits)
    }
}

impl PreparedLimit {
    /// At least one for a caller that `from` means: by group, those that it names no group of share one.
    fn buckets<'p>(&'p self, caller: &'p Caller) -> impl Iterator<Item = Charge<'p>> {
        let by_group = self.per.contains(&Dimension::Group);
        let mut groups = self
            .groups
            .iter()
            .filter(move |(_, subjects)| by_group && subjects.iter().any(|&subject| caller.is(subject)))
            .map(|(name, _)| Charge { limit: self, group: Some(name) })
            .peekable();
        let one = groups.peek().is_none().then_some(Charge { limit: self, group: None });
        groups.chain(one)
    }
}
