use mcpmesh_ir::{GatewayId, ServerId};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
    date_time_ymd,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

type Root = CertifiedIssuer<'static, KeyPair>;

fn root() -> Root {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A chain and its key, valid until the end of `year`.
fn issued(root: &Root, uris: &[String], year: i32) -> (String, PrivateKeyDer<'static>) {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.subject_alt_names =
        uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap())).collect();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_after = date_time_ymd(year, 12, 31);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, root).unwrap();
    (certificate.pem(), PrivatePkcs8KeyDer::from(key.serialize_der()).into())
}

fn gateway() -> FleetId {
    FleetId::Gateway(GatewayId::new("a", "gw"))
}

fn server() -> FleetId {
    FleetId::Server(ServerId::new("a", "s"))
}

fn mesh(issuer: &Root, id: &FleetId, trusted: &[&Root]) -> Mesh {
    let mesh = Mesh::default();
    install(&mesh, issuer, id, trusted);
    mesh
}

fn install(mesh: &Mesh, issuer: &Root, id: &FleetId, trusted: &[&Root]) {
    let (chain, key) = issued(issuer, &[id.uri()], 4000);
    let roots: String = trusted.iter().map(|root| root.pem()).collect();
    mesh.install(&chain, key, &roots).unwrap();
}

/// A process that has its certificate.
pub(crate) fn certified() -> Mesh {
    let root = root();
    mesh(&root, &gateway(), &[&root])
}

/// A handshake; the server's side tells whom it saw, and only after a byte went each way.
async fn shake(client: &Mesh, peer: &FleetId, server: &Mesh) -> Result<FleetId, std::io::Error> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (near, far) = tokio::io::duplex(1 << 16);
    let connector = TlsConnector::from(Arc::new(client.client(peer).unwrap().unwrap()));
    let acceptor = TlsAcceptor::from(server.server().unwrap());
    let asking = async {
        let mut stream = connector.connect("mesh.invalid".try_into().unwrap(), near).await?;
        stream.write_all(b"x").await?;
        stream.read_u8().await
    };
    let answering = async {
        let mut stream = acceptor.accept(far).await?;
        stream.read_u8().await?;
        stream.write_all(b"y").await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).and_then(fleet_of);
        shown.ok_or(std::io::ErrorKind::NotFound.into())
    };
    let (asked, answered) = tokio::join!(asking, answering);
    asked?;
    answered
}

#[tokio::test]
async fn both_ends_know_each_other_by_their_uris() {
    let root = root();
    let (here, there) = (mesh(&root, &gateway(), &[&root]), mesh(&root, &server(), &[&root]));
    assert_eq!(shake(&here, &server(), &there).await.unwrap(), gateway());
    assert_eq!(here.id(), Some(gateway()));
}

#[tokio::test]
async fn a_proxy_of_another_fleet_is_refused_though_its_root_is_trusted() {
    let root = root();
    let (here, there) = (mesh(&root, &gateway(), &[&root]), mesh(&root, &server(), &[&root]));
    for other in [FleetId::Server(ServerId::new("a", "t")), FleetId::Gateway(GatewayId::new("a", "s"))] {
        assert!(shake(&here, &other, &there).await.is_err(), "{other}");
    }
}

#[tokio::test]
async fn another_root_is_refused_on_either_side() {
    let (ours, theirs) = (root(), root());
    let (here, there) = (mesh(&ours, &gateway(), &[&ours]), mesh(&theirs, &server(), &[&theirs]));
    assert!(shake(&here, &server(), &there).await.is_err());
    let trusting = mesh(&ours, &gateway(), &[&ours, &theirs]);
    assert!(shake(&trusting, &server(), &there).await.is_err(), "the server does not trust the client");
    let trusted = mesh(&theirs, &server(), &[&ours, &theirs]);
    assert!(shake(&here, &server(), &trusted).await.is_err(), "the client does not trust the server");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_on_either_side() {
    let root = root();
    let old = |id: &FleetId| {
        let (chain, key) = issued(&root, &[id.uri()], 2020);
        let mesh = Mesh::default();
        mesh.install(&chain, key, &root.pem()).unwrap();
        mesh
    };
    assert!(shake(&mesh(&root, &gateway(), &[&root]), &server(), &old(&server())).await.is_err());
    assert!(shake(&old(&gateway()), &server(), &mesh(&root, &server(), &[&root])).await.is_err());
}

#[tokio::test]
async fn other_roots_are_trusted_without_another_certificate() {
    let (first, second) = (root(), root());
    let (here, there) = (mesh(&first, &gateway(), &[&first]), mesh(&second, &server(), &[&first, &second]));
    assert!(shake(&here, &server(), &there).await.is_err());
    assert!(here.trust("no certificate").is_err());
    let installed = *here.installed().borrow();
    here.trust(&format!("{}{}", first.pem(), second.pem())).unwrap();
    assert_eq!(shake(&here, &server(), &there).await.unwrap(), gateway());
    assert_eq!(*here.installed().borrow(), installed, "its own certificate is what it was");
    let nobody = Mesh::default();
    nobody.trust(&first.pem()).unwrap();
    assert!(!nobody.ready());
}

#[tokio::test]
async fn a_root_is_replaced_without_a_moment_of_refusal() {
    let (first, second) = (root(), root());
    let (here, there) = (mesh(&first, &gateway(), &[&first]), mesh(&first, &server(), &[&first]));
    let seen = here.installed();
    let steps: [(&Mesh, &Root, FleetId, &[&Root]); 6] = [
        (&here, &first, gateway(), &[&first, &second]),
        (&there, &first, server(), &[&first, &second]),
        (&there, &second, server(), &[&first, &second]),
        (&here, &second, gateway(), &[&first, &second]),
        (&here, &second, gateway(), &[&second]),
        (&there, &second, server(), &[&second]),
    ];
    for (mesh, issuer, id, trusted) in steps {
        install(mesh, issuer, &id, trusted);
        assert_eq!(shake(&here, &server(), &there).await.unwrap(), gateway());
    }
    assert_eq!(*seen.borrow(), 4);
    let late = mesh(&first, &gateway(), &[&first, &second]);
    assert!(shake(&late, &server(), &there).await.is_err(), "the old root is trusted no more");
}

#[test]
fn what_cannot_be_used_leaves_what_was_in_force() {
    let root = root();
    let mesh = mesh(&root, &gateway(), &[&root]);
    let (chain, key) = issued(&root, &[gateway().uri()], 4000);
    let (_, other) = issued(&root, &[gateway().uri()], 4000);
    let two = issued(&root, &[server().uri(), gateway().uri()], 4000);
    let none = issued(&root, &[], 4000);
    assert!(matches!(mesh.install(&chain, other, &root.pem()), Err(Error::Key(_))));
    assert!(matches!(mesh.install("", key.clone_key(), &root.pem()), Err(Error::Pem("chain"))));
    assert!(matches!(mesh.install(&chain, key, ""), Err(Error::Pem("roots"))));
    for (chain, key) in [two, none] {
        assert!(matches!(mesh.install(&chain, key, &root.pem()), Err(Error::Name)));
    }
    assert_eq!(mesh.id(), Some(gateway()));
    assert!(Mesh::default().server().is_none() && !Mesh::default().ready());
}
