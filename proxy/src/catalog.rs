//! What a gateway shows: the upstreams' objects under advertised names, filtered by the one decision function.
//!
//! A [`View`] is immutable and belongs to one configuration and one set of observations; a request holds the one
//! that it began with until its last byte.

mod definition;
mod item;
mod left_out;
mod list;
mod names;
mod resource;
mod section;
mod view;

pub use definition::{digest, observed};
pub use left_out::Why;
pub use list::{List, ListKind};
pub use names::{Claim, Names, allot};
pub use section::Entry;
pub use view::{Abilities, Attached, Config, Routed, View};
pub(crate) use view::{reached, settled, takes_subscriptions};
