//! Log lines as JSON on the console, where `wrangler tail` and Workers Logs find them. The runtime dates
//! them.

use std::io;

use tracing_subscriber::{filter::LevelFilter, fmt::MakeWriter};

pub fn install() {
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .without_time()
        .with_max_level(LevelFilter::INFO)
        .with_writer(Console)
        .finish();
    // A second start in the same instance keeps the first one.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct Console;

/// Collects one line, then says it.
#[derive(Default)]
struct Line(Vec<u8>);

impl<'a> MakeWriter<'a> for Console {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line::default()
    }
}

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.0);
        worker::console_log!("{}", text.trim_end());
    }
}
