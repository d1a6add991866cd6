//! The executor: the service inside a site that leases runs from the control plane and acts on BMCs.
//!
//! Code map, from the outside in: [`service`] leases and drains; [`handlers`] are the job kinds, sequences of
//! activities that [`engine`] carries out (probe, decide, announce, act); [`broker`] owns the way to each BMC;
//! [`lease`] issues the permits without which nothing is changed; [`journal`] and [`outbox`] remember and report;
//! [`credential`], [`site_key`] and [`identity`] hold the secrets; [`policy`] is what the machine's owner allows.
//! [`bmc`], [`cloud`], [`clock`] and [`package`] are the seams to the world: production implements them over
//! Redfish, HTTPS, `CLOCK_BOOTTIME` and HTTP, simulations over models and paused time.
//!
//! **Architecture invariant:** nothing outside [`broker`] calls a [`bmc::Bmc`]; nothing mutates a device without
//! a [`lease::MutationPermit`], and only an acknowledged intent makes one. No wall clock decides anything. No
//! port is opened towards the control plane.

pub mod bmc;
pub mod broker;
mod cause;
pub mod clock;
pub mod cloud;
pub mod config;
pub mod credential;
pub mod engine;
pub mod enrol;
pub mod handlers;
pub mod identity;
pub mod journal;
pub mod lease;
pub mod outbox;
pub mod package;
pub mod pins;
pub mod policy;
pub mod service;
pub mod sessions;
pub mod site_key;
pub mod text;
pub mod timing;
