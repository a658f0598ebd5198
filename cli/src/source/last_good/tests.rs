use std::fs;

use mcpmesh_compiler::Reason;
use mcpmesh_ir::catalog::Hints;
use mcpmesh_ir::policy::{Identity, Issuer, Object as Asked, Prepared, Target, decide};
use mcpmesh_ir::resource::Body;
use mcpmesh_ir::{ApiKey, Gateway, Policy, ServerId};

use crate::source::{Source, load, reload};

use super::*;

const SERVER: &str = "apiVersion: mcpmesh.io/v1alpha1\nkind: McpServer\nmetadata: {name: a}\nspec: {remote: {url: https://x.example/mcp}}\n";
const GATEWAY: &str = "apiVersion: mcpmesh.io/v1alpha1\nkind: McpGateway\nmetadata: {name: g}\nspec: {authentication: {apiKeys: {}}}\n";
const KEY: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: ann, labels: {mcpmesh.io/api-key: 'true'}, annotations: {mcpmesh.io/owner: ann}}\nstringData: {key: 0123456789abcdef}\n";
/// Everyone may, but for `pay`.
const POLICY: &str = "apiVersion: mcpmesh.io/v1alpha1\nkind: McpPolicy\nmetadata: {name: p}\nspec:\n  targetRefs: [{kind: McpGateway, name: g}]\n  access:\n  - {name: allow, effect: Allow, from: [{authenticated: {}}]}\n  - {name: deny, effect: Deny, from: [{anyone: {}}], to: {tools: [pay]}}\n";
const GARBAGE: &str = "kind: [";

/// A folder, and what is in force of it.
struct Folder {
    folder: tempfile::TempDir,
    last: Loaded,
}

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| fs::write(folder.path().join(name), text).unwrap());
        let last = load(&Source::Manifests(vec![folder.path().to_owned()]), [0; 32]).unwrap();
        assert!(!last.has_errors(), "{:?}", last.diagnostics);
        Self { folder, last }
    }

    /// Writes files, and removes those without a text; then reads again.
    fn change(&mut self, files: &[(&str, Option<&str>)]) -> &Loaded {
        for (name, text) in files {
            let file = self.folder.path().join(name);
            text.map_or_else(|| fs::remove_file(&file), |text| fs::write(&file, text)).unwrap();
        }
        let source = Source::Manifests(vec![self.folder.path().to_owned()]);
        self.last = reload(&source, [0; 32], &self.last).unwrap();
        &self.last
    }
}

fn all<B: Body>(loaded: &Loaded) -> Vec<B> {
    let snapshots = loaded.compiled.snapshots.values();
    snapshots.flat_map(|one| one.of_kind(B::KIND)).map(|resource| resource.decode().unwrap()).collect()
}

fn owners(loaded: &Loaded) -> Vec<String> {
    all::<ApiKey>(loaded).into_iter().map(|key| key.owner).collect()
}

/// Whether a holder of a key may call this tool of the server `a`.
fn may(loaded: &Loaded, tool: &str) -> bool {
    may_in("default", loaded, tool)
}

fn may_in(namespace: &str, loaded: &Loaded, tool: &str) -> bool {
    let Some(gateway) = all::<Gateway>(loaded).pop() else { return false };
    let policies = all::<Policy>(loaded).into_iter().map(|policy| (policy.id.clone(), policy)).collect();
    let (prepared, _) = Prepared::new(&gateway, &policies);
    let user = Some("ann".to_owned());
    let who = Identity { gateway: gateway.id, issuer: Issuer::ApiKey, user, groups: Vec::new() };
    let object = Asked::Tool { name: tool, pinned: Hints::default(), claimed: Hints::default() };
    let target = Target { server: &ServerId::new(namespace, "a"), method: "tools/call", object };
    decide(&prepared, &prepared.caller(who), &target).allowed()
}

fn held(loaded: &Loaded) -> Vec<String> {
    loaded.held().collect()
}

const GOOD: [(&str, &str); 4] =
    [("a.yaml", SERVER), ("g.yaml", GATEWAY), ("p.yaml", POLICY), ("ann.yaml", KEY)];

#[test]
fn a_mistake_in_a_policy_keeps_that_policy_and_revokes_all_the_same() {
    let mistake = POLICY.replace("Allow", "Alow");
    for text in
        [mistake.as_str(), GARBAGE, "apiVersion: mcpmesh.io/v1alpha1\nkind: McpPolcy\nmetadata: {name: p}"]
    {
        let mut folder = Folder::new(&GOOD);
        assert_eq!(owners(&folder.last), ["ann"]);
        let loaded = folder.change(&[("p.yaml", Some(text)), ("ann.yaml", None)]);
        assert_eq!(owners(loaded), [""; 0], "{text}");
        assert!(may(loaded, "get") && !may(loaded, "pay"), "{text}");
        let [said] = &held(loaded)[..] else { panic!("{:?}", held(loaded)) };
        assert!(
            said.starts_with("McpPolicy default/p stays as it was: mend ") && said.contains("p.yaml:"),
            "{said}"
        );
        assert!(loaded.has_errors() && !loaded.unreadable);
        let loaded = folder.change(&[("p.yaml", Some(&POLICY.replace("pay", "send")))]);
        assert!(held(loaded).is_empty() && may(loaded, "pay") && !may(loaded, "send"));
    }
}

#[test]
fn a_file_that_is_not_utf8_keeps_its_objects() {
    let mut folder = Folder::new(&GOOD);
    fs::write(folder.folder.path().join("p.yaml"), [0xff]).unwrap();
    let loaded = folder.change(&[("ann.yaml", None)]);
    assert!(owners(loaded).is_empty() && may(loaded, "get") && !may(loaded, "pay"));
}

#[test]
fn a_link_that_leads_nowhere_keeps_what_it_led_to() {
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("p.yaml");
    let mut folder = Folder::new(&GOOD);
    let link = folder.folder.path().join("p.yaml");
    fs::rename(&link, &target).unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    assert!(!may(folder.change(&[]), "pay"));
    fs::remove_file(&target).unwrap();
    let loaded = folder.change(&[("ann.yaml", None)]);
    assert!(may(loaded, "get") && !may(loaded, "pay") && owners(loaded).is_empty());
    let said = loaded.diagnostics.iter().map(ToString::to_string).collect::<String>();
    assert!(said.contains("p.yaml: error: it cannot be read: "), "{said}");
    assert!(!may(folder.change(&[("p.yaml", None)]), "get"), "now it is gone for certain");
}

#[test]
fn a_path_that_is_gone_keeps_its_objects_and_no_others() {
    let (mesh, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (name, text) in [("a.yaml", SERVER), ("g.yaml", GATEWAY), ("p.yaml", POLICY)] {
        fs::write(mesh.path().join(name), text).unwrap();
    }
    fs::write(keys.path().join("ann.yaml"), KEY).unwrap();
    let source = Source::Manifests([&mesh, &keys].map(|folder| folder.path().to_owned()).to_vec());
    let first = load(&source, [0; 32]).unwrap();
    assert_eq!((owners(&first), may(&first, "get")), (vec!["ann".to_owned()], true));
    mesh.close().unwrap();
    fs::remove_file(keys.path().join("ann.yaml")).unwrap();
    let second = reload(&source, [0; 32], &first).unwrap();
    let third = reload(&source, [0; 32], &second).unwrap();
    for loaded in [&second, &third] {
        assert!(owners(loaded).is_empty() && may(loaded, "get") && !may(loaded, "pay"));
        assert_eq!(held(loaded).len(), 3, "{:?}", held(loaded));
    }
    keys.close().unwrap();
    assert!(may(&reload(&source, [0; 32], &third).unwrap(), "get"));
    assert!(load(&source, [0; 32]).is_err());
}

#[test]
fn every_kind_of_object_stays_as_it_was_read_last() {
    let mut folder = Folder::new(&GOOD);
    let before = folder.last.compiled.snapshots.clone();
    let loaded = folder.change(&[
        ("a.yaml", Some(&SERVER.replace("url", "uri"))),
        ("g.yaml", Some(&GATEWAY.replace("apiKeys", "apiKey"))),
        ("p.yaml", Some(&POLICY.replace("Deny", "deny"))),
        ("ann.yaml", Some(&KEY.replace("stringData", "data").replace("0123456789abcdef", "'%'"))),
    ]);
    assert_eq!(loaded.compiled.snapshots, before);
    assert_eq!(held(loaded).len(), 4, "{:?}", held(loaded));
}

#[test]
fn a_policy_that_was_never_read_closes_what_it_targets_until_it_is() {
    let more = POLICY.replace("name: p}", "name: q}").replace("Allow", "Alow");
    for text in [more.clone(), more.replace("targetRefs", "targetRef"), more.replace("name: g}", "nam: g}")] {
        let mut folder = Folder::new(&GOOD);
        let loaded = folder.change(&[("q.yaml", Some(&text))]);
        assert!(!may(loaded, "get"), "{text}");
        let closed = loaded.diagnostics.iter().find(|found| found.path.is_empty()).unwrap().to_string();
        assert!(closed.contains("q.yaml:") && closed.contains("McpPolicy default/q: "), "{closed}");
        assert!(may(folder.change(&[("a.yaml", Some(SERVER)), ("q.yaml", None)]), "get"), "{text}");
    }
    let watching = more.replace("spec:", "spec:\n  mode: Audit");
    assert!(may(Folder::new(&GOOD).change(&[("q.yaml", Some(&watching))]), "get"));
}

/// [`POLICY`] in two: one policy allows, and a file of its own denies.
fn denied_elsewhere() -> Folder {
    let (allow, deny) = (POLICY.replace("[pay]", "[nothing]"), POLICY.replace("name: p}", "name: deny}"));
    let all = [SERVER, GATEWAY, &allow, KEY]
        .map(|text| text.replace("metadata: {name", "metadata: {namespace: team-a, name"));
    let deny = deny.replace("metadata: {name", "metadata: {namespace: team-a, name");
    let [server, gateway, allow, key] = &all;
    Folder::new(&[
        ("a.yaml", server),
        ("g.yaml", gateway),
        ("p.yaml", allow),
        ("ann.yaml", key),
        ("deny.yaml", &deny),
    ])
}

#[test]
fn a_mistake_in_what_says_which_object_it_is_lifts_no_deny() {
    let deny = |namespace: &str| POLICY.replace("name: p}", &format!("name: deny, {namespace}}}"));
    for text in [
        deny("namespce: team-a"),
        deny("ns: team-a"),
        deny("namespace: "),
        deny("namespace: 7"),
        deny("namespace: team-a").replace("Deny", "deny").replace("name: deny", "name: dny"),
        deny("namespace: team-a").replace("McpPolicy", "McpServer"),
        deny("namespace: team-a").replace("McpPolicy", "McpGateway"),
    ] {
        let mut folder = denied_elsewhere();
        assert!(may_in("team-a", &folder.last, "get") && !may_in("team-a", &folder.last, "pay"));
        for _ in 0..2 {
            let loaded = folder.change(&[("deny.yaml", Some(&text))]);
            assert!(!may_in("team-a", loaded, "pay"), "{text}");
            assert!(held(loaded)[0].starts_with("McpPolicy team-a/deny stays as it was: mend "), "{text}");
        }
        assert!(may_in("team-a", folder.change(&[("deny.yaml", None)]), "pay"), "{text}");
    }
}

#[test]
fn a_key_that_became_another_kind_with_a_mistake_opens_nothing() {
    let mut keyed = Folder::new(&[("a.yaml", SERVER), ("ann.yaml", KEY)]);
    let server =
        KEY.replace("apiVersion: v1\nkind: Secret", "apiVersion: mcpmesh.io/v1alpha1\nkind: McpServer");
    for _ in 0..2 {
        assert!(!keyed.change(&[("ann.yaml", Some(&server))]).is_open());
    }
    let nameless = KEY.replace("name: ann,", "");
    assert!(!Folder::new(&[("a.yaml", SERVER)]).change(&[("ann.yaml", Some(&nameless))]).is_open());
}

#[test]
fn a_file_that_is_empty_or_has_one_more_skipped_document_keeps_what_it_held() {
    let spec = POLICY.split_once("metadata").unwrap().1;
    let indented = format!("- {}", POLICY.trim_end().replace('\n', "\n  "));
    for text in ["", " \n", "apiVersion: v1\nkind: Sec\n", &format!("metadata{spec}"), &indented] {
        let mut folder = Folder::new(&GOOD);
        for _ in 0..2 {
            let loaded = folder.change(&[("p.yaml", Some(text))]);
            assert!(may(loaded, "get") && !may(loaded, "pay"), "{text}");
            assert!(held(loaded)[0].starts_with("McpPolicy default/p stays as it was: mend "), "{text}");
            assert!(loaded.has_errors(), "{:?}", loaded.diagnostics);
        }
        let loaded = folder.change(&[("p.yaml", Some(&POLICY.replace("pay", "send")))]);
        assert!(held(loaded).is_empty() && may(loaded, "pay") && !loaded.has_errors());
        let mut keyed = Folder::new(&[("a.yaml", SERVER), ("ann.yaml", KEY)]);
        for _ in 0..2 {
            let loaded = keyed.change(&[("ann.yaml", Some(text))]);
            assert!(!loaded.is_open() && owners(loaded) == ["ann"], "{text}");
        }
        assert!(keyed.change(&[("ann.yaml", None)]).is_open());
    }
}

#[test]
fn a_file_that_is_empty_for_a_moment_keeps_its_servers_and_closes_nothing() {
    let configured =
        format!("{SERVER}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata: {{k: v}}\n");
    let other = SERVER.replace("name: a", "name: b");
    for text in [SERVER, &configured] {
        let mut folder = Folder::new(&[
            ("a.yaml", text),
            ("b.yaml", &other),
            ("g.yaml", GATEWAY),
            ("p.yaml", POLICY),
            ("ann.yaml", KEY),
        ]);
        let before = folder.last.compiled.snapshots.clone();
        // Twice: also a look at what has not changed finds it so.
        for _ in 0..2 {
            let loaded = folder.change(&[("a.yaml", Some(""))]);
            assert_eq!(loaded.compiled.snapshots, before);
            assert!(
                held(loaded)[0].starts_with("McpServer default/a stays as it was: mend "),
                "{:?}",
                held(loaded)
            );
            assert!(loaded.has_errors());
        }
        // What goes elsewhere at that time is gone, and nothing is closed for its sake.
        let loaded = folder.change(&[("b.yaml", None), ("p.yaml", Some(&POLICY.replace("pay", "send")))]);
        assert!(may(loaded, "pay") && loaded.inputs.servers().count() == 1);
        let loaded = folder.change(&[("p.yaml", None)]);
        assert!(!may(loaded, "pay") && !loaded.unreadable);
        let loaded = folder.change(&[("p.yaml", Some(POLICY)), ("a.yaml", None)]);
        assert!(held(loaded).is_empty() && loaded.inputs.servers().count() == 0);
    }
}

#[test]
fn an_object_that_is_taken_out_of_a_file_is_gone_whatever_else_is_skipped_there() {
    let others = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n---\nservices: {}\n";
    let both = format!("{others}---\n{KEY}");
    let mut folder =
        Folder::new(&[("a.yaml", SERVER), ("g.yaml", GATEWAY), ("p.yaml", POLICY), ("x.yaml", &both)]);
    assert_eq!(owners(&folder.last), ["ann"]);
    assert_eq!(owners(folder.change(&[("x.yaml", Some(others))])), [""; 0]);
    let mut folder = Folder::new(&GOOD);
    let commented = KEY.lines().map(|line| format!("# {line}\n")).collect::<String>();
    let loaded = folder.change(&[("ann.yaml", Some(&commented)), ("new.yaml", Some(others))]);
    assert!(owners(loaded).is_empty() && held(loaded).is_empty(), "{:?}", held(loaded));
    let mut folder = Folder::new(&GOOD);
    let moved = [("new.yaml", Some(KEY)), ("ann.yaml", Some(""))];
    assert!(held(folder.change(&moved)).is_empty());
}

#[test]
fn a_policy_that_may_have_gone_into_an_unreadable_text_closes_what_it_targeted() {
    let both = format!("{POLICY}---\n{}", POLICY.replace("name: p}", "name: q}").replace("pay", "get"));
    let mut folder =
        Folder::new(&[("a.yaml", SERVER), ("g.yaml", GATEWAY), ("both.yaml", &both), ("ann.yaml", KEY)]);
    assert!(may(&folder.last, "put") && !may(&folder.last, "get"));
    // The second moves into another file, with a mistake on the way.
    let loaded = folder.change(&[("both.yaml", Some(POLICY)), ("q.yaml", Some(GARBAGE))]);
    assert!(!may(loaded, "get") && !may(loaded, "put"));
    // So it stays, whatever else changes.
    let loaded = folder.change(&[("ann.yaml", None)]);
    assert!(!may(loaded, "get") && !may(loaded, "put") && owners(loaded).is_empty());
    let loaded = folder.change(&[("q.yaml", None)]);
    assert!(may(loaded, "get") && may(loaded, "put"), "now it is gone for certain");
}

#[test]
fn a_text_that_cannot_be_read_and_holds_nothing_that_is_missed_changes_nothing() {
    let mut folder = Folder::new(&GOOD);
    let before = folder.last.compiled.snapshots.clone();
    assert_eq!(folder.change(&[("new.yaml", Some(GARBAGE))]).compiled.snapshots, before);
    let mut open = Folder::new(&[("a.yaml", SERVER)]);
    assert!(open.last.is_open());
    for text in [GARBAGE.to_owned(), GATEWAY.replace("spec", "sepc")] {
        assert!(open.change(&[("new.yaml", Some(&text))]).is_open(), "{text}");
    }
}

#[test]
fn a_gateway_or_key_that_may_be_in_an_unreadable_text_opens_nothing() {
    let gone = [("g.yaml", None), ("new.yaml", Some(GARBAGE))];
    for change in [
        &gone[..],
        &[("g.yaml", Some("apiVersion: mcpmesh.io/v1alpha1\nkind: McpGateway\nmetadata: {name: h}\n"))],
    ] {
        let mut folder = Folder::new(&[("a.yaml", SERVER), ("g.yaml", GATEWAY), ("p.yaml", POLICY)]);
        assert!(!folder.change(change).is_open(), "{change:?}");
        assert!(!folder.change(&[("a.yaml", Some(SERVER))]).is_open(), "and stays so: {change:?}");
    }
    let mut keyed = Folder::new(&[("a.yaml", SERVER), ("ann.yaml", KEY)]);
    let loaded = keyed.change(&[("ann.yaml", None), ("bob.yaml", Some(GARBAGE))]);
    assert!(!loaded.is_open() && owners(loaded).is_empty());
    assert!(!keyed.change(&[("a.yaml", Some(SERVER))]).is_open());
    assert!(keyed.change(&[("bob.yaml", None)]).is_open());
}

#[test]
fn a_rule_beside_one_that_cannot_be_read_changes_all_the_same() {
    let nameless = POLICY.replace("name: p}", "name: q, namespce: x}");
    let mut folder = Folder::new(&GOOD);
    let both = format!("{}---\n{nameless}", POLICY.replace("[pay]", "[send]"));
    let loaded = folder.change(&[("p.yaml", Some(&both))]);
    assert!(may(loaded, "pay") && !may(loaded, "send") && held(loaded).is_empty(), "{:?}", held(loaded));
}

#[test]
fn a_gateway_that_cannot_be_read_does_not_open_what_a_key_closed() {
    let broken = GATEWAY.replace("apiKeys", "apiKey");
    for text in
        [broken.as_str(), &broken.replace("name: g", "nam: g"), &broken.replace("name: g", "name: G_")]
    {
        let mut keyed = Folder::new(&[("a.yaml", SERVER), ("ann.yaml", KEY)]);
        let loaded = keyed.change(&[("ann.yaml", None), ("g.yaml", Some(text))]);
        assert!(!loaded.is_open() && owners(loaded).is_empty(), "{text}");
        let closed = loaded.diagnostics.iter().filter(|found| found.reason == Reason::InvalidApiKey);
        assert_eq!(closed.count(), 1, "{:?}", loaded.diagnostics);
        assert!(!keyed.change(&[("a.yaml", Some(SERVER))]).is_open(), "and stays so: {text}");
        assert!(keyed.change(&[("g.yaml", None)]).is_open(), "{text}");
        let mut keyed = Folder::new(&[("a.yaml", SERVER), ("ann.yaml", KEY)]);
        let loaded = keyed.change(&[("g.yaml", Some(text))]);
        assert!(loaded.diagnostics.iter().all(|found| found.reason != Reason::InvalidApiKey), "{text}");
        assert_eq!(owners(loaded), ["ann"]);
    }
}

#[test]
fn of_two_policies_of_one_name_the_one_that_is_in_force_stays() {
    let mut folder = Folder::new(&GOOD);
    let open = POLICY.replace("[pay]", "[nothing]");
    let loaded = folder.change(&[("0.yaml", Some(&open)), ("ann.yaml", None)]);
    assert!(may(loaded, "get") && !may(loaded, "pay") && owners(loaded).is_empty());
    assert!(loaded.has_errors(), "{:?}", loaded.diagnostics);
    // So it does once it cannot be read itself.
    for _ in 0..2 {
        let loaded = folder.change(&[("p.yaml", Some(GARBAGE))]);
        assert!(may(loaded, "get") && !may(loaded, "pay"));
        assert_eq!(held(loaded).len(), 1, "{:?}", held(loaded));
    }
    assert!(may(folder.change(&[("p.yaml", None)]), "pay"), "now it is gone for certain");
    let mut at_once = Folder::new(&GOOD);
    assert!(!may(at_once.change(&[("0.yaml", Some(&open)), ("p.yaml", Some(GARBAGE))]), "pay"));
    folder.change(&[("0.yaml", None), ("p.yaml", Some(POLICY))]);
    let third = open.replace("name: p}", "name: r}");
    let loaded = folder.change(&[("1.yaml", Some(&third)), ("2.yaml", Some(&third))]);
    assert!(!may(loaded, "get"), "nothing is known of either");
}
