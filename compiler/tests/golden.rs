//! Each folder of `golden/` is a case: `in.yaml` compiles to `out.yaml`. `UPDATE_GOLDEN=1` writes the latter.
//!
//! A first line `# up` compiles as `mcpmesh up` does, `# cluster` as the operator does, with the Services of the case's
//! `services.yaml` (`namespace/name: {port: [address]}`); without either, nothing is implied and there are no fleets. Where
//! remote servers may be stands in `remotes.yaml`, if that is there.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

#[path = "installed/cluster.rs"]
mod installed;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mcpmesh_compiler::{Compiled, Install, Service, compile, manifest};
use mcpmesh_ir::{EgressRule, Resource};
use serde_json::{Map, Value, json};

/// The Services that samples name.
const SERVICES: &str = "team-a/tickets: {8080: ['10.0.0.7:8080']}";

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

type Services = BTreeMap<String, BTreeMap<u16, Vec<SocketAddr>>>;

fn compile_text(text: &str, services: &str, remotes: &str) -> Compiled {
    let up = text.starts_with("# up");
    let cluster = text.starts_with("# cluster").then(installed::cluster);
    let remotes = match remotes {
        "" if up => EgressRule::private(),
        "" => EgressRule::default(),
        text => serde_saphyr::from_str(text).unwrap(),
    };
    let install =
        Install { implied_gateway: up, remotes, version_key: [7; 32], cluster, ..Install::default() };
    let parsed = manifest::parse("in.yaml", text);
    let (mut inputs, duplicates) = manifest::gather(&parsed.objects, install);
    if !services.is_empty() {
        for (name, ports) in serde_saphyr::from_str::<Services>(services).unwrap() {
            let (namespace, name) = name.split_once('/').unwrap();
            inputs.of_mut(namespace).services.insert(name.to_owned(), Arc::new(Service { ports }));
        }
    }
    let mut compiled = compile(&inputs);
    manifest::locate(&parsed.objects, &mut compiled.diagnostics);
    compiled.diagnostics.splice(0..0, parsed.diagnostics.into_iter().chain(duplicates));
    compiled
}

fn by_kind(resources: &[Resource]) -> Value {
    let mut kinds = Map::new();
    for resource in resources {
        let kind = kinds.entry(resource.kind.to_string()).or_insert_with(|| json!({}));
        kind[&resource.name] = serde_json::from_str(resource.body.get()).unwrap();
    }
    Value::Object(kinds)
}

fn render(compiled: &Compiled) -> String {
    let snapshots: Map<_, _> = compiled
        .snapshots
        .iter()
        .map(|(gateway, snapshot)| (gateway.to_string(), by_kind(&snapshot.resources)))
        .collect();
    let fleets: Map<_, _> = compiled
        .fleets
        .iter()
        .map(|(fleet, content)| (fleet.to_string(), by_kind(&content.resources)))
        .collect();
    let workloads: Map<_, _> = compiled
        .workloads
        .iter()
        .map(|(server, workload)| (server.to_string(), serde_json::to_value(workload.as_ref()).unwrap()))
        .collect();
    let findings: Vec<_> = compiled
        .diagnostics
        .iter()
        .map(|finding| json!({ "reason": finding.reason.to_string(), "text": finding.to_string() }))
        .collect();
    let mut whole = json!({ "snapshots": snapshots, "workloads": workloads, "diagnostics": findings });
    if !fleets.is_empty() {
        whole["fleets"] = Value::Object(fleets);
    }
    serde_saphyr::to_string(&whole).unwrap()
}

#[test]
fn every_case_compiles_to_its_golden_output() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut cases: Vec<_> =
        fs::read_dir(folder("tests/golden")).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 20, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let beside = |name: &str| fs::read_to_string(case.join(name)).unwrap_or_default();
        let text = fs::read_to_string(case.join("in.yaml")).unwrap();
        let out = render(&compile_text(&text, &beside("services.yaml"), &beside("remotes.yaml")));
        let golden = case.join("out.yaml");
        if update {
            fs::write(golden, out).unwrap();
        } else if fs::read_to_string(golden).unwrap_or_default() != out {
            wrong.push(format!("{}:\n{out}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_sample_compiles_without_diagnostics() {
    for name in ["../manifests/samples", "../manifests/quickstart"] {
        let mut files: Vec<_> =
            fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
        assert!(!files.is_empty(), "{name}");
        let read = |file: &PathBuf| fs::read_to_string(file).unwrap();
        // The quickstart is one folder of objects; each sample stands by itself.
        let texts: Vec<String> = if name.ends_with("quickstart") {
            vec![files.iter().map(read).collect::<Vec<_>>().join("\n---\n")]
        } else {
            files.iter().map(read).collect()
        };
        for text in texts {
            let compiled = compile_text(&text, SERVICES, "");
            let findings: Vec<_> = compiled.diagnostics.iter().map(ToString::to_string).collect();
            assert!(findings.is_empty(), "{text}\n{}", findings.join("\n"));
            assert!(!(compiled.snapshots.is_empty() && compiled.fleets.is_empty()));
        }
    }
}
