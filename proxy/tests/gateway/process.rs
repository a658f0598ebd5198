//! The process: what it reads again on SIGHUP, and how it ends after SIGTERM, at once or late, as `--drain-delay` says,
//! and never in the middle of a call.

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
use tokio::sync::{mpsc, watch};

use super::client::META;
use super::fake::{self, Fake, Seen};
use super::harness::{Answered, soon, until, whole};
use super::setup::Setup;

/// `mcpmesh-proxy --config`, killed with this handle.
struct Running {
    child: Child,
    data: SocketAddr,
    metrics: SocketAddr,
    admin: SocketAddr,
    /// What it logs once it serves.
    said: mpsc::UnboundedReceiver<String>,
    folder: tempfile::TempDir,
}

/// The configuration's file.
const CONFIG: &str = "mesh.json";

impl Running {
    /// Serves one server, which has a tool `read`, with more arguments.
    async fn start(fake: &Fake, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join(CONFIG);
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
        let (tell, said) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = log.next_line().await {
                let _ = tell.send(line);
            }
        });
        let at = |name: &str| serving[name].as_str().unwrap().parse().unwrap();
        let running =
            Self { child, data: at("data"), metrics: at("metrics"), admin: at("admin"), said, folder };
        running.says(StatusCode::OK).await;
        // How long it takes to know the server is not what is tested.
        soon("the tool answers", async { while !answers(&call(running.data, "s0_read").await) {} }).await;
        running
    }

    fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap(), signal).unwrap();
    }

    /// Has the process read this in place of its configuration.
    fn reread(&self, config: impl AsRef<[u8]>) {
        std::fs::write(self.folder.path().join(CONFIG), config).unwrap();
        self.signal(Signal::HUP);
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

#[tokio::test]
async fn sighup_reads_the_file_again_and_one_that_cannot_be_read_changes_nothing() {
    let fake = Fake::modern(&["read"]).await;
    let mut running = Running::start(&fake, &[]).await;
    running.reread("no snapshots");
    let kept = "kept the configuration in force";
    soon(kept, async { while !running.said.recv().await.unwrap().contains(kept) {} }).await;
    assert!(answers(&call(running.data, "s0_read").await));
    let other = Setup { allowed_origins: vec!["https://app.test".into()], ..Setup::open(&[&fake]) };
    running.reread(serde_json::to_vec(&[other.snapshot()]).unwrap());
    let dump =
        || Request::get(format!("http://{}/config_dump", running.admin)).body(Full::default()).unwrap();
    let shown = async || String::from_utf8(on_new_connection(dump()).await.body.to_vec()).unwrap();
    soon("the new configuration", async { while !shown().await.contains("https://app.test") {} }).await;
    assert!(answers(&call(running.data, "s0_read").await));
}

#[tokio::test]
async fn an_admin_port_for_others_is_wrong_use() {
    let words = ["--config", "none.json", "--admin", "0.0.0.0:1"];
    let output = Command::new(env!("CARGO_BIN_EXE_mcpmesh-proxy")).args(words).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("the admin port is for loopback only"), "{said}");
}
