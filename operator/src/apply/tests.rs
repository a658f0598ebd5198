use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use serde_json::json;

use super::*;

#[test]
fn a_child_on_its_way_out_is_left_alone() {
    let live = ObjectMeta {
        deletion_timestamp: Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap()),
        ..ObjectMeta::default()
    };
    assert!(is_as_applied(&live, "hash", &json!({})));
}

#[test]
fn another_hash_or_a_lost_field_makes_a_write() {
    let manifest = json!({"kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "b"}});
    let live = |hash: &str, fields: Value| ObjectMeta {
        annotations: Some(BTreeMap::from([(APPLIED.to_owned(), hash.to_owned())])),
        managed_fields: Some(vec![ManagedFieldsEntry {
            manager: Some(mcpmesh_crds::CONTROLLER.to_owned()),
            operation: Some("Apply".to_owned()),
            fields_v1: Some(FieldsV1(fields)),
            ..ManagedFieldsEntry::default()
        }]),
        ..ObjectMeta::default()
    };
    let whole = json!({"f:metadata": {}, "f:data": {"f:a": {}}});
    assert!(is_as_applied(&live("h", whole.clone()), "h", &manifest));
    assert!(!is_as_applied(&live("old", whole), "h", &manifest));
    assert!(!is_as_applied(&live("h", json!({"f:metadata": {}, "f:data": {"f:c": {}}})), "h", &manifest));
}
