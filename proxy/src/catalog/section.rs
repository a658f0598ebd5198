//! The objects of one kind with their names.

use std::collections::HashMap;

use bytes::Bytes;
use mcpmesh_ir::catalog::Hints;
use mcpmesh_ir::gateway::Naming;

use super::item;
use super::left_out::{LeftOut, Why};
use super::names::{Claim, allot};
use super::view::Attached;
use crate::hidden_text::{Named, deceives, stripped};
use crate::mcp::header::ParamHeaders;
use crate::mcp::{json, uri};
use crate::upstream::{Item, Observation};

/// One object that a gateway shows.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Index of its server among the attached.
    pub server: usize,
    /// The upstream's own name, URI or URI template: what rules speak of.
    pub key: String,
    /// What clients call it.
    pub advertised: String,
    /// Its definition as modern clients see it.
    pub raw: Bytes,
    /// Its definition as the upstream sent it.
    source: Bytes,
    /// Hints from the McpServer (tools).
    pub pinned: Hints,
    /// Hints from the upstream (tools).
    pub claimed: Hints,
    /// Arguments that are mirrored in headers (tools).
    pub param_headers: Option<ParamHeaders>,
}

/// All objects of one kind.
#[derive(Debug, Default)]
pub(super) struct Section {
    pub(super) entries: Vec<Entry>,
    pub(super) resolve: HashMap<String, usize>,
}

impl Section {
    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(*self.resolve.get(name)?)
    }
}

/// What a gateway showed before: what would be made of the same again is taken over.
pub(super) struct Before<'a> {
    pub(super) naming: Naming,
    pub(super) attached: &'a [Attached],
    pub(super) section: &'a Section,
}

impl Before<'_> {
    /// The same object of the same server, under the same name and shown in the same way.
    fn entry(&self, naming: Naming, attached: &Attached, item: &Item, advertised: &str) -> Option<Entry> {
        let entry = self.section.get(advertised)?;
        let old = self.attached.get(entry.server)?;
        let same = (naming, &attached.id, &attached.prefix) == (self.naming, &old.id, &old.prefix)
            && (entry.source.as_ptr(), entry.source.len()) == (item.raw.as_ptr(), item.raw.len())
            && (entry.key == item.key && entry.advertised == advertised)
            && attached.rules.overrides.get(&item.key) == old.rules.overrides.get(&item.key);
        same.then(|| entry.clone())
    }
}

/// An object before it has a name.
struct Unnamed<'a> {
    server: usize,
    item: &'a Item,
    base: &'a str,
}

type Observed<'a> = &'a [(&'a Attached, &'a Observation)];

/// The tools that the servers' rules let exist.
pub(super) fn tools(
    naming: Naming,
    observed: Observed<'_>,
    before: Option<&Before<'_>>,
    left_out: &mut LeftOut,
) -> Section {
    let mut unnamed = Vec::new();
    for (server, (attached, observation)) in observed.iter().enumerate() {
        for item in observation.lists.tools.iter().filter(|item| attached.exposes(item)) {
            unnamed.push(Unnamed { server, item, base: attached.base(item) });
        }
    }
    named(naming, (observed, before), (&unnamed, left_out), |attached, item, advertised| {
        let change = attached.rules.overrides.get(&item.key);
        let schema = json::member(&item.raw, "inputSchema").unwrap_or(b"{}");
        let headers = ParamHeaders::from_schema(schema).map_err(|_| Why::Headers)?;
        let wrap = (naming == Naming::Always).then_some(attached.prefix.as_str());
        let shown = item::tool(&item.raw, advertised, change, wrap);
        let shown = shown.and_then(|raw| stripped(&raw, Named::Identifier));
        Ok(Entry {
            server: 0,
            key: item.key.clone(),
            advertised: advertised.to_owned(),
            raw: shown.ok_or(Why::Definition)?,
            source: item.raw.clone(),
            pinned: change.map(|change| change.annotations).unwrap_or_default(),
            claimed: item::hints(&item.raw),
            param_headers: (!headers.is_empty()).then_some(headers),
        })
    })
}

/// The prompts.
pub(super) fn prompts(
    naming: Naming,
    observed: Observed<'_>,
    before: Option<&Before<'_>>,
    left_out: &mut LeftOut,
) -> Section {
    let mut unnamed = Vec::new();
    for (server, (_, observation)) in observed.iter().enumerate() {
        unnamed.extend(observation.lists.prompts.iter().map(|item| Unnamed {
            server,
            item,
            base: &item.key,
        }));
    }
    named(naming, (observed, before), (&unnamed, left_out), |_, item, advertised| {
        let raw = item::renamed(&item.raw, "name", advertised);
        let raw = raw.and_then(|raw| stripped(&raw, Named::Identifier)).ok_or(Why::Definition)?;
        Ok(plain(item, advertised, raw))
    })
}

fn plain(item: &Item, advertised: &str, raw: Bytes) -> Entry {
    Entry {
        server: 0,
        key: item.key.clone(),
        advertised: advertised.to_owned(),
        raw,
        source: item.raw.clone(),
        pinned: Hints::default(),
        claimed: Hints::default(),
        param_headers: None,
    }
}

fn named(
    naming: Naming,
    (observed, before): (Observed<'_>, Option<&Before<'_>>),
    (unnamed, left_out): (&[Unnamed<'_>], &mut LeftOut),
    make: impl Fn(&Attached, &Item, &str) -> Result<Entry, Why>,
) -> Section {
    let prefix = |server: usize| observed.get(server).map_or("", |(attached, _)| attached.prefix.as_str());
    let claims: Vec<_> =
        unnamed.iter().map(|object| Claim { prefix: prefix(object.server), base: object.base }).collect();
    let names = allot(naming, &claims);
    let mut section = Section::default();
    let mut places = HashMap::new();
    for (claim, (object, advertised)) in unnamed.iter().zip(&names.advertised).enumerate() {
        let (Some(advertised), Some((attached, _))) = (advertised, observed.get(object.server)) else {
            left_out.add(object.server, Why::Twice, object.base);
            continue;
        };
        let kept = before.and_then(|before| before.entry(naming, attached, object.item, advertised));
        let made = || match speakable(advertised) {
            true => make(attached, object.item, advertised),
            false => Err(Why::Name),
        };
        match kept.map_or_else(made, Ok) {
            Ok(entry) => {
                places.insert(claim, section.entries.len());
                section.entries.push(Entry { server: object.server, ..entry });
            }
            Err(why) => left_out.add(object.server, why, object.base),
        }
    }
    let resolve = names.resolve.into_iter();
    section.resolve = resolve.filter_map(|(name, claim)| Some((name, *places.get(&claim)?))).collect();
    section
}

/// Names of visible ASCII only: no line breaks, escapes, homoglyphs or zero-width characters.
pub(super) fn speakable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// URIs that would be refused when they are read, or that show something else than they are, are not listed.
fn readable(uri: &str) -> bool {
    !uri::refuse(uri) && !uri.chars().any(deceives)
}

/// Resources (`key` is `uri`) or templates (`uriTemplate`). In `Always` every URI is wrapped; in `OnConflict` those
/// that several servers have.
pub(super) fn located(
    naming: Naming,
    observed: Observed<'_>,
    kind: Located,
    before: Option<&Before<'_>>,
    left_out: &mut LeftOut,
) -> Section {
    let mut holders: HashMap<&str, usize> = HashMap::new();
    for (_, observation) in observed {
        for item in kind.of(observation) {
            *holders.entry(&item.key).or_default() += 1;
        }
    }
    let mut section = Section::default();
    for (server, (attached, observation)) in observed.iter().enumerate() {
        for item in kind.of(observation) {
            if !readable(&item.key) {
                left_out.add(server, Why::Uri, &item.key);
                continue;
            }
            let wrapped = kind.wrap(&attached.prefix, &item.key);
            // One that looks wrapped stays wrapped: it would be read at the server that it names.
            let alone = holders.get(item.key.as_str()) == Some(&1) && uri::unwrap(&item.key).is_none();
            let bare = naming == Naming::OnConflict && alone;
            let advertised = if bare { item.key.clone() } else { wrapped.clone() };
            if section.resolve.contains_key(&wrapped) {
                left_out.add(server, Why::Twice, &item.key);
                continue;
            }
            let kept = before.and_then(|before| before.entry(naming, attached, item, &advertised));
            let Some(entry) = kept.or_else(|| kind.entry(item, &advertised)) else {
                left_out.add(server, Why::Definition, &item.key);
                continue;
            };
            let place = section.entries.len();
            section.resolve.insert(wrapped, place);
            section.resolve.insert(advertised, place);
            section.entries.push(Entry { server, ..entry });
        }
    }
    section
}

/// What has a place instead of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Located {
    Resource,
    Template,
}

impl Located {
    fn of(self, observation: &Observation) -> &[Item] {
        match self {
            Self::Resource => &observation.lists.resources,
            Self::Template => &observation.lists.templates,
        }
    }

    /// One under this URI; none where its definition cannot be shown.
    fn entry(self, item: &Item, advertised: &str) -> Option<Entry> {
        let raw = match advertised == item.key {
            true => Some(item.raw.clone()),
            false => item::renamed(&item.raw, self.member(), advertised),
        };
        raw.and_then(|raw| stripped(&raw, Named::Text)).map(|raw| plain(item, advertised, raw))
    }

    fn member(self) -> &'static str {
        match self {
            Self::Resource => "uri",
            Self::Template => "uriTemplate",
        }
    }

    fn wrap(self, prefix: &str, key: &str) -> String {
        match self {
            Self::Resource => uri::wrap(prefix, key),
            Self::Template => uri::wrap_template(prefix, key),
        }
    }
}
