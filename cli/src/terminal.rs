//! Text that others wrote, as a terminal may get it: nothing that moves the cursor or sets a title.

use std::io::{self, IsTerminal, Write};

/// As one line.
pub(crate) fn line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// As it is broken into lines.
pub(crate) fn lines(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n' && c != '\t', " ")
}

/// Prints it with a line break after it. To anything but a terminal every byte goes as it is.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let written = if out.is_terminal() { writeln!(out, "{}", lines(text)) } else { writeln!(out, "{text}") };
    match written {
        // Whoever read it had enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_it_moves_the_cursor() {
        let text = "a\u{1b}]0;title\u{7}b\r\u{9b}2Jc\td\ne";
        assert_eq!(line(text), "a ]0;title b  2Jc d e");
        assert_eq!(lines(text), "a ]0;title b  2Jc\td\ne");
    }
}
