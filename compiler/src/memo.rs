//! What did not change is not compiled again (decisions.md 9): a cache, without which the output is the same to the byte.
//!
//! Nothing crosses a namespace but exports and the mesh level. So each namespace has stamps, which rise when what its
//! gateways see and what others see of it changes; a gateway is compiled again when a stamp rose that it depends on.

mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use mcpmesh_crds::From as Namespaces;
use mcpmesh_ir::{Fleet, FleetId, GatewayId, ServerId};

use crate::compile::{Compiled, Namespace, Parts, fronts, notes_on_unattached};
use crate::gateway::{self, Front, GatewayOutcome};
use crate::inputs::{Inputs, Install};
use crate::policy::{self, CompiledPolicy};
use crate::server::{self, ServerPart};
use crate::sidecar::{self, Peers};
use sources::{Change, Changes, Sources, Surface};

/// Remembers the objects of the last compile and what was made of them.
#[derive(Default)]
pub struct Memo {
    /// What the installation settled, and whether the one gateway was the implied one.
    install: Option<(Install, bool)>,
    labels: BTreeMap<String, BTreeMap<String, String>>,
    labels_stamp: u64,
    namespaces: BTreeMap<String, Known>,
    gateways: BTreeMap<GatewayId, (Key, Arc<GatewayOutcome>)>,
    sidecars: BTreeMap<ServerId, (Beside, Peers, Arc<Fleet>)>,
    /// The last stamp that was given. Never given twice.
    clock: u64,
}

/// What is known of a namespace.
#[derive(Default)]
struct Known {
    sources: Sources,
    parts: Arc<Namespace>,
    /// Rose when anything in it changed.
    own: u64,
    /// Rose when what it exports changed, or with what is judged there.
    exported: u64,
    /// Rose when its policies changed.
    policies: u64,
    surface: Surface,
}

/// The stamps of what a gateway was compiled from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    own: u64,
    labels: u64,
    mesh: u64,
    foreign: Vec<u64>,
}

/// The stamps of what a server's sidecars were compiled from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Beside {
    own: u64,
    /// Of labels and of the mesh level, where sidecars judge callers that no gateway has judged.
    above: (u64, u64),
}

impl fmt::Debug for Memo {
    /// Snapshots hold Secrets: only the gateways' names are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.gateways.keys().map(ToString::to_string)).finish()
    }
}

impl Memo {
    /// As [`crate::compile()`], with what did not change from memory.
    pub fn compile(&mut self, inputs: &Inputs) -> Compiled {
        self.settle(inputs);
        self.read(inputs);
        let parts = Parts {
            namespaces: self
                .namespaces
                .iter()
                .map(|(name, known)| (name.clone(), known.parts.clone()))
                .collect(),
        };
        self.front(inputs, &parts);
        let mut compiled = Compiled::default();
        if inputs.install.cluster.is_some() {
            self.beside(inputs, &parts);
            let fleets = self.sidecars.values().map(|(.., fleet)| fleet);
            compiled.fleets = fleets.map(|fleet| (fleet.id.clone(), fleet.clone())).collect();
        }
        self.gather(&parts, &mut compiled);
        compiled
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// What the installation settles reaches everything; labels of namespaces reach any gateway.
    fn settle(&mut self, inputs: &Inputs) {
        let install = (inputs.install.clone(), inputs.has_implied_gateway());
        if self.install.as_ref() != Some(&install) {
            *self = Self { install: Some(install), clock: self.clock, ..Self::default() };
        }
        if self.labels != inputs.namespaces {
            self.labels.clone_from(&inputs.namespaces);
            self.labels_stamp = self.tick();
        }
    }

    /// Compiles the objects of the namespaces in which something changed.
    fn read(&mut self, inputs: &Inputs) {
        let names = sources::namespaces(inputs);
        self.namespaces.retain(|name, _| names.contains(name.as_str()));
        for name in names {
            let mut known = self.namespaces.remove(name).unwrap_or_default();
            let changes = known.sources.update(name, inputs);
            if changes.any() || known.own == 0 {
                known.parts = Arc::new(objects(inputs, &changes, &known));
                known.own = self.tick();
                let surface = Surface::of(&known.parts);
                if surface != known.surface {
                    known.exported = self.tick();
                    known.surface = surface;
                }
            }
            if changes.policies != Change::None {
                known.policies = self.tick();
            }
            self.namespaces.insert(name.to_owned(), known);
        }
    }

    /// Compiles the gateways that depend on something that changed.
    fn front(&mut self, inputs: &Inputs, parts: &Parts) {
        let mut kept = BTreeMap::new();
        for front in fronts(inputs) {
            let key = self.key(&front, inputs);
            let outcome = match self.gateways.remove(&front.id) {
                Some((old, outcome)) if old == key => outcome,
                _ => Arc::new(gateway::compile(&front, inputs, parts)),
            };
            kept.insert(front.id, (key, outcome));
        }
        self.gateways = kept;
    }

    fn key(&self, front: &Front<'_>, inputs: &Inputs) -> Key {
        let known = |namespace: &str| self.namespaces.get(namespace);
        let operators = inputs.install.cluster.as_ref().map(|cluster| cluster.operator_namespace.as_str());
        Key {
            own: known(&front.id.namespace).map_or(0, |known| known.own),
            labels: self.labels_stamp,
            mesh: operators.and_then(known).map_or(0, |known| known.policies),
            foreign: self.foreign(front, inputs),
        }
    }

    /// The stamps of the other namespaces that a gateway draws from; the implied one draws from all.
    fn foreign(&self, front: &Front<'_>, inputs: &Inputs) -> Vec<u64> {
        let Some(object) = front.object else {
            return self.namespaces.values().map(|known| known.own).collect();
        };
        let Some(chosen) = &object.spec.servers else { return Vec::new() };
        let own = &front.id.namespace;
        let all = chosen.namespaces.as_ref().filter(|choice| choice.from != Namespaces::Same);
        let named: BTreeSet<&str> =
            chosen.refs.iter().map(|reference| reference.namespace.as_str()).collect();
        let drawn = |name: &str| {
            named.contains(name) || all.is_some_and(|choice| gateway::includes(choice, own, name, inputs))
        };
        let exporting = self.namespaces.iter().filter(|(_, known)| known.exported > 0);
        exporting.filter(|(name, _)| *name != own && drawn(name)).map(|(_, known)| known.exported).collect()
    }

    /// Compiles the sidecars of servers that changed or whose gateways did.
    fn beside(&mut self, inputs: &Inputs, parts: &Parts) {
        let mut peers: BTreeMap<&ServerId, Peers> = BTreeMap::new();
        for (gateway, (_, outcome)) in &self.gateways {
            for server in &outcome.attached {
                let peers = peers.entry(server).or_default();
                let is_own = server.namespace == gateway.namespace;
                if is_own { &mut peers.local } else { &mut peers.exported }.push(gateway.clone());
            }
        }
        let operators = inputs.install.cluster.as_ref().map(|cluster| &cluster.operator_namespace);
        let mesh = operators.and_then(|name| self.namespaces.get(name)).map_or(0, |known| known.policies);
        let mut kept = BTreeMap::new();
        for (name, namespace) in &parts.namespaces {
            let own = self.namespaces.get(name).map_or(0, |known| known.own);
            for server in namespace.usable().filter(|server| server.beside.is_some()) {
                let peers = peers.remove(&server.id).unwrap_or_default();
                let above = if server.direct.is_some() { (self.labels_stamp, mesh) } else { (0, 0) };
                let stamps = Beside { own, above };
                let old = self.sidecars.remove(&server.id);
                let old = old.filter(|(known, had, _)| (*known, had) == (stamps, &peers));
                let entry =
                    old.or_else(|| Some((stamps, peers.clone(), made(server, inputs, parts, &peers)?)));
                kept.extend(entry.map(|entry| (server.id.clone(), entry)));
            }
        }
        self.sidecars = kept;
    }

    /// What is known now, as the output.
    fn gather(&self, parts: &Parts, compiled: &mut Compiled) {
        for namespace in parts.namespaces.values() {
            for (id, part) in &namespace.servers {
                compiled.diagnostics.extend(part.findings.iter().cloned());
                let Ok(server) = &part.outcome else { continue };
                compiled.workloads.extend(server.workload.clone().map(|workload| (id.clone(), workload)));
                let children = server.children.clone();
                compiled.children.extend(children.map(|made| (FleetId::Server(id.clone()), made)));
            }
            for (id, policy) in &namespace.policies {
                compiled.diagnostics.extend(policy.findings.iter().cloned());
                compiled.policy_targets.insert(id.clone(), policy.named.clone());
            }
        }
        for (id, (_, outcome)) in &self.gateways {
            compiled.attached.insert(id.clone(), outcome.attached.clone());
            compiled.diagnostics.extend(outcome.findings.iter().cloned());
            compiled.snapshots.extend(outcome.snapshot.clone().map(|snapshot| (id.clone(), snapshot)));
            let children = outcome.children.clone();
            compiled.children.extend(children.map(|made| (FleetId::Gateway(id.clone()), made)));
            let fleet = outcome.fleet.clone();
            compiled.fleets.extend(fleet.map(|fleet| (FleetId::Gateway(id.clone()), fleet)));
        }
        let attached: BTreeSet<&ServerId> =
            self.gateways.values().flat_map(|(_, outcome)| &outcome.attached).collect();
        let notes = notes_on_unattached(parts, &attached, &compiled.diagnostics);
        compiled.diagnostics.extend(notes);
        compiled.diagnostics.sort();
        compiled.diagnostics.dedup();
    }
}

/// Compiles the objects of a namespace, each that depends on a change.
fn objects(inputs: &Inputs, changes: &Changes, known: &Known) -> Namespace {
    let mut made = Namespace::default();
    let same = changes.secrets == Change::None && changes.services == Change::None;
    for (id, object) in &known.sources.servers {
        let old: Option<&Arc<ServerPart>> = known.parts.servers.get(id);
        let old = old.filter(|_| same && !changes.servers_changed.contains(id)).cloned();
        let part = old.unwrap_or_else(|| Arc::new(server::compile(id, object, inputs)));
        made.servers.insert(id.clone(), part);
    }
    // A policy asks which servers and gateways there are, not what they are.
    let same = changes.servers != Change::Keys && changes.gateways != Change::Keys;
    for (id, object) in &known.sources.policies {
        let old: Option<&Arc<CompiledPolicy>> = known.parts.policies.get(id);
        let old = old.filter(|_| same && !changes.policies_changed.contains(id)).cloned();
        let policy = old.unwrap_or_else(|| Arc::new(policy::compile(id, object, inputs)));
        made.policies.insert(id.clone(), policy);
    }
    made
}

fn made(
    server: &server::CompiledServer,
    inputs: &Inputs,
    parts: &Parts,
    peers: &Peers,
) -> Option<Arc<Fleet>> {
    let uid = inputs.servers.get(&server.id).and_then(|object| object.metadata.uid.clone());
    let uid = uid.unwrap_or_else(|| server.id.to_string());
    sidecar::fleet(server, &uid, (inputs, parts), peers).ok().map(Arc::new)
}
