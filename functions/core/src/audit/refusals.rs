//! What was refused: counted for each minute, code and caller, and told to the database in a transaction of
//! its own, because the one that refused is rolled back. Upkeep makes an event of each.
//!
//! A flood costs little: of equal refusals the 1st, 2nd, 4th, 8th, … goes to the database with what was
//! counted since the last; the rest is handed over by the next round of upkeep in this process. A process
//! that ends before loses less than half of a count, never that there was something.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use rackhand_schema::{ErrorCode, id::TraceId};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::{
    host::{Host, Scope},
    problem::Refusal,
    request::Caller,
    statement,
};

statement!(ADD, "audit", "refusals_add");

/// Counts kept in a process, between two rounds of upkeep, of those who have shown who they are. Beyond them each one
/// keeps their name, and loses session and address.
const KNOWN: usize = 1000;
/// The same of strangers, who come from as many networks as they like: each row stays in the trail for good. Beyond
/// them they are counted together, without an address.
const STRANGERS: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Key {
    /// Unix seconds.
    minute: u64,
    code: &'static str,
    kind: &'static str,
    id: Option<Uuid>,
    session: Option<Uuid>,
    address: String,
}

#[derive(Debug, Default)]
struct Count {
    all: u64,
    told: u64,
    path: String,
}

#[derive(Debug, Serialize)]
struct Item {
    #[serde(flatten)]
    key: Key,
    path: String,
    count: u64,
}

/// The counts of this process that are not all in the database yet.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<BTreeMap<Key, Count>>);

impl Refusals {
    /// Counts one; what is to be told now.
    fn count(&self, mut key: Key, path: &str) -> Option<Item> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let most = if key.id.is_some() { KNOWN } else { STRANGERS };
        let kept = |known| counts.keys().filter(|other| other.id.is_some() == known).count();
        if !counts.contains_key(&key) && kept(key.id.is_some()) >= most {
            key = Key { session: None, address: String::new(), ..key };
        }
        let count = counts.entry(key.clone()).or_default();
        count.all += 1;
        path.clone_into(&mut count.path);
        count.all.is_power_of_two().then(|| count.take(key)).flatten()
    }

    /// What was not told yet; counts of minutes that are over are forgotten.
    fn rest(&self, minute: u64) -> Vec<Item> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = counts.iter_mut().filter_map(|(key, count)| count.take(key.clone())).collect();
        counts.retain(|key, _| key.minute >= minute);
        rest
    }

    /// They could not be told: they count as not told.
    fn take_back(&self, items: Vec<Item>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for item in items {
            let count = counts.entry(item.key).or_default();
            count.all = count.all.max(item.count);
            count.told = count.told.saturating_sub(item.count);
            count.path = item.path;
        }
    }
}

impl Count {
    fn take(&mut self, key: Key) -> Option<Item> {
        let count = self.all - self.told;
        self.told = self.all;
        (count > 0).then(|| Item { key, path: self.path.clone(), count })
    }
}

/// Counts a refusal if it is one for the audit: who is not let in, may not, or comes too often.
pub async fn note(host: &Host, caller: &Caller, refusal: &Refusal, route: &str) {
    // A wrong password has its own event, which names the account.
    let told_elsewhere = refusal.code == ErrorCode::InvalidCredentials;
    if refusal.routine || told_elsewhere || !matches!(refusal.code.status(), 401 | 403 | 429) {
        return;
    }
    let (kind, id, session) = match caller.scope() {
        Some(Scope::User { user, session, .. }) => ("user", Some(*user.as_uuid()), Some(*session.as_uuid())),
        Some(Scope::Executor { executor, session, .. }) => {
            ("executor", Some(*executor.as_uuid()), Some(*session.as_uuid()))
        }
        Some(Scope::Anonymous { .. }) | None => ("anonymous", None, None),
    };
    let address = caller.address.map(|address| network(address, id.is_some())).unwrap_or_default();
    let key = Key { minute: minute(host), code: refusal.code.as_str(), kind, id, session, address };
    if let Some(item) = host.process.refusals.count(key, route) {
        tell(host, vec![item]).await;
    }
}

/// Tells what is left.
pub async fn flush(host: &Host) {
    let rest = host.process.refusals.rest(minute(host));
    if !rest.is_empty() {
        tell(host, rest).await;
    }
}

async fn tell(host: &Host, items: Vec<Item>) {
    let trace = TraceId::from_uuid(Uuid::from_bytes(host.random().unwrap_or([1; 16])));
    let scope = Scope::Anonymous { trace, address: String::new() };
    let told = host.database.run(&scope, &ADD, json!({"items": items}).to_string()).await;
    if let Err(error) = told {
        tracing::warn!(%error, "refusals have to wait");
        host.process.refusals.take_back(items);
    }
}

/// The minute it is, Unix seconds.
fn minute(host: &Host) -> u64 {
    host.now_unix() / 60 * 60
}

/// Where a caller comes from. Of IPv6 the network: a subscriber has a /64 at least, and a stranger who changes theirs
/// has up to a /48 (RFC 6177).
fn network(address: IpAddr, known: bool) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let length = if known { 64 } else { 48 };
            let prefix = address.to_bits() & (u128::MAX << (128 - length));
            format!("{}/{length}", std::net::Ipv6Addr::from_bits(prefix))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> Key {
        Key {
            minute: 60,
            code: "not-signed-in",
            kind: "anonymous",
            id: None,
            session: None,
            address: address.into(),
        }
    }

    #[test]
    fn a_flood_is_told_in_few_parts_that_add_up() {
        let refusals = Refusals::default();
        let told: Vec<u64> =
            (0..1000).filter_map(|_| refusals.count(key("a"), "/")).map(|item| item.count).collect();
        assert_eq!(told, [1, 1, 2, 4, 8, 16, 32, 64, 128, 256]);
        let rest = refusals.rest(120);
        assert_eq!(told.iter().sum::<u64>() + rest[0].count, 1000);
        assert!(refusals.rest(120).is_empty(), "once");
        refusals.take_back(rest);
        assert_eq!(refusals.rest(120)[0].count, 488, "what could not be told comes again");
    }

    #[test]
    fn a_flood_of_strangers_hides_no_person() {
        let refusals = Refusals::default();
        for index in 0..STRANGERS + 500 {
            refusals.count(key(&index.to_string()), "/");
        }
        assert_eq!(refusals.0.lock().unwrap().len(), STRANGERS + 1, "a minute adds no more to the trail");
        assert_eq!(refusals.0.lock().unwrap()[&key("")].all, 500);
        let person = |id: u128, address: &str| Key {
            kind: "user",
            id: Some(Uuid::from_u128(id)),
            session: Some(Uuid::from_u128(id)),
            ..key(address)
        };
        let told = refusals.count(person(1, "192.0.2.1"), "/").unwrap();
        assert_eq!(told.key, person(1, "192.0.2.1"));
        for index in 0..KNOWN {
            refusals.count(person(2, &index.to_string()), "/");
        }
        let told = refusals.count(person(3, "192.0.2.3"), "/").unwrap();
        assert_eq!(told.key, Key { session: None, ..person(3, "") }, "nor does a person hide another one");
    }

    #[test]
    fn an_ipv6_network_is_one_caller() {
        let of = |text: &str, known| network(text.parse().unwrap(), known);
        assert_eq!(of("2001:db8:1:2:3:4:5:6", true), "2001:db8:1:2::/64");
        assert_eq!(of("2001:db8:1:2:3:4:5:6", false), "2001:db8:1::/48");
        assert_eq!(of("::ffff:192.0.2.1", false), "192.0.2.1");
    }
}
