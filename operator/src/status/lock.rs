//! Whether a lock holds: what a server offers against what is pinned, and how the two differ.
//!
//! Names of tools are the server's words: they are shown escaped and cut.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use mcpmesh_crds::{LockMode, McpServer, McpServerSpec, condition};
use mcpmesh_ir::ServerId;
use mcpmesh_ir::catalog::{CatalogIndex, IndexedTool};
use mcpmesh_ir::policy::NameGlobs;

use super::View;
use super::conditions::{Answer, Said, said};
use crate::watch::Bucket;
use crate::world::Kept;

/// How many tools a message names.
const NAMED: usize = 5;

/// How many characters of a tool's name are shown.
const NAME: usize = 64;

/// How many digits of a digest are shown: enough to compare.
const DIGITS: usize = 12;

/// What members of pinned tools were like when they were last seen as pinned, by server and tool. Kept by the leader
/// since it leads; who leads anew knows it of the tools that are as pinned.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pinned(BTreeMap<ServerId, BTreeMap<String, IndexedTool>>);

impl Pinned {
    /// Notes the tools of a namespace's servers that are as pinned now, and forgets servers without a lock.
    pub(crate) fn learn(&mut self, view: &View, namespace: &str, servers: &Bucket<Kept<McpServer>>) {
        let mut locked = BTreeSet::new();
        for (name, kept) in servers {
            let Kept::Read(object) = &**kept else { continue };
            if mode(&object.spec).is_none() {
                continue;
            }
            let id = ServerId::new(namespace, name);
            if let Some(index) = view.index(&id) {
                self.note(&id, &object.spec, index);
            }
            locked.insert(id);
        }
        self.0.retain(|id, _| id.namespace != namespace || locked.contains(id));
    }

    fn note(&mut self, id: &ServerId, spec: &McpServerSpec, index: &CatalogIndex) {
        let pins = pins(spec);
        let known = self.0.entry(id.clone()).or_default();
        known.retain(|name, tool| pins.get(name.as_str()) == Some(&tool.digest.as_str()));
        for tool in &index.tools {
            let is_pinned = pins.get(tool.name.as_str()) == Some(&tool.digest.as_str());
            if is_pinned && !known.contains_key(&tool.name) {
                known.insert(tool.name.clone(), tool.clone());
            }
        }
    }
}

/// A tool that is not as pinned.
struct Drifted<'a> {
    tool: &'a IndexedTool,
    /// None: it is not pinned.
    pinned: Option<&'a str>,
}

/// The condition; none without a lock. While nobody knows what the server offers, what was said of this generation stays.
pub(super) fn holds(
    spec: &McpServerSpec,
    index: Option<&CatalogIndex>,
    (before, generation): (&[Condition], Option<i64>),
) -> Option<Said> {
    let mode = mode(spec)?;
    let Some(index) = index else {
        let said_before = before
            .iter()
            .find(|one| one.type_ == condition::LOCK_HOLDS && one.observed_generation == generation);
        let stays = said_before.and_then(|one| {
            let answer = match one.status.as_str() {
                "True" => Answer::True,
                "False" => Answer::False,
                _ => return None,
            };
            Some(said(answer, &one.reason, &*one.message))
        });
        let pending = || said(Answer::Unknown, "Pending", "no proxy has seen its tools yet");
        return Some(stays.unwrap_or_else(pending));
    };
    let drifted = drifted(spec, index);
    if drifted.is_empty() {
        return Some(said(Answer::True, "Pinned", missing(spec, index)));
    }
    let fate = match mode {
        Mode::Warn => "served all the same",
        Mode::Enforce => "there for nobody",
    };
    let list = list(&drifted, |_| String::new());
    let message = format!("not as pinned, {fate}: {list}; compare, then pin anew by `mcpmesh lock`");
    Some(said(Answer::False, "Drifted", message))
}

/// What an event says of a lock that was just found to hold no more: the difference as far as it is known.
pub(super) fn difference(view: &View, id: &ServerId, object: &McpServer) -> Option<String> {
    let index = view.index(id)?;
    let drifted = drifted(&object.spec, index);
    let known = view.pinned.0.get(id);
    let members = |drifted: &Drifted<'_>| {
        let before = known.and_then(|known| known.get(&drifted.tool.name));
        before.map_or_else(String::new, |before| changed(before, drifted.tool))
    };
    (!drifted.is_empty()).then(|| list(&drifted, members))
}

/// What is enforced or warned of.
enum Mode {
    Warn,
    Enforce,
}

fn mode(spec: &McpServerSpec) -> Option<Mode> {
    match spec.lock.as_ref()?.mode {
        LockMode::Off => None,
        LockMode::Warn => Some(Mode::Warn),
        LockMode::Enforce => Some(Mode::Enforce),
    }
}

fn pins(spec: &McpServerSpec) -> BTreeMap<&str, &str> {
    let tools = spec.lock.iter().flat_map(|lock| &lock.tools);
    tools.map(|tool| (tool.name.as_str(), tool.digest.as_str())).collect()
}

/// In order of names: a server that lists in another order says nothing new.
fn drifted<'a>(spec: &'a McpServerSpec, index: &'a CatalogIndex) -> Vec<Drifted<'a>> {
    let (pins, exists) = (pins(spec), exists(spec));
    let tools = index.tools.iter().filter(|tool| exists(&tool.name));
    let found = tools.filter_map(|tool| {
        let pinned = pins.get(tool.name.as_str()).copied();
        (pinned != Some(&tool.digest)).then_some(Drifted { tool, pinned })
    });
    let mut found: Vec<_> = found.collect();
    found.sort_by(|one, other| {
        (&one.tool.name, &one.tool.digest).cmp(&(&other.tool.name, &other.tool.digest))
    });
    found
}

/// Whether a tool exists for anybody, by `spec.tools`. Of a pattern that is none the object says so elsewhere.
fn exists(spec: &McpServerSpec) -> impl Fn(&str) -> bool {
    let globs = |patterns: &[String]| NameGlobs::new(patterns).ok();
    let tools = spec.tools.as_ref();
    let include = tools.and_then(|tools| globs(&tools.include));
    let exclude = tools.filter(|tools| !tools.exclude.is_empty()).and_then(|tools| globs(&tools.exclude));
    move |name| {
        include.as_ref().is_none_or(|globs| globs.matches(name))
            && !exclude.as_ref().is_some_and(|globs| globs.matches(name))
    }
}

/// Pinned tools that the server does not offer: no danger, and worth a word.
fn missing(spec: &McpServerSpec, index: &CatalogIndex) -> String {
    let offered: BTreeSet<&str> = index.tools.iter().map(|tool| tool.name.as_str()).collect();
    let missing: Vec<_> = pins(spec).into_keys().filter(|name| !offered.contains(name)).map(shown).collect();
    if missing.is_empty() {
        return String::new();
    }
    let names = missing.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    format!("pinned, but not offered: {names}{}", more(missing.len()))
}

fn list(drifted: &[Drifted<'_>], members: impl Fn(&Drifted<'_>) -> String) -> String {
    let one = |drifted: &Drifted<'_>| {
        let (name, now) = (shown(&drifted.tool.name), digits(&drifted.tool.digest));
        match drifted.pinned {
            None => format!("{name} is not pinned ({now})"),
            Some(pinned) => format!("{name} {} -> {now}{}", digits(pinned), members(drifted)),
        }
    };
    let named = drifted.iter().take(NAMED).map(one).collect::<Vec<_>>().join(", ");
    format!("{named}{}", more(drifted.len()))
}

fn more(count: usize) -> String {
    if count > NAMED { format!(", and {} more", count - NAMED) } else { String::new() }
}

/// The members that differ. Their names are those of MCP, whatever the proxy's version calls a member.
fn changed(before: &IndexedTool, now: &IndexedTool) -> String {
    const KNOWN: [&str; 5] = ["title", "description", "inputSchema", "outputSchema", "annotations"];
    let differs = |name: &&str| before.members.get(*name) != now.members.get(*name);
    let names: Vec<_> = KNOWN.into_iter().filter(differs).collect();
    if before.members.is_empty() || now.members.is_empty() || names.is_empty() {
        String::new()
    } else {
        format!(" in {}", names.join(" and "))
    }
}

/// Escaped: no control, invisible or direction-changing character reaches a terminal.
fn shown(name: &str) -> String {
    let cut: String = name.chars().take(NAME).collect();
    let more = if cut.len() < name.len() { "..." } else { "" };
    format!("{cut:?}{more}")
}

fn digits(digest: &str) -> String {
    digest.chars().take(DIGITS).collect()
}

#[cfg(test)]
mod tests;
