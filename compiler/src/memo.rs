//! What did not change is not compiled again (decisions.md 9): a cache, without which the output is the same to the byte.
//!
//! Nothing crosses a namespace but exports and the mesh level. So each namespace has stamps, which rise when what its
//! gateways see and what others see of it changes; a gateway is compiled again when a stamp rose that it depends on. A
//! change costs what its own namespace holds, and one comparison for each other namespace.

mod changes;
mod surface;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use mcpmesh_crds::From as Namespaces;
use mcpmesh_ir::{Fleet, FleetId, GatewayId, ServerId};

use crate::compile::{
    ByNamespace, Compiled, IMPLIED_GATEWAY, Namespace, Parts, fronts, implied_gateway, notes_on_unattached,
};
use crate::diagnostic::Diagnostic;
use crate::gateway::{self, Front, GatewayOutcome};
use crate::inputs::{Inputs, Install, Objects};
use crate::policy;
use crate::server::{self, CompiledServer, ServerPart};
use crate::sidecar::{self, Peers};
use changes::Changes;
use surface::Surface;

/// Remembers the objects of the last compile and what was made of them.
#[derive(Default)]
pub struct Memo {
    /// What the installation settled, and whether the one gateway was the implied one.
    install: Option<(Install, bool)>,
    labels: Arc<BTreeMap<String, BTreeMap<String, String>>>,
    labels_stamp: u64,
    namespaces: BTreeMap<String, Known>,
    parts: Parts,
    /// Rose when what any namespace exports changed.
    exports: u64,
    /// For each namespace, its servers that gateways of others have.
    foreign: BTreeMap<String, Arc<Attached>>,
    foreign_is_old: bool,
    made: ByNamespace,
    /// The last stamp that was given. Never given twice.
    clock: u64,
}

/// The gateways before each server.
type Attached = BTreeMap<ServerId, Vec<GatewayId>>;

/// What is known of a namespace.
#[derive(Default)]
struct Known {
    objects: Arc<Objects>,
    /// Rose when anything in it changed.
    own: u64,
    /// Rose when what it exports changed, or with what is judged there.
    exported: u64,
    /// Rose when its policies changed.
    policies: u64,
    surface: Surface,
    /// Some server admits callers that no gateway has judged.
    direct: bool,
    gateways: BTreeMap<GatewayId, (Key, Arc<GatewayOutcome>)>,
    /// Rose when one of its gateways was compiled.
    fronts: u64,
    sidecars: BTreeMap<ServerId, Sidecar>,
    made_of: Option<MadeOf>,
}

/// The stamps of what a gateway was compiled from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    own: u64,
    labels: u64,
    mesh: u64,
    foreign: Vec<u64>,
    /// As long as this one stands, so do those of other namespaces.
    exports: u64,
}

impl Key {
    /// Whether there is nothing to compile, though something elsewhere changed.
    fn says_the_same(&self, other: &Self) -> bool {
        (self.own, self.labels, self.mesh, &self.foreign)
            == (other.own, other.labels, other.mesh, &other.foreign)
    }
}

/// What a sidecar's fleet was compiled from, and the fleet.
struct Sidecar {
    part: Arc<ServerPart>,
    peers: Peers,
    judged: Judged,
    fleet: Arc<Fleet>,
}

/// The stamps of what is judged at a sidecar; none where gateways have judged all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Judged {
    own: u64,
    /// Of labels and of the mesh level, where it judges callers that no gateway has judged.
    above: (u64, u64),
}

/// What the output of a namespace was gathered from.
#[derive(PartialEq)]
struct MadeOf {
    own: u64,
    fronts: u64,
    /// Stamp of the implied gateway, whose findings are on servers.
    implied: u64,
    /// As in [`Judged`], where there are such sidecars.
    above: (u64, u64),
    foreign: Arc<Attached>,
}

impl fmt::Debug for Memo {
    /// Snapshots hold Secrets: only the namespaces' names are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.namespaces.keys()).finish()
    }
}

impl Memo {
    /// As [`crate::compile()`], with what did not change from memory.
    pub fn compile(&mut self, inputs: &Inputs) -> ByNamespace {
        self.settle(inputs);
        self.forget(inputs);
        for (name, objects) in &inputs.namespaces {
            self.read(name, objects, inputs);
        }
        let implied = IMPLIED_GATEWAY.0;
        if inputs.has_implied_gateway() && !inputs.namespaces.contains_key(implied) {
            self.read(implied, &Arc::default(), inputs);
        }
        for (front, key) in self.due(inputs) {
            self.front(&front, key, inputs);
        }
        self.cross();
        self.gather(inputs);
        self.made.clone()
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// What the installation settles reaches everything; labels of namespaces reach any gateway.
    fn settle(&mut self, inputs: &Inputs) {
        let implied = inputs.has_implied_gateway();
        if self.install.as_ref().is_none_or(|known| (&known.0, known.1) != (&inputs.install, implied)) {
            let install = Some((inputs.install.clone(), implied));
            *self = Self { install, clock: self.clock, ..Self::default() };
        }
        if !Arc::ptr_eq(&self.labels, &inputs.labels) && self.labels != inputs.labels {
            self.labels_stamp = self.tick();
        }
        self.labels = inputs.labels.clone();
    }

    /// Namespaces that are there no more.
    fn forget(&mut self, inputs: &Inputs) {
        let is_there = |name: &str| {
            inputs.namespaces.contains_key(name)
                || (inputs.has_implied_gateway() && name == IMPLIED_GATEWAY.0)
        };
        let gone: Vec<String> = self.namespaces.keys().filter(|name| !is_there(name)).cloned().collect();
        for name in gone {
            self.namespaces.remove(&name);
            self.parts.namespaces.remove(&name);
            self.made.remove(&name);
            self.exports = self.tick();
            self.foreign_is_old = true;
        }
    }

    /// Compiles the objects of a namespace in which something changed.
    fn read(&mut self, name: &str, objects: &Arc<Objects>, inputs: &Inputs) {
        let mut known = self.namespaces.remove(name).unwrap_or_default();
        let is_new = known.own == 0;
        if is_new || !Arc::ptr_eq(&known.objects, objects) {
            let changes = Changes::between(&known.objects, objects);
            known.objects = objects.clone();
            if changes.any() || is_new {
                let parts = self.parts.namespaces.remove(name).unwrap_or_default();
                let parts = compiled(inputs, objects, &changes, &parts);
                known.own = self.tick();
                let surface = Surface::of(&parts);
                if surface != known.surface {
                    (known.exported, known.surface) = (self.tick(), surface);
                    self.exports = known.exported;
                }
                known.direct = parts.usable().any(|server| server.direct.is_some());
                self.parts.namespaces.insert(name.to_owned(), Arc::new(parts));
            }
            if changes.policies.any() {
                known.policies = self.tick();
            }
            let before = known.gateways.len();
            known.gateways.retain(|id, _| {
                objects.gateways.contains_key(id)
                    || (inputs.has_implied_gateway() && *id == implied_gateway())
            });
            self.foreign_is_old |= known.gateways.len() < before;
        }
        self.namespaces.insert(name.to_owned(), known);
    }

    /// The stamp of the mesh level.
    fn mesh(&self, inputs: &Inputs) -> u64 {
        let operators = inputs.install.cluster.as_ref().map(|cluster| &cluster.operator_namespace);
        operators.and_then(|name| self.namespaces.get(name)).map_or(0, |known| known.policies)
    }

    /// The gateways for which a stamp rose, with their new stamps.
    fn due<'i>(&self, inputs: &'i Inputs) -> Vec<(Front<'i>, Key)> {
        let mesh = self.mesh(inputs);
        // The implied gateway draws from all that changes.
        let exports = if inputs.has_implied_gateway() { self.clock } else { self.exports };
        let mut due = Vec::new();
        for (name, known) in &self.namespaces {
            let (own, labels) = (known.own, self.labels_stamp);
            let stands =
                |key: &Key| (key.own, key.labels, key.mesh, key.exports) == (own, labels, mesh, exports);
            let expected = if inputs.has_implied_gateway() { 1 } else { known.objects.gateways.len() };
            let all_stand =
                known.gateways.len() == expected && known.gateways.values().all(|(key, _)| stands(key));
            if all_stand {
                continue;
            }
            for front in fronts(name, inputs) {
                if known.gateways.get(&front.id).is_none_or(|(key, _)| !stands(key)) {
                    let foreign = self.drawn(&front, inputs);
                    due.push((front, Key { own, labels, mesh, foreign, exports }));
                }
            }
        }
        due
    }

    /// The stamps of the other namespaces that a gateway draws from; the implied one draws from all.
    fn drawn(&self, front: &Front<'_>, inputs: &Inputs) -> Vec<u64> {
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

    /// Compiles a gateway, unless what rose was nothing that it draws from.
    fn front(&mut self, front: &Front<'_>, key: Key, inputs: &Inputs) {
        let stamp = self.tick();
        let Some(known) = self.namespaces.get_mut(&front.id.namespace) else { return };
        let old = match known.gateways.get_mut(&front.id) {
            Some((old, _)) if old.says_the_same(&key) => {
                *old = key;
                return;
            }
            old => old.map(|(_, outcome)| outcome.clone()),
        };
        let mut outcome = gateway::compile(front, inputs, &self.parts);
        let before = old.as_ref().map_or(&[][..], |old| &old.attached);
        if *before != *outcome.attached {
            let crosses = |server: &ServerId| server.namespace != front.id.namespace;
            self.foreign_is_old |= before.iter().chain(&*outcome.attached).any(crosses);
        } else if let Some(old) = old {
            outcome.attached = old.attached.clone();
        }
        known.fronts = stamp;
        known.gateways.insert(front.id.clone(), (key, Arc::new(outcome)));
    }

    /// Notes which servers gateways of other namespaces have, when that changed.
    fn cross(&mut self) {
        if !std::mem::take(&mut self.foreign_is_old) {
            return;
        }
        let mut now: BTreeMap<String, Attached> = BTreeMap::new();
        for (id, (_, outcome)) in self.namespaces.values().flat_map(|known| &known.gateways) {
            for server in outcome.attached.iter().filter(|server| server.namespace != id.namespace) {
                let of = now.entry(server.namespace.clone()).or_default();
                of.entry(server.clone()).or_default().push(id.clone());
            }
        }
        let mut before = std::mem::take(&mut self.foreign);
        let kept = now.into_iter().map(|(name, attached)| match before.remove(&name) {
            Some(old) if *old == attached => (name, old),
            _ => (name, Arc::new(attached)),
        });
        self.foreign = kept.collect();
    }

    /// The output of each namespace for which something rose.
    fn gather(&mut self, inputs: &Inputs) {
        let none = Arc::<Attached>::default();
        let implied = self.namespaces.get(IMPLIED_GATEWAY.0).filter(|_| inputs.has_implied_gateway());
        let (implied, explained) = implied.map_or((0, Vec::new()), |known| {
            (
                known.fronts,
                known.gateways.values().flat_map(|(_, outcome)| outcome.findings.clone()).collect(),
            )
        });
        let levels = (self.labels_stamp, self.mesh(inputs));
        for (name, known) in &mut self.namespaces {
            let above = if known.direct { levels } else { (0, 0) };
            let foreign = self.foreign.get(name).unwrap_or(&none);
            let stands = known.made_of.as_ref().is_some_and(|made| {
                (made.own, made.fronts, made.implied, made.above) == (known.own, known.fronts, implied, above)
                    && (Arc::ptr_eq(&made.foreign, foreign) || made.foreign == *foreign)
            });
            if stands {
                continue;
            }
            let made = known.output((name, &self.parts), (foreign, above), &explained, inputs);
            self.made.insert(name.clone(), Arc::new(made));
            let (own, fronts, foreign) = (known.own, known.fronts, foreign.clone());
            known.made_of = Some(MadeOf { own, fronts, implied, above, foreign });
        }
    }
}

impl Known {
    /// What is known of a namespace now, as its part of the output.
    fn output(
        &mut self,
        (name, all): (&str, &Parts),
        (foreign, above): (&Attached, (u64, u64)),
        explained: &[Diagnostic],
        inputs: &Inputs,
    ) -> Compiled {
        let none = Namespace::default();
        let parts = all.namespaces.get(name).map_or(&none, |parts| &**parts);
        let mut compiled = Compiled { gateways: foreign.clone(), ..Compiled::default() };
        let mut peers: BTreeMap<&ServerId, Peers> = BTreeMap::new();
        for (server, gateways) in foreign {
            peers.entry(server).or_default().exported.clone_from(gateways);
        }
        for (id, (_, outcome)) in &self.gateways {
            for server in outcome.attached.iter().filter(|server| server.namespace == id.namespace) {
                peers.entry(server).or_default().local.push(id.clone());
                compiled.gateways.entry(server.clone()).or_default().push(id.clone());
            }
        }
        compiled.gateways.values_mut().for_each(|gateways| gateways.sort());
        if inputs.install.cluster.is_some() {
            self.sidecars = self.sidecars(parts, &mut peers, above, (inputs, all));
            compiled.fleets =
                self.sidecars.values().map(|one| (one.fleet.id.clone(), one.fleet.clone())).collect();
        }
        self.tell(parts, explained, &mut compiled);
        compiled
    }

    /// The sidecars of a namespace's servers, compiled where the server or its gateways changed.
    fn sidecars(
        &self,
        parts: &Namespace,
        peers: &mut BTreeMap<&ServerId, Peers>,
        above: (u64, u64),
        all: (&Inputs, &Parts),
    ) -> BTreeMap<ServerId, Sidecar> {
        let mut sidecars = BTreeMap::new();
        for (id, part) in &parts.servers {
            let usable = part.outcome.as_ref().ok();
            let Some(server) = usable.filter(|server| server.beside.is_some()) else { continue };
            let peers = peers.remove(id).unwrap_or_default();
            let judged = match (&server.direct, peers.exported.is_empty()) {
                (Some(_), _) => Judged { own: self.own, above },
                (None, false) => Judged { own: self.own, ..Judged::default() },
                (None, true) => Judged::default(),
            };
            let known = self.sidecars.get(id).filter(|known| {
                Arc::ptr_eq(&known.part, part) && known.peers == peers && known.judged == judged
            });
            let fleet = match known {
                Some(known) => known.fleet.clone(),
                None => match sidecar::fleet(server, &self.uid(id), all, &peers) {
                    Ok(fleet) => Arc::new(fleet),
                    Err(_) => continue,
                },
            };
            sidecars.insert(id.clone(), Sidecar { part: part.clone(), peers, judged, fleet });
        }
        sidecars
    }

    fn uid(&self, id: &ServerId) -> String {
        let uid = self.objects.servers.get(id).and_then(|object| object.metadata.uid.clone());
        uid.unwrap_or_else(|| id.to_string())
    }

    fn tell(&self, parts: &Namespace, explained: &[Diagnostic], compiled: &mut Compiled) {
        for (id, part) in &parts.servers {
            compiled.diagnostics.extend(part.findings.iter().cloned());
            let Ok(CompiledServer { workload, children, .. }) = &part.outcome else { continue };
            compiled.workloads.extend(workload.clone().map(|workload| (id.clone(), workload)));
            compiled.children.extend(children.clone().map(|made| (FleetId::Server(id.clone()), made)));
        }
        for (id, policy) in &parts.policies {
            compiled.diagnostics.extend(policy.findings.iter().cloned());
            compiled.policy_targets.insert(id.clone(), policy.named.clone());
        }
        for (id, (_, outcome)) in &self.gateways {
            let GatewayOutcome { snapshot, fleet, children, attached, findings } = &**outcome;
            let own = || FleetId::Gateway(id.clone());
            compiled.attached.insert(id.clone(), attached.clone());
            compiled.diagnostics.extend(findings.iter().cloned());
            compiled.snapshots.extend(snapshot.clone().map(|snapshot| (id.clone(), snapshot)));
            compiled.children.extend(children.clone().map(|made| (own(), made)));
            compiled.fleets.extend(fleet.clone().map(|fleet| (own(), fleet)));
        }
        let notes = notes_on_unattached(parts, &compiled.gateways, explained);
        compiled.diagnostics.extend(notes);
        compiled.diagnostics.sort();
        compiled.diagnostics.dedup();
    }
}

/// Compiles the objects of a namespace, each that a change reaches.
fn compiled(inputs: &Inputs, objects: &Objects, changes: &Changes, known: &Namespace) -> Namespace {
    let mut made = Namespace::default();
    for (id, object) in &objects.servers {
        let old = known.servers.get(id).filter(|_| !changes.reach_server(id, object)).cloned();
        let part = old.unwrap_or_else(|| Arc::new(server::compile(id, object, inputs)));
        made.servers.insert(id.clone(), part);
    }
    for (id, object) in &objects.policies {
        let old = known.policies.get(id).filter(|_| !changes.reach_policy(id)).cloned();
        let policy = old.unwrap_or_else(|| Arc::new(policy::compile(id, object, inputs)));
        made.policies.insert(id.clone(), policy);
    }
    made
}
