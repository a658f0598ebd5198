//! What a server offers, as last seen: its lists, kept byte for byte.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::definition;
use super::error::{Error, Explanation, Kind};
use super::remark::Remark;
use crate::hidden_text::{Named, hides, visible};
use crate::mcp::envelope::Method;
use crate::mcp::era::Revision;
use crate::mcp::header::ParamHeaders;
use crate::mcp::json;

/// Pages of one list.
const MAX_PAGES: usize = 100;
/// Items of one list.
const MAX_ITEMS: usize = 10_000;
/// Bytes of one list.
const MAX_BYTES: usize = 16 << 20;

/// How a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not reached yet.
    Connecting,
    /// Its lists are current.
    Ready,
    /// It answers, but not all of its lists could be read.
    Degraded {
        /// Why.
        reason: String,
        /// In the server's own words.
        explanation: Option<Explanation>,
    },
    /// It cannot be reached. The last lists stand.
    Failed {
        /// Why.
        reason: String,
        /// In the server's own words.
        explanation: Option<Explanation>,
        /// Since when.
        since: std::time::SystemTime,
    },
}

/// Which eras a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Eras {
    /// 2026-07-28.
    pub modern: bool,
    /// The revision of its sessions.
    pub legacy: Option<Revision>,
}

impl Eras {
    /// Revisions, newest first.
    #[must_use]
    pub fn revisions(&self) -> Vec<&'static str> {
        let modern = self.modern.then_some(Revision::V2026_07_28);
        modern.into_iter().chain(self.legacy).map(Revision::as_str).collect()
    }
}

/// Who else may be shown a list (2026-07-28, server/utilities/caching).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheScope {
    /// Everyone.
    Public,
    /// Nobody else.
    #[default]
    Private,
}

/// What a server declares, as far as the gateway decides by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the words of MCP")]
#[expect(clippy::struct_excessive_bools, reason = "a set of independent declarations")]
pub struct Offers {
    pub tools: bool,
    pub prompts: bool,
    pub resources: bool,
    /// `resources.subscribe`
    pub subscribe: bool,
    pub completions: bool,
    pub logging: bool,
    /// Any `listChanged`.
    pub list_changed: bool,
    /// The extension `io.modelcontextprotocol/tasks`.
    pub tasks: bool,
}

impl Offers {
    /// Reads a `ServerCapabilities` object.
    #[must_use]
    pub fn read(capabilities: &[u8]) -> Self {
        let part = |name| json::member(capabilities, name).filter(|value| value.first() == Some(&b'{'));
        let flag =
            |part: Option<&[u8]>, name| part.and_then(|part| json::member(part, name)) == Some(b"true");
        let (tools, prompts, resources) = (part("tools"), part("prompts"), part("resources"));
        Self {
            tools: tools.is_some(),
            prompts: prompts.is_some(),
            resources: resources.is_some(),
            subscribe: flag(resources, "subscribe"),
            completions: part("completions").is_some(),
            logging: part("logging").is_some(),
            list_changed: [tools, prompts, resources].into_iter().any(|part| flag(part, "listChanged")),
            tasks: part("extensions")
                .is_some_and(|one| json::member(one, "io.modelcontextprotocol/tasks").is_some()),
        }
    }
}

/// One tool, prompt, resource or template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// `name`, `uri` or `uriTemplate`.
    pub key: String,
    /// The JSON object, byte for byte.
    pub raw: Bytes,
}

/// What is known of a server.
#[derive(Debug, Clone)]
pub struct Observation {
    /// How it is.
    pub state: State,
    /// What it speaks.
    pub eras: Eras,
    /// Its `serverInfo`, raw.
    pub server_info: Option<Bytes>,
    /// Its capabilities, raw.
    pub capabilities: Bytes,
    /// Its capabilities, read.
    pub offers: Offers,
    /// Its instructions: untrusted text.
    pub instructions: Option<String>,
    /// What it lists to a client that declares nothing.
    pub lists: Lists,
    /// Grows whenever a list, the capabilities or the instructions change; not with `state`.
    pub generation: u64,
    /// Since when the lists are known to be so: before they were asked for.
    pub listed: Instant,
    /// How many of its objects, its instructions being one, carry hidden characters in what is shown of them.
    pub hiding: usize,
}

/// The lists of a server, as it answers one kind of client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lists {
    /// In the server's order. Tools that cannot be called over HTTP are left out.
    pub tools: Arc<[Item]>,
    /// In the server's order.
    pub prompts: Arc<[Item]>,
    /// In the server's order.
    pub resources: Arc<[Item]>,
    /// In the server's order.
    pub templates: Arc<[Item]>,
    /// The shortest `ttlMs` of the lists; 0 where none was given.
    pub ttl_ms: u64,
    /// The narrowest `cacheScope` of the lists.
    pub cache_scope: CacheScope,
    /// What of the lists is not offered as it is.
    pub remarks: BTreeSet<Remark>,
}

impl Lists {
    /// Takes one in.
    pub(super) fn take(&mut self, listing: Listing) {
        *self.place(&listing.method) = listing.items.into();
        self.remarks.extend(listing.remarks);
        if let Some((items, first)) = listing.unreadable {
            self.remarks.insert(Remark::Unreadable { method: listing.method.label(), items, first });
        }
    }

    /// Takes in what came of a list that failed: nothing, or its first pages. What was known of it stands, if anything was.
    pub(super) fn take_part(&mut self, mut part: Listing, why: Remark, known: &Self) {
        part.remarks.insert(why);
        let method = part.method.clone();
        self.take(part);
        let known = known.clone().place(&method).clone();
        if !known.is_empty() {
            *self.place(&method) = known;
        }
    }

    /// Whether a list, or its rest, is not there.
    pub(super) fn is_partial(&self) -> bool {
        self.remarks.iter().any(|remark| matches!(remark, Remark::Missing { .. } | Remark::Late { .. }))
    }

    fn place(&mut self, method: &Method) -> &mut Arc<[Item]> {
        match method {
            Method::PromptsList => &mut self.prompts,
            Method::ResourcesList => &mut self.resources,
            Method::ResourcesTemplatesList => &mut self.templates,
            _ => &mut self.tools,
        }
    }
}

impl Default for Observation {
    fn default() -> Self {
        Self {
            state: State::Connecting,
            eras: Eras::default(),
            server_info: None,
            capabilities: Bytes::from_static(b"{}"),
            offers: Offers::default(),
            instructions: None,
            lists: Lists::default(),
            generation: 0,
            listed: Instant::now(),
            hiding: 0,
        }
    }
}

impl Observation {
    /// Counts for [`Self::hiding`].
    pub(crate) fn count_hiding(&self) -> usize {
        let lists = [
            (&self.lists.tools, Named::Identifier),
            (&self.lists.prompts, Named::Identifier),
            (&self.lists.resources, Named::Text),
            (&self.lists.templates, Named::Text),
        ];
        let objects =
            lists.iter().flat_map(|(items, named)| items.iter().filter(|item| hides(&item.raw, *named)));
        let instructions = self.instructions.as_deref().is_some_and(|text| visible(text) != text);
        objects.count() + usize::from(instructions)
    }

    /// For how many milliseconds yet the lists may be taken for current (2026-07-28, server/utilities/caching).
    #[must_use]
    pub fn ttl_left(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.listed).as_millis();
        self.lists.ttl_ms.saturating_sub(u64::try_from(age).unwrap_or(u64::MAX))
    }

    /// The same but for `state`, `generation` and when it was seen?
    pub(crate) fn offers_the_same(&self, other: &Self) -> bool {
        self.eras == other.eras
            && self.server_info == other.server_info
            && self.capabilities == other.capabilities
            && self.instructions == other.instructions
            && self.lists == other.lists
    }
}

/// Reads a list page by page.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    method: Method,
    items: Vec<Item>,
    keys: HashSet<String>,
    cursors: HashSet<String>,
    bytes: usize,
    pub(crate) ttl_ms: u64,
    pub(crate) scope: CacheScope,
    remarks: BTreeSet<Remark>,
    /// How many items were left out because they are none, and what is wrong with the first.
    unreadable: Option<(usize, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    #[serde(borrow, alias = "prompts", alias = "resources", alias = "resourceTemplates")]
    tools: Vec<&'a RawValue>,
    next_cursor: Option<String>,
    #[serde(default)]
    ttl_ms: Option<f64>,
    #[serde(default)]
    cache_scope: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Keys<'a> {
    name: Option<String>,
    uri: Option<String>,
    uri_template: Option<String>,
    #[serde(borrow)]
    input_schema: Option<&'a RawValue>,
    #[serde(borrow)]
    execution: Option<&'a RawValue>,
}

impl Listing {
    pub(crate) fn new(method: Method) -> Self {
        Self {
            method,
            items: Vec::new(),
            keys: HashSet::new(),
            cursors: HashSet::new(),
            bytes: 0,
            ttl_ms: u64::MAX,
            scope: CacheScope::Public,
            remarks: BTreeSet::new(),
            unreadable: None,
        }
    }

    /// The request that asks for it.
    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    /// Takes a page's result; returns the `params` members that ask for the next page, if there is
    /// to be one.
    pub(crate) fn page(&mut self, result: &[u8]) -> Result<Option<Bytes>, Error> {
        let page: Page<'_> =
            serde_json::from_slice(result).map_err(|_| Error::protocol("a malformed list"))?;
        self.bytes += result.len();
        if self.bytes > MAX_BYTES || self.items.len() + page.tools.len() > MAX_ITEMS {
            return Err(Error::sent(Kind::TooLarge));
        }
        // A float is in range of u64 here: negative and absent are 0, and `as` saturates.
        let ttl = page.ttl_ms.unwrap_or_default().max(0.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, and is not negative"
        )]
        let ttl = ttl as u64;
        self.ttl_ms = self.ttl_ms.min(ttl);
        if page.cache_scope.as_deref() != Some("public") {
            self.scope = CacheScope::Private;
        }
        for raw in page.tools {
            self.take(raw);
        }
        let Some(cursor) = page.next_cursor else { return Ok(None) };
        if self.cursors.len() + 1 >= MAX_PAGES || !self.cursors.insert(cursor.clone()) {
            self.remarks.insert(Remark::cut(&self.method));
            return Ok(None);
        }
        let mut members = b"\"cursor\":".to_vec();
        json::push_text(&mut members, &cursor);
        Ok(Some(members.into()))
    }

    fn take(&mut self, raw: &RawValue) {
        let keys = serde_json::from_str::<Keys<'_>>(raw.get()).unwrap_or_default();
        let key = match self.method {
            Method::ResourcesList => keys.uri,
            Method::ResourcesTemplatesList => keys.uri_template,
            _ => keys.name,
        };
        let Some(key) = key.filter(|key| !key.is_empty()) else {
            return self.leave_out(|| "one has no name, or a member twice".to_owned());
        };
        if let Some(mistake) = definition::mistake(&self.method, raw.get()) {
            let name: String = key.chars().take(64).collect();
            return self.leave_out(|| format!("{name:?}: {mistake}"));
        }
        if self.method == Method::ToolsList
            && let Some(remark) = uncallable(&key, keys.input_schema, keys.execution)
        {
            self.remarks.insert(remark);
            return;
        }
        if self.keys.insert(key.clone()) {
            self.items.push(Item { key, raw: Bytes::copy_from_slice(raw.get().as_bytes()) });
        } else {
            self.remarks.insert(Remark::twice(&self.method));
        }
    }

    fn leave_out(&mut self, why: impl FnOnce() -> String) {
        self.unreadable.get_or_insert_with(|| (0, why())).0 += 1;
    }
}

/// Why a tool must not be offered.
fn uncallable(tool: &str, schema: Option<&RawValue>, execution: Option<&RawValue>) -> Option<Remark> {
    if let Some(Err(reason)) = schema.map(|schema| ParamHeaders::from_schema(schema.get().as_bytes())) {
        return Some(Remark::Headers { tool: tool.to_owned(), reason: reason.to_string() });
    }
    let support = execution.and_then(|execution| json::member(execution.get().as_bytes(), "taskSupport"));
    let only_as_task = support.and_then(json::text).as_deref() == Some("required");
    only_as_task.then(|| Remark::TaskOnly { tool: tool.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_kept_byte_for_byte_across_pages() {
        let mut list = Listing::new(Method::ToolsList);
        let next = list
            .page(br#"{"tools":[{"name":"a", "x": 1.0,"inputSchema":{"type":"object"}}],"nextCursor":"","ttlMs":5,"cacheScope":"public"}"#);
        assert_eq!(next.unwrap().unwrap(), "\"cursor\":\"\"", "an empty cursor is a cursor");
        let page =
            br#"{"tools":[{"name":"a","inputSchema":{"type":"object"}},{"name":"b","inputSchema":{"type":"object"}},{"title":"nameless"},{"name":"e"},{"name":"c","name":"d"}],"ttlMs":-1,"nextCursor":""}"#;
        assert_eq!(list.page(page).unwrap(), None, "a repeated cursor ends the list");
        assert_eq!((list.ttl_ms, list.scope), (0, CacheScope::Private));
        let mut lists = Lists::default();
        lists.take(list);
        assert_eq!(lists.tools.len(), 2);
        assert_eq!(lists.tools[0].raw, r#"{"name":"a", "x": 1.0,"inputSchema":{"type":"object"}}"#);
        let unreadable = Remark::Unreadable {
            method: "tools/list",
            items: 3,
            first: "one has no name, or a member twice".to_owned(),
        };
        let remarks = [Remark::twice(&Method::ToolsList), Remark::cut(&Method::ToolsList), unreadable];
        assert_eq!(lists.remarks, remarks.into());
    }

    #[test]
    fn a_tool_that_nobody_here_can_call_is_left_out_with_a_word_about_it() {
        let mut list = Listing::new(Method::ToolsList);
        let page = br#"{"tools":[
            {"name":"slow\n","inputSchema":{"type":"object"},"execution":{"taskSupport":"required"}},
            {"name":"either","inputSchema":{"type":"object"},"execution":{"taskSupport":"optional"}},
            {"name":"odd","inputSchema":{"type":"object","properties":{"a":{"type":"string","x-mcp-header":"a b"}}}}
        ]}"#;
        list.page(page).unwrap();
        let mut lists = Lists::default();
        lists.take(list);
        assert_eq!(lists.tools.iter().map(|tool| tool.key.as_str()).collect::<Vec<_>>(), ["either"]);
        let told: Vec<_> = lists.remarks.iter().map(Remark::to_string).collect();
        assert!(
            told[0].starts_with(r#"left out the tool "odd", whose x-mcp-header is invalid: "#),
            "{told:?}"
        );
        assert_eq!(told[1], r#"left out the tool "slow\n", which runs as a task only"#);
        assert_eq!(told.len(), 2);
    }

    #[test]
    fn what_is_left_of_a_lists_ttl_is_less_with_its_age_and_never_less_than_nothing() {
        let listed = Instant::now();
        let lists = Lists { ttl_ms: 10_000, ..Lists::default() };
        let seen = Observation { listed, lists, ..Observation::default() };
        let after = |millis| seen.ttl_left(listed + std::time::Duration::from_millis(millis));
        assert_eq!([0, 1, 4_000, 10_000, 10_001, 86_400_000].map(after), [10_000, 9_999, 6_000, 0, 0, 0]);
        let before = listed.checked_sub(std::time::Duration::from_secs(1)).unwrap();
        assert_eq!(seen.ttl_left(before), 10_000, "what was asked for later is not fresher than fresh");
    }

    #[test]
    fn endless_pages_are_cut() {
        let mut list = Listing::new(Method::PromptsList);
        let mut pages = 1;
        while list.page(format!(r#"{{"prompts":[],"nextCursor":"{pages}"}}"#).as_bytes()).unwrap().is_some() {
            pages += 1;
        }
        assert_eq!(pages, MAX_PAGES);
    }

    #[test]
    fn reads_what_a_server_offers() {
        let text = br#"{"tools":{"listChanged":true},"resources":{"subscribe":true},"completions":{}}"#;
        let offers = Offers::read(text);
        assert!(
            offers.tools && offers.list_changed && offers.resources && offers.subscribe && offers.completions
        );
        assert!(!offers.prompts && !offers.logging);
    }
}
