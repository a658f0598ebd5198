//! A gateway's listeners.

use std::collections::BTreeSet;

use mcpmesh_crds::McpGateway;
use mcpmesh_ir::gateway::Listener;
use url::{Host, Url};

use crate::diagnostic::{Findings, Reason};

/// The listeners that can be used; the default one where none is given.
pub(super) fn listeners(object: Option<&McpGateway>, findings: &mut Findings) -> Vec<Listener> {
    let given = object.map(|object| object.spec.listeners.as_slice()).unwrap_or_default();
    if given.is_empty() {
        return vec![listener(&default())];
    }
    let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
    let mut listeners = Vec::new();
    for (index, given) in given.iter().enumerate() {
        let path = format!("spec.listeners[{index}]");
        let listener = listener(given);
        let mut good = is_good(&listener, &path, findings);
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
    }
}

fn listener(given: &mcpmesh_crds::Listener) -> Listener {
    let mcpmesh_crds::Listener { name, port, hostname, path, allowed_origins } = given;
    Listener {
        name: name.clone(),
        port: port.unwrap_or(8080),
        hostname: hostname.as_ref().map(|hostname| hostname.to_ascii_lowercase()),
        path: path.clone().unwrap_or_else(|| "/mcp".to_owned()),
        allowed_origins: allowed_origins.clone(),
        tls: None,
    }
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
