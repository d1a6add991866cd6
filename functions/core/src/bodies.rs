//! How many bytes of request bodies a process holds at once.
//!
//! Strangers have a share of their own: whatever they send, the room for people and executors stays. And one of them
//! has a part of it: whatever that one sends, others can still sign in.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// So many strangers may each fill their part of the room at once.
const PARTS: usize = 16;

#[derive(Debug, Default)]
pub struct Bodies {
    /// `None`: as many as there may be.
    strangers: Option<Arc<Room>>,
    signed_in: Option<Arc<Room>>,
}

#[derive(Debug)]
struct Room {
    most: usize,
    per_client: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_client: BTreeMap<IpAddr, usize>,
}

impl Bodies {
    pub fn within(strangers: usize, signed_in: usize) -> Self {
        let room = |most| Some(Arc::new(Room { most, per_client: most / PARTS, taken: Mutex::default() }));
        Self { strangers: room(strangers), signed_in: room(signed_in) }
    }

    /// For a body of which nothing has come yet, of a stranger at `client` or of someone who is signed in.
    pub fn hold(&self, signed_in: bool, client: Option<IpAddr>) -> Held {
        let (room, client) = match signed_in {
            true => (&self.signed_in, None),
            false => (&self.strangers, client.map(subscriber)),
        };
        Held { room: room.clone(), client, bytes: 0 }
    }
}

/// Whoever has one IPv6 address has its whole /64 (RFC 6177, section 2).
fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

/// What one body takes, until it is dropped.
#[derive(Debug)]
pub struct Held {
    room: Option<Arc<Room>>,
    client: Option<IpAddr>,
    bytes: usize,
}

impl Held {
    /// Takes `more` bytes, if there is room for them.
    pub fn grow(&mut self, more: usize) -> bool {
        let Some(room) = &self.room else { return true };
        let mut taken = room.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let theirs = |client: &IpAddr| taken.by_client.get(client).copied().unwrap_or(0);
        let most_of = |client: &IpAddr| room.per_client.saturating_sub(theirs(client));
        if more > room.most.saturating_sub(taken.all)
            || self.client.as_ref().is_some_and(|client| more > most_of(client))
        {
            return false;
        }
        taken.all += more;
        if let Some(client) = self.client {
            *taken.by_client.entry(client).or_default() += more;
        }
        self.bytes += more;
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(room) = &self.room else { return };
        let mut taken = room.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= self.bytes;
        if let Some(client) = self.client
            && let Some(theirs) = taken.by_client.get_mut(&client)
        {
            *theirs -= self.bytes;
            if *theirs == 0 {
                taken.by_client.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stranger_does_not_fill_the_room_of_all() {
        let bodies = Bodies::within(1600, 1600);
        let hold = |client: &str| bodies.hold(false, Some(client.parse().unwrap()));
        let mut held = [hold("192.0.2.1"), hold("::ffff:192.0.2.1"), hold("2001:db8::1")];
        assert!(held[0].grow(60) && held[1].grow(40) && held[2].grow(100));
        assert!(!held[0].grow(1) && !hold("2001:db8::2").grow(1), "their part is full");
        assert!(hold("192.0.2.2").grow(100) && hold("2001:db8:0:1::1").grow(100), "others are not harmed");
        assert!(bodies.hold(true, Some("192.0.2.1".parse().unwrap())).grow(1600));
        let mut unknown = bodies.hold(false, None);
        assert!(unknown.grow(1400) && !unknown.grow(1), "all of them fill it");
        drop((held, unknown));
        let taken = bodies.strangers.as_ref().unwrap().taken.lock().unwrap();
        assert!(taken.all == 0 && taken.by_client.is_empty(), "nothing is kept of who has gone");
    }
}
