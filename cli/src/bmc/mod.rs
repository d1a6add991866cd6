//! `rackhand bmc …`: speaks to a BMC directly, without a control plane.
//!
//! The TLS key of the service is looked at before any password is sent, and the password goes to the holder of that
//! key only. The session is closed on every way out, Ctrl-C included. What is spoken over IPMI is in [`ipmi`].

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

use std::{sync::Arc, time::Duration};

use clap::{Args, Subcommand};
use rackhand_ipmi::session::{Privilege, SuitePolicy};
use rackhand_redfish::{
    Class, Client, Credentials, Endpoint, Error, FirstRejectionCloses, HttpsTransport, Options, TlsTrust,
    TransportError, Unobserved, probe_pin,
};
use tokio::time::{Instant, timeout};

use crate::{
    error::{EXIT_CODES, Failure, Result},
    output::{Output, say},
    secret::PasswordSource,
};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Vendor, model, firmware, power and health of any Redfish service, what could not be read, and what is weak in
    /// its IPMI; with an `ipmi://` address IPMI alone.
    #[command(after_help = EXIT_CODES)]
    Inspect(Inspect),
    /// The power of a host over IPMI, read or changed.
    #[command(after_help = EXIT_CODES)]
    Power(power::Power),
    /// Every sensor, read once over IPMI.
    #[command(after_help = EXIT_CODES)]
    Sensors(sensors::Sensors),
    /// The system event log, over IPMI.
    #[command(after_help = EXIT_CODES)]
    Sel(sel::Sel),
    /// Inventories of the hardware, over IPMI.
    #[command(after_help = EXIT_CODES)]
    Fru(fru::Fru),
    /// Accounts on the BMC, over IPMI.
    #[command(after_help = EXIT_CODES)]
    Users(fru::Users),
    /// One IPMI command, byte by byte.
    #[command(after_help = EXIT_CODES)]
    Raw(raw::Raw),
    /// The host's serial console on this terminal, over IPMI.
    ///
    /// At the start of a line `~.` ends it, `~B` sends a break, `~?` lists these and `~~` is one ~. Where stdin is no
    /// terminal it goes to the host as it is; after its end the console is closed when the host has been silent for
    /// two seconds.
    #[command(after_help = EXIT_CODES)]
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
    /// SHA-256 of the key the BMC must show, hex; without it the key it shows is taken and printed.
    #[arg(long, value_name = "HEX")]
    pin: Option<String>,
    /// Which system, where the service has several: its path or the last part of it.
    #[arg(long)]
    system: Option<String>,
    /// Seconds for one request.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
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
    let endpoint =
        Endpoint::parse(&args.url).map_err(|error| Failure::Usage(format!("{}: {error}", args.url)))?;
    let expected = args
        .pin
        .as_deref()
        .map(|pin| pin.parse::<rackhand_redfish::Fingerprint>())
        .transpose()
        .map_err(|_| Failure::Usage("--pin takes 64 hexadecimal digits".to_owned()))?;
    let password = args.password.read(&format!("Password of {}", args.user))?;
    let default_password = survey::default_of(&args.user, &password);
    let request = Duration::from_secs(args.timeout.clamp(1, 600));
    tokio::select! {
        biased;
        result = inspect(&endpoint, expected, Credentials::new(args.user.clone(), password), &args, request, default_password, out) => result,
        // Only reached before there is a session; `inspect` listens itself once there may be one.
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
    }
}

async fn inspect(
    endpoint: &Endpoint,
    expected: Option<rackhand_redfish::Fingerprint>,
    credentials: Credentials,
    args: &Inspect,
    request: Duration,
    default_password: Option<&'static str>,
    out: Output,
) -> Result<()> {
    let pin = match expected {
        Some(pin) => Some(pin),
        None if !endpoint.to_string().starts_with("https://") => None,
        None => {
            let pin = probe_pin(endpoint, Instant::now() + request)
                .await
                .map_err(|error| unreachable(endpoint, &error))?;
            say(format!("key of {endpoint}: {pin}\n(not verified; give --pin to insist on a key you know)"));
            Some(pin)
        }
    };
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
    let read = tokio::select! {
        read = report::read(&client) => read.map_err(|error| refused(endpoint, &error)),
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
    };
    match timeout(CLOSE, client.end_session()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => say(format!("the session could not be closed: {}", chain(&error))),
        Err(_) => say("the session could not be closed in time; the BMC ends it by itself"),
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
        other => Failure::Unreachable { url: endpoint.to_string(), detail: chain(other) },
    }
}

fn refused(endpoint: &Endpoint, error: &Error) -> Failure {
    let text = format!("{endpoint}: {}", chain(error));
    match error.class() {
        Class::Auth | Class::AuthWithheld { .. } => Failure::Refused(text),
        Class::Untrusted => Failure::Conflict(text),
        _ => Failure::Other(text),
    }
}
