//! The Model Context Protocol itself, both eras: what a message says and how its bytes are
//! re-addressed. Pure functions over bytes: no runtime, no I/O, no clock.

pub mod downgrade;
pub mod envelope;
pub mod era;
pub mod fault;
pub mod gauge;
pub mod handle;
pub mod header;
pub mod json;
pub mod meta;
pub mod rewrite;
pub mod sse;
pub mod uri;
