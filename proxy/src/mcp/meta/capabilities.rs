//! What a client declares that it can be asked for.

use std::ops::BitAnd;

use bytes::Bytes;

use crate::mcp::envelope::Method;
use crate::mcp::era::Revision;
use crate::mcp::json;
use crate::mcp::rewrite::remove_path;

/// Nothing declared.
const NONE: Bytes = Bytes::from_static(b"{}");

/// A client's capabilities as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    raw: Bytes,
    set: CapabilitySet,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { raw: NONE, set: CapabilitySet::default() }
    }
}

impl Capabilities {
    /// Takes the JSON text of a checked object.
    #[must_use]
    pub fn new(raw: Bytes) -> Self {
        let set = CapabilitySet::read(&raw);
        Self { raw, set }
    }

    /// The JSON text.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// What of it a client of this revision can mean: 2025-06-18 has elicitation, 2025-11-25 its URLs.
    #[must_use]
    pub fn known_to(self, revision: Revision) -> Self {
        if revision < Revision::V2025_06_18 {
            return Self::new(remove_path(&self.raw, &["elicitation"]));
        }
        if revision < Revision::V2025_11_25 {
            return Self::new(remove_path(&self.raw, &["elicitation", "url"]));
        }
        self
    }

    /// The same but for tasks, which the gateway does not relay yet.
    #[must_use]
    pub fn without_tasks(&self) -> Self {
        if self.set == self.set.without_tasks() {
            return self.clone();
        }
        let raw = remove_path(&self.raw, &["tasks"]);
        Self::new(remove_path(&raw, &["extensions", "io.modelcontextprotocol/tasks"]))
    }

    /// The part that the gateway decides by.
    #[must_use]
    pub fn set(&self) -> CapabilitySet {
        self.set
    }
}

/// What a client must have declared to be asked this: `mode` is that of an elicitation, `tools` says whether a
/// sampling names tools. `None` for what no client can declare.
#[must_use]
pub fn needed(method: &Method, mode: Option<&str>, tools: bool) -> Option<CapabilitySet> {
    match (method, mode) {
        (Method::RootsList, _) => Some(CapabilitySet::ROOTS),
        (Method::SamplingCreateMessage, _) if tools => {
            Some(CapabilitySet::SAMPLING.with(CapabilitySet::SAMPLING_TOOLS))
        }
        (Method::SamplingCreateMessage, _) => Some(CapabilitySet::SAMPLING),
        (Method::ElicitationCreate, None | Some("form")) => Some(CapabilitySet::ELICITATION_FORM),
        (Method::ElicitationCreate, Some("url")) => Some(CapabilitySet::ELICITATION_URL),
        _ => None,
    }
}

impl From<CapabilitySet> for Capabilities {
    fn from(set: CapabilitySet) -> Self {
        Self { raw: set.to_json(), set }
    }
}

/// An empty `elicitation` means form only (2025-11-25, client/elicitation, "Capabilities").
fn elicitation(form: bool, url: bool) -> u8 {
    let form = if form || !url { CapabilitySet::ELICITATION_FORM.0 } else { 0 };
    form | if url { CapabilitySet::ELICITATION_URL.0 } else { 0 }
}

/// A small set of client capabilities, to compare and to key session pools by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CapabilitySet(u8);

impl CapabilitySet {
    /// `roots`
    pub const ROOTS: Self = Self(1);
    /// `sampling`
    pub const SAMPLING: Self = Self(1 << 1);
    /// `sampling.tools`
    pub const SAMPLING_TOOLS: Self = Self(1 << 2);
    /// `elicitation.form`, or an empty `elicitation`
    pub const ELICITATION_FORM: Self = Self(1 << 3);
    /// `elicitation.url`
    pub const ELICITATION_URL: Self = Self(1 << 4);
    /// The extension `io.modelcontextprotocol/tasks`.
    pub const TASKS: Self = Self(1 << 5);
    /// The experimental `tasks` of 2025-11-25.
    pub const LEGACY_TASKS: Self = Self(1 << 6);

    fn read(declared: &[u8]) -> Self {
        let mut set = Self::default();
        for (key, value) in json::members(declared).unwrap_or_default() {
            let has = |name| json::member(value, name).is_some();
            set.0 |= match key.as_ref() {
                "roots" => Self::ROOTS.0,
                "sampling" if has("tools") => Self::SAMPLING.0 | Self::SAMPLING_TOOLS.0,
                "sampling" => Self::SAMPLING.0,
                "elicitation" => elicitation(has("form"), has("url")),
                "tasks" => Self::LEGACY_TASKS.0,
                "extensions" if has("io.modelcontextprotocol/tasks") => Self::TASKS.0,
                _ => 0,
            };
        }
        set
    }

    /// Are all of `other` here?
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set without tasks of either kind.
    #[must_use]
    pub const fn without_tasks(self) -> Self {
        Self(self.0 & !Self::TASKS.with(Self::LEGACY_TASKS).0)
    }

    /// Is nothing declared?
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set as one byte, for sealed handles.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The set of one byte.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        Self(bits & 0x7f)
    }

    /// The JSON object that declares exactly this set (without the legacy tasks).
    #[must_use]
    pub fn to_json(self) -> Bytes {
        if self.is_empty() {
            return NONE;
        }
        let pick = |all: &[(Self, &str)]| {
            let named = all.iter().filter(|(one, _)| self.contains(*one)).map(|(_, text)| *text);
            named.collect::<Vec<_>>().join(",")
        };
        let modes = pick(&[(Self::ELICITATION_FORM, r#""form":{}"#), (Self::ELICITATION_URL, r#""url":{}"#)]);
        let tools = pick(&[(Self::SAMPLING_TOOLS, r#""tools":{}"#)]);
        let mut members = Vec::new();
        if self.contains(Self::ROOTS) {
            members.push(r#""roots":{}"#.to_owned());
        }
        if self.contains(Self::SAMPLING) {
            members.push(format!(r#""sampling":{{{tools}}}"#));
        }
        if !modes.is_empty() {
            members.push(format!(r#""elicitation":{{{modes}}}"#));
        }
        if self.contains(Self::TASKS) {
            members.push(r#""extensions":{"io.modelcontextprotocol/tasks":{}}"#.to_owned());
        }
        Bytes::from(format!("{{{}}}", members.join(",")))
    }
}

impl BitAnd for CapabilitySet {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}
