//! [`Notifier`] over a Durable Object for each topic. Who waits has a WebSocket to it, which may stay open
//! while the object sleeps; who has changed something asks it to tell them all.

use std::{collections::BTreeSet, rc::Rc, time::Duration};

use futures::{
    StreamExt as _,
    channel::mpsc,
    future::{BoxFuture, Either, select},
};
use rackhand_functions::host::{Notifier, Subscription, Topic as Subject, Wake};
use worker::{
    Context, Delay, DurableObject, Env, Headers, ObjectNamespace, Request, RequestInit, Response, State,
    WebSocket, WebSocketPair, WebsocketEvent, durable_object,
    send::{SendFuture, SendWrapper},
};

/// An object looks at no address: a WebSocket listens, anything else wakes.
const ADDRESS: &str = "http://topic/";
/// A waiter that cannot reach the object looks by itself after so long.
const UNREACHABLE: Duration = Duration::from_secs(1);

#[durable_object]
pub struct Topic {
    state: State,
}

impl DurableObject for Topic {
    fn new(state: State, _: Env) -> Self {
        Self { state }
    }

    async fn fetch(&self, request: Request) -> worker::Result<Response> {
        if request.headers().get("upgrade")?.is_some() {
            let pair = WebSocketPair::new()?;
            self.state.accept_web_socket(&pair.server);
            return Response::from_websocket(pair.client);
        }
        for waiter in self.state.get_websockets() {
            // One that has gone gets its close event by itself.
            let _ = waiter.send_with_str("");
        }
        Response::empty()
    }

    async fn websocket_close(&self, socket: WebSocket, _: usize, _: String, _: bool) -> worker::Result<()> {
        socket.close::<&str>(None, None)
    }

    async fn websocket_error(&self, _: WebSocket, _: worker::Error) -> worker::Result<()> {
        Ok(())
    }
}

/// Wakes topics, given by name with spaces between them. A failure delays the waiters, no more.
pub async fn wake(env: &Env, names: &str) {
    let Ok(topics) = env.durable_object("TOPIC") else { return };
    let woken: BTreeSet<_> = names.split_ascii_whitespace().flat_map(Subject::woken_by).collect();
    for name in woken.iter().map(Subject::name) {
        let sent = match topics.get_by_name(&name) {
            Ok(topic) => topic.fetch_with_str(ADDRESS).await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            tracing::warn!(topic = name, %error, "no one was woken");
        }
    }
}

pub struct Topics {
    topics: ObjectNamespace,
    context: Option<SendWrapper<Rc<Context>>>,
}

impl Topics {
    /// Without a request's context nothing can be waited for.
    pub fn new(topics: ObjectNamespace, context: Option<Context>) -> Self {
        Self { topics, context: context.map(|context| SendWrapper::new(Rc::new(context))) }
    }
}

impl Notifier for Topics {
    fn subscribe(&self, subject: Subject) -> Box<dyn Subscription> {
        let name = subject.name();
        Box::new(Waiter { topics: self.topics.clone(), name, context: self.context.clone(), open: None })
    }
}

/// Connects at its first wait, so that a request that need not wait costs nothing. That first wait answers
/// [`Wake::Changed`] at once: what came before the connection is looked for by the caller.
struct Waiter {
    topics: ObjectNamespace,
    name: String,
    context: Option<SendWrapper<Rc<Context>>>,
    open: Option<Open>,
}

struct Open {
    socket: WebSocket,
    wakes: mpsc::UnboundedReceiver<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = self.socket.close::<&str>(None, None);
    }
}

impl Subscription for Waiter {
    fn wait(&mut self, at_most: Duration) -> BoxFuture<'_, Wake> {
        Box::pin(SendFuture::new(async move {
            let Some(open) = &mut self.open else {
                match self.listen().await {
                    Ok(open) => {
                        self.open = Some(open);
                        return Wake::Changed;
                    }
                    Err(error) => {
                        tracing::warn!(topic = self.name, %error, "cannot listen");
                        Delay::from(at_most.min(UNREACHABLE)).await;
                        return Wake::TimedOut;
                    }
                }
            };
            let wake = match select(open.wakes.next(), std::pin::pin!(Delay::from(at_most))).await {
                Either::Left((Some(()), _)) => Wake::Changed,
                // The object has gone: connect anew, and look.
                Either::Left((None, _)) => {
                    self.open = None;
                    return Wake::TimedOut;
                }
                Either::Right(_) => Wake::TimedOut,
            };
            // What came meanwhile is answered by the same look.
            while let Ok(()) = open.wakes.try_recv() {}
            wake
        }))
    }
}

impl Waiter {
    async fn listen(&self) -> worker::Result<Open> {
        let headers = Headers::new();
        headers.set("upgrade", "websocket")?;
        let mut init = RequestInit::new();
        init.with_headers(headers);
        let request = Request::new_with_init(ADDRESS, &init)?;
        let answer = self.topics.get_by_name(&self.name)?.fetch_with_request(request).await?;
        let socket = answer.websocket().ok_or_else(|| worker::Error::from("the topic gave no WebSocket"))?;
        let context = self.context.as_ref().ok_or_else(|| worker::Error::from("no request waits here"))?;
        let (sender, wakes) = mpsc::unbounded();
        let reader = socket.clone();
        socket.accept()?;
        context.wait_until(async move {
            let Ok(mut events) = reader.events() else { return };
            while let Some(Ok(WebsocketEvent::Message(_))) = events.next().await {
                if sender.unbounded_send(()).is_err() {
                    break;
                }
            }
        });
        Ok(Open { socket, wakes })
    }
}
