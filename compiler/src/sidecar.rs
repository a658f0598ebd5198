//! The proxy beside a server that the installation runs: where gateways reach it, and what it serves to whom.
//!
//! decisions.md 6: a server's own level is judged in exactly one place. Gateways of its namespace judge it themselves and
//! come in at `/local`; gateways of others come in at `/exported`, where it is judged on the caller that they assert. Who comes
//! past the gateways, where `spec.authentication` lets anybody, comes in at a port of its own.

use std::net::SocketAddr;

use mcpmesh_ir::gateway::{Anonymous, Attachment, Gateway, Level, LevelKind, Listener, ListenerTls, Naming};
use mcpmesh_ir::resource::{self, Resource};
use mcpmesh_ir::server::{Endpoint, Server, ToolOverride, ToolRules, Transport};
use mcpmesh_ir::{Fleet, FleetId, GatewayId, PolicyId, ServerId};

use crate::child::{DIRECT_PORT, OBSERVABILITY_PORT, SIDECAR_PORT, base_name};
use crate::compile::{Namespace, Parts};
use crate::gateway;
use crate::inputs::Inputs;
use crate::server::CompiledServer;
use crate::server::authentication::Direct;

/// Ports of a pod that the proxy in it needs itself: admin, metrics, calls of gateways, calls past them.
pub(crate) const RESERVED_PORTS: [u16; 4] = [17000, OBSERVABILITY_PORT, SIDECAR_PORT, DIRECT_PORT];

/// Unique in its gateway, and the beginning of no tool's name that anybody would choose.
const PREFIX: &str = "-";

/// Who comes in where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Gateways of the server's namespace.
    Local,
    /// Gateways of other namespaces.
    Exported,
}

impl Door {
    fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Exported => "exported",
        }
    }
}

/// The gateways that have a server, each in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Peers {
    pub(crate) local: Vec<GatewayId>,
    pub(crate) exported: Vec<GatewayId>,
}

/// The server as gateways see it: one of its sidecars. What is renamed is renamed there; a lock is held beside the
/// server, on definitions that nobody has touched.
pub(crate) fn upstream(body: &Server, door: Door, sidecars: &[SocketAddr]) -> Server {
    let id = &body.id;
    let base = base_name(&FleetId::Server(id.clone()));
    let endpoint = Endpoint::Service {
        addresses: sidecars.to_vec(),
        host: format!("{base}.{}.svc:{SIDECAR_PORT}", id.namespace),
        path: format!("/{}", door.name()),
        transport: Transport::StreamableHttp,
        mesh: Some(id.clone()),
    };
    Server { endpoint, headers: Vec::new(), lock: None, ..body.clone() }
}

/// The server as its sidecar sees it: with the names that it gives itself, since gateways rename and rules speak of those.
pub(crate) fn beside(body: &Server) -> Server {
    let ToolRules { include, exclude, overrides } = &body.tools;
    let pinned = overrides.iter().filter(|(_, tool)| !tool.annotations.is_empty()).map(|(name, tool)| {
        (name.clone(), ToolOverride { annotations: tool.annotations, ..ToolOverride::default() })
    });
    let tools = ToolRules { include: include.clone(), exclude: exclude.clone(), overrides: pinned.collect() };
    Server { tools, ..body.clone() }
}

/// What the sidecars of a server get. Of Secrets nothing: the kubelet gives them to the server itself.
pub(crate) fn fleet(
    server: &CompiledServer,
    uid: &str,
    (inputs, parts): (&Inputs, &Parts),
    peers: &Peers,
) -> Result<Fleet, resource::Error> {
    let (id, none) = (&server.id, Namespace::default());
    let namespace = parts.namespaces.get(&id.namespace).map_or(&none, |namespace| &**namespace);
    let implied = PolicyId::new(&id.namespace, "implied:anyone");
    let local = front(id, uid, (Door::Local, &peers.local), &implied);
    let mut resources = vec![
        Resource::new(implied.to_string(), &gateway::anyone(implied.clone()))?,
        Resource::new(local.id.to_string(), &local)?,
    ];
    resources.extend(server.beside.clone());
    if !peers.exported.is_empty() {
        let mut exported = front(id, uid, (Door::Exported, &peers.exported), &implied);
        let levels = namespace.server_levels(id);
        let policies = levels.iter().flat_map(|level| &level.policies);
        resources.extend(policies.filter_map(|id| namespace.policies.get(id)?.resource.clone()));
        for attachment in &mut exported.servers {
            attachment.levels.clone_from(&levels);
        }
        resources.push(Resource::new(exported.id.to_string(), &exported)?);
    }
    if let Some(direct) = &server.direct {
        let own = namespace.level(LevelKind::Gateway, |policy| policy.holds_for_server(id));
        resources.extend(past_gateways((id, uid), direct, own, (inputs, parts))?);
    }
    Ok(Fleet::new(FleetId::Server(id.clone()), resources))
}

/// Where callers come who are no gateways. No gateway has judged them: so the mesh level is judged here, and the
/// server's own level stands where a gateway's would, which needs an Allow that matches.
fn past_gateways(
    (id, uid): (&ServerId, &str),
    direct: &Direct,
    own: Level,
    (inputs, parts): (&Inputs, &Parts),
) -> Result<Vec<Resource>, resource::Error> {
    let gateway = GatewayId::new(&id.namespace, format!("{}:direct", id.name));
    let levels: Vec<Level> = gateway::mesh_level(&gateway, inputs, parts).into_iter().chain([own]).collect();
    let mut resources = Vec::new();
    for policy in levels.iter().flat_map(|level| &level.policies) {
        resources.extend(gateway::policy_resource(policy, &gateway, inputs, parts)?);
    }
    for key in &direct.api_keys {
        resources.push(Resource::new(key.secret.to_string(), key)?);
    }
    resources.extend(direct.issuer.clone());
    let listener = Listener {
        name: "direct".to_owned(),
        port: DIRECT_PORT,
        hostname: None,
        path: "/mcp".to_owned(),
        allowed_origins: Vec::new(),
        tls: None,
    };
    let body = Gateway {
        uid: format!("{uid}:direct"),
        listeners: vec![listener],
        servers: vec![Attachment { server: id.clone(), prefix: PREFIX.to_owned(), levels: Vec::new() }],
        naming: Naming::OnConflict,
        anonymous: direct.anonymous,
        api_keys: direct.api_keys.iter().map(|key| key.secret.to_string()).collect(),
        token_issuers: direct.issuer.iter().map(|issuer| issuer.name.clone()).collect(),
        peers: Vec::new(),
        levels,
        id: gateway,
    };
    resources.push(Resource::new(body.id.to_string(), &body)?);
    Ok(resources)
}

fn front(id: &ServerId, uid: &str, (door, peers): (Door, &[GatewayId]), allow: &PolicyId) -> Gateway {
    let own = GatewayId::new(&id.namespace, format!("{}:{}", id.name, door.name()));
    let listener = Listener {
        name: door.name().to_owned(),
        port: SIDECAR_PORT,
        hostname: None,
        path: format!("/{}", door.name()),
        allowed_origins: Vec::new(),
        tls: Some(ListenerTls::Mesh {}),
    };
    // Without a gateway nobody may come in. An empty list could be read as anybody: its own id is in no certificate.
    let peers = if peers.is_empty() { vec![own.clone()] } else { peers.to_vec() };
    Gateway {
        uid: format!("{uid}:{}", door.name()),
        listeners: vec![listener],
        servers: vec![Attachment { server: id.clone(), prefix: PREFIX.to_owned(), levels: Vec::new() }],
        naming: Naming::OnConflict,
        // A gateway's certificate is the credential; that it asserts nobody is an answer, too.
        anonymous: Anonymous::Allow,
        api_keys: Vec::new(),
        token_issuers: Vec::new(),
        peers,
        levels: vec![Level { kind: LevelKind::Gateway, policies: vec![allow.clone()], closed: None }],
        id: own,
    }
}
