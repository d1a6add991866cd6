//! What is behind the serial port: a shell that echoes and knows a few words.
//!
//! `bulk N` writes N numbered lines, for throughput; Ctrl-C ends it. Anything else is repeated as unknown.

use std::fmt::Write as _;

use super::sol::Sol;

const PROMPT: &str = "lab$ ";
/// Longest line that is understood.
const LINE: usize = 128;
/// Most lines of one `bulk`.
const BULK: u32 = 10_000_000;

#[derive(Debug, Default)]
pub(super) struct Console {
    line: String,
    bulk: Option<Bulk>,
}

#[derive(Debug)]
struct Bulk {
    next: u32,
    last: u32,
}

impl Console {
    pub fn typed(&mut self, characters: &[u8], sol: &mut Sol) {
        for character in characters {
            match character {
                b'\r' => {
                    sol.push(b"\r\n");
                    let line = std::mem::take(&mut self.line);
                    self.understand(line.trim(), sol);
                }
                // Many send both.
                b'\n' => {}
                0x03 => {
                    self.bulk = None;
                    self.line.clear();
                    sol.push(b"^C\r\n");
                    sol.push(PROMPT.as_bytes());
                }
                0x08 | 0x7f => {
                    if self.line.pop().is_some() {
                        sol.push(b"\x08 \x08");
                    }
                }
                character => {
                    sol.push(&[*character]);
                    if self.line.len() < LINE {
                        self.line.push(char::from(*character));
                    }
                }
            }
        }
    }

    pub fn line_break(&mut self, sol: &mut Sol) {
        self.bulk = None;
        sol.push(b"\r\n[break]\r\n");
        sol.push(PROMPT.as_bytes());
    }

    /// The next lines of what writes by itself.
    pub fn write_on(&mut self, sol: &mut Sol) {
        while let Some(bulk) = &mut self.bulk
            && sol.wants_more()
        {
            let mut line = String::new();
            // Writing into a string does not fail.
            let _ = write!(line, "bulk {:08} abcdefghijklmnopqrstuvwxyz0123456789\r\n", bulk.next);
            sol.push(line.as_bytes());
            bulk.next += 1;
            if bulk.next > bulk.last {
                self.bulk = None;
                sol.push(PROMPT.as_bytes());
            }
        }
    }

    fn understand(&mut self, line: &str, sol: &mut Sol) {
        match line.split_once(' ') {
            Some(("bulk", count)) if let Ok(last @ 1..=BULK) = count.trim().parse() => {
                self.bulk = Some(Bulk { next: 1, last });
                return;
            }
            _ if line.is_empty() => {}
            _ if line == "help" => sol.push(b"bulk N: N numbered lines; Ctrl-C ends it\r\n"),
            _ => sol.push(format!("unknown: {line}\r\n").as_bytes()),
        }
        sol.push(PROMPT.as_bytes());
    }
}
