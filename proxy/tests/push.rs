//! A proxy and its operator, over real TLS and gRPC: what is applied, told, kept and taken up again.

#[cfg(test)]
mod push {
    mod operator;
    mod subscribe;
}
