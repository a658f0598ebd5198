//! The callers that a user can be at a gateway: one for each API key with groups of its own.

use std::collections::BTreeMap;

use jiff::Timestamp;
use mcpmesh_ir::policy::{Identity, Issuer};
use mcpmesh_ir::{ApiKey, GatewayId};

use crate::args::CanIArgs;

/// Somebody to judge.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) identity: Identity,
    /// The Secret of the key.
    pub(super) key: Option<String>,
    pub(super) notes: Vec<String>,
}

/// Whom the gateway takes the user for, by the keys that hold at `now`. At least one; an error is why it takes the user
/// for nobody.
pub(super) fn find(
    args: &CanIArgs,
    gateway: &GatewayId,
    keys: &BTreeMap<String, ApiKey>,
    now: Timestamp,
) -> Result<Vec<Caller>, String> {
    let Some(user) = &args.user else {
        let identity = Identity::anonymous(gateway.clone());
        return Ok(vec![Caller { identity, key: None, notes: Vec::new() }]);
    };
    let caller = |groups: &[String], key: Option<&ApiKey>, notes: Vec<String>| Caller {
        identity: Identity {
            gateway: gateway.clone(),
            issuer: Issuer::ApiKey,
            user: Some(user.clone()),
            groups: groups.to_vec(),
        },
        key: key.map(|key| key.secret.to_string()),
        notes,
    };
    let own = keys.values().filter(|key| key.owner == *user);
    let has_ended = |key: &&ApiKey| key.expires.is_some_and(|end| end <= now.as_second());
    let (ended, good): (Vec<&ApiKey>, Vec<&ApiKey>) = own.partition(has_ended);
    let ended: Vec<String> = ended.into_iter().map(end_of).collect();
    if good.is_empty() {
        if !ended.is_empty() {
            return Err(format!("{}: the gateway refuses it (401)", ended.join("; ")));
        }
        let note = format!("no API key of {gateway} belongs to {user}: judged as if one did");
        return Ok(vec![caller(&args.groups, None, vec![note])]);
    }
    if !args.groups.is_empty() {
        return Ok(vec![caller(&args.groups, good.first().copied(), ended)]);
    }
    let mut by_groups: BTreeMap<&[String], &ApiKey> = BTreeMap::new();
    for key in good {
        by_groups.entry(&key.groups).or_insert(key);
    }
    let callers = by_groups.into_values().map(|key| {
        let mut notes = ended.clone();
        if !key.groups.is_empty() {
            notes.insert(0, format!("groups of the API key {}: {}", key.secret, key.groups.join(", ")));
        }
        caller(&key.groups, Some(key), notes)
    });
    Ok(callers.collect())
}

fn end_of(key: &ApiKey) -> String {
    let end = key.expires.and_then(|end| Timestamp::from_second(end).ok());
    let when = end.map(|end| format!(" at {end}")).unwrap_or_default();
    format!("the API key {} of {} has expired{when}", key.secret, key.owner)
}
