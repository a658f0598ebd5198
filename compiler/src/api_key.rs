//! API keys: labelled Secrets of a gateway's namespace (decisions.md 21).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use mcpmesh_crds::{API_KEY_LABEL, LabelSelector};
use mcpmesh_ir::{ApiKey, SecretId};
use sha2::{Digest, Sha256};

use crate::diagnostic::{Diagnostic, Findings, ObjectKind, ObjectRef, Reason, Severity};
use crate::inputs::{Inputs, Secret};
use crate::likeness::likeliest;

const OWNER: &str = "mcpmesh.io/owner";
const GROUPS: &str = "mcpmesh.io/groups";
const EXPIRES: &str = "mcpmesh.io/expires";

/// What begins the names of our annotations.
const OURS: &str = "mcpmesh.io/";

/// What to do where keys are taken and there is none.
pub(crate) const NONE: &str =
    "no Secret here is a usable API key that it takes: make one with `mcpmesh key create`";

/// Shorter keys can be guessed.
const MIN_LENGTH: usize = 16;

/// The usable keys of a namespace among those that `selector` chooses, in order of their Secrets' names.
pub(crate) fn of_namespace(
    namespace: &str,
    selector: Option<&LabelSelector>,
    inputs: &Inputs,
) -> (Vec<ApiKey>, Vec<Diagnostic>) {
    let (mut keys, mut diagnostics) = (Vec::new(), Vec::new());
    let mut hashes: BTreeMap<String, SecretId> = BTreeMap::new();
    let labelled = inputs.of(namespace).secrets.iter().filter(|(_, secret)| {
        is_labelled(secret) && selector.is_none_or(|selector| selector.matches(&secret.labels))
    });
    for (id, secret) in labelled {
        let mut findings = Findings::new(ObjectRef::new(ObjectKind::Secret, &id.namespace, &id.name));
        warn_of_unknown_annotations(secret, &mut findings);
        if let Some(key) = api_key(id, secret, &mut findings) {
            match hashes.get(&key.sha256) {
                None => {
                    hashes.insert(key.sha256.clone(), id.clone());
                    keys.push(key);
                }
                Some(first) => {
                    let message = format!("Secret {first} holds the same key");
                    findings.error(
                        "",
                        Reason::InvalidApiKey,
                        message,
                        "make a new one with `mcpmesh key create`",
                    );
                }
            }
        }
        diagnostics.extend(findings.into_list());
    }
    (keys, diagnostics)
}

fn is_labelled(secret: &Secret) -> bool {
    secret.labels.get(API_KEY_LABEL).is_some_and(|value| value == "true")
}

/// Whether somebody meant this Secret to be a key, whatever is wrong with it. Only `false` says that it is none.
fn is_meant(secret: &Secret) -> bool {
    match secret.labels.get(API_KEY_LABEL) {
        Some(value) => value != "false",
        None => secret.annotations.contains_key(OWNER),
    }
}

/// Whether any Secret, of any namespace, is meant to be a key.
pub(crate) fn any_is_meant(inputs: &Inputs) -> bool {
    inputs.namespaces.values().flat_map(|objects| objects.secrets.values()).any(|secret| is_meant(secret))
}

/// Secrets that are meant to be keys and that the implied gateway, of this namespace, does not look at.
pub(crate) fn overlooked(namespace: &str, inputs: &Inputs) -> Vec<Diagnostic> {
    let secrets = inputs.namespaces.values().flat_map(|objects| &objects.secrets);
    let mut diagnostics = Vec::new();
    for (id, secret) in secrets.filter(|(_, secret)| is_meant(secret)) {
        let mut findings = Findings::new(ObjectRef::new(ObjectKind::Secret, &id.namespace, &id.name));
        if !is_labelled(secret) {
            warn_of_no_label(&mut findings);
        } else if id.namespace != namespace {
            let help = format!("move it to namespace {namespace}, or add an McpGateway to {}", id.namespace);
            let message = format!("without an McpGateway only API keys of namespace {namespace} are taken");
            findings.warning("metadata.namespace", Reason::InvalidApiKey, message, &help);
        }
        diagnostics.extend(findings.into_list());
    }
    diagnostics
}

/// Secrets of a namespace that are meant to be keys, and that no gateway takes for want of the label.
pub(crate) fn unlabelled(namespace: &str, inputs: &Inputs) -> Vec<Diagnostic> {
    let secrets = inputs.of(namespace).secrets.iter();
    let unlabelled = secrets.filter(|(_, secret)| is_meant(secret) && !is_labelled(secret));
    let said = unlabelled.flat_map(|(id, _)| {
        let mut findings = Findings::new(ObjectRef::new(ObjectKind::Secret, &id.namespace, &id.name));
        warn_of_no_label(&mut findings);
        findings.into_list()
    });
    said.collect()
}

fn warn_of_no_label(findings: &mut Findings) {
    let help = format!("give it the label {API_KEY_LABEL}: \"true\"");
    let message = "it is meant to be an API key and is not labelled as one: no caller is let in with it";
    findings.warning("metadata.labels", Reason::InvalidApiKey, message, &help);
}

/// A `mcpmesh.io/group` makes nobody a member of anything.
fn warn_of_unknown_annotations(secret: &Secret, findings: &mut Findings) {
    const KNOWN: [&str; 3] = [OWNER, GROUPS, EXPIRES];
    let given = secret.annotations.keys().filter(|name| !KNOWN.contains(&name.as_str()));
    for (unknown, word) in given.filter_map(|name| Some((name, name.strip_prefix(OURS)?))) {
        let words = KNOWN.iter().filter_map(|known| known.strip_prefix(OURS));
        let help = likeliest(word, words).map_or_else(
            || format!("there are {}", KNOWN.join(", ")),
            |meant| format!("did you mean `{OURS}{meant}`?"),
        );
        let path = format!("metadata.annotations.{unknown}");
        findings.warning(&path, Reason::InvalidApiKey, "an API key has no such annotation", &help);
    }
}

/// Where an object says that it takes keys.
const PATH: &str = "spec.authentication.apiKeys";

/// Says of the object that takes the keys which of them are not usable: a Secret has no status.
pub(crate) fn tell(refused: &[Diagnostic], findings: &mut Findings) {
    for finding in refused.iter().filter(|finding| finding.severity == Severity::Error) {
        let Some(secret) = &finding.object else { continue };
        let message = format!("Secret {} is no API key: {}", secret.name, finding.message);
        let help = finding.help.as_deref().unwrap_or_default();
        findings.warning(PATH, Reason::InvalidApiKey, message, help);
    }
}

fn api_key(id: &SecretId, secret: &Secret, findings: &mut Findings) -> Option<ApiKey> {
    let annotation = |name: &str| secret.annotations.get(name).map(|value| value.trim());
    let sha256 = hash(secret, findings);
    let owner = annotation(OWNER).filter(|owner| is_user(owner)).map(str::to_owned);
    if owner.is_none() {
        let help = "add the annotation, such as `mcpmesh.io/owner: alice`";
        findings.error(
            "metadata.annotations",
            Reason::InvalidApiKey,
            format!("{OWNER} does not name a user"),
            help,
        );
    }
    let groups: BTreeSet<&str> = annotation(GROUPS)
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    if !groups.iter().all(|group| is_user(group)) {
        let path = format!("metadata.annotations.{GROUPS}");
        findings.error(
            &path,
            Reason::InvalidApiKey,
            "a group's name is not usable",
            "at most 256 printable characters",
        );
        return None;
    }
    let expires = expiry(annotation(EXPIRES), findings)?;
    let groups = groups.into_iter().map(str::to_owned).collect();
    Some(ApiKey { secret: id.clone(), sha256: sha256?, owner: owner?, groups, expires })
}

/// Whether this can be the name of a user or group: 1 to 256 bytes, printable, no blanks around it.
#[must_use]
pub fn is_user(name: &str) -> bool {
    (1..=256).contains(&name.len()) && !name.chars().any(char::is_control) && name.trim() == name
}

/// The inner value is none for a key without end; an end that cannot be read ends the key, not its expiry.
fn expiry(text: Option<&str>, findings: &mut Findings) -> Option<Option<i64>> {
    let Some(text) = text else { return Some(None) };
    match text.parse::<Timestamp>() {
        Ok(time) => Some(Some(time.as_second())),
        Err(_) => {
            let path = format!("metadata.annotations.{EXPIRES}");
            let message = format!("{text:?} is not an RFC 3339 time");
            findings.error(&path, Reason::InvalidApiKey, message, "such as 2027-01-31T00:00:00Z");
            None
        }
    }
}

/// Never shows the key.
fn hash(secret: &Secret, findings: &mut Findings) -> Option<String> {
    let data = |key: &str| secret.data.get(key).map(Vec::as_slice);
    let mut refuse = |path: &str, message: &str, help: &str| {
        findings.error(path, Reason::InvalidApiKey, message, help);
        None
    };
    match (data("sha256"), data("key")) {
        (Some(digest), None) => {
            let digest = String::from_utf8_lossy(digest).trim().to_ascii_lowercase();
            let hex = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
            if hex {
                return Some(digest);
            }
            refuse(
                "data.sha256",
                "sha256 is not 64 hexadecimal digits",
                "store the output of `mcpmesh key create`",
            )
        }
        (None, Some(key)) if key.len() < MIN_LENGTH => {
            refuse("data.key", "the key has fewer than 16 characters", "make one with `mcpmesh key create`")
        }
        (None, Some(key)) if !key.iter().all(u8::is_ascii_graphic) => {
            let help = "was it encoded with a line break at its end?";
            refuse("data.key", "the key holds spaces, line breaks or other bytes that no header can", help)
        }
        (None, Some(key)) => Some(hex::encode(Sha256::digest(key))),
        (None, None) => refuse("data", "it has neither sha256 nor key", "make one with `mcpmesh key create`"),
        (Some(_), Some(_)) => refuse("data", "sha256 and key exclude each other", "keep sha256"),
    }
}
