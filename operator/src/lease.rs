//! Which replica leads: a Lease (coordination.k8s.io/v1). Only the leader writes, and only while it surely leads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The Lease's name.
const NAME: &str = "mcpmesh-operator";

/// Others take over when the Lease was not renewed for so long.
const DURATION: Duration = Duration::from_secs(15);

/// Writes stop when it was not renewed for so long: what is on its way still arrives in time.
const DEADLINE: Duration = Duration::from_secs(10);

/// How often it is renewed, or tried for.
const PERIOD: Duration = Duration::from_secs(2);

/// Who leads, as far as this replica knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Leader {
    Nobody,
    Us,
    /// Its address.
    Other(String),
}

/// Whether writing is allowed at this moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fence(Arc<Mutex<Option<Instant>>>);

impl Fence {
    /// True while this replica leads for sure.
    pub(crate) fn may_write(&self) -> bool {
        self.0.lock().is_some_and(|until| Instant::now() < until)
    }

    fn set(&self, until: Option<Instant>) {
        *self.0.lock() = until;
    }
}

/// A Lease as it was seen, and when by our own clock: clocks of replicas differ (as in client-go).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    holder: String,
    renewed: Option<Timestamp>,
    at: Instant,
}

/// What to do with what was seen.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Create,
    Renew,
    TakeOver,
    Wait(String),
}

fn step(us: &str, seen: Option<&Seen>, now: Instant) -> Step {
    match seen {
        None => Step::Create,
        Some(seen) if seen.holder == us => Step::Renew,
        Some(seen) if seen.holder.is_empty() => Step::TakeOver,
        Some(seen) if now.saturating_duration_since(seen.at) >= DURATION => Step::TakeOver,
        Some(seen) => Step::Wait(seen.holder.clone()),
    }
}

/// Takes part in the election until `stop`, then gives the Lease back so that another leads at once.
pub(crate) async fn elect(
    client: kube::Client,
    namespace: String,
    us: String,
    (fence, leader): (Fence, watch::Sender<Leader>),
    stop: CancellationToken,
) {
    let api = Api::namespaced(client, &namespace);
    let mut candidate = Candidate { api, us, seen: None };
    loop {
        let asked = Instant::now();
        let outcome = tokio::time::timeout(DEADLINE / 2, candidate.turn(asked)).await;
        let known = match outcome {
            Ok(Ok(Leader::Us)) => {
                // From before the question: the Lease may have been written then.
                fence.set(Some(asked + DEADLINE));
                Leader::Us
            }
            Ok(Ok(other)) => {
                fence.set(None);
                other
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "the Lease could not be read or written");
                if fence.may_write() { Leader::Us } else { Leader::Nobody }
            }
            Err(_) if fence.may_write() => Leader::Us,
            Err(_) => Leader::Nobody,
        };
        leader.send_if_modified(|before| {
            let changed = *before != known;
            if changed {
                tracing::info!(leader = ?known, "who leads");
                *before = known;
            }
            changed
        });
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = stop.cancelled() => break,
        }
    }
    let leads = fence.may_write();
    fence.set(None);
    if leads && let Err(error) = candidate.give_back().await {
        tracing::debug!(%error, "the Lease was not given back");
    }
}

struct Candidate {
    api: Api<Lease>,
    us: String,
    seen: Option<Seen>,
}

impl Candidate {
    async fn turn(&mut self, now: Instant) -> Result<Leader, kube::Error> {
        let lease = self.api.get_opt(NAME).await?;
        let spec = lease.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let renewed = spec.renew_time.as_ref().map(|time| time.0);
        let same = self.seen.as_ref().is_some_and(|seen| seen.holder == holder && seen.renewed == renewed);
        match &lease {
            None => self.seen = None,
            Some(_) if same => {}
            Some(_) => self.seen = Some(Seen { holder, renewed, at: now }),
        }
        let metadata = lease.map(|lease| lease.metadata).unwrap_or_default();
        match step(&self.us, self.seen.as_ref(), now) {
            Step::Wait(other) => return Ok(Leader::Other(other)),
            Step::Create => {
                let lease = self.lease(metadata, LeaseSpec::default(), true);
                self.api.create(&PostParams::default(), &lease).await?;
            }
            Step::Renew => {
                let lease = self.lease(metadata, spec, false);
                self.api.replace(NAME, &PostParams::default(), &lease).await?;
            }
            Step::TakeOver => {
                let lease = self.lease(metadata, spec, true);
                self.api.replace(NAME, &PostParams::default(), &lease).await?;
            }
        }
        Ok(Leader::Us)
    }

    /// With the resourceVersion of what was read: of two replicas that try, one fails.
    fn lease(&self, metadata: ObjectMeta, spec: LeaseSpec, new: bool) -> Lease {
        let now = MicroTime(Timestamp::now());
        let transitions = spec.lease_transitions.unwrap_or_default() + i32::from(new);
        Lease {
            metadata: ObjectMeta { name: Some(NAME.to_owned()), managed_fields: None, ..metadata },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.us.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: if new { Some(now.clone()) } else { spec.acquire_time },
                renew_time: Some(now),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
        }
    }

    async fn give_back(&self) -> Result<(), kube::Error> {
        let Some(lease) = self.api.get_opt(NAME).await? else { return Ok(()) };
        let mut spec = lease.spec.unwrap_or_default();
        if spec.holder_identity.as_ref() != Some(&self.us) {
            return Ok(());
        }
        spec.holder_identity = Some(String::new());
        let lease =
            Lease { metadata: ObjectMeta { managed_fields: None, ..lease.metadata }, spec: Some(spec) };
        self.api.replace(NAME, &PostParams::default(), &lease).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(holder: &str, at: Instant) -> Seen {
        Seen { holder: holder.to_owned(), renewed: None, at }
    }

    #[test]
    fn a_lease_is_taken_over_only_when_it_stood_still_before_our_own_eyes() {
        let start = Instant::now();
        let other = seen("other", start);
        assert_eq!(step("us", None, start), Step::Create);
        assert_eq!(step("us", Some(&seen("us", start)), start), Step::Renew);
        assert_eq!(step("us", Some(&other), start + Duration::from_secs(14)), Step::Wait("other".to_owned()));
        assert_eq!(step("us", Some(&other), start + DURATION), Step::TakeOver);
        assert_eq!(step("us", Some(&seen("", start)), start), Step::TakeOver);
    }

    #[test]
    fn a_fence_closes_by_itself() {
        let fence = Fence::default();
        assert!(!fence.may_write());
        fence.set(Some(Instant::now() + Duration::from_secs(60)));
        assert!(fence.may_write());
        fence.set(Some(Instant::now()));
        assert!(!fence.may_write());
    }
}
