use super::*;

fn one(text: &str) -> String {
    let parsed = parse("a.yaml", text);
    assert_eq!(parsed.diagnostics.len(), 1, "{:?}", parsed.diagnostics);
    parsed.diagnostics[0].to_string()
}

const SERVER: &str = "apiVersion: mcpmesh.io/v1alpha1
kind: McpServer
metadata:
  name: time
spec:
  package:
    registry: PyPI
    name: mcp-server-time
    args: [--local-timezone, UTC]
";

const POLICY: &str = "apiVersion: mcpmesh.io/v1alpha1
kind: McpPolicy
metadata: {name: p, namespace: team-a}
spec:
  targetRefs:
    - {kind: McpGateway, name: main}
  access:
    - name: a
      effect: Allow
      from: [{anyone: {}}]
      to:
        tools: [x, y]
";

#[test]
fn an_object_knows_its_lines() {
    let parsed = parse("a.yaml", &format!("# a comment\n---\n{SERVER}---\n{POLICY}"));
    assert_eq!(parsed.diagnostics, []);
    let [server, policy] = &parsed.objects[..] else { panic!("{:?}", parsed.objects) };
    assert_eq!(server.reference, ObjectRef::new(ObjectKind::McpServer, "default", "time"));
    assert_eq!(server.location("spec.package.args[1]").to_string(), "a.yaml:11:30");
    assert_eq!(server.location("spec.package").to_string(), "a.yaml:8:3");
    assert_eq!(server.location("spec.package.version").to_string(), "a.yaml:8:3");
    assert_eq!(policy.location("spec.access[0].to.tools[1]").to_string(), "a.yaml:24:20");
    assert_eq!(policy.location("").to_string(), "a.yaml:13:1");
}

#[test]
fn json_is_read_as_well() {
    let text = "{\n\t\"apiVersion\": \"mcpmesh.io/v1alpha1\",\n\t\"kind\": \"McpGateway\",\n\t\"metadata\": {\"name\": \"g\"},\n\t\"spec\": {}\n}";
    let parsed = parse("a.json", text);
    assert_eq!(parsed.diagnostics, []);
    assert_eq!(parsed.objects[0].location("spec").to_string(), "a.json:5:2");
}

/// What `kubectl get -o yaml` adds to an object.
const FROM_A_CLUSTER: &str = "  annotations: {kubectl.kubernetes.io/last-applied-configuration: '{}'}
  creationTimestamp: 2026-11-26T10:00:00Z
  generation: 3
  managedFields:
  - {apiVersion: mcpmesh.io/v1alpha1, fieldsType: FieldsV1, fieldsV1: {'f:spec': {}}, manager: kubectl, operation: Apply}
  resourceVersion: '4711'
  uid: 0f0e0d0c-0b0a-0908-0706-050403020100
spec:";

#[test]
fn what_a_cluster_says_of_an_object_is_no_mistake() {
    let text =
        SERVER.replace("spec:", FROM_A_CLUSTER) + "status:\n  conditions: [{type: Ready, status: 'True'}]\n";
    let parsed = parse("a.yaml", &text);
    assert_eq!(parsed.diagnostics, []);
    assert_eq!(parsed.objects.len(), 1);
}

#[test]
fn a_list_is_its_objects_each_with_its_own_lines() {
    let item = |text: &str| format!("- {}", text.trim_end().replace('\n', "\n  "));
    let broken = SERVER.replace("time", "tide").replace("registry", "registri");
    let others: String =
        (0..10).map(|n| item(&SERVER.replace("name: time", &format!("name: t{n}"))) + "\n").collect();
    let text = format!("apiVersion: v1\nkind: List\nitems:\n{}\n{others}{}\n", item(&broken), item(POLICY));
    let parsed = parse("a.yaml", &text);
    assert_eq!(parsed.objects.len(), 11);
    assert_eq!(parsed.diagnostics.len(), 1, "{:?}", parsed.diagnostics);
    assert!(parsed.diagnostics[0].to_string().starts_with("a.yaml:10:7: error: McpServer default/tide: "));
    assert_eq!(parsed.objects[0].location("spec.package.args[1]").to_string(), "a.yaml:21:32");
    let at = parsed.objects[10].location("spec.access[0].to.tools[1]");
    assert_eq!(text.lines().nth(usize::try_from(at.line).unwrap() - 1).unwrap().trim(), "tools: [x, y]");
}

#[test]
fn a_list_of_one_kind_says_it_once() {
    let text = "apiVersion: v1\nkind: SecretList\nitems:\n- metadata: {name: s}\n  data: {a: Y2FuYXJ5}\n";
    let parsed = parse("a.yaml", text);
    assert_eq!(parsed.diagnostics, []);
    assert_eq!(parsed.objects[0].reference, ObjectRef::new(ObjectKind::Secret, "default", "s"));
    let empty = parse("a.yaml", "apiVersion: mcpmesh.io/v1alpha1\nkind: McpServerList\nitems: []\n");
    assert!(empty.objects.is_empty() && empty.diagnostics.is_empty());
    assert!(one("apiVersion: mcpmesh.io/v1alpha1\nkind: McpServerList\n").contains("the list has no items"));
    assert!(one("apiVersion: v1\nkind: ServiceList\nitems: []\n").contains("is not read: skipped"));
}

#[test]
fn an_unknown_field_is_an_error_at_its_line_with_the_field_that_was_meant() {
    let text = POLICY.replace("tools:", "tool:");
    assert_eq!(
        one(&text),
        "a.yaml:12:9: error: McpPolicy team-a/p: spec.access[0].to.tool: unknown field `tool`, expected one of \
         `servers`, `tools`, `prompts`, `resources`, `methods`, `annotations`; did you mean `tools`?"
    );
}

#[test]
fn unknown_fields_are_errors_at_every_level() {
    for (from, to) in
        [("spec:", "sepc:"), ("metadata:", "metdata:"), ("name: time", "nam: time"), ("  args", "  arg")]
    {
        let parsed = parse("a.yaml", &SERVER.replace(from, to));
        assert_eq!((parsed.objects.len(), parsed.diagnostics.len()), (0, 1), "{to}");
    }
    let labels = SERVER.replace("name: time", "name: time\n  lables: {a: b}");
    assert!(one(&labels).ends_with("unknown field `lables`; did you mean `labels`?"));
}

#[test]
fn a_wrong_value_says_what_is_expected() {
    assert_eq!(
        one(&SERVER.replace("PyPI", "Pypi")),
        "a.yaml:7:15: error: McpServer default/time: spec.package.registry: unknown variant `Pypi`, expected `Npm` or \
         `PyPI`; did you mean `PyPI`?"
    );
    assert_eq!(
        one(&SERVER.replace("[--local-timezone, UTC]", "[8080]")),
        "a.yaml:9:12: error: McpServer default/time: spec.package.args[0]: invalid type: integer `8080`, expected a \
         string; put quotes around it"
    );
}

#[test]
fn a_document_with_a_mistake_leaves_the_others_alone() {
    let parsed = parse("a.yaml", &format!("{}---\n{POLICY}", SERVER.replace("PyPI", "Cargo")));
    assert_eq!((parsed.objects.len(), parsed.diagnostics.len()), (1, 1));
}

#[test]
fn other_kinds_are_skipped_with_a_note_and_unknown_ones_of_ours_are_errors() {
    assert_eq!(
        one("apiVersion: v1\nkind: Service\nmetadata: {name: a}"),
        "a.yaml:1:1: note: v1 Service is not read: skipped"
    );
    assert_eq!(one("services: {a: b}"), "a.yaml:1:1: note: not a Kubernetes object: skipped");
    let wrong = one(&SERVER.replace("McpServer", "MCPServer"));
    assert!(wrong.ends_with("unknown kind `MCPServer`; did you mean `McpServer`?"), "{wrong}");
    let old = one(&SERVER.replace("v1alpha1", "v1"));
    assert!(old.ends_with("unknown version `v1`; use `mcpmesh.io/v1alpha1`"), "{old}");
}

#[test]
fn what_was_meant_as_a_secret_is_not_skipped() {
    for (wrong, help) in [
        ("apiVersion: v1\nkind: Secrets", "unknown kind `Secrets`; did you mean `Secret`?"),
        ("apiVersion: v1\nkind: secret", "unknown kind `secret`; did you mean `Secret`?"),
        ("apiVersion: core/v1\nkind: Secret", "`core/v1` has no kind that mcpmesh reads; use `v1`"),
    ] {
        let message = one(&format!("{wrong}\nmetadata: {{name: s}}\n"));
        assert!(message.ends_with(help), "{message}");
    }
    for other in ["Service", "Event", "ServiceAccount"] {
        let message = one(&format!("apiVersion: v1\nkind: {other}\nmetadata: {{name: s}}\n"));
        assert!(message.contains("is not read: skipped"), "{message}");
    }
}

#[test]
fn broken_text_says_where() {
    let parsed = parse("a.yaml", "a: b\n c: [d\n");
    assert_eq!(parsed.diagnostics.len(), 1);
    assert_eq!(parsed.diagnostics[0].reason, Reason::InvalidSyntax);
    assert!(parsed.diagnostics[0].location.as_ref().is_some_and(|location| location.line > 0));
}

#[test]
fn a_key_twice_is_an_error() {
    let parsed = parse("a.yaml", &SERVER.replace("name: time", "name: time\n  name: tide"));
    assert_eq!(parsed.diagnostics[0].reason, Reason::InvalidSyntax, "{:?}", parsed.diagnostics);
    assert!(parsed.objects.is_empty());
}

#[test]
fn a_secret_decodes_and_its_values_stay_out_of_every_text() {
    let text =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: Y2FuYXJ5}\nstringData: {b: canary}\n";
    let parsed = parse("a.yaml", text);
    let Object::Secret(secret) = &parsed.objects[0].object else { panic!("{:?}", parsed.objects) };
    assert_eq!(secret.data["a"], secret.data["b"]);
    assert!(!format!("{parsed:?}").contains("canary"));
    for wrong in ["data: {a: canary!}", "stringData: {a: 424242}", "data: canary", "stringData: [canary]"] {
        let text = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n{wrong}\n");
        let message = one(&text);
        assert!(!message.contains("canary") && !message.contains("424242"), "{message}");
    }
}

#[test]
fn a_config_map_has_its_texts_and_the_names_of_its_bytes() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\nimmutable: true\n\
                data: {a: 'yes', b: \"1\\n2\"}\nbinaryData: {c: AAEC}\n";
    let parsed = parse("a.yaml", text);
    assert_eq!(parsed.diagnostics, []);
    let Object::ConfigMap(map) = &parsed.objects[0].object else { panic!("{:?}", parsed.objects) };
    assert_eq!((map.data["a"].as_str(), map.data["b"].as_str()), ("yes", "1\n2"));
    assert_eq!(map.binary.iter().collect::<Vec<_>>(), ["c"]);
    assert_eq!(parsed.objects[0].location("data.b").to_string(), "a.yaml:5:21");
}

#[test]
fn a_config_map_that_kubernetes_refuses_is_refused_where_it_stands() {
    for (wrong, message) in [
        (
            "data: {a: 8080}",
            "4:11: error: ConfigMap default/c: data.a: the value is not a string; put quotes around it",
        ),
        ("data: [a]", "4:1: error: ConfigMap default/c: data: not a mapping; write `key: value` under it"),
        (
            "dta: {a: b}",
            "4:1: error: ConfigMap default/c: dta: unknown field `dta`, expected one of `apiVersion`, `kind`, `metadata`, `immutable`, `data`, `binaryData`; did you mean `data`?",
        ),
        (
            "binaryData: {a: '%'}",
            "4:17: error: ConfigMap default/c: binaryData.a: the value is not base64; encode it, or put the plain text under data",
        ),
        (
            "data: {a: b}\nbinaryData: {a: AAEC}",
            "5:17: error: ConfigMap default/c: binaryData.a: the key is under data, too; remove one",
        ),
    ] {
        let found = one(&format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\n{wrong}\n"));
        assert_eq!(found, format!("a.yaml:{message}"), "{wrong}");
    }
}

#[test]
fn names_that_kubernetes_refuses_are_refused() {
    for name in ["a/b", "A", "\"a b\"", "-a", "\"a\\u001b[31m\"", "\"\""] {
        let parsed = parse("a.yaml", &SERVER.replace("time\nspec", &format!("{name}\nspec")));
        assert_eq!((parsed.objects.len(), parsed.diagnostics.len()), (0, 1), "{name}");
    }
}

#[test]
fn words_that_old_yaml_took_for_booleans_are_words() {
    let parsed = parse("a.yaml", &SERVER.replace("[--local-timezone, UTC]", "[y, no, on, 'true']"));
    assert_eq!(parsed.diagnostics, []);
}

#[test]
fn bombs_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let inner = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", inner.trim_end_matches(", ")));
    }
    assert_eq!(parse("a.yaml", &bomb).diagnostics[0].reason, Reason::InvalidSyntax);
    assert_eq!(parse("a.yaml", &"[".repeat(100_000)).diagnostics[0].reason, Reason::InvalidSyntax);
}

#[test]
fn the_same_object_twice_is_a_diagnostic_and_the_first_stands() {
    let first = parse("a.yaml", SERVER);
    let second = parse("b.yaml", &SERVER.replace("mcp-server-time", "other"));
    let objects: Vec<_> = first.objects.into_iter().chain(second.objects).collect();
    let (inputs, diagnostics) = gather(&objects, Install::default());
    assert_eq!(
        diagnostics[0].to_string(),
        "b.yaml:4:9: error: McpServer default/time: this object is already at a.yaml:4:9; rename one of them, or remove it"
    );
    let server = inputs.servers().next().and_then(|(_, server)| server.spec.package.as_ref());
    assert_eq!(server.map(|package| package.name.as_str()), Some("mcp-server-time"));
}

#[test]
fn a_text_cannot_write_to_the_terminal_through_a_diagnostic() {
    for text in [
        SERVER.replace("  args", "  \"\\e[31m\\nerror: forged\""),
        SERVER.replace("PyPI", "\"\\e[31m\\nforged\""),
        SERVER.replace("McpServer", "\"Mcp\\e[31mServer\""),
        "apiVersion: \"a\\nb\"\nkind: c".to_owned(),
    ] {
        let message = one(&text);
        assert!(!message.contains(char::is_control), "{message:?}");
    }
}

#[test]
fn a_number_for_a_duration_says_how_to_write_it() {
    let limits = "  limits:\n  - {name: l, requests: {count: 1, window: 60}}\n";
    let said = one(&format!("{POLICY}{limits}"));
    assert!(
        said.ends_with("window: invalid type: integer `60`, expected a duration such as 5s; write `60s`"),
        "{said}"
    );
    let said = one(&SERVER.replace("spec:", "spec:\n  timeouts: {connect: 5}"));
    assert!(said.ends_with("; write `5s`"), "{said}");
}

#[test]
fn a_name_that_is_no_text_is_told_apart_from_none() {
    let said = |name: &str| one(&SERVER.replace("name: time", name));
    assert_eq!(said("name: 12"), "a.yaml:4:9: error: metadata.name: not a string; put quotes around it",);
    assert_eq!(said("labels: {}"), "a.yaml:3:1: error: metadata: name is missing; add metadata.name");
}

#[test]
fn what_cannot_be_read_says_which_object_it_is_and_what_it_may_close() {
    let unread = |text: &str| {
        let mut parsed = parse("a.yaml", text);
        assert_eq!((parsed.objects.len(), parsed.unread.len()), (0, 1), "{text}");
        parsed.unread.remove(0)
    };
    let policy = ObjectRef::new(ObjectKind::McpPolicy, "team-a", "p");
    let closing = |text: &str| {
        let unread = unread(text);
        assert_eq!(unread.reference.as_ref(), Some(&policy), "{text}");
        unread.targets.iter().map(|target| format!("{:?} {}", target.kind, target.name)).collect::<Vec<_>>()
    };
    let broken = POLICY.replace("Allow", "Alow");
    assert_eq!(closing(&broken), ["McpGateway main"]);
    assert_eq!(unread(&broken).location.to_string(), "a.yaml:9:15");
    assert_eq!(closing(&broken.replace("kind: McpGateway", "kind: McpGatway")), ["Namespace team-a"]);
    assert_eq!(closing(&POLICY.replace("targetRefs", "targets")), ["Namespace team-a"]);
    assert!(closing(&broken.replace("spec:", "spec:\n  mode: Audit")).is_empty());
    // Another field has nothing to do with which object it is.
    assert_eq!(closing(&POLICY.replace("team-a}", "team-a, lables: {}}")), ["McpGateway main"]);
    let lables = unread(&POLICY.replace("namespace: team-a", "lables: {}"));
    assert_eq!(lables.reference, Some(ObjectRef::new(ObjectKind::McpPolicy, "default", "p")));
    for (text, kind) in [
        (SERVER.replace("name: time", "nam: time"), Some(ObjectKind::McpServer)),
        (POLICY.replace("name: p", "name: P_"), Some(ObjectKind::McpPolicy)),
        (POLICY.replace("namespace: team-a", "namespce: team-a"), Some(ObjectKind::McpPolicy)),
        (POLICY.replace("namespace: team-a", "ns: team-a"), Some(ObjectKind::McpPolicy)),
        (POLICY.replace("namespace: team-a", "namespace:"), Some(ObjectKind::McpPolicy)),
        (POLICY.replace("namespace: team-a", "namespace: 7"), Some(ObjectKind::McpPolicy)),
        (SERVER.replace("kind: McpServer", "kind: McpServr"), None),
        ("a: [".to_owned(), None),
    ] {
        let unread = unread(&text);
        assert_eq!((unread.kind, unread.reference), (kind, None), "{text}");
    }
    // What is not ours is no gap.
    assert!(
        parse("a.yaml", "services: {}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\n")
            .unread
            .is_empty()
    );
}

#[test]
fn a_list_of_fields_is_no_mapping_as_in_a_cluster() {
    let listed = SERVER.replace(
        "    registry: PyPI\n    name: mcp-server-time\n    args: [--local-timezone, UTC]\n",
        "    - PyPI\n    - mcp-server-time\n    - \"1\"\n    - []\n    - []\n    - []\n",
    );
    let said = "a.yaml:6:3: error: McpServer default/time: spec.package: invalid type: sequence, expected a mapping; write its fields";
    assert_eq!(one(&listed), said);
    let listed = POLICY.replace("[{anyone: {}}]", "[{anyone: []}]");
    assert!(
        one(&listed).contains("spec.access[0].from[0].anyone: invalid type: sequence, expected a mapping")
    );
}

#[test]
fn a_wrong_type_is_told_in_words_of_yaml_with_what_to_write() {
    let server = |field: &str| one(&format!("{SERVER}  {field}\n"));
    let policy = |from: &str, to: &str| one(&POLICY.replace(from, to));
    for (said, wanted) in [
        (
            server("tools: {include: search}"),
            "spec.tools.include: invalid type: string \"search\", expected a list; write [\"search\"]",
        ),
        (server("tools: 5"), "spec.tools: invalid type: integer `5`, expected a mapping; write its fields"),
        (server("timeouts: {connect: 5}"), "expected a duration such as 5s; write `5s`"),
        (
            policy("{anyone: {}}", "{anyone: true}"),
            "anyone: invalid type: boolean `true`, expected a mapping; write `{}`",
        ),
        (policy("      from: [{anyone: {}}]\n", ""), "spec.access[0]: missing field `from`; add it"),
        (
            one(&format!("{POLICY}  limits: [{{name: l, requests: {{count: -5, window: 1m}}}}]\n")),
            "count: invalid value: integer `-5`, expected a whole number",
        ),
    ] {
        assert!(said.ends_with(wanted), "{said}");
    }
}

#[test]
fn a_text_that_is_too_large_is_told_to_be_split() {
    let said = one(&"---\na: 1\n".repeat(2000));
    assert!(said.ends_with("YAML document too large or too complex; split it into several files"), "{said}");
}
