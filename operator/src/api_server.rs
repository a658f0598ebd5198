//! Where the API server is: no remote server leads there, whatever ranges the installation allows (decisions.md 22).
//!
//! Known by the address that our own client uses, by the one that Kubernetes gives every pod, and, where namespace
//! `default` is watched, by the endpoints of its Service.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use tokio::sync::watch;

use crate::watch::{Backoff, Bucket};
use crate::world::endpoints::Slice;

/// The namespace of its Service.
pub(crate) const NAMESPACE: &str = "default";

/// Its Service.
const SERVICE: &str = "kubernetes";

/// How often names are resolved again.
const REFRESH: Duration = Duration::from_secs(60);

/// Whether a slice holds the API server's own endpoints.
pub(crate) fn is_its(namespace: &str, slice: &Slice) -> bool {
    namespace == NAMESPACE && slice.service == SERVICE
}

/// The endpoints that slices of its namespace name.
pub(crate) fn endpoints(slices: &Bucket<Slice>) -> BTreeSet<SocketAddr> {
    let its = slices.values().filter(|slice| is_its(NAMESPACE, slice));
    its.flat_map(|slice| slice.addresses()).collect()
}

/// Hosts and ports at which the API server is known from outside of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hosts(BTreeSet<(String, u16)>);

impl Hosts {
    /// That of our client's URL, and that of the environment of every pod; `variable` reads the latter.
    pub(crate) fn new(url: &Uri, variable: impl Fn(&str) -> Option<String>) -> Self {
        let bare = |host: &str| host.trim_matches(['[', ']']).to_owned();
        let default = if url.scheme_str() == Some("http") { 80 } else { 443 };
        let used = url.host().map(|host| (bare(host), url.port_u16().unwrap_or(default)));
        let port = || variable("KUBERNETES_SERVICE_PORT").and_then(|port| port.parse().ok()).unwrap_or(443);
        let given = variable("KUBERNETES_SERVICE_HOST").map(|host| (bare(&host), port()));
        Self(used.into_iter().chain(given).collect())
    }

    fn are_addresses(&self) -> bool {
        self.0.iter().all(|(host, _)| host.parse::<IpAddr>().is_ok())
    }

    /// Their addresses.
    ///
    /// # Errors
    /// When a name does not resolve.
    async fn resolve(&self) -> std::io::Result<BTreeSet<SocketAddr>> {
        let mut found = BTreeSet::new();
        for (host, port) in &self.0 {
            found.extend(tokio::net::lookup_host((host.as_str(), *port)).await?);
        }
        Ok(found)
    }
}

/// Tells the addresses of hosts, and of their changes, for ever. None is told until the first attempt to resolve has ended;
/// what was known stays as long as a name does not resolve.
pub(crate) async fn follow(hosts: Hosts, found: Arc<watch::Sender<Option<BTreeSet<SocketAddr>>>>) {
    let mut backoff = Backoff::default();
    loop {
        let resolved = hosts.resolve().await;
        let pause = match &resolved {
            Ok(_) => {
                backoff.reset();
                REFRESH
            }
            Err(error) => {
                tracing::warn!(%error, ?hosts, "cannot resolve where the API server is");
                backoff.next()
            }
        };
        found.send_if_modified(|known| {
            let now = resolved.ok().or_else(|| known.clone()).unwrap_or_default();
            let changed = known.as_ref() != Some(&now);
            *known = Some(now);
            changed
        });
        if hosts.are_addresses() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn hosts(url: &str, service: Option<(&str, &str)>) -> Hosts {
        Hosts::new(&url.parse().unwrap(), |name| {
            let (host, port) = service?;
            Some(if name == "KUBERNETES_SERVICE_HOST" { host } else { port }.to_owned())
        })
    }

    #[tokio::test]
    async fn its_address_is_that_of_our_client_and_that_of_every_pods_environment() {
        let only = hosts("https://10.0.0.5:6443/", None);
        assert_eq!(only.resolve().await.unwrap(), BTreeSet::from([at("10.0.0.5:6443")]));
        let both = hosts("https://[fd00::5]/", Some(("10.96.0.1", "443")));
        assert_eq!(both.resolve().await.unwrap(), BTreeSet::from([at("10.96.0.1:443"), at("[fd00::5]:443")]));
        let same = hosts("https://10.96.0.1/", Some(("10.96.0.1", "443")));
        assert!(same.are_addresses() && same.0.len() == 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_stands_for_what_it_resolves_to_and_one_that_does_not_resolve_holds_nothing_up() {
        let (told, mut seen) = watch::channel(None);
        let following = tokio::spawn(follow(hosts("https://localhost:6443/", None), Arc::new(told)));
        let known = seen.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert!(known.contains(&at("127.0.0.1:6443")), "{known:?}");
        following.abort();
        let (told, mut seen) = watch::channel(None);
        let following = tokio::spawn(follow(hosts("https://nowhere.invalid:6443/", None), Arc::new(told)));
        assert_eq!(*seen.wait_for(Option::is_some).await.unwrap(), Some(BTreeSet::new()));
        following.abort();
    }

    #[test]
    fn its_endpoints_are_those_of_its_own_service() {
        let slice = |service: &str, ip: &str| Slice {
            service: service.to_owned(),
            ports: vec![("https".to_owned(), 6443)],
            ready: vec![(ip.parse().unwrap(), None)],
        };
        let slices =
            [("a", "kubernetes", "10.0.0.5"), ("b", "kubernetes", "10.0.0.6"), ("c", "web", "10.0.0.7")];
        let slices: Bucket<Slice> = slices
            .into_iter()
            .map(|(name, service, ip)| (name.to_owned(), Arc::new(slice(service, ip))))
            .collect();
        assert_eq!(endpoints(&slices), BTreeSet::from([at("10.0.0.5:6443"), at("10.0.0.6:6443")]));
        assert!(!is_its("team-a", &slice("kubernetes", "10.0.0.8")), "a tenant's Service of the same name");
    }
}
