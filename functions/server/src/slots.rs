//! How many connections are open at once: in all, from one address, and from the network around it.
//!
//! One beyond that is closed as soon as it is accepted, so that it costs no more than that. Proxies that the operator
//! trusts, and this machine itself, count in the sum only: many people come through them.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rackhand_functions::forwarded::{Network, networks};

/// Most connections at once.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    pub all: usize,
    pub per_address: usize,
}

pub struct Slots {
    most: Most,
    exempt: Arc<[Network]>,
    open: Mutex<Open>,
    refused: AtomicU64,
}

#[derive(Default)]
struct Open {
    all: usize,
    /// By what [`networks`] gives.
    by_network: BTreeMap<(IpAddr, u8), usize>,
}

impl Slots {
    pub fn new(most: Most, exempt: Arc<[Network]>) -> Arc<Self> {
        Arc::new(Self { most, exempt, open: Mutex::default(), refused: AtomicU64::new(0) })
    }

    /// A place for a connection of `peer`, until it is dropped.
    pub fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        let address = peer.to_canonical();
        let exempt = address.is_loopback() || self.exempt.iter().any(|network| network.contains(address));
        let counted = (!exempt).then(|| networks(address));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |network| open.by_network.get(&network).copied().unwrap_or(0);
        let [theirs, around] = counted.map_or([0, 0], |networks| networks.map(count));
        let most_around = self.most.per_address.saturating_mul(AROUND);
        if open.all >= self.most.all || theirs >= self.most.per_address || around >= most_around {
            let (all, refused) = (open.all, self.refused.fetch_add(1, Ordering::Relaxed) + 1);
            drop(open);
            // The log must not grow with an attack: at the 1st, 2nd, 4th, 8th …
            if refused.is_power_of_two() {
                tracing::warn!(%peer, theirs, all, refused, "too many connections: refused");
            }
            return None;
        }
        open.all += 1;
        for network in counted.into_iter().flatten() {
            *open.by_network.entry(network).or_default() += 1;
        }
        Some(Slot { slots: Arc::clone(self), counted })
    }

    /// Connections that are open, and those refused since the start.
    pub fn counts(&self) -> (usize, u64) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).all;
        (open, self.refused.load(Ordering::Relaxed))
    }
}

pub struct Slot {
    slots: Arc<Slots>,
    counted: Option<[(IpAddr, u8); 2]>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.slots.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        for network in self.counted.into_iter().flatten() {
            if let Some(count) = open.by_network.get_mut(&network) {
                *count -= 1;
                if *count == 0 {
                    open.by_network.remove(&network);
                }
            }
        }
    }
}

/// So many times as much as one address has the network around it, which may be one person's, too.
const AROUND: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn take(slots: &Arc<Slots>, peer: &str) -> Option<Slot> {
        slots.take(peer.parse().unwrap())
    }

    #[test]
    fn one_address_gets_its_share_and_no_more() {
        let slots = Slots::new(Most { all: 100, per_address: 2 }, ["10.0.0.0/8".parse().unwrap()].into());
        let held = [take(&slots, "192.0.2.1"), take(&slots, "::ffff:192.0.2.1")];
        assert!(held.iter().all(Option::is_some));
        assert!(take(&slots, "192.0.2.1").is_none());
        assert!(take(&slots, "192.0.2.2").is_some(), "others are not harmed");
        let six = [take(&slots, "2001:db8::1"), take(&slots, "2001:db8::2")];
        assert!(six.iter().all(Option::is_some));
        assert!(take(&slots, "2001:db8:0:0:ffff::3").is_none(), "one /64 is one subscriber");
        assert!(take(&slots, "2001:db8:0:1::3").is_some());
        let proxied: Vec<_> = (0..10).map(|_| take(&slots, "10.1.1.1")).collect();
        assert!(proxied.iter().all(Option::is_some), "a proxy brings many");
        assert_eq!(slots.counts(), (14, 2));
        drop((held, six, proxied));
        assert_eq!(slots.counts(), (0, 2));
        assert!(slots.open.lock().unwrap().by_network.is_empty(), "nothing is kept of who has gone");
    }

    #[test]
    fn the_network_around_an_address_has_a_share_too() {
        let slots = Slots::new(Most { all: 100, per_address: 2 }, [].into());
        let held: Vec<_> = (0..20).filter_map(|n| take(&slots, &format!("192.0.2.{n}"))).collect();
        assert_eq!(held.len(), 8);
        assert!(take(&slots, "192.0.3.1").is_some());
        let six: Vec<_> = (0..20).filter_map(|n| take(&slots, &format!("2001:db8:0:{n}::1"))).collect();
        assert_eq!(six.len(), 8);
        assert!(take(&slots, "2001:db8:1::1").is_some());
    }

    #[test]
    fn the_sum_is_bounded_for_everybody() {
        let slots = Slots::new(Most { all: 3, per_address: 2 }, [].into());
        let held: Vec<_> = (0..3).filter_map(|_| take(&slots, "127.0.0.1")).collect();
        assert_eq!(held.len(), 3);
        assert!(take(&slots, "127.0.0.1").is_none() && take(&slots, "192.0.2.1").is_none());
    }
}
