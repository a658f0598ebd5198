//! The MCP client against fake servers: both eras, all transports, and what the wild answers.

mod upstream {
    pub(crate) mod fake;

    mod bounds;
    mod http;
    mod sessions;
    mod sse;
    mod stdio;
}
