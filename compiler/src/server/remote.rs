//! Where a remote server may be, and what it may be given (decisions.md 22).

use std::net::{IpAddr, SocketAddr};

use mcpmesh_crds::Remote;
use mcpmesh_ir::EgressRule;
use mcpmesh_ir::egress::Refusal;
use mcpmesh_ir::server::Endpoint;
use url::{Host, Url};

use super::service::transport_of;
use crate::diagnostic::{Findings, Reason};

const PATH: &str = "spec.remote.url";

pub(super) fn endpoint(remote: &Remote, egress: &EgressRule, findings: &mut Findings) -> Option<Endpoint> {
    let mut refuse = |message: String, help: &str| findings.error(PATH, Reason::InvalidUrl, message, help);
    let url = match Url::parse(&remote.url) {
        Ok(url) => url,
        Err(error) => {
            refuse(format!("not a URL: {error}"), "write it as https://host/path");
            return None;
        }
    };
    if !matches!(url.scheme(), "http" | "https") {
        refuse(
            format!("{} is not spoken", url.scheme()),
            "use https or http; a program of yours is a package or container",
        );
        return None;
    }
    if !url.username().is_empty() || url.password().is_some() {
        refuse(
            "a URL holds no user information".to_owned(),
            "put it into a Secret, and name that in spec.credentials",
        );
        return None;
    }
    if url.fragment().is_some() {
        refuse("a URL holds no fragment".to_owned(), "remove what follows the #");
        return None;
    }
    let port = url.port_or_known_default().unwrap_or_default();
    if let Some((message, help)) = url.host().and_then(|host| refused_host(&host, port, egress)) {
        refuse(message, help);
        return None;
    }
    let transport = transport_of(remote.transport);
    Some(Endpoint::Remote { url: url.to_string(), transport, egress: egress.clone() })
}

/// What can be told before resolving; the proxy judges the address again when it connects.
fn refused_host(host: &Host<&str>, port: u16, egress: &EgressRule) -> Option<(String, &'static str)> {
    let address: IpAddr = match host {
        Host::Ipv4(address) => (*address).into(),
        Host::Ipv6(address) => address.to_canonical(),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.');
            let service =
                name.ends_with(".svc") || name.contains(".svc.") || name.ends_with(".cluster.local");
            let help = "use an McpServer of that Service's namespace, exported to this one";
            return service.then(|| (format!("{name} is a Service of the cluster"), help));
        }
    };
    let refusal = egress.judge(SocketAddr::new(address, port)).err()?;
    Some(match refusal {
        Refusal::Never if is_link_local(address) => {
            (format!("{address} is a link-local address"), "metadata services are never reached")
        }
        Refusal::Never => (
            format!("{address} is never reached"),
            "metadata, multicast and unspecified addresses stay closed, whatever ranges are allowed",
        ),
        Refusal::Excluded => (
            format!("{address}:{port} is the cluster's API server"),
            "it is never reached, whatever ranges are allowed",
        ),
        Refusal::Closed => (
            format!("{address} is not a public address"),
            "the installation decides which ranges are allowed: remotes.allowedRanges of the chart, --remote-ranges of the operator",
        ),
    })
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Credentials over plain HTTP can be read on the way, unless there is no way.
pub(super) fn warn_of_cleartext(remote: &Remote, findings: &mut Findings) {
    let Ok(url) = Url::parse(&remote.url) else { return };
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if url.scheme() == "http" && !loopback {
        findings.warning(PATH, Reason::Cleartext, "credentials travel unencrypted", "use https");
    }
}

/// Headers that the protocol, the connection or the proxy itself sets.
const OWN: [&str; 14] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "last-event-id",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// `name` is in lower case.
pub(super) fn check_header_name(name: &str, path: &str, findings: &mut Findings) {
    let path = format!("{path}.name");
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        let message = format!("{name:?} is not a header name");
        findings.error(&path, Reason::InvalidValue, message, "such as Authorization or X-Api-Key");
    } else if OWN.contains(&name) || name.starts_with("mcp-") {
        let message = format!("the header {name} is the proxy's own");
        findings.error(&path, Reason::InvalidValue, message, "use another header");
    }
}

/// Never shows the value.
pub(super) fn check_header_value(prefix: &str, value: &str, path: &str, findings: &mut Findings) {
    let printable = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if !printable(prefix) {
        let path = format!("{path}.prefix");
        findings.error(
            &path,
            Reason::InvalidValue,
            "a header holds only printable ASCII",
            "such as \"Bearer \"",
        );
    }
    if value.is_empty() || !printable(value) || value.trim() != value {
        let path = format!("{path}.secretKeyRef.key");
        let message = "the Secret's value is empty, or holds line breaks, outer spaces or other bytes that a header cannot";
        findings.error(&path, Reason::InvalidSecret, message, "was it encoded with a line break at its end?");
    }
}
