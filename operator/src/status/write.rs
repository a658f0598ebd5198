//! Which statuses are written now: those that differ, and at most one for each object in five seconds unless a
//! condition changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::Resource;
use mcpmesh_compiler::{Diagnostic, ObjectKind, ObjectRef};
use mcpmesh_crds::{McpGateway, McpPolicy, McpServer, condition};
use mcpmesh_ir::{GatewayId, PolicyId, ServerId};
use serde::Serialize;
use serde_json::{Value, json};

use super::conditions::{Conditions, said};
use super::{View, gateway, lock, policy, server};
use crate::inputs::Objects;
use crate::world::{Kept, World};

/// Between two writes of one object.
const APART: Duration = Duration::from_secs(5);

/// When each object's status was written.
#[derive(Debug, Default)]
pub(crate) struct Written(BTreeMap<ObjectRef, Instant>);

/// A status to write.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Due {
    pub(crate) object: ObjectRef,
    pub(crate) uid: Option<String>,
    /// For server-side apply of the status.
    pub(crate) manifest: Value,
    /// Conditions whose status or reason is another one than before.
    pub(crate) changed: Vec<Condition>,
    /// A lock that holds no more, keys that are not usable, or either again well: what an event says of it.
    pub(crate) turned: Vec<Condition>,
}

impl Written {
    /// Notes a write.
    pub(crate) fn note(&mut self, object: ObjectRef, now: Instant) {
        self.0.insert(object, now);
        self.0.retain(|_, at| now.saturating_duration_since(*at) < APART);
    }

    /// What is due now of the objects whose spec was compiled: of a newer one nothing is known yet. True: something
    /// differs and waits for its time.
    pub(crate) fn due(
        &self,
        view: &View,
        world: &World,
        compiled: &Objects,
        now: Instant,
    ) -> (Vec<Due>, bool) {
        let (mut due, mut waits) = (Vec::new(), false);
        let all = servers(view, world, compiled).into_iter();
        let all = all.chain(gateways(view, world, compiled)).chain(policies(view, world, compiled));
        for one in all {
            let recent = self.0.get(&one.object).is_some_and(|at| now.saturating_duration_since(*at) < APART);
            if recent && one.changed.is_empty() {
                waits = true;
            } else {
                due.push(one);
            }
        }
        (due, waits)
    }
}

fn servers(view: &View, world: &World, compiled: &Objects) -> Vec<Due> {
    let all = world.servers.all().into_iter().filter(|(key, kept)| is_known(kept, compiled.servers.get(key)));
    let all = all.filter_map(|((namespace, name), kept)| {
        let object = ObjectRef::new(ObjectKind::McpServer, &namespace, &name);
        let id = ServerId::new(namespace, name);
        let mut due = of(view, object, &kept, |known: &McpServer| {
            let before = known.status.clone();
            let conditions = before.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
            let new = server(view, &id, known);
            (before.as_ref() != Some(&new)).then(|| (json!(new), conditions, new.conditions))
        })?;
        let told = due.turned.iter_mut().find(|one| one.type_ == condition::LOCK_HOLDS);
        if let (Kept::Read(known), Some(told)) = (&*kept, told) {
            told.message = lock::difference(view, &id, known).unwrap_or_else(|| told.message.clone());
        }
        Some(due)
    });
    all.collect()
}

fn gateways(view: &View, world: &World, compiled: &Objects) -> Vec<Due> {
    let all =
        world.gateways.all().into_iter().filter(|(key, kept)| is_known(kept, compiled.gateways.get(key)));
    let all = all.filter_map(|((namespace, name), kept)| {
        let object = ObjectRef::new(ObjectKind::McpGateway, &namespace, &name);
        of(view, object, &kept, |known: &McpGateway| {
            let before = known.status.clone();
            let conditions = before.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
            let new = gateway(view, &GatewayId::new(namespace, name), known);
            (before.as_ref() != Some(&new)).then(|| (json!(new), conditions, new.conditions))
        })
    });
    all.collect()
}

fn policies(view: &View, world: &World, compiled: &Objects) -> Vec<Due> {
    let all =
        world.policies.all().into_iter().filter(|(key, kept)| is_known(kept, compiled.policies.get(key)));
    let all = all.filter_map(|((namespace, name), kept)| {
        let object = ObjectRef::new(ObjectKind::McpPolicy, &namespace, &name);
        of(view, object, &kept, |known: &McpPolicy| {
            let before = known.status.clone();
            let conditions = before.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
            let new = policy(view, &PolicyId::new(namespace, name), known);
            (before.as_ref() != Some(&new)).then(|| (json!(new), conditions, new.conditions))
        })
    });
    all.collect()
}

/// Whether what was compiled is this very spec: a status that claims a generation has read it.
fn is_known<K: Resource<DynamicType = ()>>(live: &Kept<K>, compiled: Option<&Arc<Kept<K>>>) -> bool {
    compiled.is_some_and(|compiled| live.has_the_spec_of(compiled))
}

/// The new status, the conditions before and the conditions now; none: nothing differs.
type Change = Option<(Value, Vec<Condition>, Vec<Condition>)>;

fn of<K: Resource<DynamicType = ()> + Serialize>(
    view: &View,
    object: ObjectRef,
    kept: &Kept<K>,
    change: impl FnOnce(&K) -> Change,
) -> Option<Due> {
    let metadata = kept.metadata();
    if metadata.deletion_timestamp.is_some() {
        return None;
    }
    let (status, before, now) = match kept {
        Kept::Read(known) => change(known)?,
        Kept::Unread(kept) => unread(view, &object, &kept.object, &kept.metadata)?,
    };
    let changed = now.iter().filter(|condition| {
        let old = before.iter().find(|old| old.type_ == condition.type_);
        old.is_none_or(|old| (&old.status, &old.reason) != (&condition.status, &condition.reason))
    });
    let turned = [condition::LOCK_HOLDS, condition::KEYS_USABLE];
    let turned = turned.into_iter().filter_map(|kind| turned_event(kind, &before, &now)).collect();
    let manifest = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()),
        "metadata": {
            "name": object.name, "namespace": object.namespace, "resourceVersion": metadata.resource_version,
        },
        "status": status,
    });
    Some(Due { turned, changed: changed.cloned().collect(), uid: metadata.uid.clone(), object, manifest })
}

/// A condition that is False now or in another way, or True again.
fn turned_event(kind: &str, before: &[Condition], now: &[Condition]) -> Option<Condition> {
    let of = |list: &[Condition]| list.iter().find(|one| one.type_ == kind).cloned();
    let (before, now) = (of(before), of(now)?);
    let is_bad = |one: &Condition| one.status == "False";
    let told = if is_bad(&now) {
        before.is_none_or(|before| !is_bad(&before) || before.message != now.message)
    } else {
        now.status == "True" && before.as_ref().is_some_and(is_bad)
    };
    told.then_some(now)
}

/// An object that cannot be read has conditions and nothing else.
fn unread(view: &View, object: &ObjectRef, raw: &Value, metadata: &ObjectMeta) -> Change {
    let before: Vec<Condition> = raw
        .pointer("/status/conditions")
        .and_then(|conditions| serde_json::from_value(conditions.clone()).ok())
        .unwrap_or_default();
    let mut conditions = Conditions::new(&before, metadata.generation, view.now);
    let findings: Vec<Diagnostic> = view.findings(object).to_vec();
    let stopped = conditions.of_findings(&findings, None, false);
    let pending = || said(super::conditions::Answer::False, "Pending", "");
    conditions.set(condition::READY, stopped.unwrap_or_else(pending));
    let now = conditions.finish();
    let status = json!({"observedGeneration": metadata.generation, "conditions": now});
    let same = before == now && raw.pointer("/status/observedGeneration") == status.get("observedGeneration");
    (!same).then_some((status, before, now))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn lock(status: &str, message: &str) -> Vec<Condition> {
        vec![Condition {
            type_: condition::LOCK_HOLDS.to_owned(),
            status: status.to_owned(),
            reason: "Any".to_owned(),
            message: message.to_owned(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        }]
    }

    #[test]
    fn drift_makes_an_event_when_it_comes_when_it_grows_and_when_it_is_gone() {
        let told = |before: &[Condition], now: &[Condition]| {
            turned_event(condition::LOCK_HOLDS, before, now).is_some()
        };
        assert!(told(&[], &lock("False", "a")));
        assert!(told(&lock("True", ""), &lock("False", "a")));
        assert!(told(&lock("False", "a"), &lock("False", "a, b")));
        assert!(told(&lock("False", "a"), &lock("True", "")));
        assert!(!told(&lock("False", "a"), &lock("False", "a")));
        assert!(!told(&[], &lock("True", "")));
        assert!(!told(&lock("Unknown", ""), &lock("True", "")));
        assert!(!told(&lock("False", "a"), &lock("Unknown", "")));
        assert!(!told(&lock("False", "a"), &[]));
    }

    fn kept(uid: &str, generation: i64) -> Arc<Kept<McpServer>> {
        let mut server = McpServer::new("s", mcpmesh_crds::McpServerSpec::default());
        (server.metadata.uid, server.metadata.generation) = (Some(uid.to_owned()), Some(generation));
        Arc::new(Kept::Read(Arc::new(server)))
    }

    #[test]
    fn nothing_is_said_of_a_spec_that_no_compile_has_read() {
        let live = kept("one", 2);
        assert!(is_known(&live, Some(&kept("one", 2))));
        assert!(!is_known(&live, None), "it is new");
        assert!(!is_known(&live, Some(&kept("one", 1))), "it has changed");
        assert!(!is_known(&live, Some(&kept("another", 2))), "it was deleted and made again");
    }
}
