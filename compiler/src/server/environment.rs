//! The environment of a server that is run: values, keys of Secrets and ConfigMaps, and all of them at once.

use std::collections::{BTreeMap, BTreeSet};

use mcpmesh_crds::{EnvFromSource, EnvKeySelector, EnvReference, EnvSource, EnvVar as EnvField};
use mcpmesh_ir::{SecretId, ServerId};

use super::run::check_words;
use crate::config_map;
use crate::diagnostic::{Findings, Reason};
use crate::inputs::Inputs;
use crate::secret;
use crate::workload::{EnvValue, EnvVar};

/// `env`, `envFrom`, and the path of what has them.
pub(super) type Fields<'s> = (&'s [EnvField], &'s [EnvFromSource], &'s str);

/// As in core/v1: later sources win over earlier ones, and `env` over all of them.
pub(super) fn environment(
    id: &ServerId,
    (env, env_from, path): Fields<'_>,
    inputs: &Inputs,
    findings: &mut Findings,
) -> Vec<EnvVar> {
    let mut reading = Reading { namespace: &id.namespace, inputs, findings };
    let mut variables = BTreeMap::new();
    for (index, source) in env_from.iter().enumerate() {
        reading.whole(source, &format!("{path}.envFrom[{index}]"), &mut variables);
    }
    let mut named = BTreeSet::new();
    for (index, field) in env.iter().enumerate() {
        let path = format!("{path}.env[{index}]");
        reading.check_name(&field.name, &format!("{path}.name"));
        if !named.insert(&field.name) {
            let message = format!("the variable {} is there twice", field.name);
            reading.findings.error(&format!("{path}.name"), Reason::DuplicateName, message, "remove one");
        }
        match reading.value(field, &path) {
            Some(value) => variables.insert(field.name.clone(), value),
            None => variables.remove(&field.name),
        };
    }
    variables.into_iter().map(|(name, value)| EnvVar { name, value }).collect()
}

/// Where references lead, and where mistakes are told.
struct Reading<'r> {
    namespace: &'r str,
    inputs: &'r Inputs,
    findings: &'r mut Findings,
}

impl Reading<'_> {
    /// All keys of a Secret or ConfigMap.
    fn whole(&mut self, source: &EnvFromSource, path: &str, into: &mut BTreeMap<String, EnvValue>) {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        match source.reference() {
            Some(EnvReference::Secret(from)) => {
                self.whole_secret(from, prefix, &format!("{path}.secretRef"), into);
            }
            Some(EnvReference::ConfigMap(from)) => {
                self.whole_config_map(from, prefix, &format!("{path}.configMapRef"), into);
            }
            None => self.not_one(path, "secretRef", "configMapRef"),
        }
    }

    fn whole_secret(
        &mut self,
        from: &EnvSource,
        prefix: &str,
        path: &str,
        into: &mut BTreeMap<String, EnvValue>,
    ) {
        let id = SecretId::new(self.namespace, &from.name);
        if from.optional == Some(true) && self.inputs.secret(&id).is_none() {
            return;
        }
        let found = secret::find(self.inputs, &id, &format!("{path}.name"), self.findings);
        for key in found.into_iter().flat_map(|secret| secret.data.keys()) {
            let name = format!("{prefix}{key}");
            self.check_name(&name, path);
            if self.secret_is_text((&id, key), path) {
                into.insert(name, EnvValue::Secret { secret: id.clone(), key: key.clone() });
            }
        }
    }

    fn whole_config_map(
        &mut self,
        from: &EnvSource,
        prefix: &str,
        path: &str,
        into: &mut BTreeMap<String, EnvValue>,
    ) {
        let place = (self.namespace, from.name.as_str());
        if from.optional == Some(true) && self.inputs.config_map(place).is_none() {
            return;
        }
        let found = config_map::find(self.inputs, place, &format!("{path}.name"), self.findings);
        for (key, value) in found.into_iter().flat_map(|map| &map.data) {
            let name = format!("{prefix}{key}");
            self.check_name(&name, path);
            if config_map::is_variable((place, key), value, path, self.findings) {
                into.insert(name, EnvValue::Literal(value.clone()));
            }
        }
    }

    /// None: the variable is left out, or its mistake is reported.
    fn value(&mut self, field: &EnvField, path: &str) -> Option<EnvValue> {
        let source = match (&field.value, &field.value_from) {
            (Some(_), Some(_)) => {
                let message = "value and valueFrom exclude each other";
                self.findings.error(path, Reason::InvalidUnion, message, "remove one");
                return None;
            }
            (literal, None) => {
                let literal = literal.clone().unwrap_or_default();
                check_words(std::slice::from_ref(&literal), &format!("{path}.value"), self.findings);
                return Some(EnvValue::Literal(literal));
            }
            (None, Some(source)) => source,
        };
        let path = format!("{path}.valueFrom");
        match source.reference() {
            Some(EnvReference::Secret(key)) => self.of_secret(key, &format!("{path}.secretKeyRef")),
            Some(EnvReference::ConfigMap(key)) => self.of_config_map(key, &format!("{path}.configMapKeyRef")),
            None => {
                self.not_one(&path, "secretKeyRef", "configMapKeyRef");
                None
            }
        }
    }

    fn of_secret(&mut self, from: &EnvKeySelector, path: &str) -> Option<EnvValue> {
        let secret = SecretId::new(self.namespace, &from.name);
        let there = self.inputs.secret(&secret).is_some_and(|secret| secret.data.contains_key(&from.key));
        if from.optional == Some(true) && !there {
            return None;
        }
        self.secret_is_text((&secret, &from.key), path)
            .then(|| EnvValue::Secret { secret, key: from.key.clone() })
    }

    fn of_config_map(&mut self, from: &EnvKeySelector, path: &str) -> Option<EnvValue> {
        let place = (self.namespace, from.name.as_str());
        let there = self.inputs.config_map(place).is_some_and(|map| map.data.contains_key(&from.key));
        if from.optional == Some(true) && !there {
            return None;
        }
        let value = config_map::value(self.inputs, (place, &from.key), path, self.findings)?;
        // What is in a ConfigMap is no secret.
        config_map::is_variable((place, &from.key), value, path, self.findings)
            .then(|| EnvValue::Literal(value.to_owned()))
    }

    /// Whether a Secret's value can be an environment variable's.
    fn secret_is_text(&mut self, key: (&SecretId, &str), path: &str) -> bool {
        let Some(value) = secret::value(self.inputs, key, path, self.findings) else { return false };
        if value.contains('\0') {
            let message = format!("key {:?} of Secret {} holds a NUL byte", key.1, key.0);
            self.findings.error(path, Reason::InvalidSecret, message, "an environment variable cannot");
        }
        true
    }

    fn not_one(&mut self, path: &str, one: &str, other: &str) {
        let (message, help) = ("a reference has exactly one kind", format!("give one of {one} and {other}"));
        self.findings.error(path, Reason::InvalidUnion, message, &help);
    }

    fn check_name(&mut self, name: &str, path: &str) {
        if name.is_empty() || name.contains('=') || name.bytes().any(|byte| !(b' '..=b'~').contains(&byte)) {
            let message = format!("{name:?} is not the name of an environment variable");
            self.findings.error(path, Reason::InvalidValue, message, "use letters, digits and underscores");
        }
    }
}
