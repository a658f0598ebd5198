//! What is known of one kind of object, and how far its changes have been read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;
use tokio::sync::watch;

/// Namespace (empty without one) and name.
pub(crate) type Key = (String, String);

/// How far the changes of one scope have been read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Nothing up to this version is missing.
    pub(crate) seen: u64,
    /// The version of the latest change.
    pub(crate) changed: u64,
    /// The first list is complete.
    pub(crate) listed: bool,
    /// Since when the line is down.
    pub(crate) broken: Option<Instant>,
}

/// Whether a change from one to another matters.
type Matters<T> = Box<dyn Fn(&Key, Option<&T>, Option<&T>) -> bool + Send + Sync>;

/// The objects of one kind. One follower for each scope writes, everybody reads.
pub(crate) struct Store<T> {
    entries: RwLock<BTreeMap<Key, Arc<T>>>,
    positions: RwLock<BTreeMap<Option<String>, Position>>,
    /// Told of each change that matters.
    wake: watch::Sender<u64>,
    matters: Matters<T>,
}

impl<T> Store<T> {
    /// Of these scopes; every change is told to `wake`.
    pub(crate) fn new(scopes: &[Option<String>], wake: watch::Sender<u64>) -> Self {
        Self::filtered(scopes, wake, |_, _, _| true)
    }

    /// As [`Self::new`], without being told of changes that don't matter.
    pub(crate) fn filtered(
        scopes: &[Option<String>],
        wake: watch::Sender<u64>,
        matters: impl Fn(&Key, Option<&T>, Option<&T>) -> bool + Send + Sync + 'static,
    ) -> Self {
        let positions = scopes.iter().map(|scope| (scope.clone(), Position::default())).collect();
        Self {
            entries: RwLock::default(),
            positions: RwLock::new(positions),
            wake,
            matters: Box::new(matters),
        }
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.entries.read().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// All of them, as they are now.
    pub(crate) fn all(&self) -> BTreeMap<Key, Arc<T>> {
        self.entries.read().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.read().len()
    }

    pub(crate) fn positions(&self) -> BTreeMap<Option<String>, Position> {
        self.positions.read().clone()
    }

    /// Whether every scope's first list is complete.
    pub(crate) fn is_listed(&self) -> bool {
        self.positions.read().values().all(|position| position.listed)
    }

    fn at(&self, scope: Option<&str>, change: impl FnOnce(&mut Position)) {
        let mut positions = self.positions.write();
        change(positions.entry(scope.map(str::to_owned)).or_default());
    }

    /// A list replaces everything of its scope.
    pub(crate) fn reset(&self, scope: Option<&str>, list: Vec<(Key, T, u64)>, version: u64) {
        let latest = list.iter().map(|(_, _, version)| *version).max().unwrap_or_default();
        {
            let mut entries = self.entries.write();
            entries.retain(|(namespace, _), _| scope.is_some_and(|scope| scope != namespace));
            entries.extend(list.into_iter().map(|(key, object, _)| (key, Arc::new(object))));
        }
        self.at(scope, |position| {
            position.seen = position.seen.max(version).max(latest);
            position.changed = position.changed.max(latest);
            position.listed = true;
            position.broken = None;
        });
        self.wake.send_modify(|count| *count += 1);
    }

    /// One object changed; none: it is gone.
    pub(super) fn apply(&self, scope: Option<&str>, key: Key, object: Option<T>, version: u64) {
        let mattered = {
            let mut entries = self.entries.write();
            let old = entries.remove(&key);
            let mattered = (self.matters)(&key, old.as_deref(), object.as_ref());
            if let Some(object) = object {
                entries.insert(key, Arc::new(object));
            }
            mattered
        };
        self.at(scope, |position| {
            position.seen = position.seen.max(version);
            position.changed = position.changed.max(version);
            position.broken = None;
        });
        if mattered {
            self.wake.send_modify(|count| *count += 1);
        }
    }

    /// A bookmark: nothing up to this version is missing.
    pub(super) fn seen(&self, scope: Option<&str>, version: u64) {
        self.at(scope, |position| {
            position.seen = position.seen.max(version);
            position.broken = None;
        });
    }

    /// The line is down.
    pub(super) fn broken(&self, scope: Option<&str>) {
        self.at(scope, |position| _ = position.broken.get_or_insert_with(Instant::now));
    }

    /// The line is up again.
    pub(super) fn mended(&self, scope: Option<&str>) {
        self.at(scope, |position| position.broken = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, name: &str) -> Key {
        (namespace.to_owned(), name.to_owned())
    }

    #[test]
    fn a_list_replaces_its_scope_and_no_other() {
        let (wake, _) = watch::channel(0);
        let scopes = [Some("a".to_owned()), Some("b".to_owned())];
        let store = Store::new(&scopes, wake);
        store.reset(Some("a"), vec![(key("a", "old"), 1, 5)], 9);
        assert!(!store.is_listed(), "b is not listed yet");
        store.reset(Some("b"), vec![(key("b", "kept"), 2, 6)], 9);
        store.reset(Some("a"), vec![(key("a", "new"), 3, 7)], 12);
        assert!(store.is_listed());
        assert_eq!(store.all().into_keys().collect::<Vec<_>>(), [key("a", "new"), key("b", "kept")]);
    }

    #[test]
    fn a_position_never_goes_back() {
        let (wake, _) = watch::channel(0);
        let store = Store::new(&[None], wake);
        store.reset(None, vec![(key("a", "x"), 1, 5)], 20);
        store.apply(None, key("a", "x"), None, 21);
        store.reset(None, Vec::new(), 20);
        store.seen(None, 3);
        let position = store.positions()[&None];
        assert_eq!((position.seen, position.changed), (21, 21));
    }

    #[test]
    fn a_change_that_does_not_matter_wakes_nobody() {
        let (wake, mut woken) = watch::channel(0);
        let store = Store::filtered(&[None], wake, |_, old: Option<&i32>, new| old != new);
        store.apply(None, key("a", "x"), Some(1), 1);
        assert!(woken.has_changed().unwrap());
        woken.borrow_and_update();
        store.apply(None, key("a", "x"), Some(1), 2);
        assert!(!woken.has_changed().unwrap());
    }
}
