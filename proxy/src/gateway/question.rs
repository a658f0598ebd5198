//! What servers ask a client in its session: only what it declared, under an id of ours.

use bytes::Bytes;

use super::answer;
use crate::mcp::envelope::{Id, IdValue, Method, Notification};
use crate::mcp::era::Era;
use crate::mcp::fault::Fault;
use crate::mcp::meta::{CapabilitySet, PROGRESS_TOKEN};
use crate::mcp::rewrite::{UriWrap, remove_path, rewrite_request, splice_path};
use crate::mcp::{json, meta};
use crate::session::{Asked, Session};
use crate::upstream::Answerer;

/// Where a request asks for progress.
const TOKEN: [&str; 3] = ["params", "_meta", PROGRESS_TOKEN];

/// A request of a server.
pub(super) struct Question<'a> {
    /// The server's id of it.
    pub(super) id: Id,
    pub(super) method: &'a Method,
    /// The whole message.
    pub(super) raw: &'a Bytes,
    pub(super) answerer: Answerer,
}

impl Question<'_> {
    /// The question as the client reads it; else what its server is told.
    pub(super) fn put(self, session: &Session, uris: Option<UriWrap>) -> Result<Bytes, Bytes> {
        if let Some(fault) = self.undeclared(session.terms.capabilities.set()) {
            return Err(refusal(&fault, &self.id));
        }
        // Tasks are not declared to servers; a client that has them must not take this for one.
        let raw = remove_path(self.raw, &["params", "task"]);
        let progress = progress_token(&raw);
        let tells = progress.is_some();
        let (id, given_up) = session.ask(Asked { answerer: self.answerer, id: self.id.clone(), progress });
        if let Some(Asked { answerer, id, .. }) = given_up {
            let fault = Fault::Upstream("too many questions wait for this client".into());
            answerer.send_detached(refusal(&fault, &id));
        }
        // Servers that do not know of each other may use the same token.
        let own_token = tells.then(|| splice_path(&raw, &TOKEN, id.as_json())).flatten();
        rewrite_request(&own_token.unwrap_or(raw), id.clone(), uris).map_err(|bad| {
            tracing::warn!(%bad, "a server's question cannot be forwarded");
            // Nobody will answer it.
            let _ = session.answered(&id);
            refusal(&Fault::InvalidRequest("the request is malformed".into()), &self.id)
        })
    }

    /// Why a client that declared this is not asked, if it is not (2025-11-25, client features: a server asks only
    /// for what the client declared).
    fn undeclared(&self, declared: CapabilitySet) -> Option<Fault> {
        let member = |name| json::member(json::member(self.raw, "params")?, name);
        let mode = member("mode").map(|mode| json::text(mode).unwrap_or_default());
        let tools = member("tools").or_else(|| member("toolChoice")).is_some();
        let needed = meta::needed(self.method, mode.as_deref(), tools);
        if needed.is_some_and(|needed| declared.contains(needed)) {
            return None;
        }
        let other_mode = *self.method == Method::ElicitationCreate
            && [CapabilitySet::ELICITATION_FORM, CapabilitySet::ELICITATION_URL]
                .iter()
                .any(|mode| declared.contains(*mode));
        Some(if other_mode {
            Fault::InvalidParams("the client did not declare this mode".into())
        } else {
            Fault::MethodNotFound("this client did not declare that it can be asked this".into())
        })
    }
}

fn progress_token(raw: &Bytes) -> Option<Bytes> {
    let token = TOKEN.iter().try_fold(raw.as_ref(), |object, name| json::member(object, name))?;
    Some(raw.slice_ref(token))
}

/// `notifications/cancelled` of a server's own question, as the client knows that question.
pub(super) fn withdrawn(session: &Session, answerer: &Answerer, raw: &Bytes) -> Option<Bytes> {
    let id = json::member(json::member(raw, "params")?, "requestId")?;
    let id = session.withdrawn(answerer, &IdValue::read(&raw.slice_ref(id))?)?;
    splice_path(raw, &["params", "requestId"], id.as_json())
}

/// `notifications/elicitation/complete`, for a client that opens URLs.
pub(super) fn completed(session: &Session, raw: &Bytes) -> Option<Bytes> {
    session.terms.capabilities.set().contains(CapabilitySet::ELICITATION_URL).then(|| raw.clone())
}

/// What a client says of its progress with a question goes to the server that asked, under that server's token.
pub(super) fn progressed(session: &Session, said: &Notification) {
    let asked = said.params.get(PROGRESS_TOKEN).and_then(|token| session.waiting(token));
    let Some(Asked { answerer, progress: Some(token), .. }) = asked else { return };
    let members = said.params.splice(&[(PROGRESS_TOKEN, &token)], &[]);
    let params = [b"{", &members[..], b"}"].concat();
    answerer.send_detached(answer::notification(said.method.as_str(), Some(&params)));
}

/// What a server is told whose question reaches nobody: the client has no session, or reads no stream.
pub(super) fn nobody(id: &Id) -> Bytes {
    refusal(&Fault::MethodNotFound("this client cannot be asked here".into()), id)
}

fn refusal(fault: &Fault, id: &Id) -> Bytes {
    fault.to_body(Era::Legacy, Some(id))
}
