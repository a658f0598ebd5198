//! The compiled configuration: plain data, its canonical wire form, and the one decision function.
//!
//! Nothing here does I/O, knows Kubernetes or holds a runtime: the compiler writes these types, the proxy reads
//! them, and [`policy::decide()`] answers for both (docs/adr/0001 to 0004).

pub mod api_key;
pub mod catalog;
pub mod egress;
pub mod fleet;
pub mod gateway;
pub mod id;
pub mod policy;
pub mod push;
pub mod resource;
pub mod secret;
pub mod server;
pub mod snapshot;
pub mod token_issuer;

pub use api_key::ApiKey;
pub use egress::EgressRule;
pub use fleet::{Fleet, FleetId, Watermark};
pub use gateway::Gateway;
pub use id::{GatewayId, PolicyId, SecretId, ServerId};
pub use policy::Policy;
pub use resource::{Resource, ResourceKind, Version};
pub use secret::Secret;
pub use server::Server;
pub use snapshot::Snapshot;
pub use token_issuer::TokenIssuer;
