//! What is known of one kind of object, and how far its changes have been read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;
use tokio::sync::watch;

/// Namespace (empty without one) and name.
pub(crate) type Key = (String, String);

/// The objects of one namespace, by name. As long as none of them changes it stays the same `Arc`.
pub(crate) type Bucket<T> = BTreeMap<String, Arc<T>>;

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

/// Wakes whoever waits for changes, and tells the moment of the first one that nobody has taken up yet.
pub(crate) type Wake = watch::Sender<Option<Instant>>;

/// Whether a change from one to another matters.
type Matters<T> = Box<dyn Fn(&Key, Option<&T>, Option<&T>) -> bool + Send + Sync>;

/// The objects of one kind. One follower for each scope writes, everybody reads.
pub(crate) struct Store<T> {
    buckets: RwLock<BTreeMap<String, Arc<Bucket<T>>>>,
    positions: RwLock<BTreeMap<Option<String>, Position>>,
    /// Told of each change that matters.
    wake: Wake,
    matters: Matters<T>,
}

impl<T> Store<T> {
    /// Of these scopes; every change is told to `wake`.
    pub(crate) fn new(scopes: &[Option<String>], wake: Wake) -> Self {
        Self::filtered(scopes, wake, |_, _, _| true)
    }

    /// As [`Self::new`], without being told of changes that don't matter.
    pub(crate) fn filtered(
        scopes: &[Option<String>],
        wake: Wake,
        matters: impl Fn(&Key, Option<&T>, Option<&T>) -> bool + Send + Sync + 'static,
    ) -> Self {
        let positions = scopes.iter().map(|scope| (scope.clone(), Position::default())).collect();
        Self {
            buckets: RwLock::default(),
            positions: RwLock::new(positions),
            wake,
            matters: Box::new(matters),
        }
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.buckets.read().get(namespace)?.get(name).cloned()
    }

    /// All of them, as they are now.
    pub(crate) fn buckets(&self) -> BTreeMap<String, Arc<Bucket<T>>> {
        self.buckets.read().clone()
    }

    /// Those of one namespace, as they are now.
    pub(crate) fn of(&self, namespace: &str) -> Arc<Bucket<T>> {
        self.buckets.read().get(namespace).cloned().unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.buckets.read().values().map(|bucket| bucket.len()).sum()
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
            let mut buckets = self.buckets.write();
            buckets.retain(|namespace, _| scope.is_some_and(|scope| scope != namespace));
            for ((namespace, name), object, _) in list {
                Arc::make_mut(buckets.entry(namespace).or_default()).insert(name, Arc::new(object));
            }
        }
        self.at(scope, |position| {
            position.seen = position.seen.max(version).max(latest);
            position.changed = position.changed.max(latest);
            position.listed = true;
            position.broken = None;
        });
        self.wake.send_modify(|since| _ = since.get_or_insert_with(Instant::now));
    }

    /// One object changed; none: it is gone.
    pub(crate) fn apply(&self, scope: Option<&str>, key: Key, object: Option<T>, version: u64) {
        let mattered = {
            let mut buckets = self.buckets.write();
            let bucket = Arc::make_mut(buckets.entry(key.0.clone()).or_default());
            let old = bucket.remove(&key.1);
            let mattered = (self.matters)(&key, old.as_deref(), object.as_ref());
            if let Some(object) = object {
                bucket.insert(key.1, Arc::new(object));
            } else if bucket.is_empty() {
                buckets.remove(&key.0);
            }
            mattered
        };
        self.at(scope, |position| {
            position.seen = position.seen.max(version);
            position.changed = position.changed.max(version);
            position.broken = None;
        });
        if mattered {
            self.wake.send_modify(|since| _ = since.get_or_insert_with(Instant::now));
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
        let (wake, _) = watch::channel(None);
        let scopes = [Some("a".to_owned()), Some("b".to_owned())];
        let store = Store::new(&scopes, wake);
        store.reset(Some("a"), vec![(key("a", "old"), 1, 5)], 9);
        assert!(!store.is_listed(), "b is not listed yet");
        store.reset(Some("b"), vec![(key("b", "kept"), 2, 6)], 9);
        store.reset(Some("a"), vec![(key("a", "new"), 3, 7)], 12);
        assert!(store.is_listed());
        let names: Vec<_> = store.buckets().into_iter().map(|(of, all)| (of, all.len())).collect();
        assert_eq!(names, [("a".to_owned(), 1), ("b".to_owned(), 1)]);
        assert!(store.get("a", "new").is_some() && store.get("b", "kept").is_some());
    }

    #[test]
    fn a_change_leaves_the_other_namespaces_the_same_and_what_somebody_holds_as_it_was() {
        let (wake, _) = watch::channel(None);
        let store = Store::new(&[None], wake);
        store.reset(None, vec![(key("a", "x"), 1, 5), (key("b", "y"), 1, 6)], 9);
        let before = store.buckets();
        store.apply(None, key("a", "x"), Some(2), 10);
        let after = store.buckets();
        assert!(Arc::ptr_eq(&before["b"], &after["b"]) && !Arc::ptr_eq(&before["a"], &after["a"]));
        assert_eq!((*before["a"]["x"], *after["a"]["x"]), (1, 2));
        store.apply(None, key("b", "y"), None, 11);
        assert_eq!(store.buckets().into_keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_position_never_goes_back() {
        let (wake, _) = watch::channel(None);
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
        let (wake, mut woken) = watch::channel(None);
        let store = Store::filtered(&[None], wake, |_, old: Option<&i32>, new| old != new);
        store.apply(None, key("a", "x"), Some(1), 1);
        assert!(woken.has_changed().unwrap());
        woken.borrow_and_update();
        store.apply(None, key("a", "x"), Some(1), 2);
        assert!(!woken.has_changed().unwrap());
    }
}
