//! How GitOps tools and `kubectl wait` read an object: the algorithm of kstatus
//! (sigs.k8s.io/cli-utils/pkg/kstatus), for objects with conditions.

use kube::api::DynamicObject;
use serde_json::Value;

/// What an object is, to those who read it without knowing its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It is as its spec says.
    Current,
    /// On its way there.
    InProgress,
    /// It will not get there by itself.
    Failed,
    /// It is being deleted.
    Terminating,
    /// There is none.
    NotFound,
}

/// Reads an object as the API server has it.
#[must_use]
pub fn health(object: Option<&DynamicObject>) -> Health {
    let Some(object) = object else { return Health::NotFound };
    if object.metadata.deletion_timestamp.is_some() {
        return Health::Terminating;
    }
    let status = &object.data["status"];
    let observed = status["observedGeneration"].as_i64();
    if observed.is_some_and(|observed| Some(observed) != object.metadata.generation) {
        return Health::InProgress;
    }
    match (said(status, "Reconciling"), said(status, "Stalled"), said(status, "Ready")) {
        (Some("True"), ..) => Health::InProgress,
        (_, Some("True"), _) => Health::Failed,
        (_, _, Some("False" | "Unknown")) => Health::InProgress,
        // Stricter than kstatus, which calls an object current that nobody has looked at yet.
        (_, _, None) => Health::InProgress,
        _ => Health::Current,
    }
}

/// The answer of a condition.
fn said<'s>(status: &'s Value, kind: &str) -> Option<&'s str> {
    let conditions = status["conditions"].as_array()?;
    conditions.iter().find(|one| one["type"] == kind)?["status"].as_str()
}

#[cfg(test)]
mod tests {
    use kube::api::DynamicObject;
    use serde_json::{Value, json};

    use super::{Health, health};

    fn object(generation: i64, status: &Value) -> DynamicObject {
        let object = json!({"metadata": {"generation": generation}, "status": status});
        serde_json::from_value(object).expect("an object")
    }

    #[test]
    fn each_answer_has_its_sign() {
        let conditions = |list: &[(&str, &str)]| -> Value {
            list.iter().map(|(kind, status)| json!({"type": kind, "status": status})).collect()
        };
        let read = |list: &[(&str, &str)]| {
            let status = json!({"observedGeneration": 2, "conditions": conditions(list)});
            health(Some(&object(2, &status)))
        };
        assert_eq!(read(&[("Ready", "True")]), Health::Current);
        assert_eq!(read(&[("Ready", "False")]), Health::InProgress);
        assert_eq!(read(&[("Ready", "False"), ("Stalled", "True")]), Health::Failed);
        assert_eq!(read(&[("Ready", "True"), ("Reconciling", "True")]), Health::InProgress);
        assert_eq!(health(None), Health::NotFound);
        let old = json!({"observedGeneration": 1, "conditions": conditions(&[("Ready", "True")])});
        assert_eq!(health(Some(&object(2, &old))), Health::InProgress);
        let mut going = object(2, &json!({}));
        assert_eq!(health(Some(&going)), Health::InProgress);
        let metadata = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        going.metadata = serde_json::from_value(metadata).expect("metadata");
        assert_eq!(health(Some(&going)), Health::Terminating);
    }
}
