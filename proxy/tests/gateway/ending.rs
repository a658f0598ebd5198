//! How the process ends after SIGTERM: at once or late, as `--drain-delay` says, and never in the middle of a call.

use std::net::SocketAddr;
use std::process::Stdio;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::client::META;
use super::fake::{self, Fake, Seen};
use super::harness::{Answered, soon, until, whole};
use super::setup::Setup;

/// `mcpmesh-proxy --config`, killed with this handle.
struct Running {
    child: Child,
    data: SocketAddr,
    metrics: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Running {
    /// Serves one server, which has a tool `read`, with more arguments.
    async fn start(fake: &Fake, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("mesh.json");
        std::fs::write(&config, serde_json::to_vec(&[Setup::open(&[fake]).snapshot()]).unwrap()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcpmesh-proxy"));
        command.arg("--config").arg(config).args(more).env_remove("RUST_LOG");
        for flag in ["--listen", "--metrics", "--admin"] {
            command.args([flag, "127.0.0.1:0"]);
        }
        let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let serving = soon("the process serves", async {
            loop {
                let line = log.next_line().await.unwrap().expect("the process ended");
                let line: Value = serde_json::from_str(&line).unwrap();
                if line["fields"]["message"] == "serving" {
                    return line["fields"].clone();
                }
            }
        });
        let serving = serving.await;
        // The pipe is read on, or the process would wait for it.
        tokio::spawn(async move { while log.next_line().await.is_ok_and(|line| line.is_some()) {} });
        let at = |name: &str| serving[name].as_str().unwrap().parse().unwrap();
        let running = Self { child, data: at("data"), metrics: at("metrics"), _folder: folder };
        running.says(StatusCode::OK).await;
        // How long it takes to know the server is not what is tested.
        soon("the tool answers", async { while !answers(&call(running.data, "s0_read").await) {} }).await;
        running
    }

    fn terminate(&self) {
        kill_process(Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap(), Signal::TERM).unwrap();
    }

    /// Waits until `/readyz` says this.
    async fn says(&self, status: StatusCode) {
        let request =
            || Request::get(format!("http://{}/readyz", self.metrics)).body(Full::default()).unwrap();
        let asked = async { while on_new_connection(request()).await.status != status {} };
        soon(&format!("/readyz says {status}"), asked).await;
    }
}

/// Asks on a connection of its own.
async fn on_new_connection(request: Request<Full<Bytes>>) -> Answered {
    let client = Client::builder(TokioExecutor::new()).build_http();
    whole(soon("an answer's head", client.request(request)).await.unwrap()).await
}

fn answers(answered: &Answered) -> bool {
    answered.json()["result"].is_object()
}

async fn call(data: SocketAddr, tool: &str) -> Answered {
    let meta = json!({META: "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}});
    let params = json!({"name": tool, "arguments": {}, "_meta": meta});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
    let request = Request::post(format!("http://{data}/mcp"))
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", tool);
    on_new_connection(request.body(Full::new(Bytes::from(body))).unwrap()).await
}

#[tokio::test]
async fn with_a_long_delay_sigterm_turns_ready_off_and_calls_go_on_over_new_connections() {
    let fake = Fake::modern(&["read"]).await;
    let mut running = Running::start(&fake, &["--drain-delay", "3600"]).await;
    running.terminate();
    running.says(StatusCode::SERVICE_UNAVAILABLE).await;
    assert!(answers(&call(running.data, "s0_read").await));
    assert_eq!(running.child.try_wait().unwrap(), None);
}

#[tokio::test]
async fn without_a_delay_the_process_ends_once_the_call_in_flight_has_its_answer() {
    let fake = Fake::modern(&["read", "wait"]).await;
    let release = watch::Sender::new(false);
    let released = release.subscribe();
    fake.hook(move |seen| {
        if seen.body["params"]["name"] != "wait" {
            return None;
        }
        let mut released = released.clone();
        let answer = async move {
            released.wait_for(|released| *released).await.unwrap();
            fake::result(&seen, json!({"resultType": "complete", "content": []}))
        };
        Some(answer.boxed())
    });
    let mut running = Running::start(&fake, &["--drain-delay", "0"]).await;
    let data = running.data;
    let in_flight = tokio::spawn(call(data, "s0_wait"));
    let waits = |seen: &Seen| seen.body["params"]["name"] == "wait";
    fake.until("the call", |all| all.iter().any(waits)).await;
    running.terminate();
    until("no connection is taken", || std::net::TcpStream::connect(data).is_err()).await;
    assert_eq!(running.child.try_wait().unwrap(), None, "a call is in flight");
    release.send_replace(true);
    let answered = soon("the answer", in_flight).await.unwrap();
    assert!(answers(&answered));
    let ended = soon("the end", running.child.wait()).await.unwrap();
    assert!(ended.success(), "{ended}");
}
