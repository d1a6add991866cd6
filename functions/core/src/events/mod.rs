//! Events: a page, a long poll, or a stream (SSE), all from the same gap-free cursor; pages also backwards.
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
    problem::{Answer, Refusal},
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

/// What events are about: of `run`, `job`, `server` and `site` the first one given filters.
#[derive(Debug, Clone, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct About {
    site: Option<SiteId>,
    job: Option<JobId>,
    run: Option<RunId>,
    server: Option<ServerId>,
}

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
struct PageQuery {
    #[serde(flatten)]
    #[param(ignore)]
    #[garde(skip)]
    about: About,
    /// A cursor: events after it. Absent: from the first one; `latest`: only new ones.
    #[garde(length(bytes, max = 64))]
    after: Option<String>,
    /// A cursor: events before it, the newest first; `latest`: the newest of all. The `cursor` of the answer
    /// goes on to older ones; that of its first event is where to follow from with `after`.
    #[garde(length(bytes, max = 64))]
    before: Option<String>,
    /// 1–1000; 100 if absent.
    #[garde(range(min = 1, max = 1000))]
    limit: Option<u32>,
    /// Hold the answer for up to so long while there is nothing after the cursor, milliseconds.
    #[garde(range(max = 60_000))]
    wait_ms: Option<u64>,
}

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
struct StreamQuery {
    #[serde(flatten)]
    #[param(ignore)]
    #[garde(skip)]
    about: About,
    /// A cursor: events after it. Absent: from the first one; `latest`: only new ones.
    #[garde(length(bytes, max = 64))]
    after: Option<String>,
}

/// What the statement takes.
#[derive(Debug, Serialize)]
struct Selection {
    #[serde(flatten)]
    about: About,
    after: Option<String>,
    before: Option<String>,
    limit: u32,
}

/// Events in order, or with `before` the newest first.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(PageQuery, About),
    responses((status = 200, body = EventPage)), extensions(("x-rackhand-role" = json!("viewer"))))]
async fn page(Viewer(call): Viewer, Params(query): Params<PageQuery>) -> Answer<Json> {
    let PageQuery { about, after, before, limit, wait_ms } = query;
    if before.is_some() && (after.is_some() || wait_ms.is_some()) {
        return Err(Refusal::invalid("before", "goes with neither `after` nor `wait_ms`"));
    }
    let mut selection = Selection { about, after, before, limit: limit.unwrap_or(DEFAULT_LIMIT) };
    let longest = u64::try_from(call.host.settings.max_wait.as_millis()).unwrap_or(u64::MAX);
    let until = (call.host.now_unix_ms)().saturating_add(wait_ms.unwrap_or(0).min(longest));
    let mut wakes = Wakes::new(&call.host);
    loop {
        let found: EventPage = call.run(&AFTER, &selection).await?;
        let left = until.saturating_sub((call.host.now_unix_ms)());
        if !found.items.is_empty() || left == 0 {
            return Json::of(&found);
        }
        selection.after = Some(found.cursor.clone());
        if wakes.wait(Duration::from_millis(left)).await == Wake::Closing {
            return Json::of(&found);
        }
    }
}

/// The same in order, as a stream of server-sent events: `id` is the cursor, `event` the kind, `data` the event.
/// It ends with the access token; `Last-Event-ID` goes on where it ended.
#[utoipa::path(get, path = "/v1/events/stream", tag = "events",
    params(StreamQuery, About, ("Last-Event-ID" = Option<String>, Header)),
    responses((status = 200, content_type = "text/event-stream", body = String)),
    extensions(("x-rackhand-role" = json!("viewer"))))]
async fn stream_events(
    Viewer(call): Viewer,
    TokenEnd(ends): TokenEnd,
    headers: HeaderMap,
    Params(query): Params<StreamQuery>,
) -> Answer<Response> {
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let selection = Selection {
        about: query.about,
        after: last.map(|last| last.chars().take(64).collect()).or(query.after),
        before: None,
        limit: DEFAULT_LIMIT,
    };
    let ends_ms = ends.saturating_mul(1000);
    let mut feed = Feed { wakes: Wakes::new(&call.host), call, selection, ends_ms };
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
    selection: Selection,
    ends_ms: u64,
}

enum Stop {
    Unavailable(Refusal),
    Refused(Refusal),
}

impl Stop {
    fn into_refusal(self) -> Refusal {
        match self {
            Self::Unavailable(refusal) | Self::Refused(refusal) => refusal,
        }
    }
}

impl Feed {
    /// What is new, as SSE text; empty if nothing is.
    async fn look(&mut self) -> Result<String, Stop> {
        let args = serde_json::to_string(&self.selection).map_err(|error| Stop::Refused(error.into()))?;
        let text = match self.call.host.database.run(&self.call.scope, &AFTER, args).await {
            Ok(text) => text,
            Err(error @ DatabaseError::Unavailable(_)) => return Err(Stop::Unavailable(error.into())),
            Err(error) => return Err(Stop::Refused(error.into())),
        };
        let found: EventPage = serde_json::from_str(&text).map_err(|error| Stop::Refused(error.into()))?;
        self.selection.after = Some(found.cursor);
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
