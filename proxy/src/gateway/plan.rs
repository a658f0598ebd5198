//! From a client's request to what its server is asked: resolve the name, judge, charge, rewrite.

use std::sync::Arc;

use bytes::Bytes;
use mcpmesh_ir::ServerId;
use mcpmesh_ir::policy::{Caller, Object, Target};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::post::Exchange;
use super::record::Record;
use super::{Gateway, answer, now};
use crate::catalog::{Attached, Entry, View};
use crate::identity::assertion;
use crate::mcp::envelope::{Method, Params, Request};
use crate::mcp::era::{Era, Revision};
use crate::mcp::fault::{self, Fault};
use crate::mcp::handle::{KeyRing, Purpose};
use crate::mcp::meta::{Capabilities, CapabilitySet, LogLevel};
use crate::mcp::rewrite::{Rules, States, UriWrap};
use crate::mcp::{json, uri};
use crate::session::Session;
use crate::upstream::Outgoing;

/// Rounds that one call may ask its client back.
const MAX_ROUNDS: u32 = 10;
/// Seconds that a client may take for one round.
const ROUND_LIFE: u64 = 900;

/// What is known of the asking client besides its identity.
pub(super) struct Asker {
    pub(super) revision: Revision,
    pub(super) capabilities: Capabilities,
    pub(super) log_level: Option<LogLevel>,
    pub(super) session: Option<Arc<Session>>,
    /// Whether it reads a stream, on which it can be asked and told something before the response.
    pub(super) streams: bool,
}

/// A judged and rewritten request.
pub(super) struct Plan {
    /// Index of the server.
    pub(super) server: usize,
    pub(super) outgoing: Outgoing,
    /// How its response becomes the client's, but for the upstream's era, which its answer tells.
    pub(super) rules: Rules,
}

/// The object of a request, found.
struct Found<'v> {
    server: usize,
    object: Object<'v>,
    entry: Option<&'v Entry>,
    /// The member of `params` that names it.
    member: &'static str,
    /// That member's value for the upstream, as JSON.
    value: Bytes,
    /// What `Mcp-Name` says upstream.
    name: Option<String>,
}

impl Exchange {
    /// Finds, judges, charges and rewrites.
    pub(super) async fn plan(
        &mut self,
        request: &Request,
        asker: &Asker,
        record: &mut Record,
    ) -> Result<Plan, Fault> {
        let subject = Subject::of(request)?;
        let grace = self.gateway.shell.bounds.call_grace;
        self.settle(grace, |view| subject.leads_somewhere(view)).await;
        let observes = self.credential.observes();
        let Some(routed) = subject.route(&self.view).filter(|_| !observes) else {
            self.knows_servers()?;
            record.unknown(subject.asked());
            return Err(subject.unknown());
        };
        let found = subject.found(&routed);
        let Attached { id, label, .. } =
            self.view.config.attached.get(found.server).ok_or(Fault::Internal)?;
        let method = request.method.as_str();
        let decision = self.view.decide(&self.caller, found.server, method, found.object);
        record.decided(label, found.object.name(), &decision);
        if !decision.allowed() {
            return Err(subject.unknown());
        }
        self.check_param_headers(&found, request, asker.revision)?;
        self.charge(id, method, found.object, record)?;
        let round = self.round(request, id, found.object.name())?;
        Ok(self.build(request, asker, &found, &round))
    }

    /// Only modern requests mirror arguments in headers.
    fn check_param_headers(
        &self,
        found: &Found<'_>,
        request: &Request,
        revision: Revision,
    ) -> Result<(), Fault> {
        match found.entry.and_then(|entry| entry.param_headers.as_ref()) {
            Some(headers) if revision.era() == Era::Modern => {
                headers.check(&self.headers, request.params.get("arguments"))
            }
            _ => Ok(()),
        }
    }

    fn charge(
        &self,
        server: &ServerId,
        method: &str,
        object: Object<'_>,
        record: &mut Record,
    ) -> Result<(), Fault> {
        let config = &self.view.config;
        let target = Target { server, method, object };
        let charged = config.limiter.charge(&config.policy, &self.caller, &target);
        for exceeded in &charged.audited {
            record.would_limit(exceeded);
        }
        match charged.refused {
            None => Ok(()),
            Some(exceeded) => {
                record.limited(&exceeded);
                Err(Fault::RateLimited { retry_after: exceeded.retry_after })
            }
        }
    }

    fn build(&self, request: &Request, asker: &Asker, found: &Found<'_>, round: &Round) -> Plan {
        let meta = request.params.meta();
        let era = asker.revision.era();
        let arguments = request.params.get("arguments");
        let mut replace: Vec<(&str, &[u8])> = vec![(found.member, &found.value)];
        // Tasks are not offered: whoever does not offer them runs the call as any other (2025-11-25, basic/utilities/tasks).
        let mut drop: Vec<&str> = vec!["task"];
        match &round.upstream {
            Some(state) => replace.push(("requestState", state)),
            None => drop.push("requestState"),
        }
        let capabilities = self.relayed(found.server, era, &asker.capabilities);
        let headers = found.entry.and_then(|entry| entry.param_headers.as_ref());
        let outgoing = Outgoing {
            method: request.method.clone(),
            members: request.params.splice(&replace, &drop),
            name: found.name.clone(),
            meta: meta.pass_through(),
            trace: self.trace(&request.params),
            capabilities: capabilities.clone(),
            log_level: asker.log_level,
            wants_progress: meta.progress_token().is_some(),
            param_headers: headers.map(|headers| headers.build(arguments)).unwrap_or_default(),
            era,
            session: asker.session.as_ref().map(|session| Arc::clone(&session.link)),
            assertion: self.view.config.attached.get(found.server).and_then(|one| self.assertion(one)),
            deadline: None,
        };
        let mut rules = Rules::new(request.id.clone(), asker.revision, era);
        let opens_urls = asker.capabilities.set().contains(CapabilitySet::ELICITATION_URL);
        rules.opens_urls = opens_urls && era == Era::Legacy;
        rules.uris = self.view.wraps(found.server).map(|prefix| UriWrap { prefix: prefix.into() });
        rules.reads_resource = request.method == Method::ResourcesRead;
        if era == Era::Modern {
            rules.asks = has_rounds(&request.method).then(|| capabilities.set());
            rules.states = Some(self.states(request, found, round.number));
        }
        Plan { server: found.server, outgoing, rules }
    }

    /// What may be asked of the client during this call: what a modern client declares at a modern server. A legacy
    /// client is asked in the sessions of its link; between the eras a question would have to be translated.
    fn relayed(&self, server: usize, era: Era, declared: &Capabilities) -> Capabilities {
        let modern = self.view.observed.get(server).is_some_and(|seen| seen.eras.modern);
        let set = if modern && era == Era::Modern { declared.set() } else { CapabilitySet::default() };
        set.without_tasks().into()
    }

    /// For whom this is asked, where the server's sidecar judges by it.
    pub(super) fn assertion(&self, attached: &Attached) -> Option<http::HeaderValue> {
        attached.upstream.is_of_mesh().then(|| assertion::of_caller(&self.caller.identity)).flatten()
    }

    fn trace(&self, params: &Params) -> Option<crate::mcp::meta::TraceContext> {
        use crate::mcp::meta::TraceContext;
        let parent = params.meta().trace().or_else(|| TraceContext::of_headers(&self.headers))?;
        let mut span = [0; 8];
        aws_lc_rs::rand::fill(&mut span).ok()?;
        Some(parent.child(span))
    }
}

/// What a request is about, as the client says it.
enum Subject<'r> {
    Tool(std::borrow::Cow<'r, str>),
    Prompt(std::borrow::Cow<'r, str>, Form),
    Resource(std::borrow::Cow<'r, str>, Form),
}

/// Whether the object is named by its own member or inside `ref`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Member,
    Reference,
}

/// Where a subject leads.
enum Routed<'v> {
    Entry(&'v Entry),
    Uri(crate::catalog::Routed),
}

impl<'r> Subject<'r> {
    fn of(request: &'r Request) -> Result<Self, Fault> {
        let needed = |key: &'static str| {
            let value = request.params.str(key)?;
            value.ok_or_else(|| Fault::InvalidParams(format!("params.{key} is required").into()))
        };
        match &request.method {
            Method::ToolsCall => needed("name").map(Self::Tool),
            Method::PromptsGet => Ok(Self::Prompt(needed("name")?, Form::Member)),
            Method::ResourcesRead | Method::ResourcesSubscribe | Method::ResourcesUnsubscribe => {
                Self::resource(needed("uri")?, Form::Member)
            }
            Method::CompletionComplete => Self::reference(request.params.get("ref").unwrap_or(b"{}")),
            other => Err(Fault::MethodNotFound(other.as_str().into())),
        }
    }

    fn resource(asked: std::borrow::Cow<'r, str>, form: Form) -> Result<Self, Fault> {
        let original = uri::unwrap(&asked).map(|(_, original)| original);
        if uri::refuse(original.as_deref().unwrap_or(&asked)) {
            return Err(Fault::InvalidParams(
                "a URI with dot segments or encoded slashes is not read".into(),
            ));
        }
        Ok(Self::Resource(asked, form))
    }

    fn reference(raw: &'r [u8]) -> Result<Self, Fault> {
        let text = |key| json::member(raw, key).and_then(json::text);
        match (text("type").as_deref(), text("name"), text("uri")) {
            (Some("ref/prompt"), Some(name), _) => Ok(Self::Prompt(name, Form::Reference)),
            (Some("ref/resource"), _, Some(uri)) => Self::resource(uri, Form::Reference),
            _ => Err(Fault::InvalidParams("params.ref must be a ref/prompt or a ref/resource".into())),
        }
    }

    fn asked(&self) -> &str {
        match self {
            Self::Tool(name) | Self::Prompt(name, _) | Self::Resource(name, _) => name,
        }
    }

    fn unknown(&self) -> Fault {
        match self {
            Self::Tool(name) => Fault::unknown(fault::Object::Tool, name),
            Self::Prompt(name, _) => Fault::unknown(fault::Object::Prompt, name),
            Self::Resource(name, _) => Fault::unknown(fault::Object::Resource, name),
        }
    }

    fn leads_somewhere(&self, view: &View) -> bool {
        self.route(view).is_some()
    }

    fn route<'v>(&self, view: &'v View) -> Option<Routed<'v>> {
        match self {
            Self::Tool(name) => view.tool(name).map(Routed::Entry),
            Self::Prompt(name, _) => view.prompt(name).map(Routed::Entry),
            Self::Resource(uri, _) => view.resource(uri).map(Routed::Uri),
        }
    }

    fn found<'v>(&self, routed: &'v Routed<'v>) -> Found<'v> {
        let (server, entry, key) = match routed {
            Routed::Entry(entry) => (entry.server, Some(*entry), entry.key.as_str()),
            Routed::Uri(routed) => (routed.server, None, routed.uri.as_str()),
        };
        let (object, member, value) = match (self, entry) {
            (Self::Tool(_), Some(entry)) => (entry.as_tool(), "name", answer::text(key)),
            (Self::Tool(_) | Self::Prompt(_, Form::Member), _) => {
                (Object::Prompt { name: key }, "name", answer::text(key))
            }
            (Self::Prompt(_, Form::Reference), _) => {
                (Object::Prompt { name: key }, "ref", reference("ref/prompt", "name", key))
            }
            (Self::Resource(_, Form::Member), _) => (Object::Resource { uri: key }, "uri", answer::text(key)),
            (Self::Resource(_, Form::Reference), _) => {
                (Object::Resource { uri: key }, "ref", reference("ref/resource", "uri", key))
            }
        };
        Found { server, object, entry, member, value, name: (member != "ref").then(|| key.to_owned()) }
    }
}

fn reference(kind: &str, key: &str, value: &str) -> Bytes {
    Bytes::from(serde_json::json!({"type": kind, key: value}).to_string())
}

/// What a sealed `requestState` says (mcp.md 8): a later round is the same call of the same caller at the same server.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    server: ServerId,
    upstream: Option<String>,
    method: String,
    name: String,
    arguments: String,
    round: u32,
}

/// Where a call stands in its rounds.
#[derive(Default)]
struct Round {
    number: u32,
    /// The upstream's own state as JSON text.
    upstream: Option<Bytes>,
}

impl Exchange {
    /// Opens the state that a client brings back.
    fn round(&self, request: &Request, server: &ServerId, name: &str) -> Result<Round, Fault> {
        if request.params.get("inputResponses").is_some_and(|responses| responses.first() != Some(&b'{')) {
            return Err(Fault::InvalidParams("inputResponses must be an object".into()));
        }
        let Some(sealed) = request.params.str("requestState")? else { return Ok(Round::default()) };
        let refused = || Fault::InvalidParams("requestState is not valid for this call".into());
        let binding = Gateway::binding(&self.view, &self.caller.principal);
        let ring = &self.gateway.shell.ring;
        let state: State =
            ring.open(Purpose::RequestState, &binding, now(), &sealed).map_err(|_| refused())?;
        let same = state.server == *server
            && state.method == request.method.as_str()
            && state.name == name
            && state.arguments == digest(request.params.get("arguments").unwrap_or(b"{}"));
        if !same || state.round >= MAX_ROUNDS {
            return Err(refused());
        }
        Ok(Round { number: state.round, upstream: state.upstream.map(|state| answer::text(&state)) })
    }

    fn states(&self, request: &Request, found: &Found<'_>, round: u32) -> Arc<dyn States> {
        Arc::new(Sealer {
            ring: Arc::clone(&self.gateway.shell.ring),
            view: Arc::clone(&self.view),
            caller: Arc::clone(&self.caller),
            server: found.server,
            method: request.method.clone(),
            name: found.object.name().to_owned(),
            arguments: request.params.bytes("arguments").unwrap_or_else(|| Bytes::from_static(b"{}")),
            round,
        })
    }
}

/// The requests that a server may answer with questions (2026-07-28, basic/patterns/mrtr).
fn has_rounds(method: &Method) -> bool {
    matches!(method, Method::ToolsCall | Method::PromptsGet | Method::ResourcesRead)
}

/// Arguments compare by their canonical form: a client may write them anew for the next round.
fn digest(arguments: &[u8]) -> String {
    let canonical = serde_json::from_slice::<serde_json::Value>(arguments)
        .ok()
        .and_then(|value| mcpmesh_ir::resource::canonical(&value).ok());
    let bytes = canonical.as_ref().map_or(arguments, |canonical| canonical.get().as_bytes());
    hex::encode(Sha256::digest(bytes))
}

/// Seals what an upstream gives the client to bring back.
struct Sealer {
    ring: Arc<KeyRing>,
    view: Arc<View>,
    caller: Arc<Caller>,
    /// Index of the server in the view.
    server: usize,
    method: Method,
    name: String,
    arguments: Bytes,
    round: u32,
}

impl States for Sealer {
    fn request_state(&self, upstream: Option<&str>) -> Option<String> {
        let binding = Gateway::binding(&self.view, &self.caller.principal);
        let state = State {
            server: self.view.config.attached.get(self.server)?.id.clone(),
            upstream: upstream.map(str::to_owned),
            method: self.method.as_str().to_owned(),
            name: self.name.clone(),
            arguments: digest(&self.arguments),
            round: self.round + 1,
        };
        self.ring.seal(Purpose::RequestState, &binding, now() + ROUND_LIFE, &state).ok()
    }
}
