//! Data on stdout, in the form that was asked for; words for people on stderr.
//!
//! Tables are cut to the terminal's width only when stdout is a terminal; piped output is complete and has no
//! colour. What people type again is never cut: the first column, and ids. CSV cells that a spreadsheet would take for
//! a formula are made inert; absent values are empty there. JSON is the API's own. No form lets a device's control
//! characters through.

use std::{
    env,
    io::{self, IsTerminal as _, Write},
};

use clap::ValueEnum;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Failure, Result};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// Aligned columns, all of them.
    Wide,
    /// Comma-separated, with a header; absent values are empty.
    Csv,
    /// The API's JSON.
    Json,
    /// One name per line.
    Name,
}

/// Where a column is shown; `wide` and `csv` show all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Always,
    Wide,
    /// Also in a table whose rows differ in it.
    Varied,
}

/// One column of a listing of `T`.
pub struct Column<T> {
    pub title: &'static str,
    shown: Shown,
    pub cell: fn(&T) -> String,
}

impl<T> Column<T> {
    pub const fn new(title: &'static str, cell: fn(&T) -> String) -> Self {
        Self { title, shown: Shown::Always, cell }
    }

    pub const fn wide(title: &'static str, cell: fn(&T) -> String) -> Self {
        Self { title, shown: Shown::Wide, cell }
    }

    /// For what is the same in most lists, such as the site.
    pub const fn varied(title: &'static str, cell: fn(&T) -> String) -> Self {
        Self { title, shown: Shown::Varied, cell }
    }

    fn is_shown(&self, wide: bool, items: &[T]) -> bool {
        let varies = || {
            let mut cells = items.iter().map(self.cell);
            let first = cells.next();
            cells.any(|cell| Some(cell) != first)
        };
        wide || self.shown == Shown::Always || (self.shown == Shown::Varied && varies())
    }
}

/// How stdout and stderr are to be used.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub format: Format,
    /// Columns of the terminal on stdout; none when piped.
    width: Option<usize>,
    colour: bool,
    /// Whether stderr is a terminal: progress bars are shown only there.
    pub live: bool,
}

impl Output {
    pub fn new(format: Format) -> Self {
        let terminal = io::stdout().is_terminal();
        let width = terminal
            .then(|| rustix::termios::tcgetwinsize(io::stdout()).ok())
            .flatten()
            .map(|size| usize::from(size.ws_col))
            .filter(|columns| *columns >= 20);
        let colour = terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { format, width, colour, live: io::stderr().is_terminal() }
    }

    #[cfg(test)]
    pub fn plain(format: Format) -> Self {
        Self { format, width: None, colour: false, live: false }
    }

    /// Whether people read what goes to stdout.
    pub fn is_for_people(self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }

    /// For text that goes to stderr.
    pub fn colourless(self) -> Self {
        Self { colour: false, ..self }
    }

    /// Prints a listing that is never empty.
    pub fn list<T: Serialize>(
        self,
        items: &[T],
        columns: &[Column<T>],
        name: fn(&T) -> String,
    ) -> Result<()> {
        self.list_or("nothing to show", items, columns, name)
    }

    /// Prints a listing. Where people read it, `none` stands for an empty one: what there is none of, and what next.
    pub fn list_or<T: Serialize>(
        self,
        none: &str,
        items: &[T],
        columns: &[Column<T>],
        name: fn(&T) -> String,
    ) -> Result<()> {
        if items.is_empty() && self.is_for_people() {
            say(none);
            return Ok(());
        }
        write_stdout(&self.render_list(items, columns, name)?)
    }

    /// The same for what was requested with a filter: `what` is one of the things, such as `server`.
    pub fn list_matching<T: Serialize>(
        self,
        what: &str,
        items: &[T],
        columns: &[Column<T>],
        name: fn(&T) -> String,
    ) -> Result<()> {
        self.list_or(&format!("no {what} matches"), items, columns, name)
    }

    /// Prints one object: as JSON or by name if asked, else as `text` says.
    pub fn one<T: Serialize>(self, item: &T, name: &str, text: impl FnOnce() -> String) -> Result<()> {
        write_stdout(&match self.format {
            Format::Json => json(item)?,
            Format::Name => format!("{}\n", printable_lines(name)),
            Format::Table | Format::Wide | Format::Csv => self.shown(&text()),
        })
    }

    /// Nothing that moves the cursor, whoever wrote it; of escapes, our own colours alone.
    fn shown(self, text: &str) -> String {
        let mut shown = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('\x1b') {
            shown.push_str(&printable_lines(before));
            let colour = COLOURS.iter().find(|colour| self.colour && after.starts_with(**colour));
            let (escape, length) = colour.map_or((" ", 0), |colour| ("\x1b", colour.len()));
            let (kept, others) = after.split_at(length);
            shown.push_str(escape);
            shown.push_str(kept);
            rest = others;
        }
        shown + &printable_lines(rest)
    }

    pub fn render_list<T: Serialize>(
        self,
        items: &[T],
        columns: &[Column<T>],
        name: fn(&T) -> String,
    ) -> Result<String> {
        let cells = |wide: bool| -> (Vec<&str>, Vec<Vec<String>>) {
            let shown: Vec<&Column<T>> =
                columns.iter().filter(|column| column.is_shown(wide, items)).collect();
            let rows = items.iter().map(|item| shown.iter().map(|column| (column.cell)(item)).collect());
            (shown.iter().map(|column| column.title).collect(), rows.collect())
        };
        Ok(match self.format {
            Format::Json => json(&items)?,
            Format::Name => items.iter().map(|item| format!("{}\n", printable(&name(item)))).collect(),
            Format::Csv => {
                let (titles, rows) = cells(true);
                csv(&titles, &rows)
            }
            Format::Table | Format::Wide => {
                let (titles, rows) = cells(self.format == Format::Wide);
                self.table(&titles, &rows)
            }
        })
    }

    /// Aligned columns under their titles.
    pub fn table(self, titles: &[&str], rows: &[Vec<String>]) -> String {
        let mut widths: Vec<usize> = titles.iter().map(|title| title.chars().count()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(printable(cell).chars().count());
            }
        }
        if let Some(limit) = self.width {
            let is_id = |cell: &String| uuid::Uuid::try_parse(cell).is_ok();
            let kept =
                |column: usize| column == 0 || rows.iter().any(|row| row.get(column).is_some_and(is_id));
            let kept: Vec<bool> = (0..widths.len()).map(kept).collect();
            shrink(&mut widths, &kept, limit);
        }
        let mut text = String::new();
        let head: Vec<String> = titles.iter().map(|title| (*title).to_owned()).collect();
        for (index, row) in std::iter::once(&head).chain(rows).enumerate() {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let cell = cut(&printable(cell), *width);
                let padding = " ".repeat((width + 2).saturating_sub(cell.chars().count()));
                line.push_str(&if index == 0 { cell } else { self.paint(&cell) });
                line.push_str(&padding);
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Colours a word that is a state; the word itself stays, colour is never the only sign.
    fn paint(self, cell: &str) -> String {
        let code = match cell {
            "ok" | "on" | "online" | "active" | "succeeded" | "no change" => "32",
            "warning" | "joining" | "paused" | "planned" | "unknown" | "waiting" | "settling" => "33",
            "critical" | "failed" | "revoked" | "suspended" | "cancelled" | "offline" => "31",
            "running" | "taken" => "36",
            _ => return cell.to_owned(),
        };
        if self.colour { format!("\x1b[{code}m{cell}\x1b[0m") } else { cell.to_owned() }
    }
}

/// Writes data for programs or people. A closed pipe is not a fault: the reader has seen enough.
pub fn write_stdout(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|source| Failure::file("cannot write to stdout", source)),
    }
}

/// Tells people something. Never data.
pub fn say(text: impl AsRef<str>) {
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(io::stderr().lock(), "{}", printable_lines(text.as_ref()));
}

/// Ctrl-C, from this call on.
pub fn interrupts() -> Result<Signal> {
    signal(SignalKind::interrupt()).map_err(|source| Failure::file("cannot listen for signals", source))
}

pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Other(error.to_string()))?;
    // JSON itself escapes only the first 32 characters. The others stand in strings alone, where `\u` may be.
    let mut escaped = String::with_capacity(text.len() + 1);
    for letter in text.chars() {
        match letter {
            letter if letter != '\n' && is_control(letter) => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            letter => escaped.push(letter),
        }
    }
    escaped.push('\n');
    Ok(escaped)
}

/// `1 run`, `2 runs`: a number with the thing it counts, given in the singular.
pub fn counted(number: impl ToString, thing: &str) -> String {
    match (number.to_string().as_str(), thing.strip_suffix('y')) {
        ("1", _) => format!("1 {thing}"),
        (number, Some(stem)) => format!("{number} {stem}ies"),
        (number, None) => format!("{number} {thing}s"),
    }
}

/// An absent value in a table.
pub fn dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| ABSENT.to_owned(), |value| value.to_string())
}

/// The word an enum has in the API, as people write it: `no change`.
pub fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => spaced(&word),
        other => other.map(|value| value.to_string()).unwrap_or_default(),
    }
}

/// `force_off` → `force off`.
pub fn spaced(word: &str) -> String {
    word.replace('_', " ")
}

/// `5000` → `5 s`, `500` → `0.5 s`.
pub fn seconds(milliseconds: u32) -> String {
    let (whole, rest) = (milliseconds / 1000, milliseconds % 1000);
    match format!("{rest:03}").trim_end_matches('0') {
        "" => format!("{whole} s"),
        part => format!("{whole}.{part} s"),
    }
}

/// `2026-01-02T03:04:05.678901Z` → `2026-01-02 03:04:05Z`.
pub fn moment(timestamp: &str) -> String {
    match (timestamp.get(..10), timestamp.get(10..11), timestamp.get(11..19)) {
        (Some(day), Some("T"), Some(time)) => format!("{day} {time}Z"),
        _ => timestamp.to_owned(),
    }
}

fn csv(titles: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = titles.join(",");
    text.push('\n');
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| csv_cell(cell)).collect();
        text.push_str(&cells.join(","));
        text.push('\n');
    }
    text
}

fn csv_cell(cell: &str) -> String {
    if cell == ABSENT {
        return String::new();
    }
    let cell = printable(cell);
    let cell = if cell.starts_with(['=', '+', '-', '@']) { format!("'{cell}") } else { cell };
    if cell.contains([',', '"']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}

/// What follows the escape of a colour of [`Output::paint`].
const COLOURS: [&str; 5] = ["[31m", "[32m", "[33m", "[36m", "[0m"];

/// What is absent, in a table.
const ABSENT: &str = "-";

/// Moves the cursor, colours, rings, or turns around the order of what follows (the bidirectional controls of Unicode,
/// UAX #9): on a terminal the text would not be what is there.
fn is_control(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Control characters from a device must not reach a terminal.
pub fn printable(cell: &str) -> String {
    cell.chars().map(|letter| if is_control(letter) { ' ' } else { letter }).collect()
}

/// The same for text of several lines.
pub fn printable_lines(text: &str) -> String {
    text.chars().map(|letter| if is_control(letter) && letter != '\n' { ' ' } else { letter }).collect()
}

fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    let mut short: String = cell.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Narrows the widest columns that are not `kept` until the line fits; none below 8.
fn shrink(widths: &mut [usize], kept: &[bool], limit: usize) {
    while widths.iter().map(|width| width + 2).sum::<usize>() > limit + 2 {
        let cut = widths.iter_mut().zip(kept).filter(|(_, kept)| !**kept).map(|(width, _)| width);
        match cut.max() {
            Some(widest) if *widest > 8 => *widest -= 1,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Row {
        name: &'static str,
        note: &'static str,
    }

    const COLUMNS: [Column<Row>; 2] = [
        Column::new("NAME", |row: &Row| row.name.to_owned()),
        Column::wide("NOTE", |row| row.note.to_owned()),
    ];
    const ROWS: [Row; 2] =
        [Row { name: "bmc-01", note: "=1+1" }, Row { name: "b", note: "a \"quoted\", long note\x1b[31m" }];

    fn render(format: Format) -> String {
        Output::plain(format).render_list(&ROWS, &COLUMNS, |row| row.name.to_owned()).unwrap()
    }

    #[test]
    fn each_format_shows_the_same_rows() {
        assert_eq!(render(Format::Table), "NAME\nbmc-01\nb\n");
        assert_eq!(
            render(Format::Wide),
            "NAME    NOTE\nbmc-01  =1+1\nb       a \"quoted\", long note [31m\n",
            "control characters do not reach the terminal"
        );
        assert_eq!(render(Format::Name), "bmc-01\nb\n");
        assert_eq!(render(Format::Csv), "NAME,NOTE\nbmc-01,'=1+1\nb,\"a \"\"quoted\"\", long note [31m\"\n");
        assert!(render(Format::Json).starts_with("[\n  {\n    \"name\": \"bmc-01\""));
    }

    #[test]
    fn no_form_lets_control_characters_through() {
        let row = Row { name: "\u{9b}31mred\u{202e}", note: "\u{7f}\u{2066}\u{1b}]0;title\u{7}\r\t" };
        for format in [Format::Table, Format::Wide, Format::Csv, Format::Json, Format::Name] {
            let out = Output::plain(format);
            let text = out.render_list(&[&row], &[], |row| row.name.to_owned()).unwrap();
            assert!(!text.chars().any(|letter| is_control(letter) && letter != '\n'), "{format:?}: {text:?}");
        }
        let painted = "\u{1b}[32mon\u{1b}[0m";
        let text = format!("{painted} \u{1b}]0;t\u{7}\u{1b}[2J\u{202e}\u{1b}");
        let coloured = Output { colour: true, ..Output::plain(Format::Table) };
        assert_eq!(coloured.shown(&text), format!("{painted}  ]0;t  [2J  "));
        assert_eq!(Output::plain(Format::Table).shown(painted), " [32mon [0m");
        let back: serde_json::Value = serde_json::from_str(&json(&row).unwrap()).unwrap();
        assert_eq!(
            (&back["name"], &back["note"]),
            (&row.name.into(), &row.note.into()),
            "JSON stays the same data"
        );
        assert_eq!((csv_cell("-"), csv_cell("-1")), (String::new(), "'-1".to_owned()));
    }

    #[test]
    fn ids_and_names_are_never_cut() {
        let id = "01920000-0000-7000-8000-000000000001";
        let row =
            vec!["a-server-with-a-long-name".to_owned(), id.to_owned(), "a reason of many words".to_owned()];
        let output = Output { width: Some(60), ..Output::plain(Format::Table) };
        let table = output.table(&["NAME", "JOB", "REASON"], &[row]);
        assert!(
            table.contains("a-server-with-a-long-name  01920000-0000-7000-8000-000000000001  a reaso…"),
            "{table}"
        );
    }

    #[test]
    fn a_narrow_terminal_cuts_the_widest_column() {
        let output = Output { width: Some(24), ..Output::plain(Format::Table) };
        let table =
            output.table(&["NAME", "DETAIL"], &[vec!["bmc-01".into(), "0123456789012345678901234".into()]]);
        assert_eq!(table, "NAME    DETAIL\nbmc-01  012345678901234…\n");
    }

    #[test]
    fn what_is_counted_is_one_or_several() {
        let said = [0, 1, 2].map(|number| counted(number, "executor"));
        assert_eq!(said, ["0 executors", "1 executor", "2 executors"]);
        assert_eq!(counted(2, "entry"), "2 entries");
    }

    #[test]
    fn a_column_that_varies_is_shown_where_it_does() {
        const COLUMNS: [Column<Row>; 2] = [
            Column::new("NAME", |row: &Row| row.name.to_owned()),
            Column::varied("NOTE", |row| row.note.to_owned()),
        ];
        let table = |rows: &[Row]| {
            Output::plain(Format::Table).render_list(rows, &COLUMNS, |row| row.name.to_owned()).unwrap()
        };
        let row = |name, note| Row { name, note };
        assert_eq!(table(&[row("a", "lab"), row("b", "lab")]), "NAME\na\nb\n");
        assert_eq!(table(&[row("a", "lab"), row("b", "two")]), "NAME  NOTE\na     lab\nb     two\n");
    }

    #[test]
    fn words_and_times_are_for_people() {
        assert_eq!(word(&rackhand_schema::run::RunState::NoChange), "no change");
        assert_eq!([30_000, 500, 1250, 60].map(seconds), ["30 s", "0.5 s", "1.25 s", "0.06 s"]);
    }

    #[test]
    fn moments_are_short() {
        assert_eq!(moment("2026-01-02T03:04:05.678901Z"), "2026-01-02 03:04:05Z");
        assert_eq!(moment("odd"), "odd");
    }
}
