//! Traffic as clients make it, from before something happens until after it: many clients that ask and check each
//! answer. Every answer that is not the right one is counted with its reason.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::cluster::FIXTURE;
use crate::http::{Client, Reply, Session};
use crate::process::eventually;

/// A client asks at most so often: a machine under test has better things to do than to be asked in a circle.
const PACE: Duration = Duration::from_millis(40);

/// The revision of legacy clients.
const LEGACY: &str = "2025-11-25";

/// How a client comes and goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// Modern, over one connection as long as it lasts.
    Keeping,
    /// Modern, a connection for each request.
    Fresh,
    /// A session of the revision before, over one connection as long as it lasts.
    Legacy,
}

/// Who asks, and what.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `http://10.96.0.7:8080/mcp`
    pub endpoint: String,
    /// Tools that answer with the text that they are given; asked in turn.
    pub tools: Vec<&'static str>,
    /// With TLS: the name that the gateway must have, and the certificates that it is known by.
    pub tls: Option<(&'static str, String)>,
}

/// The gateway `main`, which lets everybody use everything, with one more line of its `spec`.
#[must_use]
pub fn open_gateway(more: &str) -> String {
    format!(
        "apiVersion: mcpmesh.io/v1alpha1
kind: McpGateway
metadata: {{name: main}}
spec:
  authentication: {{anonymous: Allow}}
  naming: {{prefix: Always}}
  {more}
---
apiVersion: mcpmesh.io/v1alpha1
kind: McpPolicy
metadata: {{name: main}}
spec:
  targetRefs: [{{kind: McpGateway, name: main}}]
  access: [{{name: everyone, effect: Allow, from: [{{anyone: {{}}}}]}}]
"
    )
}

/// A gateway of two pods over two servers of two pods each, which answer `echo`: one over standard input and output,
/// one that speaks HTTP beside a sidecar. `pod` is where all of them run, as the three kinds say it.
#[must_use]
pub fn echoes(pod: &str) -> String {
    let gateway = open_gateway(&format!("proxy: {{replicas: 2, pod: {pod}}}"));
    format!(
        "{gateway}---
apiVersion: mcpmesh.io/v1alpha1
kind: McpServer
metadata: {{name: piped}}
spec:
  container: {{image: {FIXTURE}, command: [/fixture-rmcp, --stdio]}}
  workload: {{replicas: 2, pod: {pod}}}
---
apiVersion: mcpmesh.io/v1alpha1
kind: McpServer
metadata: {{name: web}}
spec:
  container: {{image: {FIXTURE}, command: [/fixture-rmcp, --port, '9000'], transport: StreamableHttp, port: 9000}}
  workload: {{replicas: 2, pod: {pod}}}
"
    )
}

impl Plan {
    /// Over the gateway of [`echoes`], by its Service's address.
    #[must_use]
    pub fn echoes(address: IpAddr) -> Self {
        Self {
            endpoint: format!("http://{address}:8080/mcp"),
            tools: vec!["piped_echo", "web_echo"],
            tls: None,
        }
    }

    fn client(&self) -> anyhow::Result<Client> {
        match &self.tls {
            None => Client::new(&self.endpoint),
            Some((name, roots)) => Client::trusting(&self.endpoint, name, roots),
        }
    }
}

/// What has come of it so far.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Right answers.
    pub answered: u64,
    /// Legacy sessions that a gateway did not know any more (404) and that were opened anew, as the protocol has it
    /// (2025-11-25, transports, "Session Management", 4): the replica that held them is gone. No request failed.
    pub reopened: u64,
    /// Everything else, by reason, with how often and when it came first.
    pub failed: BTreeMap<String, (u64, Duration)>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answered, {} sessions opened anew", self.answered, self.reopened)?;
        for (reason, (times, first)) in &self.failed {
            write!(f, "\n{times} times, first after {first:?}: {reason}")?;
        }
        Ok(())
    }
}

impl Tally {
    /// # Errors
    /// When a request failed, with all reasons; or when fewer than `enough` were answered.
    pub fn lost_nothing(&self, enough: u64) -> anyhow::Result<()> {
        ensure!(self.failed.is_empty(), "requests failed: {self}");
        ensure!(self.answered >= enough, "too few requests to prove anything: {self}");
        Ok(())
    }
}

/// Running clients. Dropping it ends them.
#[derive(Debug)]
pub struct Traffic {
    seen: Arc<Seen>,
    stop: CancellationToken,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Seen {
    since: Instant,
    tally: Mutex<Tally>,
    answered: watch::Sender<u64>,
}

impl Traffic {
    /// Starts two clients of each habit, and returns once every tool answers.
    ///
    /// # Errors
    /// When one does not in time.
    pub async fn start(plan: Plan) -> anyhow::Result<Self> {
        for tool in &plan.tools {
            eventually("the tool answers", || async {
                let mut asker = Asker::new(&plan, Habit::Fresh, "first".to_owned());
                asker.ask(tool, 0).await.map(drop)
            })
            .await
            .with_context(|| format!("{tool} at {}", plan.endpoint))?;
        }
        let tally = Mutex::default();
        let seen = Arc::new(Seen { since: Instant::now(), tally, answered: watch::Sender::new(0) });
        let (stop, mut clients) = (CancellationToken::new(), Vec::new());
        for (number, habit) in
            [Habit::Keeping, Habit::Fresh, Habit::Legacy].into_iter().cycle().take(6).enumerate()
        {
            let asker = Asker::new(&plan, habit, format!("{habit:?}-{number}"));
            clients.push(tokio::spawn(asker.run(Arc::clone(&seen), stop.clone())));
        }
        Ok(Self { seen, stop, clients })
    }

    /// What has come of it so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.seen.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `more` requests are answered from now on: what happened before them had its time to do harm.
    ///
    /// # Errors
    /// When that takes more than two minutes.
    pub async fn goes_on(&self, more: u64) -> anyhow::Result<()> {
        let mut answered = self.seen.answered.subscribe();
        let wanted = *answered.borrow() + more;
        let waiting = answered.wait_for(|answered| *answered >= wanted);
        tokio::time::timeout(Duration::from_secs(120), waiting)
            .await
            .with_context(|| format!("{more} more requests were not answered: {}", self.tally()))?
            .map(drop)
            .context("no client is left")
    }

    /// Lets each client hear its last answer.
    ///
    /// # Errors
    /// When a client panicked.
    pub async fn stop(mut self) -> anyhow::Result<Tally> {
        self.stop.cancel();
        for client in std::mem::take(&mut self.clients) {
            client.await?;
        }
        Ok(self.tally())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.clients.iter().for_each(JoinHandle::abort);
    }
}

/// One client.
struct Asker {
    plan: Plan,
    habit: Habit,
    name: String,
    connection: Option<Client>,
    session: Option<Session>,
}

/// An answer that is right.
enum Answer {
    Right,
    /// The session was not known any more.
    Reopen,
}

impl Asker {
    fn new(plan: &Plan, habit: Habit, name: String) -> Self {
        Self { plan: plan.clone(), habit, name, connection: None, session: None }
    }

    async fn run(mut self, seen: Arc<Seen>, stop: CancellationToken) {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0.. {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = pace.tick() => {}
            }
            let tool = self.plan.tools[number % self.plan.tools.len()];
            let outcome = self.ask(tool, number).await;
            seen.note(outcome.map_err(|error| format!("{:?} client, {tool}: {error:#}", self.habit)));
        }
    }

    /// Calls one tool with words that no other call has.
    async fn ask(&mut self, tool: &str, number: usize) -> anyhow::Result<Answer> {
        let said = format!("{}-{number}", self.name);
        let params = json!({"name": tool, "arguments": {"text": said}});
        let reply = match self.habit {
            Habit::Keeping => self.client()?.modern("tools/call", params).await?,
            Habit::Fresh => self.plan.client()?.modern("tools/call", params).await?,
            Habit::Legacy => {
                let session = match self.session.clone() {
                    Some(session) => session,
                    None => {
                        let opened = self.client()?.legacy(LEGACY, json!({})).await.context("initialize")?;
                        self.session.insert(opened).clone()
                    }
                };
                let reply = session.request("tools/call", params).await?;
                if reply.status == StatusCode::NOT_FOUND {
                    self.session = None;
                    return Ok(Answer::Reopen);
                }
                reply
            }
        };
        judge(&reply, &said).map(|()| Answer::Right)
    }

    fn client(&mut self) -> anyhow::Result<Client> {
        if self.connection.is_none() {
            self.connection = Some(self.plan.client()?);
        }
        self.connection.clone().context("no client")
    }
}

fn judge(reply: &Reply, said: &str) -> anyhow::Result<()> {
    let answer = reply.response().with_context(|| format!("status {}", reply.status))?;
    let error = &answer["error"];
    ensure!(*error == Value::Null, "status {}, error {}: {}", reply.status, error["code"], error["message"]);
    ensure!(reply.status == StatusCode::OK, "status {}", reply.status);
    let result = &answer["result"];
    ensure!(result["content"][0]["text"] == said, "somebody else's answer, or a tool's error: {result}");
    Ok(())
}

impl Seen {
    fn note(&self, outcome: Result<Answer, String>) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(Answer::Right) => tally.answered += 1,
            Ok(Answer::Reopen) => tally.reopened += 1,
            Err(reason) => {
                let (times, _) = tally.failed.entry(reason).or_insert((0, self.since.elapsed()));
                *times += 1;
            }
        }
        self.answered.send_replace(tally.answered);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn reply(status: StatusCode, body: &Value) -> Reply {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().expect("a header value"));
        Reply { status, headers, body: Bytes::from(body.to_string()) }
    }

    #[test]
    fn only_the_answer_to_the_very_question_counts() {
        let said = |text: &str| json!({"id": 1, "result": {"content": [{"type": "text", "text": text}]}});
        assert!(judge(&reply(StatusCode::OK, &said("a-1")), "a-1").is_ok());
        assert!(judge(&reply(StatusCode::OK, &said("a-2")), "a-1").is_err());
        let refused = json!({"id": 1, "error": {"code": -32602, "message": "unknown tool"}});
        let error = judge(&reply(StatusCode::OK, &refused), "a-1").expect_err("an error").to_string();
        assert!(error.contains("unknown tool"), "{error}");
        assert!(judge(&reply(StatusCode::SERVICE_UNAVAILABLE, &said("a-1")), "a-1").is_err());
    }

    #[test]
    fn a_tally_with_a_failure_or_too_few_answers_proves_nothing() {
        let mut tally = Tally { answered: 10, ..Tally::default() };
        assert!(tally.lost_nothing(10).is_ok());
        assert!(tally.lost_nothing(11).is_err());
        tally.failed.insert("reset".to_owned(), (1, Duration::ZERO));
        assert!(tally.lost_nothing(10).expect_err("it failed").to_string().contains("reset"));
    }
}
