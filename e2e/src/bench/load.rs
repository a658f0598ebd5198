//! The load: requests rendered once, keep-alive connections, answers read to their last byte.
//!
//! It parses no more of HTTP/1.1 than tells where an answer ends, so that it costs little beside what it measures.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An answer: its status and the length of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) bytes: usize,
}

/// One keep-alive connection.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// `Mcp-Session-Id` of the last answer.
    pub(super) session: Option<String>,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 32 << 10].into(), start: 0, end: 0, session: None })
    }

    /// Sends a request and reads its answer, keeping the body where it is wanted.
    pub(super) async fn exchange(
        &mut self,
        request: &[u8],
        keep: Option<&mut Vec<u8>>,
    ) -> anyhow::Result<Answer> {
        self.send(request).await?;
        self.receive(keep).await
    }

    /// Sends a request only.
    pub(super) async fn send(&mut self, request: &[u8]) -> anyhow::Result<()> {
        Ok(self.stream.write_all(request).await?)
    }

    /// Waits for the first byte of the next answer's body.
    pub(super) async fn begin(&mut self) -> anyhow::Result<()> {
        loop {
            let seen = &self.buffer[self.start..self.end];
            if find(seen, b"\r\n\r\n").is_some_and(|head| seen.len() > head + 4) {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    /// Reads the next answer.
    pub(super) async fn receive(&mut self, mut keep: Option<&mut Vec<u8>>) -> anyhow::Result<Answer> {
        let head = self.head().await?;
        let mut bytes = 0;
        match head.length {
            Some(length) => {
                bytes = length;
                self.take(length, &mut keep).await?;
            }
            None => loop {
                let length = self.chunk().await?;
                self.take(length, &mut keep).await?;
                self.take(2, &mut None).await?;
                if length == 0 {
                    break;
                }
                bytes += length;
            },
        }
        Ok(Answer { status: head.status, bytes })
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        ensure!(self.end < self.buffer.len(), "a line that is too long");
        let read = self.stream.read(&mut self.buffer[self.end..]).await?;
        ensure!(read > 0, "the connection was closed");
        self.end += read;
        Ok(())
    }

    async fn head(&mut self) -> anyhow::Result<Head> {
        loop {
            let seen = &self.buffer[self.start..self.end];
            if let Some(length) = find(seen, b"\r\n\r\n") {
                let head = Head::read(&seen[..length + 2])?;
                self.session.clone_from(&head.session);
                self.start += length + 4;
                return Ok(head);
            }
            self.fill().await?;
        }
    }

    async fn chunk(&mut self) -> anyhow::Result<usize> {
        loop {
            let seen = &self.buffer[self.start..self.end];
            if let Some(length) = find(seen, b"\r\n") {
                let size = usize::from_str_radix(std::str::from_utf8(&seen[..length])?, 16)?;
                self.start += length + 2;
                return Ok(size);
            }
            self.fill().await?;
        }
    }

    async fn take(&mut self, mut left: usize, keep: &mut Option<&mut Vec<u8>>) -> anyhow::Result<()> {
        loop {
            let here = left.min(self.end - self.start);
            if let Some(keep) = keep {
                keep.extend_from_slice(&self.buffer[self.start..self.start + here]);
            }
            self.start += here;
            left -= here;
            if left == 0 {
                return Ok(());
            }
            self.fill().await?;
        }
    }
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

struct Head {
    status: u16,
    /// None: chunked.
    length: Option<usize>,
    session: Option<String>,
}

impl Head {
    fn read(text: &[u8]) -> anyhow::Result<Self> {
        let status = text.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let mut head = Self { status: status.context("no status line")?, length: Some(0), session: None };
        for line in text.split(|byte| *byte == b'\n') {
            let value = |name: &[u8]| {
                let (start, rest) = line.split_at_checked(name.len())?;
                start.eq_ignore_ascii_case(name).then(|| rest.trim_ascii())
            };
            if let Some(value) = value(b"content-length:") {
                head.length = Some(std::str::from_utf8(value)?.parse()?);
            } else if value(b"transfer-encoding:").is_some() {
                head.length = None;
            } else if let Some(value) = value(b"mcp-session-id:") {
                head.session = Some(std::str::from_utf8(value)?.to_owned());
            }
        }
        Ok(head)
    }
}

/// What a run came to.
pub(super) struct Ran {
    pub(super) elapsed: Duration,
    pub(super) statuses: BTreeMap<u16, usize>,
}

impl Ran {
    pub(super) fn per_second(&self) -> f64 {
        self.statuses.values().sum::<usize>() as f64 / self.elapsed.as_secs_f64()
    }

    pub(super) fn count(&self, status: u16) -> usize {
        self.statuses.get(&status).copied().unwrap_or(0)
    }
}

/// Open connections to one address.
pub(super) struct Load(Vec<Connection>);

impl Load {
    pub(super) async fn open(address: SocketAddr, connections: usize) -> anyhow::Result<Self> {
        Ok(Self(try_join_all((0..connections).map(|_| Connection::open(address))).await?))
    }

    /// Sends exactly `total` requests as fast as they are answered. Each connection takes its own share of them in
    /// turn: no two have the same request, and with it the same id in one session, in flight.
    pub(super) async fn run(&mut self, requests: &[Bytes], total: usize) -> anyhow::Result<Ran> {
        let next = Cell::new(0);
        let statuses = std::cell::RefCell::new(BTreeMap::new());
        let began = Instant::now();
        let connections = self.0.len();
        let all = self.0.iter_mut().enumerate().map(async |(mut at, connection)| {
            while next.replace(next.get() + 1) < total {
                let request = &requests[at % requests.len()];
                at += connections;
                let answer = connection.exchange(request, None).await?;
                *statuses.borrow_mut().entry(answer.status).or_insert(0) += 1;
            }
            anyhow::Ok(())
        });
        try_join_all(all).await?;
        Ok(Ran { elapsed: began.elapsed(), statuses: statuses.into_inner() })
    }
}

/// Latencies at a given rate, from the moment that each request was due. Sorted.
pub(super) fn paced(
    address: SocketAddr,
    request: &Bytes,
    total: usize,
    interval: Duration,
) -> anyhow::Result<Vec<Duration>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let mut connection = Connection::open(address).await?;
        let mut took = Vec::with_capacity(total);
        let mut due = Instant::now();
        for _ in 0..total {
            due += interval;
            let now = Instant::now();
            let from = if now < due {
                // Nothing else runs here; what the timer oversleeps is not the proxy's.
                std::thread::sleep(due - now);
                Instant::now()
            } else {
                due
            };
            let answer = connection.exchange(request, None).await?;
            if answer.status != 200 {
                bail!("answered {}", answer.status);
            }
            took.push(from.elapsed());
        }
        took.sort_unstable();
        Ok(took)
    })
}
