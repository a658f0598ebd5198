//! A gateway's listeners, and the certificates that they show.

use std::collections::BTreeSet;

use mcpmesh_ir::SecretId;
use mcpmesh_ir::gateway::{Listener, ListenerTls};
use url::{Host, Url};

use super::Front;
use crate::diagnostic::{Findings, Reason};
use crate::inputs::Inputs;
use crate::secret::{self, KeyRef};

/// Ports of a gateway's pod that its proxy needs itself: admin and metrics.
const RESERVED_PORTS: [u16; 2] = [17000, 17020];

/// The listeners that can be used; the default one where none is given.
pub(super) fn listeners(front: &Front<'_>, inputs: &Inputs, findings: &mut Findings) -> Vec<Listener> {
    let given = front.object.map(|object| object.spec.listeners.as_slice()).unwrap_or_default();
    if given.is_empty() {
        return vec![listener(&default(), &front.id.namespace)];
    }
    let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
    let mut listeners = Vec::new();
    for (index, given) in given.iter().enumerate() {
        let path = format!("spec.listeners[{index}]");
        let listener = listener(given, &front.id.namespace);
        let mut good = is_good(&listener, &path, findings) & can_show(&listener, &path, inputs, findings);
        if inputs.install.cluster.is_some() && RESERVED_PORTS.contains(&listener.port) {
            let message = format!("port {} is the proxy's own", listener.port);
            findings.error(&format!("{path}.port"), Reason::ReservedPort, message, "choose another");
            good = false;
        }
        if !names.insert(listener.name.clone()) {
            let message = format!("the name {:?} is there twice", listener.name);
            findings.error(&format!("{path}.name"), Reason::DuplicateName, message, "choose another");
            good = false;
        }
        if !places.insert((listener.port, listener.hostname.clone(), listener.path.clone())) {
            let message = "another listener has the same port, hostname and path";
            findings.error(&path, Reason::DuplicateName, message, "remove one");
            good = false;
        }
        if good {
            listeners.push(listener);
        }
    }
    listeners
}

fn default() -> mcpmesh_crds::Listener {
    mcpmesh_crds::Listener {
        name: "mcp".to_owned(),
        port: None,
        hostname: None,
        path: None,
        allowed_origins: Vec::new(),
        tls: None,
    }
}

fn listener(given: &mcpmesh_crds::Listener, namespace: &str) -> Listener {
    let mcpmesh_crds::Listener { name, port, hostname, path, allowed_origins, tls } = given;
    let secret = tls.as_ref().map(|tls| SecretId::new(namespace, &tls.secret_ref.name));
    Listener {
        name: name.clone(),
        port: port.unwrap_or(8080),
        hostname: hostname.as_ref().map(|hostname| hostname.to_ascii_lowercase()),
        path: path.clone().unwrap_or_else(|| "/mcp".to_owned()),
        allowed_origins: allowed_origins.clone(),
        tls: secret.map(ListenerTls::Secret),
    }
}

/// The keys of Secrets that listeners need.
pub(super) fn keys(listeners: &[Listener]) -> impl Iterator<Item = KeyRef> {
    let secrets = listeners.iter().filter_map(|listener| match &listener.tls {
        Some(ListenerTls::Secret(id)) => Some(id.clone()),
        Some(ListenerTls::Mesh {}) | None => None,
    });
    secrets.flat_map(|id| PEM.map(|(key, _)| (id.clone(), key.to_owned())))
}

/// The keys of a Secret of type kubernetes.io/tls, and what their PEM texts hold.
const PEM: [(&str, &str); 2] = [("tls.crt", "CERTIFICATE"), ("tls.key", "PRIVATE KEY")];

/// Whether there is a certificate to show: without one, a listener stays closed instead of plain.
fn can_show(listener: &Listener, path: &str, inputs: &Inputs, findings: &mut Findings) -> bool {
    let Some(ListenerTls::Secret(id)) = &listener.tls else { return true };
    let path = format!("{path}.tls.secretRef");
    let mut good = true;
    for (key, holds) in PEM {
        let value = secret::value(inputs, (id, key), &path, findings);
        let is_pem = |text: &str| text.contains("-----BEGIN ") && text.contains(&format!("{holds}-----"));
        if value.is_some_and(|text| !is_pem(text)) {
            let message = format!("{key} of Secret {id} holds no {}", holds.to_lowercase());
            findings.error(&path, Reason::InvalidSecret, message, "store PEM text there");
        }
        good &= value.is_some_and(is_pem);
        if value.is_none() && inputs.secret(id).is_none() {
            break;
        }
    }
    good
}

fn is_good(listener: &Listener, path: &str, findings: &mut Findings) -> bool {
    let mut good = true;
    let mut check = |holds: bool, field: &str, message: String, help: &str| {
        if !holds {
            good = false;
            findings.error(&format!("{path}.{field}"), Reason::InvalidValue, message, help);
        }
    };
    let name = &listener.name;
    check(
        !name.is_empty() && name.len() <= 63,
        "name",
        format!("{name:?} is not a name"),
        "use 1 to 63 characters",
    );
    check(listener.port != 0, "port", "0 is not a port".to_owned(), "give 1 to 65535");
    let exact = is_path(&listener.path);
    check(
        exact,
        "path",
        format!("{:?} is not an exact path", listener.path),
        "such as /mcp, without a slash at its end",
    );
    if let Some(hostname) = &listener.hostname {
        let known = Host::parse(hostname).is_ok_and(|host| host.to_string() == *hostname);
        check(
            known,
            "hostname",
            format!("{hostname:?} is not a host"),
            "such as mcp.example.com, without a port",
        );
    }
    for (index, origin) in listener.allowed_origins.iter().enumerate() {
        let known = Url::parse(origin).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == *origin
        });
        let message = format!("{origin:?} is not an origin");
        check(known, &format!("allowedOrigins[{index}]"), message, "such as https://app.example.com");
    }
    good
}

/// Only paths that nobody writes in two ways: no escapes, no empty or dot segments.
fn is_path(path: &str) -> bool {
    let segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    path == "/" || path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment))
}
