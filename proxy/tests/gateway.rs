//! The whole proxy in process, between clients that misbehave and servers that do: the rows of threats.md and
//! failures.md, and the protocol in both eras.

#![expect(clippy::needless_pass_by_value, reason = "`json!` at the call reads best by value")]

#[cfg(test)]
mod gateway {
    pub(crate) mod client;
    pub(crate) mod fake;
    pub(crate) mod harness;
    pub(crate) mod setup;

    mod access;
    mod audiences;
    mod discovery;
    mod eras;
    mod failures;
    mod floods;
    mod handles;
    mod leaks;
    mod levels;
    mod listens;
    mod measures;
    mod mesh;
    mod parser;
    mod ports;
    mod process;
    mod property;
    mod questions;
    mod reload;
    mod service;
    mod sessions;
    mod streams;
    mod subscriptions;
    mod tools;
    mod translate;
    mod web;
    pub(crate) mod wire;
}
