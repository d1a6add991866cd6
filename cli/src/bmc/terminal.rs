//! A terminal in raw mode, given back as it was on every way out.
//!
//! The guard restores it when it is dropped: at the end, on an error, on a signal (which ends the loop, not the
//! process) and while a panic unwinds. A panic's message comes before the unwinding, so that a hook restores as well.

use std::{
    io::{self, IsTerminal as _},
    os::fd::{AsFd as _, OwnedFd},
    panic,
    sync::{Mutex, PoisonError},
};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// The terminal and how it was, while it is raw.
static BEFORE: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// Raw mode of a terminal, for as long as this lives.
pub struct Raw(());

impl Raw {
    /// The terminal on stdin; `None`: stdin is none.
    pub fn enter() -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        Self::on(io::stdin().as_fd().try_clone_to_owned()?).map(Some)
    }

    fn on(terminal: OwnedFd) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            restore();
            hook(info);
        }));
        let other = terminal.try_clone()?;
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some((other, before));
        let guard = Self(());
        tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        Ok(guard)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((terminal, before)) = before {
        // Nobody is left to tell when the terminal is gone. What was typed but not read is thrown away: it was meant
        // for the host, not for the shell.
        let _ = tcsetattr(&terminal, OptionalActions::Flush, &before);
    }
}

#[cfg(test)]
mod tests {
    use rustix::{
        fs::{Mode, OFlags, open},
        pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
        termios::LocalModes,
    };

    use super::*;

    /// One test, for there is one terminal in a process.
    #[test]
    fn the_terminal_is_as_before_after_a_drop_and_before_a_panics_message() {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let terminal = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let settings = || format!("{:?}", tcgetattr(&terminal).unwrap());
        let echoes = || tcgetattr(&terminal).unwrap().local_modes.contains(LocalModes::ECHO);
        let before = settings();
        let raw = Raw::on(terminal.try_clone().unwrap()).unwrap();
        assert!(!echoes());
        drop(raw);
        assert_eq!(settings(), before);

        // Nothing unwinds here but the hook: the guard is not dropped.
        let other = terminal.try_clone().unwrap();
        let end = panic::catch_unwind(move || {
            std::mem::forget(Raw::on(other).unwrap());
            panic!("on purpose");
        });
        assert!(end.is_err());
        assert_eq!(settings(), before);
    }
}
