use std::io::Read;
use std::sync::Arc;

use flate2::read::GzDecoder;
use mcpmesh_ir::{ApiKey, Fleet, GatewayId, Resource, SecretId};
use sha2::{Digest, Sha256};

use super::*;

fn fleet() -> FleetId {
    FleetId::Gateway(GatewayId::new("a", "gw"))
}

fn published(owner: &str) -> Published {
    let (secret, sha256, owner) = (SecretId::new("a", "k"), String::new(), owner.to_owned());
    let key = ApiKey { secret, sha256, owner, groups: Vec::new(), expires: None };
    let fleet = Fleet::new(fleet(), [Resource::new("a/k", &key).unwrap()]);
    let revision = fleet.revision();
    Published {
        fleet: Arc::new(fleet),
        revision,
        size: 3,
        observe: Arc::default(),
        since: Instant::now(),
        step: None,
    }
}

fn kept(manifest: &Value) -> (Key, Copied) {
    let text = |name: &str| manifest["metadata"][name].as_str().unwrap().to_owned();
    let annotations = serde_json::from_value(manifest["metadata"]["annotations"].clone()).unwrap();
    ((text("namespace"), text("name")), Copied::of(&annotations).unwrap())
}

fn wanted(published: &Published) -> BTreeMap<FleetId, String> {
    BTreeMap::from([(fleet(), published.revision.clone())])
}

fn content(manifest: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(manifest["data"][LAST_GOOD_KEY].as_str().unwrap()).unwrap()
}

#[test]
fn a_copy_is_the_whole_configuration_and_says_whose_and_how_new() {
    let published = published("x");
    let watermark = push::Watermark { epoch: "e".to_owned(), versions: BTreeMap::new() };
    let manifest = manifest(&fleet(), Some(&published), watermark.clone(), 7);
    assert_eq!(manifest["metadata"]["name"], "gw-mcpgateway-last-good");
    let mut bytes = Vec::new();
    GzDecoder::new(&*content(&manifest)).read_to_end(&mut bytes).unwrap();
    let copy = LastGood::decode(&*bytes).unwrap();
    assert_eq!((copy.fleet.as_str(), copy.at), ("gateway/a/gw", 7));
    let update = copy.update.unwrap();
    assert_eq!((update.changed.len(), update.fleet_size, update.watermark), (1, 3, Some(watermark)));
    assert_eq!(update.revision, published.revision);
}

#[test]
fn at_rest_nothing_is_written_and_a_change_waits_half_a_minute() {
    let (old, new) = (published("x"), published("y"));
    let start = Instant::now();
    let mut copies = Copies::default();
    assert_eq!(copies.due(wanted(&old), &[], start), (vec![fleet()], false));
    copies.note(fleet(), start);
    let there = [kept(&manifest(&fleet(), Some(&old), Default::default(), 0))];
    assert_eq!(copies.due(wanted(&old), &there, start), (vec![], false));
    assert_eq!(copies.due(wanted(&new), &there, start + APART / 2), (vec![], true));
    assert_eq!(copies.due(wanted(&new), &there, start + APART), (vec![fleet()], false));
}

#[test]
fn a_change_after_a_quiet_time_is_copied_in_a_quarter_of_a_minute_and_one_taken_back_never() {
    let (old, new) = (published("x"), published("y"));
    let there = [kept(&manifest(&fleet(), Some(&old), Default::default(), 0))];
    let start = Instant::now();
    let mut copies = Copies::default();
    assert_eq!(copies.due(wanted(&new), &there, start), (vec![], true));
    assert_eq!(copies.due(wanted(&new), &there, start + APART / 2), (vec![fleet()], false));
    assert_eq!(copies.due(wanted(&old), &there, start + APART / 2), (vec![], false));
    assert_eq!(copies.due(wanted(&new), &there, start + APART / 2), (vec![], true), "a change of its own");
}

#[test]
fn a_configuration_that_is_gone_or_does_not_fit_leaves_no_old_copy() {
    let old = published("x");
    let there = [kept(&manifest(&fleet(), Some(&old), Default::default(), 0))];
    let mut copies = Copies::default();
    assert_eq!(copies.due(BTreeMap::new(), &there, Instant::now()).0, [fleet()]);
    let gone = manifest(&fleet(), None, Default::default(), 0);
    assert!(content(&gone).is_empty());
    assert!(copies.due(BTreeMap::new(), &[kept(&gone)], Instant::now()).0.is_empty());
    let random: String = (0_u64..60_000).map(|n| hex::encode(&Sha256::digest(n.to_le_bytes())[..])).collect();
    let large = published(&random);
    let manifest = manifest(&fleet(), Some(&large), Default::default(), 0);
    assert!(content(&manifest).is_empty());
    assert!(copies.due(wanted(&large), &[kept(&manifest)], Instant::now()).0.is_empty(), "tried again");
}

#[test]
fn a_secret_that_only_claims_to_be_a_copy_changes_nothing() {
    let copied = Copied { fleet: fleet(), revision: "other".to_owned() };
    let foreign = [
        (("b".to_owned(), "gw-mcpgateway-last-good".to_owned()), copied.clone()),
        (("a".to_owned(), "mine".to_owned()), copied),
    ];
    assert!(Copies::default().due(BTreeMap::new(), &foreign, Instant::now()).0.is_empty());
}
