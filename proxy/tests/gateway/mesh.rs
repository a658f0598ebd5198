//! A gateway and a sidecar on either end of a hop of the mesh.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcpmesh_ir::gateway::{ListenerTls, Naming};
use mcpmesh_ir::policy::Effect;
use mcpmesh_ir::server::{Endpoint, Transport};
use mcpmesh_ir::{EgressRule, FleetId, GatewayId, ServerId, policy::To};
use mcpmesh_proxy::Bind;
use mcpmesh_proxy::upstream::State;
use serde_json::json;

use super::fake::{Catalogue, Fake, Speaks};
use super::harness::{Gate, soon};
use super::setup::{Setup, gateway_id, policy, rule, user};
use super::wire::{Root, ask_tls, changed, discover, own_ip};

const PORT: u16 = 17080;

struct Hop {
    root: Root,
    fake: Fake,
    sidecar: Gate,
    gate: Gate,
    address: SocketAddr,
}

fn server_id() -> ServerId {
    ServerId::new("a", "s0")
}

/// Alice and Bob may do everything at the gateway; the sidecar judges again, and lets in Alice alone.
async fn hop(speaks: Speaks) -> Hop {
    hop_with(speaks, |_| {}).await
}

async fn hop_with(speaks: Speaks, change: impl FnOnce(&mut Setup)) -> Hop {
    let (root, ip) = (Root::new(), own_ip());
    let address = SocketAddr::new(ip, PORT);
    let fake = Fake::start(speaks, Catalogue::tools(&["read"])).await;
    let mut judging = Setup::open(&[&fake]).naming(Naming::OnConflict);
    judging.policies =
        vec![policy("alice", vec![rule("alice", Effect::Allow, user("alice"), To::default())])];
    change(&mut judging);
    let mesh = root.mesh(&FleetId::Server(server_id()));
    let sidecar = Gate::with(&judging, |options| {
        options.bind = Bind::Listeners(ip);
        options.mesh = mesh;
    })
    .await;
    let peered = changed(
        judging.snapshot(),
        |gateway| {
            gateway.peers = vec![gateway_id()];
            gateway.listeners[0].port = PORT;
            gateway.listeners[0].tls = Some(ListenerTls::Mesh {});
            // On loopback only hosts that are named are served.
            gateway.listeners[0].hostname = Some("s0.a.svc".to_owned());
        },
        vec![],
    );
    assert_eq!(sidecar.proxy.apply(vec![peered]), []);
    let mut setup = Setup::open(&[&fake]).naming(Naming::OnConflict).keys(&["alice", "bob"]);
    setup.servers[0].endpoint = Endpoint::Service {
        addresses: vec![address],
        host: format!("s0.a.svc:{PORT}"),
        path: "/mcp".to_owned(),
        transport: Transport::StreamableHttp,
        mesh: Some(server_id()),
    };
    let mesh = root.mesh(&FleetId::Gateway(gateway_id()));
    let gate = Gate::with(&setup, |options| options.mesh = mesh).await;
    Hop { root, fake, sidecar, gate, address }
}

#[tokio::test]
async fn each_call_is_judged_at_the_sidecar_as_its_own_callers() {
    for speaks in [Speaks::Modern, Speaks::Legacy] {
        let hop = hop(speaks).await;
        assert_eq!(hop.gate.modern(Some("bob")).tools().await, ["read"], "the catalogue is nobody's own");
        let allowed = hop.gate.modern(Some("alice")).call("read", json!({})).await;
        assert!(allowed.json()["result"].is_object(), "{allowed:?}");
        for owner in [Some("bob"), None] {
            assert_eq!(hop.gate.modern(owner).call("read", json!({})).await.code(), -32602, "{owner:?}");
        }
        let calls = hop.fake.seen().iter().filter(|seen| seen.method() == "tools/call").count();
        assert_eq!(calls, 1);
    }
}

#[tokio::test]
async fn a_legacy_clients_session_is_its_own_at_the_sidecar_too() {
    let hop = hop(Speaks::Both).await;
    for capabilities in [json!({}), json!({"elicitation": {}})] {
        let alice = hop.gate.legacy_with(Some("alice"), "2025-11-25", capabilities.clone()).await;
        assert!(alice.call("read", json!({})).await.json()["result"].is_object());
        let bob = hop.gate.legacy_with(Some("bob"), "2025-11-25", capabilities).await;
        assert_eq!(bob.call("read", json!({})).await.code(), -32602);
        assert!(alice.call("read", json!({})).await.json()["result"].is_object());
    }
}

fn asserted(gateway: &GatewayId, user: &str, observer: bool) -> String {
    let identity = json!({"gateway": gateway, "issuer": "apiKey", "user": user, "groups": []});
    URL_SAFE_NO_PAD.encode(json!({"identity": identity, "observer": observer}).to_string())
}

#[tokio::test]
async fn only_a_peers_certificate_opens_the_sidecar_and_only_its_own_callers_are_asserted() {
    let hop = hop(Speaks::Modern).await;
    let other = GatewayId::new("b", "gw");
    let ask = async |client: &FleetId, headers: &[(&str, &str)]| {
        let config = hop.root.mesh(client).client(&FleetId::Server(server_id())).unwrap().unwrap();
        let asked = ask_tls(hop.address, config, "127.0.0.1", discover("127.0.0.1", headers)).await;
        asked.unwrap().0.status.as_u16()
    };
    let peer = FleetId::Gateway(gateway_id());
    let alice = asserted(&gateway_id(), "alice", false);
    assert_eq!(ask(&peer, &[("mcpmesh-principal", &alice)]).await, 200);
    assert_eq!(ask(&peer, &[]).await, 400);
    assert_eq!(ask(&peer, &[("mcpmesh-principal", "e30")]).await, 400);
    assert_eq!(ask(&peer, &[("mcpmesh-principal", &alice), ("mcpmesh-principal", &alice)]).await, 400);
    let foreign = asserted(&other, "alice", false);
    assert_eq!(ask(&peer, &[("mcpmesh-principal", &foreign)]).await, 400, "another gateway's caller");
    for stranger in [FleetId::Gateway(other), FleetId::Server(server_id())] {
        assert_eq!(ask(&stranger, &[("mcpmesh-principal", &alice)]).await, 403, "{stranger}");
    }
    let config = hop.root.client();
    let nobody = ask_tls(hop.address, config, "127.0.0.1", discover("127.0.0.1", &[])).await;
    assert!(nobody.is_err(), "no certificate at all");
}

#[tokio::test]
async fn a_server_that_never_answered_its_sidecar_is_not_taken_for_one_without_tools() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let hop = hop_with(Speaks::Modern, |judging| {
        let (url, transport) = (format!("http://{closed}/mcp"), Transport::StreamableHttp);
        judging.servers[0].endpoint = Endpoint::Remote { url, transport, egress: EgressRule::private() };
    })
    .await;
    let mut servers = hop.gate.proxy.servers();
    let heard = servers.wait_for(|all| all.iter().all(|one| !matches!(one.state, State::Connecting)));
    let seen = soon("word of the server", heard).await.unwrap().clone();
    assert!(seen.iter().all(|one| !matches!(one.state, State::Ready)), "{seen:?}");
    assert_eq!(hop.sidecar.proxy.readiness().verdict(), Err("not every server has answered yet"));
}

#[tokio::test]
async fn the_header_says_nothing_where_anybody_may_come() {
    let hop = hop(Speaks::Modern).await;
    let mallory = asserted(&gateway_id(), "alice", false);
    let mut request =
        hop.gate.modern(None).request(1, "tools/call", &json!({"name": "read", "arguments": {}}));
    request.headers_mut().insert("mcpmesh-principal", mallory.parse().unwrap());
    assert_eq!(hop.gate.ask(request).await.code(), -32602);
    assert!(hop.sidecar.log.lines().iter().all(|line| !line.to_string().contains("#alice")));
}
