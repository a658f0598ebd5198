//! The one decision: each line of decisions.md 2 to 5 by example, and what must hold for every set of policies.

mod lines;
mod properties;
mod world;
