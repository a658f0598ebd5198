use super::*;

const OTHERS: &str = "# Source: chart\napiVersion: v1\nkind:   ConfigMap   # odd spaces\nmetadata: {name: c}\ndata:\n  text: |\n    --- not a separator\n";

const DEPLOYMENT: &str = "# Ours.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: search
  namespace: team-a
  annotations: {mcpmesh.io/server: search}
spec:
  selector: {matchLabels: {app: search}}
  template:
    metadata: {labels: {app: search}}
    spec:
      containers:
        - name: app
          image: search:1
          ports: [{containerPort: 9000}]
          env: [{name: ANSWER, value: \"yes\"}, {name: NUMBER, value: '0644'}]
      volumes:
        - {name: keys, secret: {secretName: keys, defaultMode: 0440}}
";

fn cluster() -> Cluster {
    Cluster {
        proxy_image: "proxy:1".to_owned(),
        operator_address: "operator:9443".to_owned(),
        ..Cluster::default()
    }
}

fn run(text: &str, server: Option<&str>, namespace: Option<&str>) -> Result<String, Vec<String>> {
    let cluster = cluster();
    let request = Request { server, namespace, cluster: &cluster };
    inject("in.yaml", text, &request).map_err(|found| found.iter().map(ToString::to_string).collect())
}

fn made(text: &str) -> String {
    let once = run(text, None, None).unwrap();
    assert_eq!(run(&once, None, None).as_ref(), Ok(&once), "twice is once");
    once
}

/// The one error.
fn error(text: &str, server: Option<&str>, namespace: Option<&str>) -> String {
    let [found] = run(text, server, namespace).unwrap_err().try_into().unwrap();
    found
}

#[test]
fn other_documents_stay_to_the_byte() {
    let text = format!("{OTHERS}---\n{DEPLOYMENT}--- # last\n{OTHERS}...\n");
    let out = made(&text);
    let (before, rest) = out.split_once("---\n# Ours.\n").unwrap();
    assert_eq!(before, OTHERS);
    let (deployment, after) = rest.split_once("--- # last\n").unwrap();
    assert_eq!(after, format!("{OTHERS}...\n"));
    let value: Value = serde_saphyr::from_str(deployment).unwrap();
    let spec = &value["spec"]["template"]["spec"];
    let args = spec["initContainers"][0]["args"].as_array().unwrap();
    for word in ["http://127.0.0.1:9000/mcp", "server/team-a/search", "operator:9443"] {
        assert!(args.contains(&word.into()), "{word}");
    }
    // As kubectl reads them: octal is a number, quoted things are texts.
    assert_eq!(spec["volumes"][0]["secret"]["defaultMode"], 0o440);
    assert_eq!(spec["containers"][0]["env"][0]["value"], "yes");
    assert_eq!(spec["containers"][0]["env"][1]["value"], "0644");
}

#[test]
fn line_ends_and_json_stay_what_they_are() {
    let windows = made(&DEPLOYMENT.replace('\n', "\r\n"));
    assert!(windows.lines().count() > 20 && windows.matches('\n').count() == windows.matches("\r\n").count());
    let [piece] = text::pieces("in.yaml", DEPLOYMENT).unwrap().try_into().ok().unwrap();
    let json = made(&format!("{:#}\n", piece.value));
    assert!(serde_json::from_str::<Value>(&json).is_ok());
    assert!(made(&format!("--- {}", piece.value)).starts_with("---\n{\n"));
}

#[test]
fn the_server_may_come_from_the_command_line_for_one_deployment() {
    let plain = DEPLOYMENT.replace("  annotations: {mcpmesh.io/server: search}\n", "");
    let out = run(&plain, Some("found"), None).unwrap();
    assert!(out.contains("server/team-a/found") && out.contains("serviceAccountName: found-mcpserver"));
    assert_eq!(run(&out, Some("found"), None).as_ref(), Ok(&out));
    assert_eq!(
        error(&format!("{plain}---\n{plain}"), Some("found"), None),
        "in.yaml:24:9: error: metadata.name: Deployment search: a second Deployment for --server; add the annotation \
         mcpmesh.io/server to each that is meant"
    );
    assert!(error(&plain, None, None).starts_with("in.yaml: error: no Deployment is to have a proxy"));
}

#[test]
fn the_namespace_is_said_once() {
    let without = DEPLOYMENT.replace("  namespace: team-a\n", "");
    assert!(error(&without, None, None).contains("no namespace"));
    let out = run(&without, None, Some("team-b")).unwrap();
    assert!(out.contains("server/team-b/search") && !out.contains("namespace:"), "it stays unsaid: {out}");
    assert!(error(DEPLOYMENT, None, Some("team-b")).starts_with("in.yaml:6:14: error: metadata.namespace"));
}

#[test]
fn port_and_path_come_from_what_says_them_best() {
    let object = |sidecar: &str| {
        format!(
            "---\napiVersion: mcpmesh.io/v1alpha1\nkind: McpServer\nmetadata: {{name: search, namespace: team-a}}\n\
             spec: {{service: {{name: search, port: 80, path: /rpc{sidecar}}}}}\n"
        )
    };
    let with = |more: &str| DEPLOYMENT.replace("server: search}", &format!("server: search{more}}}"));
    assert!(
        made(&format!("{DEPLOYMENT}{}", object(", sidecar: Injected"))).contains("http://127.0.0.1:9000/rpc")
    );
    assert!(made(&with(", mcpmesh.io/path: /x, mcpmesh.io/port: '81'")).contains("http://127.0.0.1:81/x"));
    assert!(error(&format!("{DEPLOYMENT}{}", object("")), None, None).contains("sidecar: Injected"));
    assert!(
        error(&with(", mcpmesh.io/port: 81"), None, None).contains("put quotes around it"),
        "annotations are texts"
    );
    for reserved in RESERVED_PORTS {
        let said = error(&with(&format!(", mcpmesh.io/port: '{reserved}'")), None, None);
        assert!(said.contains("not a port") && said.contains(&reserved.to_string()), "{said}");
    }
    assert!(error(&with(", mcpmesh.io/path: x"), None, None).contains("not a path"));
    let several =
        DEPLOYMENT.replace("[{containerPort: 9000}]", "[{containerPort: 9000}, {containerPort: 1}]");
    assert!(error(&several, None, None).starts_with("in.yaml:13:7: error: spec.template.spec.containers"));
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let after = |text: &str| error(&format!("{OTHERS}---\n{text}"), None, None);
    let cases = [
        (
            DEPLOYMENT.replace("      volumes", "      hostNetwork: true\n      volumes"),
            "in.yaml:26:20: error: spec.template.spec.hostNetwork",
        ),
        (
            DEPLOYMENT.replace("9000", "nine"),
            "in.yaml:24:35: error: spec.template.spec.containers[0].ports[0].containerPort",
        ),
        (DEPLOYMENT.replace("kind: Deployment", "kind: StatefulSet"), "in.yaml:15:"),
        (DEPLOYMENT.replace("server: search}", "server: team-a/search}"), "in.yaml:15:"),
        (DEPLOYMENT.replace("server: search}", "server: 7}"), "in.yaml:15:"),
        (DEPLOYMENT.replace("{labels: {app: search}}", "{labels"), "in.yaml:"),
        (
            "kind: List\nitems: [{metadata: {annotations: {mcpmesh.io/server: x}}}]\n".to_owned(),
            "in.yaml:10:",
        ),
    ];
    for (text, expected) in cases {
        let found = after(&text);
        assert!(found.starts_with(expected), "{found}");
    }
}
