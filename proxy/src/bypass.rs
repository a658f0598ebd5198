//! Whether the server beside a sidecar answers at the pod's own address, where callers could come past the proxy
//! (decisions.md 6). Asked now and then, by a connection that is closed at once.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// For a connection inside the pod.
const CONNECT: Duration = Duration::from_secs(1);
/// While the server starts.
const SOON: Duration = Duration::from_secs(5);
/// How many times it is asked so soon.
const SOON_TIMES: u32 = 24;
/// Afterwards.
const LATER: Duration = Duration::from_secs(60);

/// Whether anything takes a connection there.
async fn answers(address: SocketAddr) -> bool {
    matches!(tokio::time::timeout(CONNECT, TcpStream::connect(address)).await, Ok(Ok(_)))
}

/// Asks until `stop`; the receiver tells what was found last.
#[must_use]
pub fn follow(address: SocketAddr, stop: CancellationToken) -> watch::Receiver<bool> {
    let (found, followed) = watch::channel(false);
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        for times in 0_u32.. {
            let bypassable = answers(address).await;
            let changed = found.send_if_modified(|known| std::mem::replace(known, bypassable) != bypassable);
            if changed && bypassable {
                tracing::warn!(%address, "the server answers at the pod's address: callers can come past this proxy");
            }
            tokio::time::sleep(if times < SOON_TIMES { SOON } else { LATER }).await;
        }
    }));
    followed
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_port_that_takes_connections_answers_and_a_closed_one_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let mut followed = follow(address, stop.clone());
        assert!(*followed.wait_for(|found| *found).await.unwrap());
        drop(listener);
        assert!(!answers(address).await);
        stop.cancel();
    }
}
