use mcpmesh_ir::{ApiKey, SecretId};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

fn id() -> FleetId {
    FleetId::Gateway(GatewayId::new("a", "gw"))
}

fn held() -> Held {
    Held::new(id())
}

fn resource(name: &str, owner: &str) -> mcpmesh_ir::Resource {
    let key = ApiKey {
        secret: SecretId::new("a", name),
        sha256: String::new(),
        owner: owner.to_owned(),
        groups: Vec::new(),
        expires: None,
    };
    mcpmesh_ir::Resource::new(format!("a/{name}"), &key).unwrap()
}

fn unknown(name: &str) -> Resource {
    Resource {
        kind: "Guardrail".to_owned(),
        name: name.to_owned(),
        body: b"{}".to_vec().into(),
        ..Resource::default()
    }
}

fn mark(epoch: &str, policies: u64) -> mcpmesh_ir::push::Watermark {
    let versions = [("McpPolicy".to_owned(), policies)].into();
    mcpmesh_ir::push::Watermark { epoch: epoch.to_owned(), versions }
}

/// What an operator with this configuration sends to somebody who said this.
fn update(fleet: &Fleet, hello: &Hello) -> Update {
    let key = |have: &Have| {
        let kind = have.kind.parse().unwrap();
        (mcpmesh_ir::fleet::ResourceKey { kind, name: have.name.clone() }, have.version.clone().into())
    };
    let difference = fleet.difference(&hello.have.iter().map(key).collect());
    let gone = |key: mcpmesh_ir::fleet::ResourceKey| Have {
        kind: key.kind.to_string(),
        name: key.name,
        version: String::new(),
    };
    Update {
        revision: fleet.revision(),
        changed: difference.changed.iter().map(Resource::from).collect(),
        removed: difference.removed.into_iter().map(gone).collect(),
        ..Update::default()
    }
}

#[test]
fn an_update_behind_what_is_here_changes_nothing_and_another_clusters_is_taken() {
    let mut held = held();
    let at = |epoch: &str, version, name: &str| Update {
        watermark: Some(mark(epoch, version)),
        changed: vec![Resource::from(&resource(name, "x"))],
        ..Update::default()
    };
    held.take(at("e", 10, "one")).unwrap();
    assert_eq!(held.take(at("e", 9, "two")), Err(Behind));
    assert_eq!(held.fleet().resources, [resource("one", "x")]);
    held.take(at("e", 10, "two")).unwrap();
    held.take(at("other", 1, "three")).unwrap();
    assert_eq!(held.fleet().resources.len(), 3);
}

#[test]
fn what_is_asked_for_again_is_all_of_it_and_what_was_revoked_stays_revoked() {
    let mut held = held();
    let changed = vec![Resource::from(&resource("one", "x"))];
    held.take(Update { watermark: Some(mark("e", 10)), changed, ..Update::default() }).unwrap();
    held.forget_resources();
    let hello = held.hello("pod");
    assert!(hello.have.is_empty());
    assert_eq!(hello.watermark, Some(mark("e", 10)));
}

#[test]
fn a_resource_of_an_unknown_type_is_kept_and_rejected_alone() {
    let mut first = held();
    let changed = vec![unknown("a/x"), Resource::from(&resource("one", "x"))];
    first.take(Update { revision: "of later types".to_owned(), changed, ..Update::default() }).unwrap();
    assert_eq!(first.fleet().resources.len(), 1);
    assert_eq!(
        first.unreadable().map(|one| (one.kind, one.name)).collect::<Vec<_>>(),
        [("Guardrail".to_owned(), "a/x".to_owned())]
    );
    assert!(first.agrees());
    let mut booted = held();
    booted.take(first.whole()).unwrap();
    assert!(booted.whole() == first.whole());
}

#[test]
fn a_policy_that_cannot_be_read_takes_the_place_of_the_one_before_it() {
    let mut held = held();
    let policy = |body: &[u8]| Resource {
        kind: "Policy".to_owned(),
        name: "a/p".to_owned(),
        body: body.to_vec().into(),
        ..Resource::default()
    };
    held.take(Update { changed: vec![policy(b"{}")], ..Update::default() }).unwrap();
    assert_eq!(held.fleet().resources.len(), 1);
    held.take(Update { changed: vec![policy(b"not JSON")], ..Update::default() }).unwrap();
    assert!(held.fleet().resources.is_empty());
    assert_eq!(held.unreadable().count(), 1);
}

#[test]
fn a_difference_that_leads_elsewhere_is_noticed() {
    let mut held = held();
    let revision = Fleet::new(id(), [resource("one", "x"), resource("two", "x")]).revision();
    let changed = vec![Resource::from(&resource("one", "x"))];
    held.take(Update { revision: revision.clone(), changed, ..Update::default() }).unwrap();
    assert!(!held.agrees());
    let changed = vec![Resource::from(&resource("two", "x"))];
    held.take(Update { revision, changed, ..Update::default() }).unwrap();
    assert!(held.agrees());
}

/// A configuration: some of few names, each with one of few contents.
fn fleets() -> impl Strategy<Value = Vec<(BTreeMap<u8, u8>, u8)>> {
    vec((btree_map(0u8..8, 0u8..3, 0..8), 0u8..4), 1..12)
}

proptest! {
    #[test]
    fn any_sequence_of_differences_reconnects_and_restarts_leads_to_the_whole(steps in fleets()) {
        let mut here = held();
        let mut told = here.hello("pod");
        for (content, event) in steps {
            let resources = content.iter().map(|(name, owner)| resource(&name.to_string(), &owner.to_string()));
            let fleet = Fleet::new(id(), resources);
            match event {
                // A new stream says what is here.
                0 => told = here.hello("pod"),
                // A restart reads the disk first.
                1 => {
                    let mut booted = held();
                    booted.take(here.whole()).unwrap();
                    here = booted;
                    told = here.hello("pod");
                }
                // Everything is asked for again.
                2 => { here.forget_resources(); told = here.hello("pod"); }
                // The stream goes on.
                _ => {}
            }
            here.take(update(&fleet, &told)).unwrap();
            told = here.hello("pod");
            prop_assert_eq!(&here.fleet(), &fleet);
            prop_assert!(here.agrees());
            let mut synced = held();
            synced.take(update(&fleet, &synced.hello("pod"))).unwrap();
            prop_assert!(synced.whole().changed == here.whole().changed);
        }
    }
}
