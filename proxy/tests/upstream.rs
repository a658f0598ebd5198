//! The MCP client against fake servers: both eras, all transports, and what the wild answers.

#![expect(clippy::needless_pass_by_value, reason = "`json!` at the call reads best by value")]

#[cfg(test)]
mod upstream {
    pub(crate) mod fake;

    mod bounds;
    mod contact;
    mod http;
    mod levels;
    mod lists;
    mod own;
    mod sessions;
    mod sse;
    mod stdio;
    mod tls;
}
