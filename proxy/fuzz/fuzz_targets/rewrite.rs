//! Chunking makes no difference, and what was strict JSON stays strict JSON.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use mcpmesh_proxy_fuzz::cuts;
use mcpmesh_proxy_fuzz::mcp::envelope::Id;
use mcpmesh_proxy_fuzz::mcp::era::{Era, Revision};
use mcpmesh_proxy_fuzz::mcp::json::{Limits, check};
use mcpmesh_proxy_fuzz::mcp::meta::CapabilitySet;
use mcpmesh_proxy_fuzz::mcp::rewrite::{Rewriter, Rules, UriWrap, rewrite_whole};
use mcpmesh_proxy_fuzz::mcp::{downgrade, json};

fuzz_target!(|data: &[u8]| {
    let Some((head, rest, cuts)) = cuts(data) else { return };
    let target = Revision::ALL[usize::from(head & 7) % Revision::ALL.len()];
    let rules = Rules {
        uris: (head & 8 != 0).then(|| UriWrap { prefix: "up".into() }),
        asks: (head & 16 != 0).then(|| CapabilitySet::from_bits(head)),
        reads_resource: head & 32 != 0,
        ..Rules::new(Id::from(7), target, if head & 64 == 0 { Era::Legacy } else { Era::Modern })
    };
    let whole = rewrite_whole(rest, rules.clone());

    let mut out = BytesMut::new();
    let mut rewriter = Rewriter::new(rules.clone());
    let fed = cuts.windows(2).try_for_each(|pair| rewriter.feed(&rest[pair[0]..pair[1]], &mut out));
    let parts = fed.and_then(|()| rewriter.finish());
    assert_eq!(whole.is_ok(), parts.is_ok());
    let Ok((text, outcome)) = whole else { return };
    assert_eq!((text.as_ref(), Ok(outcome)), (out.as_ref(), parts));

    let mut pieces = Vec::new();
    let mut rewriter = Rewriter::new(rules);
    rewriter.feed_bytes(&Bytes::copy_from_slice(rest), &mut pieces).expect("as before");
    assert_eq!(pieces.concat(), text);

    let limits = Limits { depth: 256, members: usize::MAX };
    if check(rest, &limits).is_ok() {
        check(&text, &limits).expect("still strict JSON");
        assert_eq!(json::member(&text, "id"), Some(&b"7"[..]));
        check(&downgrade::response(&text, target), &limits).expect("still strict JSON");
    }
});
