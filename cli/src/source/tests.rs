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
    let loaded = load(&Source::Client { file: folder.path().join(".mcp.json"), own: 8080 }, [0; 32]).unwrap();
    let names: Vec<_> = loaded.inputs.servers().map(|(id, _)| id.name.as_str()).collect();
    assert_eq!(names, ["other"]);
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
fn what_is_said_of_a_clients_configuration_names_no_line_of_another_text() {
    let text = r#"{"mcpServers": {
        "unpinned": {"command": "npx", "args": ["-y", "fake"]},
        "local": {"command": "node", "args": ["x.js"]}}}"#;
    let folder = folder(&[(".mcp.json", text)]);
    let loaded = load(&find(&[folder.path().to_owned()]).unwrap(), [0; 32]).unwrap();
    let places: Vec<_> = loaded.diagnostics.iter().filter_map(|found| found.location.as_ref()).collect();
    assert!(places.len() >= 2, "{:?}", loaded.diagnostics);
    assert!(places.iter().all(|place| place.file.ends_with(".mcp.json") && place.line == 0), "{places:?}");
    assert!(loaded.has_errors() && !loaded.unreadable, "{:?}", loaded.diagnostics);
    assert_eq!(loaded.inputs.servers().count(), 1);
}

#[test]
fn a_file_that_is_named_twice_is_one_file() {
    let folder = folder(&[("a.yaml", SERVER)]);
    let (file, around) = (folder.path().join("a.yaml"), folder.path().join(".").join("a.yaml"));
    std::os::unix::fs::symlink(&file, folder.path().join("b.yaml")).unwrap();
    let loaded = load(&Source::Manifests(vec![file, around, folder.path().to_owned()]), [0; 32]).unwrap();
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
}
