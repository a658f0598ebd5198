//! Black-box tests of MCP Mesh and what they stand on: real processes, the official conformance suite, raw HTTP, a real
//! Kubernetes cluster.
//!
//! Nothing here knows how the product works inside; everything goes through its command line and its ports.
//! `setup.sh` installs the foreign servers, clients and the suite; [`tools::Tools`] finds them.

pub mod audit;
pub mod bench;
pub mod caller;
pub mod clients;
pub mod cluster;
pub mod conformance;
pub mod federation;
pub mod fixture;
pub mod flux;
pub mod gateway_pod;
pub mod http;
pub mod kstatus;
pub mod loopback;
pub mod mesh;
pub mod metrics;
pub mod monitoring;
pub mod operator;
pub mod process;
pub mod servers;
pub mod tools;
pub mod traffic;
