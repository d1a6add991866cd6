//! When nothing happens on a connection: how long until it is ended.
//!
//! hyper has no timer while it tells HTTP/1 from HTTP/2, none for a connection of HTTP/2 without requests, and none for
//! an answer over HTTP/2 that the client opens no window for (RFC 9113, section 5.2). A client that only connects, or
//! takes nothing, would keep its place for ever, and a few addresses all places.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::{sync::watch, time::Instant};

/// How long a connection may be without a request, and without anything taken of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Quiet {
    /// Until its first one.
    pub first: Duration,
    /// Since an answer ended or something of one was taken. Longer than clients keep connections, so that none is closed
    /// under a request; event streams say something each 15 s.
    pub between: Duration,
}

impl Default for Quiet {
    fn default() -> Self {
        Self { first: Duration::from_secs(15), between: Duration::from_secs(120) }
    }
}

#[derive(Clone, Copy)]
struct State {
    /// Requests that are being worked on. Each has limits of its own.
    asked: usize,
    any: bool,
    /// The last sign of life.
    since: Instant,
}

/// The requests of one connection.
#[derive(Clone)]
pub struct Requests(watch::Sender<State>);

impl Requests {
    pub fn new() -> Self {
        Self(watch::Sender::new(State { asked: 0, any: false, since: Instant::now() }))
    }

    /// One begins; it is worked on until the value is dropped or answers.
    pub fn begin(&self) -> UnderWay {
        self.0.send_modify(|state| (state.asked, state.any) = (state.asked + 1, true));
        UnderWay(self.clone())
    }

    /// The client has taken something. Whoever waits looks for itself once its time is over.
    fn moved(&self) {
        self.0.send_if_modified(|state| {
            state.since = Instant::now();
            false
        });
    }

    /// Returns when the connection has been quiet for too long.
    pub async fn end_of(&self, quiet: Quiet) {
        let mut changes = self.0.subscribe();
        loop {
            let state = *changes.borrow_and_update();
            let limit = if state.any { quiet.between } else { quiet.first };
            let changed = changes.changed();
            // The sender lives in `self`: a change always comes, or none is needed.
            if state.asked > 0 {
                let _ = changed.await;
            } else if tokio::time::timeout_at(state.since + limit, changed).await.is_err()
                && self.0.borrow().since == state.since
            {
                return;
            }
        }
    }
}

/// A request that is being worked on.
pub struct UnderWay(Requests);

impl UnderWay {
    /// The body of its answer, which the client is to take.
    pub fn answered(self, body: Body) -> Body {
        Body::new(Answer { body, requests: self.0.clone() })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.send_modify(|state| {
            state.asked -= 1;
            state.since = Instant::now();
        });
    }
}

struct Answer {
    body: Body,
    requests: Requests,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.requests.moved();
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // Asked for when there is room for it.
        self.requests.moved();
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
        let requests = Requests::new();
        assert_eq!(ends_after(&requests).await, 1, "nothing was asked");
        let asked = requests.begin();
        assert!(tokio::time::timeout(Duration::from_secs(3600), requests.end_of(QUIET)).await.is_err());
        let stream = futures::stream::repeat("event").map(Ok::<_, std::io::Error>);
        let mut answer = asked.answered(Body::from_stream(stream));
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
}
