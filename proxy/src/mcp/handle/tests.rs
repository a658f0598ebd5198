use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_800_000_000;
const ALICE: Binding<'_> = Binding { gateway_uid: "gw-1", principal: "https://issuer|alice" };
const PURPOSES: [Purpose; 5] =
    [Purpose::Session, Purpose::Cursor, Purpose::RequestState, Purpose::Task, Purpose::Event];

fn ring() -> KeyRing {
    KeyRing::new(&[7; SECRET_LEN], None).unwrap()
}

fn seal(ring: &KeyRing, content: &str) -> String {
    ring.seal(Purpose::Session, &ALICE, NOW + 60, &content).unwrap()
}

fn open(ring: &KeyRing, handle: &str) -> Result<String, Unsealed> {
    ring.open(Purpose::Session, &ALICE, NOW, handle)
}

#[test]
fn a_handle_opens_for_its_owner_until_it_expires() {
    let (ring, handle) = (ring(), seal(&ring(), "content"));
    assert_eq!(open(&ring, &handle).as_deref(), Ok("content"));
    let at = |now| ring.open::<String>(Purpose::Session, &ALICE, now, &handle);
    assert!(at(NOW + 59).is_ok());
    assert_eq!(at(NOW + 60), Err(Unsealed));
    assert_eq!(at(u64::MAX), Err(Unsealed));
}

#[test]
fn threat_handle_hijack_another_principal_gateway_or_purpose_opens_nothing() {
    let (ring, handle) = (ring(), seal(&ring(), "content"));
    for binding in [
        Binding { principal: "https://issuer|bob", ..ALICE },
        Binding { principal: "", ..ALICE },
        Binding { gateway_uid: "gw-2", ..ALICE },
        // The same bytes, cut elsewhere.
        Binding { gateway_uid: "gw-1h", principal: "ttps://issuer|alice" },
    ] {
        assert_eq!(ring.open::<String>(Purpose::Session, &binding, NOW, &handle), Err(Unsealed));
    }
    for purpose in PURPOSES.into_iter().filter(|purpose| *purpose != Purpose::Session) {
        assert_eq!(ring.open::<String>(purpose, &ALICE, NOW, &handle), Err(Unsealed));
    }
}

#[test]
fn two_keys_live_while_they_rotate() {
    let old = ring();
    let handle = seal(&old, "x");
    let rotated = KeyRing::new(&[8; SECRET_LEN], Some(&[7; SECRET_LEN])).unwrap();
    assert_eq!(open(&rotated, &handle).as_deref(), Ok("x"));
    assert_eq!(open(&old, &seal(&rotated, "x")), Err(Unsealed));
    assert_eq!(open(&KeyRing::new(&[8; SECRET_LEN], None).unwrap(), &handle), Err(Unsealed));
    assert!(matches!(KeyRing::new(&[0; 31], None), Err(Error::Secret(31))));
}

#[test]
fn handles_are_fit_for_headers_and_never_the_same_twice() {
    let ring = KeyRing::generate().unwrap();
    let (one, two) = (seal(&ring, "x"), seal(&ring, "x"));
    assert_ne!(one, two);
    assert!(one.starts_with("gw1.") && one.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)));
    assert!(!format!("{ring:?}").contains("07070707"));
}

#[test]
fn threat_handle_hijack_guesses_and_truncations_open_nothing() {
    let (ring, handle) = (ring(), seal(&ring(), "content"));
    for cut in 0..handle.len() {
        assert_eq!(open(&ring, &handle[..cut]), Err(Unsealed), "{cut}");
    }
    for guess in
        ["", "gw1.", "gw2.AAAA", &format!("{handle}A"), &format!(" {handle}"), &handle.replace("gw1", "GW1")]
    {
        assert_eq!(open(&ring, guess), Err(Unsealed), "{guess}");
    }
    assert_eq!(open(&ring, &format!("gw1.{}", "A".repeat(1 << 20))), Err(Unsealed));
}

proptest! {
    #[test]
    fn any_flipped_bit_opens_nothing(content in any::<String>(), at in any::<prop::sample::Index>(), bit in 0..7_u8) {
        let ring = ring();
        let mut bytes = seal(&ring, &content).into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(handle) = String::from_utf8(bytes) {
            prop_assert_eq!(open(&ring, &handle), Err(Unsealed));
        }
    }

    #[test]
    fn any_content_comes_back(content in any::<String>(), principal in any::<String>(), gateway in any::<String>()) {
        let binding = Binding { gateway_uid: &gateway, principal: &principal };
        let handle = ring().seal(Purpose::Cursor, &binding, NOW + 1, &content).unwrap();
        prop_assert_eq!(ring().open::<String>(Purpose::Cursor, &binding, NOW, &handle), Ok(content));
    }
}
