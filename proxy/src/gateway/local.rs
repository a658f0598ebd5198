//! What the gateway answers from what it knows: discovery, the handshake's content, and lists.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mcpmesh_ir::policy::{Caller, Object};
use serde::{Deserialize, Serialize};

use super::post::Exchange;
use super::{Gateway, answer, now};
use crate::catalog::{Abilities, List, ListKind, View, settled};
use crate::identity::Credential;
use crate::mcp::envelope::{Method, Request};
use crate::mcp::era::{Era, Revision};
use crate::mcp::fault::Fault;
use crate::mcp::handle::Purpose;
use crate::mcp::meta::CapabilitySet;
use crate::mcp::rewrite::updated_uri;
use crate::upstream::Declared;

/// Bytes of the servers' instructions that are passed on.
const INSTRUCTIONS: usize = 16 * 1024;

/// How long a cursor is good for.
const CURSOR_LIFE: u64 = 3600;

/// What a cursor says.
#[derive(Debug, Serialize, Deserialize)]
struct Cursor {
    list: String,
    digest: u64,
    page: usize,
}

impl Exchange {
    /// What this caller may see; an observer sees everything.
    pub(super) fn listed(&self, kind: ListKind, revision: Revision) -> Arc<List> {
        if self.credential.observes() {
            return Arc::new(self.view.list_all(kind, revision));
        }
        self.view.list(kind, revision, &self.caller)
    }

    /// Judges one object of one server; nothing is an observer's to use.
    pub(super) fn allows(&self, server: usize, object: Object<'_>) -> bool {
        !self.credential.observes()
            && self.view.decide(&self.caller, server, object.use_method(), object).allowed()
    }

    /// The pieces of a list's answer.
    pub(super) async fn list(
        &mut self,
        kind: ListKind,
        revision: Revision,
        request: &Request,
    ) -> Result<Vec<Bytes>, Fault> {
        self.settle(self.gateway.shell.bounds.list_grace, |_| false).await;
        self.knows_servers()?;
        let list = self.listed(kind, revision);
        let page = match request.params.str("cursor")? {
            None => 0,
            Some(cursor) => self.open_cursor(kind, list.digest(), &cursor)?,
        };
        let Some((body, more)) = list.page(page) else { return Err(bad_cursor()) };
        let next = if more {
            let cursor = Cursor { list: kind.member().to_owned(), digest: list.digest(), page: page + 1 };
            answer::member("nextCursor", &answer::text(&self.seal_cursor(&cursor)?))
        } else {
            Bytes::new()
        };
        let caching = match revision.era() {
            Era::Modern => self.caching(),
            Era::Legacy => Bytes::new(),
        };
        Ok(answer::result(&request.id, revision.era(), [body, next, caching]))
    }

    fn open_cursor(&self, kind: ListKind, digest: u64, cursor: &str) -> Result<usize, Fault> {
        let binding = Gateway::binding(&self.view, &self.caller.principal);
        let ring = &self.gateway.shell.ring;
        let opened: Cursor = ring.open(Purpose::Cursor, &binding, now(), cursor).map_err(|_| bad_cursor())?;
        if opened.list != kind.member() || opened.digest != digest {
            return Err(bad_cursor());
        }
        Ok(opened.page)
    }

    fn seal_cursor(&self, cursor: &Cursor) -> Result<String, Fault> {
        let binding = Gateway::binding(&self.view, &self.caller.principal);
        let ring = &self.gateway.shell.ring;
        ring.seal(Purpose::Cursor, &binding, now() + CURSOR_LIFE, cursor).map_err(|_| Fault::Internal)
    }

    /// Lists are filtered by caller, so they are private; they stay fresh for as long as the part that is stale first.
    fn caching(&self) -> Bytes {
        let now = tokio::time::Instant::now();
        let ttl = self.view.observed.iter().map(|observation| observation.ttl_left(now)).min().unwrap_or(0);
        Bytes::from(format!(r#""ttlMs":{ttl},"cacheScope":"private""#))
    }

    /// The answer to `server/discover`.
    pub(super) async fn discover(&mut self, request: &Request) -> Result<Vec<Bytes>, Fault> {
        self.settle(self.gateway.shell.bounds.list_grace, |_| false).await;
        self.knows_servers()?;
        let versions = Bytes::from(format!(r#""supportedVersions":["{}"]"#, Revision::V2026_07_28));
        Ok(answer::result(
            &request.id,
            Era::Modern,
            [versions, self.capabilities(Era::Modern), self.instructions(), self.caching()],
        ))
    }

    /// The answer to `initialize`.
    pub(super) fn handshake(&self, request: &Request, revision: Revision) -> Vec<Bytes> {
        let version = answer::member("protocolVersion", &answer::text(revision.as_str()));
        let info = answer::member("serverInfo", answer::SERVER_INFO.as_bytes());
        let capabilities = self.capabilities(Era::Legacy);
        answer::result(&request.id, Era::Legacy, [version, capabilities, info, self.instructions()])
    }

    fn capabilities(&self, era: Era) -> Bytes {
        let Abilities { tools, prompts, resources, subscribe, completions, logging } =
            self.view.abilities(era, self.viewer());
        let with_subscribe = if subscribe { r#","subscribe":true"# } else { "" };
        let parts = [
            (tools, r#""tools":{"listChanged":true}"#.to_owned()),
            (prompts, r#""prompts":{"listChanged":true}"#.to_owned()),
            (resources, format!(r#""resources":{{"listChanged":true{with_subscribe}}}"#)),
            (completions, r#""completions":{}"#.to_owned()),
            (logging, r#""logging":{}"#.to_owned()),
        ];
        let has: Vec<_> = parts.into_iter().filter_map(|(has, text)| has.then_some(text)).collect();
        Bytes::from(format!(r#""capabilities":{{{}}}"#, has.join(",")))
    }

    /// Whose eyes count; none for an observer's, which see everything.
    fn viewer(&self) -> Option<&Caller> {
        (!self.credential.observes()).then_some(&*self.caller)
    }

    fn instructions(&self) -> Bytes {
        let text = self.view.instructions(self.viewer(), INSTRUCTIONS);
        if text.is_empty() { Bytes::new() } else { answer::member("instructions", &answer::text(&text)) }
    }

    /// From here on the client sees what servers list to those that declare this.
    pub(super) fn declares(&mut self, era: Era, capabilities: CapabilitySet) {
        self.audience = Declared::of(era, capabilities).and_then(|declared| self.gateway.audience(declared));
        if self.audience.is_some() {
            self.refresh();
        }
    }

    /// Another proxy must not take a server that has not answered us yet for one that has nothing: it asks again, or
    /// another replica.
    pub(super) fn knows_servers(&self) -> Result<(), Fault> {
        if self.view.reached() || !matches!(self.credential, Credential::Peer(..)) {
            return Ok(());
        }
        let message = "the server has not answered its own proxy yet".into();
        Err(Fault::Unavailable { message, retry_after: Some(Duration::from_secs(1)) })
    }

    /// Waits, at most `grace` after the newest server was attached, until every server has been heard of or `found`.
    pub(super) async fn settle(&mut self, grace: Duration, found: impl Fn(&View) -> bool) {
        self.settle_servers(grace, &found).await;
        let Some(audience) = self.audience.clone() else { return };
        if !audience.is_settled() && !found(&self.view) {
            audience.settle(grace).await;
            self.refresh();
        }
    }

    async fn settle_servers(&mut self, grace: Duration, found: impl Fn(&View) -> bool) {
        if self.view.settled() || found(&self.view) {
            return;
        }
        let mut changes = self.gateway.changes();
        // What changed before this subscription.
        self.refresh();
        while !self.view.settled() && !found(&self.view) {
            let waiting = self.view.config.attached.iter().zip(&self.view.observed);
            let newest = waiting.filter(|(_, seen)| !settled(seen)).map(|(attached, _)| attached.since).max();
            let Some(until) = newest.and_then(|since| since.checked_add(grace)) else { return };
            let Some(left) = until.checked_duration_since(Instant::now()) else { return };
            if !matches!(tokio::time::timeout(left, changes.changed()).await, Ok(Ok(()))) {
                return;
            }
            self.refresh();
        }
    }

    /// Takes the view in force now, as the same caller; keeps the old one when the caller is not known there, or when
    /// its key is somebody else's by now.
    pub(super) fn refresh(&mut self) -> bool {
        let view = self.audience.as_ref().map_or_else(|| self.gateway.view(), |audience| audience.view());
        if !Arc::ptr_eq(&view.config, &self.view.config) {
            let at = i64::try_from(now()).unwrap_or(i64::MAX);
            let Ok(caller) = view.config.keys.caller(&self.credential, at, &view.config.policy) else {
                return false;
            };
            if caller.principal != self.caller.principal {
                return false;
            }
            self.caller = caller;
        }
        self.view = view;
        true
    }
}

impl Exchange {
    /// Resolves when the caller's key expires under the configuration in force: what stays open must end with it.
    pub(super) fn expired(&self) -> impl Future<Output = ()> + Send + use<> {
        let at = i64::try_from(now()).unwrap_or(i64::MAX);
        let expires = self.view.config.keys.expires(&self.credential, at);
        let left =
            expires.map(|at| Duration::from_secs(u64::try_from(at).unwrap_or(0).saturating_sub(now())));
        async move {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Whether this caller may be told that a resource of a server changed: the same decision as for reading it, so
    /// that a server cannot tell of what the caller may not know, nor go on after a permission is taken away.
    pub(super) fn may_hear_of(&self, server: usize, updated: &Bytes) -> bool {
        updated_uri(updated).is_some_and(|uri| self.allows(server, Object::Resource { uri: &uri }))
    }
}

fn bad_cursor() -> Fault {
    Fault::InvalidParams("the cursor is not valid for this list; list again from the start".into())
}

/// The list that a method asks for.
pub(super) fn list_kind(method: &Method) -> Option<ListKind> {
    match method {
        Method::ToolsList => Some(ListKind::Tools),
        Method::PromptsList => Some(ListKind::Prompts),
        Method::ResourcesList => Some(ListKind::Resources),
        Method::ResourcesTemplatesList => Some(ListKind::Templates),
        _ => None,
    }
}
