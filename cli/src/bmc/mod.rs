//! `rackhand bmc …`: speaks to a BMC directly, without a control plane.
//!
//! The TLS key of the service is looked at before any password is sent, and the password goes to the holder of that
//! key only: one that was given, or that a person at the terminal has agreed to. The session is closed on every way
//! out, Ctrl-C included. What is spoken over IPMI is in [`ipmi`].

mod console;
mod fru;
mod ipmi;
mod memory;
mod power;
mod raw;
mod report;
mod sel;
mod sensors;
mod survey;
mod terminal;

use std::{
    io::{BufRead, Write},
    sync::Arc,
    time::Duration,
};

use clap::{Args, Subcommand};
use rackhand_ipmi::session::{Privilege, SuitePolicy};
use rackhand_redfish::{
    Class, Client, Credentials, Endpoint, Error, Fingerprint, FirstRejectionCloses, HttpsTransport, Options,
    Problem, Shown, TlsTrust, TransportError, Unobserved, probe,
};
use tokio::time::{Instant, timeout};

use crate::{
    error::{Failure, Result, help},
    output::{Output, say},
    secret::{Dialogue, PasswordSource},
};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Vendor, model, firmware, power and health of any Redfish service, what could not be read, and what is weak in
    /// its IPMI; with an `ipmi://` address IPMI alone.
    #[command(after_help = help!("bmc inspect https://10.0.0.1 --user root", "bmc inspect ipmi://10.0.0.1 --user root"))]
    Inspect(Inspect),
    /// The power of a host over IPMI, read or changed.
    #[command(after_help = help!("bmc power ipmi://10.0.0.1 --user root", "bmc power ipmi://10.0.0.1 cycle --user root"))]
    Power(power::Power),
    /// Every sensor, read once over IPMI.
    #[command(after_help = help!("bmc sensors ipmi://10.0.0.1 --user root -o wide"))]
    Sensors(sensors::Sensors),
    /// The system event log, over IPMI.
    #[command(after_help = help!("bmc sel ipmi://10.0.0.1 follow --user root"))]
    Sel(sel::Sel),
    /// Inventories of the hardware, over IPMI.
    #[command(after_help = help!("bmc fru ipmi://10.0.0.1 --user root --json"))]
    Fru(fru::Fru),
    /// Accounts on the BMC, over IPMI.
    #[command(after_help = help!("bmc users ipmi://10.0.0.1 --user root"))]
    Users(fru::Users),
    /// One IPMI command, byte by byte.
    #[command(after_help = help!("bmc raw ipmi://10.0.0.1 06 01 --user root"))]
    Raw(raw::Raw),
    /// The host's serial console on this terminal, over IPMI.
    ///
    /// At the start of a line `~.` ends it, `~B` sends a break, `~?` lists these and `~~` is one ~. Where stdin is no
    /// terminal it goes to the host as it is; after its end the console is closed when the host has been silent for
    /// two seconds.
    #[command(after_help = help!("bmc console ipmi://10.0.0.1 --user root"))]
    Console(console::Console),
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// `https://host[:port]`, or `ipmi://host[:port]`; where a Redfish service has several systems,
    /// `https://host[:port]/redfish/v1/Systems/<id>`
    url: String,
    /// Account on the BMC.
    #[arg(long)]
    user: String,
    #[command(flatten)]
    password: PasswordSource,
    /// TLS key that the BMC must show, as its SHA-256 in 64 hex digits. Without it the key is shown and you are asked;
    /// where there is no one to ask, nothing is sent.
    #[arg(long, value_name = "HEX")]
    pin: Option<String>,
    /// Which system, where the service has several: its path or the last part of it.
    #[arg(long)]
    system: Option<String>,
    /// Seconds for one request.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// Seconds for all that is read of Redfish; what was not read by then is listed as unreadable.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    within: u64,
    /// Do not look for IPMI on UDP port 623 of the same host.
    #[arg(long)]
    no_ipmi: bool,
}

/// Longest time spent on closing the session.
const CLOSE: Duration = Duration::from_secs(15);

pub async fn run(verb: Verb, out: Output) -> Result<()> {
    match verb {
        Verb::Inspect(args) if args.url.starts_with("ipmi://") => inspect_ipmi(args, out).await,
        Verb::Inspect(args) => inspect_redfish(args, out).await,
        Verb::Power(args) => power::run(args, out).await,
        Verb::Sensors(args) => sensors::run(args, out).await,
        Verb::Sel(args) => sel::run(args, out).await,
        Verb::Fru(args) => fru::run(args, out).await,
        Verb::Users(args) => fru::users(args, out).await,
        Verb::Raw(args) => raw::run(args, out).await,
        Verb::Console(args) => console::run(args).await,
    }
}

async fn inspect_ipmi(args: Inspect, out: Output) -> Result<()> {
    let place = ipmi::Place::parse(&args.url)?;
    let password = args.password.read(&format!("Password of {}", args.user))?;
    let login = ipmi::Login {
        user: args.user,
        password,
        privilege: Privilege::Administrator,
        suites: SuitePolicy::Standard,
    };
    let found = survey::inspect(place, login).await?;
    out.one(&found, &found.url, || found.render())
}

async fn inspect_redfish(args: Inspect, out: Output) -> Result<()> {
    let endpoint = Endpoint::parse(&args.url).map_err(|error| Failure::address(&args.url, error))?;
    let expected = args
        .pin
        .as_deref()
        .map(|pin| pin.parse::<Fingerprint>())
        .transpose()
        .map_err(|_| Failure::Usage("--pin takes 64 hexadecimal digits".to_owned()))?;
    let request = Duration::from_secs(args.timeout.clamp(1, 600));
    let pin = match expected {
        Some(pin) => Some(pin),
        // Plain HTTP, which is spoken on loopback only.
        None if !endpoint.to_string().starts_with("https://") => None,
        None => Some(agreed_key(&endpoint, &args.user, request).await?),
    };
    let password = args.password.read(&format!("Password of {}", args.user))?;
    let default_password = survey::default_of(&args.user, &password);
    let credentials = Credentials::new(args.user.clone(), password);
    tokio::select! {
        biased;
        result = inspect(&endpoint, pin, credentials, &args, request, default_password, out) => result,
        // Only reached before there is a session; `inspect` listens itself once there may be one.
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
    }
}

/// The key that the service shows, once someone at the terminal has agreed to it.
async fn agreed_key(endpoint: &Endpoint, user: &str, request: Duration) -> Result<Fingerprint> {
    let shown = tokio::select! {
        shown = probe(endpoint, Instant::now() + request) => shown.map_err(|error| unreachable(endpoint, &error))?,
        _ = tokio::signal::ctrl_c() => return Err(Failure::Interrupted),
    };
    say(format!("{endpoint}\n  TLS key      {}\n  certificate  {}", shown.key, shown.certificate.in_pairs()));
    agree(&mut Dialogue::at_the_terminal(), endpoint, user, shown)
}

fn agree(
    dialogue: &mut Dialogue<impl BufRead, impl Write>,
    endpoint: &Endpoint,
    user: &str,
    Shown { key, certificate }: Shown,
) -> Result<Fingerprint> {
    let certificate = certificate.in_pairs();
    let refused = |why: &str| {
        Failure::Usage(format!(
            "{endpoint}: {why}. The password was not sent. It shows the certificate {certificate} (SHA-256); if the \
             BMC's own page or console shows the same, run this again with --pin {key}"
        ))
    };
    let question = format!(
        "Does the BMC's own page or console show this certificate (SHA-256), and may the password of {user} go to its \
         holder? [y/N]"
    );
    match dialogue.ask(&question)? {
        Some(answer) if matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes") => Ok(key),
        Some(_) => Err(refused("you did not agree to its key")),
        None => Err(refused("its key is not known, and there is no terminal to ask")),
    }
}

async fn inspect(
    endpoint: &Endpoint,
    pin: Option<Fingerprint>,
    credentials: Credentials,
    args: &Inspect,
    request: Duration,
    default_password: Option<&'static str>,
    out: Output,
) -> Result<()> {
    let trust = pin.map_or(TlsTrust::FirstUse, |pin| TlsTrust::Pinned(pin.0));
    let options = Options { read_timeout: request, system: args.system.clone(), ..Options::default() };
    let client = Client::with_options(
        Arc::new(HttpsTransport::new(trust)),
        endpoint.clone(),
        credentials,
        Arc::new(FirstRejectionCloses::default()),
        Arc::new(Unobserved),
        options,
    );
    let within = args.within.clamp(1, 86_400);
    let end = Instant::now() + Duration::from_secs(within);
    let nothing = || {
        Failure::TimedOut(format!(
            "{endpoint}: nothing was read within {within} s, not even vendor and model"
        ))
    };
    let read = tokio::select! {
        read = report::read(&client, end) => {
            read.map_err(|error| refused(endpoint, &error)).and_then(|report| report.ok_or_else(nothing))
        }
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
    };
    match timeout(CLOSE, client.end_session()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => say(format!("the session could not be closed: {}", chain(&error))),
        Err(_) => say("the session could not be closed in time; the BMC ends it automatically"),
    }
    let mut report =
        report::Report { spki_sha256: pin.map(|pin| pin.to_string()), url: endpoint.to_string(), ..read? };
    if let Some(place) = ipmi::Place::beside(&args.url).filter(|_| !args.no_ipmi) {
        match survey::probe(&place).await {
            Ok(found) => report.ipmi = found,
            Err(failure) => say(format!("IPMI was not looked at: {failure}")),
        }
    }
    report.default_password = default_password;
    out.one(&report, report.service_tag.as_deref().unwrap_or(&report.url), || report.render(out))
}

/// An error with everything that caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn unreachable(endpoint: &Endpoint, error: &TransportError) -> Failure {
    match error {
        TransportError::NotSent { why: rackhand_redfish::NotSent::ConnectTimeout } => {
            Failure::NoAnswer(endpoint.to_string())
        }
        TransportError::NotSent { why: rackhand_redfish::NotSent::Refused } => {
            Failure::NotListening(endpoint.to_string())
        }
        other => Failure::Unreachable { url: endpoint.to_string(), detail: chain(other) },
    }
}

fn refused(endpoint: &Endpoint, error: &Error) -> Failure {
    let text = format!("{endpoint}: {}", chain(error));
    match error.class() {
        Class::Auth => Failure::Refused(format!(
            "{text}; check user and password. They were sent once: some BMCs lock an account after a few attempts"
        )),
        Class::Forbidden | Class::AuthWithheld { .. } => Failure::Refused(text),
        Class::Untrusted => Failure::Conflict(format!(
            "{}. The password was not sent to it. If no one has replaced the certificate of this BMC, someone may be \
             intercepting the connection; else run this again without --pin to see and compare the new key",
            match error.problem() {
                Problem::Transport(TransportError::PinMismatch(keys)) => {
                    format!("{endpoint} shows another TLS key: {keys}")
                }
                _ => text,
            }
        )),
        _ => Failure::Other(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::tests::{asked, typing};

    #[test]
    fn a_key_is_agreed_to_by_a_person_who_says_yes() {
        let endpoint = Endpoint::parse("https://10.0.0.1").unwrap();
        let (key, certificate) = (Fingerprint([7; 32]), Fingerprint([0xab; 32]));
        for (attended, typed, agreed) in [
            (true, "y\n", true),
            (true, " YES \r\n", true),
            (true, "n\n", false),
            (true, "no\ny\n", false),
            (true, "yesterday\n", false),
            (true, "\n", false),
            (true, "", false),
            (false, "y\n", false),
        ] {
            let mut dialogue = typing(attended, typed);
            let answer = agree(&mut dialogue, &endpoint, "root", Shown { key, certificate });
            match &answer {
                Ok(held) => assert!(agreed && *held == key, "{typed:?}"),
                Err(failure) => {
                    let said = failure.to_string();
                    assert!(!agreed && said.contains("The password was not sent"), "{typed:?} {said}");
                    assert!(said.contains(&format!("--pin {key}")), "{typed:?} {said}");
                    assert!(said.contains("the certificate AB:AB:"), "{typed:?} {said}");
                }
            }
            let (question, unread) = asked(dialogue);
            assert_eq!(question.contains("password of root"), attended, "{typed:?} {question}");
            // Where nobody is asked stdin holds the password.
            assert_eq!(unread == typed, !attended || typed.is_empty(), "{typed:?} {unread:?}");
        }
    }
}
