//! `mcpmesh can-i`: the proxy's own decision, asked offline, with the rule, policy, file and line that decided.

use std::collections::BTreeMap;

use anyhow::Context;
use jiff::Timestamp;
use mcpmesh_compiler::{Diagnostic, Location, ObjectKind, Severity, manifest};
use mcpmesh_ir::gateway::{Anonymous, LevelKind};
use mcpmesh_ir::policy::{Effect, Identity, Mode, Object, Prepared, Reason, RuleRef, Target, decide};
use mcpmesh_ir::resource::Body;
use mcpmesh_ir::{ApiKey, Gateway, Policy, PolicyId, Server, ServerId, Snapshot};

use mcpmesh_proxy::mcp::uri;

use crate::args::{AnswerFormat, CanIArgs, Verb, server_id};
use crate::check;
use crate::exit::{Failure, Outcome};
use crate::source::{self, Loaded};

mod answer;
mod callers;
mod tool;

use answer::{Answer, ByRule, LimitOf};

/// What is asked for, as the command line names it.
struct Question {
    server: ServerId,
    /// A tool's or prompt's name, or a URI.
    object: String,
}

/// Runs `mcpmesh can-i`. The exit code is the answer.
pub(crate) fn run(args: &CanIArgs) -> Outcome {
    let question = Question::parse(args)?;
    let loaded = source::load(&source::find(&args.paths)?, [0; 32])?;
    let errors = loaded.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
    check::say(&errors.cloned().collect::<Vec<Diagnostic>>());
    if loaded.unreadable {
        return Err(Failure::failed("the objects cannot all be read, so there is no answer: see above"));
    }
    let gateway = loaded.gateway(args.gateway.as_ref())?;
    let snapshot = loaded.compiled.snapshots.get(&gateway).context("the gateway has no snapshot")?;
    let answer = ask(args, &question, &loaded, snapshot)?;
    match args.output {
        AnswerFormat::Text => answer.print(),
        AnswerFormat::Json => {
            anstream::println!("{}", serde_json::to_string_pretty(&answer).context("cannot write JSON")?);
        }
    }
    if answer.allowed { Ok(()) } else { Err(Failure::Said) }
}

impl Question {
    /// `[NAMESPACE/]SERVER/NAME` to call and get, `[NAMESPACE/]SERVER` and a URI to read.
    fn parse(args: &CanIArgs) -> Result<Self, Failure> {
        let wrong = |reason: String| Failure::usage(format!("{}: {reason}", args.object));
        if args.verb == Verb::Read {
            let uri =
                args.uri.clone().ok_or_else(|| Failure::usage("read SERVER URI: the URI is missing"))?;
            return Ok(Self { server: server_id(&args.object).map_err(wrong)?, object: uri });
        }
        if let Some(extra) = &args.uri {
            return Err(Failure::usage(format!("unexpected {extra:?}: only `read SERVER URI` takes a URI")));
        }
        let (server, object) =
            args.object.rsplit_once('/').ok_or_else(|| wrong("write it as SERVER/NAME".to_owned()))?;
        if object.is_empty() {
            return Err(wrong("write it as SERVER/NAME".to_owned()));
        }
        Ok(Self { server: server_id(server).map_err(wrong)?, object: object.to_owned() })
    }
}

fn ask(
    args: &CanIArgs,
    question: &Question,
    loaded: &Loaded,
    snapshot: &Snapshot,
) -> Result<Answer, Failure> {
    let gateway: Gateway = bodies(snapshot)?.into_values().next().context("the snapshot has no gateway")?;
    let keys: BTreeMap<String, ApiKey> = bodies(snapshot)?;
    let servers: BTreeMap<String, Server> = bodies(snapshot)?;
    let policies: BTreeMap<PolicyId, Policy> =
        bodies::<Policy>(snapshot)?.into_values().map(|policy| (policy.id.clone(), policy)).collect();
    let blank = Answer::of(args, &gateway.id, question);
    let callers = match callers::find(args, &gateway.id, &keys, Timestamp::now()) {
        Ok(callers) => callers,
        Err(refused) => return Ok(blank.no("unauthenticated", &refused)),
    };
    let court = Court { args, question, loaded, gateway, servers, policies };
    let judged = callers.into_iter().map(|caller| {
        let mut answer = blank.clone();
        caller.notes.into_iter().for_each(|note| answer.note(note));
        Ok((caller.key, court.judge(caller.identity, answer)?))
    });
    Ok(Answer::best(judged.collect::<Result<_, Failure>>()?))
}

/// What is judged by, for whomever.
struct Court<'a> {
    args: &'a CanIArgs,
    question: &'a Question,
    loaded: &'a Loaded,
    gateway: Gateway,
    servers: BTreeMap<String, Server>,
    policies: BTreeMap<PolicyId, Policy>,
}

impl Court<'_> {
    fn judge(&self, identity: Identity, mut answer: Answer) -> Result<Answer, Failure> {
        let Self { args, question, loaded, gateway, .. } = self;
        if identity.user.is_none() && gateway.anonymous == Anonymous::Deny {
            return Ok(answer.no("unauthenticated", "the gateway refuses callers without credentials (401)"));
        }
        let Some(server) = self.servers.get(&question.server.to_string()) else {
            let known = loaded.inputs.of(&question.server.namespace).servers.contains_key(&question.server);
            let reason = if known {
                "the server is not behind this gateway: see `mcpmesh check`"
            } else {
                "there is no such server"
            };
            return Ok(answer.no(Reason::UnknownServer.as_str(), reason));
        };
        let tool = match args.verb {
            Verb::Call => tool::find(server, &question.object, &mut answer)?,
            Verb::Get | Verb::Read => None,
        };
        if args.verb == Verb::Call && tool.is_none() {
            return Ok(answer.no("excluded", "the McpServer's tools.include and tools.exclude leave it out"));
        }
        if args.verb == Verb::Read && uri::refuse(&question.object) {
            let because = "a URI with dot segments or encoded slashes is refused, whatever the rules say";
            return Ok(answer.no("refused", because));
        }
        let object = match (args.verb, tool) {
            (Verb::Call, tool) => {
                let name = tool.unwrap_or(&question.object);
                Object::Tool { name, pinned: tool::pinned(server, name), claimed: tool::claimed(&args.hints) }
            }
            (Verb::Get, _) => Object::Prompt { name: &question.object },
            (Verb::Read, _) => Object::Resource { uri: &question.object },
        };
        self.decide(identity, object, &mut answer);
        Ok(answer)
    }

    fn decide(&self, identity: Identity, object: Object<'_>, answer: &mut Answer) {
        let (prepared, _) = Prepared::new(&self.gateway, &self.policies);
        let caller = prepared.caller(identity);
        let target = Target { server: &self.question.server, method: object.use_method(), object };
        let decision = decide(&prepared, &caller, &target);
        answer.decided(decision.allowed(), decision.reason, decision.rule.map(|rule| by(&rule, self.loaded)));
        answer.audit = decision.audit.and_then(|note| note.rule).map(|rule| by(&rule, self.loaded));
        if let Reason::NoMatchingAllow(level) = decision.reason {
            answer.candidates(level, self.allows(level));
        }
        if decision.allowed() {
            let charges = prepared.charges(&caller, &target);
            answer.limits = charges
                .map(|charge| {
                    let at = place(self.loaded, &charge.limit.policy, "limits", &charge.limit.name);
                    LimitOf::new(charge.limit, at)
                })
                .collect();
        }
        if let Some(hints) = tool::that_turn(&prepared, &caller, &target, decision.allowed()) {
            let other = if decision.allowed() { "no" } else { "yes" };
            answer.note(format!(
                "it depends on what the server says of the tool: with --hint {hints} the answer is {other}"
            ));
        }
    }

    /// The Allow rules of a level that this server's calls have to pass.
    fn allows(&self, kind: LevelKind) -> Vec<ByRule> {
        let attached = self.gateway.servers.iter().filter(|attached| attached.server == self.question.server);
        let levels = self.gateway.levels.iter().chain(attached.flat_map(|attached| &attached.levels));
        let policies = levels.filter(|level| level.kind == kind).flat_map(|level| &level.policies);
        let enforced =
            policies.filter_map(|id| self.policies.get(id)).filter(|policy| policy.mode == Mode::Enforce);
        let rules = enforced.flat_map(|policy| {
            let allow = policy.access.iter().filter(|rule| rule.effect == Effect::Allow);
            allow.map(|rule| RuleRef { policy: &policy.id, rule: Some(&rule.name), level: kind })
        });
        rules.map(|rule| by(&rule, self.loaded)).collect()
    }
}

/// All bodies of one kind, by the names of their resources.
fn bodies<B: Body>(snapshot: &Snapshot) -> anyhow::Result<BTreeMap<String, B>> {
    let of_kind = snapshot.of_kind(B::KIND);
    of_kind.map(|resource| Ok((resource.name.clone(), resource.decode::<B>()?))).collect()
}

fn by(rule: &RuleRef<'_>, loaded: &Loaded) -> ByRule {
    ByRule {
        policy: rule.policy.to_string(),
        rule: rule.rule.map(str::to_owned),
        level: level(rule.level),
        location: place(loaded, rule.policy, "access", rule.rule.unwrap_or_default()),
    }
}

fn level(kind: LevelKind) -> &'static str {
    match kind {
        LevelKind::Mesh => "mesh",
        LevelKind::Gateway => "gateway",
        LevelKind::Bundle => "bundle",
        LevelKind::Server => "server",
    }
}

/// Where a rule or limit of a policy stands.
fn place(loaded: &Loaded, policy: &PolicyId, list: &str, name: &str) -> Option<Location> {
    let located = loaded.objects.iter().find(|located| {
        let reference = &located.reference;
        reference.kind == ObjectKind::McpPolicy
            && (&reference.namespace, &reference.name) == (&policy.namespace, &policy.name)
    })?;
    let manifest::Object::Policy(object) = &located.object else { return None };
    let index = match list {
        "access" => object.spec.access.iter().position(|rule| rule.name == name),
        _ => object.spec.limits.iter().position(|limit| limit.name == name),
    };
    Some(located.location(&index.map_or_else(|| "spec".to_owned(), |index| format!("spec.{list}[{index}]"))))
}
