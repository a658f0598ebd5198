//! A namespace as the leader looked at it: as long as it stays so, there is nothing to do in it again.

use std::collections::BTreeMap;
use std::sync::Arc;

use mcpmesh_compiler::Compiled;

use crate::inputs::Found;
use crate::reconcile::Outcome;
use crate::status::write::Kinds;
use crate::watch::Bucket;
use crate::world::child::LiveChild;
use crate::world::{SecretMeta, World};

/// All that writes in a namespace depend on, but for what proxies say.
#[derive(Debug)]
pub(crate) struct Glimpse {
    pub(super) kinds: Kinds,
    /// None: nothing may be made yet.
    pub(super) roots: Option<Arc<str>>,
    compiled: Option<Arc<Compiled>>,
    pub(super) found: Option<Arc<Found>>,
    pub(super) secrets: Arc<Bucket<SecretMeta>>,
    children: BTreeMap<&'static str, Arc<Bucket<LiveChild>>>,
}

impl Glimpse {
    pub(super) fn of(name: &str, outcome: &Outcome, world: &World, roots: Option<Arc<str>>) -> Self {
        Self {
            kinds: Kinds {
                namespace: name.to_owned(),
                servers: world.servers.of(name),
                gateways: world.gateways.of(name),
                policies: world.policies.of(name),
            },
            roots,
            compiled: outcome.compiled.get(name).cloned(),
            found: outcome.found.get(name).cloned(),
            secrets: world.secrets.of(name),
            children: world.children.iter().map(|(kind, store)| (*kind, store.of(name))).collect(),
        }
    }

    /// Whether it is the same: pointers are compared, and nothing else.
    pub(super) fn is(&self, other: &Self) -> bool {
        let Self { kinds, roots, compiled, found, secrets, children } = self;
        same(&kinds.servers, &other.kinds.servers)
            && same(&kinds.gateways, &other.kinds.gateways)
            && same(&kinds.policies, &other.kinds.policies)
            && *roots == other.roots
            && both(compiled.as_ref(), other.compiled.as_ref())
            && both(found.as_ref(), other.found.as_ref())
            && same(secrets, &other.secrets)
            && children.iter().zip(&other.children).all(|((_, one), (_, other))| same(one, other))
    }
}

/// An empty one is made for each look.
fn same<T>(one: &Arc<Bucket<T>>, other: &Arc<Bucket<T>>) -> bool {
    Arc::ptr_eq(one, other) || (one.is_empty() && other.is_empty())
}

fn both<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}
