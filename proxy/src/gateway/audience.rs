//! What clients see that declare that they can be asked something: some servers list other objects to them. Everyone
//! who declares the same shares one view, kept for as long as such clients come.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use futures_util::stream::select_all;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;

use super::Gateway;
use crate::catalog::{Config, View};
use crate::upstream::{Declared, Offered};

/// Audiences of one gateway; whoever declares yet something else sees what everyone sees.
const MOST: usize = 8;
/// An audience of which nobody came for this long is forgotten.
const IDLE: Duration = Duration::from_secs(300);

/// See the module.
pub(super) struct Audience {
    declared: Declared,
    view: ArcSwap<View>,
    /// Every server's lists for these clients are known.
    known: watch::Sender<bool>,
    since: Instant,
    used: Mutex<Instant>,
    /// Ends what follows the servers of the configuration in force.
    until: Mutex<CancellationToken>,
}

/// The audiences of a gateway.
#[derive(Default)]
pub(super) struct Audiences(Mutex<HashMap<Declared, Arc<Audience>>>);

impl Audience {
    pub(super) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    pub(super) fn is_settled(&self) -> bool {
        *self.known.borrow()
    }

    /// Waits until the lists are known, at most `grace` after the first such client came.
    pub(super) async fn settle(&self, grace: Duration) {
        let mut known = self.known.subscribe();
        let left = grace.saturating_sub(self.since.elapsed());
        // The view as it is then is the answer, whatever came of the wait.
        let _ = tokio::time::timeout(left, known.wait_for(|known| *known)).await;
    }

    /// Joins everyone's view with what the servers list to these clients.
    fn look(&self, everyones: &Arc<View>) {
        let config = &everyones.config;
        let mut known = true;
        let mut own = false;
        let observed = config.attached.iter().zip(&everyones.observed).map(|(attached, seen)| {
            match &*attached.upstream.offered(self.declared).borrow() {
                Offered::Unknown => known = false,
                Offered::Same => {}
                Offered::Own(lists) => {
                    own = true;
                    let mut seen = (**seen).clone();
                    seen.lists = (**lists).clone();
                    return Arc::new(seen);
                }
            }
            Arc::clone(seen)
        });
        let observed = observed.collect();
        self.view.store(match own {
            true => {
                let view = View::new(Arc::clone(config), observed, everyones.generation, Some(everyones));
                view.tell_left_out(&[everyones, &self.view()]);
                Arc::new(view)
            }
            false => Arc::clone(everyones),
        });
        self.known.send_replace(known);
    }
}

impl Audiences {
    /// The one of clients that declare this, which has just been used.
    fn known(&self, declared: Declared) -> Option<Arc<Audience>> {
        let all = self.0.lock();
        let audience = all.get(&declared)?;
        *audience.used.lock() = Instant::now();
        Some(Arc::clone(audience))
    }

    /// Forgets those of which nobody came for long.
    pub(super) fn tidy(&self) {
        self.0.lock().retain(|_, audience| {
            let used = Arc::strong_count(audience) > 1 || audience.used.lock().elapsed() < IDLE;
            if !used {
                audience.until.lock().cancel();
            }
            used
        });
    }

    pub(super) fn end(&self) {
        self.0.lock().drain().for_each(|(_, audience)| audience.until.lock().cancel());
    }

    fn all(&self) -> Vec<Arc<Audience>> {
        self.0.lock().values().cloned().collect()
    }
}

impl Gateway {
    /// The audience of clients that declare this; none where there are too many already.
    pub(super) fn audience(self: &Arc<Self>, declared: Declared) -> Option<Arc<Audience>> {
        if let Some(audience) = self.audiences.known(declared) {
            return Some(audience);
        }
        // Held until it is followed: a configuration that comes meanwhile finds it, and so does who comes at once.
        let _naming = self.naming.lock();
        if let Some(audience) = self.audiences.known(declared) {
            return Some(audience);
        }
        let everyones = self.view();
        let audience = Arc::new(Audience {
            declared,
            view: ArcSwap::new(Arc::clone(&everyones)),
            known: watch::Sender::new(false),
            since: Instant::now(),
            used: Mutex::new(Instant::now()),
            until: Mutex::default(),
        });
        {
            let mut all = self.audiences.0.lock();
            if all.len() >= MOST {
                return None;
            }
            all.insert(declared, Arc::clone(&audience));
        }
        self.attend(&audience, &everyones.config);
        Some(audience)
    }

    /// Every audience sees the configuration in force and what servers have now. The caller holds `naming`.
    pub(super) fn show(self: &Arc<Self>, config: Option<&Arc<Config>>) {
        let everyones = self.view();
        for audience in self.audiences.all() {
            match config {
                Some(config) => self.attend(&audience, config),
                None => audience.look(&everyones),
            }
        }
    }

    /// Follows what this configuration's servers list to an audience. The caller holds `naming`.
    fn attend(self: &Arc<Self>, audience: &Arc<Audience>, config: &Arc<Config>) {
        let until = CancellationToken::new();
        std::mem::replace(&mut *audience.until.lock(), until.clone()).cancel();
        let offered = config.attached.iter().map(|one| one.upstream.offered(audience.declared));
        let mut changes = select_all(offered.map(WatchStream::from_changes));
        audience.look(&self.view());
        let (gateway, audience, current) = (Arc::downgrade(self), Arc::downgrade(audience), until.clone());
        tokio::spawn(async move {
            let follow = async {
                while changes.next().await.is_some() {
                    let (Some(gateway), Some(audience)) = (gateway.upgrade(), audience.upgrade()) else {
                        return;
                    };
                    let _naming = gateway.naming.lock();
                    if current.is_cancelled() {
                        return;
                    }
                    audience.look(&gateway.view());
                    gateway.changes.send_modify(|_| ());
                }
            };
            until.run_until_cancelled(follow).await;
        });
    }
}
