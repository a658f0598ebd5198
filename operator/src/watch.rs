//! Follows one kind of object: a list, then its changes, for ever.
//!
//! Unlike the watcher of kube's runtime it tells how far it has read, bookmarks included: a watermark needs that.

mod backoff;
mod store;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, pin_mut};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::core::PartialObjectMeta;

pub(crate) use backoff::Backoff;
pub(crate) use store::{Bucket, Key, Position, Store, Wake};

/// How long the server lets a watch live, and how much longer we wait for its end before we take the line for dead.
const LIFETIME: u32 = 240;
const IDLE: Duration = Duration::from_secs(LIFETIME as u64 + 10);

/// Objects of a page of a list.
const PAGE: u32 = 500;

/// How often a kind that the server does not have is asked for again.
const MISSING: Duration = Duration::from_secs(60);

/// The bookmark that ends the first part of a streaming list (KEP-3157).
const END_OF_LIST: &str = "k8s.io/initial-events-end";

/// Which objects are followed.
#[derive(Clone)]
pub(crate) struct Source {
    client: kube::Client,
    resource: ApiResource,
    /// None: those of all namespaces, or those without one.
    namespace: Option<String>,
    labels: Option<String>,
    metadata_only: bool,
}

impl Source {
    pub(crate) fn new(client: kube::Client, resource: ApiResource, namespace: Option<String>) -> Self {
        Self { client, resource, namespace, labels: None, metadata_only: false }
    }

    /// Only the metadata travels.
    pub(crate) fn metadata(self) -> Self {
        Self { metadata_only: true, ..self }
    }

    /// Only objects with these labels.
    pub(crate) fn labelled(self, labels: &str) -> Self {
        Self { labels: Some(labels.to_owned()), ..self }
    }

    fn api(&self) -> Api<DynamicObject> {
        match &self.namespace {
            None => Api::all_with(self.client.clone(), &self.resource),
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &self.resource),
        }
    }

    /// One page: its objects, the list's version, and where the next page is.
    async fn page(
        &self,
        next: Option<String>,
    ) -> Result<(Vec<DynamicObject>, String, Option<String>), kube::Error> {
        let params = ListParams {
            label_selector: self.labels.clone(),
            limit: Some(PAGE),
            continue_token: next,
            ..ListParams::default()
        };
        let (items, meta) = if self.metadata_only {
            let list = self.api().list_metadata(&params).await?;
            (list.items.into_iter().map(|object| self.of_metadata(object)).collect(), list.metadata)
        } else {
            let list = self.api().list(&params).await?;
            (list.items, list.metadata)
        };
        let next = meta.continue_.filter(|token| !token.is_empty());
        Ok((items, meta.resource_version.unwrap_or_default(), next))
    }

    fn of_metadata(&self, object: PartialObjectMeta<DynamicObject>) -> DynamicObject {
        DynamicObject { metadata: object.metadata, ..DynamicObject::new("", &self.resource) }
    }

    async fn events(&self, since: Option<&str>) -> Result<Events, kube::Error> {
        let params = WatchParams {
            label_selector: self.labels.clone(),
            timeout: Some(LIFETIME),
            bookmarks: true,
            send_initial_events: since.is_none(),
            ..WatchParams::default()
        };
        let since = since.unwrap_or_default();
        if !self.metadata_only {
            return Ok(self.api().watch(&params, since).await?.boxed());
        }
        let source = self.clone();
        let stream = self.api().watch_metadata(&params, since).await?;
        Ok(stream.map(move |event| event.map(|event| source.full(event))).boxed())
    }

    fn full(&self, event: WatchEvent<PartialObjectMeta<DynamicObject>>) -> WatchEvent<DynamicObject> {
        match event {
            WatchEvent::Added(object) => WatchEvent::Added(self.of_metadata(object)),
            WatchEvent::Modified(object) => WatchEvent::Modified(self.of_metadata(object)),
            WatchEvent::Deleted(object) => WatchEvent::Deleted(self.of_metadata(object)),
            WatchEvent::Bookmark(bookmark) => WatchEvent::Bookmark(bookmark),
            WatchEvent::Error(status) => WatchEvent::Error(status),
        }
    }
}

type Events = futures_util::stream::BoxStream<'static, Result<WatchEvent<DynamicObject>, kube::Error>>;

/// What is kept of an object; none: it is as if it were not there.
pub(crate) type Keep<T> = fn(DynamicObject) -> Option<T>;

/// Why following ended.
enum Ended {
    /// As it should: resume.
    Quietly,
    /// The version to resume at is too old: list again.
    Gone,
    /// The server has no streaming lists: list in pages.
    NoStreaming,
    /// The server does not have this kind.
    NoKind,
    Failed(kube::Error),
}

impl From<kube::Error> for Ended {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 410 => Self::Gone,
            kube::Error::Api(status) if status.code == 404 => Self::NoKind,
            _ => Self::Failed(error),
        }
    }
}

/// Follows a source for ever.
pub(crate) async fn follow<T: Send + Sync + 'static>(source: Source, store: Arc<Store<T>>, keep: Keep<T>) {
    let mut follower = Follower { source, store, keep, resume: None, streaming: true, list: None };
    let mut backoff = Backoff::default();
    loop {
        let before = follower.resume.clone();
        let ended = follower.run().await;
        if follower.resume != before {
            backoff.reset();
        }
        let pause = match ended {
            Ended::Quietly => Duration::ZERO,
            Ended::Gone => {
                follower.resume = None;
                backoff.next()
            }
            Ended::NoStreaming => {
                follower.streaming = false;
                Duration::ZERO
            }
            Ended::NoKind => {
                follower.resume = None;
                follower.store.reset(follower.scope(), Vec::new(), 0);
                MISSING
            }
            Ended::Failed(error) => {
                let kind = &follower.source.resource.kind;
                tracing::warn!(%kind, %error, "the watch broke off, trying again");
                follower.store.broken(follower.scope());
                backoff.next()
            }
        };
        tokio::time::sleep(pause).await;
    }
}

struct Follower<T> {
    source: Source,
    store: Arc<Store<T>>,
    keep: Keep<T>,
    /// The version after which changes are still to come.
    resume: Option<String>,
    streaming: bool,
    /// The list that is being streamed.
    list: Option<Vec<(Key, T, u64)>>,
}

impl<T: Send + Sync + 'static> Follower<T> {
    fn scope(&self) -> Option<&str> {
        self.source.namespace.as_deref()
    }

    async fn run(&mut self) -> Ended {
        self.list = None;
        if self.resume.is_none()
            && !self.streaming
            && let Err(error) = self.pages().await
        {
            return error.into();
        }
        let fresh = self.resume.is_none();
        let stream = match self.source.events(self.resume.as_deref()).await {
            Ok(stream) => stream,
            // 400 and 422: the parameters of a streaming list are not known.
            Err(kube::Error::Api(status)) if fresh && matches!(status.code, 400 | 422) => {
                return Ended::NoStreaming;
            }
            Err(error) => return error.into(),
        };
        self.store.mended(self.scope());
        self.list = fresh.then(Vec::new);
        pin_mut!(stream);
        loop {
            let Ok(event) = tokio::time::timeout(IDLE, stream.next()).await else { return Ended::Quietly };
            match event {
                None => return Ended::Quietly,
                Some(Err(error)) => return error.into(),
                Some(Ok(event)) => {
                    if let Err(ended) = self.take(event) {
                        return ended;
                    }
                }
            }
        }
    }

    async fn pages(&mut self) -> Result<(), kube::Error> {
        let (mut all, mut next) = (Vec::new(), None);
        loop {
            let (items, version, more) = self.source.page(next).await?;
            all.extend(items.into_iter().filter_map(|object| entry(object, self.keep)));
            if more.is_none() {
                self.store.reset(self.scope(), all, number(&version));
                self.resume = Some(version);
                return Ok(());
            }
            next = more;
        }
    }

    fn take(&mut self, event: WatchEvent<DynamicObject>) -> Result<(), Ended> {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let version = object.metadata.resource_version.clone().unwrap_or_default();
                match &mut self.list {
                    Some(list) => list.extend(entry(object, self.keep)),
                    None => {
                        let key = key(&object);
                        self.store.apply(self.scope(), key, (self.keep)(object), number(&version));
                        self.resume = Some(version);
                    }
                }
            }
            WatchEvent::Deleted(object) => {
                let version = object.metadata.resource_version.clone().unwrap_or_default();
                let key = key(&object);
                // Else the end of the list would bring it back. Nor is there a place to resume at before that end.
                match &mut self.list {
                    Some(list) => list.retain(|(listed, ..)| *listed != key),
                    None => self.resume = Some(version.clone()),
                }
                self.store.apply(self.scope(), key, None, number(&version));
            }
            WatchEvent::Bookmark(bookmark) => {
                let version = bookmark.metadata.resource_version;
                let ends = bookmark.metadata.annotations.contains_key(END_OF_LIST);
                if self.list.is_some() && !ends {
                    return Ok(());
                }
                if let Some(list) = self.list.take() {
                    self.store.reset(self.scope(), list, number(&version));
                } else {
                    self.store.seen(self.scope(), number(&version));
                }
                self.resume = Some(version);
            }
            WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
        }
        Ok(())
    }
}

fn key(object: &DynamicObject) -> Key {
    (object.metadata.namespace.clone().unwrap_or_default(), object.metadata.name.clone().unwrap_or_default())
}

fn entry<T>(object: DynamicObject, keep: Keep<T>) -> Option<(Key, T, u64)> {
    let (key, version) =
        (key(&object), number(object.metadata.resource_version.as_deref().unwrap_or_default()));
    Some((key, keep(object)?, version))
}

/// A resourceVersion as a number (KEP-5504: they are comparable ones).
fn number(version: &str) -> u64 {
    version.parse().unwrap_or_default()
}

#[cfg(test)]
mod tests;
