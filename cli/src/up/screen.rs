//! What `up` prints: plain lines for scripts, or with a terminal a table that stays below the log.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use comfy_table::{Cell, Color, ContentArrangement, Row, Table, presets};
use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

use super::status::{ServerStatus, State};
use crate::terminal;

/// Lines of the screen that are no servers': an empty one, the header, how many more there are, and the cursor's.
const OTHER_LINES: u16 = 4;

/// On less, nothing can be told in a table.
const FEWEST_COLUMNS: u16 = 30;

/// Where `up` writes. Cheap to clone; the log goes through it too, so that nothing tears the table.
#[derive(Clone)]
pub(super) struct Screen {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    live: bool,
    rows: BTreeMap<String, ServerStatus>,
    /// Lines of the table that is on the terminal now.
    drawn: usize,
}

impl Screen {
    /// Live when standard output is a terminal.
    pub(super) fn new() -> Self {
        let live = io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { inner: Arc::new(Mutex::new(Inner { live, rows: BTreeMap::new(), drawn: 0 })) }
    }

    /// Where everything listens, and how to use it.
    pub(super) fn opened(&self, addresses: &[(&str, String)], connect: &str) {
        let mut out = anstream::stdout();
        for (name, url) in addresses {
            let _ = writeln!(out, "{name:<9} {url}");
        }
        let _ = writeln!(out, "connect   {connect}");
        let _ = out.flush();
    }

    /// The servers as they are now.
    pub(super) fn servers(&self, now: Vec<ServerStatus>) {
        let now: BTreeMap<String, ServerStatus> =
            now.into_iter().map(|row| (row.name.clone(), row)).collect();
        let mut inner = self.inner.lock();
        if inner.rows == now {
            return;
        }
        let before = std::mem::replace(&mut inner.rows, now);
        if inner.live {
            inner.clear();
            inner.draw();
            return;
        }
        let mut out = io::stdout().lock();
        for line in inner.rows.values().filter(|row| before.get(&row.name) != Some(row)).map(plain) {
            let _ = writeln!(out, "{line}");
        }
        for name in before.keys().filter(|name| !inner.rows.contains_key(*name)) {
            let _ = writeln!(out, "server  {name}  Removed  -  -  -");
        }
        let _ = out.flush();
    }

    /// A place for lines that are no events of the log, such as those of the access log.
    pub(super) fn sink(&self) -> Sink {
        Sink(self.clone())
    }

    /// Leaves the last table where it is: whatever comes next stands below it.
    pub(super) fn close(&self) {
        self.inner.lock().drawn = 0;
    }
}

impl Inner {
    fn clear(&mut self) {
        if self.drawn > 0 {
            let mut out = io::stdout().lock();
            // CSI F: up to the beginning of that line; CSI J: erase from there.
            let _ = write!(out, "\x1b[{}F\x1b[J", self.drawn);
            let _ = out.flush();
            self.drawn = 0;
        }
    }

    fn draw(&mut self) {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
        let size = size.map(|size| (size.ws_col, size.ws_row)).filter(|size| size.0 > 0 && size.1 > 0);
        let (width, height) = size.unwrap_or((80, 24));
        let lines = height.saturating_sub(OTHER_LINES);
        if width < FEWEST_COLUMNS || lines == 0 {
            return;
        }
        let text = table(self.rows.values(), width, usize::from(lines));
        let mut out = anstream::stdout();
        let _ = writeln!(out, "\n{text}");
        let _ = out.flush();
        self.drawn = text.lines().count() + 1;
    }
}

fn plain(row: &ServerStatus) -> String {
    let ServerStatus { name, state, protocol, tools, reason } = row;
    let tools = tools.map_or_else(|| "-".to_owned(), |count| count.to_string());
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    format!("server  {name}  {}  {}  {tools}  {}", state.as_str(), or_none(protocol), or_none(reason))
}

/// One line a server, cut where the terminal would wrap it, and at most `lines` of them: clearing counts lines.
fn table<'a>(rows: impl ExactSizeIterator<Item = &'a ServerStatus>, width: u16, lines: usize) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    let mut header = Row::from(["SERVER", "STATE", "PROTOCOL", "TOOLS", "REASON"]);
    header.max_height(1);
    table.set_header(header);
    let hidden = rows.len().saturating_sub(lines);
    let style = anstream::stdout().current_choice() != anstream::ColorChoice::Never;
    if style {
        table.enforce_styling();
    }
    for row in rows.take(lines) {
        let state = Cell::new(row.state.as_str());
        let color = match row.state {
            State::Ready => Color::Green,
            State::Connecting => Color::Cyan,
            State::Degraded => Color::Yellow,
            State::Failed => Color::Red,
        };
        let mut row = Row::from([
            Cell::new(&row.name),
            if style { state.fg(color) } else { state },
            Cell::new(row.protocol.as_deref().unwrap_or("-")),
            Cell::new(row.tools.map_or_else(|| "-".to_owned(), |count| count.to_string())),
            Cell::new(terminal::line(row.reason.as_deref().unwrap_or_default())),
        ]);
        row.max_height(1);
        table.add_row(row);
    }
    let more = if hidden > 0 { format!("\n… and {hidden} more") } else { String::new() };
    format!("{table}{more}")
}

/// One event of the log, written above the table.
pub(super) struct LogLine {
    screen: Screen,
    text: Vec<u8>,
}

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        let mut inner = self.screen.inner.lock();
        let drawn = inner.drawn > 0;
        inner.clear();
        let _ = anstream::stderr().write_all(&self.text);
        if drawn {
            inner.draw();
        }
    }
}

/// See [`Screen::sink`].
pub(super) struct Sink(Screen);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.make_writer().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = LogLine;

    fn make_writer(&'a self) -> LogLine {
        LogLine { screen: self.clone(), text: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(number: usize) -> ServerStatus {
        ServerStatus {
            name: format!("a-rather-long-name-of-a-server-{number}"),
            state: State::Failed,
            protocol: Some("2025-06-18".to_owned()),
            tools: None,
            reason: Some(format!("no\tanswer\n{}", "of the server at the other end ".repeat(9))),
        }
    }

    #[test]
    fn the_table_never_wraps_and_never_outgrows_the_terminal() {
        let rows: Vec<_> = (0..30).map(failing).collect();
        for (width, lines, shown) in [(80, 20, 9), (80, 5, 9), (30, 3, 9), (200, 20, 30), (80, 1, 1)] {
            let text = table(rows.iter().take(shown), width, lines);
            let text = anstream::adapter::strip_str(&text).to_string();
            assert_eq!(text.lines().count(), 1 + shown.min(lines) + usize::from(shown > lines), "{text}");
            for line in text.lines() {
                assert!(line.chars().count() <= usize::from(width), "{width}: {line:?}");
                assert!(!line.contains(char::is_control), "{line:?}");
            }
        }
    }

    #[test]
    fn a_line_for_scripts_has_every_column() {
        let row = ServerStatus {
            name: "time".to_owned(),
            state: State::Failed,
            protocol: None,
            tools: None,
            reason: Some("uvx not found".to_owned()),
        };
        assert_eq!(plain(&row), "server  time  Failed  -  -  uvx not found");
    }
}
