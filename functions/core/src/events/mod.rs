//! Events: a page, a long poll, or a stream (SSE), all from the same gap-free cursor.
//!
//! The subscription is taken before the first look, so no wake-up is lost. A wake-up may come before its
//! event is visible (an older transaction is still open, and the cursor waits for it), so after one the
//! next looks follow quickly, then slower.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::stream;
use garde::Validate;
use http::{HeaderMap, HeaderValue, header};
use rackhand_schema::{
    event::{Event, EventPage},
    id::{JobId, RunId, ServerId, SiteId},
};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    host::{DatabaseError, Host, Subscription, Topic, Wake},
    problem::Answer,
    request::{Call, Json, Params, TokenEnd, Viewer},
    statement,
};

statement!(AFTER, "events", "after");

/// A comment is sent after so long without an event, so that proxies keep the stream open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const DEFAULT_LIMIT: u32 = 100;

pub fn routes() -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(page)).routes(routes!(stream_events))
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// A cursor: events after it. Absent: from the first one; `latest`: only new ones.
    #[garde(length(bytes, max = 64))]
    after: Option<String>,
    #[garde(skip)]
    site: Option<SiteId>,
    #[garde(skip)]
    job: Option<JobId>,
    #[garde(skip)]
    run: Option<RunId>,
    #[garde(skip)]
    server: Option<ServerId>,
    /// 1–1000; 100 if absent.
    #[garde(range(min = 1, max = 1000))]
    limit: Option<u32>,
    /// Hold the answer for up to so long while there is nothing, milliseconds.
    #[garde(range(max = 60_000))]
    #[serde(skip_serializing)]
    wait_ms: Option<u64>,
}

/// Events in order. Of `run`, `job`, `server` and `site` the first one given filters.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(Filter),
    responses((status = 200, body = EventPage)), extensions(("x-rackhand-role" = json!("viewer"))))]
async fn page(Viewer(call): Viewer, Params(mut filter): Params<Filter>) -> Answer<Json> {
    filter.limit = Some(filter.limit.unwrap_or(DEFAULT_LIMIT));
    let wait = filter.wait_ms.unwrap_or(0);
    let longest = u64::try_from(call.host.settings.max_wait.as_millis()).unwrap_or(u64::MAX);
    let until = (call.host.now_unix_ms)().saturating_add(wait.min(longest));
    let mut wakes = Wakes::new(&call.host);
    loop {
        let found: EventPage = call.run(&AFTER, &filter).await?;
        let left = until.saturating_sub((call.host.now_unix_ms)());
        if !found.items.is_empty() || left == 0 {
            return Json::of(&found);
        }
        filter.after = Some(found.cursor.clone());
        if wakes.wait(Duration::from_millis(left)).await == Wake::Closing {
            return Json::of(&found);
        }
    }
}

/// The same as a stream of server-sent events: `id` is the cursor, `event` the kind, `data` the event. It
/// ends with the access token; `Last-Event-ID` goes on where it ended.
#[utoipa::path(get, path = "/v1/events/stream", tag = "events",
    params(Filter, ("Last-Event-ID" = Option<String>, Header)),
    responses((status = 200, content_type = "text/event-stream", body = String)),
    extensions(("x-rackhand-role" = json!("viewer"))))]
async fn stream_events(
    Viewer(call): Viewer,
    TokenEnd(ends): TokenEnd,
    headers: HeaderMap,
    Params(mut filter): Params<Filter>,
) -> Answer<Response> {
    filter.limit = Some(DEFAULT_LIMIT);
    if let Some(last) = headers.get("last-event-id").and_then(|value| value.to_str().ok()) {
        filter.after = Some(last.chars().take(64).collect());
    }
    let mut feed = Feed { wakes: Wakes::new(&call.host), call, filter, ends_ms: ends.saturating_mul(1000) };
    // The first look is answered as a request: a refusal gets its status.
    let first = feed.look().await.map_err(Stop::into_refusal)?;
    let first = Bytes::from(format!("retry: 1000\n\n{first}"));
    let rest = stream::unfold(Some(feed), |feed| async {
        let mut feed = feed?;
        let chunk = feed.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), Some(feed)))
    });
    let body = futures::StreamExt::chain(stream::iter([Ok(first)]), rest);
    let mut response = Body::from_stream(body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // nginx would collect the stream in its buffer.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

struct Feed {
    wakes: Wakes,
    call: Call,
    filter: Filter,
    ends_ms: u64,
}

enum Stop {
    Unavailable(crate::problem::Refusal),
    Refused(crate::problem::Refusal),
}

impl Stop {
    fn into_refusal(self) -> crate::problem::Refusal {
        match self {
            Self::Unavailable(refusal) | Self::Refused(refusal) => refusal,
        }
    }
}

impl Feed {
    /// What is new, as SSE text; empty if nothing is.
    async fn look(&mut self) -> Result<String, Stop> {
        let args = serde_json::to_string(&self.filter).map_err(|error| Stop::Refused(error.into()))?;
        let text = match self.call.host.database.run(&self.call.scope, &AFTER, args).await {
            Ok(text) => text,
            Err(error @ DatabaseError::Unavailable(_)) => return Err(Stop::Unavailable(error.into())),
            Err(error) => return Err(Stop::Refused(error.into())),
        };
        let found: EventPage = serde_json::from_str(&text).map_err(|error| Stop::Refused(error.into()))?;
        self.filter.after = Some(found.cursor);
        Ok(found.items.iter().map(sse).collect())
    }

    /// The next chunk; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        let keep_alive_at =
            self.now().saturating_add(u64::try_from(KEEP_ALIVE.as_millis()).unwrap_or(u64::MAX));
        loop {
            match self.look().await {
                Ok(text) if !text.is_empty() => return Some(text.into()),
                Ok(_) => {}
                // The stream outlives a restart of the database: a browser does not try again after a 503.
                Err(Stop::Unavailable(_)) => {
                    if self.wakes.wait(Duration::from_secs(1)).await == Wake::Closing {
                        return None;
                    }
                }
                Err(Stop::Refused(_)) => return None,
            }
            let now = self.now();
            if now >= self.ends_ms {
                return None;
            }
            if now >= keep_alive_at {
                return Some(Bytes::from_static(b": keep-alive\n\n"));
            }
            let left = Duration::from_millis(keep_alive_at.min(self.ends_ms).saturating_sub(now));
            if self.wakes.wait(left).await == Wake::Closing {
                return None;
            }
        }
    }

    fn now(&self) -> u64 {
        (self.call.host.now_unix_ms)()
    }
}

/// A subscription that looks again soon after a wake-up.
struct Wakes {
    subscription: Box<dyn Subscription>,
    /// How many quick looks are still due.
    quick: usize,
}

/// Later ones first.
const QUICK_LOOKS: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_millis(200), Duration::from_millis(40)];

impl Wakes {
    fn new(host: &Arc<Host>) -> Self {
        Self { subscription: host.notifier.subscribe(Topic::Events), quick: QUICK_LOOKS.len() }
    }

    async fn wait(&mut self, at_most: Duration) -> Wake {
        let soon = self.quick.checked_sub(1).and_then(|index| QUICK_LOOKS.get(index)).copied();
        let wake = self.subscription.wait(soon.map_or(at_most, |soon| soon.min(at_most))).await;
        self.quick = match wake {
            Wake::Changed => QUICK_LOOKS.len(),
            Wake::TimedOut | Wake::Closing => self.quick.saturating_sub(1),
        };
        wake
    }
}

/// One event as SSE. JSON text has no line breaks; a kind is a plain word, made sure of here.
fn sse(event: &Event) -> String {
    let kind: String = event.kind.chars().filter(|c| !c.is_control()).collect();
    let data = serde_json::to_string(event).unwrap_or_default();
    format!("id: {}\nevent: {kind}\ndata: {data}\n\n", event.cursor)
}
