//! Which gateway a request is for: by port, by exact path, then by host.

use std::sync::Arc;

use mcpmesh_ir::gateway::Listener;

use crate::certificate::{Security, Served};
use crate::gateway::Gateway;
use crate::listener::Way;

/// How gateways share an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Routing {
    /// The only one at its own path, several at `/mcp/<namespace>/<name>` (`mcpmesh up`).
    #[default]
    OneMachine,
    /// Each at its listeners' paths and host names (a fleet).
    Listeners,
}

/// One way in.
pub struct Route {
    /// As the gateway says, with the path in force.
    pub listener: Listener,
    /// How a connection comes.
    pub security: Security,
    /// Where it leads.
    pub gateway: Arc<Gateway>,
}

/// All ways in.
#[derive(Clone, Default)]
pub struct Routes(Vec<Arc<Route>>);

impl Routes {
    /// The routes of these gateways.
    #[must_use]
    pub fn new(routing: Routing, gateways: &[Arc<Gateway>]) -> Self {
        let several = gateways.len() > 1 && routing == Routing::OneMachine;
        let routes = gateways.iter().flat_map(|gateway| {
            let listeners = gateway.view().config.listeners.clone();
            let own = format!("/mcp/{}/{}", gateway.id.namespace, gateway.id.name);
            listeners.into_iter().map(move |Served { mut listener, security }| {
                if several {
                    listener.path.clone_from(&own);
                }
                Arc::new(Route { listener, security, gateway: Arc::clone(gateway) })
            })
        });
        Self(routes.collect())
    }

    /// The route of a path that is compared byte for byte: no decoding, no normalising, so that no two spellings of
    /// one path can be told apart by anyone in between.
    #[must_use]
    pub fn find(&self, way: &Way, path: &str, host: Option<&str>) -> Option<&Arc<Route>> {
        // A connection that is open since before its port changed its kind leads nowhere any more.
        let here = |route: &Route| {
            way.port.is_none_or(|port| port == route.listener.port) && way.kind == route.security.kind()
        };
        let at = || self.0.iter().filter(|route| route.listener.path == path && here(route));
        let named = |route: &&Arc<Route>| {
            let name = route.listener.hostname.as_deref();
            name.is_some_and(|name| host.is_some_and(|host| host.eq_ignore_ascii_case(name)))
        };
        at().find(named)
            .or_else(|| at().find(|route| route.listener.hostname.is_none()))
            .or_else(|| at().next())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.iter().map(AsRef::as_ref)
    }
}
