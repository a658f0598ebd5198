//! The installation in which cases and documentation are compiled as the operator would.

use mcpmesh_compiler::{Cluster, ClusterIssuer};

/// A cluster that has all that one machine has, and an issuer of tokens.
pub(crate) fn cluster() -> Cluster {
    let issuer =
        ClusterIssuer { issuer: "https://issuer.test".to_owned(), keys: r#"{"keys":[]}"#.to_owned() };
    Cluster {
        operator_namespace: "mcpmesh-system".to_owned(),
        token_issuer: Some(issuer),
        ..Cluster::default()
    }
}
