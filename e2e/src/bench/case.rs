//! One comparison: the same load at each contestant in turn, again and again, medians at the end.

use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;

use super::load::Load;
use super::running::Running;
use super::world::fetch;

/// One of those that are compared.
pub(super) struct Contestant<'w> {
    pub(super) name: &'static str,
    pub(super) running: &'w Running,
    pub(super) requests: Vec<Bytes>,
    /// The status that every answer has.
    pub(super) status: u16,
    /// What the body of an answer holds.
    pub(super) holds: &'static str,
}

impl<'w> Contestant<'w> {
    /// Whose answers are good and hold this.
    pub(super) fn new(
        name: &'static str,
        running: &'w Running,
        requests: Vec<Bytes>,
        holds: &'static str,
    ) -> Self {
        Self { name, running, requests, status: 200, holds }
    }

    async fn check(&self) -> anyhow::Result<()> {
        let (Some(first), Some(last)) = (self.requests.first(), self.requests.last()) else { return Ok(()) };
        for request in [first, last] {
            let body = fetch(self.running, request).await?;
            let body = String::from_utf8_lossy(&body);
            ensure!(body.contains(self.holds), "{} answers {body:.500}", self.name);
        }
        Ok(())
    }

    async fn sample(&self, connections: usize, total: usize) -> anyhow::Result<Sample> {
        let mut load = Load::open(self.running.address, connections).await?;
        load.run(&self.requests, (2 * connections).clamp(20, total)).await?;
        let before = self.running.cpu();
        let ran = load.run(&self.requests, total).await?;
        let cpu = self.running.cpu() - before;
        ensure!(ran.count(self.status) == total, "{} answered {:?}", self.name, ran.statuses);
        Ok(Sample { cpu: micros(cpu) / total as f64, per_second: ran.per_second() })
    }
}

pub(super) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Microseconds of CPU a request.
    pub(super) cpu: f64,
    /// Requests a second.
    pub(super) per_second: f64,
}

/// What is compared, and what came out: a column of samples for each contestant.
pub(super) struct Case<'w> {
    pub(super) name: String,
    pub(super) connections: usize,
    pub(super) total: usize,
    pub(super) contestants: Vec<Contestant<'w>>,
    samples: Vec<Vec<Sample>>,
}

impl<'w> Case<'w> {
    pub(super) fn new(
        name: impl Into<String>,
        connections: usize,
        total: usize,
        contestants: Vec<Contestant<'w>>,
    ) -> Self {
        let samples = contestants.iter().map(|_| Vec::new()).collect();
        Self { name: name.into(), connections, total, contestants, samples }
    }

    /// One repetition; the one who begins changes.
    pub(super) async fn repeat(&mut self) -> anyhow::Result<()> {
        let count = self.contestants.len();
        let repetition = self.samples.first().map_or(0, Vec::len);
        for turn in 0..count {
            let index = (turn + repetition) % count;
            let contestant = &self.contestants[index];
            if repetition == 0 {
                contestant.check().await?;
            }
            self.samples[index].push(contestant.sample(self.connections, self.total).await?);
        }
        Ok(())
    }

    fn column(&self, name: &str) -> &[Sample] {
        let index = self.contestants.iter().position(|contestant| contestant.name == name);
        index.map_or(&[], |index| &self.samples[index])
    }

    /// Median CPU a request in microseconds.
    pub(super) fn cpu(&self, name: &str) -> f64 {
        median(self.column(name).iter().map(|sample| sample.cpu))
    }

    /// Median requests a second.
    pub(super) fn per_second(&self, name: &str) -> f64 {
        median(self.column(name).iter().map(|sample| sample.per_second))
    }

    /// Median of the ratios of CPU within each repetition.
    pub(super) fn ratio(&self, name: &str, to: &str) -> f64 {
        let pairs = self.column(name).iter().zip(self.column(to));
        median(pairs.map(|(sample, to)| sample.cpu / to.cpu))
    }

    /// Median of the ratios of throughput within each repetition.
    pub(super) fn throughput_ratio(&self, name: &str, to: &str) -> f64 {
        let pairs = self.column(name).iter().zip(self.column(to));
        median(pairs.map(|(sample, to)| sample.per_second / to.per_second))
    }

    /// How far the samples of one contestant lie apart: the largest CPU over the smallest.
    pub(super) fn spread(&self, name: &str) -> f64 {
        let cpus = || self.column(name).iter().map(|sample| sample.cpu);
        cpus().fold(f64::MIN, f64::max) / cpus().fold(f64::MAX, f64::min)
    }
}

/// The middle one.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[length / 2],
        length => f64::midpoint(values[length / 2 - 1], values[length / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < f64::EPSILON);
        assert!((median([4.0, 1.0, 2.0, 3.0].into_iter()) - 2.5).abs() < f64::EPSILON);
        assert!(median(std::iter::empty()).is_nan());
    }
}
