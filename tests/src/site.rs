//! A site in a test database: people, executors, servers and approved jobs, made through the same functions
//! that the API calls.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::database::{Refused, TestDatabase, run};

/// One site with an operator (fleet admin) and one credential.
pub struct TestSite {
    pub database: TestDatabase,
    pub id: String,
    pub credential: String,
    /// Scope of the fleet admin.
    pub admin: Value,
}

/// An executor session, spoken through its own scope.
pub struct TestExecutor {
    pub id: String,
    pub session: String,
    pub scope: Value,
}

impl TestSite {
    pub async fn new() -> Self {
        Self::with(json!({})).await
    }

    /// `config` overrides members of the default site configuration.
    pub async fn with(config: Value) -> Self {
        Self::over(TestDatabase::new().await, config).await
    }

    /// In a database made before.
    pub async fn over(database: TestDatabase, config: Value) -> Self {
        let admin = person(&database, "Ada Admin", "admin", None).await;
        let mut full = json!({"lease_ttl_ms": 1000, "max_mutating_runs": 16, "hardware_paused": false,
            "second_person": false});
        merge(&mut full, config);
        let site = database.run(&admin, "site_create", json!({"name": "lab", "config": full})).await.unwrap();
        let id = site["id"].as_str().unwrap().to_owned();
        let credential = database
            .run(
                &admin,
                "credential_put",
                json!({"site_id": id, "name": "bmc", "version": 1, "sealed": "c2VhbGVk"}),
            )
            .await
            .unwrap();
        Self { id, credential: credential["id"].as_str().unwrap().to_owned(), admin, database }
    }

    pub async fn executor(&self, name: &str) -> TestExecutor {
        let token = Uuid::now_v7().simple().to_string();
        self.admin("enrolment_token_create", json!({"site_id": self.id, "token_hash": token, "ttl_s": 60}))
            .await;
        let anonymous = json!({"kind": "anonymous"});
        let enrolled = self
            .database
            .run(
                &anonymous,
                "executor_enrol",
                json!({"token_hash": token, "name": name, "signing_key": "k",
                "sealing_key": "s", "fingerprint": name}),
            )
            .await
            .unwrap();
        let id = enrolled["executor_id"].as_str().unwrap().to_owned();
        let executor = self.session(&id, None).await;
        self.database
            .owner
            .execute("update rackhand.executor set state = 'active' where id::text = $1", &[&id])
            .await
            .unwrap();
        executor
    }

    /// A new session of an enrolled executor, as after a restart.
    pub async fn session(&self, executor: &str, resumes: Option<&str>) -> TestExecutor {
        let session = Uuid::now_v7().to_string();
        self.database
            .run(
                &json!({"kind": "anonymous"}),
                "executor_session_start",
                json!({"executor_id": executor, "session_id": session, "resumes": resumes.as_slice(),
                    "nonce": Uuid::now_v7().to_string()}),
            )
            .await
            .unwrap();
        let scope = json!({"kind": "executor", "executor": executor, "session": session});
        TestExecutor { id: executor.to_owned(), session, scope }
    }

    /// Registers `count` servers and returns their ids.
    pub async fn servers(&self, count: usize) -> Vec<String> {
        let servers: Vec<_> = (0..count)
            .map(|index| {
                json!({"index": index, "name": format!("node-{index:04}"),
                "bmc_url": format!("https://10.0.0.1:{}", 1000 + index), "credential_id": self.credential,
                "spki_sha256": "00".repeat(32), "tags": []})
            })
            .collect();
        let stored = self.admin("servers_upsert", json!({"site_id": self.id, "servers": servers})).await;
        stored["ids"].as_object().unwrap().values().map(|id| id.as_str().unwrap().to_owned()).collect()
    }

    /// A job over `servers`, approved if it mutates; its id.
    pub async fn job(&self, kind: &str, servers: &[String], max_parallel: u32) -> String {
        let mutating = kind != "inventory";
        let job = self.plan(kind, servers, max_parallel).await;
        if mutating {
            self.admin("job_approve", json!({"id": job, "digest": "d"})).await;
        }
        job
    }

    /// A job over `servers` as it is planned; its id. One that does not mutate runs at once.
    pub async fn plan(&self, kind: &str, servers: &[String], max_parallel: u32) -> String {
        let machines = self
            .database
            .value("select jsonb_object_agg(b.server_id, rackhand.machine_json(b)) from rackhand.bmc b")
            .await;
        let targets: Vec<_> = servers
            .iter()
            .map(|id| {
                json!({"server_id": id, "server": "node", "blockers": [], "warnings": [],
                "estimated_minutes": 1, "steps": [{"step": "read_inventory"}], "machine": machines[id]})
            })
            .collect();
        let job = self
            .admin(
                "job_create",
                json!({"site_id": self.id, "kind": kind, "params": {}, "mutating": kind != "inventory",
                "policy": {"max_parallel": max_parallel, "pause_after_failures": 0}, "reason": "a test",
                "plan": {"digest": "d", "targets": targets, "estimated_minutes": 1}}),
            )
            .await;
        job["id"].as_str().unwrap().to_owned()
    }

    /// Calls a function as the fleet admin.
    pub async fn admin(&self, function: &str, args: Value) -> Value {
        self.database.run(&self.admin, function, args).await.unwrap()
    }

    /// One lease poll without waiting; `held` as `(run, epoch)`.
    pub async fn lease(&self, executor: &TestExecutor, held: &[(String, u64)], capacity: u32) -> Value {
        self.try_lease(executor, held, capacity).await.unwrap()
    }

    pub async fn try_lease(
        &self,
        executor: &TestExecutor,
        held: &[(String, u64)],
        capacity: u32,
    ) -> Result<Value, Refused> {
        run(&self.database.api, &executor.scope, "executor_lease", lease_args(held, capacity)).await
    }

    pub async fn report(&self, executor: &TestExecutor, items: Vec<Value>) -> Vec<Value> {
        let items: Vec<_> = items
            .into_iter()
            .enumerate()
            .map(|(index, mut item)| {
                item["index"] = json!(index);
                item
            })
            .collect();
        let answer =
            self.database.run(&executor.scope, "executor_report", json!({"items": items})).await.unwrap();
        answer["results"].as_array().unwrap().clone()
    }
}

pub fn lease_args(held: &[(String, u64)], capacity: u32) -> Value {
    let held: Vec<_> = held.iter().map(|(run, epoch)| json!({"run_id": run, "epoch": epoch})).collect();
    json!({"held": held, "capacity": capacity, "kinds": ["inventory", "power", "boot_override", "firmware_update"], "version": "test"})
}

/// The grants of a lease answer as `(run, epoch)`.
pub fn granted(answer: &Value) -> Vec<(String, u64)> {
    answer["grants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|grant| (grant["run_id"].as_str().unwrap().to_owned(), grant["epoch"].as_u64().unwrap()))
        .collect()
}

pub fn item(run: &(String, u64), seq: u64, body: Value) -> Value {
    json!({"run_id": run.0, "epoch": run.1, "seq": seq, "body": body})
}

pub fn event(message: &str) -> Value {
    json!({"type": "event", "level": "info", "message": message, "data": null})
}

pub fn finish(outcome: &str) -> Value {
    json!({"type": "finish", "outcome": outcome, "code": "", "detail": "", "evidence": null})
}

/// Makes a person with one role and a session; the scope with which the API would act for them.
pub async fn person(database: &TestDatabase, name: &str, role: &str, site: Option<&str>) -> Value {
    let row = database
        .owner
        .query_one(
            "with u as (
                insert into rackhand.users (email, name, password_hash) values (lower(replace($1, ' ', '.'))
                    || '@example.test', $1, null) returning id
            ), g as (
                insert into rackhand.user_grant (user_id, role, site_id)
                    select id, $2::text::rackhand.role, $3::text::uuid from u
            ), s as (
                insert into rackhand.user_session (user_id, family, expires_at)
                    select id, uuid_send(gen_random_uuid()), now() + interval '1 day' from u
                    returning id
            )
            select u.id::text, s.id::text from u, s",
            &[&name, &role, &site],
        )
        .await
        .unwrap();
    json!({"kind": "user", "user": row.get::<_, &str>(0), "session": row.get::<_, &str>(1), "need": "viewer"})
}

fn merge(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}
