//! How much of what a server writes on stderr gets into our log: what comes faster is counted, and read all the same, so
//! that the server never waits for us.

use std::time::Duration;

use tokio::time::Instant;

/// What a line takes of the time that a server has...
const LINE: Duration = Duration::from_millis(20);
/// ...and what each byte of it takes besides: 16 KiB are a second.
const BYTE: Duration = Duration::from_nanos(61_035);
/// How far a server may be ahead of its time: some eight hundred lines of common length at once.
const AHEAD: Duration = Duration::from_secs(20);
/// For how long nothing is logged of one that is too fast, so that one line tells of many.
const SHUT: Duration = Duration::from_secs(10);

/// One server's, all processes of it together.
#[derive(Debug, Default)]
pub(super) struct Flood {
    /// Until when what was logged takes its time.
    spent: Option<Instant>,
    shut: Option<Instant>,
    lines: u64,
    bytes: u64,
}

impl Flood {
    /// Whether a line of this length is logged; else it is counted.
    pub(super) fn takes(&mut self, now: Instant, length: usize) -> bool {
        let cost = LINE + BYTE.saturating_mul(u32::try_from(length).unwrap_or(u32::MAX));
        let spent = self.spent.map_or(now, |spent| spent.max(now)) + cost;
        if self.shut.is_none() && spent.saturating_duration_since(now) <= AHEAD {
            self.spent = Some(spent);
            return true;
        }
        self.shut.get_or_insert(now + SHUT);
        self.lines += 1;
        self.bytes += length as u64;
        false
    }

    /// When to ask what was left out, if anything was.
    pub(super) fn shut(&self) -> Option<Instant> {
        self.shut
    }

    /// What was left out since it was last asked, in a sentence. From now on lines are logged again.
    pub(super) fn left_out(&mut self) -> Option<String> {
        self.shut = None;
        let (lines, bytes) = (std::mem::take(&mut self.lines), std::mem::take(&mut self.bytes));
        (lines > 0).then(|| {
            format!("left out {lines} lines ({bytes} bytes) of its stderr, which came faster than is logged")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_logged_and_a_flood_is_counted_until_it_has_had_its_time() {
        let (mut flood, mut now) = (Flood::default(), Instant::now());
        let logged = (0..5000).filter(|_| flood.takes(now, 80)).count();
        assert!((700..900).contains(&logged), "{logged}");
        assert_eq!(flood.shut(), Some(now + SHUT));
        let said = flood.left_out().unwrap();
        let lines = 5000 - logged;
        assert!(said.starts_with(&format!("left out {lines} lines ({} bytes)", lines * 80)), "{said}");
        assert_eq!((flood.left_out(), flood.shut()), (None, None), "once");
        // For ever on: no more than its time allows.
        let mut bytes = 0;
        for _ in 0..360 {
            now += SHUT;
            flood.left_out();
            bytes += (0..5000).filter(|_| flood.takes(now, 8192)).count() * 8192;
        }
        assert!(bytes <= 3620 * (16 << 10), "{bytes} bytes in an hour");
        now += AHEAD + SHUT;
        flood.left_out();
        assert!((0..700).all(|_| flood.takes(now, 80)), "as new");
    }
}
