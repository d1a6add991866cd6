//! Callers that go away before the end of their answer. The runtime says so by the request's signal
//! (`enable_request_signal` in wrangler.toml) and then forgets the request's promises, without a word to what
//! waits for them in the instance: it would be kept for ever. So it is dropped here.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll},
};

use axum::body::{Body, HttpBody as _};
use futures::{
    FutureExt as _, StreamExt as _,
    channel::oneshot,
    future::{Either, select},
};
use http::{Request, Response};
use worker::{
    AbortSignal,
    send::SendFuture,
    wasm_bindgen::{JsCast as _, closure::Closure},
};

/// Ready when the caller has gone.
pub struct Gone {
    told: oneshot::Receiver<()>,
    signal: AbortSignal,
    _listener: Closure<dyn FnMut()>,
}

impl Gone {
    /// `None` where the runtime gives no signal.
    pub fn of(request: &Request<Body>) -> Option<Self> {
        let signal = request.extensions().get::<AbortSignal>()?.clone();
        let (tell, told) = oneshot::channel();
        let mut tell = Some(tell);
        let listener = Closure::new(move || {
            if let Some(tell) = tell.take() {
                // An answer that is complete listens no more.
                let _ = tell.send(());
            }
        });
        signal.set_onabort(Some(listener.as_ref().unchecked_ref()));
        Some(Self { told, signal, _listener: listener })
    }

    /// The answer, unless the caller goes first. A body that is still being made ends with the caller too.
    pub async fn or(mut self, answer: impl Future<Output = Response<Body>>) -> Option<Response<Body>> {
        let Either::Left((answer, _)) = select(pin!(answer), &mut self).await else { return None };
        if answer.body().size_hint().exact().is_some() {
            return Some(answer);
        }
        let until = SendFuture::new(self);
        Some(answer.map(|body| Body::from_stream(body.into_data_stream().take_until(until))))
    }
}

impl Future for Gone {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.told.poll_unpin(context).map(|_| ())
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        self.signal.set_onabort(None);
    }
}
