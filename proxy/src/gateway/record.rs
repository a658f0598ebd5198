//! What is written down of a request: filled in as it is answered, counted and logged when it is dropped, so that
//! a client that goes away is recorded too.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use mcpmesh_ir::PolicyId;
use mcpmesh_ir::policy::{AuditNote, Caller, Decision, Verdict};
use tokio::time::Instant;

use super::Gateway;
use crate::access_log;
use crate::limit::Exceeded;
use crate::mcp::envelope::Method;
use crate::mcp::era::Revision;
use crate::mcp::fault::Fault;
use crate::mcp::rewrite::Outcome;
use crate::metrics::{Done, Label, Open};

/// See the module.
pub(super) struct Record {
    gateway: Arc<Gateway>,
    caller: Arc<Caller>,
    method: Method,
    revision: Option<Revision>,
    started: Instant,
    /// When the request was there as a whole.
    whole: Instant,
    server_time: ServerTime,
    server: Option<Label>,
    object: Option<String>,
    outcome: &'static str,
    reason: Option<&'static str>,
    policy: Option<PolicyId>,
    rule: Option<String>,
    audit: Option<String>,
    trace_id: Option<String>,
    status: u16,
    _in_flight: Open,
}

impl Record {
    pub(super) fn new(
        gateway: &Arc<Gateway>,
        caller: &Arc<Caller>,
        method: Method,
        (started, whole): (Instant, Instant),
    ) -> Self {
        Self {
            gateway: Arc::clone(gateway),
            caller: Arc::clone(caller),
            method,
            revision: None,
            started,
            whole,
            server_time: ServerTime::default(),
            server: None,
            object: None,
            outcome: "cancelled",
            reason: None,
            policy: None,
            rule: None,
            audit: None,
            trace_id: None,
            status: 200,
            _in_flight: Open::new(gateway.shell.metrics.in_flight.clone()),
        }
    }

    pub(super) fn revision(&mut self, revision: Revision) {
        self.revision = Some(revision);
    }

    pub(super) fn trace(&mut self, trace_id: [u8; 16]) {
        if self.gateway.shell.log.enabled() {
            self.trace_id = Some(hex::encode(trace_id));
        }
    }

    /// The call leads to this object of this server, and was judged so.
    pub(super) fn decided(&mut self, server: &Label, object: &str, decision: &Decision<'_>) {
        self.gateway.shell.metrics.decision(&self.gateway.label, decision);
        self.server = Some(Arc::clone(server));
        if self.gateway.shell.log.enabled() || !decision.allowed() {
            self.object = Some(object.to_owned());
            self.reason = Some(decision.reason.as_str());
            self.policy = decision.rule.map(|rule| rule.policy.clone());
            self.rule = decision.rule.and_then(|rule| rule.rule).map(str::to_owned);
            self.audit = decision.audit.as_ref().map(audit_text);
        }
        if !decision.allowed() {
            self.outcome = "denied";
            // Every denial is in the metrics and the access log; this line is for whoever watches, not for a flood.
            if self.gateway.shell.denials.check().is_err() {
                return;
            }
            let policy = self.policy.as_ref().map(ToString::to_string).unwrap_or_default();
            let rule = self.rule.as_deref().unwrap_or_default();
            tracing::info!(
                gateway = %self.gateway.label, principal = ?self.caller.principal, method = self.method.label(),
                %server, object = ?object, reason = decision.reason.as_str(), %policy, %rule, "denied"
            );
        }
    }

    /// A name that leads nowhere.
    pub(super) fn unknown(&mut self, name: &str) {
        self.outcome = "unknown";
        self.object = Some(name.chars().take(128).collect());
    }

    pub(super) fn limited(&mut self, exceeded: &Exceeded) {
        self.gateway.shell.metrics.limited(&self.gateway.label, &exceeded.policy, &exceeded.limit, true);
        self.outcome = "limited";
        self.reason = Some("rate_limited");
        self.policy = Some(exceeded.policy.clone());
        self.rule = Some(exceeded.limit.clone());
    }

    /// A limit of an Audit policy that would have refused the call.
    pub(super) fn would_limit(&mut self, exceeded: &Exceeded) {
        self.gateway.shell.metrics.limited(&self.gateway.label, &exceeded.policy, &exceeded.limit, false);
        self.audit = Some(format!("deny: rate_limited by {}/{}", exceeded.policy, exceeded.limit));
    }

    /// The server that the call leads to, for the log.
    pub(super) fn server(&self) -> &str {
        self.server.as_deref().unwrap_or_default()
    }

    /// From here on the server is waited for.
    pub(super) fn waits(&mut self) {
        self.server_time.begin(Instant::now());
    }

    /// What was waited for is here: from here on the time is ours, or the client's who reads.
    pub(super) fn heard(&mut self) {
        self.server_time.end(Instant::now());
    }

    pub(super) fn done(&mut self, outcome: &'static str) {
        self.outcome = outcome;
    }

    /// The server's own answer, sent with this status.
    pub(super) fn answered(&mut self, outcome: &Outcome, status: StatusCode) {
        self.status = status.as_u16();
        self.done(match (outcome.error_code, outcome.is_error_result) {
            (Some(_), _) => "upstream_error",
            (None, true) => "tool_error",
            (None, false) => "ok",
        });
    }

    /// Keeps what a decision or a limit said; only what they left open is the fault's to name.
    pub(super) fn failed(&mut self, fault: &Fault, status: u16) {
        self.status = status;
        if self.outcome != "cancelled" {
            return;
        }
        self.done(match fault {
            Fault::Upstream(_) | Fault::Unavailable { .. } | Fault::Throttled { .. } => "upstream_error",
            Fault::Internal => "internal",
            Fault::UnknownObject { .. } => "unknown",
            Fault::TooMany(_) => "limited",
            _ => "invalid",
        });
    }
}

/// How long a server was waited for: neither for the client to read what came, nor for us to make it the client's.
#[derive(Debug, Default)]
struct ServerTime {
    asked: Option<Instant>,
    waiting: Option<Instant>,
    waited: Duration,
}

impl ServerTime {
    fn begin(&mut self, now: Instant) {
        self.asked.get_or_insert(now);
        self.waiting.get_or_insert(now);
    }

    fn end(&mut self, now: Instant) {
        if let Some(since) = self.waiting.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }
}

fn audit_text(note: &AuditNote<'_>) -> String {
    let verdict = match note.verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
    };
    match note.rule {
        Some(rule) => {
            format!(
                "{verdict}: {} by {}/{}",
                note.reason.as_str(),
                rule.policy,
                rule.rule.unwrap_or_default()
            )
        }
        None => format!("{verdict}: {}", note.reason.as_str()),
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let total = self.started.elapsed();
        // A client that goes away does so while its server is waited for.
        self.heard();
        let upstream = self.server_time.asked.map(|_| self.server_time.waited);
        let asked = self.server_time.asked.unwrap_or_else(Instant::now);
        let own = asked.saturating_duration_since(self.whole);
        self.gateway.shell.metrics.operation(&Done {
            gateway: &self.gateway.label,
            server: self.server.as_ref(),
            method: self.method.label(),
            outcome: self.outcome,
            total,
            own,
            upstream,
        });
        if self.gateway.shell.log.enabled() {
            let line = self.line(total, upstream);
            self.gateway.shell.log.write(line);
        }
    }
}

impl Record {
    fn line(&mut self, total: Duration, upstream: Option<Duration>) -> access_log::Record {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        access_log::Record {
            time: jiff::Timestamp::now().to_string(),
            gateway: self.gateway.label.to_string(),
            principal: self.caller.principal.clone(),
            groups: self.caller.identity.groups.clone(),
            revision: self.revision.map_or("", Revision::as_str),
            method: self.method.as_str().chars().take(64).collect(),
            server: self.server.as_ref().map(ToString::to_string),
            object: self.object.take(),
            outcome: self.outcome,
            reason: self.reason,
            policy: self.policy.as_ref().map(ToString::to_string),
            rule: self.rule.take(),
            audit: self.audit.take(),
            status: self.status,
            total_us: micros(total),
            upstream_us: upstream.map(micros),
            trace_id: self.trace_id.take(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_time_is_what_it_was_waited_for_and_no_pause_in_between() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut time = ServerTime::default();
        time.begin(at(1));
        time.begin(at(2));
        time.end(at(4));
        time.end(at(5));
        assert_eq!((time.asked, time.waited), (Some(at(1)), Duration::from_secs(3)));
        // The client reads for a minute, then the rest comes.
        time.begin(at(64));
        time.end(at(65));
        assert_eq!((time.asked, time.waited), (Some(at(1)), Duration::from_secs(4)));
    }
}
