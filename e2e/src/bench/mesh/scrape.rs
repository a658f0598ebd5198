//! What the operator's metrics say.

use std::net::SocketAddr;

use crate::bench::load::Connection;
use crate::bench::request::get;

/// One scrape.
#[derive(Debug, Clone, Default)]
pub(super) struct Scrape(String);

/// How long propagation took as the operator counts it, from its watch event to an acknowledgement.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::bench) struct Watched {
    pub(in crate::bench) count: f64,
    /// Shares from 0 to 1.
    pub(in crate::bench) within_30: f64,
    pub(in crate::bench) within_100: f64,
    /// Upper end of the bucket that holds it, in ms.
    pub(in crate::bench) p99: f64,
}

impl Scrape {
    pub(super) async fn of(address: SocketAddr) -> anyhow::Result<Self> {
        let mut body = Vec::new();
        Connection::open(address).await?.exchange(&get("/metrics"), Some(&mut body)).await?;
        Ok(Self(String::from_utf8(body)?))
    }

    /// The sum over all labels; 0 where there is none.
    pub(super) fn sum(&self, name: &str) -> f64 {
        let lines = self.0.lines().filter_map(|line| line.strip_prefix(name));
        let values = lines.filter(|rest| rest.starts_with([' ', '{']));
        values.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The propagation histogram's growth since another scrape.
    pub(super) fn watched_since(&self, before: &Self) -> Watched {
        let (now, old) = (self.buckets(), before.buckets());
        let grown: Vec<(f64, f64)> = now
            .iter()
            .map(|(le, count)| {
                let old = old.iter().find(|(known, _)| known == le).map_or(0.0, |(_, count)| *count);
                (*le, count - old)
            })
            .collect();
        let total = grown.last().map_or(0.0, |(_, count)| *count);
        let within = |limit: f64| {
            let below = grown.iter().filter(|(le, _)| *le <= limit).map(|(_, count)| *count);
            below.fold(0.0, f64::max) / total
        };
        let p99 = grown.iter().find(|(_, count)| *count >= total * 0.99).map_or(f64::NAN, |(le, _)| le * 1e3);
        Watched { count: total, within_30: within(0.03), within_100: within(0.1), p99 }
    }

    fn buckets(&self) -> Vec<(f64, f64)> {
        let prefix = "mcpmesh_operator_propagation_seconds_bucket{le=\"";
        let lines = self.0.lines().filter_map(|line| line.strip_prefix(prefix));
        let bucket = |line: &str| {
            let (le, rest) = line.split_once('"')?;
            let le = if le == "+Inf" { f64::INFINITY } else { le.parse().ok()? };
            Some((le, rest.rsplit(' ').next()?.parse().ok()?))
        };
        lines.filter_map(bucket).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_of_what_came_since() {
        let of = |counts: [u32; 4]| {
            let les = ["0.01", "0.03", "0.1", "+Inf"];
            let line =
                |(le, count)| format!("mcpmesh_operator_propagation_seconds_bucket{{le=\"{le}\"}} {count}\n");
            Scrape(les.into_iter().zip(counts).map(line).collect())
        };
        let watched = of([51, 199, 200, 200]).watched_since(&of([1, 100, 100, 100]));
        assert_eq!((watched.count, watched.within_30, watched.p99), (100.0, 0.99, 30.0));
        let writes = "mcpmesh_operator_writes_total{kind=\"Service\",result=\"ok\"} 2\nmcpmesh_operator_writes_total{kind=\"McpServer\",result=\"ok\"} 3\n";
        assert_eq!(Scrape(writes.to_owned()).sum("mcpmesh_operator_writes_total"), 5.0);
    }
}
