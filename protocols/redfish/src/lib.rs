//! An async Redfish client that survives real BMCs.
//!
//! What it is for: reading any vendor's service, and updating the firmware of Dell servers without ever doing
//! it twice. It knows the protocol and its field reports, nothing of jobs, databases or schedules.
//!
//! * [`Transport`] is the door to the network, [`HttpsTransport`] the real one with SPKI-pinned TLS.
//! * [`Client`] holds one session per BMC, finds everything by links, and reads what is readable: one broken
//!   subsystem is reported beside the others, never instead of them.
//! * [`Error::class`] says what to do about a failure, decided by the vendor's message id before the status.
//! * [`Client::follow`] says where an update stands, over task, job queues and Lifecycle log.
//!
//! A mutation takes a deadline by which its request has ended or been cut off; if it was cut off, the class is
//! [`Class::Ambiguous`] and the caller probes.
//!
//! **Architecture invariant:** no wall clock, no sockets outside [`HttpsTransport`] and [`probe_pin`], no secrets
//! in `Debug`, `Display` or errors, and no path beyond `/redfish/v1/` that no answer has linked to (but see
//! [`Client::follow`]).

mod auth;
mod boot;
mod classify;
mod client;
mod discovery;
mod document;
mod endpoint;
mod error;
mod firmware;
mod follow;
mod https;
mod jobs;
mod log;
mod model;
mod sensors;
mod session;
mod system;
mod tls;
mod transport;
mod update;
mod version;

pub use auth::{
    AuthAttempt, AuthGate, AuthMethod, AuthOutcome, Credentials, Exchange, FirstRejectionCloses, GateDenied,
    Observer, SessionHandle, Unobserved,
};
pub use boot::{Boot, BootChange};
pub use classify::{Class, Meaning, RULES, Rule, Verdict, classify, classify_message, up_to_date};
pub use client::{Client, Options};
pub use document::{Evidence, Message, short_id};
pub use endpoint::{Endpoint, EndpointError};
pub use error::{Error, Problem};
pub use https::{HttpsOptions, HttpsTransport, Shown, probe, probe_pin};
pub use jobs::never_had_package;
pub use model::{
    Accepted, ApplyTime, Capabilities, FirmwareComponent, FirmwareInventory, FirmwareRow, Health,
    HealthReport, Identity, Job, Jobs, LogRecord, LogRecords, PartHealth, PciIds, PowerState, Readiness,
    ResetKind, SimpleUpdateSupport, System, TaskProgress, TaskRef, TaskSource, TaskState, Unreadable,
    UpdateSemantics,
};
pub use sensors::{SensorReading, SensorReport};
pub use tls::{Fingerprint, PinMismatch, TlsFailure, TlsTrust, tls_failure};
pub use transport::{
    Body, DEFAULT_ANSWER_LIMIT, Fence, Mutates, NotSent, Repeated, Transport, TransportError,
};
pub use update::{MultipartUpdate, SimpleUpdate, update_semantics};
pub use version::{Generation, compare_firmware, compare_versions};
