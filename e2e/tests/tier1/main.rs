//! On a real API server, without nodes: what the definitions of the three kinds let in, keep out, show and keep;
//! installing; and the operator with its proxies, as processes, when something breaks.

mod api_server;
mod bad_object;
mod children;
mod crds;
mod faults;
mod install;
mod kstatus;
mod leaders;
mod operator_gone;
mod refused;
mod remotes;
mod rest;
mod sentinel;
mod tenant;
mod tenants;
