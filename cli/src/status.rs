//! `mcpmesh status`: every object of the three kinds in a cluster, and what the operator says of it.

use std::fmt::Debug;

use anyhow::Context;
use comfy_table::{ContentArrangement, Table, presets};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt};
use mcpmesh_crds::{McpGateway, McpPolicy, McpServer, condition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::args::{AnswerFormat, StatusArgs};
use crate::exit::{Failure, Outcome};
use crate::{cluster, terminal};

/// What is said of one object.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Row {
    kind: &'static str,
    namespace: String,
    name: String,
    /// True, False or Unknown.
    ready: String,
    reason: String,
    message: String,
}

/// What the three kinds have in common: their status.
trait Told: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope> {
    const KIND: &'static str;
    /// The generation that the status speaks of, and its conditions; none before the operator came.
    fn told(&self) -> Option<(Option<i64>, &[Condition])>;
}

macro_rules! told {
    ($kind:ty, $name:literal) => {
        impl Told for $kind {
            const KIND: &'static str = $name;
            fn told(&self) -> Option<(Option<i64>, &[Condition])> {
                self.status.as_ref().map(|status| (status.observed_generation, status.conditions.as_slice()))
            }
        }
    };
}
told!(McpGateway, "McpGateway");
told!(McpServer, "McpServer");
told!(McpPolicy, "McpPolicy");

/// Runs `mcpmesh status`.
pub(crate) async fn run(args: &StatusArgs) -> Outcome {
    let client = cluster::client(&args.cluster).await?;
    let namespace = (!args.all_namespaces)
        .then(|| args.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned()));
    let mut rows = list::<McpGateway>(&client, namespace.as_deref()).await?;
    rows.extend(list::<McpServer>(&client, namespace.as_deref()).await?);
    rows.extend(list::<McpPolicy>(&client, namespace.as_deref()).await?);
    match args.output {
        AnswerFormat::Json => {
            anstream::println!("{}", serde_json::to_string_pretty(&rows).context("cannot write JSON")?);
        }
        AnswerFormat::Text if rows.is_empty() => {
            let place =
                namespace.map_or_else(|| "the cluster".to_owned(), |name| format!("namespace {name}"));
            anstream::eprintln!("there is no server, gateway or policy in {place}");
        }
        AnswerFormat::Text => anstream::println!("{}", table(&rows)),
    }
    if rows.iter().all(|row| row.ready == "True") { Ok(()) } else { Err(Failure::Said) }
}

async fn list<K>(client: &Client, namespace: Option<&str>) -> anyhow::Result<Vec<Row>>
where
    K: Told + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let listed = api.list(&ListParams::default()).await.map_err(|error| explained(error, K::KIND))?;
    let mut rows: Vec<Row> = listed.items.iter().map(row).collect();
    rows.sort_by(|left, right| (&left.namespace, &left.name).cmp(&(&right.namespace, &right.name)));
    Ok(rows)
}

fn explained(error: kube::Error, kind: &str) -> anyhow::Error {
    let absent = matches!(&error, kube::Error::Api(status) if status.code == 404);
    let hint = if absent { ": MCP Mesh is not installed here (mcpmesh install)" } else { "" };
    cluster::cause(error).context(format!("cannot list objects of kind {kind}{hint}"))
}

fn row<K: Told>(object: &K) -> Row {
    let (ready, reason, message) = verdict(object);
    Row {
        kind: K::KIND,
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        ready,
        reason,
        message,
    }
}

/// Ready as it is now: a status of an earlier generation says nothing of this one.
fn verdict<K: Told>(object: &K) -> (String, String, String) {
    let unknown = |reason: &str, message: &str| ("Unknown".to_owned(), reason.to_owned(), message.to_owned());
    let Some((observed, conditions)) = object.told() else {
        return unknown("NotSeen", "no operator has looked at it yet");
    };
    if object.meta().generation.is_some_and(|now| observed.is_some_and(|seen| seen < now)) {
        return unknown("Changed", "the operator has not looked at its newest change yet");
    }
    let Some(ready) = conditions.iter().find(|one| one.type_ == condition::READY) else {
        return unknown("NotSeen", "no operator has said whether it is ready");
    };
    (ready.status.clone(), ready.reason.clone(), ready.message.clone())
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["KIND", "NAMESPACE", "NAME", "READY", "REASON", "MESSAGE"]);
    for row in rows {
        let message = terminal::line(&row.message);
        table.add_row([row.kind, &row.namespace, &row.name, &row.ready, &row.reason, &message]);
    }
    table
}

#[cfg(test)]
mod tests {
    use mcpmesh_crds::McpPolicy;
    use serde_json::{Value, json};

    use super::{Row, row, table};

    /// A policy of generation 2 with this status.
    fn policy(status: &Value) -> Row {
        let object = json!({
            "apiVersion": "mcpmesh.io/v1alpha1",
            "kind": "McpPolicy",
            "metadata": {"name": "visitors", "namespace": "team-a", "generation": 2},
            "spec": {"targetRefs": [{"kind": "McpGateway", "name": "main"}]},
            "status": status,
        });
        row(&serde_json::from_value::<McpPolicy>(object).expect("a policy"))
    }

    fn ready(status: &str, reason: &str, message: &str) -> Value {
        json!({"type": "Ready", "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2026-11-26T00:00:00Z"})
    }

    #[test]
    fn the_ready_condition_is_what_is_shown() {
        let shown = policy(
            &json!({"observedGeneration": 2, "conditions": [ready("False", "Invalid", "no such group")]}),
        );
        assert_eq!((shown.ready.as_str(), shown.reason.as_str()), ("False", "Invalid"));
        assert_eq!(shown.message, "no such group");
    }

    #[test]
    fn a_status_of_an_earlier_generation_says_nothing_of_this_one() {
        let shown = policy(&json!({"observedGeneration": 1, "conditions": [ready("True", "Ready", "")]}));
        assert_eq!((shown.ready.as_str(), shown.reason.as_str()), ("Unknown", "Changed"));
    }

    #[test]
    fn an_object_that_no_operator_has_seen_is_not_taken_for_ready() {
        for status in [Value::Null, json!({}), json!({"observedGeneration": 2, "conditions": []})] {
            let shown = policy(&status);
            assert_eq!((shown.ready.as_str(), shown.reason.as_str()), ("Unknown", "NotSeen"), "{status}");
        }
    }

    #[test]
    fn a_message_cannot_move_the_cursor() {
        let shown = policy(
            &json!({"observedGeneration": 2, "conditions": [ready("False", "Invalid", "a\u{1b}[2Jb\nc")]}),
        );
        let text = table(&[shown]).to_string();
        assert!(!text.contains('\u{1b}') && text.lines().count() == 2, "{text:?}");
    }
}
