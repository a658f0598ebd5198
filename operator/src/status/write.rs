//! Which statuses are written now: those that differ, and at most one for each object in five seconds unless a
//! condition changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::Resource;
use mcpmesh_compiler::{Diagnostic, ObjectKind, ObjectRef};
use mcpmesh_crds::{McpGateway, McpPolicy, McpServer};
use mcpmesh_ir::{GatewayId, PolicyId, ServerId};
use serde::Serialize;
use serde_json::{Value, json};

use super::conditions::{Conditions, said};
use super::{View, gateway, policy, server};
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
}

impl Written {
    /// Notes a write.
    pub(crate) fn note(&mut self, object: ObjectRef, now: Instant) {
        self.0.insert(object, now);
        self.0.retain(|_, at| now.saturating_duration_since(*at) < APART);
    }

    /// What is due now of the objects whose spec was compiled: of a newer one nothing is known yet. True: something differs and waits for its time.
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
        of(view, object, &kept, |known: &McpServer| {
            let before = known.status.clone();
            let conditions = before.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
            let new = server(view, &ServerId::new(namespace, name), known);
            (before.as_ref() != Some(&new)).then(|| (json!(new), conditions, new.conditions))
        })
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
    let manifest = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()),
        "metadata": {
            "name": object.name, "namespace": object.namespace, "resourceVersion": metadata.resource_version,
        },
        "status": status,
    });
    Some(Due { changed: changed.cloned().collect(), uid: metadata.uid.clone(), object, manifest })
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
    conditions.set(mcpmesh_crds::condition::READY, stopped.unwrap_or_else(pending));
    let now = conditions.finish();
    let status = json!({"observedGeneration": metadata.generation, "conditions": now});
    let same = before == now && raw.pointer("/status/observedGeneration") == status.get("observedGeneration");
    (!same).then_some((status, before, now))
}

#[cfg(test)]
mod tests {
    use super::*;

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
