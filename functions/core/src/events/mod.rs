//! Events: a page, a long poll, or a stream (SSE), all from the same gap-free cursor; pages also backwards.
//!
//! A look says whose events may come, which is what to be woken for; after subscribing to that follows
//! another look, so no wake-up is lost. It says as well whether an event waits for an older transaction to
//! end: then the next looks follow quickly, then slower.

mod share;
pub mod streams;

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{future::select_all, stream};
use garde::Validate;
use http::{HeaderMap, HeaderValue, header};
use rackhand_schema::{
    ErrorCode,
    event::{Event, EventPage},
    id::{JobId, RunId, ServerId, SiteId},
};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::{
    events::{
        share::{Place, Question, Seen},
        streams::Seat,
    },
    host::{DatabaseError, Host, Statement, Subscription, Topic, Wake},
    problem::{Answer, Refusal},
    request::{Call, Json, Params, TokenEnd, Viewer},
    routing::{OpenApiRouter, routes},
    statement,
};

statement!(AFTER, "events", "after");

/// The same, by one stream for all that would see the same.
static LOOK: Statement = Statement { name: "events/look", sql: include_str!("after.sql") };

/// A comment is sent after so long without an event, so that proxies keep the stream open.
const KEEP_ALIVE_MS: u64 = 15_000;
/// A long poll that has lost its place is answered within this.
const LOST_MS: u64 = 1000;
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
#[derive(Debug, Clone, Serialize)]
struct Selection {
    #[serde(flatten)]
    about: About,
    after: Option<String>,
    before: Option<String>,
    limit: u32,
}

/// What the statement answers.
#[derive(Debug, Deserialize)]
struct Look {
    #[serde(flatten)]
    page: EventPage,
    /// There are more, which wait for an older transaction.
    #[serde(default)]
    held: bool,
    /// Whose events may come; absent: the whole fleet's.
    #[serde(default)]
    sites: Option<Vec<SiteId>>,
    /// Those of people, too.
    #[serde(default)]
    people: bool,
}

/// Events in order, or with `before` the newest first.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(PageQuery, About),
    responses((status = 200, body = EventPage)),
    extensions(("x-rackhand-role" = json!("viewer")), ("x-rackhand-errors" = json!(["too-many-streams"]))))]
async fn page(Viewer(call): Viewer, Params(query): Params<PageQuery>) -> Answer<Json> {
    let PageQuery { about, after, before, limit, wait_ms } = query;
    if before.is_some() && (after.is_some() || wait_ms.is_some()) {
        return Err(Refusal::invalid("before", "goes with neither `after` nor `wait_ms`"));
    }
    let mut selection = Selection { about, after, before, limit: limit.unwrap_or(DEFAULT_LIMIT) };
    let longest = u64::try_from(call.host.settings.max_wait.as_millis()).unwrap_or(u64::MAX);
    let now = || (call.host.now_unix_ms)();
    let until = now().saturating_add(wait_ms.unwrap_or(0).min(longest));
    let seat = wait_ms.is_some().then(|| Seat::take(&call.host.process, &call.scope)).transpose()?;
    let mut watch = Watch::new(&call.host);
    loop {
        let began = now();
        let found: Look = call.run(&AFTER, &selection).await?;
        if let Some(seat) = &seat {
            seat.looked(began, now(), true);
        }
        let left = until.saturating_sub(now());
        let Some(seat) = seat.as_ref().filter(|_| found.page.items.is_empty() && left > 0) else {
            return Json::of(&found.page);
        };
        selection.after = Some(found.page.cursor.clone());
        if watch.follow(&found) {
            continue;
        }
        // Without its place it looks no more. It does not answer at once: who asks again at once would drive
        // out the next one.
        let left = if seat.is_lost() { left.min(LOST_MS) } else { left };
        if watch.wait(Duration::from_millis(left)).await == Wake::Closing
            || watch.pause(seat.turn(now())).await == Wake::Closing
            || seat.is_lost()
        {
            return Json::of(&found.page);
        }
    }
}

/// The same in order, as a stream of server-sent events: `id` is the cursor, `event` the kind, `data` the
/// event. It ends with the access token; `Last-Event-ID` goes on where it ended.
#[utoipa::path(get, path = "/v1/events/stream", tag = "events",
    params(StreamQuery, About, ("Last-Event-ID" = Option<String>, Header)),
    responses((status = 200, content_type = "text/event-stream", body = String)),
    extensions(("x-rackhand-role" = json!("viewer")), ("x-rackhand-errors" = json!(["too-many-streams"]))))]
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
    let seat = Seat::take(&call.host.process, &call.scope)?;
    let mut feed = Feed { watch: Watch::new(&call.host), seat, call, selection, ends_ms };
    // The first look is answered as a request: a refusal gets its status.
    let first = feed.look_alone().await.map_err(Stop::into_refusal)?;
    let first = Bytes::from(["retry: 1000\n\n".as_bytes(), &first].concat());
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
    watch: Watch,
    seat: Seat,
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
    /// Asks the database for what is after a cursor.
    async fn ask(&mut self, statement: &'static Statement, after: Option<String>) -> Result<Look, Stop> {
        let args = serde_json::to_string(&Selection { after, ..self.selection.clone() })
            .map_err(|error| Stop::Refused(error.into()))?;
        let began = self.now();
        let answer = self.call.host.database.run(&self.call.scope, statement, args).await;
        self.seat.looked(began, self.now(), answer.is_ok());
        match answer {
            Ok(text) => serde_json::from_str(&text).map_err(|error| Stop::Refused(error.into())),
            Err(error @ (DatabaseError::Unavailable(_) | DatabaseError::TooMany)) => {
                Err(Stop::Unavailable(error.into()))
            }
            Err(error) => Err(Stop::Refused(error.into())),
        }
    }

    /// What is new, by a look for this stream alone; it joins the others once it has caught up.
    async fn look_alone(&mut self) -> Result<Bytes, Stop> {
        let found = self.ask(&AFTER, self.selection.after.clone()).await?;
        self.selection.after = Some(found.page.cursor.clone());
        self.watch.follow(&found);
        if found.page.more {
            self.watch.look_again();
        } else {
            self.seat.join(self.question(&found)?);
        }
        Ok(found.page.items.iter().map(sse_event).collect::<String>().into())
    }

    fn question(&self, found: &Look) -> Result<Question, Stop> {
        let about =
            serde_json::to_string(&self.selection.about).map_err(|error| Stop::Refused(error.into()))?;
        Ok(Question { about, sites: found.sites.clone(), people: found.people })
    }

    /// What is new, by a look of any of those who see the same.
    async fn look(&mut self) -> Result<Bytes, Stop> {
        let place = self.selection.after.as_deref().and_then(Place::parse);
        let (Some((question, share)), Some(place)) = (self.seat.share(), place) else {
            return self.look_alone().await;
        };
        let since = self.watch.since_ms;
        let mut in_line = None;
        let mut state = loop {
            let state = share.state.lock().await;
            if self.seat.is_checked(self.now()) {
                if state.is_away(since) {
                    return Err(Stop::Unavailable(Refusal::new(
                        ErrorCode::DatabaseUnavailable,
                        "The database did not answer another stream.",
                    )));
                }
                if let (Some(news), Some(seen)) = (state.answer(place, since), &state.seen) {
                    self.seat.served();
                    self.selection.after = Some(seen.cursor.clone());
                    self.watch.looked(seen, Some(state.began_ms));
                    return Ok(news);
                }
            }
            if state.seen.as_ref().is_some_and(|seen| !seen.reaches(place)) {
                drop(state);
                return self.look_alone().await;
            }
            if in_line.is_some() || self.seat.looks_for_others() {
                break state;
            }
            drop(state);
            in_line = Some(share.own_line.lock().await);
        };
        let after = state.seen.as_ref().map(|seen| seen.cursor.clone()).or(self.selection.after.clone());
        let began_ms = self.now();
        let found = if self.seat.looks_for_others() {
            let found = self.ask(&LOOK, after).await;
            // A refusal is of this session alone.
            if matches!(found, Err(Stop::Unavailable(_))) {
                (state.began_ms, state.failed) = (began_ms, true);
            }
            found?
        } else {
            // Who joins meanwhile does not wait for that.
            drop(state);
            let found = self.ask(&AFTER, after.clone()).await?;
            state = share.state.lock().await;
            if state.seen.as_ref().is_some_and(|seen| after.as_ref() != Some(&seen.cursor)) {
                self.watch.look_again();
                return Ok(Bytes::new());
            }
            found
        };
        let seen = state.seen.get_or_insert_with(|| Seen::at(place, ""));
        if self.question(&found)? != question || !seen.append(&found.page.cursor, &found.page.items) {
            // It sees something else now: what was found is for nobody.
            drop(state);
            return self.look_alone().await;
        }
        seen.held = found.held;
        seen.more = found.page.more;
        // Who has joined lately may be ahead of the others still: then there is nothing, and another look is
        // due.
        let news = seen.after(place);
        if news.is_some() {
            self.selection.after = Some(seen.cursor.clone());
        }
        self.watch.looked(seen, None);
        (state.began_ms, state.failed) = (began_ms, false);
        Ok(news.unwrap_or_default())
    }

    /// The next chunk; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        let keep_alive_at = self.now().saturating_add(KEEP_ALIVE_MS);
        loop {
            if self.now() >= self.ends_ms {
                return None;
            }
            if self.seat.is_lost() {
                // Who comes again at once would drive out the next one.
                self.ends_ms = 0;
                return Some(Bytes::from(format!("retry: {KEEP_ALIVE_MS}\n\n")));
            }
            if self.watch.due {
                if self.watch.pause(self.seat.turn(self.now())).await == Wake::Closing {
                    return None;
                }
                match self.look().await {
                    Ok(news) if news.is_empty() => {}
                    Ok(news) => return Some(news),
                    // The stream outlives a restart of the database: a browser does not try again after a
                    // 503.
                    Err(Stop::Unavailable(_)) => {
                        self.watch.look_again();
                        if self.watch.pause(Duration::from_secs(1)).await == Wake::Closing {
                            return None;
                        }
                    }
                    Err(Stop::Refused(_)) => return None,
                }
                if self.watch.due {
                    continue;
                }
            }
            let now = self.now();
            if now >= keep_alive_at {
                return Some(Bytes::from_static(b": keep-alive\n\n"));
            }
            let left = Duration::from_millis(keep_alive_at.min(self.ends_ms).saturating_sub(now));
            if self.watch.wait(left).await == Wake::Closing {
                return None;
            }
        }
    }

    fn now(&self) -> u64 {
        (self.call.host.now_unix_ms)()
    }
}

/// Listens for what may come, and knows when to look again without a wake-up.
struct Watch {
    host: Arc<Host>,
    sites: Option<Option<Vec<SiteId>>>,
    subscriptions: Vec<Box<dyn Subscription>>,
    held: bool,
    /// Looks since an event was first held back.
    looks: usize,
    /// There may be something that was not looked for.
    due: bool,
    /// A look that began after this finds what is due, Unix milliseconds.
    since_ms: u64,
    /// The last wake-up.
    heard_ms: u64,
}

/// While an event is held back; the last one again and again.
const HELD_LOOKS: [Duration; 3] =
    [Duration::from_millis(40), Duration::from_millis(200), Duration::from_secs(1)];
/// Who sees more sites listens for all of them.
const TOPICS: usize = 8;

impl Watch {
    fn new(host: &Arc<Host>) -> Self {
        Self {
            host: Arc::clone(host),
            sites: None,
            subscriptions: Vec::new(),
            held: false,
            looks: 0,
            due: false,
            since_ms: 0,
            heard_ms: 0,
        }
    }

    /// Takes in what an own look found; true if it has only now begun to listen, so that another look is due.
    fn follow(&mut self, found: &Look) -> bool {
        self.due = false;
        self.held(found.held);
        if self.sites.as_ref() == Some(&found.sites) {
            return false;
        }
        let topics = match &found.sites {
            Some(sites) if (1..=TOPICS).contains(&sites.len()) => {
                sites.iter().map(|site| Topic::EventsOf(*site)).collect()
            }
            _ => vec![Topic::Events],
        };
        self.subscriptions = topics.into_iter().map(|topic| self.host.notifier.subscribe(topic)).collect();
        self.sites = Some(found.sites.clone());
        self.look_again();
        true
    }

    /// Takes in a look of those who share, by the time when it began if another stream made it.
    fn looked(&mut self, seen: &Seen, began_ms: Option<u64>) {
        self.held(seen.held);
        self.due = began_ms.is_some_and(|began| began <= self.heard_ms);
        self.since_ms = self.heard_ms;
        if seen.more {
            self.look_again();
        }
    }

    fn held(&mut self, held: bool) {
        self.looks = if self.held && held { self.looks + 1 } else { 0 };
        self.held = held;
    }

    /// There is something that none of the looks until now has found.
    fn look_again(&mut self) {
        self.due = true;
        self.since_ms = self.now();
        self.heard_ms = self.since_ms;
    }

    /// Until something may have come, at most so long.
    async fn wait(&mut self, at_most: Duration) -> Wake {
        let soon = self.held.then(|| HELD_LOOKS.get(self.looks).or(HELD_LOOKS.last()).copied()).flatten();
        let asked = self.now();
        let wake = self.heard(soon.map_or(at_most, |soon| soon.min(at_most))).await;
        self.due = true;
        self.since_ms = if wake == Wake::Changed { self.heard_ms } else { asked };
        wake
    }

    /// So long, whatever comes.
    async fn pause(&mut self, time: Duration) -> Wake {
        let until = self.now().saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        loop {
            let left = until.saturating_sub(self.now());
            if left == 0 {
                return Wake::TimedOut;
            }
            if self.heard(Duration::from_millis(left)).await == Wake::Closing {
                return Wake::Closing;
            }
        }
    }

    async fn heard(&mut self, at_most: Duration) -> Wake {
        if self.subscriptions.is_empty() {
            self.subscriptions.push(self.host.notifier.subscribe(Topic::Events));
        }
        let wake = select_all(self.subscriptions.iter_mut().map(|one| one.wait(at_most))).await.0;
        if wake == Wake::Changed {
            self.heard_ms = self.now();
        }
        wake
    }

    fn now(&self) -> u64 {
        (self.host.now_unix_ms)()
    }
}

/// One event as SSE. JSON text has no line breaks; a kind is a plain word, made sure of here.
fn sse_event(event: &Event) -> String {
    let kind: String = event.kind.chars().filter(|c| !c.is_control()).collect();
    let data = serde_json::to_string(event).unwrap_or_default();
    format!("id: {}\nevent: {kind}\ndata: {data}\n\n", event.cursor)
}
