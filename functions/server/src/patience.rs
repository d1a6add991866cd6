//! How long a client may take: to send a body, and to take what is sent to it.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, HttpBody as _};
use futures::{StreamExt as _, stream};
use rackhand_functions::host::BodyTooSlow;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until},
};

/// The body, which fails with [`BodyTooSlow`] if it is not complete in time.
pub fn complete_within(body: Body, limit: Duration) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let end = Instant::now() + limit;
    let frames = stream::unfold(Some(body.into_data_stream()), move |frames| async move {
        let mut frames = frames?;
        tokio::select! {
            frame = frames.next() => Some((frame?, Some(frames))),
            () = sleep_until(end) => Some((Err(axum::Error::new(BodyTooSlow)), None)),
        }
    });
    Body::from_stream(frames)
}

/// A connection that breaks when its peer takes nothing for `limit` of what there is to send.
pub struct Patient<S> {
    inner: S,
    limit: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub const fn new(inner: S, limit: Duration) -> Self {
        Self { inner, limit, stalled: None }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, parts);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.watch(cx, ended)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_let_go_and_who_takes_little_is_not() {
        let (near, mut far) = duplex(8);
        let mut near = Patient::new(near, Duration::from_secs(30));
        let reader = tokio::spawn(async move {
            for _ in 0..4 {
                sleep(Duration::from_secs(20)).await;
                far.read_exact(&mut [0; 8]).await.unwrap();
            }
            far
        });
        near.write_all(&[0; 40]).await.unwrap();
        let far = reader.await.unwrap();
        let began = Instant::now();
        let error = near.write_all(&[0; 8]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, 30));
        drop(far);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_ends_at_its_limit() {
        let bytes = stream::repeat_with(|| Ok::<_, io::Error>(" ")).then(|byte| async {
            sleep(Duration::from_secs(1)).await;
            byte
        });
        let began = Instant::now();
        let read =
            axum::body::to_bytes(complete_within(Body::from_stream(bytes), Duration::from_secs(30)), 100);
        let error = read.await.unwrap_err();
        assert!(crate::chain(&error).contains("did not arrive in time"), "{}", crate::chain(&error));
        assert_eq!(began.elapsed().as_secs(), 30);
        let whole = complete_within(Body::from("{}"), Duration::from_secs(30));
        assert_eq!(axum::body::to_bytes(whole, 100).await.unwrap(), "{}");
    }
}
