//! `rackhand bmc console`: the host's serial console on this terminal.

use std::{io::IsTerminal as _, time::Duration};

use clap::Args;
use rackhand_ipmi::sol::{OwnSession, SolControl, SolEnd, SolError, SolOptions, SolStream, Status};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split},
    time::{sleep, timeout},
};

use super::{
    ipmi::{Access, Bmc, interrupted},
    memory::Memory,
    terminal::Raw,
};
use crate::{
    config::Config,
    error::{Failure, Result},
    output::say,
};

#[derive(Debug, Args)]
pub struct Console {
    #[command(flatten)]
    access: Access,
}

const HELP: &str = "~. end   ~B break   ~~ one ~   (at the start of a line)";
/// The console is closed when stdin has ended and the host is silent for this time.
const SILENCE: Duration = Duration::from_secs(2);
/// Longest time for the last characters and for giving the console back.
const CLOSE: Duration = Duration::from_secs(12);

pub async fn run(console: Console) -> Result<()> {
    console.access.open(async |bmc: &Bmc| attach(bmc).await).await
}

async fn attach(bmc: &Bmc) -> Result<()> {
    let mut memory = remember(bmc);
    let options = SolOptions { remembered: memory.as_ref().and_then(Memory::lost), ..SolOptions::default() };
    let stream = tokio::select! {
        stream = bmc.client.sol(options) => stream.map_err(|error| refused(bmc, error))?,
        () = interrupted() => return Err(Failure::Interrupted),
    };
    if stream.activated().recovered {
        say(bmc.says("closed a console that an earlier command of yours had left open"));
    }
    keep(bmc, memory.as_mut(), stream.activated().own);
    let control = stream.control();
    let terminal = std::io::stdin().is_terminal();
    say(bmc.says(if terminal { "console; ~. ends it, ~? helps" } else { "console" }));
    let raw = Raw::enter().map_err(|source| Failure::file("cannot set the terminal", source))?;
    let (from_host, to_host) = split(stream);
    let mut session =
        Session { from_host, to_host, control, escapes: Escapes::default(), raw: raw.is_some() };
    let result = tokio::select! {
        result = session.exchange() => result,
        // Here and not one level above: the console is given back in between.
        () = interrupted() => Ok(Ended::Interrupted),
    };
    let Session { from_host, to_host, .. } = session;
    let closed = timeout(CLOSE, from_host.unsplit(to_host).close()).await;
    drop(raw);
    let given_back = match &result {
        Ok(_) => matches!(closed, Ok(Ok(()))),
        Err(error) => matches!(SolEnd::of(error), Some(SolEnd::Deactivated | SolEnd::TakenOver { .. })),
    };
    if given_back {
        keep(bmc, memory.as_mut(), None);
    } else {
        say(bmc.says(
            "the console could not be closed: your next `console` closes it, or the BMC after a while",
        ));
    }
    match result.map_err(|error| lost(bmc, &error))? {
        Ended::ByUs => {
            say(bmc.says("console closed"));
            Ok(())
        }
        Ended::Interrupted => Err(Failure::Interrupted),
    }
}

/// What is known of a console that an earlier command lost. The console works without it.
fn remember(bmc: &Bmc) -> Option<Memory> {
    let place = bmc.name().trim_start_matches("ipmi://");
    let memory = Config::locate().and_then(|config| {
        Memory::open(&config.consoles(), place, &bmc.account)
            .map_err(|source| Failure::file(config.consoles().display().to_string(), source))
    });
    memory.unwrap_or_else(|failure| {
        say(bmc.says(format!("this console will not be remembered: {failure}")));
        None
    })
}

fn keep(bmc: &Bmc, memory: Option<&mut Memory>, own: Option<OwnSession>) {
    if let Some(Err(error)) = memory.map(|memory| memory.keep(own)) {
        say(bmc.says(format!("this console will not be remembered: {error}")));
    }
}

enum Ended {
    ByUs,
    Interrupted,
}

struct Session {
    from_host: ReadHalf<SolStream>,
    to_host: WriteHalf<SolStream>,
    control: SolControl,
    escapes: Escapes,
    raw: bool,
}

impl Session {
    async fn exchange(&mut self) -> std::io::Result<Ended> {
        let (mut stdin, mut stdout) = (tokio::io::stdin(), tokio::io::stdout());
        let (mut typed, mut shown) = ([0; 1024], vec![0; 8192]);
        let mut status = self.control.status();
        let (mut waiting, mut breaks, mut open) = (false, 0, true);
        let mut last_words = Vec::new();
        loop {
            tokio::select! {
                count = self.from_host.read(&mut shown) => {
                    let text = shown.get(..count?).unwrap_or_default();
                    stdout.write_all(text).await?;
                    stdout.flush().await?;
                }
                // What the host does not take waits in `last_words`; meanwhile stdin is not read.
                count = self.to_host.write(&last_words), if !last_words.is_empty() => {
                    last_words.drain(..count?);
                }
                count = stdin.read(&mut typed), if open && last_words.is_empty() => {
                    let count = count?;
                    open = count > 0;
                    let typed = typed.get(..count).unwrap_or_default();
                    if !self.raw {
                        last_words.extend(typed);
                    } else if !open || self.type_in(typed, &mut last_words).await? {
                        // What was typed before the order to end still goes to the host, which may not listen.
                        if let Ok(sent) = timeout(CLOSE, self.to_host.write_all(&last_words)).await {
                            sent?;
                        }
                        return Ok(Ended::ByUs);
                    }
                }
                Ok(()) = status.changed() => {
                    let Status { host_unavailable: now, breaks_unanswered, .. } = *status.borrow_and_update();
                    if breaks_unanswered > std::mem::replace(&mut breaks, breaks_unanswered) {
                        self.notice("the BMC did not acknowledge the break");
                    }
                    if now != waiting {
                        waiting = now;
                        self.notice(if now { "the host is off or in reset: what is typed waits" } else { "the host is there" });
                    }
                }
                () = sleep(SILENCE), if !open && last_words.is_empty() => return Ok(Ended::ByUs),
            }
        }
    }

    /// Puts what is for the host into `out`. Whether the console is to end.
    async fn type_in(&mut self, typed: &[u8], out: &mut Vec<u8>) -> std::io::Result<bool> {
        for &byte in typed {
            match self.escapes.next(byte) {
                Typed::Nothing => {}
                Typed::Bytes(bytes) => out.extend(bytes),
                Typed::End => return Ok(true),
                Typed::Help => self.notice(HELP),
                Typed::Break => {
                    self.to_host.write_all(out).await?;
                    out.clear();
                    self.control.send_break();
                    self.notice("break");
                }
            }
        }
        Ok(false)
    }

    /// In raw mode nothing returns the cursor to the left.
    fn notice(&self, text: &str) {
        if self.raw {
            eprint_raw(&format!("\r\n[{text}]\r\n"));
        } else {
            say(format!("[{text}]"));
        }
    }
}

fn eprint_raw(text: &str) {
    use std::io::Write as _;
    // Nobody is left to tell when stderr is closed.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// `~` at the start of a line begins an order to this program.
#[derive(Debug)]
struct Escapes {
    line_start: bool,
    tilde: bool,
}

impl Default for Escapes {
    fn default() -> Self {
        Self { line_start: true, tilde: false }
    }
}

#[derive(PartialEq, Eq, Debug)]
enum Typed {
    Nothing,
    Bytes(Vec<u8>),
    End,
    Break,
    Help,
}

impl Escapes {
    fn next(&mut self, byte: u8) -> Typed {
        if std::mem::take(&mut self.tilde) {
            // An order leaves the line as it was: not begun.
            self.line_start = matches!(byte, b'B' | b'?' | b'\r' | b'\n');
            return match byte {
                b'.' => Typed::End,
                b'B' => Typed::Break,
                b'?' => Typed::Help,
                b'~' => Typed::Bytes(vec![b'~']),
                other => Typed::Bytes(vec![b'~', other]),
            };
        }
        if self.line_start && byte == b'~' {
            self.tilde = true;
            return Typed::Nothing;
        }
        self.line_start = matches!(byte, b'\r' | b'\n');
        Typed::Bytes(vec![byte])
    }
}

fn refused(bmc: &Bmc, error: SolError) -> Failure {
    match error {
        SolError::Bmc(error) => bmc.failed(&error),
        SolError::InUse(_) => Failure::Conflict(bmc.says(format!(
            "{error}; it was left alone. Ask its owner, or end it with `raw 06 49 01 01 00 00 00 00` if no one needs it"
        ))),
        error => Failure::Other(bmc.says(format!("{error}; nothing was done"))),
    }
}

fn lost(bmc: &Bmc, error: &std::io::Error) -> Failure {
    match SolEnd::of(error) {
        Some(SolEnd::TakenOver { .. }) => Failure::Conflict(bmc.says(error)),
        Some(SolEnd::Deactivated) => {
            Failure::Other(bmc.says(format!("{error}: someone closed it, or the BMC is restarting")))
        }
        Some(_) => Failure::Other(bmc.says(error)),
        None => Failure::Other(format!("this terminal: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What goes to the host, with orders in brackets.
    fn typed(text: &str) -> String {
        let mut escapes = Escapes::default();
        let mut all = String::new();
        for byte in text.bytes() {
            match escapes.next(byte) {
                Typed::Nothing => {}
                Typed::Bytes(bytes) => all.push_str(std::str::from_utf8(&bytes).unwrap()),
                order => all.push_str(&format!("[{order:?}]")),
            }
        }
        all
    }

    #[test]
    fn orders_are_taken_at_the_start_of_a_line_only() {
        assert_eq!(typed("ls ~.\r~."), "ls ~.\r[End]");
        assert_eq!(typed("~B~?~~.\r~x~."), "[Break][Help]~.\r~x~.");
        assert_eq!(typed("~\r~."), "~\r[End]");
    }
}
