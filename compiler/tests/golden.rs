//! Each folder of `golden/` is a case: `in.yaml` compiles to `out.yaml`. `UPDATE_GOLDEN=1` writes the latter.
//!
//! A first line `# up` compiles as `mcpmesh up` does; otherwise as in a cluster.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::fs;
use std::path::{Path, PathBuf};

use mcpmesh_compiler::{Compiled, Install, compile, manifest};
use serde_json::{Map, Value, json};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn compile_text(text: &str) -> Compiled {
    let up = text.starts_with("# up");
    let install =
        Install { implied_gateway: up, allow_private: up, version_key: [7; 32], ..Install::default() };
    let parsed = manifest::parse("in.yaml", text);
    let (inputs, duplicates) = manifest::gather(&parsed.objects, install);
    let mut compiled = compile(&inputs);
    manifest::locate(&parsed.objects, &mut compiled.diagnostics);
    compiled.diagnostics.splice(0..0, parsed.diagnostics.into_iter().chain(duplicates));
    compiled
}

fn render(compiled: &Compiled) -> String {
    let mut snapshots = Map::new();
    for (gateway, snapshot) in &compiled.snapshots {
        let mut kinds = Map::new();
        for resource in &snapshot.resources {
            let kind = kinds.entry(resource.kind.to_string()).or_insert_with(|| json!({}));
            kind[&resource.name] = serde_json::from_str(resource.body.get()).unwrap();
        }
        snapshots.insert(gateway.to_string(), Value::Object(kinds));
    }
    let workloads: Map<_, _> = compiled
        .workloads
        .iter()
        .map(|(server, workload)| (server.to_string(), serde_json::to_value(workload).unwrap()))
        .collect();
    let findings: Vec<_> = compiled
        .diagnostics
        .iter()
        .map(|finding| json!({ "reason": finding.reason.to_string(), "text": finding.to_string() }))
        .collect();
    let whole = json!({ "snapshots": snapshots, "workloads": workloads, "diagnostics": findings });
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
        let out = render(&compile_text(&fs::read_to_string(case.join("in.yaml")).unwrap()));
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
            let compiled = compile_text(&text);
            let findings: Vec<_> = compiled.diagnostics.iter().map(ToString::to_string).collect();
            assert!(findings.is_empty(), "{text}\n{}", findings.join("\n"));
            assert!(!compiled.snapshots.is_empty());
        }
    }
}
