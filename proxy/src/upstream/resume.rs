//! How often one call may take up its stream again. A server that polls (2025-11-25, basic/transports: it closes the
//! stream after an event with an id) may do so until the call's deadline; one that only makes us ask is given up.

use std::time::Duration;

use tokio::time::Instant;

/// Resumes in a row that brought no new event, in less than [`PATIENT`] each.
const FRUITLESS: usize = 16;
/// A server that lets us wait this long between its streams is not asked in a loop, whether it has news or not.
const PATIENT: Duration = Duration::from_secs(1);
/// Resumes at the server's own pace; from then on there is a pause that a loop cannot do without.
const AT_ITS_PACE: usize = 16;
/// That pause.
const SLOWED: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Resumes {
    /// All of the call.
    total: usize,
    /// Those in a row that came to nothing.
    fruitless: usize,
    /// Where the stream was taken up last, and when.
    last: Option<(String, Instant)>,
}

impl Resumes {
    /// The pause before the stream is taken up again behind this event, where the server asks for `retry`; none when
    /// it is to be given up.
    pub(crate) fn next(&mut self, last_id: &str, retry: Duration) -> Option<Duration> {
        let now = Instant::now();
        let is_fruitless = self.last.as_ref().is_some_and(|(id, at)| id == last_id && now - *at < PATIENT);
        self.fruitless = if is_fruitless { self.fruitless + 1 } else { 0 };
        self.total += 1;
        if self.fruitless >= FRUITLESS {
            return None;
        }
        self.last = Some((last_id.to_owned(), now));
        Some(if self.total > AT_ITS_PACE { retry.max(SLOWED) } else { retry })
    }

    /// It could not be taken up there: the server may be on its way back.
    pub(crate) fn failed(&mut self, last_id: &str) {
        // However long that took, it brought nothing.
        self.last = Some((last_id.to_owned(), Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Duration = Duration::from_millis(5);

    #[tokio::test(start_paused = true)]
    async fn each_new_event_earns_another_resume_at_a_pace_that_is_no_loop() {
        let mut resumes = Resumes::default();
        let pauses: Vec<_> = (0..200).map(|event| resumes.next(&event.to_string(), RETRY)).collect();
        assert!(pauses[..AT_ITS_PACE].iter().all(|pause| *pause == Some(RETRY)));
        assert!(pauses[AT_ITS_PACE..].iter().all(|pause| *pause == Some(SLOWED)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_without_a_new_event_ends() {
        let mut resumes = Resumes::default();
        let resumed = std::iter::from_fn(|| resumes.next("same", RETRY)).take(1000).count();
        assert_eq!(resumed, FRUITLESS);
        assert!(resumes.next("another", RETRY).is_some(), "news begin anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_has_no_news_for_long_is_asked_for_as_long_as_it_lets_us_wait() {
        let mut resumes = Resumes::default();
        for _ in 0..1000 {
            assert!(resumes.next("same", PATIENT).is_some());
            tokio::time::advance(PATIENT).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_cannot_be_reached_is_given_up_however_long_each_attempt_takes() {
        let mut resumes = Resumes::default();
        let mut attempts = 0;
        while resumes.next("same", PATIENT).is_some() {
            tokio::time::advance(PATIENT * 20).await;
            resumes.failed("same");
            attempts += 1;
            assert!(attempts < 1000);
        }
        assert_eq!(attempts, FRUITLESS);
    }
}
