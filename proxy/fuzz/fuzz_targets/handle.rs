//! Nothing opens but what was sealed, for whom it was sealed.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mcpmesh_proxy_fuzz::mcp::handle::{Binding, KeyRing, Purpose};

static RING: LazyLock<KeyRing> = LazyLock::new(|| KeyRing::new(&[7; 32], Some(&[9; 32])).expect("32 bytes"));

/// Never seals, so nothing opens: what RING seals, libFuzzer sees in comparisons and brings back.
static UNUSED: LazyLock<KeyRing> =
    LazyLock::new(|| KeyRing::new(&[11; 32], Some(&[13; 32])).expect("32 bytes"));

fuzz_target!(|data: &[u8]| {
    let mine = Binding { gateway_uid: "gw", principal: "alice" };
    let text = String::from_utf8_lossy(data);
    assert!(UNUSED.open::<String>(Purpose::Session, &mine, 1, &text).is_err());
    let forged = format!("gw1.{text}");
    assert!(UNUSED.open::<String>(Purpose::Session, &mine, 1, &forged).is_err());

    let sealed = RING.seal(Purpose::Session, &mine, 100, &text).expect("sealing");
    assert_eq!(RING.open::<String>(Purpose::Session, &mine, 99, &sealed).expect("our own"), text);
    let theirs = Binding { gateway_uid: "gw", principal: &text };
    assert!(text == "alice" || RING.open::<String>(Purpose::Session, &theirs, 99, &sealed).is_err());
    let (Some(at), Some(byte)) = (data.first(), data.get(1)) else { return };
    let mut bytes = sealed.clone().into_bytes();
    let at = usize::from(*at) % bytes.len();
    bytes[at] = byte & 0x7f;
    let changed = String::from_utf8(bytes).expect("ASCII");
    assert!(changed == sealed || RING.open::<String>(Purpose::Session, &mine, 99, &changed).is_err());
});
