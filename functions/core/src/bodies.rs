//! How many bytes of request bodies a process holds at once.
//!
//! Executors, people and strangers each have a room of their own: whatever some of them send, leases are renewed. In
//! a full room the oldest body that is still arriving is given up, of whoever has most there. So half-sent bodies
//! keep nobody out, and who sends many of them loses their own first. Whole bodies stay until they are done with; so
//! nobody has more than a part of a room.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use futures::channel::oneshot;
use rackhand_schema::id::{ExecutorId, UserId};

use crate::request::MAX_BODY_BYTES;

/// Whose body it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    Executor(ExecutorId),
    Person(UserId),
    /// Somebody without a token, from this network (see [`crate::forwarded::networks`]) where the host knows it.
    Stranger(Option<IpAddr>),
}

/// Bytes of each room.
#[derive(Debug, Clone, Copy)]
pub struct Rooms {
    pub executors: usize,
    pub people: usize,
    pub strangers: usize,
}

/// How many have to come together to fill a room.
const HOLDERS: usize = 8;

/// Without rooms there may be as many as come.
#[derive(Debug, Default)]
pub struct Bodies(Option<[Arc<Room>; 3]>);

impl Bodies {
    pub fn within(rooms: Rooms) -> Self {
        Self(Some([rooms.executors, rooms.people, rooms.strangers].map(|bytes| Arc::new(Room::of(bytes)))))
    }

    /// For a body of which nothing has come yet.
    pub fn hold(&self, holder: Holder) -> Held {
        let room = self.0.as_ref().map(|[executors, people, strangers]| match holder {
            Holder::Executor(_) => executors,
            Holder::Person(_) => people,
            Holder::Stranger(_) => strangers,
        });
        let (keep, given_up) = oneshot::channel();
        let number = room.map_or(0, |room| room.lock().numbered());
        Held { room: room.cloned(), holder, number, bytes: 0, arrived: false, keep: Some(keep), given_up }
    }
}

#[derive(Debug)]
struct Room(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    free: usize,
    numbers: u64,
    /// Of one holder.
    most: usize,
    holders: BTreeMap<Holder, Theirs>,
}

/// What one holder has in a room.
#[derive(Debug, Default)]
struct Theirs {
    /// Of all bodies, whole ones too.
    bytes: usize,
    /// The oldest first. To drop the sender is to give the body up.
    arriving: BTreeMap<u64, (usize, oneshot::Sender<()>)>,
}

impl Room {
    fn of(bytes: usize) -> Self {
        let most = (bytes / HOLDERS).max(MAX_BODY_BYTES);
        Self(Mutex::new(Inner { free: bytes, numbers: 0, most, holders: BTreeMap::new() }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    const fn numbered(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn has_too_much(&self, holder: Holder, more: usize) -> bool {
        self.holders.get(&holder).map_or(0, |theirs| theirs.bytes).saturating_add(more) > self.most
    }

    /// Which body is to go next so that `holder` gets `more`; `None` while there is room.
    fn next_to_go(&self, holder: Holder, more: usize) -> Option<Option<(Holder, u64)>> {
        let oldest = |theirs: &Theirs| theirs.arriving.keys().next().copied();
        if self.has_too_much(holder, more) {
            let number = self.holders.get(&holder).and_then(oldest);
            return Some(number.map(|number| (holder, number)));
        }
        let most = || {
            let arriving = self.holders.iter().filter(|(_, theirs)| !theirs.arriving.is_empty());
            let (holder, theirs) = arriving.max_by_key(|(_, theirs)| theirs.bytes)?;
            Some((*holder, oldest(theirs)?))
        };
        (self.free < more).then(most)
    }

    /// A body that does not arrive any further, and its bytes.
    fn end_arrival(&mut self, holder: Holder, number: u64) -> Option<usize> {
        Some(self.holders.get_mut(&holder)?.arriving.remove(&number)?.0)
    }

    fn free(&mut self, holder: Holder, bytes: usize) {
        self.free += bytes;
        if let Some(theirs) = self.holders.get_mut(&holder) {
            theirs.bytes = theirs.bytes.saturating_sub(bytes);
            if theirs.bytes == 0 && theirs.arriving.is_empty() {
                self.holders.remove(&holder);
            }
        }
    }

    fn give_up(&mut self, holder: Holder, number: u64) {
        if let Some(bytes) = self.end_arrival(holder, number) {
            self.free(holder, bytes);
        }
    }
}

/// What one body takes, until it is dropped.
#[derive(Debug)]
pub struct Held {
    room: Option<Arc<Room>>,
    holder: Holder,
    number: u64,
    bytes: usize,
    arrived: bool,
    keep: Option<oneshot::Sender<()>>,
    /// Ready once the body is given up for others.
    pub given_up: oneshot::Receiver<()>,
}

impl Held {
    /// Takes `more` bytes, if there is room for them or can be made.
    pub fn grow(&mut self, more: usize) -> bool {
        let Some(room) = &self.room else { return true };
        let mut room = room.lock();
        while let Some(next) = room.next_to_go(self.holder, more) {
            match next {
                Some((holder, number)) if (holder, number) != (self.holder, self.number) => {
                    room.give_up(holder, number);
                }
                _ => return false,
            }
        }
        let theirs = room.holders.entry(self.holder).or_default();
        if let Some(keep) = self.keep.take() {
            theirs.arriving.insert(self.number, (0, keep));
        }
        let Some((bytes, _)) = theirs.arriving.get_mut(&self.number) else {
            // Given up for another one. Nothing of theirs may be left.
            room.free(self.holder, 0);
            return false;
        };
        *bytes += more;
        theirs.bytes += more;
        room.free -= more;
        self.bytes += more;
        true
    }

    /// The body is whole: it stays until this is dropped.
    pub fn arrived(&mut self) {
        if let Some(room) = &self.room {
            self.arrived = room.lock().end_arrival(self.holder, self.number).is_some();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(room) = &self.room {
            let mut room = room.lock();
            if self.arrived {
                room.free(self.holder, self.bytes);
            } else {
                room.give_up(self.holder, self.number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn stranger(number: u8) -> Holder {
        Holder::Stranger(Some(IpAddr::from([10, 0, number, 0])))
    }

    fn given_up(held: &mut Held) -> bool {
        (&mut held.given_up).now_or_never().is_some()
    }

    fn strangers(bytes: usize) -> Bodies {
        Bodies::within(Rooms { executors: 0, people: 0, strangers: bytes })
    }

    #[test]
    fn in_a_full_room_the_oldest_of_whoever_has_most_goes() {
        let bodies = strangers(100);
        let mut of_many = [0; 8].map(|_| bodies.hold(stranger(1)));
        let mut of_one = bodies.hold(stranger(2));
        assert!(of_one.grow(20));
        assert!(of_many.iter_mut().all(|body| body.grow(10)));
        let mut newest = bodies.hold(stranger(3));
        assert!(newest.grow(15));
        assert_eq!(of_many.each_mut().map(given_up), [true, true, false, false, false, false, false, false]);
        assert!(!given_up(&mut of_one) && !of_many[0].grow(1));
        drop((of_many, of_one));
        assert!(newest.grow(85), "each byte is free again");
    }

    #[test]
    fn what_is_whole_stays_and_the_oldest_does_not_push_itself_out() {
        let bodies = strangers(100);
        let mut whole = bodies.hold(stranger(1));
        assert!(whole.grow(90));
        whole.arrived();
        let mut second = bodies.hold(stranger(1));
        assert!(!second.grow(11) && second.grow(10) && !second.grow(1));
        assert!(!given_up(&mut second));
        drop(whole);
        assert!(second.grow(90));
        drop(second);
        assert!(bodies.hold(stranger(2)).grow(100));
        assert!(Bodies::default().hold(stranger(2)).grow(usize::MAX), "no rooms, no limit");
    }

    #[test]
    fn one_holder_has_a_part_of_a_room_whole_bodies_included() {
        const EACH: usize = MAX_BODY_BYTES;
        let bodies = strangers(3 * HOLDERS * EACH);
        let mut whole = [0; 2].map(|_| bodies.hold(stranger(1)));
        for body in &mut whole {
            assert!(body.grow(EACH));
            body.arrived();
        }
        let (mut half, mut next) = (bodies.hold(stranger(1)), bodies.hold(stranger(1)));
        assert!(half.grow(EACH / 2) && next.grow(EACH / 2));
        assert!(next.grow(1), "the oldest that is still arriving makes room");
        assert!(given_up(&mut half) && !half.grow(1));
        assert!(!next.grow(EACH / 2), "whole ones do not");
        assert!(bodies.hold(stranger(2)).grow(3 * EACH), "others have their own");
        drop((whole, half));
        assert!(next.grow(2 * EACH));
    }

    #[test]
    fn executors_people_and_strangers_have_rooms_of_their_own() {
        let bodies = Bodies::within(Rooms { executors: 1, people: 2, strangers: 3 });
        let id = uuid::Uuid::nil();
        let holders =
            [Holder::Executor(ExecutorId::from_uuid(id)), Holder::Person(UserId::from_uuid(id)), stranger(1)];
        let mut held = holders.map(|holder| bodies.hold(holder));
        let mut grows = |bytes| held.each_mut().map(|body| body.grow(bytes));
        assert_eq!((grows(1), grows(1), grows(1)), ([true; 3], [false, true, true], [false, false, true]));
    }
}
