//! Mutations in flight: which requests could change hardware, when, and whether they met.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, Method};

use super::bmc::Bmc;
use super::job::State;
use crate::counters::{MUTATIONS_KEPT, MutationKind, MutationRecord};

/// What a request would change, `None` when nothing on the hardware.
pub(crate) fn mutation_kind(method: &Method, path: &str) -> Option<MutationKind> {
    if !matches!(*method, Method::POST | Method::PATCH | Method::PUT | Method::DELETE) {
        return None;
    }
    let path = path.trim_end_matches('/');
    if path.contains("/Sessions") || path.ends_with("GetRemoteServicesAPIStatus") {
        return None;
    }
    Some(match (method, path) {
        (&Method::DELETE, path) if path.contains("/JID_") => MutationKind::DeleteJob,
        (_, path) if path.ends_with("DeleteJobQueue") => MutationKind::DeleteJob,
        (_, path) if path.ends_with("ComputerSystem.Reset") || path.ends_with("Chassis.Reset") => {
            MutationKind::Power
        }
        (_, path) if path.ends_with("Manager.Reset") => MutationKind::ManagerReset,
        (_, path) if path.ends_with("UpdateService.SimpleUpdate") => MutationKind::SimpleUpdate,
        (_, path) if path.ends_with("UpdateService.StartUpdate") => MutationKind::StartUpdate,
        (_, path) if path.ends_with("/MultipartUpload") => MutationKind::MultipartUpdate,
        (_, path) if path.ends_with("/UpdateService/FirmwareInventory") => MutationKind::Push,
        (_, path) if path.ends_with("LogService.ClearLog") => MutationKind::ClearLog,
        _ => MutationKind::Other,
    })
}

impl Bmc {
    pub(crate) fn begin_mutation(
        &mut self,
        now: Duration,
        real: Duration,
        client: IpAddr,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Option<u64> {
        let kind = mutation_kind(method, path)?;
        self.advance(now);
        if !self.is_reachable() || self.auth.is_blocked(client, self.now) {
            return None;
        }
        let session = self.session_name(headers);
        Some(self.start_mutation(kind, path.to_owned(), session, client, real))
    }

    /// Records a power command of IPMI, which is carried out and answered at once.
    pub(crate) fn record_ipmi_power(&mut self, session: &str, client: IpAddr, real: Duration) {
        let path = "ipmi:chassis-control".to_owned();
        let number = self.start_mutation(MutationKind::Power, path, session.to_owned(), client, real);
        self.mutation_handled(number, self.now, real);
        self.end_mutation(number, self.now, real, None);
    }

    fn start_mutation(
        &mut self,
        kind: MutationKind,
        path: String,
        session: String,
        client: IpAddr,
        real: Duration,
    ) -> u64 {
        let origin = format!("{session}@{client}");
        let in_flight = self.mutations.values().any(|mutation| mutation.ended.is_none());
        let in_flash = self
            .jobs
            .iter()
            .any(|job| job.state == State::Running && job.flash.is_some() && job.origin != origin);
        if in_flight || in_flash {
            self.counters.overlapping_mutations += 1;
        }
        *self.counters.mutations.entry(kind).or_default() += 1;
        self.counters.last_mutation = Some(self.now.as_secs_f64());
        let number = self.next_mutation;
        self.next_mutation += 1;
        if self.mutations.len() >= MUTATIONS_KEPT {
            self.mutations.pop_first();
        }
        self.mutations.insert(
            number,
            MutationRecord {
                bmc: self.spec.name.clone(),
                kind,
                path,
                client: client.to_string(),
                session,
                began: self.now.as_secs_f64(),
                ended: None,
                began_real: real.as_secs_f64(),
                ended_real: None,
                handled: None,
                handled_real: None,
                status: None,
            },
        );
        number
    }

    pub(crate) fn mutation_handled(&mut self, number: u64, now: Duration, real: Duration) {
        if let Some(mutation) = self.mutations.get_mut(&number) {
            mutation.handled = Some(now.as_secs_f64());
            mutation.handled_real = Some(real.as_secs_f64());
        }
    }

    pub(crate) fn end_mutation(&mut self, number: u64, now: Duration, real: Duration, status: Option<u16>) {
        if let Some(mutation) = self.mutations.get_mut(&number) {
            mutation.ended = Some(now.as_secs_f64());
            mutation.ended_real = Some(real.as_secs_f64());
            mutation.status = status;
        }
    }
}
