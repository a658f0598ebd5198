//! On a real API server, without nodes: what the definitions of the three kinds let in, keep out, show and keep.

mod crds;
mod faults;
mod refused;
