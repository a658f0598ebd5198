//! On a cluster with two nodes, one of them behind a link that can be cut.

mod nodes;
