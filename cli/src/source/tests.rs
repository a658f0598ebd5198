use super::*;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn read(folder: &tempfile::TempDir) -> Loaded {
    load(&Source::Manifests(vec![folder.path().to_owned()]), [0; 32]).unwrap()
}

const SERVER: &str = "apiVersion: mcpmesh.io/v1alpha1\nkind: McpServer\nmetadata: {name: a}\nspec: {remote: {url: https://x.example/mcp}}\n";

#[test]
fn a_folder_means_its_own_yaml() {
    let folder =
        folder(&[("b.yml", ""), ("a.yaml", ""), (".hidden.yaml", ""), ("c.json", "{"), ("d.txt", "x")]);
    std::fs::create_dir(folder.path().join("sub.yaml")).unwrap();
    let found = files(&[folder.path().to_owned()]).unwrap();
    let names: Vec<_> = found.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["a.yaml", "b.yml"]);
}

#[test]
fn a_path_that_is_not_there_is_named() {
    let error = load(&Source::Manifests(vec!["/no/such".into()]), [0; 32]).unwrap_err();
    assert!(error.to_string().contains("/no/such"));
}

#[test]
fn a_gateway_that_cannot_be_read_opens_nothing() {
    let broken =
        "apiVersion: mcpmesh.io/v1alpha1\nkind: McpGateway\nmetadata: {name: g}\nspec: {nonsense: 1}\n";
    for text in
        [broken, "a: [", "apiVersion: mcpmesh.io/v1alpha1\nkind: McpGatway\nmetadata: {name: g}\nspec: {}\n"]
    {
        let loaded = read(&folder(&[("a.yaml", SERVER), ("b.yaml", text)]));
        assert!(loaded.unreadable && !loaded.is_open() && loaded.has_errors(), "{text}");
    }
}

#[test]
fn of_two_policies_of_one_name_neither_is_taken_for_both() {
    let policy = |effect: &str| {
        format!(
            "apiVersion: mcpmesh.io/v1alpha1\nkind: McpPolicy\nmetadata: {{name: p}}\nspec:\n  \
             targetRefs: [{{kind: Namespace, name: default}}]\n  access:\n  \
             - {{name: r, effect: {effect}, from: [{{anyone: {{}}}}]}}\n"
        )
    };
    let folder = folder(&[("a.yaml", &policy("Allow")), ("b.yaml", &policy("Deny"))]);
    assert!(read(&folder).unreadable);
}

#[test]
fn a_server_that_cannot_be_read_stops_nobody_else() {
    let broken = SERVER.replace("url", "uri");
    let loaded = read(&folder(&[("a.yaml", SERVER), ("b.yaml", &broken)]));
    assert!(!loaded.unreadable && loaded.is_open() && loaded.has_errors());
    assert_eq!(loaded.inputs.servers().count(), 1);
}

#[test]
fn a_clients_configuration_does_not_lead_back_to_us() {
    let text = r#"{"mcpServers": {
        "mcpmesh": {"url": "http://127.0.0.1:8080/mcp"},
        "other": {"url": "http://localhost:8081/mcp"}}}"#;
    let folder = folder(&[(".mcp.json", text)]);
    assert!(matches!(find(&[folder.path().to_owned()]), Ok(Source::Client { .. })));
    let loaded =
        load(&Source::Client { file: folder.path().join(".mcp.json"), own: 8080, beside: vec![] }, [0; 32])
            .unwrap();
    let names: Vec<_> = loaded.inputs.servers().map(|(id, _)| id.name.as_str()).collect();
    assert_eq!(names, ["other"]);
}

const OURSELVES: &str =
    r#"{"mcpServers": {"mcpmesh": {"type": "http", "url": "http://127.0.0.1:8080/mcp"}}}"#;
const OTHER: &str = r#"{"mcpServers": {"other": {"url": "https://x.example/mcp"}}}"#;

fn said(folder: &tempfile::TempDir) -> String {
    find(&[folder.path().to_owned()])
        .unwrap_err()
        .to_string()
        .replace(&folder.path().display().to_string(), "DIR")
}

#[test]
fn a_clients_configuration_that_is_only_ourselves_hides_no_other() {
    let folder = folder(&[(".mcp.json", OURSELVES)]);
    let nothing =
        "no objects found: there is no YAML in DIR, and DIR/.mcp.json has no server but mcpmesh itself";
    assert_eq!(said(&folder), nothing);
    std::fs::create_dir(folder.path().join(".cursor")).unwrap();
    std::fs::write(folder.path().join(".cursor/mcp.json"), OTHER).unwrap();
    let found = find(&[folder.path().to_owned()]).unwrap();
    assert!(matches!(&found, Source::Client { file, .. } if file.ends_with(".cursor/mcp.json")), "{found:?}");
    // One that cannot be read is not passed over.
    std::fs::write(folder.path().join(".mcp.json"), "{").unwrap();
    let found = find(&[folder.path().to_owned()]).unwrap();
    assert!(matches!(&found, Source::Client { file, .. } if file.ends_with(".mcp.json")), "{found:?}");
}

#[test]
fn yaml_of_others_is_no_configuration_and_is_said_to_be_left_aside() {
    let compose = "services:\n  web: {image: nginx}\n";
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n";
    let folder =
        folder(&[("docker-compose.yml", compose), ("empty.yaml", ""), ("deployment.yaml", deployment)]);
    assert_eq!(
        said(&folder),
        "no objects found: no McpServer, McpGateway, McpPolicy or Secret is in DIR/deployment.yaml, \
         DIR/docker-compose.yml, DIR/empty.yaml, nor is there any of .mcp.json, .cursor/mcp.json, .vscode/mcp.json"
    );
    std::fs::write(folder.path().join(".mcp.json"), OTHER).unwrap();
    let loaded = load(&find(&[folder.path().to_owned()]).unwrap(), [0; 32]).unwrap();
    assert_eq!(loaded.inputs.servers().count(), 1);
    let notes: Vec<_> = loaded.diagnostics.iter().map(ToString::to_string).collect();
    let aside =
        "docker-compose.yml: note: left aside: no McpServer, McpGateway, McpPolicy or Secret is in it";
    assert!(notes.iter().filter(|note| note.contains("left aside")).count() == 3, "{notes:?}");
    assert!(notes.iter().any(|note| note.ends_with(aside)), "{notes:?}");
    // What cannot be read may be ours.
    for text in ["a: [", "apiVersion: mcpmesh.io/v1alpha1\nkind: McpGatway\n", SERVER] {
        std::fs::write(folder.path().join("empty.yaml"), text).unwrap();
        assert!(matches!(find(&[folder.path().to_owned()]), Ok(Source::Manifests(_))), "{text}");
    }
}

#[test]
fn yaml_of_ours_that_comes_beside_a_clients_configuration_is_said_not_to_be_in_force() {
    let folder = folder(&[(".mcp.json", OTHER)]);
    let source = find(&[folder.path().to_owned()]).unwrap();
    let first = load(&source, [0; 32]).unwrap();
    let key = "apiVersion: v1\nkind: Secret\nmetadata: {name: k}\nstringData: {key: k}\n";
    std::fs::write(folder.path().join("ann.yaml"), key).unwrap();
    let loaded = reload(&source, [0; 32], &first).unwrap();
    let said: Vec<_> = loaded.diagnostics.iter().map(ToString::to_string).collect();
    assert!(loaded.is_same(&first) && said[0].contains("ann.yaml: warning: not in force: "), "{said:?}");
}

#[test]
fn a_secret_that_cannot_be_read_may_be_the_key_and_opens_nothing() {
    let key = "apiVersion: v1\nkind: Secret\nmetadata: {name: k, labels: {mcpmesh.io/api-key: 'true'}, \
               annotations: {mcpmesh.io/owner: ann}}\nstringData: {key: 0123456789abcdef}\n";
    let plain = "apiVersion: v1\nkind: Secret\nmetadata: {name: k}\nstringData: {token: t}\n";
    let broken = key.replace("stringData", "data").replace("0123456789abcdef", "'%'");
    let bad_name = key.replace("name: k", "name: Key_1");
    let cases = [
        vec![("k.yaml", key)],
        vec![("k.yaml", broken.as_str())],
        vec![("k.yaml", bad_name.as_str())],
        vec![("j.yaml", plain), ("k.yaml", key)],
    ];
    for mut case in cases {
        case.push(("a.yaml", SERVER));
        let loaded = read(&folder(&case));
        assert!(!loaded.is_open(), "{case:?}");
        assert!(!loaded.compiled.snapshots.is_empty(), "the server is there, closed: {case:?}");
    }
    assert!(read(&folder(&[("a.yaml", SERVER), ("k.yaml", plain)])).is_open());
}

#[test]
fn what_is_said_of_a_clients_configuration_names_the_line_of_the_entry_and_what_to_do() {
    let text = r#"{"mcpServers": {
        "unpinned": {"command": "npx", "args": ["-y", "fake"]},
        // Not ours.
        "local": {"command": "node", "args": ["x.js"]},
      "odd": {"args": 3}, "empty": {},
        "unset": {"command": "npx", "args": ["x@1"], "env": {"TOKEN": "${MCPMESH_TEST_UNSET}"}}}}"#;
    let folder = folder(&[(".mcp.json", text)]);
    let loaded = load(&find(&[folder.path().to_owned()]).unwrap(), [0; 32]).unwrap();
    let said: Vec<_> = loaded.diagnostics.iter().map(ToString::to_string).collect();
    for (place, what) in [
        ("2:9: note: McpServer default/unpinned", "; write NAME@VERSION or NAME==VERSION in its args"),
        ("4:9: error: McpServer default/local", ": use its npm or PyPI package, or a container image"),
        ("5:7: error: McpServer default/odd", "; write it as a list, such as [a, b]"),
        ("5:27: error: McpServer default/empty", ": give it one of them"),
        (
            "6:9: error: Secret default/unset-secrets",
            "; set it before `mcpmesh`: export MCPMESH_TEST_UNSET=...",
        ),
    ] {
        let found = said.iter().find(|said| said.contains(&format!(".mcp.json:{place}")));
        assert!(found.is_some_and(|said| said.ends_with(what)), "{place}: {said:#?}");
    }
    assert!(loaded.has_errors() && !loaded.unreadable, "{said:#?}");
    assert_eq!(loaded.inputs.servers().count(), 2);
}

#[test]
fn a_file_that_is_named_twice_is_one_file() {
    let folder = folder(&[("a.yaml", SERVER)]);
    let (file, around) = (folder.path().join("a.yaml"), folder.path().join(".").join("a.yaml"));
    std::os::unix::fs::symlink(&file, folder.path().join("b.yaml")).unwrap();
    let loaded = load(&Source::Manifests(vec![file, around, folder.path().to_owned()]), [0; 32]).unwrap();
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
}
