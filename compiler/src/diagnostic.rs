//! What is wrong with an object, where, and what to do: data, not errors.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One finding on one object, or on a text that holds none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Diagnostic {
    /// The object; none when a text could not be read as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectRef>,
    /// Where in the object, such as `spec.access[0].to.tools[1]`; empty for all of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// How bad it is.
    pub severity: Severity,
    /// Which mistake it is: stable, for conditions and scripts.
    pub reason: Reason,
    /// What is wrong, in a sentence without capital and full stop.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Where in the files; [`crate::manifest::locate`] fills it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
}

impl fmt::Display for Diagnostic {
    /// `FILE:LINE:COLUMN: severity: KIND NAMESPACE/NAME: PATH: MESSAGE; HELP`, without the parts that are not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        write!(f, "{}: ", self.severity.as_str())?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, "; {help}"))
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// Something that was asked for does not happen.
    Error,
    /// It happens, though probably not as meant.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    /// The lower-case word for texts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// The kinds that a compile reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ObjectKind {
    /// `mcpmesh.io`
    McpServer,
    /// `mcpmesh.io`
    McpGateway,
    /// `mcpmesh.io`
    McpPolicy,
    /// core/v1
    Secret,
    /// core/v1
    ConfigMap,
    /// core/v1, for its labels
    Namespace,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// An object by kind and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its namespace; empty for a Namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectRef {
    /// An object by kind and name.
    pub fn new(kind: ObjectKind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// A place in a file. Lines and columns count from 1; 0 means the whole file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Location {
    /// As the caller named it.
    pub file: String,
    /// From 1.
    pub line: u64,
    /// In characters, from 1.
    pub column: u64,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 { write!(f, ":{}:{}", self.line, self.column) } else { Ok(()) }
    }
}

/// Which mistake a finding is. Becomes a condition's `reason` in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Reason {
    /// A text is not YAML or JSON.
    InvalidSyntax,
    /// A field, value or type that the kind does not have, or a missing one.
    InvalidField,
    /// A kind of our group that does not exist.
    UnknownKind,
    /// A kind that is none of ours: skipped.
    IgnoredKind,
    /// The same object twice.
    DuplicateObject,
    /// The same name or key twice in one list.
    DuplicateName,
    /// A pattern that is not a glob.
    InvalidGlob,
    /// A URL that is not one, or may not be used.
    InvalidUrl,
    /// A value that is out of bounds or malformed.
    InvalidValue,
    /// Fields that exclude each other, or of which one is needed.
    InvalidUnion,
    /// A reference to a Secret or key that is not there.
    SecretNotFound,
    /// A Secret's value cannot be used as meant.
    InvalidSecret,
    /// A reference to a ConfigMap or key that is not there.
    ConfigMapNotFound,
    /// A ConfigMap's value cannot be used as meant.
    InvalidConfigMap,
    /// An API key Secret that cannot be used.
    InvalidApiKey,
    /// A server that is named and not there, or not exported.
    ServerNotFound,
    /// A target that is not there.
    TargetNotFound,
    /// A target that this policy may not have.
    InvalidTarget,
    /// A policy is invalid: what it targets is closed.
    PolicyClosed,
    /// A server with credentials cannot be exported yet.
    CredentialsNotExportable,
    /// Two servers have one prefix.
    PrefixConflict,
    /// A name that cannot be a prefix.
    InvalidPrefix,
    /// Nobody can call a gateway.
    NoAccess,
    /// A server stands behind no gateway.
    NotAttached,
    /// A package without a version.
    UnpinnedPackage,
    /// Credentials that travel in the clear.
    Cleartext,
    /// A Service, or a port of one, that is not there.
    ServiceNotFound,
    /// A Service behind which nothing is ready.
    NoEndpoints,
    /// Something that there is only in a cluster.
    NotInCluster,
    /// A port that the proxies need themselves.
    ReservedPort,
    /// A selector that says nothing.
    InvalidSelector,
    /// The cluster's issuer of tokens cannot be read.
    IssuerUnavailable,
}

impl Reason {
    /// Whether something that the object names is not there or may not be used: what the condition `ResolvedRefs` is
    /// about. Errors with any other reason are about `Accepted`.
    #[must_use]
    pub fn is_reference(self) -> bool {
        matches!(
            self,
            Self::SecretNotFound
                | Self::InvalidSecret
                | Self::ConfigMapNotFound
                | Self::InvalidConfigMap
                | Self::ServerNotFound
                | Self::TargetNotFound
                | Self::CredentialsNotExportable
                | Self::ServiceNotFound
                | Self::NoEndpoints
                | Self::IssuerUnavailable
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The findings on one object, of findings in the order in which a compile gives them.
#[must_use]
pub fn findings_of<'f>(sorted: &'f [Diagnostic], object: &ObjectRef) -> &'f [Diagnostic] {
    let object = Some(object);
    let start = sorted.partition_point(|finding| finding.object.as_ref() < object);
    let rest = sorted.get(start..).unwrap_or_default();
    let end = rest.partition_point(|finding| finding.object.as_ref() == object);
    rest.get(..end).unwrap_or_default()
}

/// A text that quotes from objects, safe to print: line breaks, terminal sequences and letters that hide or turn
/// others are escaped.
pub(crate) fn printable(text: String) -> String {
    let hidden = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    if !text.contains(hidden) {
        return text;
    }
    let escape = |letter: char| {
        if hidden(letter) { letter.escape_default().to_string() } else { letter.to_string() }
    };
    text.chars().map(escape).collect()
}

/// The findings on one object while it is compiled.
#[derive(Debug)]
pub(crate) struct Findings {
    object: ObjectRef,
    list: Vec<Diagnostic>,
}

impl Findings {
    pub(crate) fn new(object: ObjectRef) -> Self {
        Self { object, list: Vec::new() }
    }

    /// Something that was asked for does not happen. `help` says what to do.
    pub(crate) fn error(&mut self, path: &str, reason: Reason, message: impl Into<String>, help: &str) {
        self.add(Severity::Error, path, reason, (message.into(), help));
    }

    /// It happens, though probably not as meant.
    pub(crate) fn warning(&mut self, path: &str, reason: Reason, message: impl Into<String>, help: &str) {
        self.add(Severity::Warning, path, reason, (message.into(), help));
    }

    /// Worth knowing.
    pub(crate) fn note(&mut self, path: &str, reason: Reason, message: impl Into<String>, help: &str) {
        self.add(Severity::Note, path, reason, (message.into(), help));
    }

    /// As bad as it is.
    pub(crate) fn add(
        &mut self,
        severity: Severity,
        path: &str,
        reason: Reason,
        (message, help): (String, &str),
    ) {
        self.list.push(Diagnostic {
            object: Some(self.object.clone()),
            path: path.to_owned(),
            severity,
            reason,
            message: printable(message),
            help: (!help.is_empty()).then(|| help.to_owned()),
            location: None,
        });
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.list.iter().any(|finding| finding.severity == Severity::Error)
    }

    pub(crate) fn into_list(self) -> Vec<Diagnostic> {
        self.list
    }
}
