//! Reaches the one server that a sidecar stands beside: a process of a command line, or a port on loopback.
//!
//! Both are said on our own command line. A configuration from the operator can only ask for the server by its id.

use std::ffi::OsString;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mcpmesh_ir::ServerId;
use url::Url;

use crate::process::{Children, Environment, Inherited, Plan, Running};
use crate::upstream::{ConnectError, Connected, Connector};

/// What stands beside a sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beside {
    /// A stdio server: a process for each connection that is needed.
    Process(Vec<OsString>),
    /// A server that speaks HTTP.
    Http(Url),
}

/// See the module.
pub struct Bridge {
    server: ServerId,
    beside: Beside,
    children: Children,
}

impl Bridge {
    /// To the server of this id and no other. `children` ends the processes.
    #[must_use]
    pub fn new(server: ServerId, beside: Beside, children: Children) -> Self {
        Self { server, beside, children }
    }

    fn reach(&self, asked: &ServerId) -> Result<Connected, ConnectError> {
        if *asked != self.server {
            return Err(ConnectError(format!("this sidecar is for {}, not for {asked}", self.server)));
        }
        match &self.beside {
            Beside::Http(url) => Ok(Connected::Http { url: url.clone(), guard: Box::new(()) }),
            Beside::Process(argv) => {
                let (inherited, environment) = (Inherited::AllButOurs, Environment::default());
                let plan = Plan { argv: argv.clone(), inherited, environment, container: None };
                let started = self.children.start(&self.server, &plan);
                let Running { stdin, stdout, guard, ended } =
                    started.map_err(|error| ConnectError(format!("cannot start the server: {error}")))?;
                let (stdin, stdout) = (Box::new(stdin), Box::new(stdout));
                Ok(Connected::Stdio { stdin, stdout, guard: Box::new(guard), ended })
            }
        }
    }
}

impl Connector for Bridge {
    fn connect(&self, server: &ServerId) -> BoxFuture<'static, Result<Connected, ConnectError>> {
        // Spawning is no I/O that could wait.
        std::future::ready(self.reach(server)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_configuration_cannot_ask_for_any_other_server() {
        let url = Url::parse("http://127.0.0.1:3000/mcp").unwrap();
        let own = ServerId::new("a", "s");
        for beside in [Beside::Http(url), Beside::Process(vec!["/bin/true".into()])] {
            let bridge = Bridge::new(own.clone(), beside, Children::default());
            assert!(bridge.connect(&ServerId::new("a", "other")).await.is_err());
            assert!(bridge.connect(&ServerId::new("b", "s")).await.is_err());
        }
    }
}
