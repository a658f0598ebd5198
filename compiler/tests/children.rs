//! The objects that the operator makes. Each folder of `golden-children/` is a case: `in.yaml` makes the children of
//! `out.yaml`, which `UPDATE_GOLDEN=1` writes. And what holds for every pod, whatever a spec says.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail like the test")]

use std::fs;
use std::path::{Path, PathBuf};

use mcpmesh_compiler::{Child, Cluster, Compiled, Install, Severity, child, compile, manifest};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

fn cluster() -> Cluster {
    Cluster {
        operator_namespace: "mcpmesh-system".to_owned(),
        operator_address: "mcpmesh-operator.mcpmesh-system.svc:9443".to_owned(),
        proxy_image: "ghcr.io/mcpmesh/mcpmesh-proxy:0.1.0".to_owned(),
        npm_image: "ghcr.io/mcpmesh/runner-npm:0.1.0".to_owned(),
        pypi_image: "ghcr.io/mcpmesh/runner-pypi:0.1.0".to_owned(),
        ..Cluster::default()
    }
}

fn compile_text(text: &str) -> Compiled {
    compile_in(cluster(), text)
}

fn compile_in(cluster: Cluster, text: &str) -> Compiled {
    let install = Install { version_key: [7; 32], cluster: Some(cluster), ..Install::default() };
    let parsed = manifest::parse("in.yaml", text);
    assert!(parsed.diagnostics.is_empty(), "{text}\n{:?}", parsed.diagnostics);
    let (inputs, _) = manifest::gather(&parsed.objects, install);
    compile(&inputs)
}

/// The one error of a text.
fn error(text: &str) -> String {
    let compiled = compile_text(text);
    let mut errors = compiled.diagnostics.iter().filter(|found| found.severity == Severity::Error);
    let found = errors.next().unwrap_or_else(|| panic!("no error in {text}")).to_string();
    assert_eq!(errors.next(), None);
    found
}

fn render(compiled: &Compiled) -> String {
    let text = |child: &Child| serde_saphyr::to_string(&serde_json::to_value(child).unwrap()).unwrap();
    compiled.children.values().flat_map(|made| made.iter()).map(text).collect::<Vec<_>>().join("---\n")
}

/// The pod specs of all Deployments, as JSON.
fn pods(compiled: &Compiled) -> Vec<Value> {
    let pod = |child: &Child| match child {
        Child::Deployment(made) => {
            Some(serde_json::to_value(made).unwrap()["spec"]["template"]["spec"].clone())
        }
        _ => None,
    };
    compiled.children.values().flat_map(|made| made.iter()).filter_map(pod).collect()
}

#[test]
fn every_case_makes_its_golden_children() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden-children");
    let mut cases: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 6, "{} cases", cases.len());
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

/// All that `spec.workload` can say.
fn everything() -> Value {
    json!({
        "replicas": 3,
        "pod": {
            "labels": { "team": "red" },
            "annotations": { "note": "x" },
            "resources": { "requests": { "cpu": "50m", "memory": "64Mi" }, "limits": { "memory": "1Gi", "cpu": "2" } },
            "nodeSelector": { "disk": "ssd" },
            "tolerations": [
                { "key": "gpu", "operator": "Equal", "value": "a", "effect": "NoSchedule" },
                { "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30 },
            ],
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
                        { "matchExpressions": [{ "key": "cores", "operator": "Gt", "values": ["4"] }] },
                    ] },
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        { "weight": 5, "preference": { "matchExpressions": [{ "key": "zone", "operator": "Exists" }] } },
                    ],
                },
                "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
                    { "labelSelector": { "matchLabels": { "app": "db" } }, "namespaces": ["data"], "topologyKey": "zone" },
                ] },
                "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [
                    { "weight": 1, "podAffinityTerm": {
                        "labelSelector": { "matchExpressions": [{ "key": "app", "operator": "In", "values": ["x"] }] },
                        "topologyKey": "host",
                    } },
                ] },
            },
            "topologySpreadConstraints": [{
                "maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "minDomains": 2,
                "labelSelector": { "matchLabels": { "team": "red" } },
            }],
            "priorityClassName": "high",
            "imagePullSecrets": [{ "name": "registry" }],
        },
        "volumes": [
            { "name": "config", "configMap": { "name": "c", "items": [{ "key": "a", "path": "b" }], "optional": true } },
            { "name": "secret", "secret": { "secretName": "s", "items": [{ "key": "a", "path": "b" }], "optional": false } },
            { "name": "cache", "emptyDir": { "medium": "Memory", "sizeLimit": "1Gi" } },
            { "name": "data", "persistentVolumeClaim": { "claimName": "d", "readOnly": true } },
        ],
        "volumeMounts": [
            { "name": "config", "mountPath": "/config", "subPath": "b", "readOnly": true },
            { "name": "data", "mountPath": "/data" },
        ],
    })
}

fn server(source: &Value, workload: &Value) -> String {
    let mut spec = source.clone();
    spec["workload"] = workload.clone();
    json!({ "apiVersion": "mcpmesh.io/v1alpha1", "kind": "McpServer", "metadata": { "name": "s" }, "spec": spec })
        .to_string()
}

fn gateway(proxy: &Value, listeners: &Value) -> String {
    json!({
        "apiVersion": "mcpmesh.io/v1alpha1", "kind": "McpGateway", "metadata": { "name": "g" },
        "spec": { "proxy": proxy, "listeners": listeners, "authentication": { "anonymous": "Allow" } },
    })
    .to_string()
}

fn sources() -> [Value; 4] {
    let env = json!([{ "name": "HOME", "value": "/x" }]);
    [
        json!({ "package": { "registry": "Npm", "name": "@a/b", "version": "1.0.0", "env": env } }),
        json!({ "package": { "registry": "PyPI", "name": "b[extra]", "version": "1.0.0" } }),
        json!({ "container": { "image": "a/b:1", "command": ["run"], "env": env } }),
        json!({ "container": { "image": "a/b:1", "transport": "StreamableHttp", "port": 9000 } }),
    ]
}

#[test]
fn whatever_a_workload_says_arrives_in_its_pods() {
    let given = everything();
    for source in sources() {
        let compiled = compile_text(&server(&source, &given));
        let [pod] = pods(&compiled).try_into().unwrap();
        for field in
            ["nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "priorityClassName"]
        {
            assert_eq!(pod[field], given["pod"][field], "{field}");
        }
        assert_eq!(pod["imagePullSecrets"], given["pod"]["imagePullSecrets"]);
        let main = &pod["containers"][0];
        assert_eq!(main["resources"], given["pod"]["resources"]);
        for (all, some) in
            [(&pod["volumes"], &given["volumes"]), (&main["volumeMounts"], &given["volumeMounts"])]
        {
            let all = all.as_array().unwrap();
            assert!(some.as_array().unwrap().iter().all(|one| all.contains(one)), "{some} in {all:?}");
        }
        let names = |list: &Value, key: &str| -> Vec<String> {
            list.as_array().unwrap().iter().map(|one| one[key].as_str().unwrap().to_owned()).collect()
        };
        for mut names in [names(&pod["volumes"], "name"), names(&main["volumeMounts"], "mountPath")] {
            let count = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count, "each once");
        }
        if let Some(env) = main["env"].as_array() {
            let homes: Vec<_> = env.iter().filter(|one| one["name"] == "HOME").collect();
            assert!(homes.len() <= 1, "server-side apply wants each once: {homes:?}");
        }
    }
}

/// threats.md, "Kubernetes hardening"; Pod Security Standards, "restricted".
fn assert_hardened(pod: &Value) {
    for absent in ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"] {
        assert!(pod[absent].is_null(), "{absent}");
    }
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let containers = |field: &str| pod[field].as_array().cloned().unwrap_or_default();
    for container in containers("containers").into_iter().chain(containers("initContainers")) {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false, "{container}");
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["runAsNonRoot"], true);
        assert_ne!(context["runAsUser"], 0);
        assert_eq!(context["privileged"], false);
        assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }));
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
        let ports = container["ports"].as_array().cloned().unwrap_or_default();
        assert!(ports.iter().all(|port| port["hostPort"].is_null()));
    }
    for volume in pod["volumes"].as_array().unwrap() {
        let kinds: Vec<&String> = volume.as_object().unwrap().keys().filter(|key| *key != "name").collect();
        let allowed = ["configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected"];
        assert!(kinds.len() == 1 && allowed.contains(&kinds[0].as_str()), "{volume}");
        for source in volume["projected"]["sources"].as_array().into_iter().flatten() {
            let token = &source["serviceAccountToken"];
            assert!(
                token.is_null() || token["audience"] == "mcpmesh-operator",
                "a token for the operator alone"
            );
        }
    }
    for sysctl in pod["securityContext"]["sysctls"].as_array().into_iter().flatten() {
        assert_eq!(sysctl["name"], "net.ipv4.ip_unprivileged_port_start");
    }
}

/// Some of the fields of an object.
fn part_of(whole: &Value) -> impl Strategy<Value = Value> + use<> {
    let fields: Vec<(String, Value)> = whole.as_object().unwrap().clone().into_iter().collect();
    let count = fields.len();
    subsequence(fields, 0..=count).prop_map(|fields| Value::Object(fields.into_iter().collect()))
}

fn workload() -> impl Strategy<Value = Value> {
    let whole = everything();
    let pod = part_of(&whole["pod"]);
    (part_of(&whole), pod).prop_map(|(mut workload, pod)| {
        if workload.get("pod").is_some() {
            workload["pod"] = pod;
        }
        if workload.get("volumes").is_none() {
            workload.as_object_mut().unwrap().remove("volumeMounts");
        }
        workload
    })
}

fn proxy() -> impl Strategy<Value = Value> {
    let scale = select(vec![
        json!({}),
        json!({ "replicas": 0 }),
        json!({ "replicas": 5 }),
        json!({ "autoscaling": { "maxReplicas": 1 } }),
        json!({ "autoscaling": { "minReplicas": 2, "maxReplicas": 9, "targetCpuUtilization": 50 } }),
    ]);
    let rest = part_of(&json!({
        "service": { "type": "LoadBalancer", "annotations": { "a": "b" }, "labels": { "c": "d" } },
        "route": { "parentRefs": [{ "name": "public", "namespace": "edge" }] },
    }));
    (scale, rest, part_of(&everything()["pod"])).prop_map(|(mut proxy, rest, pod)| {
        proxy.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        proxy["pod"] = pod;
        proxy
    })
}

proptest! {
    #[test]
    fn every_pod_is_hardened_and_equal_specs_make_equal_children(
        source in select(sources().to_vec()), workload in workload(), proxy in proxy(),
        listeners in select(vec![json!([]), json!([{ "name": "low", "port": 443 }, { "name": "b", "path": "/b" }])]),
    ) {
        let text = format!("{}\n---\n{}", server(&source, &workload), gateway(&proxy, &listeners));
        let compiled = compile_text(&text);
        let errors: Vec<_> = compiled.diagnostics.iter().filter(|one| one.severity == Severity::Error).collect();
        prop_assert!(errors.is_empty(), "{errors:?}");
        let pods = pods(&compiled);
        prop_assert_eq!(pods.len(), 2);
        pods.iter().for_each(assert_hardened);
        prop_assert_eq!(render(&compiled), render(&compile_text(&text)));
        for (fleet, children) in &compiled.children {
            for child in children.iter() {
                let child = serde_json::to_value(child).unwrap();
                let metadata = &child["metadata"];
                prop_assert_eq!(&metadata["name"], &json!(child::base_name(fleet)));
                prop_assert_eq!(&metadata["namespace"], &json!(fleet.namespace()));
                for (key, value) in child::labels(fleet) {
                    prop_assert_eq!(&metadata["labels"][&key], &json!(value));
                }
                if child["kind"] == "Deployment" {
                    let scaled = fleet.to_string().starts_with("gateway") && proxy.get("autoscaling").is_some();
                    prop_assert_eq!(child["spec"]["replicas"].is_null(), scaled, "nobody fights an autoscaler");
                    let template = child["spec"]["template"]["metadata"]["labels"].as_object().unwrap();
                    let chosen = child["spec"]["selector"]["matchLabels"].as_object().unwrap();
                    prop_assert!(chosen.iter().all(|(key, value)| template.get(key) == Some(value)));
                }
            }
        }
    }
}

#[test]
fn a_secret_that_changes_makes_other_pods_and_its_value_is_in_none() {
    let object = |value: &str| {
        let env = json!([{ "name": "TOKEN", "valueFrom": { "secretKeyRef": { "name": "k", "key": "t" } } }]);
        let package =
            json!({ "package": { "registry": "Npm", "name": "a", "version": "1.0.0", "env": env } });
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "k" }, "stringData": { "t": value } });
        render(&compile_text(&format!("{}\n---\n{secret}", server(&package, &json!({})))))
    };
    let (one, other) = (object("canary-one"), object("canary-two"));
    assert!(!one.contains("canary") && one != other);
    let changed: Vec<_> = one.lines().zip(other.lines()).filter(|(a, b)| a != b).collect();
    assert_eq!(changed.len(), 1);
    assert!(changed[0].0.contains(child::DIGEST_ANNOTATION));
}

#[test]
fn packages_come_from_the_installations_registries_unless_a_server_says_otherwise() {
    let registries = Cluster {
        npm_registry: Some("https://npm.house.example/".to_owned()),
        pypi_index: Some("https://pypi.house.example/simple".to_owned()),
        ..cluster()
    };
    let value = |registry: &str, env: Value, name: &str| {
        let whole = json!([{ "secretRef": { "name": "own" } }]);
        let env_from = if env.is_null() { whole } else { json!([]) };
        let package = json!({ "package": {
            "registry": registry, "name": "a", "version": "1.0.0",
            "env": if env.is_null() { json!([]) } else { env }, "envFrom": env_from,
        } });
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "own" },
            "stringData": { "NPM_CONFIG_REGISTRY": "https://own.example/" } });
        let text = format!("{}\n---\n{secret}", server(&package, &json!({})));
        let [pod] = pods(&compile_in(registries.clone(), &text)).try_into().unwrap();
        let all = pod["containers"][0]["env"].as_array().unwrap().clone();
        let mut found = all.into_iter().filter(|one| one["name"] == name);
        (found.next().map(|one| one["value"].clone()), found.next())
    };
    let own = |name: &str| json!([{ "name": name, "value": "https://own.example/" }]);
    let is = |url: &str| (Some(json!(url)), None);
    let (npm, uv) = ("npm_config_registry", "UV_DEFAULT_INDEX");
    assert_eq!(value("Npm", json!([]), npm), is("https://npm.house.example/"));
    assert_eq!(value("PyPI", json!([]), uv), is("https://pypi.house.example/simple"));
    assert_eq!(value("Npm", json!([]), uv), (None, None), "to each runner its own");
    assert_eq!(value("Npm", own(npm), npm), is("https://own.example/"));
    assert_eq!(value("Npm", own("NPM_CONFIG_REGISTRY"), npm), (None, None));
    assert_eq!(value("PyPI", own("UV_INDEX_URL"), uv), (None, None));
    assert_eq!(value("Npm", Value::Null, npm), (None, None), "a whole Secret says it, too");
    let without = compile_text(&server(&sources()[0], &json!({})));
    assert!(!render(&without).contains(npm));
}

#[test]
fn a_dollar_in_an_argument_stays_one() {
    let source = json!({ "container": {
        "image": "a", "command": ["run", "$(HOME)", "a$b"], "env": [{ "name": "A", "value": "$(B)$$" }],
    } });
    let [pod] = pods(&compile_text(&server(&source, &json!({})))).try_into().unwrap();
    let main = &pod["containers"][0];
    let command = main["command"].as_array().unwrap();
    assert_eq!(command[command.len() - 3..], [json!("run"), json!("$$(HOME)"), json!("a$b")]);
    assert!(main["env"].as_array().unwrap().contains(&json!({ "name": "A", "value": "$$(B)$$$$" })));
}

#[test]
fn what_the_mesh_sets_nobody_else_can() {
    let [npm, .., stdio, http] = sources();
    let no_command = json!({ "container": { "image": "a" } });
    let pod_ip = json!({ "container": { "image": "a", "command": ["x"], "env": [{ "name": "POD_IP", "value": "1" }] } });
    let mount = |name: &str, path: &str| json!({ "volumes": [{ "name": "v", "emptyDir": {} }], "volumeMounts": [{ "name": name, "mountPath": path }] });
    let cases = [
        (&no_command, json!({}), "spec.container.command"),
        (&pod_ip, json!({}), "POD_IP is set by the mesh"),
        (&npm, json!({ "pod": { "labels": { "mcpmesh.io/server": "x" } } }), "mcpmesh.io/server is set"),
        (
            &npm,
            json!({ "pod": { "labels": { "app.kubernetes.io/name": "x" } } }),
            "app.kubernetes.io/name is set",
        ),
        (&http, json!({ "pod": { "annotations": { "mcpmesh.io/workload-digest": "x" } } }), "digest is set"),
        (&http, json!({ "volumes": [{ "name": "mcpmesh-keys", "emptyDir": {} }] }), "are the mesh's"),
        (&http, json!({ "volumes": [{ "name": "v" }] }), "exactly one kind"),
        (&stdio, mount("w", "/data"), "no volume w"),
        (&stdio, mount("v", "/mcpmesh/x"), "/mcpmesh/x is the mesh's"),
        (&stdio, mount("v", "/var"), "/var is the mesh's"),
        (&stdio, mount("v", "data"), "not an absolute path"),
    ];
    for (source, workload, expected) in cases {
        let found = error(&server(source, &workload));
        assert!(found.contains(expected), "{found}");
    }
    let remote = json!({ "remote": { "url": "https://example.com/mcp" } });
    assert!(
        error(&server(&remote, &json!({ "replicas": 2 }))).contains("only a package or container is run")
    );
    let both = json!({ "replicas": 2, "autoscaling": { "maxReplicas": 3 } });
    assert!(error(&gateway(&both, &json!([]))).contains("exclude each other"));
}

#[test]
fn a_pod_field_that_is_not_ours_to_give_away_is_an_error() {
    let refused = [
        json!({ "pod": { "securityContext": {} } }),
        json!({ "pod": { "serviceAccountName": "x" } }),
        json!({ "pod": { "hostNetwork": true } }),
        json!({ "volumes": [{ "name": "v", "hostPath": { "path": "/" } }] }),
        json!({ "pod": { "affinity": { "nodeAffinty": {} } } }),
        json!({ "pod": { "resources": { "limits": { "memory": "1Gb" } } } }),
    ];
    for workload in refused {
        let parsed = manifest::parse("in.yaml", &server(&sources()[0], &workload));
        assert_eq!(parsed.diagnostics.len(), 1, "{workload}");
    }
}
