//! Listeners: their ports and their certificates.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use mcpmesh_ir::gateway::{Gateway, Listener, ListenerTls};
use mcpmesh_ir::{GatewayId, Resource, ResourceKind, Secret, SecretId, Snapshot};
use mcpmesh_proxy::routes::Routing;
use mcpmesh_proxy::{Bind, Options, Proxy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::fake::{Catalogue, Fake, Speaks};
use super::harness::{Gate, soon};
use super::setup::Setup;
use super::wire::{Root, ask_tls, changed, discover, own_ip};

fn listener(port: u16, host: Option<&str>, secret: Option<&str>) -> Listener {
    Listener {
        name: format!("l{port}-{}", host.unwrap_or("any")),
        port,
        hostname: host.map(str::to_owned),
        path: "/mcp".to_owned(),
        allowed_origins: vec![],
        tls: secret.map(|name| ListenerTls::Secret(SecretId::new("a", name))),
    }
}

fn with(setup: &Setup, listeners: &[Listener], secrets: &[(&str, &(String, String))]) -> Snapshot {
    let secret = |(name, (chain, key)): &(&str, &(String, String))| {
        let data = BTreeMap::from([("tls.crt".into(), chain.clone()), ("tls.key".into(), key.clone())]);
        Resource::new(format!("a/{name}"), &Secret { data }).unwrap()
    };
    let more = secrets.iter().map(secret).collect();
    changed(setup.snapshot(), |gateway| gateway.listeners = listeners.to_vec(), more)
}

async fn gate(setup: &Setup) -> (Gate, std::net::IpAddr) {
    let ip = own_ip();
    (Gate::with(setup, |options| options.bind = Bind::Listeners(ip)).await, ip)
}

#[tokio::test]
async fn who_comes_before_the_first_configuration_waits_for_it() {
    let fake = Fake::start(Speaks::Modern, Catalogue::tools(&["read"])).await;
    let setup = Setup::open(&[&fake]);
    let proxy = Proxy::start(Options::new(SocketAddr::from(([127, 0, 0, 1], 0)))).await.unwrap();
    let early = TcpStream::connect(proxy.data_addr()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake::<
        _,
        http_body_util::Full<bytes::Bytes>,
    >(hyper_util::rt::TokioIo::new(early))
    .await
    .unwrap();
    tokio::spawn(connection);
    let configured = async {
        // Time for an answer that would be too early: others are given meanwhile.
        for _ in 0..5 {
            let mut probe = TcpStream::connect(proxy.metrics_addr()).await.unwrap();
            probe.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await.unwrap();
            probe.read_to_end(&mut Vec::new()).await.unwrap();
        }
        proxy.apply(vec![setup.snapshot()]);
    };
    let (answered, ()) = tokio::join!(sender.send_request(discover("127.0.0.1", &[])), configured);
    assert_eq!(answered.unwrap().status(), 200);
}

#[tokio::test]
async fn ports_open_and_close_and_what_stays_keeps_its_connections() {
    let fake = Fake::start(Speaks::Modern, Catalogue::tools(&["read"])).await;
    let setup = Setup::open(&[&fake]);
    let (gate, ip) = gate(&setup).await;
    let (stays, goes) = (SocketAddr::new(ip, 20080), SocketAddr::new(ip, 20081));
    gate.proxy.apply(vec![with(&setup, &[listener(20080, None, None), listener(20081, None, None)], &[])]);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, http_body_util::Full<bytes::Bytes>>(
            hyper_util::rt::TokioIo::new(TcpStream::connect(stays).await.unwrap()),
        )
        .await
        .unwrap();
    tokio::spawn(connection);
    assert!(TcpStream::connect(goes).await.is_ok());
    for _ in 0..3 {
        gate.proxy.apply(vec![with(&setup, &[listener(20080, None, None)], &[])]);
        assert!(TcpStream::connect(goes).await.is_err(), "closed");
        let answered = soon("an answer", sender.send_request(discover("127.0.0.1", &[]))).await.unwrap();
        assert_eq!(answered.status(), 200);
        drop(super::harness::whole(answered).await);
        gate.proxy.apply(vec![with(
            &setup,
            &[listener(20080, None, None), listener(20081, None, None)],
            &[],
        )]);
        assert!(TcpStream::connect(goes).await.is_ok(), "free again at once");
    }
}

#[tokio::test]
async fn a_configuration_that_comes_while_a_process_drains_opens_no_port() {
    let fake = Fake::start(Speaks::Modern, Catalogue::tools(&["read"])).await;
    let setup = Setup::open(&[&fake]);
    let (gate, ip) = gate(&setup).await;
    let listeners = [listener(20080, None, None), listener(20081, None, None)];
    gate.proxy.apply(vec![with(&setup, &listeners[..1], &[])]);
    assert!(TcpStream::connect((ip, 20080)).await.is_ok());
    gate.proxy.drain(Duration::ZERO).await;
    assert!(gate.proxy.apply(vec![with(&setup, &listeners, &[])]).is_empty());
    for port in [20080, 20081] {
        assert!(TcpStream::connect((ip, port)).await.is_err(), "{port}");
    }
}

#[tokio::test]
async fn a_path_belongs_to_its_own_port() {
    let fake = Fake::start(Speaks::Modern, Catalogue::tools(&["read"])).await;
    let setup = Setup::open(&[&fake]);
    let (gate, ip) = gate(&setup).await;
    let mut other = listener(20081, None, None);
    other.path = "/other".to_owned();
    gate.proxy.apply(vec![with(&setup, &[listener(20080, None, None), other], &[])]);
    for (port, expected) in [(20080, 200), (20081, 404)] {
        let mut request = discover("127.0.0.1", &[]);
        *request.uri_mut() = format!("http://{}/mcp", SocketAddr::new(ip, port)).parse().unwrap();
        assert_eq!(gate.ask(request).await.status, expected, "{port}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_and_the_rest_is_served() {
    let fake = Fake::start(Speaks::Modern, Catalogue::tools(&["read"])).await;
    let setup = Setup::open(&[&fake]);
    let (gate, ip) = gate(&setup).await;
    let _taken = TcpListener::bind((ip, 20082)).await.unwrap();
    let listeners = [listener(20082, None, None), listener(20083, None, None)];
    let rejected = gate.proxy.apply(vec![with(&setup, &listeners, &[])]);
    assert_eq!(rejected.len(), 1);
    assert_eq!((rejected[0].kind, rejected[0].name.as_str()), (ResourceKind::Gateway, "a/gw"));
    assert!(rejected[0].reason.starts_with("cannot listen on port 20082"), "{}", rejected[0]);
    assert!(TcpStream::connect((ip, 20083)).await.is_ok());
}

#[tokio::test]
async fn each_host_is_shown_its_own_certificate_and_a_new_one_counts_at_once() {
    let (root, fake) = (Root::new(), Fake::start(Speaks::Modern, Catalogue::tools(&["read"])).await);
    let setup = Setup::open(&[&fake]);
    let (gate, ip) = gate(&setup).await;
    let address = SocketAddr::new(ip, 20443);
    let listeners =
        [listener(20443, Some("a.test"), Some("ca")), listener(20443, Some("b.test"), Some("cb"))];
    let (a, b) = (root.pair("a.test"), root.pair("b.test"));
    assert_eq!(gate.proxy.apply(vec![with(&setup, &listeners, &[("ca", &a), ("cb", &b)])]), []);
    let ask = async |host: &str| ask_tls(address, root.client(), host, discover(host, &[])).await;
    let (answered, first) = ask("a.test").await.unwrap();
    assert_eq!(answered.status, 200);
    assert_eq!(ask("b.test").await.unwrap().0.status, 200);
    assert!(ask("c.test").await.is_err(), "no certificate for this name");
    let renewed = root.pair("a.test");
    assert_eq!(gate.proxy.apply(vec![with(&setup, &listeners, &[("ca", &renewed), ("cb", &b)])]), []);
    assert_ne!(ask("a.test").await.unwrap().1, first);
}

#[tokio::test]
async fn a_listener_without_a_usable_pair_is_not_served_and_never_plain() {
    let (root, fake) = (Root::new(), Fake::start(Speaks::Modern, Catalogue::tools(&["read"])).await);
    let setup = Setup::open(&[&fake]);
    let (gate, ip) = gate(&setup).await;
    let (good, other) = (root.pair("a.test"), root.pair("a.test"));
    let mixed = (good.0.clone(), other.1);
    let listeners = [listener(20443, None, Some("bad")), listener(20444, None, Some("good"))];
    for (bad, why) in [(mixed, "do not belong together"), (("x".to_owned(), good.1.clone()), "tls.crt")] {
        let rejected = gate.proxy.apply(vec![with(&setup, &listeners, &[("bad", &bad), ("good", &good)])]);
        assert_eq!(rejected.len(), 1);
        assert_eq!((rejected[0].kind, rejected[0].name.as_str()), (ResourceKind::Secret, "a/bad"));
        assert!(rejected[0].reason.contains(why), "{}", rejected[0]);
        assert!(TcpStream::connect((ip, 20443)).await.is_err());
        let asked = ask_tls((ip, 20444).into(), root.client(), "a.test", discover("a.test", &[])).await;
        assert!(asked.is_ok());
    }
}

/// All listeners at one address, as on one machine.
async fn one_address(setup: &Setup, routing: Routing) -> Gate {
    Gate::with(setup, |options| options.routing = routing).await
}

#[tokio::test]
async fn the_one_address_is_tls_where_the_listener_says_so_and_never_plain_beside_it() {
    let (root, fake) = (Root::new(), Fake::start(Speaks::Modern, Catalogue::tools(&["read"])).await);
    let setup = Setup::open(&[&fake]);
    let gate = one_address(&setup, Routing::OneMachine).await;
    let address = gate.proxy.data_addr();
    assert_eq!(gate.proxy.urls("here"), ["http://here/mcp"]);
    let good = root.pair("a.test");
    let plain = Listener { path: "/plain".to_owned(), ..listener(8081, None, None) };
    let listeners = [listener(8443, None, Some("good")), plain];
    let rejected = gate.proxy.apply(vec![with(&setup, &listeners, &[("good", &good)])]);
    assert_eq!(rejected.len(), 1, "{rejected:?}");
    assert!(rejected[0].reason.contains("another kind of TLS on the one address"), "{}", rejected[0]);
    assert_eq!(gate.proxy.urls("here"), ["https://here/mcp"]);
    let asked = ask_tls(address, root.client(), "a.test", discover("localhost", &[])).await;
    assert_eq!(asked.unwrap().0.status, 200);
    let mut raw = TcpStream::connect(address).await.unwrap();
    raw.write_all(b"GET /plain HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = raw.read_to_end(&mut said).await;
    assert!(!said.starts_with(b"HTTP"), "plain: {}", String::from_utf8_lossy(&said));
    // A certificate that is gone closes it; a connection without TLS leads nowhere still.
    let (bad, key) = ("x".to_owned(), good.1.clone());
    gate.proxy.apply(vec![with(&setup, &listeners[..1], &[("good", &(bad, key))])]);
    let mut raw = TcpStream::connect(address).await.unwrap();
    raw.write_all(b"POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = raw.read_to_end(&mut said).await;
    assert!(!said.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&said));
}

#[tokio::test]
async fn a_place_that_two_gateways_want_is_the_firsts_and_the_other_is_told() {
    let fake = Fake::start(Speaks::Modern, Catalogue::tools(&["read"])).await;
    let setup = Setup::open(&[&fake]);
    let gate = one_address(&setup, Routing::Listeners).await;
    let first = setup.snapshot();
    let second = |path: &str| {
        let id: GatewayId = "a/second".parse().unwrap();
        let change = |gateway: &mut Gateway| {
            gateway.id = id.clone();
            gateway.listeners = vec![Listener { path: path.to_owned(), ..listener(8080, None, None) }];
        };
        Snapshot::new(id.clone(), changed(setup.snapshot(), change, vec![]).resources)
    };
    assert_eq!(gate.proxy.apply(vec![first.clone(), second("/second")]), []);
    let rejected = gate.proxy.apply(vec![first, second("/mcp")]);
    assert_eq!(rejected.len(), 1, "{rejected:?}");
    let reason = &rejected[0].reason;
    assert!(rejected[0].name == "a/second" && reason.contains("a/gw has the path /mcp"), "{}", rejected[0]);
}
