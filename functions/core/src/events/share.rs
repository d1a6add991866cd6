//! One look for all streams that would see the same.
//!
//! What a look finds depends on whose events the caller may see, on what it asks about, and on where it goes
//! on from. So streams that agree in the first two take part in one [`Share`]: it goes on from cursor to
//! cursor and keeps the latest events. One stream looks, under its own session; the others take what that
//! found, if that look began after what woke them. Its lock is waited for, so this is for hosts on which one
//! request may wait for another ([`Process::of_all_requests`]).
//!
//! [`Process::of_all_requests`]: crate::host::Process::of_all_requests

use std::collections::VecDeque;

use bytes::Bytes;
use futures::lock::Mutex;
use rackhand_schema::{event::Event, id::SiteId};

use super::sse_event;

/// So much text is kept; who is further behind looks alone.
const KEPT_BYTES: usize = 64 * 1024;

/// What is the same for all who share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// What the events are about, as JSON.
    pub about: String,
    /// Whose events the database shows to the caller; absent: the whole fleet's.
    pub sites: Option<Vec<SiteId>>,
    /// And those of people.
    pub people: bool,
}

/// A place in the order of events: era, transaction, number (ADR 0022).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place([u64; 3]);

impl Place {
    pub fn parse(cursor: &str) -> Option<Self> {
        let mut parts = cursor.split('.').map(|part| part.parse().ok());
        let place = [parts.next()??, parts.next()??, parts.next()??];
        parts.next().is_none().then_some(Self(place))
    }
}

#[derive(Debug, Default)]
pub struct Share {
    /// Held during a look for all.
    pub state: Mutex<State>,
    /// Held during a look in a person's own line, which may be long. Nobody but that person's streams waits for it.
    pub own_line: Mutex<()>,
}

#[derive(Debug, Default)]
pub struct State {
    /// When the last look began, Unix milliseconds.
    pub began_ms: u64,
    /// Whether the database did not answer it.
    pub failed: bool,
    pub seen: Option<Seen>,
}

/// Everything there was between two places.
#[derive(Debug)]
pub struct Seen {
    from: Place,
    next: Place,
    /// That of `next`.
    pub cursor: String,
    /// There are more, which wait for an older transaction.
    pub held: bool,
    /// There may be more at once.
    pub more: bool,
    /// As text, in order.
    events: VecDeque<(Place, Bytes)>,
    bytes: usize,
}

impl Seen {
    /// Nothing yet.
    pub fn at(place: Place, cursor: &str) -> Self {
        Self {
            from: place,
            next: place,
            cursor: cursor.to_owned(),
            held: false,
            more: false,
            events: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Takes in what a look from its cursor found; false, and nothing changes, if these are no places.
    pub fn append(&mut self, cursor: &str, items: &[Event]) -> bool {
        let placed = |event: &Event| Some((Place::parse(&event.cursor)?, Bytes::from(sse_event(event))));
        let (Some(next), Some(events)) =
            (Place::parse(cursor), items.iter().map(placed).collect::<Option<Vec<_>>>())
        else {
            return false;
        };
        self.bytes += events.iter().map(|(_, text)| text.len()).sum::<usize>();
        self.events.extend(events);
        self.next = next;
        cursor.clone_into(&mut self.cursor);
        while self.bytes > KEPT_BYTES
            && self.events.len() > items.len()
            && let Some((place, text)) = self.events.pop_front()
        {
            self.bytes -= text.len();
            self.from = place;
        }
        true
    }

    /// Whether somebody who has seen everything up to `place` may go on from here.
    pub fn reaches(&self, place: Place) -> bool {
        self.from <= place
    }

    /// What somebody has not seen who has seen everything up to `place`; none if that is beyond.
    pub fn after(&self, place: Place) -> Option<Bytes> {
        if place < self.from || place > self.next {
            return None;
        }
        let first = self.events.partition_point(|(at, _)| *at <= place);
        let mut new = self.events.range(first..).map(|(_, text)| text);
        Some(match (new.next(), new.len()) {
            (None, _) => Bytes::new(),
            (Some(only), 0) => only.clone(),
            (Some(one), _) => one.iter().chain(new.flatten()).copied().collect(),
        })
    }
}

impl State {
    /// What this look tells somebody who has seen everything up to `place` and was woken at `since_ms`; none
    /// if it tells nothing, so that another one is needed.
    pub fn answer(&self, place: Place, since_ms: u64) -> Option<Bytes> {
        let news = self.seen.as_ref()?.after(place)?;
        // In the same millisecond it may have begun before the event.
        (self.began_ms > since_ms || !news.is_empty()).then_some(news)
    }

    /// Whether the database was away after somebody was woken: the others do not wait for it, too.
    pub fn is_away(&self, since_ms: u64) -> bool {
        self.failed && self.began_ms > since_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place::parse(text).unwrap()
    }

    fn event(cursor: &str, message: &str) -> Event {
        serde_json::from_value(serde_json::json!({"cursor": cursor, "at": "", "kind": "run.log",
            "level": "info", "message": message, "actor": "a", "late": false, "data": null}))
        .unwrap()
    }

    fn messages(text: &Bytes) -> String {
        let text = std::str::from_utf8(text).unwrap();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|data| serde_json::from_str::<Event>(data).unwrap().message).collect()
    }

    #[test]
    fn places_are_in_the_order_of_events() {
        assert!(place("1.9.3") < place("1.10.0") && place("1.10.0") < place("1.10.2"));
        assert!(place("1.99.9") < place("2.1.1"));
        for foreign in ["", "latest", "1.2", "1.2.3.4", "1.2.x", "-1.2.3"] {
            assert_eq!(Place::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn everybody_gets_what_comes_after_their_own_place() {
        let mut seen = Seen::at(place("1.4.0"), "1.4.0");
        assert!(seen.append("1.6.0", &[event("1.5.1", "a")]));
        assert!(seen.append("1.9.0", &[event("1.7.2", "b"), event("1.7.3", "c")]));
        for (at, expected) in
            [("1.4.0", "abc"), ("1.5.0", "abc"), ("1.5.1", "bc"), ("1.7.2", "c"), ("1.9.0", "")]
        {
            assert_eq!(messages(&seen.after(place(at)).unwrap()), expected, "{at}");
        }
        assert_eq!(seen.after(place("1.3.9")), None, "something is between");
        assert_eq!(seen.after(place("1.9.1")), None, "that is not looked at yet");
        assert!(!seen.append("latest", &[]) && !seen.append("2.0.0", &[event("?", "d")]));
        assert_eq!(seen.cursor, "1.9.0");
    }

    #[test]
    fn a_look_answers_those_who_were_woken_before_it_or_have_not_seen_all() {
        let mut seen = Seen::at(place("1.4.0"), "1.4.0");
        assert!(seen.append("1.9.0", &[event("1.5.1", "a")]));
        let mut state = State { began_ms: 1000, failed: false, seen: Some(seen) };
        let told = |state: &State, at, since| state.answer(place(at), since).map(|news| messages(&news));
        assert_eq!(told(&state, "1.9.0", 999).as_deref(), Some(""));
        assert_eq!(told(&state, "1.9.0", 1000), None, "it may have begun before the event");
        assert_eq!(told(&state, "1.4.0", 2000).as_deref(), Some("a"));
        assert!(!state.is_away(999));
        state.failed = true;
        assert!(state.is_away(999) && !state.is_away(1000));
    }

    #[test]
    fn little_is_kept() {
        let mut seen = Seen::at(place("1.1.0"), "1.1.0");
        for number in 2..1000 {
            let at = format!("1.{number}.1");
            assert!(seen.append(&at, &[event(&at, "x")]));
        }
        let kept: usize = seen.events.iter().map(|(_, text)| text.len()).sum();
        assert!(kept <= KEPT_BYTES && kept == seen.bytes && kept > KEPT_BYTES / 2, "{kept}");
        assert!(!seen.reaches(place("1.2.0")) && seen.reaches(place("1.999.0")));
        let oldest = seen.events.front().unwrap().0;
        assert_eq!(seen.after(seen.from).unwrap().len(), kept, "nothing is missing after {oldest:?}");
    }
}
