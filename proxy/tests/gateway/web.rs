//! Threats to the HTTP side: smuggling, rebinding, cross-site requests, sizes, paths; over HTTP/1 and HTTP/2.

use http::Request;
use http_body_util::Full;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::META;
use super::fake::Fake;
use super::harness::{Gate, soon};
use super::setup::Setup;

pub(crate) async fn gate() -> (Fake, Gate) {
    let fake = Fake::modern(&["echo"]).await;
    let gate = Gate::start(&Setup::open(&[&fake])).await;
    assert_eq!(gate.modern(None).tools().await, ["s0_echo"]);
    (fake, gate)
}

fn body() -> String {
    let params = json!({"name": "s0_echo", "arguments": {}, "_meta": {META: "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {}}});
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string()
}

/// A raw request with these lines added to a head that is otherwise right.
fn raw(lines: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: s0_echo\r\n{lines}\r\n{body}"
    )
    .into_bytes()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn two_lengths_for_one_body_are_refused() {
    let (fake, gate) = gate().await;
    let body = body();
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let length = body.len();
    // Nothing of them runs, nor what hides behind them; neither does an ordinary request before them help.
    let smuggled = raw(&format!("Content-Length: {length}\r\n"), &body);
    for lines in [
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n".to_owned(),
        "transfer-encoding: chunked\r\nX-A: b\ncontent-length:5\r\n".to_owned(),
    ] {
        let bad = raw(&lines, &chunked);
        let answer = gate.raw(&bad).await;
        assert_eq!(status(&answer), 400, "{lines}: {answer}");
        let answer = gate.raw_to_end(&[bad.clone(), smuggled.clone()].concat()).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{lines}: {answer}");
        assert_eq!(status(&answer), 400, "{lines}: {answer}");
        assert!(fake.calls().is_empty(), "{lines}");
    }
    for before in [
        raw(&format!("Content-Length: {length}\r\n"), &body),
        raw("Transfer-Encoding: chunked\r\n", &chunked),
    ] {
        let calls = fake.calls().len();
        let mut stream = TcpStream::connect(gate.proxy.data_addr()).await.unwrap();
        stream.write_all(&before).await.unwrap();
        assert_eq!(status(&soon("an answer", answer(&mut stream)).await), 200);
        let bad = raw("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", &chunked);
        stream.write_all(&[bad, smuggled.clone()].concat()).await.unwrap();
        let mut rest = String::new();
        soon("the end", stream.read_to_string(&mut rest)).await.unwrap();
        assert_eq!((status(&rest), rest.matches("HTTP/1.1 ").count()), (400, 1), "{rest}");
        assert_eq!(fake.calls().len(), calls + 1);
    }
    let calls = fake.calls().len();
    for lines in [
        format!("Content-Length: {length}\r\nContent-Length: {}\r\n", length - 1),
        format!("Content-Length: {length}, {}\r\n", length - 1),
        format!("Content-Length: +{length}\r\n"),
        "Transfer-Encoding: xchunked\r\n".to_owned(),
        "Transfer-Encoding: chunked, identity\r\n".to_owned(),
        format!("Content-Length: {length}\r\nX-Folded: a\r\n b\r\n"),
        format!("Content-Length: {length}\r\nX-Space : a\r\n"),
        format!("Content-Length : {length}\r\n"),
        format!("Content-Length: {length}\r\nX-Nul: a\0b\r\n"),
    ] {
        let answer = gate.raw(&raw(&lines, &body)).await;
        assert_eq!(status(&answer), 400, "{lines}: {answer}");
    }
    for coding in ["gzip, chunked", "chunked, chunked", "chunked\r\nTransfer-Encoding: chunked"] {
        let answer = gate.raw_to_end(&raw(&format!("Transfer-Encoding: {coding}\r\n"), &chunked)).await;
        assert_eq!((status(&answer), answer.matches("HTTP/1.1 ").count()), (400, 1), "{coding}: {answer}");
    }
    assert_eq!(fake.calls().len(), calls);
    let answer = gate.raw(&raw(&format!("Content-Length: {length}\r\nConnection: close\r\n"), &body)).await;
    assert_eq!(status(&answer), 200, "{answer}");
}

#[tokio::test]
async fn chunks_and_lengths_take_turns_on_one_connection() {
    let (fake, gate) = gate().await;
    let body = body();
    let chunked = raw("Transfer-Encoding: chunked\r\n", &format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
    let plain = raw(&format!("Content-Length: {}\r\n", body.len()), &body);
    let mut stream = TcpStream::connect(gate.proxy.data_addr()).await.unwrap();
    for (number, request) in [&plain, &chunked, &chunked, &plain, &chunked].into_iter().enumerate() {
        stream.write_all(request).await.unwrap();
        let answer = soon("an answer", answer(&mut stream)).await;
        assert_eq!(status(&answer), 200, "{number}: {answer}");
    }
    assert_eq!(fake.calls().len(), 5);
    // All at once, too.
    stream.write_all(&[chunked.clone(), plain.clone(), plain, chunked].concat()).await.unwrap();
    let mut answers = String::new();
    while answers.matches("HTTP/1.1 ").count() < 4 {
        answers.push_str(&soon("an answer", answer(&mut stream)).await);
    }
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 4, "{answers}");
}

/// Reads until an answer of known or chunked length is whole.
async fn answer(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    let mut chunk = [0; 4096];
    loop {
        let read = stream.read(&mut chunk).await.unwrap();
        assert!(read > 0, "closed after {answer}");
        answer.push_str(std::str::from_utf8(&chunk[..read]).unwrap());
        if answer.ends_with("\r\n0\r\n\r\n") || super::harness::is_whole(answer.as_bytes()) {
            return answer;
        }
    }
}

#[tokio::test]
async fn what_a_client_sends_for_itself_or_for_a_hop_stays_here() {
    let (fake, gate) = gate().await;
    let body = body();
    let canaries = "Cookie: canary-cookie=1\r\nProxy-Authorization: Basic canary-proxy\r\n\
        X-Forwarded-For: canary-for\r\nX-Forwarded-Host: canary-host\r\nX-Forwarded-User: canary-user\r\n\
        X-Forwarded-Proto: canary-proto\r\nForwarded: for=canary-forwarded\r\nX-Real-Ip: canary-real\r\n\
        Mcp-Session-Id: canary-session\r\nLast-Event-ID: canary-event\r\nX-Mcpmesh-Principal: canary-internal\r\n\
        Mcp-Param-Unknown: canary-param\r\nUser-Agent: canary-agent\r\nTe: trailers\r\nX-Own: canary-own\r\n\
        Connection: close, Authorization, X-Own\r\n";
    let answer = gate.raw(&raw(&format!("{canaries}Content-Length: {}\r\n", body.len()), &body)).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(fake.calls().len(), 1);
    let bytes = String::from_utf8_lossy(&fake.bytes()).to_ascii_lowercase();
    assert!(!bytes.contains("canary"), "{bytes}");
    for name in ["authorization:", "cookie:", "x-forwarded", "mcp-session-id", "last-event-id"] {
        assert!(!bytes.contains(name), "{name} in {bytes}");
    }
}

#[tokio::test]
async fn the_clients_key_never_reaches_a_server_and_the_servers_own_does() {
    let fake = Fake::modern(&["echo"]).await;
    let mut setup = Setup::open(&[&fake]).keys(&["alice"]);
    setup.anonymous = mcpmesh_ir::gateway::Anonymous::Deny;
    setup.servers[0].headers = vec![super::setup::bearer("a/token")];
    let token = mcpmesh_ir::Secret { data: [("token".to_owned(), "its-own".to_owned())].into() };
    setup.secrets.insert("a/token".into(), token);
    let gate = Gate::start(&setup).await;
    assert_eq!(gate.modern(Some("alice")).call("s0_echo", json!({})).await.status, 200);
    let legacy = gate.legacy(Some("alice"), "2025-11-25").await;
    assert_eq!(legacy.call("s0_echo", json!({})).await.status, 200);
    assert_eq!(fake.calls().len(), 2);
    let bytes = String::from_utf8_lossy(&fake.bytes()).into_owned();
    assert!(!bytes.contains("key-alice") && !bytes.contains(&legacy.session));
    assert!(fake.seen().iter().all(|seen| seen.header("authorization") == Some("Bearer its-own")));
}

#[tokio::test]
async fn credentials_must_be_one_bearer_and_known() {
    let fake = Fake::modern(&["echo"]).await;
    let mut setup = Setup::open(&[&fake]).keys(&["alice"]);
    let mut expired = super::setup::key("key-old", "old");
    expired.expires = Some(1_000_000_000);
    setup.keys.push(expired);
    for anonymous in [mcpmesh_ir::gateway::Anonymous::Deny, mcpmesh_ir::gateway::Anonymous::Allow] {
        setup.anonymous = anonymous;
        let gate = Gate::start(&setup).await;
        let good = "Bearer key-alice";
        for wrong in [
            vec![good, good],
            vec![good, "Bearer other"],
            vec!["Bearer other"],
            vec!["Bearer key-old"],
            vec!["Basic a2V5LWFsaWNl"],
            vec!["key-alice"],
            vec!["Bearer"],
            vec![""],
            vec!["Bearer KEY-ALICE"],
            vec!["Bearer key-alice, Bearer other"],
        ] {
            let mut request = gate.modern(None).request(1, "tools/list", &json!({}));
            for value in &wrong {
                request.headers_mut().append("authorization", value.parse().unwrap());
            }
            let answered = gate.ask(request).await;
            assert_eq!(answered.status, 401, "{wrong:?}");
            assert!(answered.header("www-authenticate").unwrap().starts_with("Bearer"), "{wrong:?}");
            assert!(!String::from_utf8_lossy(&answered.body).contains("key-"));
        }
        let none = gate.modern(None).ask("tools/list", json!({})).await;
        let wanted = if anonymous == mcpmesh_ir::gateway::Anonymous::Deny { 401 } else { 200 };
        assert_eq!(none.status.as_u16(), wanted);
        assert_eq!(gate.modern(Some("alice")).ask("tools/list", json!({})).await.status, 200);
        // Credentials are the header's alone, never the query's.
        let uri = format!("{}?access_token=key-alice", gate.url());
        let mut request = gate.modern(None).request(1, "tools/list", &json!({}));
        *request.uri_mut() = uri.parse().unwrap();
        assert_eq!(gate.ask(request).await.status.as_u16(), wanted);
    }
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused_before_anything_is_read() {
    let (fake, gate) = gate().await;
    let headers = |name: &'static str, value: &'static str| {
        let mut request = gate.modern(None).request(1, "tools/call", &json!({"name": "s0_echo"}));
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    for origin in [
        "null",
        "https://evil.example",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://evil.example:80@localhost.evil",
        "file://",
        "http://",
        "",
        "*",
    ] {
        assert_eq!(gate.ask(headers("origin", origin)).await.status, 403, "{origin:?}");
    }
    for host in
        ["evil.example", "evil.example:80", "localhost.evil.example", "0.0.0.0", "[::ffff:10.0.0.1]", ""]
    {
        assert_eq!(gate.ask(headers("host", host)).await.status, 403, "{host:?}");
    }
    let mut twice = headers("origin", "http://localhost");
    twice.headers_mut().append("origin", "https://evil.example".parse().unwrap());
    assert_eq!(gate.ask(twice).await.status, 403);
    let raw_hosts =
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n";
    let code = status(&gate.raw(raw_hosts.as_bytes()).await);
    assert!(code == 400 || code == 403, "{code}");
    let absolute = "POST http://evil.example/mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(status(&gate.raw(absolute.as_bytes()).await), 403);
    assert_eq!(fake.calls().len(), 0);
    for origin in ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:99"] {
        assert_eq!(gate.ask(headers("origin", origin)).await.status, 200, "{origin}");
    }
    assert_eq!(gate.ask(headers("host", "LOCALHOST:1234")).await.status, 200);
}

#[tokio::test]
async fn what_a_browser_may_send_across_sites_is_not_taken() {
    let (fake, gate) = gate().await;
    for content in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "",
        "text/json",
        "application/jsonx",
    ] {
        let mut request = gate.modern(None).request(1, "tools/call", &json!({"name": "s0_echo"}));
        request.headers_mut().insert("content-type", content.parse().unwrap());
        assert_eq!(gate.ask(request).await.status, 415, "{content}");
    }
    let mut request = gate.modern(None).request(1, "tools/call", &json!({"name": "s0_echo"}));
    request.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
    assert_eq!(gate.ask(request).await.status, 415);
    assert_eq!(fake.calls().len(), 0);
}

#[tokio::test]
async fn only_the_exact_path_is_served_in_every_era_and_verb() {
    let (fake, gate) = gate().await;
    let legacy = gate.legacy(None, "2025-11-25").await;
    let seen = fake.seen().len();
    for path in [
        "/mcp/",
        "//mcp",
        "/%6dcp",
        "/mcp/../mcp",
        "/./mcp",
        "/MCP",
        "/mcp;a",
        "/mcp%00",
        "/mcp%2f",
        "/",
        "/mcp/a/gw",
        "/mcp//",
        "/a/../mcp",
        "/mcp%20",
        "/sse",
        "/messages",
    ] {
        let uri: http::Uri = format!("http://{}{path}", gate.proxy.data_addr()).parse().unwrap();
        let mut requests = vec![
            gate.modern(None).request(1, "tools/call", &json!({"name": "s0_echo"})),
            legacy.request(1, "tools/call", &json!({"name": "s0_echo"})),
            gate.request("GET", &legacy.headers(), ""),
            gate.request("DELETE", &legacy.headers(), ""),
        ];
        for request in &mut requests {
            *request.uri_mut() = uri.clone();
        }
        for request in requests {
            let verb = request.method().clone();
            assert_eq!(gate.ask(request).await.status, 404, "{verb} {path}");
        }
    }
    assert_eq!(fake.seen().len(), seen);
    assert_eq!(legacy.call("s0_echo", json!({})).await.status, 200);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_without_being_read() {
    let (fake, gate) = gate().await;
    // Announced: the answer comes though not one byte of the body was sent.
    let answer = gate.raw(&raw(&format!("Content-Length: {}\r\n", (4 << 20) + 1), "")).await;
    assert_eq!(status(&answer), 413, "{answer}");
    assert!(answer.contains("\"error\""), "{answer}");
    // Not announced: the answer comes while the body goes on for ever.
    let mut stream = TcpStream::connect(gate.proxy.data_addr()).await.unwrap();
    stream.write_all(&raw("Transfer-Encoding: chunked\r\n", "")).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let writing = tokio::spawn(async move {
        let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
        let mut sent = 0_usize;
        while write.write_all(chunk.as_bytes()).await.is_ok() && sent < 64 << 20 {
            sent += 0x10000;
        }
        sent
    });
    let mut head = vec![0; 12];
    soon("the answer to an endless body", read.read_exact(&mut head)).await.unwrap();
    assert_eq!(head, b"HTTP/1.1 413");
    drop(read);
    assert!(soon("the end of writing", writing).await.unwrap() < 64 << 20);
    // One byte less is taken.
    let filler = " ".repeat((4 << 20) - body().len());
    let request = gate.modern(None).with_body("tools/call", &json!({"name": "s0_echo"}), body() + &filler);
    assert_eq!(gate.ask(request).await.status, 200);
    assert_eq!(fake.calls().len(), 1);
}

#[tokio::test]
async fn a_head_over_the_limit_is_431() {
    let (_fake, gate) = gate().await;
    // No byte more than the limit: what is left unread when the connection ends may cost the client its answer.
    let mut big = raw(&format!("X-Big: {}", "a".repeat(17 << 10)), "");
    big.truncate(16 << 10);
    let answer = gate.raw(&big).await;
    assert_eq!(status(&answer), 431, "{answer}");
    let many: String = (0..300).map(|index| format!("X-{index}: a\r\n")).collect();
    assert_eq!(status(&gate.raw(&raw(&many, "")).await), 431);
    let mut big = gate.modern(None).request(1, "tools/list", &json!({}));
    big.headers_mut().insert("x-big", "a".repeat(17 << 10).parse().unwrap());
    assert_eq!(gate.send2(big).await.status, 431);
}

#[tokio::test]
async fn http2_gets_the_same_answers() {
    let (fake, gate) = gate().await;
    let modern = gate.modern(None);
    let ask = |name: &str| modern.request(1, "tools/call", &json!({"name": name, "arguments": {}}));
    assert_eq!(gate.send2(ask("s0_echo")).await.status, 200);
    assert_eq!(gate.send2(ask("s0_none")).await.body, gate.ask(ask("s0_none")).await.body);
    let change = |name: &'static str, value: &str| {
        let mut request = ask("s0_echo");
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    assert_eq!(gate.send2(change("origin", "null")).await.status, 403);
    assert_eq!(gate.send2(change("mcp-name", "s0_other")).await.code(), -32020);
    assert_eq!(gate.send2(change("content-type", "text/plain")).await.status, 415);
    let mut evil = Request::post(gate.url()).header("host", "evil.example");
    evil = evil.header("content-type", "application/json");
    let evil = gate.send2(evil.body(Full::from(body())).unwrap()).await;
    assert_ne!(evil.status, 200);
    let mut elsewhere = ask("s0_echo");
    *elsewhere.uri_mut() = format!("{}/", gate.url()).parse().unwrap();
    assert_eq!(gate.send2(elsewhere).await.status, 404);
    let large = modern.with_body("tools/call", &json!({"name": "s0_echo"}), " ".repeat((4 << 20) + 1));
    assert_eq!(gate.send2(large).await.status, 413);
    assert_eq!(fake.calls().len(), 1);
}

#[tokio::test]
async fn other_verbs_are_refused() {
    let (_fake, gate) = gate().await;
    for verb in ["PUT", "PATCH", "OPTIONS", "TRACE"] {
        assert_eq!(gate.ask(gate.request(verb, &[], "")).await.status, 405, "{verb}");
    }
    for verb in ["GET", "DELETE"] {
        assert_eq!(gate.ask(gate.request(verb, &[], "")).await.status, 405, "{verb} without a session");
        let unknown = gate.request(verb, &[("mcp-session-id", "gw1.x")], "");
        assert_eq!(gate.ask(unknown).await.status, 404, "{verb} of no session");
    }
}

/// A request, the status and reason of its refusal, whether it came as far as the gateway, and whether it was known who
/// asked.
type Refused = (Request<Full<bytes::Bytes>>, u16, &'static str, bool, bool);

fn refused(gate: &Gate) -> Vec<Refused> {
    let alice = ("authorization", "Bearer key-alice");
    let json = ("content-type", "application/json");
    let session = ("mcp-session-id", "gw1.x");
    let forged = "x\r\n{\"outcome\":\"ok\"}";
    let foreign = || gate.request("POST", &[json, alice], body());
    let with = |mut request: Request<Full<bytes::Bytes>>, name: &'static str, value: &'static str| {
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    let mut nowhere = foreign();
    *nowhere.uri_mut() = format!("{}/", gate.url()).parse().unwrap();
    let post = |headers: &[(&str, &str)], body: String| gate.request("POST", headers, body);
    vec![
        (post(&[json, ("authorization", "Bearer wrong")], body()), 401, "unknown_credentials", true, false),
        (post(&[json, alice], forged.into()), 400, "parse_error", true, true),
        (
            post(&[json, alice, ("mcp-protocol-version", "2026-07-28")], body()),
            400,
            "header_mismatch",
            true,
            true,
        ),
        (post(&[alice, ("content-type", "text/plain")], body()), 415, "media_type", true, true),
        (post(&[json, alice], " ".repeat((4 << 20) + 1)), 413, "too_large", true, true),
        (nowhere, 404, "unknown_path", false, false),
        (with(foreign(), "host", "evil.example"), 403, "foreign_host", true, false),
        (with(foreign(), "origin", "https://evil.example"), 403, "foreign_origin", true, false),
        (gate.request("PUT", &[alice], ""), 405, "verb", true, true),
        (gate.request("GET", &[alice], ""), 405, "verb", true, true),
        (gate.request("GET", &[alice, session], ""), 404, "unknown_session", true, true),
        (gate.request("DELETE", &[alice, session], ""), 404, "unknown_session", true, true),
        (
            post(&[json, alice], r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#.into()),
            400,
            "no_session",
            true,
            true,
        ),
    ]
}

#[tokio::test]
async fn what_is_refused_before_a_decision_is_one_line_of_the_access_log_and_one_in_the_metrics() {
    let fake = Fake::modern(&["echo"]).await;
    let gate = Gate::start(&Setup::open(&[&fake]).keys(&["alice"])).await;
    let mut wanted = Vec::new();
    for (request, status, reason, arrived, named) in refused(&gate) {
        assert_eq!(gate.ask(request).await.status, status, "{reason}");
        wanted.push((reason.to_owned(), u64::from(status), arrived, named));
    }
    let chunked = format!("{:x}\r\n{}\r\n0\r\n\r\n", body().len(), body());
    gate.raw(&raw("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", &chunked)).await;
    wanted.push(("two_lengths".to_owned(), 400, false, false));
    let lines = || gate.log.lines();
    super::harness::until("all lines", || lines().len() == wanted.len()).await;
    let said: Vec<_> = lines()
        .iter()
        .map(|line| {
            assert_eq!(line["outcome"], "refused");
            let named = line["principal"].as_str().unwrap().contains("alice");
            let reason = line["reason"].as_str().unwrap().to_owned();
            (reason, line["status"].as_u64().unwrap(), line["gateway"] == "a/gw", named)
        })
        .collect();
    assert_eq!(said, wanted);
    let metrics = gate.metrics().await;
    for (reason, _, arrived, _) in &wanted {
        let count = wanted.iter().filter(|one| (&one.0, one.2) == (reason, *arrived)).count();
        let gateway = if *arrived { "a/gw" } else { "" };
        let line =
            format!("mcpmesh_refused_requests_total{{gateway=\"{gateway}\",reason=\"{reason}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}

#[tokio::test]
async fn a_refused_request_that_goes_on_takes_nobodys_place() {
    let fake = Fake::modern(&["echo"]).await;
    let setup = Setup::open(&[&fake]).keys(&["alice"]);
    let gate = Gate::with(&setup, |options| options.bounds.requests = 1).await;
    let mut slow = TcpStream::connect(gate.proxy.data_addr()).await.unwrap();
    slow.write_all(&raw("Authorization: Bearer wrong\r\nContent-Length: 100\r\n", "{")).await.unwrap();
    super::harness::until("its refusal", || gate.log.text().contains("unknown_credentials")).await;
    assert_eq!(gate.modern(Some("alice")).call("s0_echo", json!({})).await.status, 200);
}

#[tokio::test]
async fn a_request_that_is_not_admitted_is_told_so_and_counted() {
    let fake = Fake::modern(&["echo"]).await;
    let gate = Gate::with(&Setup::open(&[&fake]), |options| options.bounds.requests = 0).await;
    let answered = gate.modern(None).call("s0_echo", json!({})).await;
    assert_eq!((answered.status.as_u16(), answered.header("retry-after")), (503, Some("1")));
    assert!(gate.metrics().await.contains("{gateway=\"\",reason=\"overloaded\"} 1\n"));
}
