//! Real clients against the real servers themselves: what is known to work without a mesh in between.

use mcpmesh_e2e::clients::Client;
use mcpmesh_e2e::servers::Server;

const OLD: [&str; 12] = [
    "--call",
    "echo",
    "--args",
    r#"{"text": "hello"}"#,
    "--read",
    "old://text",
    "--prompt",
    "greet",
    "--prompt-args",
    r#"{"name": "Ada"}"#,
    "--progress",
    "wait",
];

#[tokio::test]
async fn server_everything_serves_over_http() -> anyhow::Result<()> {
    let (_process, url) = Server::Everything.start().await?;
    let arguments = ["--call", "echo", "--args", r#"{"message": "hello"}"#, "--prompt", "simple-prompt"];
    Client::TypeScript1.passes(&url, &arguments, &["initialize", "call", "prompt"]).await
}

#[tokio::test]
async fn old_revisions_are_served_over_http() -> anyhow::Result<()> {
    for (server, revision) in [(Server::Old202503, "2025-03-26"), (Server::Old202506, "2025-06-18")] {
        let (_process, url) = server.start().await?;
        let arguments: Vec<_> = OLD.into_iter().chain(["--progress-args", r#"{"seconds": 0.5}"#]).collect();
        Client::Mcp1.passes(&url, &arguments, &["initialize", "call", "read", "prompt", "progress"]).await?;
        assert_eq!(Client::Mcp1.run(&url, &[]).await?["protocol"], revision);
    }
    Ok(())
}

#[tokio::test]
async fn http_with_sse_is_served_by_the_oldest() -> anyhow::Result<()> {
    for server in [Server::Old2024, Server::EverythingSse] {
        let (_process, url) = server.start().await?;
        let stream = mcpmesh_e2e::http::Client::new(&url)?;
        let opened = stream.open(http::Method::GET, &[("accept", "text/event-stream")], "").await?;
        assert_eq!(opened.status, 200, "{url}");
    }
    Ok(())
}
