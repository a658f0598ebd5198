//! Reading what a server lists, and what it lists to clients that can be asked something: some servers have more tools
//! for those (2026-07-28, server/utilities/caching: what a result depends on is part of its key).

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::catalogue::{CacheScope, Listing, Lists, Observation, Offers, State};
use super::detect::Live;
use super::error::{Error, Explanation, Kind, Phase};
use super::remark::Remark;
use super::reply::Event;
use super::route::is_askable;
use super::wire::{self, Answer};
use super::{Core, Outgoing};
use crate::mcp::envelope::Method;
use crate::mcp::era::Era;
use crate::mcp::fault::METHOD_NOT_FOUND;
use crate::mcp::meta::{Capabilities, CapabilitySet};

/// The lists that a server may have.
const ALL: usize = 4;
/// How long those that have come wait for the others: less than a client's first list waits for a server.
const LATE: Duration = Duration::from_millis(700);

/// What a client's requests declare at a server, as far as lists may depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Declared {
    era: Era,
    set: CapabilitySet,
}

impl Declared {
    /// None for a client that cannot be asked anything.
    #[must_use]
    pub fn of(era: Era, set: CapabilitySet) -> Option<Self> {
        is_askable(set).then(|| Self { era, set: set.without_tasks() })
    }

    /// The lists that there are to be read: what the server has said of itself at first contact does for clients of its
    /// own era.
    fn offers(self, live: &Live, seen: &Observation) -> Option<Offers> {
        match (&seen.state, self.era, &live.modern) {
            (State::Ready, ..) => Some(seen.offers),
            (State::Degraded { .. }, ..) if seen.lists.is_partial() => Some(seen.offers),
            (State::Connecting, Era::Modern, Some(said)) => Some(Offers::read(&said.capabilities)),
            _ => None,
        }
    }

    /// A session that can be asked serves one call at a time, and there need be only one for the lists.
    fn at_once(self) -> usize {
        match self.era {
            Era::Modern => ALL,
            Era::Legacy => 1,
        }
    }

    fn capabilities(self) -> Capabilities {
        self.set.into()
    }

    /// Between the eras nothing is asked, so nothing is declared there.
    async fn reaches(self, live: &Live) -> bool {
        match self.era {
            Era::Modern => live.modern.is_some(),
            Era::Legacy => live.legacy.known().await.is_some(),
        }
    }
}

/// What a server lists to clients that declare something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Offered {
    /// Not found out yet.
    #[default]
    Unknown,
    /// What it lists to everyone.
    Same,
    /// Lists of their own.
    Own(Arc<Lists>),
}

impl Offered {
    fn lists(&self) -> Option<&Lists> {
        match self {
            Self::Own(lists) => Some(lists),
            Self::Unknown | Self::Same => None,
        }
    }
}

/// The kinds of clients that declare something and are looked after.
pub(super) type Audiences = Mutex<HashMap<Declared, watch::Sender<Offered>>>;

impl Core {
    /// What the server lists to such clients, looked after for as long as somebody holds the receiver.
    pub(super) fn offered(self: &Arc<Self>, declared: Declared) -> watch::Receiver<Offered> {
        let mut audiences = self.audiences.lock();
        if let Some(known) = audiences.get(&declared) {
            return known.subscribe();
        }
        let sender = watch::Sender::default();
        let receiver = sender.subscribe();
        audiences.insert(declared, sender);
        let (core, stop) = (Arc::clone(self), self.stop.clone());
        // Boxed: a list on its way makes a large future.
        tokio::spawn(async move { stop.run_until_cancelled(Box::pin(core.look_after(declared))).await });
        receiver
    }

    /// Reads these clients' lists whenever everyone's are read, until nobody wants them any more.
    async fn look_after(self: &Arc<Self>, declared: Declared) {
        let (mut everyones, mut lives) = (self.observation.subscribe(), self.live.subscribe());
        loop {
            everyones.mark_unchanged();
            lives.mark_unchanged();
            let offered = self.look(declared, &mut everyones).await;
            if !self.offer(declared, offered) {
                return;
            }
            tokio::select! {
                Ok(()) = everyones.changed() => {}
                Ok(()) = lives.changed() => {}
                else => return,
            }
        }
    }

    /// Takes in what was found out. Says whether anybody still wants to know.
    fn offer(&self, declared: Declared, offered: Option<Offered>) -> bool {
        let mut audiences = self.audiences.lock();
        let Some(sender) = audiences.get(&declared).filter(|sender| sender.receiver_count() > 0) else {
            audiences.remove(&declared);
            return false;
        };
        if let Some(offered) = offered {
            sender.send_if_modified(|current| std::mem::replace(current, offered.clone()) != offered);
        }
        true
    }

    /// None where what is known stands.
    async fn look(
        self: &Arc<Self>,
        declared: Declared,
        everyones: &mut watch::Receiver<Arc<Observation>>,
    ) -> Option<Offered> {
        let live = self.live.borrow().clone();
        if let Some(live) = &live
            && !declared.reaches(live).await
        {
            return Some(Offered::Same);
        }
        let seen = self.observation.borrow().clone();
        let offers = live.as_ref().and_then(|live| declared.offers(live, &seen));
        let (Some(live), Some(offers)) = (live, offers) else {
            // Of a server that cannot be reached nothing more will be known than of everyone's lists.
            return matches!(seen.state, State::Failed { .. }).then_some(Offered::Same);
        };
        let own = self.read_lists(&live, offers, Some(declared), |_| {}).await.map(|read| read.lists);
        let seen = match seen.state {
            // At first contact everyone's are on their way, too.
            State::Connecting => {
                everyones.wait_for(|seen| seen.state != State::Connecting).await.ok()?.clone()
            }
            // What came meanwhile is news for the next look.
            _ => self.observation.borrow().clone(),
        };
        match own {
            Ok(lists) if lists == seen.lists => Some(Offered::Same),
            Ok(lists) => {
                self.remark(&lists);
                Some(Offered::Own(Arc::new(lists)))
            }
            Err(error) => {
                tracing::warn!(server = %self.config.id, %error, "could not read the lists for clients that can be asked");
                Some(Offered::Same)
            }
        }
    }

    /// Reads all lists that the server has, at once. One that fails hides none of the others; one that is late holds up none:
    /// those that are there are `early`.
    pub(super) async fn read_lists(
        self: &Arc<Self>,
        live: &Arc<Live>,
        offers: Offers,
        declared: Option<Declared>,
        early: impl FnOnce(Read),
    ) -> Result<Read, Error> {
        let all: [_; ALL] = [
            (offers.tools, Method::ToolsList),
            (offers.prompts, Method::PromptsList),
            (offers.resources, Method::ResourcesList),
            (offers.resources, Method::ResourcesTemplatesList),
        ];
        let at_once = declared.map_or(ALL, Declared::at_once);
        let wanted: Vec<_> =
            all.into_iter().filter(|(wanted, _)| *wanted).map(|(_, method)| method).collect();
        let mut listings: Vec<_> = wanted.iter().map(|method| Came::Late(method.clone())).collect();
        let reading = wanted.into_iter().enumerate().map(async |(place, method)| {
            let came = self.list(live, method, declared).await;
            (place, came)
        });
        let mut reading = pin!(stream::iter(reading).buffer_unordered(at_once));
        let (mut late, mut early) = (pin!(tokio::time::sleep(LATE)), Some(early));
        loop {
            tokio::select! {
                next = reading.next() => match next {
                    Some((place, came)) => {
                        let came = came?;
                        if let Some(listing) = listings.get_mut(place) {
                            *listing = came;
                        }
                    }
                    None => break,
                },
                () = &mut late, if early.is_some() && listings.iter().any(Came::is_whole) => {
                    let known = self.observation.borrow().lists.clone();
                    if let (Some(early), Ok(read)) = (early.take(), Read::of(listings.clone(), &known)) {
                        early(read);
                    }
                }
            }
        }
        Read::of(listings, &self.observation.borrow().lists)
    }

    /// Tells what is to be said of these lists and was not of those that are known, whoever they are for.
    pub(super) fn remark(&self, lists: &Lists) {
        if lists.remarks.is_empty() {
            return;
        }
        let everyones = self.observation.borrow().clone();
        let own: Vec<_> = self.audiences.lock().values().map(|offered| offered.borrow().clone()).collect();
        let known = || own.iter().filter_map(Offered::lists).chain([&everyones.lists]);
        let is_new = |remark: &&Remark| !known().any(|one| one.remarks.contains(*remark));
        for remark in lists.remarks.iter().filter(is_new) {
            tracing::warn!(server = %self.config.id, "{remark}");
        }
    }

    /// Reads one list. An error that is the list's own comes with what was read before it.
    async fn list(
        self: &Arc<Self>,
        live: &Arc<Live>,
        method: Method,
        declared: Option<Declared>,
    ) -> Result<Came, Error> {
        let mut listing = Listing::new(method.clone());
        let mut members = Bytes::new();
        loop {
            let page = self.ask(live, method.clone(), members, declared).await;
            match page.and_then(|raw| take_page(&mut listing, &raw)) {
                Ok(Some(next)) => members = next,
                Ok(None) => return Ok(Came::Whole(listing)),
                Err(error) if is_of_one_list(&error) => return Ok(Came::Part(listing, error)),
                Err(error) => return Err(error),
            }
        }
    }

    /// A request of our own: the breaker and the queue are for others.
    pub(super) async fn ask(
        self: &Arc<Self>,
        live: &Arc<Live>,
        method: Method,
        members: Bytes,
        declared: Option<Declared>,
    ) -> Result<Bytes, Error> {
        let era = if live.modern.is_some() { Era::Modern } else { Era::Legacy };
        let mut request = Outgoing::new(declared.map_or(era, |declared| declared.era), method, members);
        request.capabilities = declared.map(Declared::capabilities).unwrap_or_default();
        let bounds = self.bounds(self.config.timeouts.first_byte, false);
        let mut reply = self.attempt_on(live, &request, bounds).await?;
        while let Some(event) = reply.next().await {
            if let Event::Response(body) = event? {
                return body.collect().await;
            }
        }
        Err(Error::sent(Kind::Reset))
    }
}

/// What came of one list.
#[derive(Clone)]
enum Came {
    /// All of it.
    Whole(Listing),
    /// Its first pages, and an error.
    Part(Listing, Error),
    /// Nothing yet.
    Late(Method),
}

impl Came {
    fn is_whole(&self) -> bool {
        matches!(self, Self::Whole(_))
    }
}

/// What came of reading a server's lists.
pub(super) struct Read {
    pub(super) lists: Lists,
    /// The first that could not be read, or was not yet, and how the server explains that.
    pub(super) missing: Option<(Remark, Option<Explanation>)>,
}

impl Read {
    /// What is `known` stands where a list failed; where all did there is nothing to show.
    fn of(listings: Vec<Came>, known: &Lists) -> Result<Self, Error> {
        let whole = || {
            listings.iter().filter_map(|came| match came {
                Came::Whole(listing) => Some(listing),
                Came::Part(..) | Came::Late(_) => None,
            })
        };
        if let (None, Some(Came::Part(_, error))) = (whole().next(), listings.first()) {
            return Err(error.clone());
        }
        let all = whole().count() == listings.len();
        let ttl_ms = whole().map(|one| one.ttl_ms).min().filter(|ttl| all && *ttl < u64::MAX);
        let public = ttl_ms.is_some() && whole().all(|one| one.scope == CacheScope::Public);
        let cache_scope = if public { CacheScope::Public } else { CacheScope::Private };
        let mut lists = Lists { ttl_ms: ttl_ms.unwrap_or(0), cache_scope, ..Lists::default() };
        let mut missing = None;
        for came in listings {
            let (part, remark, explanation) = match came {
                Came::Whole(listing) => {
                    lists.take(listing);
                    continue;
                }
                Came::Part(listing, error) => {
                    let remark = Remark::missing(listing.method(), &error);
                    (listing, remark, error.explanation)
                }
                Came::Late(method) => (Listing::new(method.clone()), Remark::late(&method), None),
            };
            lists.take_part(part, remark.clone(), known);
            missing.get_or_insert((remark, explanation));
        }
        Ok(Self { lists, missing })
    }
}

/// Takes in a page; the `params` members that ask for the next one, if there is to be one.
fn take_page(listing: &mut Listing, raw: &[u8]) -> Result<Option<Bytes>, Error> {
    match wire::answer(raw) {
        Some(Answer::Result(result)) => listing.page(result),
        // Declared but not there (templates, often): an empty list.
        Some(Answer::Error(_, METHOD_NOT_FOUND)) => Ok(None),
        Some(Answer::Error(_, code)) => {
            let explanation = Explanation::read(raw);
            Err(Error { explanation, ..Error::sent(Kind::Refused(code)) })
        }
        None => Err(Error::protocol("a list without an answer")),
    }
}

/// Whether an error says nothing about the server's other lists: it was reached, and this is what it made of one.
fn is_of_one_list(error: &Error) -> bool {
    match error.kind {
        Kind::Refused(_) | Kind::Protocol(_) | Kind::TooLarge | Kind::Status(_) => true,
        Kind::Timeout(phase) => phase != Phase::Connect,
        Kind::Connect(_)
        | Kind::NoInstance
        | Kind::CircuitOpen
        | Kind::Overloaded
        | Kind::Crowded
        | Kind::Reset
        | Kind::Unavailable => false,
    }
}
