//! Whether everything that we applied is still ours: the API server takes a field from our managed fields when
//! somebody else changes or removes it (server-side apply, "Field management").

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mcpmesh_crds::CONTROLLER;
use serde_json::{Map, Value};

/// Whether our entry of the managed fields holds all of a manifest.
pub(super) fn is_whole(live: &ObjectMeta, manifest: &Value) -> bool {
    let entries = live.managed_fields.as_deref().unwrap_or_default();
    let ours = entries.iter().find(|entry| {
        entry.manager.as_deref() == Some(CONTROLLER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.subresource.as_deref().unwrap_or_default().is_empty()
    });
    let Some(fields) = ours.and_then(|entry| entry.fields_v1.as_ref()) else { return false };
    let Some(manifest) = manifest.as_object() else { return false };
    manifest.iter().all(|(key, value)| match key.as_str() {
        // Identity is nobody's field.
        "apiVersion" | "kind" => true,
        "metadata" => value.as_object().is_some_and(|metadata| {
            let mut owned = metadata.clone();
            owned.retain(|key, _| !matches!(key.as_str(), "name" | "namespace" | "resourceVersion"));
            holds(field(&fields.0, "metadata"), &Value::Object(owned))
        }),
        key => holds(field(&fields.0, key), value),
    })
}

fn field<'f>(fields: &'f Value, key: &str) -> Option<&'f Value> {
    fields.get(format!("f:{key}"))
}

/// Whether a set of fields (structured-merge-diff, FieldsV1) holds a value and all below it.
fn holds(fields: Option<&Value>, value: &Value) -> bool {
    let Some(fields) = fields.and_then(Value::as_object) else { return is_nothing(value) };
    // Owned as a whole.
    if fields.is_empty() {
        return true;
    }
    match value {
        Value::Object(object) => {
            object.iter().all(|(key, value)| holds(fields.get(&format!("f:{key}")), value))
        }
        Value::Array(items) => items.iter().all(|item| holds_item(fields, item)),
        _ => true,
    }
}

/// Empty values are not owned.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(object) => object.values().all(is_nothing),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// An item of a list whose items are merged, by its key or its value.
fn holds_item(fields: &Map<String, Value>, item: &Value) -> bool {
    fields.iter().any(|(name, below)| {
        if let Some(value) = name.strip_prefix("v:") {
            return serde_json::from_str::<Value>(value).is_ok_and(|value| value == *item);
        }
        let Some(key) = name.strip_prefix("k:").and_then(|key| serde_json::from_str::<Value>(key).ok())
        else {
            return false;
        };
        // A part of the key that the item leaves out has its default.
        let same = key
            .as_object()
            .is_some_and(|key| key.iter().all(|(name, value)| item.get(name).is_none_or(|own| own == value)));
        same && holds(Some(below), item)
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
    use serde_json::json;

    use super::*;

    fn live(fields: Value) -> ObjectMeta {
        let entry = ManagedFieldsEntry {
            manager: Some(CONTROLLER.to_owned()),
            operation: Some("Apply".to_owned()),
            fields_v1: Some(FieldsV1(fields)),
            ..ManagedFieldsEntry::default()
        };
        ObjectMeta { managed_fields: Some(vec![entry]), ..ObjectMeta::default() }
    }

    fn manifest() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "s", "namespace": "a", "labels": {"x": "y", "z": "y"}, "ownerReferences": [{"uid": "u"}]},
            "spec": {"ports": [{"port": 80, "name": "mcp"}, {"port": 81}], "selector": {"a": "b"}, "args": ["one", "two"], "none": {}},
        })
    }

    fn owned() -> Value {
        json!({
            "f:metadata": {"f:labels": {"f:x": {}, "f:z": {}}, "f:ownerReferences": {"k:{\"uid\":\"u\"}": {}}},
            "f:spec": {
                "f:ports": {
                    "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:name": {}},
                    "k:{\"port\":81,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}},
                },
                "f:selector": {}, "f:args": {},
            },
        })
    }

    #[test]
    fn what_was_applied_and_not_touched_is_whole() {
        assert!(is_whole(&live(owned()), &manifest()));
    }

    #[test]
    fn a_field_that_somebody_else_took_is_missed() {
        for path in
            ["/f:metadata/f:labels/f:x", "/f:spec", "/f:spec/f:ports/k:{\"port\":80,\"protocol\":\"TCP\"}"]
        {
            let mut fields = owned();
            let (parent, last) = path.rsplit_once('/').unwrap();
            let under = fields.pointer_mut(parent).unwrap().as_object_mut().unwrap();
            assert!(under.remove(last).is_some(), "{path}");
            assert!(!is_whole(&live(fields), &manifest()), "{path}");
        }
        let mut fields = owned();
        let port = "/f:spec/f:ports/k:{\"port\":80,\"protocol\":\"TCP\"}";
        fields.pointer_mut(port).unwrap().as_object_mut().unwrap().remove("f:name");
        assert!(!is_whole(&live(fields), &manifest()));
    }

    #[test]
    fn without_an_entry_of_ours_nothing_is() {
        assert!(!is_whole(&ObjectMeta::default(), &manifest()));
    }
}
