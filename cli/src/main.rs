//! `rackhand`: the command people type.
//!
//! It is a client of the control plane's API and nothing else, but for `rackhand bmc`, which speaks to a BMC
//! itself. Data goes to stdout, everything else to stderr; the exit code says how it ended (`error::exit`).

mod args;
mod audit;
mod auth;
mod bmc;
mod client;
mod config;
mod credentials;
mod doctor;
mod error;
mod events;
mod executors;
mod jobs;
mod output;
mod resolve;
mod runs;
mod secret;
mod servers;
mod sites;
mod users;
mod version;

use std::{
    cmp::Reverse,
    env,
    io::{self, Write as _},
    pin::pin,
    process::ExitCode,
    time::Duration,
};

use clap::{CommandFactory as _, Parser as _};
use rackhand_schema::has_password;
use tokio::time::timeout;

use crate::{
    args::{Cli, Command, Global},
    client::Client,
    config::Config,
    error::{Failure, Result, exit},
    output::say,
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout and ends 0; a closed pipe is nobody's fault.
            let text = error.to_string();
            let shown = without_passwords(&text);
            let _ = if shown == text { error.print() } else { write!(io::stderr(), "{shown}") };
            return if error.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(format!("error: cannot start: {error}"));
            return ExitCode::from(exit::FAILURE);
        }
    };
    let result = runtime.block_on(run(cli));
    // A thread may still wait for an answer to a question that Ctrl-C has made pointless.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(format!("error: {}", without_passwords(&failure.to_string())));
            if let Some(hint) = failure.hint() {
                say(format!("hint: {}", without_passwords(&hint)));
            }
            if let Some(page) = failure.page() {
                say(format!("more: {page}"));
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Of a longer argument only the whole is looked for.
const LONGEST_ARGUMENT: usize = 4096;

/// `text` without those arguments of this process in which an address may hold a password. What is said of an argument may
/// be a part of it: one of a list, or what stands behind an option.
fn without_passwords(text: &str) -> String {
    let arguments: Vec<_> =
        env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let mut secrets = Vec::new();
    for argument in &arguments {
        for part in [argument.as_str()].into_iter().chain(argument.split(',')) {
            let ends = part.char_indices().filter_map(|(at, _)| part.get(at..));
            let most = if part.len() > LONGEST_ARGUMENT { 1 } else { part.len() };
            secrets
                .extend(ends.take(most).take_while(|end| has_password(end)).filter(|end| text.contains(end)));
        }
    }
    secrets.sort_by_key(|secret| Reverse(secret.len()));
    secrets.iter().fold(text.to_owned(), |shown, secret| shown.replace(secret, "…"))
}

async fn run(cli: Cli) -> Result<()> {
    // A BMC session has to be closed even on Ctrl-C, so that noun listens for it itself.
    if let Command::Bmc(verb) = cli.command {
        return bmc::run(verb, cli.global.output()).await;
    }
    // From here on, and not only when it is first waited for.
    let mut interrupts = output::interrupts()?;
    let mut work = pin!(dispatch(cli.command, &cli.global));
    tokio::select! {
        biased;
        result = &mut work => result,
        // The command may have an end of its own for this signal: it is asked once more.
        _ = interrupts.recv() => timeout(Duration::ZERO, work).await.unwrap_or(Err(Failure::Interrupted)),
    }
}

async fn dispatch(command: Command, global: &Global) -> Result<()> {
    let out = global.output();
    let client = || Client::open(Config::locate()?, global);
    match command {
        Command::Login(login) => auth::login(login, global, out).await,
        Command::Logout => auth::logout(&client()?).await,
        Command::Whoami => auth::whoami(&client()?, out).await,
        Command::Version => version::run(client(), out).await,
        Command::Doctor => doctor::run(client(), out).await,
        Command::Sites(verb) => sites::run(verb, &client()?, out).await,
        Command::Executors(verb) => executors::run(verb, &client()?, out).await,
        Command::Credentials(verb) => credentials::run(verb, &client()?, out).await,
        Command::Servers(verb) => servers::run(verb, &client()?, out).await,
        Command::Jobs(verb) => jobs::run(verb, &client()?, out).await,
        Command::Runs(verb) => runs::run(verb, &client()?, out).await,
        Command::Users(verb) => users::run(verb, &client()?, out).await,
        Command::Password(args) => users::password(args, client()).await,
        Command::Events(verb) => events::run(verb, &client()?, out).await,
        Command::Audit(verb) => audit::run(verb, &client()?, out).await,
        Command::Bmc(verb) => bmc::run(verb, out).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "rackhand", &mut script);
            output::write_stdout(&String::from_utf8_lossy(&script))
        }
    }
}
