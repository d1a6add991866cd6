//! When nothing happens on a connection: how long until it is ended.
//!
//! hyper has no timer while it tells HTTP/1 from HTTP/2, none for a connection of HTTP/2 without requests, and none for
//! an answer over HTTP/2 that the client opens no window for (RFC 9113, section 5.2). A client that only connects, or
//! takes nothing, would keep its place for ever, and a few addresses all places. Each answer has to move, whatever else
//! is asked. A connection of a trusted proxy may carry the requests of many clients: there the answer that does not move
//! ends alone, and the others go on.

use std::{
    collections::BTreeMap,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::shares::Untaken;

/// How long a connection may be without a request, and without anything taken of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Quiet {
    /// Until its first one.
    pub first: Duration,
    /// Since an answer ended or something of one was taken. Longer than clients keep connections, so that none is
    /// closed under a request; event streams say something each 15 s.
    pub between: Duration,
}

impl Default for Quiet {
    fn default() -> Self {
        Self { first: Duration::from_secs(15), between: Duration::from_secs(120) }
    }
}

/// So much of an answer is handed on at once. It is taken when more of it is asked for.
const PIECE: usize = 16 * 1024;

#[derive(Default)]
struct State {
    /// Many clients share the connection.
    shared: bool,
    /// Requests that are being worked on. Each has limits of its own.
    asked: usize,
    any: bool,
    /// The last sign of life; none yet.
    since: Option<Instant>,
    /// Those that are not taken whole yet.
    answers: BTreeMap<u64, Taking>,
    /// The last answer's number.
    numbered: u64,
}

struct Taking {
    /// When something of it was last taken.
    moved: Instant,
    /// Ends it alone, where it is one of several of its connection.
    stop: Option<CancellationToken>,
}

impl State {
    /// When the connection, or an answer, is to end if nothing happens; `None`: while it is being worked for.
    fn end(&self, began: Instant, quiet: Quiet) -> Option<Instant> {
        let limit = if self.any { quiet.between } else { quiet.first };
        match self.answers.values().map(|answer| answer.moved).min() {
            Some(moved) => Some(moved + limit),
            None if self.asked > 0 => None,
            None => Some(self.since.unwrap_or(began) + limit),
        }
    }

    /// Ends what has not moved for too long, where that can end alone. Whether there was any.
    fn end_stalled(&mut self, quiet: Quiet) -> bool {
        let before = self.answers.len();
        let shared = self.shared;
        self.answers.retain(|_, answer| {
            let stop = answer.stop.as_ref().filter(|_| shared && answer.moved.elapsed() >= quiet.between);
            stop.inspect(|stop| stop.cancel()).is_none()
        });
        self.answers.len() < before
    }
}

/// The requests of one connection.
#[derive(Clone)]
pub struct Requests(watch::Sender<State>);

impl Requests {
    /// `shared`: by many clients.
    pub fn new(shared: bool) -> Self {
        Self(watch::Sender::new(State { shared, ..State::default() }))
    }

    /// One begins; it is worked on until the value is dropped or answers.
    pub fn begin(&self) -> UnderWay {
        self.0.send_modify(|state| (state.asked, state.any) = (state.asked + 1, true));
        UnderWay(self.clone())
    }

    /// Whoever waits looks for itself once its time is over.
    fn quietly(&self, change: impl FnOnce(&mut State)) {
        self.0.send_if_modified(|state| {
            change(state);
            false
        });
    }

    /// Returns when the connection, or an answer, has been quiet for too long.
    pub async fn end_of(&self, quiet: Quiet) {
        let (mut changes, began) = (self.0.subscribe(), Instant::now());
        loop {
            let end = changes.borrow_and_update().end(began, quiet);
            let changed = changes.changed();
            // The sender lives in `self`: a change always comes, or none is needed.
            let Some(end) = end else {
                let _ = changed.await;
                continue;
            };
            if tokio::time::timeout_at(end, changed).await.is_err()
                && self.0.borrow().end(began, quiet).is_some_and(|end| end <= Instant::now())
                && !self.0.send_if_modified(|state| state.end_stalled(quiet))
            {
                return;
            }
        }
    }
}

/// A request that is being worked on.
pub struct UnderWay(Requests);

impl UnderWay {
    /// The body of its answer, which the client is to take. `stop`, over HTTP/2, ends it and nothing else.
    pub fn answered(self, body: Body, untaken: Option<Untaken>, stop: Option<CancellationToken>) -> Body {
        let (mut number, last_apart) = (0, stop.is_some());
        self.0.0.send_modify(|state| {
            state.numbered += 1;
            number = state.numbered;
            state.answers.insert(number, Taking { moved: Instant::now(), stop });
        });
        let requests = self.0.clone();
        Body::new(Answer { body, rest: Bytes::new(), last_apart, begun: false, requests, number, untaken })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.send_modify(|state| {
            state.asked -= 1;
            state.since = Some(Instant::now());
        });
    }
}

struct Answer {
    body: Body,
    /// What is left of its last frame.
    rest: Bytes,
    /// The last byte of each frame is a piece of its own. Over HTTP/2, hyper asks for a piece before anything of it may
    /// leave, counts it as taken once one byte may, and goes on to the end of the body: after a last byte of its own,
    /// all before it has left.
    last_apart: bool,
    begun: bool,
    requests: Requests,
    number: u64,
    untaken: Option<Untaken>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.requests.quietly(|state| {
            state.answers.remove(&self.number);
            state.since = Some(Instant::now());
        });
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // Asked for when what came before has been taken.
        let number = self.number;
        self.requests.quietly(|state| {
            if let Some(answer) = state.answers.get_mut(&number) {
                answer.moved = Instant::now();
            }
        });
        if self.rest.is_empty() {
            if let Some(untaken) = &mut self.untaken {
                untaken.is_taken();
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context))
                .map(|frame| frame.map(Frame::into_data))
            {
                Some(Ok(Ok(data))) => {
                    if self.untaken.as_mut().is_some_and(|untaken| !untaken.next_chunk(data.len())) {
                        // The client goes on later where it has got to.
                        return Poll::Ready(None);
                    }
                    self.rest = data;
                }
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        self.begun = true;
        let mut length = self.rest.len().min(PIECE);
        if self.last_apart && length > 1 && length == self.rest.len() {
            length -= 1;
        }
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    /// The last piece is not the end: it has to be taken as well.
    fn is_end_stream(&self) -> bool {
        !self.begun && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (hint, rest) = (self.body.size_hint(), u64::try_from(self.rest.len()).unwrap_or(u64::MAX));
        let mut sum = SizeHint::new();
        sum.set_lower(hint.lower().saturating_add(rest));
        if let Some(upper) = hint.upper() {
            sum.set_upper(upper.saturating_add(rest));
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use http_body_util::BodyExt as _;

    use super::*;

    const QUIET: Quiet = Quiet { first: Duration::from_secs(1), between: Duration::from_secs(10) };

    async fn ends_after(requests: &Requests) -> u64 {
        let began = Instant::now();
        requests.end_of(QUIET).await;
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_taken_keeps_its_connection() {
        let requests = Requests::new(false);
        assert_eq!(ends_after(&requests).await, 1, "nothing was asked");
        let asked = requests.begin();
        assert!(tokio::time::timeout(Duration::from_secs(3600), requests.end_of(QUIET)).await.is_err());
        let stream = futures::stream::repeat("event").map(Ok::<_, std::io::Error>);
        let mut answer = asked.answered(Body::from_stream(stream), None, None);
        let taken = async {
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                answer.frame().await.unwrap().unwrap();
            }
        };
        let (took, ()) = tokio::join!(ends_after(&requests), taken);
        assert_eq!(took, 910, "nothing more was taken");
        drop(answer);
        assert_eq!(ends_after(&requests).await, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_move_ends_its_connection_whatever_else_is_asked() {
        let requests = Requests::new(false);
        let _never_taken = requests.begin().answered(Body::from("text"), None, None);
        let asks = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let answer = requests.begin().answered(Body::from("more"), None, None);
                answer.collect().await.unwrap();
            }
        };
        tokio::select! {
            took = ends_after(&requests) => assert_eq!(took, 10),
            () = asks => {}
        }
    }

    /// Clients of a proxy: what one of them does not take costs the others nothing.
    #[tokio::test(start_paused = true)]
    async fn an_answer_of_a_shared_connection_ends_alone() {
        let requests = Requests::new(true);
        let stop = CancellationToken::new();
        let stalled = requests.begin().answered(Body::from("text"), None, Some(stop.clone()));
        let asks = async {
            for second in 0..60 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                // At ten seconds either may come first.
                assert!(second == 9 || stop.is_cancelled() == (second > 9), "{second}");
                let answer =
                    requests.begin().answered(Body::from("more"), None, Some(CancellationToken::new()));
                answer.collect().await.unwrap();
            }
        };
        tokio::select! {
            took = ends_after(&requests) => panic!("after {took} s"),
            () = asks => {}
        }
        drop(stalled);
        assert_eq!(ends_after(&requests).await, 10);
    }

    #[tokio::test]
    async fn an_answer_comes_in_pieces_and_ends_after_the_last_one() {
        let text = vec![b'x'; 2 * PIECE + 1];
        let mut answer = Requests::new(false).begin().answered(Body::from(text.clone()), None, None);
        assert_eq!(answer.size_hint().exact(), Some(text.len() as u64));
        for length in [PIECE, PIECE, 1] {
            assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap().len(), length);
            assert!(!answer.is_end_stream());
        }
        assert!(answer.frame().await.is_none());
        let frames = futures::stream::iter(["first", "x", "end"].map(Ok::<_, std::io::Error>));
        let stop = Some(CancellationToken::new());
        let mut answer = Requests::new(true).begin().answered(Body::from_stream(frames), None, stop);
        for piece in ["firs", "t", "x", "en", "d"] {
            assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), piece);
        }
        assert!(answer.frame().await.is_none());
        assert!(Requests::new(false).begin().answered(Body::empty(), None, None).is_end_stream());
    }
}
