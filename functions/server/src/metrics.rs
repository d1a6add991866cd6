//! `/metrics` in Prometheus' text format: requests by route and status, their duration, the pool, event
//! streams.
//!
//! Labels are routes of the API, never what a request names: the number of series stays fixed.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rackhand_functions::host::StreamCounts;

/// Upper bounds of the histogram's buckets, seconds. Long polls end up in the last ones.
const BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0];

#[derive(Default)]
pub struct Metrics {
    routes: Mutex<BTreeMap<(String, String), Route>>,
    in_flight: AtomicU64,
}

#[derive(Default)]
struct Route {
    statuses: BTreeMap<u16, u64>,
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

/// What the process knows beside its requests.
pub struct Gauges {
    pub pool_size: usize,
    pub pool_available: usize,
    pub pool_waiting: usize,
    pub listening: bool,
    /// Of clients, open now.
    pub connections: usize,
    /// Beyond the limits, since the start.
    pub connections_refused: u64,
    pub streams: StreamCounts,
}

impl Metrics {
    /// Counts a request as under way until the guard goes.
    pub fn begin(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(&self.in_flight)
    }

    pub fn record(&self, method: &str, route: &str, status: u16, took: Duration) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = routes.entry((route.to_owned(), method.to_owned())).or_default();
        *entry.statuses.entry(status).or_default() += 1;
        entry.count += 1;
        entry.seconds += took.as_secs_f64();
        for (bucket, bound) in entry.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(took.as_secs_f64() <= bound);
        }
    }

    pub fn render(&self, gauges: &Gauges) -> String {
        let mut out = String::new();
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        out.push_str("# HELP rackhand_http_requests_total Answered requests.\n# TYPE rackhand_http_requests_total counter\n");
        for ((route, method), entry) in routes.iter() {
            for (status, count) in &entry.statuses {
                let _ = writeln!(
                    out,
                    "rackhand_http_requests_total{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}} {count}"
                );
            }
        }
        out.push_str("# HELP rackhand_http_request_seconds Time to the head of the answer.\n# TYPE rackhand_http_request_seconds histogram\n");
        for ((route, method), entry) in routes.iter() {
            let labels = format!("route=\"{route}\",method=\"{method}\"");
            for (bound, count) in BUCKETS.iter().zip(entry.buckets) {
                let _ =
                    writeln!(out, "rackhand_http_request_seconds_bucket{{{labels},le=\"{bound}\"}} {count}");
            }
            let _ =
                writeln!(out, "rackhand_http_request_seconds_bucket{{{labels},le=\"+Inf\"}} {}", entry.count);
            let _ = writeln!(out, "rackhand_http_request_seconds_sum{{{labels}}} {}", entry.seconds);
            let _ = writeln!(out, "rackhand_http_request_seconds_count{{{labels}}} {}", entry.count);
        }
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        let StreamCounts { open, ended_for_newer, refused, looks, look_ms, shared } = gauges.streams;
        let seconds = Duration::from_millis(look_ms).as_secs_f64();
        let (gauge, counter) = ("gauge", "counter");
        for (name, kind, help, value) in [
            (
                "http_requests_in_flight",
                gauge,
                "Requests under way, long polls included.",
                in_flight.to_string(),
            ),
            ("database_connections", gauge, "Connections of the pool.", gauges.pool_size.to_string()),
            ("database_connections_available", gauge, "Idle ones.", gauges.pool_available.to_string()),
            ("database_waiting", gauge, "Requests that wait for one.", gauges.pool_waiting.to_string()),
            (
                "database_listening",
                gauge,
                "Whether wake-ups are heard.",
                u8::from(gauges.listening).to_string(),
            ),
            ("connections", gauge, "Connections of clients.", gauges.connections.to_string()),
            (
                "connections_refused",
                counter,
                "Refused beyond the limits.",
                gauges.connections_refused.to_string(),
            ),
            ("event_streams", gauge, "Event streams and long polls that are open.", open.to_string()),
            (
                "event_streams_ended",
                counter,
                "Ended for a newer one of the session.",
                ended_for_newer.to_string(),
            ),
            ("event_streams_refused", counter, "Refused because the process was full.", refused.to_string()),
            ("event_looks", counter, "Looks into the database for events.", looks.to_string()),
            ("event_look_seconds", counter, "Time that these took.", seconds.to_string()),
            ("event_looks_shared", counter, "Answers from a look of another stream.", shared.to_string()),
        ] {
            let _ = writeln!(
                out,
                "# HELP rackhand_{name} {help}\n# TYPE rackhand_{name} {kind}\nrackhand_{name} {value}"
            );
        }
        out
    }
}

pub struct InFlight<'a>(&'a AtomicU64);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_and_status() {
        let metrics = Metrics::default();
        metrics.record("GET", "/v1/servers/{id}", 200, Duration::from_millis(2));
        metrics.record("GET", "/v1/servers/{id}", 404, Duration::from_millis(700));
        let _running = metrics.begin();
        let text = metrics.render(&Gauges {
            pool_size: 4,
            pool_available: 3,
            pool_waiting: 0,
            listening: true,
            connections: 1,
            connections_refused: 0,
            streams: StreamCounts {
                open: 7,
                ended_for_newer: 1,
                looks: 3,
                look_ms: 1500,
                ..Default::default()
            },
        });
        for line in [
            "rackhand_http_requests_total{route=\"/v1/servers/{id}\",method=\"GET\",status=\"404\"} 1",
            "rackhand_http_request_seconds_bucket{route=\"/v1/servers/{id}\",method=\"GET\",le=\"0.0025\"} 1",
            "rackhand_http_request_seconds_bucket{route=\"/v1/servers/{id}\",method=\"GET\",le=\"+Inf\"} 2",
            "rackhand_http_requests_in_flight 1",
            "rackhand_database_listening 1",
            "rackhand_event_streams 7",
            "rackhand_event_streams_ended 1",
            "rackhand_event_looks 3",
            "rackhand_event_look_seconds 1.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
