//! Bodies that a host reads before the Router sees the request: of all requests together with an end in bytes, and each
//! with one in time.
//!
//! What has come is kept here and not beside the request: on Workers one that its client gives up is never ended, and
//! what it had would be lost. When it is past its time, or in a full room when it is the oldest of whoever has most
//! there, it goes; nobody is woken for it.

use std::{
    cell::RefCell, collections::BTreeMap, error::Error, future::Future, pin::pin, rc::Rc, time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures::{
    StreamExt as _,
    future::{Either, select},
    stream,
};

use crate::{
    host::{BodyTooSlow, NoRoom},
    request::{MAX_BODY_BYTES, largest_body},
};

pub use crate::bodies::Holder;

/// How long one body may take.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Bytes of executors and people, and of strangers.
const ROOMS: (usize, usize) = (24 << 20, 8 << 20);

#[derive(Debug, Clone)]
pub struct Reading {
    known: Room,
    strangers: Room,
}

impl Default for Reading {
    fn default() -> Self {
        Self { known: Room::of(ROOMS.0), strangers: Room::of(ROOMS.1) }
    }
}

impl Reading {
    /// The body, read, or one that fails with [`BodyTooSlow`] or [`NoRoom`]. workerd ends a connection after a
    /// request that was answered before it was read, and the client's next one on it is lost. So what is beyond the
    /// largest body of `holder` is read a while longer and not kept. `late` ends after [`LIMIT`]; `now`: Unix
    /// milliseconds.
    pub async fn whole(
        &self,
        body: Body,
        holder: Holder,
        now: fn() -> u64,
        late: impl Future<Output = ()>,
    ) -> Body {
        let room = if matches!(holder, Holder::Stranger(_)) { &self.strangers } else { &self.known };
        let place = room.begin(holder, now());
        let (mut rest, mut late, mut seen) = (body.into_data_stream(), pin!(late), 0_usize);
        loop {
            let chunk = match select(rest.next(), late.as_mut()).await {
                Either::Left((Some(Ok(chunk)), _)) => chunk,
                Either::Left((Some(Err(error)), _)) => return failed(error),
                Either::Left((None, _)) => break,
                Either::Right(_) => return failed(BodyTooSlow),
            };
            place.keep(&chunk);
            seen = seen.saturating_add(chunk.len());
            if seen > 2 * MAX_BODY_BYTES {
                break;
            }
        }
        place.take().map_or_else(|| failed(NoRoom), Body::from)
    }
}

fn failed(error: impl Error + Send + Sync + 'static) -> Body {
    Body::from_stream(stream::iter([Err::<Bytes, _>(error)]))
}

#[derive(Debug, Clone)]
struct Room(Rc<RefCell<Inner>>);

#[derive(Debug)]
struct Inner {
    free: usize,
    count: u64,
    /// The oldest first.
    bodies: BTreeMap<u64, Arriving>,
}

#[derive(Debug)]
struct Arriving {
    holder: Holder,
    since: u64,
    read: Vec<u8>,
}

impl Room {
    fn of(bytes: usize) -> Self {
        Self(Rc::new(RefCell::new(Inner { free: bytes, count: 0, bodies: BTreeMap::new() })))
    }

    fn begin(&self, holder: Holder, now: u64) -> Place<'_> {
        let mut room = self.0.borrow_mut();
        // Each ends itself in time, unless it was left.
        let longest = 2 * u64::try_from(LIMIT.as_millis()).unwrap_or(u64::MAX);
        while let Some((number, oldest)) = room.bodies.first_key_value()
            && now.saturating_sub(oldest.since) > longest
        {
            let number = *number;
            room.remove(number);
        }
        room.count += 1;
        let number = room.count;
        room.bodies.insert(number, Arriving { holder, since: now, read: Vec::new() });
        Place { room: self, number }
    }
}

impl Inner {
    fn remove(&mut self, number: u64) -> Option<Vec<u8>> {
        let body = self.bodies.remove(&number)?.read;
        self.free += body.len();
        Some(body)
    }

    /// The oldest body of whoever has most.
    fn next_to_go(&self) -> Option<u64> {
        let mut holders = BTreeMap::<_, (usize, u64)>::new();
        for (number, body) in self.bodies.iter().filter(|(_, body)| !body.read.is_empty()) {
            holders.entry(body.holder).or_insert((0, *number)).0 += body.read.len();
        }
        holders.into_values().max_by_key(|(bytes, _)| *bytes).map(|(_, number)| number)
    }
}

/// One body that is being read.
struct Place<'a> {
    room: &'a Room,
    number: u64,
}

impl Place<'_> {
    fn keep(&self, chunk: &[u8]) {
        let mut room = self.room.0.borrow_mut();
        loop {
            let free = room.free;
            let Some(body) = room.bodies.get_mut(&self.number) else { return };
            if body.read.len() > largest_body(body.holder) {
                return;
            }
            if free >= chunk.len() {
                body.read.extend_from_slice(chunk);
                room.free -= chunk.len();
                return;
            }
            // Nothing of others is left: it is this one that is too much.
            let next = room.next_to_go().unwrap_or(self.number);
            room.remove(next);
        }
    }

    /// `None`: it was given up for others.
    fn take(&self) -> Option<Vec<u8>> {
        self.room.0.borrow_mut().remove(self.number)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.room.0.borrow_mut().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use futures::{
        FutureExt as _,
        channel::mpsc,
        future::{LocalBoxFuture, pending},
    };
    use http_body_util::BodyExt as _;
    use rackhand_schema::id::UserId;
    use uuid::Uuid;

    use super::*;

    fn person(number: u128) -> Holder {
        Holder::Person(UserId::from_uuid(Uuid::from_u128(number)))
    }

    /// A body with its end still to come.
    fn half(bytes: usize) -> (mpsc::UnboundedSender<Result<Bytes, std::io::Error>>, Body) {
        let (more, body) = mpsc::unbounded();
        more.unbounded_send(Ok(vec![b' '; bytes].into())).unwrap();
        (more, Body::from_stream(body))
    }

    fn outcome(body: Body) -> Result<usize, String> {
        let read = body.collect().now_or_never().unwrap();
        read.map(|read| read.to_bytes().len()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_being_read_has_an_end_and_whoever_has_most_loses_first() {
        let reading = Reading::default();
        let begin = |holder, bytes| {
            let (more, body) = half(bytes);
            let mut whole = reading.whole(body, holder, || 0, pending()).boxed_local();
            assert!(whole.as_mut().now_or_never().is_none());
            (more, whole)
        };
        let end = |(more, whole): (mpsc::UnboundedSender<_>, LocalBoxFuture<'_, Body>)| {
            drop(more);
            outcome(whole.now_or_never().unwrap())
        };
        let honest = begin(person(1), MAX_BODY_BYTES / 2);
        let mut crowd: Vec<_> = (0..50).map(|_| begin(person(2), MAX_BODY_BYTES)).collect();
        let held: usize = reading.known.0.borrow().bodies.values().map(|body| body.read.len()).sum();
        assert!(held <= ROOMS.0, "{held}");
        let stranger = begin(Holder::Stranger(Some(IpAddr::from([10, 0, 0, 1]))), 1000);
        assert_eq!(end(stranger), Ok(1000));
        assert_eq!(end(honest), Ok(MAX_BODY_BYTES / 2));
        assert_eq!(end(crowd.pop().unwrap()), Ok(MAX_BODY_BYTES));
        assert_eq!(end(crowd.remove(0)), Err(NoRoom.to_string()));
        drop(crowd);
        assert_eq!((reading.known.0.borrow().free, reading.strangers.0.borrow().free), ROOMS);
    }

    #[test]
    fn a_body_that_takes_too_long_ends() {
        let reading = Reading::default();
        let (_more, body) = half(1000);
        let read = reading.whole(body, person(1), || 0, std::future::ready(()));
        assert_eq!(outcome(read.now_or_never().unwrap()), Err(BodyTooSlow.to_string()));
        assert_eq!(reading.known.0.borrow().free, ROOMS.0);
    }

    /// Workers end no request that its client has given up.
    #[test]
    fn what_a_request_has_left_that_was_never_ended_goes_after_its_time() {
        let reading = Reading::default();
        let (_more, body) = half(MAX_BODY_BYTES);
        let mut left = Box::pin(reading.whole(body, person(1), || 1000, pending()));
        assert!(left.as_mut().now_or_never().is_none());
        let at = |now: fn() -> u64| {
            let whole = reading.whole(Body::from("{}"), person(2), now, pending());
            assert_eq!(outcome(whole.now_or_never().unwrap()), Ok(2));
            reading.known.0.borrow().free
        };
        assert_eq!(at(|| 60_000), ROOMS.0 - MAX_BODY_BYTES);
        assert_eq!(at(|| 62_000), ROOMS.0);
    }

    #[test]
    fn what_is_beyond_the_largest_body_is_not_kept() {
        let reading = Reading::default();
        let (more, body) = half(20_000);
        let stranger = Holder::Stranger(None);
        let mut whole = Box::pin(reading.whole(body, stranger, || 0, pending()));
        for _ in 0..10 {
            more.unbounded_send(Ok(vec![b' '; 20_000].into())).unwrap();
        }
        assert!(whole.as_mut().now_or_never().is_none());
        drop(more);
        let read = outcome(whole.now_or_never().unwrap()).unwrap();
        assert!(largest_body(stranger) < read && read < 50_000, "{read}");
    }
}
