//! What becomes of objects that cannot be read: each stays as it was read last. One of which nothing is known opens
//! nothing: a policy closes its targets, as an invalid one does, and no implied gateway takes the place of a gateway.

pub(super) mod skipped;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mcpmesh_compiler::manifest::{self, Located, Object, Unread};
use mcpmesh_compiler::{Diagnostic, Inputs, Install, Location, ObjectKind, ObjectRef};
use mcpmesh_crds::{McpPolicy, McpPolicySpec, Mode, TargetKind, TargetRef};
use mcpmesh_ir::PolicyId;

use super::files::is_gone;
use super::{Loaded, Paths};

/// What cannot be read, by what follows from it.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// A gateway may be missing, so that none is implied.
    pub(super) gateway: bool,
    /// A Secret may be missing, which may be an API key.
    pub(super) secret: bool,
    /// Something is missing that may be a rule, and this is the first reading.
    unknown: bool,
    /// Policies that close what they target.
    policies: BTreeMap<PolicyId, Closed>,
    /// Objects that are as they were, each with the place that cannot be read.
    held: BTreeMap<ObjectRef, Location>,
}

/// What is known of a policy that cannot be read.
#[derive(Debug, Clone)]
struct Closed {
    targets: Vec<TargetRef>,
    at: Location,
}

/// Objects that may take away, and that are there twice: with what to say of each.
pub(super) fn doubled(objects: &[Located]) -> Vec<(Unread, Diagnostic)> {
    let (_, found) = manifest::gather(objects, Install::default());
    let unread = |diagnostic: Diagnostic| {
        let reference = diagnostic.object.clone().filter(is_rule)?;
        let all = objects.iter().filter(|object| object.reference == reference);
        let mut targets: Vec<TargetRef> = all.flat_map(closing).collect();
        targets.dedup();
        let location = diagnostic.location.clone()?;
        let kind = Some(reference.kind);
        Some((Unread { kind, reference: Some(reference), targets, location }, diagnostic))
    };
    found.into_iter().filter_map(unread).collect()
}

fn is_rule(object: &ObjectRef) -> bool {
    match object.kind {
        ObjectKind::McpGateway | ObjectKind::McpPolicy => true,
        ObjectKind::McpServer | ObjectKind::Secret | ObjectKind::ConfigMap | ObjectKind::Namespace => false,
    }
}

/// Whether an object of this kind may close something.
fn closes(kind: ObjectKind) -> bool {
    match kind {
        ObjectKind::McpGateway | ObjectKind::McpPolicy | ObjectKind::Secret => true,
        ObjectKind::McpServer | ObjectKind::ConfigMap | ObjectKind::Namespace => false,
    }
}

/// The kinds of the objects that a file held, and that neither it nor another file has now.
pub(super) fn missed(
    file: &str,
    objects: &[Located],
    unread: &[Unread],
    known: (&Loaded, &Paths),
) -> BTreeSet<ObjectKind> {
    let is_there = |reference: &ObjectRef| {
        objects.iter().any(|object| object.reference == *reference)
            || unread.iter().any(|one| one.reference.as_ref() == Some(reference))
    };
    let gone = known.0.objects.iter().filter(|before| was_in(before, file, known));
    gone.map(|before| &before.reference)
        .filter(|object| !is_there(object))
        .map(|object| object.kind)
        .collect()
}

/// Whether an object was in a file, or in a folder that is gone.
fn was_in(before: &Located, file: &str, (last, paths): (&Loaded, &Paths)) -> bool {
    let places = last.paths.get(before.file()).zip(paths.get(file));
    places.is_some_and(|(before, file)| before.starts_with(file))
}

/// What an object closes once it cannot be read: nothing, unless it is a policy that answers.
fn closing(located: &Located) -> Vec<TargetRef> {
    let Object::Policy(policy) = &located.object else { return Vec::new() };
    let McpPolicySpec { target_refs, mode, .. } = &policy.spec;
    match (mode, target_refs.as_slice()) {
        (Mode::Audit, _) => Vec::new(),
        (Mode::Enforce, []) => vec![whole(&located.reference.namespace)],
        (Mode::Enforce, targets) => targets.to_vec(),
    }
}

fn whole(namespace: &str) -> TargetRef {
    TargetRef { group: None, kind: TargetKind::Namespace, name: namespace.to_owned() }
}

impl Gaps {
    /// Of a first reading.
    pub(super) fn unknown(unread: &[Unread]) -> Self {
        let may_be = |kind| unread.iter().any(|one| one.may_be(kind));
        let unknown = may_be(ObjectKind::McpGateway) || may_be(ObjectKind::McpPolicy);
        let secret = may_be(ObjectKind::Secret);
        Self { gateway: unknown, secret, unknown, ..Self::default() }
    }

    /// Of a reading after another: puts what was read last in the place of what cannot be read.
    /// `paths` are those of the new reading.
    pub(super) fn fill(
        objects: &mut Vec<Located>,
        unread: &[Unread],
        (last, paths): (&Loaded, &Paths),
    ) -> Self {
        let mut gaps = Self::default();
        for one in unread {
            match &one.reference {
                Some(reference) => gaps.keep(reference, one, objects, last),
                None => {
                    let before = gaps.held.len();
                    gaps.keep_file(one, objects, (last, paths));
                    gaps.secret |= one.kind == Some(ObjectKind::Secret) && gaps.held.len() == before;
                }
            }
        }
        // One that is new may be another that was in its file, with its name or kind mistaken.
        let known = |one: &Unread| {
            last.objects.iter().any(|before| Some(&before.reference) == one.reference.as_ref())
        };
        let unknown: Vec<&Unread> = unread.iter().filter(|one| !known(one)).collect();
        for one in unknown.iter().filter(|one| one.reference.is_some()) {
            gaps.keep_file(one, objects, (last, paths));
        }
        for one in unknown {
            gaps.close_gone(one, objects, (last, paths));
        }
        gaps
    }

    /// An object that says which it is.
    fn keep(&mut self, reference: &ObjectRef, unread: &Unread, objects: &mut Vec<Located>, last: &Loaded) {
        if objects.iter().any(|object| object.reference == *reference) {
            if !is_rule(reference) {
                return;
            }
            objects.retain(|object| object.reference != *reference);
        }
        if let Some(before) = last.objects.iter().find(|before| before.reference == *reference) {
            self.hold(before, &unread.location, objects);
            return;
        }
        match reference.kind {
            ObjectKind::McpPolicy => self.close_policy(reference, unread.targets.clone(), &unread.location),
            // Where one is implied, nothing was closed by this one; that the implied one stays closed is seen to later.
            ObjectKind::McpGateway => self.gateway |= !last.inputs.has_implied_gateway(),
            ObjectKind::Secret => self.secret = true,
            ObjectKind::McpServer | ObjectKind::ConfigMap | ObjectKind::Namespace => {}
        }
    }

    /// All that was in a file, or in a folder that is gone, and may be meant; but for what is elsewhere now. Of a rule the
    /// one that is elsewhere may be a second of its name, and the looser one.
    fn keep_file(&mut self, text: &Unread, objects: &mut Vec<Located>, known: (&Loaded, &Paths)) {
        let at = &text.location;
        let may_be = |before: &ObjectRef| match text.reference {
            Some(_) => is_rule(before),
            None => text.may_be(before.kind),
        };
        let meant = |before: &&Located| was_in(before, &at.file, known) && may_be(&before.reference);
        // A path that is gone holds no second one of the name: it has moved.
        let may_be_second =
            text.reference.is_none() && !known.1.get(&at.file).is_none_or(|path| is_gone(path));
        for before in known.0.objects.iter().filter(meant) {
            let same = |object: &&Located| object.reference == before.reference;
            match objects.iter().find(same) {
                None => self.hold(before, at, objects),
                Some(other)
                    if may_be_second && is_rule(&before.reference) && other.file() != before.file() =>
                {
                    objects.retain(|object| !same(&object));
                    self.hold(before, at, objects);
                }
                Some(_) => {}
            }
        }
    }

    fn hold(&mut self, before: &Located, at: &Location, objects: &mut Vec<Located>) {
        let mut before = before.clone();
        // Its file has other lines now.
        before.stand_at((0, 0));
        self.held.insert(before.reference.clone(), at.clone());
        objects.push(before);
    }

    /// A text that does not say which objects it holds may hold any that is gone; another, any of its file.
    fn close_gone(&mut self, text: &Unread, objects: &[Located], known: (&Loaded, &Paths)) {
        let (last, at) = (known.0, &text.location);
        let here: BTreeSet<&ObjectRef> = objects.iter().map(|object| &object.reference).collect();
        let gone = |before: &&Located| !here.contains(&before.reference);
        let may_be = |before: &&Located| match text.reference {
            Some(_) => was_in(before, &at.file, known),
            None => text.may_be(before.reference.kind),
        };
        for gone in last.objects.iter().filter(|before| gone(before) && may_be(before)) {
            match gone.reference.kind {
                ObjectKind::McpPolicy => self.close_policy(&gone.reference, closing(gone), at),
                ObjectKind::McpGateway => self.gateway = true,
                ObjectKind::Secret => self.secret = true,
                ObjectKind::McpServer | ObjectKind::ConfigMap | ObjectKind::Namespace => {}
            }
        }
        // What was missing before may be in that text as well.
        self.gateway |= last.gaps.gateway && text.may_be(ObjectKind::McpGateway);
        // A gateway that cannot be read does not take the key's part in closing the implied one.
        let is_key_gone = last.gaps.secret
            || last.objects.iter().any(|before| gone(&before) && before.reference.kind == ObjectKind::Secret);
        let was_closed = last.inputs.has_implied_gateway() && !last.is_open();
        self.secret |= text.may_be(ObjectKind::McpGateway) && was_closed && is_key_gone;
        self.secret |= last.gaps.secret && (text.reference.is_some() || text.may_be(ObjectKind::Secret));
        let policies = last.gaps.policies.iter().filter(|_| text.may_be(ObjectKind::McpPolicy));
        for (id, closed) in policies {
            let reference = ObjectRef::new(ObjectKind::McpPolicy, &id.namespace, &id.name);
            if !here.contains(&reference) {
                self.policies.entry(id.clone()).or_insert_with(|| closed.clone());
            }
        }
    }

    fn close_policy(&mut self, policy: &ObjectRef, targets: Vec<TargetRef>, at: &Location) {
        if !targets.is_empty() {
            let id = PolicyId::new(&policy.namespace, &policy.name);
            self.policies.entry(id).or_insert_with(|| Closed { targets, at: at.clone() });
        }
    }

    /// Something is missing of which nothing is known.
    pub(super) fn are_unknown(&self) -> bool {
        self.unknown || self.gateway || !self.policies.is_empty()
    }

    /// Puts policies that close their targets in the place of those that cannot be read.
    pub(super) fn close(&self, inputs: &mut Inputs) {
        for (id, closed) in &self.policies {
            let spec = McpPolicySpec { target_refs: closed.targets.clone(), ..McpPolicySpec::default() };
            let policy = McpPolicy::new(&id.name, spec);
            inputs.of_mut(&id.namespace).policies.insert(id.clone(), Arc::new(policy));
            inputs.install.unread_policies.insert(id.clone());
        }
    }

    /// Fills in where such policies cannot be read.
    pub(super) fn locate(&self, diagnostics: &mut [Diagnostic]) {
        for diagnostic in diagnostics {
            let policy = diagnostic.object.as_ref().filter(|object| object.kind == ObjectKind::McpPolicy);
            let closed =
                policy.and_then(|policy| self.policies.get(&PolicyId::new(&policy.namespace, &policy.name)));
            if let Some(closed) = closed {
                diagnostic.location = Some(closed.at.clone());
            }
        }
    }

    pub(super) fn held(&self) -> impl Iterator<Item = String> {
        self.held.iter().map(|(object, at)| format!("{object} stays as it was: mend {at}"))
    }
}

#[cfg(test)]
mod tests;
