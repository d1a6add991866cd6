//! The control plane: one axum Router over Postgres, free of hosts.
//!
//! **Invariant:** nothing here has a clock, socket, environment, thread or file. A host passes
//! `http::Request`s in, with an `Arc<`[`Host`]`>` and the peer's [`host::ClientAddress`] as extensions, and
//! gets `http::Response`s out; the same Router answers alike natively, on Workers and on Spin.
//!
//! One module for each resource holds routes, handlers and `.sql` files side by side. A handler parses,
//! validates, runs one statement (two at most) and answers; it writes intent and never touches hardware.
//! What may be seen and done is decided in the database, from the [`host::Scope`] of the request. Failures
//! are problem+json with a code ([`problem`]): 4xx the caller's, 503 known trouble, 500 our bug.

mod audit;
pub mod auth;
mod bodies;
mod credentials;
pub mod database_url;
mod events;
mod executor_protocol;
mod executors;
pub mod forwarded;
pub mod host;
pub mod jobs;
mod meta;
#[cfg(not(target_arch = "wasm32"))]
pub mod openapi;
mod page;
pub mod problem;
pub mod reading;
pub mod request;
mod routing;
mod runs;
mod servers;
mod sessions;
mod sites;
pub mod ui;
pub mod upkeep;
mod users;

use axum::{Router, middleware::from_fn};
use rackhand_schema::ErrorCode;

#[cfg(not(target_arch = "wasm32"))]
pub use crate::openapi::document;
pub use crate::{executor_protocol::fingerprint, host::Host};
use crate::{problem::Refusal, routing::OpenApiRouter};

/// Declares a [`host::Statement`] from the `.sql` file beside the module: name, folder, file.
macro_rules! statement {
    ($name:ident, $folder:literal, $file:literal) => {
        static $name: $crate::host::Statement = $crate::host::Statement {
            name: concat!($folder, "/", $file),
            sql: include_str!(concat!($file, ".sql")),
        };
    };
}
pub(crate) use statement;

/// The Router with every operation. Layers that a host adds go around it.
pub fn router() -> Router {
    Router::from(operations(OpenApiRouter::new()))
        .fallback(async || Refusal::new(ErrorCode::NotFound, "There is nothing at this address."))
        .method_not_allowed_fallback(async || {
            Refusal::new(ErrorCode::MethodNotAllowed, "This address does not support that method.")
        })
        .layer(from_fn(request::frame))
}

fn operations(router: OpenApiRouter) -> OpenApiRouter {
    router
        .merge(auth::routes())
        .merge(sessions::routes())
        .merge(users::routes())
        .merge(sites::routes())
        .merge(executors::routes())
        .merge(credentials::routes())
        .merge(servers::routes())
        .merge(jobs::routes())
        .merge(runs::routes())
        .merge(events::routes())
        .merge(audit::routes())
        .merge(executor_protocol::routes())
        .merge(meta::routes())
        .merge(upkeep::routes())
}

#[cfg(test)]
mod tests;
