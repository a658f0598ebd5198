//! `${env:NAME}` in a Secret's values (decisions.md 21): on one machine only, and nowhere else in an object.

use mcpmesh_compiler::manifest::{Located, Object};
use mcpmesh_compiler::{Diagnostic, Reason, Severity};

/// Puts the environment's values in. A value whose variable is not set is taken out and reported.
pub(super) fn resolve(
    objects: &mut [Located],
    diagnostics: &mut Vec<Diagnostic>,
    lookup: impl Fn(&str) -> Option<String>,
) {
    for located in objects {
        let Object::Secret(secret) = &mut located.object else { continue };
        let mut missing = Vec::new();
        secret.data.retain(|key, value| match substitute(value, &lookup) {
            Ok(None) => true,
            Ok(Some(resolved)) => {
                *value = resolved;
                true
            }
            Err(name) => {
                missing.push((key.clone(), name));
                false
            }
        });
        for (key, name) in missing {
            let path = format!("stringData.{key}");
            diagnostics.push(Diagnostic {
                object: Some(located.reference.clone()),
                severity: Severity::Error,
                reason: Reason::InvalidSecret,
                message: format!("the environment variable {name} is not set"),
                help: Some(format!("set it before `mcpmesh`: export {name}=...")),
                location: Some(located.location(&path)),
                path,
            });
        }
    }
}

/// The value with its references replaced; none without any; the name of the first that is not set as an error.
fn substitute(value: &[u8], lookup: impl Fn(&str) -> Option<String>) -> Result<Option<Vec<u8>>, String> {
    const START: &str = "${env:";
    let Ok(mut rest) = std::str::from_utf8(value) else { return Ok(None) };
    if !rest.contains(START) {
        return Ok(None);
    }
    let mut resolved = String::new();
    while let Some((before, after)) = rest.split_once(START) {
        let Some((name, after)) = after.split_once('}') else { break };
        resolved.push_str(before);
        resolved.push_str(&lookup(name).ok_or_else(|| name.to_owned())?);
        rest = after;
    }
    resolved.push_str(rest);
    Ok(Some(resolved.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str) -> Option<String> {
        (name == "TOKEN").then(|| "s3cret".to_owned())
    }

    #[test]
    fn references_are_replaced_and_nothing_else_is() {
        assert_eq!(substitute(b"plain ${TOKEN}", set), Ok(None));
        assert_eq!(substitute(b"${env:TOKEN}", set), Ok(Some(b"s3cret".to_vec())));
        assert_eq!(substitute(b"a:${env:TOKEN}@b", set), Ok(Some(b"a:s3cret@b".to_vec())));
        assert_eq!(substitute(b"${env:TOKEN", set), Ok(Some(b"${env:TOKEN".to_vec())));
        assert_eq!(substitute(&[0xff, 0xfe], set), Ok(None));
    }

    #[test]
    fn an_unset_variable_is_named() {
        assert_eq!(substitute(b"${env:OTHER}", set), Err("OTHER".to_owned()));
    }
}
