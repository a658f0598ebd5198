//! HTTP/2 frames that no client sends, by hand (RFC 9113, section 4.1): floods of resets (CVE-2023-44487), CONTINUATION
//! (CVE-2024-27316), SETTINGS and PING, and line breaks in headers.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::{Gate, soon};
use super::web::gate;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `POST http://localhost/mcp` in HPACK: indexed and literal fields of the static table.
const REQUEST: &[u8] = b"\x83\x86\x04\x04/mcp\x01\x09localhost";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Asks once; the first kind of frame that says what became of it.
async fn verdict(gate: &Gate, request: &[u8]) -> u8 {
    let mut stream = TcpStream::connect(gate.proxy.data_addr()).await.unwrap();
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, request);
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &request].concat()).await.unwrap();
    let mut head = [0; 9];
    loop {
        soon("a frame", stream.read_exact(&mut head)).await.unwrap();
        if [HEADERS, RST_STREAM, GOAWAY].contains(&head[3]) {
            return head[3];
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; length as usize]).await.unwrap();
    }
}

/// Sends these after a preface and an empty SETTINGS; returns the kinds of frames that came back until the connection
/// ended. Writing goes on as long as the other side reads.
async fn flood(gate: &Gate, frames: impl Iterator<Item = Vec<u8>> + Send + 'static) -> Vec<u8> {
    let stream = TcpStream::connect(gate.proxy.data_addr()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let writing = tokio::spawn(async move {
        let start = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        let mut failed = write.write_all(&start).await.is_err();
        for frame in frames {
            failed = failed || write.write_all(&frame).await.is_err();
        }
        let _ = write.shutdown().await;
    });
    let mut kinds = Vec::new();
    let mut head = [0; 9];
    while soon("a frame or the end", read.read_exact(&mut head)).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        kinds.push(head[3]);
        if read.read_exact(&mut payload).await.is_err() {
            break;
        }
    }
    drop(read);
    soon("the flood is over", writing).await.unwrap();
    kinds
}

async fn works(gate: &Gate) {
    assert_eq!(gate.modern(None).tools().await, ["s0_echo"]);
}

/// A header that HPACK carries whatever its bytes are.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

#[tokio::test]
async fn a_line_break_in_a_header_of_http2_is_no_request() {
    let (fake, gate) = gate().await;
    for (value, answered) in
        [("v", true), ("v\r\nmcp-name: s0_echo", false), ("v\nx: y", false), ("v\0", false)]
    {
        let kind = verdict(&gate, &[REQUEST, &literal("x-note", value)].concat()).await;
        assert_eq!(kind == HEADERS, answered, "{value:?} {kind}");
    }
    assert!(fake.calls().is_empty());
    works(&gate).await;
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_at_once_end_their_connection() {
    let (fake, gate) = gate().await;
    let pairs = (0..5_000_u32).map(|number| {
        let id = 2 * number + 1;
        let cancel = 8_u32.to_be_bytes();
        [frame(HEADERS, END_HEADERS, id, REQUEST), frame(RST_STREAM, 0, id, &cancel)].concat()
    });
    // In one piece, so that resets are read before anything is answered.
    let all = pairs.flatten().collect::<Vec<u8>>();
    let kinds = flood(&gate, std::iter::once(all)).await;
    assert_eq!(kinds.iter().filter(|kind| **kind == GOAWAY).count(), 1, "{kinds:?}");
    works(&gate).await;
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn a_head_that_never_ends_ends_its_connection() {
    let (_fake, gate) = gate().await;
    // A field that is never indexed, over and over: 64 MiB if somebody would take them.
    let piece = b"\x10\x01a\x01b".repeat(3_000);
    let first = std::iter::once(frame(HEADERS, 0, 1, REQUEST));
    let kinds = flood(&gate, first.chain((0..4_000).map(move |_| frame(CONTINUATION, 0, 1, &piece)))).await;
    assert!(!kinds.contains(&HEADERS), "it is no request: {kinds:?}");
    works(&gate).await;
}

#[tokio::test]
async fn settings_and_pings_without_end_cost_nobody_else_anything() {
    let (_fake, gate) = gate().await;
    let (nothing, eight): (&[u8], &[u8]) = (&[], &[0; 8]);
    for (kind, payload) in [(SETTINGS, nothing), (PING, eight)] {
        let frames = (0..50_000).map(move |_| frame(kind, 0, 0, payload));
        let (kinds, ()) = tokio::join!(flood(&gate, frames), works(&gate));
        assert!(kinds.iter().all(|kind| [SETTINGS, PING, GOAWAY, 8].contains(kind)), "answers of one kind");
        works(&gate).await;
    }
}
