//! What children are called, and the labels that they carry.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use mcpmesh_ir::FleetId;
use sha2::{Digest, Sha256};

/// The longest name of a Service, and the longest value of a label.
const LONGEST: usize = 63;

/// Labels by which a fleet's pods are chosen.
const NAME: &str = "app.kubernetes.io/name";
const INSTANCE: &str = "app.kubernetes.io/instance";

/// On the pods of a gateway; the value is its name.
pub(crate) const GATEWAY_LABEL: &str = "mcpmesh.io/gateway";

/// On the pods of a server, injected ones too; the value is its name.
pub(crate) const SERVER_LABEL: &str = "mcpmesh.io/server";

/// What all children of a fleet are called: `NAME-mcpgateway` or `NAME-mcpserver`, at most 63 characters, a name that a
/// Service may have (RFC 1035 label). Another fleet of the namespace is called differently: a name that is cut or
/// changed ends in a hash, one that is not ends in its suffix, and no hash ends like a suffix.
#[must_use]
pub fn base_name(fleet: &FleetId) -> String {
    let suffix = match fleet {
        FleetId::Gateway(_) => "mcpgateway",
        FleetId::Server(_) => "mcpserver",
    };
    let name = fleet.name();
    let whole = format!("{name}-{suffix}");
    let is_label = whole.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && whole.starts_with(|first: char| first.is_ascii_lowercase());
    if is_label && whole.len() <= LONGEST {
        return whole;
    }
    let tail = format!("-{suffix}-{}", hash(name));
    let head: String = name.chars().map(|letter| if letter == '.' { '-' } else { letter }).collect();
    let head =
        if head.starts_with(|first: char| first.is_ascii_lowercase()) { head } else { format!("m{head}") };
    format!("{}{tail}", cut(&head, LONGEST - tail.len()))
}

/// The Secret with the keys of a fleet, made by the operator.
#[must_use]
pub fn keys_name(fleet: &FleetId) -> String {
    format!("{}-keys", base_name(fleet))
}

/// The Secret with the last good configuration of a fleet, written by the operator: optional to pods.
#[must_use]
pub fn last_good_name(fleet: &FleetId) -> String {
    format!("{}-last-good", base_name(fleet))
}

/// The labels of all children of a fleet.
#[must_use]
pub fn labels(fleet: &FleetId) -> BTreeMap<String, String> {
    let mut labels = chosen_by(fleet);
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "mcpmesh-operator".to_owned());
    let key = match fleet {
        FleetId::Gateway(_) => GATEWAY_LABEL,
        FleetId::Server(_) => SERVER_LABEL,
    };
    labels.insert(key.to_owned(), label_value(fleet.name()));
    labels
}

/// The selector of a fleet's pods. Never changes: a Deployment's is immutable.
pub(super) fn selector(fleet: &FleetId) -> LabelSelector {
    LabelSelector { match_labels: Some(chosen_by(fleet)), ..LabelSelector::default() }
}

pub(super) fn chosen_by(fleet: &FleetId) -> BTreeMap<String, String> {
    BTreeMap::from([(NAME.to_owned(), "mcpmesh-proxy".to_owned()), (INSTANCE.to_owned(), base_name(fleet))])
}

/// The metadata of a fleet's child. `more` are labels of the user's; the mesh's win.
pub(super) fn metadata(fleet: &FleetId, more: &BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(base_name(fleet)),
        namespace: Some(fleet.namespace().to_owned()),
        labels: Some(with_ours(more, labels(fleet))),
        ..ObjectMeta::default()
    }
}

/// Two maps as one, where ours win.
pub(super) fn with_ours(
    theirs: &BTreeMap<String, String>,
    ours: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    theirs.clone().into_iter().chain(ours).collect()
}

/// A name as a label's value: with an underscore, which no name has, where it had to be cut.
pub(super) fn label_value(name: &str) -> String {
    if name.len() <= LONGEST {
        return name.to_owned();
    }
    let tail = format!("_{}", hash(name));
    format!("{}{tail}", cut(name, LONGEST - tail.len()))
}

/// The beginning, without what cannot stand before a dash. Names are ASCII; any other letter ends it.
fn cut(text: &str, length: usize) -> String {
    let ascii: String = text.chars().take_while(char::is_ascii).take(length).collect();
    ascii.trim_end_matches(['-', '.']).to_owned()
}

/// 80 bits: nobody finds two names of one hash.
fn hash(name: &str) -> String {
    let mut hex = hex::encode(Sha256::digest(name.as_bytes()));
    hex.truncate(20);
    hex
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use mcpmesh_ir::{GatewayId, ServerId};

    use super::*;

    fn gateway(name: &str) -> String {
        base_name(&FleetId::Gateway(GatewayId::new("a", name)))
    }

    fn server(name: &str) -> String {
        base_name(&FleetId::Server(ServerId::new("a", name)))
    }

    #[test]
    fn a_short_name_gets_a_suffix() {
        assert_eq!(gateway("main"), "main-mcpgateway");
        assert_eq!(server("main"), "main-mcpserver");
    }

    #[test]
    fn any_name_of_an_object_becomes_that_of_a_service() {
        let long = "a".repeat(253);
        let dashes = format!("b{}c", "-".repeat(100));
        for name in ["x", "a.b", "1", "9.9", "a-mcpserver", &long, &dashes] {
            for base in [gateway(name), server(name)] {
                assert!(base.len() <= 63 && base.starts_with(|one: char| one.is_ascii_lowercase()), "{base}");
                assert!(base.ends_with(|one: char| one.is_ascii_alphanumeric()), "{base}");
                assert!(base.bytes().all(|one| one.is_ascii_alphanumeric() || one == b'-'), "{base}");
            }
            let value = label_value(name);
            assert!(value.len() <= 63 && value.ends_with(|one: char| one.is_ascii_alphanumeric()), "{value}");
        }
    }

    #[test]
    fn no_two_fleets_of_a_namespace_have_one_name() {
        let long = "a".repeat(80);
        let longer = "a".repeat(81);
        let mut names: BTreeSet<String> =
            ["a.b", "a-b", "ma-b", "1", "m1", &long, &longer].map(str::to_owned).into();
        // What a base name looks like, a cut one too, is a name of an object, too.
        let bases: Vec<String> = names.iter().flat_map(|name| [gateway(name), server(name)]).collect();
        names.extend(bases);
        let mut all: Vec<String> = names.iter().flat_map(|name| [gateway(name), server(name)]).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
