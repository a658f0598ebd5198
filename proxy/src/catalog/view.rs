//! One gateway's configuration joined with what its servers have: where every name leads.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use mcpmesh_ir::gateway::Naming;
use mcpmesh_ir::policy::{Caller, Decision, InvalidGlob, NameGlobs, Object, Prepared, Target, decide};
use mcpmesh_ir::server::{Lock, Server, ToolRules};
use mcpmesh_ir::{Gateway, ServerId};
use quick_cache::sync::Cache;

use super::definition::digest;
use super::left_out::{LeftOut, Why};
use super::list::{List, ListKind};
use super::resource::could_expand;
use super::section::{self, Before, Entry, Located, Section};
use crate::certificate::Served;
use crate::hidden_text::visible;
use crate::identity::KeyTable;
use crate::limit::Limiter;
use crate::mcp::era::{Era, Revision};
use crate::mcp::{downgrade, json, uri};
use crate::metrics::Label;
use crate::upstream::{Item, Observation, State, Upstream};

/// Filtered lists that a view keeps.
const KEPT_LISTS: usize = 128;

/// A gateway's configuration, ready to judge by. Immutable.
pub struct Config {
    /// As compiled.
    pub gateway: Gateway,
    /// Those of its listeners that can be served.
    pub listeners: Vec<Served>,
    /// Its callers.
    pub keys: KeyTable,
    /// Its rules.
    pub policy: Prepared,
    /// Its limits.
    pub limiter: Limiter,
    /// Its servers, in order of attachment.
    pub attached: Vec<Attached>,
}

/// One server behind a gateway.
pub struct Attached {
    /// Its stable identity.
    pub id: ServerId,
    /// The same as metrics and logs write it.
    pub label: Label,
    /// Unique in the gateway.
    pub prefix: String,
    /// Which of its tools exist.
    pub rules: ToolRules,
    /// The client to it, shared by all gateways.
    pub upstream: Arc<Upstream>,
    /// When this gateway first had it.
    pub since: Instant,
    lock: Option<Lock>,
    include: NameGlobs,
    exclude: Option<NameGlobs>,
}

impl Attached {
    /// Compiles the rules.
    pub fn new(
        server: &Server,
        prefix: String,
        (upstream, since): (Arc<Upstream>, Instant),
    ) -> Result<Self, InvalidGlob> {
        let (id, rules, lock) = (server.id.clone(), server.tools.clone(), server.lock.clone());
        let include = NameGlobs::new(&rules.include)?;
        let exclude = (!rules.exclude.is_empty()).then(|| NameGlobs::new(&rules.exclude)).transpose()?;
        let label = id.to_string().into();
        Ok(Self { id, label, prefix, rules, upstream, since, lock, include, exclude })
    }

    /// Whether a tool exists: its name is let through, and its definition is the one that a lock pins.
    #[must_use]
    pub fn exposes(&self, tool: &Item) -> bool {
        self.names(&tool.key) && !self.quarantines(tool)
    }

    fn names(&self, tool: &str) -> bool {
        self.include.matches(tool) && !self.exclude.as_ref().is_some_and(|exclude| exclude.matches(tool))
    }

    fn quarantines(&self, tool: &Item) -> bool {
        self.lock.as_ref().is_some_and(|lock| lock.tools.get(&tool.key) != Some(&digest(&tool.raw)))
    }

    /// What a tool is called before its prefix.
    #[must_use]
    pub fn base<'a>(&'a self, tool: &'a Item) -> &'a str {
        let rename = self.rules.overrides.get(&tool.key).and_then(|change| change.rename.as_deref());
        rename.unwrap_or(&tool.key)
    }

    /// How many of a server's tools gateways list.
    #[must_use]
    pub fn listed(&self, seen: &Observation) -> usize {
        let shown = |tool: &&Item| {
            self.exposes(tool) && section::speakable(self.base(tool)) && json::members(&tool.raw).is_some()
        };
        seen.lists.tools.iter().filter(shown).count()
    }

    /// How many tools are not there because their definitions are not pinned; none without a lock.
    #[must_use]
    pub fn quarantined(&self, seen: &Observation) -> Option<usize> {
        self.lock.as_ref()?;
        Some(seen.lists.tools.iter().filter(|tool| self.names(&tool.key) && self.quarantines(tool)).count())
    }
}

/// Where a URI leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed {
    /// Index of the server.
    pub server: usize,
    /// The upstream's URI.
    pub uri: String,
}

/// What a gateway can do, as its servers can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the capabilities of MCP, one each")]
pub struct Abilities {
    /// Some server has tools.
    pub tools: bool,
    /// Some server has prompts.
    pub prompts: bool,
    /// Some server has resources.
    pub resources: bool,
    /// Some server takes resource subscriptions of such a client.
    pub subscribe: bool,
    /// Some server completes arguments.
    pub completions: bool,
    /// Some server logs.
    pub logging: bool,
}

/// What a filtered list depends on, besides its view.
type ListKey = (ListKind, Revision, Box<[u64]>);

/// See the module.
pub struct View {
    /// The configuration.
    pub config: Arc<Config>,
    /// Counts the views of one gateway.
    pub generation: u64,
    /// What is known of each attached server, by index.
    pub observed: Vec<Arc<Observation>>,
    tools: Section,
    prompts: Section,
    resources: Section,
    templates: Section,
    left_out: LeftOut,
    lists: Cache<ListKey, Arc<List>>,
    settled: bool,
}

impl View {
    /// Names everything. What it shows as the view `before` did is not made anew.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        observed: Vec<Arc<Observation>>,
        generation: u64,
        before: Option<&Self>,
    ) -> Self {
        let naming = config.gateway.naming;
        let pairs: Vec<_> = config.attached.iter().zip(observed.iter().map(AsRef::as_ref)).collect();
        let of = |section: fn(&Self) -> &Section| before.map(|view| view.as_before(section(view)));
        let mut left_out = LeftOut::default();
        let tools = section::tools(naming, &pairs, of(|view| &view.tools).as_ref(), &mut left_out);
        let prompts = section::prompts(naming, &pairs, of(|view| &view.prompts).as_ref(), &mut left_out);
        let kept = of(|view| &view.resources);
        let resources = section::located(naming, &pairs, Located::Resource, kept.as_ref(), &mut left_out);
        let kept = of(|view| &view.templates);
        let templates = section::located(naming, &pairs, Located::Template, kept.as_ref(), &mut left_out);
        for (server, (_, observation)) in pairs.iter().enumerate() {
            left_out.add_unread(server, &observation.lists);
        }
        let lists = Cache::new(KEPT_LISTS);
        let settled = observed.iter().all(|observation| settled(observation));
        Self { config, generation, observed, tools, prompts, resources, templates, left_out, lists, settled }
    }

    /// Whether servers list what is not listed here.
    #[must_use]
    pub fn leaves_out(&self) -> bool {
        !self.left_out.is_empty()
    }

    /// How many objects of a server are not listed for this.
    #[must_use]
    pub fn left_out(&self, server: usize, why: Why) -> usize {
        self.left_out.count(server, why)
    }

    /// Says in the log what servers list and this view does not, unless one of these views said so already.
    pub fn tell_left_out(&self, before: &[&Self]) {
        for (server, attached) in self.config.attached.iter().enumerate().filter(|_| self.leaves_out()) {
            let place = |view: &Self| view.config.attached.iter().position(|one| one.id == attached.id);
            let known: Vec<_> =
                before.iter().filter_map(|view| Some((&view.left_out, place(view)?))).collect();
            for (why, objects, names) in self.left_out.news(server, &known) {
                // A name may carry what would forge lines of the log: `Debug` escapes it.
                tracing::warn!(
                    gateway = %self.config.gateway.id, server = %attached.id, objects, ?names,
                    "left out of this server's lists: {why}"
                );
            }
        }
    }

    fn as_before<'a>(&'a self, section: &'a Section) -> Before<'a> {
        Before { naming: self.config.gateway.naming, attached: &self.config.attached, section }
    }

    /// The tool that clients call `name`.
    #[must_use]
    pub fn tool(&self, name: &str) -> Option<&Entry> {
        self.tools.get(name)
    }

    /// The prompt that clients call `name`.
    #[must_use]
    pub fn prompt(&self, name: &str) -> Option<&Entry> {
        self.prompts.get(name)
    }

    /// Where a URI or a URI template leads: a wrapped one to the server of its prefix; a bare one to its only
    /// holder, the only server with a template that it fits, or the only server there is.
    #[must_use]
    pub fn resource(&self, asked: &str) -> Option<Routed> {
        if let Some(entry) = self.resources.get(asked).or_else(|| self.templates.get(asked)) {
            return Some(Routed { server: entry.server, uri: entry.key.clone() });
        }
        if let Some((prefix, original)) = uri::unwrap(asked) {
            let server = self.config.attached.iter().position(|attached| attached.prefix == prefix)?;
            // A listed URI is meant as it stands; anything else came out of a template.
            let listed = self.resources.resolve.contains_key(&uri::wrap(prefix, &original));
            let uri = if listed { original } else { uri::expanded(&original).into_owned().into() };
            return (listed || uri::is_normal(&uri)).then(|| Routed { server, uri: uri.into_owned() });
        }
        if self.config.gateway.naming == Naming::Always || !uri::is_normal(asked) {
            return None;
        }
        let mut fits: Vec<usize> = self
            .templates
            .entries
            .iter()
            .filter(|entry| could_expand(&entry.key, asked))
            .map(|entry| entry.server)
            .collect();
        fits.dedup();
        let server = match (fits.as_slice(), self.config.attached.len()) {
            ([server], _) => *server,
            ([], 1) => 0,
            _ => return None,
        };
        Some(Routed { server, uri: asked.to_owned() })
    }

    /// The prefix that a server's URIs are wrapped with, where they are.
    #[must_use]
    pub fn wraps(&self, server: usize) -> Option<&str> {
        let contested = |section: &Section| {
            section.entries.iter().any(|entry| entry.server == server && entry.advertised != entry.key)
        };
        let wraps = self.config.gateway.naming == Naming::Always
            || contested(&self.resources)
            || contested(&self.templates);
        self.config.attached.get(server).filter(|_| wraps).map(|attached| attached.prefix.as_str())
    }

    /// Judges one object of one server.
    #[must_use]
    pub fn decide(&self, caller: &Caller, server: usize, method: &str, object: Object<'_>) -> Decision<'_> {
        let nowhere = ServerId::new("", "");
        let server = self.config.attached.get(server).map_or(&nowhere, |attached| &attached.id);
        decide(&self.config.policy, caller, &Target { server, method, object })
    }

    /// What a caller may see. Kept by the caller's class, since equal classes get equal decisions.
    #[must_use]
    pub fn list(&self, kind: ListKind, revision: Revision, caller: &Caller) -> Arc<List> {
        let key = (kind, revision, Box::from(caller.class()));
        if let Some(list) = self.lists.get(&key) {
            return list;
        }
        let list = Arc::new(self.make_list(kind, revision, caller));
        self.lists.insert(key, Arc::clone(&list));
        list
    }

    /// What there is, whoever may use it: for an observer, whose catalogue cannot depend on one caller.
    #[must_use]
    pub fn list_all(&self, kind: ListKind, revision: Revision) -> List {
        Self::rendered(kind, revision, self.section(kind).entries.iter())
    }

    fn make_list(&self, kind: ListKind, revision: Revision, caller: &Caller) -> List {
        let visible = self.section(kind).entries.iter().filter(|entry| {
            let object = Self::object(kind, entry);
            self.decide(caller, entry.server, object.use_method(), object).allowed()
        });
        Self::rendered(kind, revision, visible)
    }

    fn rendered<'e>(kind: ListKind, revision: Revision, entries: impl Iterator<Item = &'e Entry>) -> List {
        let objects: Vec<Bytes> = entries
            .map(|entry| match revision.era() {
                Era::Modern => entry.raw.clone(),
                Era::Legacy => downgrade::item(&entry.raw, revision),
            })
            .collect();
        List::new(kind, &objects)
    }

    fn section(&self, kind: ListKind) -> &Section {
        match kind {
            ListKind::Tools => &self.tools,
            ListKind::Prompts => &self.prompts,
            ListKind::Resources => &self.resources,
            ListKind::Templates => &self.templates,
        }
    }

    fn object(kind: ListKind, entry: &Entry) -> Object<'_> {
        match kind {
            ListKind::Tools => entry.as_tool(),
            ListKind::Prompts => Object::Prompt { name: &entry.key },
            ListKind::Resources | ListKind::Templates => Object::Resource { uri: &entry.key },
        }
    }

    /// Every server has been heard of once, for good or ill.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.settled
    }

    /// Every server has answered once, so that what is not here does not exist.
    #[must_use]
    pub fn reached(&self) -> bool {
        self.observed.iter().all(|observation| reached(observation))
    }

    /// What the servers can do together of which the caller sees something, or that have nothing yet; all of them
    /// without a caller. What does not work in the client's era is not among it.
    #[must_use]
    pub fn abilities(&self, era: Era, caller: Option<&Caller>) -> Abilities {
        let hidden = |server: usize| {
            let has_something =
                ListKind::ALL.into_iter().any(|kind| self.objects(kind, server).next().is_some());
            has_something && caller.is_some_and(|caller| !self.sees(caller, server))
        };
        let visible = self.observed.iter().enumerate().filter(|(server, _)| !hidden(*server));
        Abilities::of(era, visible.map(|(_, observation)| &**observation))
    }

    fn objects(&self, kind: ListKind, server: usize) -> impl Iterator<Item = Object<'_>> {
        let entries = self.section(kind).entries.iter().filter(move |entry| entry.server == server);
        entries.map(move |entry| Self::object(kind, entry))
    }

    /// Whether a caller may use anything of a server.
    fn sees(&self, caller: &Caller, server: usize) -> bool {
        let may = |object: Object<'_>| self.decide(caller, server, object.use_method(), object).allowed();
        ListKind::ALL.into_iter().any(|kind| self.objects(kind, server).any(may))
    }

    /// The servers' instructions under their prefixes, at most `limit` bytes; only of servers of which the caller
    /// sees a tool, prompt or resource; of all of them without a caller.
    #[must_use]
    pub fn instructions(&self, caller: Option<&Caller>, limit: usize) -> String {
        let sees = |server: usize| caller.is_none_or(|caller| self.sees(caller, server));
        let mut out = String::new();
        for (server, (attached, observation)) in self.config.attached.iter().zip(&self.observed).enumerate() {
            let Some(text) = observation.instructions.as_deref().filter(|_| sees(server)) else { continue };
            let text = visible(text);
            let part: Cow<'_, str> = match self.config.attached.len() {
                1 => text,
                _ => format!("## {}\n{text}\n", attached.prefix).into(),
            };
            if out.len() + part.len() <= limit {
                out.push_str(&part);
            }
        }
        out
    }
}

impl Entry {
    /// This entry as the tool that rules speak of.
    #[must_use]
    pub fn as_tool(&self) -> Object<'_> {
        Object::Tool { name: &self.key, pinned: self.pinned, claimed: self.claimed }
    }
}

impl Abilities {
    /// A server that has not been heard of yet may have anything.
    fn of<'o>(era: Era, observed: impl Iterator<Item = &'o Observation>) -> Self {
        let mut all = Self::default();
        for observation in observed {
            let (offers, unknown) = (observation.offers, !settled(observation));
            all.tools |= offers.tools || unknown;
            all.prompts |= offers.prompts || unknown;
            all.resources |= offers.resources || unknown;
            all.subscribe |= offers.subscribe && takes_subscriptions(era, observation);
            all.completions |= offers.completions;
            all.logging |= offers.logging;
        }
        all
    }
}

/// Whether a client of this era can subscribe to resources of a server: sessions serve legacy clients whatever the server
/// speaks, and a `subscriptions/listen` leads to modern servers alone.
pub(crate) fn takes_subscriptions(era: Era, observation: &Observation) -> bool {
    era == Era::Legacy || observation.eras.modern
}

/// Whether a server has answered once: its lists are known.
pub(crate) fn reached(observation: &Observation) -> bool {
    observation.generation > 0 || matches!(observation.state, State::Ready)
}

/// Whether a server has been heard of, for good or ill.
pub(crate) fn settled(observation: &Observation) -> bool {
    observation.generation > 0 || !matches!(observation.state, State::Connecting)
}
