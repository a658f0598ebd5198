//! Where connections may lead: judged at connect, on the address that the name resolved to, so
//! that DNS cannot change its answer after the check (decisions.md 22).

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use ipnet::IpNet;
use tower_service::Service;

/// Which addresses an upstream may have. The default is global unicast only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EgressRule {
    /// Loopback, private, shared and unique-local addresses, too.
    pub allow_private: bool,
    /// Allowed whatever they are, except link-local, metadata and unspecified addresses.
    pub allow: Vec<IpNet>,
    /// Never allowed: the API server, for instance.
    pub deny: Vec<IpNet>,
}

impl EgressRule {
    /// Everything but what is never allowed: for workloads of ours and files of the user's own.
    #[must_use]
    pub fn private() -> Self {
        Self { allow_private: true, ..Self::default() }
    }

    /// May a connection lead here?
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        // An address that carries another (mapped, 6to4, NAT64) leads where both say.
        embedded(address).is_none_or(|inner| self.allows_plain(IpAddr::V4(inner)))
            && self.allows_plain(address)
    }

    fn allows_plain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if self.deny.iter().any(|net| net.contains(&address)) || is_forbidden(address) {
            return false;
        }
        if self.allow.iter().any(|net| net.contains(&address)) {
            return true;
        }
        if is_private(address) { self.allow_private } else { is_global(address) }
    }
}

/// The IPv4 address inside of an IPv6 one.
fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let [a, b, c, d, .., g, h] = v6.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match (a, b) {
        _ if v6.to_ipv4_mapped().is_some() => v6.to_ipv4_mapped(),
        (0x2002, _) => Some(join(b, c)),
        (0x0064, 0xff9b) => Some(join(g, h)),
        // Teredo: the client's address is stored inverted.
        (0x2001, 0) => Some(join(!g, !h)),
        // IPv4-compatible, long deprecated; `::1` and `::` are judged as what they are.
        (0, 0) if c == 0 && d == 0 && v6.segments().get(4..6) == Some(&[0, 0]) && (g != 0 || h > 1) => {
            Some(join(g, h))
        }
        _ => None,
    }
}

/// No rule opens these: link-local (cloud metadata), unspecified, multicast, broadcast.
fn is_forbidden(address: IpAddr) -> bool {
    const AWS_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    const ALIBABA_METADATA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
    match address {
        IpAddr::V4(v4) => {
            v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.octets().first() == Some(&0)
                || v4 == ALIBABA_METADATA
        }
        IpAddr::V6(v6) => {
            v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local() || v6 == AWS_METADATA
        }
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_loopback() || v4.is_private() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}

/// What is left once the registries' special ranges are taken out.
fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let protocol = a == 192 && b == 0 && c == 0;
            let relay = a == 192 && b == 88 && c == 99;
            let benchmark = a == 198 && (b == 18 || b == 19);
            !(v4.is_documentation() || protocol || relay || benchmark || a >= 240)
        }
        IpAddr::V6(v6) => {
            let [a, b, ..] = v6.segments();
            let nat64 = a == 0x0064 && b == 0xff9b;
            let documentation = (a == 0x2001 && b == 0x0db8) || a == 0x3fff;
            let unicast = (a & 0xe000) == 0x2000;
            (unicast && !documentation) || nat64
        }
    }
}

/// The address is outside of what the rule allows. The message names no address, so that an error
/// body tells nobody what a name resolves to inside.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the address is not allowed by the egress rule")]
pub(crate) struct Forbidden;

pub(super) fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, Forbidden)
}

/// Resolves names and keeps the addresses that the rule allows.
#[derive(Debug, Clone)]
pub(crate) struct Resolver(Arc<EgressRule>);

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let rule = Arc::clone(&self.0);
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> = found.into_iter().filter(|one| rule.allows(one.ip())).collect();
            if allowed.is_empty() { Err(refused()) } else { Ok(allowed.into_iter()) }
        })
    }
}

/// A TCP connector under the rule: the resolver sees names, this sees addresses in the URL itself.
#[derive(Debug, Clone)]
pub(crate) struct Guarded {
    tcp: HttpConnector<Resolver>,
    rule: Arc<EgressRule>,
}

impl Guarded {
    pub(crate) fn new(rule: EgressRule, connect: std::time::Duration) -> Self {
        let rule = Arc::new(rule);
        let mut tcp = HttpConnector::new_with_resolver(Resolver(Arc::clone(&rule)));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(connect));
        Self { tcp, rule }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Guarded {
    type Response = <HttpConnector<Resolver> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        if host.parse::<IpAddr>().is_ok_and(|address| !self.rule.allows(address)) {
            return Box::pin(std::future::ready(Err(refused().into())));
        }
        let connecting = self.tcp.call(uri);
        Box::pin(async move { connecting.await.map_err(Into::into) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(rule: &EgressRule, address: &str) -> bool {
        rule.allows(address.parse().unwrap())
    }

    #[test]
    fn by_default_only_global_unicast_is_allowed() {
        let rule = EgressRule::default();
        for good in ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808"] {
            assert!(allows(&rule, good), "{good}");
        }
        let bad = "127.0.0.1 10.0.0.1 172.16.5.4 192.168.1.1 100.64.0.1 169.254.169.254 0.0.0.0 0.1.2.3 \
                   255.255.255.255 224.0.0.1 240.0.0.1 192.0.0.8 192.0.2.1 198.18.0.1 ::1 :: fe80::1 fc00::1 \
                   fd00:ec2::254 ff02::1 2001:db8::1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::7f00:1 \
                   2002:7f00:1:: 2002:a9fe:a9fe::1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 2001:0:1:1:1:1:80ff:fffe";
        for bad in bad.split_whitespace() {
            assert!(!allows(&rule, bad), "{bad}");
        }
    }

    #[test]
    fn private_addresses_open_by_rule_but_metadata_never_does() {
        let rule = EgressRule { allow: vec!["169.254.0.0/16".parse().unwrap()], ..EgressRule::private() };
        for good in ["127.0.0.1", "::1", "10.1.2.3", "fd12::1", "::ffff:10.0.0.1"] {
            assert!(allows(&rule, good), "{good}");
        }
        for bad in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "100.100.100.200",
            "0.0.0.0",
            "fd00:ec2::254",
        ] {
            assert!(!allows(&rule, bad), "{bad}");
        }
    }

    #[test]
    fn a_denied_range_wins_over_an_allowed_one() {
        let rule = EgressRule {
            allow: vec!["10.0.0.0/8".parse().unwrap()],
            deny: vec!["10.96.0.1/32".parse().unwrap()],
            ..EgressRule::default()
        };
        assert!(allows(&rule, "10.1.1.1"));
        assert!(!allows(&rule, "192.168.0.1"));
        assert!(!allows(&rule, "10.96.0.1"));
        assert!(!allows(&rule, "::ffff:10.96.0.1"));
    }

    #[tokio::test]
    async fn the_check_is_on_the_resolved_address_and_on_literals() {
        let mut closed = Guarded::new(EgressRule::default(), std::time::Duration::from_secs(1));
        for url in [
            "http://localhost:9/",
            "http://127.0.0.1:9/",
            "http://[::1]:9/",
            "http://127.1:9/",
            "http://0x7f.1:9/",
        ] {
            let error = closed.call(url.parse().unwrap()).await.unwrap_err();
            let text = format!("{error:?}");
            assert!(text.contains("Forbidden") || text.contains("dns"), "{url}: {text}");
        }
    }
}
