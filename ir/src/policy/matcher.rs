//! The compiled form of `from` and `to`: bit sets of subjects, glob sets of names.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::prepared::{Identity, Issuer, Object, Target};
use super::reading::readings;
use super::{AnnotationMatch, Effect, IssuerMatch, Subject, To};
use crate::catalog::Hints;

/// A pattern that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is not a glob: {message}")]
pub struct InvalidGlob {
    /// The pattern as given.
    pub pattern: String,
    /// What is wrong with it.
    pub message: String,
}

/// A set of patterns; empty matches everything.
#[derive(Debug, Clone)]
pub(super) struct Globs(Option<GlobSet>);

impl Globs {
    /// `*` stops at a slash only where `segments` says so: server names have segments, tool names and URIs don't.
    fn new(patterns: &[String], segments: bool) -> Result<Self, InvalidGlob> {
        if patterns.is_empty() {
            return Ok(Self(None));
        }
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            set.add(glob(pattern, segments)?);
        }
        let invalid = |error: globset::Error| InvalidGlob {
            pattern: patterns.join(", "),
            message: error.kind().to_string(),
        };
        set.build().map(|set| Self(Some(set))).map_err(invalid)
    }

    fn matches(&self, text: &str) -> bool {
        self.0.as_ref().is_none_or(|set| set.is_match(text))
    }

    fn given(&self) -> bool {
        self.0.is_some()
    }
}

fn glob(pattern: &str, segments: bool) -> Result<globset::Glob, InvalidGlob> {
    GlobBuilder::new(pattern)
        .literal_separator(segments)
        .build()
        .map_err(|error| InvalidGlob { pattern: pattern.to_owned(), message: error.kind().to_string() })
}

/// Compiled globs on the upstream's own names, for rules about which tools exist.
#[derive(Debug, Clone)]
pub struct NameGlobs(Globs);

impl NameGlobs {
    /// Compiles; an empty list matches everything.
    pub fn new(patterns: &[String]) -> Result<Self, InvalidGlob> {
        Globs::new(patterns, false).map(Self)
    }

    /// Whether a name matches one of them.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.0.matches(name)
    }
}

/// A compiled [`To`].
#[derive(Debug, Clone)]
pub(super) struct ToMatcher {
    servers: Globs,
    tools: Globs,
    prompts: Globs,
    resources: Globs,
    methods: Vec<String>,
    annotations: AnnotationMatch,
}

impl ToMatcher {
    pub(super) fn new(to: &To) -> Result<Self, InvalidGlob> {
        Ok(Self {
            servers: Globs::new(&to.servers, true)?,
            tools: Globs::new(&to.tools, false)?,
            prompts: Globs::new(&to.prompts, false)?,
            resources: Globs::new(&to.resources, false)?,
            methods: to.methods.clone(),
            annotations: to.annotations,
        })
    }

    pub(super) fn matches(&self, server: &str, target: &Target<'_>, effect: Effect) -> bool {
        self.servers.matches(server)
            && self.method(target)
            && self.object(&target.object, effect)
            && self.hints(&target.object, effect)
    }

    /// A completion is judged as the method that its object is used by, so that what can be used completes.
    fn method(&self, target: &Target<'_>) -> bool {
        self.methods.is_empty()
            || self
                .methods
                .iter()
                .any(|method| method == target.method || method == target.object.use_method())
    }

    /// A Deny on a resource holds for all that its URI may be read as, an Allow for what is written.
    fn object(&self, object: &Object<'_>, effect: Effect) -> bool {
        let none_given = !self.tools.given() && !self.prompts.given() && !self.resources.given();
        let (globs, name) = match object {
            Object::Tool { name, .. } => (&self.tools, name),
            Object::Prompt { name } => (&self.prompts, name),
            Object::Resource { uri } => (&self.resources, uri),
        };
        let read_otherwise = || match (object, effect) {
            (Object::Resource { uri }, Effect::Deny) => readings(uri).any(|reading| globs.matches(&reading)),
            _ => false,
        };
        none_given || (globs.given() && (globs.matches(name) || read_otherwise()))
    }

    /// An annotation asks for a tool. In an Allow only what the spec pins counts; a Deny also believes the upstream.
    fn hints(&self, object: &Object<'_>, effect: Effect) -> bool {
        if self.annotations.is_empty() {
            return true;
        }
        let Object::Tool { pinned, claimed, .. } = object else { return false };
        let hints = match effect {
            Effect::Allow => *pinned,
            Effect::Deny => pinned.or(*claimed),
        };
        satisfies(&self.annotations, hints)
    }
}

fn satisfies(wanted: &AnnotationMatch, hints: Hints) -> bool {
    let same = |wanted: Option<bool>, has: bool| wanted.is_none_or(|wanted| wanted == has);
    same(wanted.read_only, hints.read_only())
        && same(wanted.destructive, hints.destructive())
        && same(wanted.idempotent, hints.idempotent())
        && same(wanted.open_world, hints.open_world())
}

/// Whether a caller is among a rule's subjects.
pub(super) fn subject_matches(subject: &Subject, identity: &Identity) -> bool {
    match subject {
        Subject::Anyone {} => true,
        Subject::Authenticated { issuer } => issued_by(issuer, identity),
        Subject::User { name, issuer } => {
            identity.user.as_deref() == Some(name) && issued_by(issuer, identity)
        }
        Subject::Group { name, issuer } => {
            identity.groups.iter().any(|group| group == name) && issued_by(issuer, identity)
        }
    }
}

fn issued_by(wanted: &IssuerMatch, identity: &Identity) -> bool {
    match (&identity.issuer, wanted) {
        (Issuer::Anonymous, _) => false,
        (_, IssuerMatch::Namespace(namespace)) => identity.gateway.namespace == *namespace,
        (Issuer::ApiKey, IssuerMatch::Gateway(gateway)) => identity.gateway == *gateway,
        (Issuer::Token(issuer), IssuerMatch::Issuer(wanted)) => issuer == wanted,
        (Issuer::Token(issuer), IssuerMatch::IssuerAt { issuer: wanted, gateway }) => {
            issuer == wanted && identity.gateway == *gateway
        }
        (Issuer::ApiKey, IssuerMatch::Issuer(_) | IssuerMatch::IssuerAt { .. })
        | (Issuer::Token(_), IssuerMatch::Gateway(_)) => false,
    }
}
