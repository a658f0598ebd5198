//! What a connection is waited for, on a paused clock over pipes.

use std::io::ErrorKind;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use super::*;

/// What must come has come by then.
const PATIENCE: Duration = Duration::from_secs(3600);

fn serving() -> Serving {
    let metrics = Shared::default();
    Serving {
        routes: Arc::default(),
        log: AccessLog::new(None, Arc::clone(&metrics)).unwrap(),
        metrics,
        admission: Arc::new(Semaphore::new(8)),
        handshakes: Arc::new(Semaphore::new(1)),
        mesh: Mesh::default(),
        readiness: Arc::default(),
        workers: Workers::none(),
    }
}

/// Serves one end of a pipe; the other one is the client's.
fn client() -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let way = Way { local: IpAddr::from([127, 0, 0, 1]), port: None, kind: Kind::Plain, peer: None };
    tokio::spawn(connection(&builder(), ours, way, serving()));
    theirs
}

const HEAD_OF_A_REQUEST: &[u8] = b"GET /elsewhere HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_ends_its_connection_after_ten_seconds() {
    for begun in [&b""[..], b"GET /mcp HT", b"PRI * HT"] {
        let mut client = client();
        let start = Instant::now();
        client.write_all(begun).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, client.read_to_end(&mut answer)).await;
        assert_eq!((ended.is_ok(), start.elapsed().as_secs()), (true, 10), "{begun:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_of_a_byte_a_second_has_no_more_time_than_one_that_stops() {
    let (mut read, mut write) = tokio::io::split(client());
    let start = Instant::now();
    let trickle = async {
        for byte in HEAD_OF_A_REQUEST {
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let mut answer = Vec::new();
    let ended = async {
        read.read_to_end(&mut answer).await.unwrap();
        start.elapsed().as_secs()
    };
    let ((), ended) = futures_util::join!(trickle, ended);
    assert_eq!(ended, 10, "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test(start_paused = true)]
async fn a_connection_between_two_requests_is_waited_for_as_a_head_is() {
    let mut client = client();
    let mut answer = [0; 12];
    client.write_all(HEAD_OF_A_REQUEST).await.unwrap();
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 404");
    let start = Instant::now();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, client.read_to_end(&mut rest)).await;
    assert_eq!((ended.is_ok(), start.elapsed().as_secs()), (true, 10));
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_of_what_is_sent_for_thirty_seconds_is_gone_and_who_takes_some_is_not() {
    let (ours, mut theirs) = tokio::io::duplex(1 << 10);
    let start = Instant::now();
    let sending = tokio::spawn(async move { patient(ours).write_all(&[7; 4 << 10]).await });
    let mut taken = [0; 512];
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(29)).await;
        theirs.read_exact(&mut taken).await.unwrap();
    }
    let ended = tokio::time::timeout(PATIENCE, sending).await;
    let failed = ended.expect("it ends").unwrap().unwrap_err();
    assert_eq!((failed.kind(), start.elapsed().as_secs()), (ErrorKind::TimedOut, 3 * 29 + 30));
}

/// Has no certificate, and is never asked for one.
#[derive(Debug)]
struct Nothing;

impl ResolvesServerCert for Nothing {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_come_has_ten_seconds_the_wait_for_its_turn_included() {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = Arc::new(versions.unwrap().with_no_client_auth().with_cert_resolver(Arc::new(Nothing)));
    for turns in [0, 1] {
        let (ours, mut theirs) = tokio::io::duplex(1 << 10);
        // The beginning of a ClientHello.
        theirs.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        let (start, turns) = (Instant::now(), Semaphore::new(turns));
        let late = shake(Arc::clone(&config), &turns, ours).await.unwrap_err();
        assert_eq!(late.to_string(), "the TLS handshake took too long");
        assert_eq!(start.elapsed().as_secs(), 10);
    }
}
