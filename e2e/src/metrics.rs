//! What a process of ours tells on `/metrics`.

use ::http::StatusCode;
use anyhow::{Context as _, ensure};

use crate::http;

/// One scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics(String);

impl Metrics {
    /// Scrapes `http://ADDRESS/metrics`.
    ///
    /// # Errors
    /// When nothing answers.
    pub async fn scrape(address: &str) -> anyhow::Result<Self> {
        let reply = http::get(&format!("http://{address}/metrics")).await?;
        ensure!(reply.status == StatusCode::OK, "{}", reply.status);
        Ok(Self(String::from_utf8(reply.body.to_vec())?))
    }

    /// The sum of all samples of this name whose labels hold `labels`, such as `kind="McpServer"`; none: there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &str) -> Option<f64> {
        let samples = self.0.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (own, rest) = series.split_once('{').unwrap_or((series, ""));
            (own == name && rest.contains(labels)).then(|| value.parse::<f64>().ok()).flatten()
        });
        samples.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    }

    /// A gauge without labels, or a sum over all of them.
    ///
    /// # Errors
    /// When there is no such sample.
    pub fn value(&self, name: &str) -> anyhow::Result<f64> {
        self.sum(name, "").with_context(|| format!("no {name} in\n{}", self.0))
    }

    /// The labels of the first sample of this name, as they stand in the text.
    #[must_use]
    pub fn labels(&self, name: &str) -> Option<&str> {
        let series = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('{'))?;
        series.rsplit_once('}').map(|(labels, _)| labels)
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn samples_are_summed_by_name_and_label() {
        let text = "# HELP w x\nw_total{kind=\"A\",result=\"ok\"} 2\nw_total{kind=\"B\",result=\"ok\"} 3\nw_totals 9\nup 1\n";
        let metrics = Metrics(text.to_owned());
        assert_eq!(metrics.sum("w_total", ""), Some(5.0));
        assert_eq!(metrics.sum("w_total", "kind=\"B\""), Some(3.0));
        assert_eq!(metrics.sum("none", ""), None);
        assert_eq!(metrics.value("up").ok(), Some(1.0));
        assert_eq!(metrics.labels("w_total"), Some("kind=\"A\",result=\"ok\""));
    }
}
