//! Requests of clients that speak 2026-07-28: each says everything, none needs what came before it.

use std::sync::Arc;

use http::StatusCode;
use mcpmesh_ir::ServerId;

use super::local::list_kind;
use super::plan::Asker;
use super::post::Exchange;
use super::pump::{Pump, Step, fault_of};
use super::record::Record;
use crate::http::{self as web, Answer};
use crate::mcp::envelope::{Method, Request};
use crate::mcp::era::{Era, Revision};
use crate::mcp::fault::Fault;
use crate::mcp::rewrite::Rules;
use crate::upstream::Reply;

impl Exchange {
    pub(super) async fn modern(mut self, request: Request, revision: Revision) -> Answer {
        let mut record = self.record(request.method.clone());
        record.revision(revision);
        let declared = request.params.meta().client_capabilities().unwrap_or_default();
        self.declares(Era::Modern, declared.set());
        let answered = if is_call(&request.method) {
            let meta = request.params.meta();
            let asker = Asker {
                revision,
                capabilities: declared,
                log_level: meta.log_level().unwrap_or_default(),
                session: None,
                streams: web::accepts(&self.headers, "text/event-stream"),
            };
            match self.ask(&request, &asker, &mut record).await {
                Ok((reply, rules, _)) => {
                    return self.modern_reply(&request, &asker, record, (reply, rules)).await;
                }
                Err(fault) => Err(fault),
            }
        } else {
            Box::pin(self.modern_local(&request, revision)).await
        };
        match answered {
            Ok(answer) => {
                record.done("ok");
                answer
            }
            Err(fault) => {
                record.failed(&fault, fault.status(Era::Modern).as_u16());
                web::fault(&fault, Era::Modern, Some(&request.id))
            }
        }
    }

    async fn modern_local(&mut self, request: &Request, revision: Revision) -> Result<Answer, Fault> {
        if let Some(kind) = list_kind(&request.method) {
            return self.list(kind, revision, request).await.map(|pieces| web::json(StatusCode::OK, pieces));
        }
        match &request.method {
            Method::ServerDiscover => {
                self.discover(request).await.map(|pieces| web::json(StatusCode::OK, pieces))
            }
            Method::SubscriptionsListen => self.listen(request).await,
            other => Err(Fault::MethodNotFound(other.as_str().into())),
        }
    }

    /// JSON unless the server says something before its response.
    async fn modern_reply(
        &self,
        request: &Request,
        asker: &Asker,
        record: Record,
        (reply, rules): (Reply, Rules),
    ) -> Answer {
        let said = (request.method.clone(), request.params.meta().progress_token());
        let mut pump = Pump::new(reply, rules, asker, said, (record, Arc::clone(&self.view)));
        loop {
            match pump.step().await {
                Step::Response(body) => return pump.answer(body).await,
                Step::Message(first) if asker.streams => return pump.events(first),
                Step::Message(_) => {}
                Step::Failed(fault) => return pump.fail(&fault),
            }
        }
    }

    /// Sends a judged request to its server, which is named.
    pub(super) async fn ask(
        &mut self,
        request: &Request,
        asker: &Asker,
        record: &mut Record,
    ) -> Result<(Reply, Rules, ServerId), Fault> {
        let plan = self.plan(request, asker, record).await?;
        if let Some(trace) = &plan.outgoing.trace {
            record.trace(trace.parent.trace_id);
        }
        let attached = self.view.config.attached.get(plan.server).ok_or(Fault::Internal)?;
        record.waits();
        let sent = attached.upstream.send(plan.outgoing).await;
        record.heard();
        let reply = sent.map_err(|error| fault_of(&error, record.server()))?;
        Ok((reply, plan.rules, attached.id.clone()))
    }
}

/// Methods that change what a session hears of.
pub(super) fn is_subscription(method: &Method) -> bool {
    matches!(method, Method::ResourcesSubscribe | Method::ResourcesUnsubscribe)
}

/// Methods that a server answers.
pub(super) fn is_call(method: &Method) -> bool {
    matches!(
        method,
        Method::ToolsCall | Method::PromptsGet | Method::ResourcesRead | Method::CompletionComplete
    )
}
