//! A terminal in raw mode, given back as it was on every way out.
//!
//! The guard restores it when it is dropped: at the end, on an error, on a signal (which ends the loop, not the
//! process) and while a panic unwinds. A panic's message comes before the unwinding, so that a hook restores as well.

use std::{
    io::{self, IsTerminal as _},
    panic,
    sync::{Mutex, PoisonError},
};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// How the terminal was, while it is raw.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Raw mode of the terminal on stdin, for as long as this lives.
pub struct Raw(());

impl Raw {
    /// `None`: stdin is no terminal.
    pub fn enter() -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            restore();
            hook(info);
        }));
        let guard = Self(());
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Some(guard))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // Nobody is left to tell when the terminal is gone. What was typed but not read is thrown away: it was meant
        // for the host, not for the shell.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &before);
    }
}
