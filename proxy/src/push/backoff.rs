//! How long to wait before the operator is tried again: 10 ms to 15 s, with full jitter.

use std::time::Duration;

/// No wait is shorter.
const LEAST: Duration = Duration::from_millis(10);
/// No wait is longer.
const MOST: Duration = Duration::from_secs(15);

/// Grows with each failure in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next wait.
    pub(super) fn next(&mut self) -> Duration {
        let wait = wait(self.failures, random());
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// It works: the next failure is the first again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A share of the longest wait after so many failures: a thousand proxies that lost one operator come back one by one.
fn wait(failures: u32, share: f64) -> Duration {
    let longest = LEAST.saturating_mul(2_u32.saturating_pow(failures.saturating_add(1))).min(MOST);
    longest.mul_f64(share).max(LEAST)
}

/// From 0 up to 1. Without randomness the whole wait: slow is safe.
pub(super) fn random() -> f64 {
    let mut bytes = [0; 4];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return 1.0;
    }
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_10_ms_to_15_s_and_start_again_after_a_success() {
        let longest: Vec<_> = (0..12).map(|failures| wait(failures, 1.0).as_millis()).collect();
        assert_eq!(longest, [20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10240, 15000, 15000]);
        assert!((0..12).all(|failures| wait(failures, 0.0) == LEAST));
        let mut backoff = Backoff { failures: u32::MAX };
        assert!(backoff.next() <= MOST);
        backoff.reset();
        assert!(backoff.next() <= LEAST * 2);
    }
}
