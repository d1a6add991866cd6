//! `rackhand bmc …`: speaks to a BMC directly, without a control plane.
//!
//! The TLS key of the service is looked at before any password is sent, and the password goes to the holder of that
//! key only. The session is closed on every way out, Ctrl-C included.

mod report;

use std::{sync::Arc, time::Duration};

use clap::{Args, Subcommand};
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
    /// Vendor, model, firmware, power and health of any Redfish service, and what could not be read.
    #[command(after_help = EXIT_CODES)]
    Inspect(Inspect),
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// `https://host[:port]`; where the service has several systems, `https://host[:port]/redfish/v1/Systems/<id>`
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
}

/// Longest time spent on closing the session.
const CLOSE: Duration = Duration::from_secs(15);

pub async fn run(verb: Verb, out: Output) -> Result<()> {
    let Verb::Inspect(args) = verb;
    let endpoint =
        Endpoint::parse(&args.url).map_err(|error| Failure::Usage(format!("{}: {error}", args.url)))?;
    let expected = args
        .pin
        .as_deref()
        .map(|pin| pin.parse::<rackhand_redfish::Fingerprint>())
        .transpose()
        .map_err(|_| Failure::Usage("--pin takes 64 hexadecimal digits".to_owned()))?;
    let password = args.password.read(&format!("Password of {}", args.user))?;
    let request = Duration::from_secs(args.timeout.clamp(1, 600));
    tokio::select! {
        biased;
        result = inspect(&endpoint, expected, Credentials::new(args.user.clone(), password), &args, request, out) => result,
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
    let report =
        report::Report { spki_sha256: pin.map(|pin| pin.to_string()), url: endpoint.to_string(), ..read? };
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
