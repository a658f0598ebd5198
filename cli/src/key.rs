//! `mcpmesh key create`: a random key, shown once, and the Secret that holds its hash (decisions.md 21).

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::{Span, Timestamp, Zoned};
use mcpmesh_compiler::is_user;
use sha2::{Digest, Sha256};

use crate::args::{KeyCommand, KeyCreateArgs};
use crate::exit::{Failure, Outcome};
use crate::{names, private_file};

/// Marks our keys for people and for secret scanners.
const PREFIX: &str = "mcpmesh_";

/// Runs `mcpmesh key`.
pub(crate) fn run(command: &KeyCommand) -> Outcome {
    let KeyCommand::Create(args) = command;
    let expires = args.expires.as_deref().map(|when| expiry(when, &Zoned::now())).transpose()?;
    if let Some(group) = args.groups.iter().find(|group| !is_user(group) || group.contains(',')) {
        return Err(Failure::usage(format!(
            "--group {group:?}: a group has a printable name without commas"
        )));
    }
    let key = generate()?;
    let yaml = secret(args, &key, expires)?;
    match &args.out {
        Some(path) => write_new(path, &yaml)?,
        None => anstream::print!("{yaml}"),
    }
    anstream::eprintln!("Key of {}, shown only now: {key}", args.owner);
    if let Some(path) = &args.out {
        anstream::eprintln!("Its hash is in {}.", path.display());
    }
    Ok(())
}

fn generate() -> Result<String, Failure> {
    let mut bytes = [0u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::failed("the system gave no random bytes"))?;
    Ok(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}

fn write_new(path: &Path, yaml: &str) -> Outcome {
    if path.exists() {
        return Err(Failure::failed(format!("{} exists: choose another --out or remove it", path.display())));
    }
    Ok(private_file::write(path, yaml.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?)
}

/// The time that `--expires` names, in UTC and whole seconds.
fn expiry(when: &str, now: &Zoned) -> Result<Timestamp, Failure> {
    let time = match when.parse::<Timestamp>() {
        Ok(time) => time,
        Err(_) => {
            let span: Span = when.parse().map_err(|_| {
                Failure::usage(format!(
                    "--expires {when}: write a time (2027-01-31T00:00:00Z) or a span (90d)"
                ))
            })?;
            now.checked_add(span)
                .map_err(|error| Failure::usage(format!("--expires {when}: {error}")))?
                .timestamp()
        }
    };
    if time <= now.timestamp() {
        return Err(Failure::usage(format!("--expires {when} is in the past")));
    }
    Timestamp::from_second(time.as_second()).map_err(|error| Failure::usage(error.to_string()))
}

/// The YAML of a Secret that a gateway takes as an API key.
fn secret(args: &KeyCreateArgs, key: &str, expires: Option<Timestamp>) -> Result<String, Failure> {
    let mut labels = BTreeMap::from([("mcpmesh.io/api-key".to_owned(), "true".to_owned())]);
    labels.extend(args.labels.iter().cloned());
    let mut annotations = BTreeMap::from([("mcpmesh.io/owner", args.owner.clone())]);
    if !args.groups.is_empty() {
        annotations.insert("mcpmesh.io/groups", args.groups.join(","));
    }
    if let Some(time) = expires {
        annotations.insert("mcpmesh.io/expires", time.to_string());
    }
    let name = args.name.clone().unwrap_or_else(|| format!("key-{}", names::label(&args.owner)));
    let object = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": args.namespace,
            "labels": labels,
            "annotations": annotations,
        },
        "stringData": { "sha256": hex::encode(Sha256::digest(key.as_bytes())) },
    });
    Ok(serde_saphyr::to_string(&object).context("cannot write YAML")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Zoned {
        "2026-11-23T00:00:00Z[UTC]".parse().unwrap()
    }

    #[test]
    fn an_expiry_is_a_time_or_a_span_from_now() {
        assert_eq!(expiry("90d", &now()).unwrap().to_string(), "2027-02-21T00:00:00Z");
        assert_eq!(expiry("12h", &now()).unwrap().to_string(), "2026-11-23T12:00:00Z");
        assert_eq!(expiry("2027-01-31T00:00:00Z", &now()).unwrap().to_string(), "2027-01-31T00:00:00Z");
    }

    #[test]
    fn an_expiry_in_the_past_or_without_meaning_is_wrong_use() {
        for when in ["2020-01-01T00:00:00Z", "-1d", "soon", ""] {
            assert!(matches!(expiry(when, &now()), Err(Failure::Usage(_))), "{when}");
        }
    }

    #[test]
    fn keys_differ_and_carry_the_prefix() {
        let (a, b) = (generate().unwrap(), generate().unwrap());
        assert!(a.starts_with(PREFIX) && a.len() == PREFIX.len() + 43, "{a}");
        assert_ne!(a, b);
    }
}
