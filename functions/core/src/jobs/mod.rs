//! Jobs: an intent is planned here and written down; runs are moved by executors alone.
//!
//! Creating one is two statements: read what a plan is made from, then store job and plan. What changes
//! between them shows when the run starts: the executor compares prior versions with the plan.

pub mod plan;

use garde::Validate;
use http::{HeaderMap, StatusCode};
use rackhand_schema::{
    ErrorCode, Page, digest,
    id::{JobId, ServerId, SiteId},
    job::{Approval, Job, JobPolicy, JobSpec, JobState, NewJob, Reason},
    run::Run,
};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use crate::{
    page::{DEFAULT_LIMIT, Paging, plain_cursor},
    problem::{Answer, Refusal},
    request::{Body, Call, Json, Operator, Params, Segment, Viewer},
    routing::{OpenApiRouter, routes},
    statement,
};

statement!(CONTEXT, "jobs", "context");
statement!(CREATE, "jobs", "create");
statement!(LIST, "jobs", "list");
statement!(READ, "jobs", "read");
statement!(APPROVE, "jobs", "approve");
statement!(CONTROL, "jobs", "control");
statement!(RETRY_CONTEXT, "jobs", "retry_context");
statement!(RUNS, "jobs", "runs");

pub fn routes() -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(read))
        .routes(routes!(approve))
        .routes(routes!(cancel))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(retry_failed))
        .routes(routes!(runs))
}

/// Create a job. One that changes servers waits, planned, for approval of its plan; one that only reads
/// starts at once. With an `Idempotency-Key`, sending it again gives the job made first.
#[utoipa::path(post, path = "/v1/jobs", tag = "jobs", request_body = NewJob,
    params(("Idempotency-Key" = Option<String>, Header)), responses((status = 201, body = Job)),
    extensions(("x-rackhand-role" = json!("operator")),
        ("x-rackhand-errors" = json!(["plan-empty", "idempotency-mismatch"]))))]
async fn create(
    Operator(call): Operator,
    headers: HeaderMap,
    Body(job): Body<NewJob>,
) -> Answer<(StatusCode, Json)> {
    let once = idempotency(&headers, &job)?;
    let args = json!({"site_id": job.site_id, "targets": job.targets, "idempotency": once});
    let answer = match call.run(&CONTEXT, &args).await? {
        Known::Replayed { replayed } => Json::of(&replayed)?,
        Known::New(context) => store(&call, job, &context, once).await?,
    };
    Ok((StatusCode::CREATED, answer))
}

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    #[garde(skip)]
    site: Option<SiteId>,
    #[garde(skip)]
    #[param(inline)]
    state: Option<JobState>,
    /// `next` of the page before.
    #[garde(length(bytes, max = 2000))]
    cursor: Option<String>,
    /// 1–500; 50 if absent.
    #[garde(range(min = 1, max = 500))]
    limit: Option<u32>,
}

/// Jobs, newest first. Their plans come without targets here.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", params(Filter),
    responses((status = 200, body = Page<Job>)), extensions(("x-rackhand-role" = json!("viewer"))))]
async fn list(Viewer(call): Viewer, Params(filter): Params<Filter>) -> Answer<Json> {
    let cursor = plain_cursor::<JobId>(filter.cursor.as_deref())?;
    let limit = filter.limit.unwrap_or(DEFAULT_LIMIT);
    let args = json!({"site": filter.site, "state": filter.state, "cursor": cursor, "limit": limit});
    call.json(&LIST, &args).await
}

/// A job with its plan.
#[utoipa::path(get, path = "/v1/jobs/{id}", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = Job)), extensions(("x-rackhand-role" = json!("viewer"))))]
async fn read(Viewer(call): Viewer, Segment(id): Segment<JobId>) -> Answer<Json> {
    call.json(&READ, &json!({"id": id})).await
}

/// Approve the plan that was read, by its digest; its runs start.
#[utoipa::path(post, path = "/v1/jobs/{id}/approve", tag = "jobs", params(("id" = JobId, Path)),
    request_body = Approval, responses((status = 200, body = Job)),
    extensions(("x-rackhand-role" = json!("operator")),
        ("x-rackhand-errors" = json!(["plan-stale", "plan-empty", "job-state", "second-person-required"]))))]
async fn approve(
    Operator(call): Operator,
    Segment(id): Segment<JobId>,
    Body(approval): Body<Approval>,
) -> Answer<Json> {
    call.json(&APPROVE, &json!({"id": id, "digest": approval.digest})).await
}

/// Cancel: what has not started ends now, what runs ends at its next safe point.
#[utoipa::path(post, path = "/v1/jobs/{id}/cancel", tag = "jobs", params(("id" = JobId, Path)),
    request_body = Reason, responses((status = 200, body = Job)),
    extensions(("x-rackhand-role" = json!("operator")), ("x-rackhand-errors" = json!(["job-state"]))))]
async fn cancel(
    Operator(call): Operator,
    Segment(id): Segment<JobId>,
    Body(reason): Body<Reason>,
) -> Answer<Json> {
    control(&call, id, "cancel", &reason).await
}

/// Start no further runs; those under way go on.
#[utoipa::path(post, path = "/v1/jobs/{id}/pause", tag = "jobs", params(("id" = JobId, Path)),
    request_body = Reason, responses((status = 200, body = Job)),
    extensions(("x-rackhand-role" = json!("operator")), ("x-rackhand-errors" = json!(["job-state"]))))]
async fn pause(
    Operator(call): Operator,
    Segment(id): Segment<JobId>,
    Body(reason): Body<Reason>,
) -> Answer<Json> {
    control(&call, id, "pause", &reason).await
}

/// Go on with a paused job.
#[utoipa::path(post, path = "/v1/jobs/{id}/resume", tag = "jobs", params(("id" = JobId, Path)),
    request_body = Reason, responses((status = 200, body = Job)),
    extensions(("x-rackhand-role" = json!("operator")), ("x-rackhand-errors" = json!(["job-state"]))))]
async fn resume(
    Operator(call): Operator,
    Segment(id): Segment<JobId>,
    Body(reason): Body<Reason>,
) -> Answer<Json> {
    control(&call, id, "resume", &reason).await
}

/// Make a new job, planned anew, for the targets of an ended one that failed, were cancelled or are unknown.
#[utoipa::path(post, path = "/v1/jobs/{id}/retry-failed", tag = "jobs",
    params(("id" = JobId, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body = Reason, responses((status = 201, body = Job)),
    extensions(("x-rackhand-role" = json!("operator")),
        ("x-rackhand-errors" = json!(["job-state", "plan-empty", "idempotency-mismatch"]))))]
async fn retry_failed(
    Operator(call): Operator,
    Segment(id): Segment<JobId>,
    headers: HeaderMap,
    Body(reason): Body<Reason>,
) -> Answer<(StatusCode, Json)> {
    #[derive(Deserialize)]
    struct Former {
        site_id: SiteId,
        #[serde(flatten)]
        spec: JobSpec,
        policy: JobPolicy,
        targets: Vec<ServerId>,
        context: plan::Context,
    }
    let once = idempotency(&headers, &json!({"retry": id, "reason": reason.reason}))?;
    let former: Former = match call.run(&RETRY_CONTEXT, &json!({"id": id, "idempotency": once})).await? {
        Known::Replayed { replayed } => return Ok((StatusCode::CREATED, Json::of(&replayed)?)),
        Known::New(former) => former,
    };
    let job = NewJob {
        site_id: former.site_id,
        spec: former.spec,
        targets: former.targets,
        policy: former.policy,
        reason: reason.reason,
    };
    Ok((StatusCode::CREATED, store(&call, job, &former.context, once).await?))
}

/// The runs of a job, in the order of its plan.
#[utoipa::path(get, path = "/v1/jobs/{id}/runs", tag = "jobs", params(("id" = JobId, Path), Paging),
    responses((status = 200, body = Page<Run>)), extensions(("x-rackhand-role" = json!("viewer"))))]
async fn runs(
    Viewer(call): Viewer,
    Segment(id): Segment<JobId>,
    Params(paging): Params<Paging>,
) -> Answer<Json> {
    let cursor = plain_cursor::<u32>(paging.cursor.as_deref())?;
    let limit = paging.limit.unwrap_or(DEFAULT_LIMIT);
    call.json(&RUNS, &json!({"id": id, "cursor": cursor, "limit": limit})).await
}

/// What a request that may come twice finds: the job that its first time made, or what to plan from.
#[derive(Deserialize)]
#[serde(untagged)]
enum Known<T> {
    Replayed { replayed: Value },
    New(T),
}

async fn control(call: &Call, id: JobId, action: &str, reason: &Reason) -> Answer<Json> {
    call.json(&CONTROL, &json!({"id": id, "action": action, "reason": reason.reason})).await
}

/// Plans the job over `context` and stores both.
async fn store(call: &Call, job: NewJob, context: &plan::Context, once: Option<Value>) -> Answer<Json> {
    let plan = plan::plan(&job, context).map_err(|refused| match refused {
        plan::PlanError::Missing(_) => Refusal::invalid("targets", refused.to_string()),
        plan::PlanError::Twice(_) => Refusal::invalid("targets", refused.to_string()),
        plan::PlanError::Digest(error) => error.into(),
    })?;
    let mut args = serde_json::to_value(&job.spec)?;
    if let Value::Object(args) = &mut args {
        args.insert("site_id".to_owned(), json!(job.site_id));
        args.insert("mutating".to_owned(), json!(job.spec.mutates()));
        args.insert("policy".to_owned(), json!(job.policy));
        args.insert("reason".to_owned(), json!(job.reason));
        args.insert("plan".to_owned(), json!(plan));
        args.insert("idempotency".to_owned(), json!(once));
    }
    call.json(&CREATE, &args).await
}

/// `{key, request_hash}` of a request that may come twice.
fn idempotency<T: serde::Serialize>(headers: &HeaderMap, request: &T) -> Answer<Option<Value>> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| (1..=200).contains(&key.len())).ok_or_else(|| {
        Refusal::new(ErrorCode::InvalidRequest, "Idempotency-Key: 1 to 200 printable ASCII characters.")
    })?;
    Ok(Some(json!({"key": key, "request_hash": digest::canonical(request)?})))
}
