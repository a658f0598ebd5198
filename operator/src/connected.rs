//! The proxies that are connected to this replica, and what they said last.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use mcpmesh_ir::push::{Ack, Observation, ProxyReport, Rejection};
use mcpmesh_ir::{FleetId, ServerId};
use parking_lot::Mutex;
use tokio::sync::watch;

/// One proxy.
#[derive(Debug, Clone, Default)]
struct Proxy {
    /// Tells a new stream of a pod from its old one.
    stream: u64,
    revision: String,
    rejections: Vec<Rejection>,
    observations: BTreeMap<ServerId, Observation>,
}

/// All of them, by fleet and pod.
#[derive(Debug)]
pub(crate) struct Connected {
    proxies: Mutex<BTreeMap<(FleetId, String), Proxy>>,
    next: std::sync::atomic::AtomicU64,
    changed: watch::Sender<u64>,
    /// Counts comings and goings.
    members: watch::Sender<u64>,
}

impl Default for Connected {
    fn default() -> Self {
        Self {
            proxies: Mutex::default(),
            next: 1.into(),
            changed: watch::Sender::new(0),
            members: watch::Sender::new(0),
        }
    }
}

/// A proxy's place among the connected ones, which it leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    connected: Arc<Connected>,
    key: (FleetId, String),
    stream: u64,
}

impl Connected {
    /// A proxy has come; an older stream of the same pod gives way.
    pub(crate) fn enter(self: &Arc<Self>, fleet: FleetId, pod: String) -> Seat {
        let stream = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let key = (fleet, pod);
        self.proxies.lock().insert(key.clone(), Proxy { stream, ..Proxy::default() });
        self.members.send_modify(|count| *count += 1);
        self.told();
        Seat { connected: self.clone(), key, stream }
    }

    fn told(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Counts up with everything that a proxy says.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Counts up when one comes or goes.
    pub(crate) fn members(&self) -> watch::Receiver<u64> {
        self.members.subscribe()
    }

    /// What is known of each.
    pub(crate) fn reports(&self) -> Vec<ProxyReport> {
        let proxies = self.proxies.lock();
        let report = |((fleet, pod), proxy): (&(FleetId, String), &Proxy)| ProxyReport {
            fleet: fleet.to_string(),
            pod: pod.clone(),
            revision: proxy.revision.clone(),
            rejections: proxy.rejections.clone(),
            observations: proxy.observations.values().cloned().collect(),
        };
        proxies.iter().map(report).collect()
    }

    /// The pods of each fleet.
    pub(crate) fn pods(&self) -> BTreeMap<FleetId, Vec<String>> {
        let mut pods: BTreeMap<FleetId, Vec<String>> = BTreeMap::new();
        for (fleet, pod) in self.proxies.lock().keys() {
            pods.entry(fleet.clone()).or_default().push(pod.clone());
        }
        pods
    }
}

impl Seat {
    fn change(&self, change: impl FnOnce(&mut Proxy)) {
        let mut proxies = self.connected.proxies.lock();
        let Some(proxy) = proxies.get_mut(&self.key).filter(|proxy| proxy.stream == self.stream) else {
            return;
        };
        change(proxy);
        drop(proxies);
        self.connected.told();
    }

    /// What is in force there.
    pub(crate) fn acknowledged(&self, ack: Ack) {
        self.change(|proxy| (proxy.revision, proxy.rejections) = (ack.revision, ack.rejections));
    }

    /// What it saw of a server that it was told to observe.
    pub(crate) fn observed(&self, server: ServerId, mut observation: Observation) {
        // It is a part of what was read from the stream, and would keep all of that.
        observation.body = Bytes::copy_from_slice(&observation.body);
        self.change(|proxy| _ = proxy.observations.insert(server, observation));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut proxies = self.connected.proxies.lock();
        if proxies.get(&self.key).is_some_and(|proxy| proxy.stream == self.stream) {
            proxies.remove(&self.key);
        }
        drop(proxies);
        self.connected.members.send_modify(|count| *count += 1);
        self.connected.told();
    }
}

#[cfg(test)]
mod tests {
    use mcpmesh_ir::GatewayId;

    use super::*;

    #[test]
    fn a_pods_old_stream_does_not_take_its_new_one_away() {
        let connected = Arc::<Connected>::default();
        let fleet = FleetId::Gateway(GatewayId::new("a", "gw"));
        let old = connected.enter(fleet.clone(), "pod".to_owned());
        let new = connected.enter(fleet, "pod".to_owned());
        new.acknowledged(Ack { sequence: 1, revision: "r".to_owned(), rejections: Vec::new() });
        drop(old);
        assert_eq!(connected.reports()[0].revision, "r");
        drop(new);
        assert!(connected.reports().is_empty());
    }
}
