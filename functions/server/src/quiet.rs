//! When nobody asks anything over a connection: how long until it is ended.
//!
//! hyper has no timer while it tells HTTP/1 from HTTP/2, and none for a connection of HTTP/2 without requests. A client
//! that only connects would keep its place for ever, and a few addresses all places.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::{sync::watch, time::Instant};

/// How long a connection may be without a request.
#[derive(Debug, Clone, Copy)]
pub struct Quiet {
    /// Until its first one.
    pub first: Duration,
    /// After the last answer has ended. Longer than clients keep connections, so that none is closed under a request.
    pub between: Duration,
}

impl Default for Quiet {
    fn default() -> Self {
        Self { first: Duration::from_secs(15), between: Duration::from_secs(120) }
    }
}

#[derive(Clone, Copy)]
struct State {
    under_way: usize,
    any: bool,
    since: Instant,
}

/// The requests of one connection.
#[derive(Clone)]
pub struct Requests(watch::Sender<State>);

impl Requests {
    pub fn new() -> Self {
        Self(watch::Sender::new(State { under_way: 0, any: false, since: Instant::now() }))
    }

    /// One begins; it ends when the value is dropped.
    pub fn begin(&self) -> UnderWay {
        self.0.send_modify(|state| (state.under_way, state.any) = (state.under_way + 1, true));
        UnderWay(self.clone())
    }

    /// Returns when the connection has been quiet for too long.
    pub async fn end_of(&self, quiet: Quiet) {
        let mut changes = self.0.subscribe();
        loop {
            let state = *changes.borrow_and_update();
            let limit = if state.any { quiet.between } else { quiet.first };
            let changed = changes.changed();
            // The sender lives in `self`: a change always comes, or none is needed.
            if state.under_way > 0 {
                let _ = changed.await;
            } else if tokio::time::timeout_at(state.since + limit, changed).await.is_err() {
                return;
            }
        }
    }
}

/// A request that has not been answered to its end.
pub struct UnderWay(Requests);

impl UnderWay {
    /// The body of its answer: with it, the request ends. An event stream may take hours.
    pub fn until_end_of(self, body: Body) -> Body {
        Body::new(Answer { body, _under_way: self })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.send_modify(|state| {
            state.under_way -= 1;
            state.since = Instant::now();
        });
    }
}

struct Answer {
    body: Body,
    _under_way: UnderWay,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Quiet = Quiet { first: Duration::from_secs(1), between: Duration::from_secs(10) };

    async fn ends_after(requests: &Requests) -> u64 {
        let began = Instant::now();
        requests.end_of(QUIET).await;
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_goes_on_keeps_its_connection() {
        let requests = Requests::new();
        assert_eq!(ends_after(&requests).await, 1, "nothing was asked");
        let stream = requests.begin().until_end_of(Body::from("events"));
        assert!(tokio::time::timeout(Duration::from_secs(3600), requests.end_of(QUIET)).await.is_err());
        drop(stream);
        assert_eq!(ends_after(&requests).await, 10);
    }
}
