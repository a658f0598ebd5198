//! A document to an object: which kind it is, its fields checked strictly, every mistake with its path.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mcpmesh_crds::{GROUP, McpGateway, McpPolicy, McpServer, TargetKind, TargetRef, VERSION};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Object, wording};
use crate::diagnostic::{ObjectKind, ObjectRef, Reason, Severity};
use crate::inputs::{ConfigMap, Secret};
use crate::likeness::{likeliest, suggestion};

/// A mistake in a document, before it has a place.
pub(super) struct Mistake {
    pub(super) severity: Severity,
    pub(super) reason: Reason,
    pub(super) path: String,
    /// Whether the key at the path is wrong, not its value.
    pub(super) at_key: bool,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Mistake {
    fn new(reason: Reason, path: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            reason,
            path: path.to_owned(),
            at_key: false,
            message: message.into(),
            help: Some(help.into()),
        }
    }

    fn ignored(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Note,
            reason: Reason::IgnoredKind,
            path: String::new(),
            at_key: false,
            message: message.into(),
            help: None,
        }
    }
}

const KINDS: [&str; 3] = ["McpServer", "McpGateway", "McpPolicy"];

/// The fields of ObjectMeta: kube's own type ignores what it doesn't know.
const METADATA: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Which object a document is, as far as it says so.
pub(super) fn reference(value: &Value) -> Option<ObjectRef> {
    let kind = kind(value).ok()?;
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    let namespace = match kind {
        ObjectKind::Namespace => "",
        _ => text("/metadata/namespace").unwrap_or("default"),
    };
    Some(ObjectRef::new(kind, namespace, text("/metadata/name")?))
}

/// Which object a document is that cannot be read; none where its mistake may be in what says so.
pub(super) fn certain(value: &Value) -> Option<ObjectRef> {
    let reference = reference(value).filter(is_valid)?;
    let metadata = value.get("metadata")?.as_object()?;
    let told = match metadata.get("namespace") {
        Some(namespace) => namespace.is_string(),
        // A field that is none may be the one that is missing.
        None => metadata.keys().all(|key| {
            METADATA.contains(&key.as_str())
                || likeliest(key, METADATA).is_some_and(|meant| meant != "namespace")
        }),
    };
    (told || reference.kind == ObjectKind::Namespace).then_some(reference)
}

fn is_valid(reference: &ObjectRef) -> bool {
    is_name(&reference.name)
        && (reference.kind == ObjectKind::Namespace || dns(&reference.namespace, 63, false, "").is_ok())
}

/// What an McpPolicy may close that cannot be read: nothing when it only watches, its whole namespace where its targets
/// cannot be told.
pub(super) fn targets(value: &Value, namespace: &str) -> Vec<TargetRef> {
    if value.pointer("/spec/mode").and_then(Value::as_str) == Some("Audit") {
        return Vec::new();
    }
    let given = value.pointer("/spec/targetRefs").cloned();
    let targets = given.and_then(|given| serde_json::from_value::<Vec<TargetRef>>(given).ok());
    targets.filter(|targets| !targets.is_empty()).unwrap_or_else(|| {
        vec![TargetRef { group: None, kind: TargetKind::Namespace, name: namespace.to_owned() }]
    })
}

/// Which kind a document says that it is.
pub(super) fn kind(value: &Value) -> Result<ObjectKind, Mistake> {
    let text = |field: &str| value.get(field).and_then(Value::as_str);
    let (api, kind) = match (text("apiVersion"), text("kind")) {
        (None, None) => return Err(Mistake::ignored("not a Kubernetes object: skipped")),
        (Some(api), Some(kind)) => (api, kind),
        (None, Some(_)) => {
            let help = format!("our kinds have `apiVersion: {GROUP}/{VERSION}`");
            return Err(Mistake::new(Reason::InvalidField, "", "apiVersion is missing", help));
        }
        (Some(_), None) => {
            let help = format!("expected one of {}", KINDS.join(", "));
            return Err(Mistake::new(Reason::InvalidField, "", "kind is missing", help));
        }
    };
    match (api.split_once('/').unwrap_or(("", api)), kind) {
        ((GROUP, VERSION), "McpServer") => Ok(ObjectKind::McpServer),
        ((GROUP, VERSION), "McpGateway") => Ok(ObjectKind::McpGateway),
        ((GROUP, VERSION), "McpPolicy") => Ok(ObjectKind::McpPolicy),
        ((GROUP, VERSION), kind) => {
            let help =
                suggestion(kind, KINDS).unwrap_or_else(|| format!("expected one of {}", KINDS.join(", ")));
            Err(Mistake::new(Reason::UnknownKind, "kind", format!("unknown kind `{kind}`"), help))
        }
        ((GROUP, version), _) => {
            let message = format!("unknown version `{version}`");
            Err(Mistake::new(Reason::UnknownKind, "apiVersion", message, format!("use `{GROUP}/{VERSION}`")))
        }
        (("", "v1"), "Secret") => Ok(ObjectKind::Secret),
        (("", "v1"), "ConfigMap") => Ok(ObjectKind::ConfigMap),
        (("", "v1"), "Namespace") => Ok(ObjectKind::Namespace),
        (_, kind) if KINDS.contains(&kind) => {
            let message = format!("`{api}` has no kind that mcpmesh reads");
            Err(Mistake::new(Reason::UnknownKind, "apiVersion", message, format!("use `{GROUP}/{VERSION}`")))
        }
        // Skipping what was meant as a Secret could skip the key that closes an endpoint.
        (("", "v1"), _) if suggestion(kind, ["Secret"]).is_some() => {
            let message = format!("unknown kind `{kind}`");
            Err(Mistake::new(Reason::UnknownKind, "kind", message, "did you mean `Secret`?"))
        }
        (("" | "core", _), "Secret" | "ConfigMap") => {
            let message = format!("`{api}` has no kind that mcpmesh reads");
            Err(Mistake::new(Reason::UnknownKind, "apiVersion", message, "use `v1`"))
        }
        _ => Err(Mistake::ignored(format!("{api} {kind} is not read: skipped"))),
    }
}

/// Kinds of core/v1 whose lists are read.
const CORE: [&str; 3] = ["Secret", "ConfigMap", "Namespace"];

/// What the items of a list are that do not say so themselves: `apiVersion` and `kind`, both empty where a list holds
/// objects of any kind. None for what is no list.
pub(super) fn items_of(value: &Value) -> Option<(String, String)> {
    let text = |field: &str| value.get(field).and_then(Value::as_str);
    let (api, kind) = (text("apiVersion")?, text("kind")?.strip_suffix("List")?);
    let own = format!("{GROUP}/{VERSION}");
    match (api, kind) {
        ("v1", "") => Some((String::new(), String::new())),
        ("v1", kind) if CORE.contains(&kind) => Some((api.to_owned(), kind.to_owned())),
        (api, kind) if api == own && KINDS.contains(&kind) => Some((own, kind.to_owned())),
        _ => None,
    }
}

/// Decodes a document. Errors never show a Secret's value.
pub(super) fn object(value: Value) -> Result<Object, Mistake> {
    let kind = kind(&value)?;
    metadata(&value)?;
    match kind {
        ObjectKind::McpServer => {
            let (metadata, spec) = custom(value)?;
            Ok(Object::Server(Box::new(McpServer { metadata, spec, status: None })))
        }
        ObjectKind::McpGateway => {
            let (metadata, spec) = custom(value)?;
            Ok(Object::Gateway(Box::new(McpGateway { metadata, spec, status: None })))
        }
        ObjectKind::McpPolicy => {
            let (metadata, spec) = custom(value)?;
            Ok(Object::Policy(Box::new(McpPolicy { metadata, spec, status: None })))
        }
        ObjectKind::Secret => secret(value).map(Object::Secret),
        ObjectKind::ConfigMap => config_map(value).map(Object::ConfigMap),
        ObjectKind::Namespace => Ok(Object::Namespace(labels(&value))),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Custom<S> {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: ObjectMeta,
    spec: S,
    /// What a cluster said of the object: nothing that anybody asks for.
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
}

fn custom<S: DeserializeOwned + Serialize>(value: Value) -> Result<(ObjectMeta, S), Mistake> {
    let given = value.get("spec").cloned().unwrap_or_default();
    let Custom { mut metadata, spec, .. } = typed::<Custom<S>>(value)?;
    let meant = serde_json::to_value(&spec).unwrap_or_default();
    if let Some(path) = list_for_mapping(&given, &meant, "spec".to_owned()) {
        let message = "invalid type: sequence, expected a mapping";
        return Err(Mistake::new(Reason::InvalidField, &path, message, "write its fields"));
    }
    metadata.namespace.get_or_insert_with(|| "default".to_owned());
    Ok((metadata, spec))
}

/// Where a list stands for a mapping: serde takes one for the fields in their order, and no API server does.
fn list_for_mapping(given: &Value, meant: &Value, path: String) -> Option<String> {
    match (given, meant) {
        (Value::Array(_), Value::Object(_)) => Some(path),
        (Value::Array(given), Value::Array(meant)) => {
            given.iter().zip(meant).enumerate().find_map(|(index, (given, meant))| {
                list_for_mapping(given, meant, format!("{path}[{index}]"))
            })
        }
        (Value::Object(given), Value::Object(meant)) => given
            .iter()
            .find_map(|(key, given)| list_for_mapping(given, meant.get(key)?, format!("{path}.{key}"))),
        _ => None,
    }
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Mistake> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        let (message, help) = wording::plain_words(&error.into_inner().to_string());
        let at_key = message.starts_with("unknown field");
        Mistake { severity: Severity::Error, reason: Reason::InvalidField, path, at_key, message, help }
    })
}

fn metadata(value: &Value) -> Result<(), Mistake> {
    let Some(Value::Object(metadata)) = value.get("metadata") else {
        return Err(Mistake::new(Reason::InvalidField, "", "metadata is missing", "add metadata.name"));
    };
    if let Some(unknown) = metadata.keys().find(|key| !METADATA.contains(&key.as_str())) {
        let help =
            suggestion(unknown, METADATA).unwrap_or_else(|| "labels and annotations take such words".into());
        let message = format!("unknown field `{unknown}`");
        let path = format!("metadata.{unknown}");
        return Err(Mistake { at_key: true, ..Mistake::new(Reason::InvalidField, &path, message, help) });
    }
    match metadata.get("name") {
        None | Some(Value::Null) => {
            let help = "add metadata.name";
            return Err(Mistake::new(Reason::InvalidField, "metadata", "name is missing", help));
        }
        Some(Value::String(name)) => dns(name, 253, true, "metadata.name")?,
        Some(_) => return Err(not_a_string("metadata.name")),
    }
    match metadata.get("namespace") {
        None => Ok(()),
        Some(Value::String(namespace)) => dns(namespace, 63, false, "metadata.namespace"),
        Some(_) => Err(not_a_string("metadata.namespace")),
    }
}

fn not_a_string(path: &str) -> Mistake {
    Mistake::new(Reason::InvalidField, path, "not a string", "put quotes around it")
}

/// Whether a text may be the name of one of our objects.
pub(crate) fn is_name(name: &str) -> bool {
    dns(name, 253, true, "").is_ok()
}

/// RFC 1123 names, as Kubernetes wants them. Keeps slashes, spaces and control characters out of ids and logs.
fn dns(name: &str, max: usize, dots: bool, path: &str) -> Result<(), Mistake> {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    if name.len() <= max && if dots { name.split('.').all(label) } else { label(name) } {
        return Ok(());
    }
    let help = "use lower-case letters, digits and dashes, beginning and ending with a letter or digit";
    Err(Mistake::new(Reason::InvalidValue, path, format!("{name:?} is not a Kubernetes name"), help))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawSecret {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: ObjectMeta,
    #[serde(rename = "type")]
    _type: Option<String>,
    #[serde(rename = "immutable")]
    _immutable: Option<bool>,
    #[serde(default)]
    data: BTreeMap<String, Value>,
    #[serde(default)]
    string_data: BTreeMap<String, Value>,
}

fn secret(value: Value) -> Result<Secret, Mistake> {
    mappings(&value, ["data", "stringData"], Reason::InvalidSecret)?;
    let RawSecret { metadata, data, string_data, .. } = typed(value)?;
    let mut all = BTreeMap::new();
    for (key, value) in data {
        let help = "encode it, or put the plain text under stringData";
        let decoded = bytes(&format!("data.{key}"), value, (Reason::InvalidSecret, help))?;
        all.insert(key, decoded);
    }
    for (key, value) in string_data {
        let text = string(&format!("stringData.{key}"), value, Reason::InvalidSecret)?;
        all.insert(key, text.into_bytes());
    }
    let labels = metadata.labels.unwrap_or_default();
    Ok(Secret { labels, annotations: metadata.annotations.unwrap_or_default(), data: all })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawConfigMap {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "metadata")]
    _metadata: ObjectMeta,
    #[serde(rename = "immutable")]
    _immutable: Option<bool>,
    #[serde(default)]
    data: BTreeMap<String, Value>,
    #[serde(default)]
    binary_data: BTreeMap<String, Value>,
}

fn config_map(value: Value) -> Result<ConfigMap, Mistake> {
    mappings(&value, ["data", "binaryData"], Reason::InvalidConfigMap)?;
    let RawConfigMap { data, binary_data, .. } = typed(value)?;
    let mut map = ConfigMap::default();
    for (key, value) in data {
        let text = string(&format!("data.{key}"), value, Reason::InvalidConfigMap)?;
        map.data.insert(key, text);
    }
    for (key, value) in binary_data {
        let path = format!("binaryData.{key}");
        bytes(&path, value, (Reason::InvalidConfigMap, "encode it, or put the plain text under data"))?;
        if map.data.contains_key(&key) {
            let message = "the key is under data, too";
            return Err(Mistake::new(Reason::InvalidConfigMap, &path, message, "remove one"));
        }
        map.binary.insert(key);
    }
    Ok(map)
}

fn mappings(value: &Value, fields: [&str; 2], reason: Reason) -> Result<(), Mistake> {
    let wrong = |field: &&str| value.get(field).is_some_and(|values| !values.is_object());
    match fields.into_iter().find(wrong) {
        Some(field) => Err(Mistake::new(reason, field, "not a mapping", "write `key: value` under it")),
        None => Ok(()),
    }
}

/// What base64 stands for.
fn bytes(path: &str, value: Value, (reason, help): (Reason, &str)) -> Result<Vec<u8>, Mistake> {
    let text = string(path, value, reason)?.replace(['\n', '\r'], "");
    STANDARD.decode(text).map_err(|_| Mistake::new(reason, path, "the value is not base64", help))
}

fn string(path: &str, value: Value, reason: Reason) -> Result<String, Mistake> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(Mistake::new(reason, path, "the value is not a string", "put quotes around it")),
    }
}

fn labels(value: &Value) -> BTreeMap<String, String> {
    let labels = value.pointer("/metadata/labels").and_then(Value::as_object);
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    labels.into_iter().flatten().filter_map(text).collect()
}
