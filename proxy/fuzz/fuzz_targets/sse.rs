//! Chunking makes no difference, nothing is held beyond the limit, and events survive encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcpmesh_proxy_fuzz::cuts;
use mcpmesh_proxy_fuzz::mcp::sse::{Splitter, encode};

fuzz_target!(|data: &[u8]| {
    let Some((_, rest, cuts)) = cuts(data) else { return };
    let whole = Splitter::new(rest.len() + 1).feed(rest).expect("shorter than the limit");
    let mut splitter = Splitter::new(rest.len() + 1);
    let mut parts = Vec::new();
    for pair in cuts.windows(2) {
        parts.extend(splitter.feed(&rest[pair[0]..pair[1]]).expect("shorter than the limit"));
    }
    assert_eq!(whole, parts);
    for event in whole {
        if event.data.contains(&b'\r') || event.data.is_empty() || event.retry.is_some() {
            continue;
        }
        let id = event.id.as_deref().filter(|id| !id.contains('\0'));
        let written = encode(event.event.as_deref(), id, &event.data);
        let read = Splitter::new(1 << 20).feed(&written).expect("short");
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].data, event.data);
    }
    if let Ok(events) = Splitter::new(16).feed(rest) {
        assert!(events.iter().all(|event| event.data.len() <= 17));
    }
});
