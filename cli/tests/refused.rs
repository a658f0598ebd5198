//! An endpoint that answers with an HTTP status: the commands say what it said.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;

const MCPMESH: &str = env!("CARGO_BIN_EXE_mcpmesh");

/// An endpoint that answers everything with this status line and body, as long as the test runs.
fn endpoint(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut line in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 8192];
            let _ = line.read(&mut request);
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = line.write_all((head + body).as_bytes());
        }
    });
    url
}

#[test]
fn a_refusal_is_shown_in_the_endpoints_own_words() {
    let of_gateway = |message: &str| {
        let text = format!(r#"{{"jsonrpc":"2.0","error":{{"code":-32600,"message":"{message}"}}}}"#);
        &*text.leak()
    };
    let cases = [
        (
            "401 Unauthorized",
            of_gateway("the API key has expired"),
            "401: the API key has expired; give a key that it knows with --key or MCPMESH_KEY",
        ),
        (
            "401 Unauthorized",
            "",
            "401; it lets in whom it knows: give an API key with --key or MCPMESH_KEY. One that was given is unknown, expired or another endpoint's",
        ),
        ("403 Forbidden", of_gateway("this Host is not served here"), "403: this Host is not served here"),
        (
            "429 Too Many Requests",
            r#"{"error":"slow_down","error_description":"one a minute"}"#,
            "429: one a minute",
        ),
        ("503 Service Unavailable", "no healthy\u{1b}[2J upstream\n", "503: no healthy[2J upstream"),
        (
            "404 Not Found",
            of_gateway("nothing is served at this path"),
            "404: nothing is served at this path; the endpoint of `mcpmesh up` is the one that it prints, such as http://127.0.0.1:8080/mcp",
        ),
        ("502 Bad Gateway", "<html><h1>502</h1></html>", "502"),
    ];
    for (status, body, said) in cases {
        let url = endpoint(status, body);
        for command in [&["tools"][..], &["call", "a/b"]] {
            let output = Command::new(MCPMESH)
                .args(command)
                .args(["--url", &url])
                .env("NO_COLOR", "1")
                .output()
                .unwrap();
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            let expected = format!("error: {url}: the upstream answered with HTTP status {said}\n");
            assert_eq!((output.status.code(), error), (Some(1), expected), "{command:?}");
        }
    }
}
