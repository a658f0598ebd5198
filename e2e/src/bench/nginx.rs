//! The plain reverse proxy to compare with: Debian's nginx with one worker and a configuration of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::running::{Running, free};

/// Starts nginx in front of `upstream`; `GET /static/…` are the files of that name in `folder`.
pub(super) fn start(folder: &Path, upstream: SocketAddr) -> anyhow::Result<Running> {
    let address = free()?;
    std::fs::create_dir_all(folder.join("static"))?;
    let path = folder.join("nginx.conf");
    std::fs::write(&path, configuration(folder, address, upstream))?;
    let mut command = Command::new("nginx");
    command.arg("-e").arg(folder.join("nginx.log")).arg("-p").arg(folder).arg("-c").arg(&path);
    Running::start("nginx", &mut command, address, folder)
        .context("the bench compares with nginx: apt-get install nginx-light (or nginx)")
}

fn configuration(folder: &Path, address: SocketAddr, upstream: SocketAddr) -> String {
    let folder = folder.display();
    // The worker must read the temporary folder, which is ours alone.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    format!(
        "{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  default_type application/json;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 100000000;
  upstream mcp {{ server {upstream}; keepalive 512; keepalive_requests 100000000; }}
  server {{
    listen {address};
    location / {{
      proxy_pass http://mcp;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_buffering off;
    }}
    location /static/ {{ root {folder}; }}
  }}
}}
"
    )
}
