//! Secrets come from stdin, a file or a prompt: never from the command line or the environment, where other
//! processes can read them.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::PathBuf,
};

use clap::Args;
use zeroize::Zeroizing;

use crate::error::{Failure, Result};

#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct PasswordSource {
    /// Read the password from the first line of stdin.
    #[arg(long)]
    password_stdin: bool,
    /// Read the password from the first line of a file.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl PasswordSource {
    /// The password, from where it was said to be, else from a prompt if there is a terminal.
    pub fn read(&self, prompt: &str) -> Result<Zeroizing<String>> {
        let text = if let Some(path) = &self.password_file {
            Zeroizing::new(
                std::fs::read_to_string(path)
                    .map_err(|source| Failure::file(format!("cannot read {}", path.display()), source))?,
            )
        } else if self.password_stdin {
            let mut line = Zeroizing::new(String::new());
            io::stdin()
                .lock()
                .read_line(&mut line)
                .map_err(|source| Failure::file("cannot read the password from stdin", source))?;
            line
        } else if io::stdin().is_terminal() && io::stderr().is_terminal() {
            let mut stderr = io::stderr().lock();
            write!(stderr, "{prompt}: ")
                .and_then(|()| stderr.flush())
                .map_err(|source| Failure::file("cannot ask for the password", source))?;
            Zeroizing::new(
                rpassword::read_password()
                    .map_err(|source| Failure::file("cannot read the password", source))?,
            )
        } else {
            return Err(Failure::Usage(
                "no terminal to ask for the password; use --password-stdin or --password-file".to_owned(),
            ));
        };
        let first = text.lines().next().unwrap_or_default();
        if first.is_empty() {
            return Err(Failure::Usage("the password is empty".to_owned()));
        }
        Ok(Zeroizing::new(first.to_owned()))
    }
}

/// Asks a question on the terminal; `None` when there is none to ask on.
pub fn ask(question: &str) -> Result<Option<String>> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Ok(None);
    }
    let mut stderr = io::stderr().lock();
    let mut answer = String::new();
    write!(stderr, "{question} ")
        .and_then(|()| stderr.flush())
        .and_then(|()| io::stdin().lock().read_line(&mut answer))
        .map_err(|source| Failure::file("cannot ask", source))?;
    Ok(Some(answer.trim().to_owned()))
}
