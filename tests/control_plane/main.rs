//! Everything that needs a real Postgres, in one binary: one cluster serves all of it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed step ends the test")]

mod audit;
mod authorization;
mod bounds;
mod capacity;
mod credentials;
mod event_cursor;
mod identity;
mod leases;
mod locks;
mod machine;
mod people_decide;
mod plans;
mod report;
mod servers;
mod sessions;
mod site_key;
mod streams;
mod texts;
mod upgrade;
mod upkeep;
mod versions;
mod visibility;
