//! Where connections to remote servers may lead: judged on a literal address when it is compiled, and on the resolved
//! one when the proxy connects, so that DNS cannot change its answer after the check.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// Opened by no rule: unspecified, link-local (where clouds keep credentials), multicast and broadcast addresses, and the
/// clouds' metadata services at others.
pub const NEVER: [IpNet; 9] = [
    v4([0, 0, 0, 0], 8),
    v4([100, 100, 100, 200], 32),
    v4([169, 254, 0, 0], 16),
    v4([224, 0, 0, 0], 4),
    v4([255, 255, 255, 255], 32),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
];

/// Private, shared, unique-local and loopback addresses.
const PRIVATE: [IpNet; 7] = [
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([172, 16, 0, 0], 12),
    v4([192, 168, 0, 0], 16),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
];

/// What of IPv4 is not global unicast (IANA special-purpose registry).
pub const NOT_GLOBAL_V4: [IpNet; 15] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
];

/// Where a translator reads the IPv4 address in the last 32 bits (RFC 6052). In the prefix for local use beside it
/// (64:ff9b:1::/48, RFC 8215), which is not global, each network puts it elsewhere.
const NAT64: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Which addresses a remote server may have. The default is global unicast only.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressRule {
    /// Loopback, private, shared and unique-local addresses, too (`mcpmesh up`).
    #[serde(default)]
    pub allow_private: bool,
    /// Allowed besides, but for [`NEVER`] and what is excluded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<IpNet>,
    /// Never allowed: where the cluster's API server is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<SocketAddr>,
}

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is in [`NEVER`].
    Never,
    /// It is excluded, as the API server is.
    Excluded,
    /// It is not global unicast, and in no range that is allowed.
    Closed,
}

impl EgressRule {
    /// Everything but [`NEVER`]: for workloads of ours and files of the user's own.
    #[must_use]
    pub fn private() -> Self {
        Self { allow_private: true, ..Self::default() }
    }

    /// Global unicast and these ranges, but for `excluded`. Of this only what would be allowed otherwise is kept: a rule
    /// does not change with what it closes anyway.
    #[must_use]
    pub fn new(ranges: &[IpNet], excluded: impl IntoIterator<Item = SocketAddr>) -> Self {
        let mut rule = Self { ranges: ranges.to_vec(), ..Self::default() };
        rule.ranges.sort();
        rule.ranges.dedup();
        let canonical = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
        let mut excluded: Vec<_> =
            excluded.into_iter().map(canonical).filter(|&at| rule.allows(at)).collect();
        excluded.sort_unstable();
        excluded.dedup();
        Self { excluded, ..rule }
    }

    /// May a connection lead here?
    #[must_use]
    pub fn allows(&self, at: SocketAddr) -> bool {
        self.judge(at).is_ok()
    }

    /// Whether a connection may lead here.
    ///
    /// # Errors
    /// Why it may not.
    pub fn judge(&self, at: SocketAddr) -> Result<(), Refusal> {
        // An address that carries another (mapped, 6to4, NAT64) leads where both say.
        if let Some(inner) = embedded(at.ip()) {
            self.judge_plain(inner.into(), at.port())?;
        }
        self.judge_plain(at.ip().to_canonical(), at.port())
    }

    fn judge_plain(&self, ip: IpAddr, port: u16) -> Result<(), Refusal> {
        let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&ip));
        if within(&NEVER) {
            return Err(Refusal::Never);
        }
        if self.excluded.contains(&SocketAddr::new(ip, port)) {
            return Err(Refusal::Excluded);
        }
        let allowed =
            within(&self.ranges) || if within(&PRIVATE) { self.allow_private } else { is_global(ip) };
        if allowed { Ok(()) } else { Err(Refusal::Closed) }
    }
}

/// A text is no range that could be allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Not an address with the length of a prefix.
    #[error("{0} is not a range of addresses; write it as 10.20.0.0/16")]
    Syntax(String),
    /// Addresses never are in this form when they are judged.
    #[error("{0} is IPv4 in IPv6 form; write it as 10.20.0.0/16")]
    Mapped(IpNet),
    /// All of it is closed.
    #[error("{0} is never allowed: link-local, metadata, multicast and unspecified addresses stay closed")]
    Never(IpNet),
}

/// Reads a range of [`EgressRule::ranges`], such as `10.20.0.0/16`. Bits behind the prefix are dropped.
///
/// # Errors
/// When it is none, or one in which no address could be allowed.
pub fn range(text: &str) -> Result<IpNet, RangeError> {
    let net = text.trim().parse::<IpNet>().map_err(|_| RangeError::Syntax(text.to_owned()))?.trunc();
    if matches!(net, IpNet::V6(v6) if v6.prefix_len() >= 96 && v6.addr().to_ipv4_mapped().is_some()) {
        return Err(RangeError::Mapped(net));
    }
    if NEVER.iter().any(|never| never.contains(&net)) {
        return Err(RangeError::Never(net));
    }
    Ok(net)
}

const fn v4([a, b, c, d]: [u8; 4], length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length))
}

/// The IPv4 address inside of an IPv6 one.
fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let [a, b, c, d, .., g, h] = v6.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match (a, b) {
        _ if v6.to_ipv4_mapped().is_some() => v6.to_ipv4_mapped(),
        (0x2002, _) => Some(join(b, c)),
        _ if NAT64.contains(&v6) => Some(join(g, h)),
        // Teredo: the client's address is stored inverted.
        (0x2001, 0) => Some(join(!g, !h)),
        // IPv4-compatible, long deprecated; `::1` and `::` are judged as what they are.
        (0, 0) if c == 0 && d == 0 && v6.segments().get(4..6) == Some(&[0, 0]) && (g != 0 || h > 1) => {
            Some(join(g, h))
        }
        _ => None,
    }
}

/// What is left once the registries' special ranges are taken out.
fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => !NOT_GLOBAL_V4.iter().any(|net| net.contains(&address)),
        IpAddr::V6(v6) => {
            let [a, b, ..] = v6.segments();
            let documentation = (a == 0x2001 && b == 0x0db8) || a == 0x3fff;
            let unicast = (a & 0xe000) == 0x2000;
            (unicast && !documentation) || NAT64.contains(&v6)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(rule: &EgressRule, address: &str) -> Result<(), Refusal> {
        rule.judge(SocketAddr::new(address.parse().unwrap(), 443))
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| range(text).unwrap()).collect()
    }

    #[test]
    fn by_default_only_global_unicast_is_allowed() {
        let rule = EgressRule::default();
        for good in ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808"] {
            assert_eq!(judge(&rule, good), Ok(()), "{good}");
        }
        let bad = "127.0.0.1 10.0.0.1 172.16.5.4 192.168.1.1 100.64.0.1 169.254.169.254 0.0.0.0 0.1.2.3 \
                   255.255.255.255 224.0.0.1 240.0.0.1 192.0.0.8 192.0.2.1 192.88.99.1 198.18.0.1 198.51.100.1 \
                   203.0.113.1 ::1 :: fe80::1 fc00::1 fd00:ec2::254 ff02::1 2001:db8::1 ::ffff:127.0.0.1 \
                   ::ffff:169.254.169.254 ::7f00:1 2002:7f00:1:: 2002:a9fe:a9fe::1 64:ff9b::7f00:1 \
                   64:ff9b::a9fe:a9fe 64:ff9b:1:a9fe:a9:fe00:808:808 2001:0:1:1:1:1:80ff:fffe";
        for bad in bad.split_whitespace() {
            assert!(judge(&rule, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn private_addresses_open_by_rule_but_metadata_never_does() {
        let rule = EgressRule { ranges: vec!["169.254.0.0/16".parse().unwrap()], ..EgressRule::private() };
        for good in ["127.0.0.1", "::1", "10.1.2.3", "fd12::1", "::ffff:10.0.0.1"] {
            assert_eq!(judge(&rule, good), Ok(()), "{good}");
        }
        let bad = "169.254.169.254 ::ffff:169.254.169.254 fe80::1 100.100.100.200 0.0.0.0 fd00:ec2::254";
        for bad in bad.split_whitespace() {
            assert_eq!(judge(&rule, bad), Err(Refusal::Never), "{bad}");
        }
    }

    #[test]
    fn a_range_opens_itself_and_nothing_else_that_is_private() {
        let rule = EgressRule::new(&nets(&["10.20.3.4/16", "fd12::/16", "0.0.0.0/0"]), []);
        assert_eq!(rule.ranges, nets(&["0.0.0.0/0", "10.20.0.0/16", "fd12::/16"]));
        let rule = EgressRule::new(&nets(&["10.20.0.0/16", "fd12::/16"]), []);
        for good in ["10.20.0.1", "::ffff:10.20.0.1", "64:ff9b::a14:1", "fd12::1", "1.1.1.1"] {
            assert_eq!(judge(&rule, good), Ok(()), "{good}");
        }
        for bad in ["10.21.0.1", "127.0.0.1", "fd13::1", "::ffff:10.21.0.1", "64:ff9b::a15:1"] {
            assert_eq!(judge(&rule, bad), Err(Refusal::Closed), "{bad}");
        }
        let everything = EgressRule::new(&nets(&["0.0.0.0/0", "::/0"]), []);
        for bad in ["169.254.169.254", "100.100.100.200", "fd00:ec2::254", "fe80::1", "0.0.0.0"] {
            assert_eq!(judge(&everything, bad), Err(Refusal::Never), "{bad}");
        }
    }

    #[test]
    fn an_excluded_address_stays_closed_in_every_spelling_but_its_other_ports_do_not() {
        let api = SocketAddr::from(([10, 96, 0, 1], 443));
        let rule = EgressRule::new(&nets(&["10.0.0.0/8"]), [api]);
        for spelled in ["10.96.0.1", "::ffff:10.96.0.1", "64:ff9b::a60:1", "2002:a60:1::1"] {
            assert_eq!(judge(&rule, spelled), Err(Refusal::Excluded), "{spelled}");
        }
        assert!(rule.allows(SocketAddr::new(api.ip(), 8443)));
        assert!(rule.allows(SocketAddr::from(([10, 96, 0, 2], 443))));
    }

    #[test]
    fn a_rule_keeps_no_exclusion_of_what_it_closes_anyway() {
        let api = ["10.96.0.1:443", "[::ffff:10.96.0.1]:443", "34.1.2.3:443"].map(|at| at.parse().unwrap());
        let [mapped, public] = ["10.96.0.1:443", "34.1.2.3:443"].map(|at| at.parse().unwrap());
        assert_eq!(EgressRule::new(&[], api).excluded, [public]);
        assert_eq!(EgressRule::new(&nets(&["10.0.0.0/8"]), api).excluded, [mapped, public]);
    }

    #[test]
    fn a_range_is_an_address_with_a_prefix_in_which_something_may_be_allowed() {
        assert!(matches!(range("10.20.0.0"), Err(RangeError::Syntax(_))));
        assert!(matches!(range("10.20.0.0/33"), Err(RangeError::Syntax(_))));
        assert!(matches!(range("::ffff:10.0.0.0/104"), Err(RangeError::Mapped(_))));
        for closed in
            ["169.254.0.0/16", "169.254.169.254/32", "fe80::/64", "224.0.0.0/8", "fd00:ec2::254/128"]
        {
            assert!(matches!(range(closed), Err(RangeError::Never(_))), "{closed}");
        }
        assert_eq!(range(" 10.20.3.4/16").unwrap().to_string(), "10.20.0.0/16");
    }

    #[test]
    fn a_rule_without_ranges_is_written_as_it_was_before_there_were_any() {
        let text = |rule: &EgressRule| serde_json::to_string(rule).unwrap();
        assert_eq!(text(&EgressRule::private()), r#"{"allowPrivate":true}"#);
        let rule = EgressRule::new(&nets(&["10.0.0.0/8"]), [SocketAddr::from(([10, 96, 0, 1], 443))]);
        let written = r#"{"allowPrivate":false,"ranges":["10.0.0.0/8"],"excluded":["10.96.0.1:443"]}"#;
        assert_eq!(text(&rule), written);
        assert_eq!(serde_json::from_str::<EgressRule>(written).unwrap(), rule);
    }
}
