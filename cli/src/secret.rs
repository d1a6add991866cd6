//! Secrets come from stdin, a file or a prompt: never from the command line or the environment, where other
//! processes can read them.

use std::{
    io::{self, BufRead, IsTerminal as _, Write},
    path::PathBuf,
};

use clap::Args;
use zeroize::Zeroizing;

use crate::{
    error::{Failure, Result},
    output::printable,
};

#[derive(Debug, Default, Args)]
#[group(multiple = false)]
pub struct PasswordSource {
    /// Read the password from the first line of stdin; on a terminal, from a prompt.
    #[arg(long)]
    password_stdin: bool,
    /// Read the password from the first line of a file.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// Whether there is a terminal to ask on.
pub fn on_a_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

impl PasswordSource {
    /// From a prompt, or from the next line of stdin where there is no terminal.
    pub fn line() -> Self {
        Self { password_stdin: !on_a_terminal(), password_file: None }
    }

    /// The password, from where it was said to be, else from a prompt if there is a terminal.
    pub fn read(&self, prompt: &str) -> Result<Zeroizing<String>> {
        let text = if let Some(path) = &self.password_file {
            Zeroizing::new(
                std::fs::read_to_string(path)
                    .map_err(|source| Failure::input("--password-file", path, source))?,
            )
        } else if self.password_stdin && !io::stdin().is_terminal() {
            let mut line = Zeroizing::new(String::new());
            io::stdin()
                .lock()
                .read_line(&mut line)
                .map_err(|source| Failure::file("cannot read the password from stdin", source))?;
            line
        } else if self.password_stdin || on_a_terminal() {
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

/// Where questions are asked and answered.
pub struct Dialogue<R, W> {
    answers: R,
    questions: W,
    /// Whether someone is there.
    attended: bool,
}

impl Dialogue<io::StdinLock<'static>, io::StderrLock<'static>> {
    pub fn at_the_terminal() -> Self {
        Self { answers: io::stdin().lock(), questions: io::stderr().lock(), attended: on_a_terminal() }
    }
}

impl<R: BufRead, W: Write> Dialogue<R, W> {
    /// The answer without spaces around it, empty at the end of input; `None` when there is no one to ask.
    pub fn ask(&mut self, question: &str) -> Result<Option<String>> {
        if !self.attended {
            return Ok(None);
        }
        let mut answer = String::new();
        write!(self.questions, "{} ", printable(question))
            .and_then(|()| self.questions.flush())
            .and_then(|()| self.answers.read_line(&mut answer))
            .map_err(|source| Failure::file("cannot ask", source))?;
        Ok(Some(answer.trim().to_owned()))
    }
}

/// Asks a question on the terminal; `None` when there is none to ask on.
pub fn ask(question: &str) -> Result<Option<String>> {
    Dialogue::at_the_terminal().ask(question)
}

/// A step that cannot be taken back: asks on the terminal, or insists on `--yes`.
pub fn confirm(yes: bool, question: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    match ask(&format!("{question} Type `yes`:"))?.as_deref() {
        Some("yes") => Ok(()),
        Some(_) => Err(Failure::Usage("not confirmed; nothing was done".to_owned())),
        None => Err(Failure::Usage(format!(
            "{question} No terminal to ask on; give --yes to do it. Nothing was done"
        ))),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Someone who types `answers`; unattended, `answers` wait on stdin all the same.
    pub fn typing(attended: bool, answers: &str) -> Dialogue<&[u8], Vec<u8>> {
        Dialogue { answers: answers.as_bytes(), questions: Vec::new(), attended }
    }

    /// What was asked, and what of the answers was not read.
    pub fn asked(dialogue: Dialogue<&[u8], Vec<u8>>) -> (String, String) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (text(&dialogue.questions), text(dialogue.answers))
    }

    /// What is asked about may be named by a control plane that was taken over.
    #[test]
    fn a_question_is_one_line_that_steers_no_terminal() {
        let mut dialogue = typing(true, "yes\n");
        dialogue.ask("revoke web\r\n\u{1b}[2J\u{9b}31m\u{202e}?").unwrap();
        assert_eq!(asked(dialogue).0, "revoke web   [2J 31m ? ");
    }
}
