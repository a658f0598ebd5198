//! What proxies say reaches the replica that leads: it alone writes status (decisions.md 11).

mod client;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcpmesh_ir::push::{ProxyReport, Report};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::connected::Connected;
pub(crate) use client::{Forwarder, forward};

/// A replica that has said nothing for so long is gone; it reports at least every ten seconds.
const HOLDS: Duration = Duration::from_secs(30);

/// The reports of other replicas.
#[derive(Debug)]
pub(crate) struct Reports {
    connected: Arc<Connected>,
    others: Mutex<BTreeMap<String, (Instant, Vec<ProxyReport>)>>,
    changed: watch::Sender<u64>,
}

impl Reports {
    /// Over the proxies of this replica.
    pub(crate) fn new(connected: Arc<Connected>) -> Self {
        Self { connected, others: Mutex::default(), changed: watch::Sender::new(0) }
    }

    /// Replaces what a replica said before.
    pub(crate) fn take(&self, report: Report) {
        self.others.lock().insert(report.replica, (Instant::now(), report.proxies));
        self.changed.send_modify(|count| *count += 1);
    }

    /// Counts up with every report.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Counts up with everything that a proxy of this replica says.
    pub(crate) fn own_changes(&self) -> watch::Receiver<u64> {
        self.connected.changes()
    }

    /// All proxies of all replicas. One that moved is with the replica that has it now: ours, else the latest report.
    pub(crate) fn all(&self) -> Vec<ProxyReport> {
        let mut all: BTreeMap<(String, String), ProxyReport> = BTreeMap::new();
        let mut others = self.others.lock();
        others.retain(|_, (at, _)| at.elapsed() < HOLDS);
        let mut reports: Vec<_> = others.values().cloned().collect();
        drop(others);
        reports.sort_by_key(|(at, _)| *at);
        let proxies = reports.into_iter().flat_map(|(_, proxies)| proxies).chain(self.connected.reports());
        for proxy in proxies {
            all.insert((proxy.fleet.clone(), proxy.pod.clone()), proxy);
        }
        all.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use mcpmesh_ir::{FleetId, GatewayId};

    use super::*;

    #[test]
    fn a_proxy_counts_once_and_a_report_replaces_the_one_before() {
        let connected = Arc::<Connected>::default();
        let fleet = FleetId::Gateway(GatewayId::new("a", "gw"));
        let _seat = connected.enter(fleet.clone(), "here".to_owned());
        let reports = Reports::new(connected);
        let proxy = |pod: &str| ProxyReport {
            fleet: fleet.to_string(),
            pod: pod.to_owned(),
            ..ProxyReport::default()
        };
        let from_other = |pods: &[&str]| Report {
            replica: "other".to_owned(),
            proxies: pods.iter().map(|pod| proxy(pod)).collect(),
        };
        reports.take(from_other(&["here", "there"]));
        assert_eq!(reports.all().len(), 2);
        reports.take(from_other(&[]));
        assert_eq!(reports.all().len(), 1);
    }
}
