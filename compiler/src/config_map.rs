//! References to ConfigMaps: found or not. What they hold is no secret, and is written where it is used.

use crate::diagnostic::{Findings, Reason};
use crate::inputs::{ConfigMap, Inputs};

/// Namespace and name of a ConfigMap.
pub(crate) type Place<'p> = (&'p str, &'p str);

/// Finds a ConfigMap of the referring object's namespace; `path` is that of its name.
pub(crate) fn find<'i>(
    inputs: &'i Inputs,
    place: Place<'_>,
    path: &str,
    findings: &mut Findings,
) -> Option<&'i ConfigMap> {
    let found = inputs.config_map(place);
    if found.is_none() {
        let message = format!("no ConfigMap {}/{}", place.0, place.1);
        findings.error(path, Reason::ConfigMapNotFound, message, "create it, or correct the name");
    }
    found
}

/// A key's value. `path` is that of the reference.
pub(crate) fn value<'i>(
    inputs: &'i Inputs,
    (place, key): (Place<'_>, &str),
    path: &str,
    findings: &mut Findings,
) -> Option<&'i str> {
    let map = find(inputs, place, &format!("{path}.name"), findings)?;
    if let Some(text) = map.data.get(key) {
        return Some(text);
    }
    let (path, of) = (format!("{path}.key"), format!("ConfigMap {}/{}", place.0, place.1));
    if map.binary.contains(key) {
        let message = format!("key {key:?} of {of} is binaryData, which no variable takes");
        findings.error(&path, Reason::InvalidConfigMap, message, "put the text under data");
    } else {
        let keys: Vec<_> = map.data.keys().map(String::as_str).collect();
        let help = format!("it has {}", if keys.is_empty() { "no keys".to_owned() } else { keys.join(", ") });
        let message = format!("{of} has no key {key:?}");
        findings.error(&path, Reason::ConfigMapNotFound, message, &help);
    }
    None
}

/// Whether a value can be an environment variable's. `path` is that of the reference.
pub(crate) fn is_variable(
    (place, key): (Place<'_>, &str),
    value: &str,
    path: &str,
    findings: &mut Findings,
) -> bool {
    let good = !value.contains('\0');
    if !good {
        let message = format!("key {key:?} of ConfigMap {}/{} holds a NUL byte", place.0, place.1);
        findings.error(path, Reason::InvalidConfigMap, message, "an environment variable cannot");
    }
    good
}
