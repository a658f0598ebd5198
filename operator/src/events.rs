//! Kubernetes events: when a condition changes, and not more than a few for each object.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use mcpmesh_compiler::ObjectRef;
use mcpmesh_crds::condition;

use crate::status::write::Due;

/// Between two events of one object about the same: one that flaps makes no storm.
const APART: Duration = Duration::from_secs(10);

/// How many characters of a message fit (events.k8s.io/v1: 1 kB).
const NOTE: usize = 900;

/// What an event is about: a server that goes up and down hides no drift of its tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Lock,
    Keys,
    Readiness,
}

impl About {
    fn of(condition: &Condition) -> Self {
        match condition.type_.as_str() {
            condition::LOCK_HOLDS => Self::Lock,
            condition::KEYS_USABLE => Self::Keys,
            _ => Self::Readiness,
        }
    }
}

/// Publishes events.
pub(crate) struct Events {
    recorder: Recorder,
    last: BTreeMap<(ObjectRef, About), Instant>,
}

impl Events {
    pub(crate) fn new(client: kube::Client, replica: String) -> Self {
        let reporter = Reporter { controller: mcpmesh_crds::CONTROLLER.to_owned(), instance: Some(replica) };
        Self { recorder: Recorder::new(client, reporter), last: BTreeMap::new() }
    }

    /// Tells of what changed in a status that was just written. A failure only costs the event.
    pub(crate) async fn tell(&mut self, due: &Due, now: Instant) {
        self.last.retain(|_, at| now.saturating_duration_since(*at) < APART);
        let turned = due.turned.iter().map(|one| (About::of(one), one));
        let ready = worth_telling(&due.changed).map(|one| (About::Readiness, one));
        for (about, condition) in turned.chain(ready) {
            if let Entry::Vacant(free) = self.last.entry((due.object.clone(), about)) {
                free.insert(now);
                self.publish(due, condition).await;
            }
        }
    }

    async fn publish(&self, due: &Due, condition: &Condition) {
        let good = condition.status == "True" && condition.type_ != condition::STALLED;
        let text = if condition.message.is_empty() {
            format!("{} is {}", condition.type_, condition.status)
        } else {
            condition.message.chars().take(NOTE).collect()
        };
        let event = Event {
            type_: if good { EventType::Normal } else { EventType::Warning },
            reason: condition.reason.clone(),
            note: Some(text),
            action: condition.type_.clone(),
            secondary: None,
        };
        let reference = ObjectReference {
            api_version: Some(format!("{}/{}", mcpmesh_crds::GROUP, mcpmesh_crds::VERSION)),
            kind: Some(due.object.kind.to_string()),
            namespace: Some(due.object.namespace.clone()),
            name: Some(due.object.name.clone()),
            uid: due.uid.clone(),
            ..ObjectReference::default()
        };
        if let Err(error) = self.recorder.publish(&event, &reference).await {
            tracing::debug!(%error, "an event was not taken");
        }
    }
}

/// The one change that a reader wants: what stalls it, else whether it is ready. What is merely under way is none.
fn worth_telling(changed: &[Condition]) -> Option<&Condition> {
    let of = |kind: &str| changed.iter().find(move |one| one.type_ == kind);
    let quiet = |reason: &str| matches!(reason, "Pending" | "Connecting" | "Progressing" | "NoProxies");
    of(condition::STALLED).or_else(|| of(condition::READY).filter(|one| !quiet(&one.reason)))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn changed(kind: &str, status: &str, reason: &str) -> Condition {
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        }
    }

    #[test]
    fn what_is_under_way_makes_no_event() {
        assert!(worth_telling(&[changed("Ready", "False", "NoProxies")]).is_none());
        assert!(worth_telling(&[changed("Accepted", "True", "Accepted")]).is_none());
        assert!(worth_telling(&[changed("Ready", "True", "Ready")]).is_some());
        let both = [changed("Ready", "False", "InvalidUrl"), changed("Stalled", "True", "InvalidUrl")];
        assert_eq!(worth_telling(&both).unwrap().type_, "Stalled");
    }
}
