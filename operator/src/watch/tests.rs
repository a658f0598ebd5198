use std::collections::BTreeMap;

use kube::core::watch::{Bookmark, BookmarkMeta};
use tokio::sync::watch;

use super::*;

/// Follows a server that a test plays.
fn follower() -> Follower<String> {
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Namespace>(&());
    let source = Source::new(kube::Client::try_from(config).unwrap(), resource, None);
    let store = Arc::new(Store::new(&[None], watch::channel(None).0));
    let keep = |object: DynamicObject| object.metadata.resource_version;
    Follower { source, store, keep, resume: None, streaming: true, list: Some(Vec::new()) }
}

fn object(follower: &Follower<String>, name: &str, version: &str) -> DynamicObject {
    let mut object = DynamicObject::new(name, &follower.source.resource);
    object.metadata.resource_version = Some(version.to_owned());
    object
}

fn bookmark(version: &str, ends: bool) -> WatchEvent<DynamicObject> {
    let annotations: BTreeMap<_, _> =
        ends.then(|| (END_OF_LIST.to_owned(), "true".to_owned())).into_iter().collect();
    WatchEvent::Bookmark(Bookmark {
        types: kube::core::TypeMeta::default(),
        metadata: BookmarkMeta { resource_version: version.to_owned(), annotations },
    })
}

#[tokio::test]
async fn what_is_deleted_while_its_list_is_streamed_does_not_come_back_with_the_end_of_the_list() {
    let mut follower = follower();
    for (name, version) in [("stays", "1"), ("goes", "2")] {
        let object = object(&follower, name, version);
        assert!(follower.take(WatchEvent::Added(object)).is_ok());
    }
    let gone = object(&follower, "goes", "3");
    assert!(follower.take(WatchEvent::Deleted(gone)).is_ok());
    assert!(follower.take(bookmark("4", false)).is_ok());
    assert_eq!(follower.resume, None, "half a list is no place to go on from");
    assert!(!follower.store.is_listed());
    assert!(follower.take(bookmark("5", true)).is_ok());
    assert_eq!(follower.resume.as_deref(), Some("5"));
    assert!(follower.store.get("", "stays").is_some() && follower.store.get("", "goes").is_none());
}
