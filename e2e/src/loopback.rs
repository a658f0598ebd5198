//! Addresses on loopback that no other process of a test has: several proxies of a fleet listen at the same ports, and
//! a restarted process listens where it did before.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, Ordering};

/// An address of 127.0.0.0/8 that this test binary has not given away. Others have another process id.
#[must_use]
pub fn address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    // 127.0 is everybody's; a binary has fewer than 250 such processes.
    Ipv4Addr::new(127, 1 + NEXT.fetch_add(1, Ordering::Relaxed) % 250, high, low)
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn every_address_is_on_loopback_and_another_one() {
        let (one, two) = (address(), address());
        assert!(one.is_loopback() && two.is_loopback());
        assert_ne!(one, two);
    }
}
