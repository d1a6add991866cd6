//! How many bytes of request bodies a process holds at once.
//!
//! Executors, people and strangers each have a room of their own: whatever some of them send, leases are renewed. In a
//! full room the oldest body that is still arriving is given up, of whoever has most there. So half-sent bodies keep
//! nobody out, and who sends many of them loses their own first.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use futures::channel::oneshot;
use rackhand_schema::id::{ExecutorId, UserId};

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
    arriving: BTreeMap<Holder, Theirs>,
}

/// The bodies of one holder that are still arriving.
#[derive(Debug, Default)]
struct Theirs {
    bytes: usize,
    /// The oldest first. To drop the sender is to give the body up.
    bodies: BTreeMap<u64, (usize, oneshot::Sender<()>)>,
}

impl Room {
    const fn of(bytes: usize) -> Self {
        Self(Mutex::new(Inner { free: bytes, numbers: 0, arriving: BTreeMap::new() }))
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

    /// Whose oldest body is to go next.
    fn next_to_go(&self) -> Option<(Holder, u64)> {
        let (holder, theirs) = self.arriving.iter().max_by_key(|(_, theirs)| theirs.bytes)?;
        Some((*holder, *theirs.bodies.keys().next()?))
    }

    /// A body that does not arrive any further here, and its bytes.
    fn remove(&mut self, holder: Holder, number: u64) -> Option<usize> {
        let theirs = self.arriving.get_mut(&holder)?;
        let (bytes, _) = theirs.bodies.remove(&number)?;
        theirs.bytes -= bytes;
        if theirs.bodies.is_empty() {
            self.arriving.remove(&holder);
        }
        Some(bytes)
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
        while room.free < more {
            match room.next_to_go() {
                Some(oldest) if oldest != (self.holder, self.number) => {
                    room.free += room.remove(oldest.0, oldest.1).unwrap_or_default();
                }
                _ => return false,
            }
        }
        let theirs = room.arriving.entry(self.holder).or_default();
        if let Some(keep) = self.keep.take() {
            theirs.bodies.insert(self.number, (0, keep));
        }
        let Some((bytes, _)) = theirs.bodies.get_mut(&self.number) else {
            // Given up for another one. Nothing of theirs may be left.
            if theirs.bodies.is_empty() {
                room.arriving.remove(&self.holder);
            }
            return false;
        };
        *bytes += more;
        theirs.bytes += more;
        room.free -= more;
        self.bytes += more;
        true
    }

    /// The body is whole: it stays until its request is answered.
    pub fn arrived(&mut self) {
        if let Some(room) = &self.room {
            self.arrived = room.lock().remove(self.holder, self.number).is_some();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(room) = &self.room {
            let mut room = room.lock();
            let freed = if self.arrived { Some(self.bytes) } else { room.remove(self.holder, self.number) };
            room.free += freed.unwrap_or_default();
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
