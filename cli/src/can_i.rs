//! `mcpmesh can-i`: the proxy's own decision, asked offline, with the rule, policy, file and line that decided.

use std::collections::BTreeMap;

use anyhow::Context;
use mcpmesh_compiler::{Diagnostic, Location, ObjectKind, Severity, manifest};
use mcpmesh_ir::catalog::Hints;
use mcpmesh_ir::gateway::{Anonymous, LevelKind};
use mcpmesh_ir::policy::{Identity, Issuer, Object, Prepared, Reason, RuleRef, Target, decide};
use mcpmesh_ir::resource::Body;
use mcpmesh_ir::{ApiKey, Gateway, Policy, PolicyId, Server, ServerId, Snapshot};

use mcpmesh_proxy::mcp::uri;

use crate::args::{AnswerFormat, CanIArgs, Verb, server_id};
use crate::check;
use crate::exit::{Failure, Outcome};
use crate::source::{self, Loaded, Source};
use crate::tool_rules;

mod answer;

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
    let loaded = source::load(&Source::Manifests(args.paths.clone()), [0; 32])?;
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
    let mut answer = Answer::of(args, &gateway.id, question);
    let identity = identity(args, &gateway, &keys, &mut answer);
    if identity.user.is_none() && gateway.anonymous == Anonymous::Deny {
        return Ok(answer.no("unauthenticated", "the gateway refuses callers without credentials (401)"));
    }
    let servers: BTreeMap<String, Server> = bodies(snapshot)?;
    let Some(server) = servers.get(&question.server.to_string()) else {
        let reason = if loaded.inputs.of(&question.server.namespace).servers.contains_key(&question.server) {
            "the server is not behind this gateway: see `mcpmesh check`"
        } else {
            "there is no such server"
        };
        return Ok(answer.no(Reason::UnknownServer.as_str(), reason));
    };
    let object = object(args, question, server);
    if matches!(args.verb, Verb::Call) && !tool_rules::exists(server, &question.object)? {
        return Ok(answer.no("excluded", "the McpServer's tools.include and tools.exclude leave it out"));
    }
    if args.verb == Verb::Read && uri::refuse(&question.object) {
        return Ok(answer
            .no("refused", "a URI with dot segments or encoded slashes is refused, whatever the rules say"));
    }
    let policies: BTreeMap<PolicyId, Policy> =
        bodies::<Policy>(snapshot)?.into_values().map(|policy| (policy.id.clone(), policy)).collect();
    let (prepared, _) = Prepared::new(&gateway, &policies);
    let caller = prepared.caller(identity);
    let target = Target { server: &question.server, method: object.use_method(), object };
    let decision = decide(&prepared, &caller, &target);
    answer.decided(decision.allowed(), decision.reason, decision.rule.map(|rule| by(&rule, loaded)));
    answer.audit = decision.audit.and_then(|note| note.rule).map(|rule| by(&rule, loaded));
    if decision.allowed() {
        answer.limits = prepared
            .charges(&caller, &target)
            .map(|charge| {
                LimitOf::new(charge.limit, place(loaded, &charge.limit.policy, "limits", &charge.limit.name))
            })
            .collect();
    }
    Ok(answer)
}

/// All bodies of one kind, by the names of their resources.
fn bodies<B: Body>(snapshot: &Snapshot) -> anyhow::Result<BTreeMap<String, B>> {
    let of_kind = snapshot.of_kind(B::KIND);
    of_kind.map(|resource| Ok((resource.name.clone(), resource.decode::<B>()?))).collect()
}

/// The caller as the gateway would find it: by an API key of the user.
fn identity(
    args: &CanIArgs,
    gateway: &Gateway,
    keys: &BTreeMap<String, ApiKey>,
    answer: &mut Answer,
) -> Identity {
    let Some(user) = &args.user else { return Identity::anonymous(gateway.id.clone()) };
    let key = keys.values().find(|key| key.owner == *user);
    let groups = match key {
        Some(key) if args.groups.is_empty() => key.groups.clone(),
        _ => args.groups.clone(),
    };
    match key {
        None => answer.note(format!("no API key of {} belongs to {user}: judged as if one did", gateway.id)),
        Some(key) if args.groups.is_empty() && !groups.is_empty() => {
            answer.note(format!("groups of the API key {}: {}", key.secret, groups.join(", ")));
        }
        Some(_) => {}
    }
    Identity { gateway: gateway.id.clone(), issuer: Issuer::ApiKey, user: Some(user.clone()), groups }
}

fn object<'a>(args: &CanIArgs, question: &'a Question, server: &Server) -> Object<'a> {
    match args.verb {
        Verb::Call => Object::Tool {
            name: &question.object,
            pinned: server
                .tools
                .overrides
                .get(&question.object)
                .map_or_else(Hints::default, |o| o.annotations),
            claimed: claimed(&args.hints),
        },
        Verb::Get => Object::Prompt { name: &question.object },
        Verb::Read => Object::Resource { uri: &question.object },
    }
}

fn claimed(hints: &[(String, bool)]) -> Hints {
    let hint = |name: &str| hints.iter().rev().find(|(given, _)| given == name).map(|(_, value)| *value);
    Hints {
        read_only_hint: hint("readOnly"),
        destructive_hint: hint("destructive"),
        idempotent_hint: hint("idempotent"),
        open_world_hint: hint("openWorld"),
    }
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
