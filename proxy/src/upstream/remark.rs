//! What a server's lists have that is not offered as it is: told in the log once, not at every reading.

use std::fmt;

use super::error::Error;
use crate::mcp::envelope::Method;

/// See the module. Names are the server's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remark {
    /// A tool whose headers cannot be built is not offered over HTTP (SEP-2243).
    Headers {
        /// Its name.
        tool: String,
        /// What is wrong with its `x-mcp-header`.
        reason: String,
    },
    /// A tool that cannot be called but as a task (2025-11-25, basic/utilities/tasks), which nobody here can.
    TaskOnly {
        /// Its name.
        tool: String,
    },
    /// Items of a list are not as the protocol defines them: clients would refuse all of it for them.
    Unreadable {
        /// The request that asks for the list.
        method: &'static str,
        /// How many.
        items: usize,
        /// What is wrong with the first.
        first: String,
    },
    /// A list names one item twice: the first stands.
    Twice {
        /// The request that asks for the list.
        method: &'static str,
    },
    /// A list could not be read, though others could: what is known of it stands, and it is asked for again.
    Missing {
        /// The request that asks for the list.
        method: &'static str,
        /// What came of it, without the server's own words.
        reason: String,
    },
    /// A list has not come yet, though others have: what is known of it stands.
    Late {
        /// The request that asks for the list.
        method: &'static str,
    },
    /// A list has too many pages, or repeats a cursor: what came so far stands.
    Cut {
        /// The request that asks for the list.
        method: &'static str,
    },
}

impl Remark {
    pub(super) fn twice(method: &Method) -> Self {
        Self::Twice { method: method.label() }
    }

    pub(super) fn missing(method: &Method, error: &Error) -> Self {
        Self::Missing { method: method.label(), reason: error.to_string() }
    }

    pub(super) fn late(method: &Method) -> Self {
        Self::Late { method: method.label() }
    }

    pub(super) fn cut(method: &Method) -> Self {
        Self::Cut { method: method.label() }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name may carry what would forge lines of the log: `Debug` escapes it.
        match self {
            Self::Headers { tool, reason } => {
                write!(
                    f,
                    "left out the tool {tool:?}, whose x-mcp-header is invalid: {}",
                    reason.escape_debug()
                )
            }
            Self::TaskOnly { tool } => write!(f, "left out the tool {tool:?}, which runs as a task only"),
            Self::Unreadable { method, items, first } => {
                write!(
                    f,
                    "{method} has {items} items that are not as the protocol defines them, left out; the first: {first}"
                )
            }
            Self::Missing { method, reason } => {
                write!(f, "{method} failed ({reason}); it is asked again, and the other lists are served")
            }
            Self::Late { method } => {
                write!(f, "{method} is not answered yet; the other lists are served")
            }
            Self::Twice { method } => write!(f, "{method} names one item twice; the first stands"),
            Self::Cut { method } => write!(f, "{method} has too many pages or repeats a cursor; cut"),
        }
    }
}
