//! The Model Context Protocol itself, both eras: what a message says and how its bytes are
//! re-addressed. Pure functions over bytes: no runtime, no I/O, no clock.

pub mod envelope;
pub mod era;
pub mod fault;
pub mod header;
pub mod json;
pub mod meta;
pub mod sse;
pub mod uri;
