//! Policies with their matchers built, and the two things that are judged: a caller and a target.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::matcher::{InvalidGlob, ToMatcher, subject_matches};
use super::{Dimension, Effect, Limit, Mode, Policy, Rate, Subject};
use crate::catalog::Hints;
use crate::gateway::{Gateway, Level, LevelKind};
use crate::id::{GatewayId, PolicyId, ServerId};

/// Who calls, as authentication found it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The gateway that authenticated the caller.
    pub gateway: GatewayId,
    /// Whose word it took.
    pub issuer: Issuer,
    /// The user's name there; none for an unauthenticated caller.
    pub user: Option<String>,
    /// The user's groups there.
    pub groups: Vec<String>,
}

impl Identity {
    /// A caller without credentials.
    #[must_use]
    pub fn anonymous(gateway: GatewayId) -> Self {
        Self { gateway, issuer: Issuer::Anonymous, user: None, groups: Vec::new() }
    }

    /// Names the caller together with who vouches for it: what handles and limits are bound to.
    #[must_use]
    pub fn principal(&self) -> String {
        match (&self.issuer, &self.user) {
            (Issuer::ApiKey, Some(user)) => format!("gateway:{}#{user}", self.gateway),
            (Issuer::Token(issuer), Some(user)) => format!("{issuer}#{user}"),
            _ => "anonymous".to_owned(),
        }
    }
}

/// Whose word an identity rests on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Issuer {
    /// Nobody's.
    Anonymous,
    /// An API key of the gateway.
    ApiKey,
    /// A token of this issuer.
    Token(String),
}

/// An identity and which of the prepared subjects it matches. Valid for the [`Prepared`] that made it.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who it is.
    pub identity: Identity,
    /// [`Identity::principal`], made once.
    pub principal: String,
    class: Box<[u64]>,
}

impl Caller {
    /// Callers with equal classes get equal decisions: the key under which filtered lists are kept.
    #[must_use]
    pub fn class(&self) -> &[u64] {
        &self.class
    }

    pub(super) fn is(&self, subject: usize) -> bool {
        self.class.get(subject / 64).is_some_and(|word| word >> (subject % 64) & 1 == 1)
    }
}

/// What is asked for, by its stable identity.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The server.
    pub server: &'a ServerId,
    /// The MCP method.
    pub method: &'a str,
    /// The object of the method.
    pub object: Object<'a>,
}

/// An object of a server, by the upstream's own name.
#[derive(Debug, Clone, Copy)]
pub enum Object<'a> {
    /// A tool, with the hints that its McpServer pins and those that the upstream claims.
    Tool {
        /// The upstream's name.
        name: &'a str,
        /// From the McpServer's overrides.
        pinned: Hints,
        /// From the upstream.
        claimed: Hints,
    },
    /// A prompt.
    Prompt {
        /// The upstream's name.
        name: &'a str,
    },
    /// A resource, or a template standing for its resources.
    Resource {
        /// The upstream's URI.
        uri: &'a str,
    },
}

impl<'a> Object<'a> {
    /// The method by which such an object is used.
    #[must_use]
    pub fn use_method(&self) -> &'static str {
        match self {
            Self::Tool { .. } => "tools/call",
            Self::Prompt { .. } => "prompts/get",
            Self::Resource { .. } => "resources/read",
        }
    }

    /// The upstream's name or URI.
    #[must_use]
    pub fn name(&self) -> &'a str {
        match self {
            Self::Tool { name, .. } | Self::Prompt { name } => name,
            Self::Resource { uri } => uri,
        }
    }
}

/// Everything that one gateway's calls are judged by. Immutable; built off the request path.
#[derive(Debug)]
pub struct Prepared {
    subjects: Vec<Subject>,
    pub(super) policies: Vec<PreparedPolicy>,
    pub(super) gateway_levels: Vec<PreparedLevel>,
    pub(super) servers: HashMap<ServerId, PreparedServer>,
}

#[derive(Debug)]
pub(super) struct PreparedServer {
    /// `namespace/name`, made once.
    pub(super) text: String,
    pub(super) levels: Vec<PreparedLevel>,
    /// Indices of every policy on the way to this server, each once: a limit is charged once a call.
    pub(super) limiting: Vec<usize>,
}

#[derive(Debug)]
pub(super) struct PreparedLevel {
    pub(super) kind: LevelKind,
    pub(super) policies: Vec<usize>,
    pub(super) closed: Option<PolicyId>,
}

#[derive(Debug)]
pub(super) struct PreparedPolicy {
    pub(super) id: PolicyId,
    pub(super) mode: Mode,
    pub(super) rules: Vec<PreparedRule>,
    pub(super) limits: Vec<PreparedLimit>,
}

#[derive(Debug)]
pub(super) struct PreparedRule {
    pub(super) name: String,
    pub(super) effect: Effect,
    pub(super) from: Vec<usize>,
    pub(super) to: ToMatcher,
}

/// A limit with its matchers.
#[derive(Debug)]
pub struct PreparedLimit {
    /// Its place among [`Prepared::limits`].
    pub index: usize,
    /// The policy.
    pub policy: PolicyId,
    /// The limit's name there.
    pub name: String,
    /// How much.
    pub rate: Rate,
    /// What buckets are kept apart by.
    pub per: Vec<Dimension>,
    /// False in an Audit policy: counted, never refused.
    pub enforced: bool,
    pub(super) from: Vec<usize>,
    /// The groups that `from` names, each once, with the subjects that name it.
    pub(super) groups: BTreeMap<String, Vec<usize>>,
    pub(super) to: ToMatcher,
}

impl Prepared {
    /// Builds the matchers. A policy that is missing or has a bad glob closes the levels that name it, and is
    /// returned with its reason: an Audit policy is dropped instead, since it never denies.
    pub fn new(
        gateway: &Gateway,
        policies: &BTreeMap<PolicyId, Policy>,
    ) -> (Self, Vec<(PolicyId, InvalidGlob)>) {
        let mut build = Build::default();
        for (id, policy) in policies {
            build.add(id, policy);
        }
        let gateway_levels = build.levels(&gateway.levels);
        let mut servers = HashMap::new();
        for attachment in &gateway.servers {
            let levels = build.levels(&attachment.levels);
            let mut limiting: Vec<usize> = gateway_levels
                .iter()
                .chain(&levels)
                .flat_map(|level| level.policies.iter().copied())
                .collect();
            limiting.sort_unstable();
            limiting.dedup();
            limiting
                .retain(|&policy| build.policies.get(policy).is_some_and(|policy| !policy.limits.is_empty()));
            let text = attachment.server.to_string();
            servers.insert(attachment.server.clone(), PreparedServer { text, levels, limiting });
        }
        let Build { subjects, policies, rejected, .. } = build;
        (Self { subjects, policies, gateway_levels, servers }, rejected)
    }

    /// Classifies a caller: afterwards a decision looks at bits only.
    #[must_use]
    pub fn caller(&self, identity: Identity) -> Caller {
        let mut class = vec![0u64; self.subjects.len().div_ceil(64)].into_boxed_slice();
        for (index, subject) in self.subjects.iter().enumerate() {
            if subject_matches(subject, &identity)
                && let Some(word) = class.get_mut(index / 64)
            {
                *word |= 1 << (index % 64);
            }
        }
        Caller { principal: identity.principal(), identity, class }
    }
}

#[derive(Default)]
struct Build {
    subjects: Vec<Subject>,
    subject_index: HashMap<Subject, usize>,
    policies: Vec<PreparedPolicy>,
    policy_index: HashMap<PolicyId, usize>,
    dropped: Vec<PolicyId>,
    rejected: Vec<(PolicyId, InvalidGlob)>,
    limits: usize,
}

impl Build {
    fn add(&mut self, id: &PolicyId, policy: &Policy) {
        let counted = self.limits;
        match self.policy(policy) {
            Ok(prepared) => {
                self.policy_index.insert(id.clone(), self.policies.len());
                self.policies.push(prepared);
            }
            Err(error) => {
                self.limits = counted;
                if policy.mode == Mode::Audit {
                    self.dropped.push(id.clone());
                }
                self.rejected.push((id.clone(), error));
            }
        }
    }

    fn policy(&mut self, policy: &Policy) -> Result<PreparedPolicy, InvalidGlob> {
        let mut rules = Vec::with_capacity(policy.access.len());
        for rule in &policy.access {
            let from = rule.from.iter().map(|subject| self.subject(subject)).collect();
            rules.push(PreparedRule {
                name: rule.name.clone(),
                effect: rule.effect,
                from,
                to: ToMatcher::new(&rule.to)?,
            });
        }
        let mut limits = Vec::with_capacity(policy.limits.len());
        for limit in &policy.limits {
            limits.push(self.limit(policy, limit)?);
        }
        Ok(PreparedPolicy { id: policy.id.clone(), mode: policy.mode, rules, limits })
    }

    fn limit(&mut self, policy: &Policy, limit: &Limit) -> Result<PreparedLimit, InvalidGlob> {
        let from: Vec<usize> = limit.from.iter().map(|subject| self.subject(subject)).collect();
        let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (subject, &index) in limit.from.iter().zip(&from) {
            match subject {
                Subject::Group { name, .. } => groups.entry(name.clone()).or_default().push(index),
                Subject::Anyone {} | Subject::Authenticated { .. } | Subject::User { .. } => {}
            }
        }
        self.limits += 1;
        Ok(PreparedLimit {
            index: self.limits - 1,
            policy: policy.id.clone(),
            name: limit.name.clone(),
            rate: limit.requests,
            per: limit.per.clone(),
            enforced: policy.mode == Mode::Enforce,
            groups,
            from,
            to: ToMatcher::new(&limit.to)?,
        })
    }

    fn subject(&mut self, subject: &Subject) -> usize {
        if let Some(&index) = self.subject_index.get(subject) {
            return index;
        }
        let index = self.subjects.len();
        self.subjects.push(subject.clone());
        self.subject_index.insert(subject.clone(), index);
        index
    }

    fn levels(&self, levels: &[Level]) -> Vec<PreparedLevel> {
        levels.iter().map(|level| self.level(level)).collect()
    }

    fn level(&self, level: &Level) -> PreparedLevel {
        let known = level.policies.iter().filter_map(|id| self.policy_index.get(id).copied());
        let missing = level
            .policies
            .iter()
            .find(|id| !self.policy_index.contains_key(*id) && !self.dropped.contains(id));
        PreparedLevel {
            kind: level.kind,
            policies: known.collect(),
            closed: level.closed.clone().or_else(|| missing.cloned()),
        }
    }
}
