//! Which work a BMC has: Dell's own queue, a job service, a task service, or what of it a starting service shows.

use std::sync::Arc;

use rackhand_redfish::{Class, Problem, TaskRef, TaskSource, TaskState};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{Bench, Bmc, OEM_JOBS, bench};

const MANAGER: &str = "/redfish/v1/Managers/iDRAC.Embedded.1";
const JOBS: &str = "/redfish/v1/JobService/Jobs";
const TASKS: &str = "/redfish/v1/TaskService/Tasks";

fn soon() -> Instant {
    Instant::now() + std::time::Duration::from_secs(20)
}

fn list(bmc: &Bmc, queue: &str, works: &[(&str, &str)]) {
    let word = if queue == TASKS { "TaskState" } else { "JobState" };
    let mut members = Vec::new();
    for (id, state) in works {
        let path = format!("{queue}/{id}");
        bmc.put(&path, json!({ "@odata.id": path, "Id": id, "Name": "work", word: state }));
        members.push(json!({ "@odata.id": path }));
    }
    bmc.put(queue, json!({ "Members": members }));
}

/// Lenovo XCC, openUBMC and others: the job service holds scheduled scripts; updates are tasks.
fn both(jobs: &[(&str, &str)], tasks: &[(&str, &str)]) -> Arc<Bmc> {
    let bmc = Bmc::small();
    bmc.put(MANAGER, json!({ "Model": "XCC", "FirmwareVersion": "1" }));
    list(&bmc, JOBS, jobs);
    list(&bmc, TASKS, tasks);
    bmc
}

async fn states(bench: &Bench) -> Vec<(String, TaskState)> {
    let found = bench.client.jobs().await.unwrap();
    assert!(found.complete, "{found:?}");
    found.jobs.into_iter().map(|job| (job.id, job.state)).collect()
}

fn deleted(bench: &Bench) -> Vec<String> {
    let seen = bench.bmc.seen().into_iter().filter(|seen| seen.method == "DELETE");
    seen.map(|seen| seen.path).collect()
}

#[tokio::test(start_paused = true)]
async fn an_update_that_is_a_task_is_seen_beside_a_job_service() {
    let bench = bench(both(&[], &[("1", "Running")]));
    assert_eq!(states(&bench).await, [("1".to_owned(), TaskState::Running)]);
}

#[tokio::test(start_paused = true)]
async fn half_of_two_queues_is_no_answer() {
    for missing in [JOBS, TASKS] {
        let bench = bench(both(&[("a", "Running")], &[("b", "Running")]));
        bench.bmc.remove(missing);
        assert_eq!(bench.client.jobs().await.unwrap_err().class(), Class::NotFound, "{missing}");
        bench.bmc.put(missing, json!({ "Members": [], "Members@odata.count": 1 }));
        assert!(!bench.client.jobs().await.unwrap().complete, "{missing}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_both_services_list_under_one_id_is_one_job() {
    let bench = bench(both(
        &[("JID_1", "Completed"), ("JID_2", "Scheduled")],
        &[("JID_1", "Running"), ("JID_2", "New")],
    ));
    let (one, two) = (("JID_1".to_owned(), TaskState::Running), ("JID_2".to_owned(), TaskState::Scheduled));
    assert_eq!(states(&bench).await, [one, two]);
}

/// What has been seen to be over is not read again, in either service; what is new or alive is.
#[tokio::test(start_paused = true)]
async fn a_second_look_reads_only_what_may_have_changed() {
    let bench = bench(both(
        &[("JID_1", "Completed"), ("1", "Running"), ("JID_2", "Running")],
        &[("1", "Completed"), ("2", "New")],
    ));
    states(&bench).await;
    let before = bench.bmc.seen().len();
    let found = bench.client.jobs_beside(&["JID_1".to_owned(), "1".to_owned()]).await.unwrap();
    assert!(found.complete, "{found:?}");
    let ids: Vec<_> = found.jobs.iter().map(|job| job.id.as_str()).collect();
    assert_eq!(ids, ["Jobs/1", "JID_2", "2"]);
    let read: Vec<_> = bench.bmc.seen().split_off(before).into_iter().map(|seen| seen.path).collect();
    assert!(!read.iter().any(|path| path.ends_with("/JID_1") || *path == format!("{TASKS}/1")), "{read:?}");
    bench.bmc.remove(&format!("{TASKS}/2"));
    let found = bench.client.jobs_beside(&["JID_1".to_owned()]).await.unwrap();
    assert!(!found.complete, "{found:?}");
}

/// Both services count from 1: a script of the job service hides no update, and is not deleted in its place.
#[tokio::test(start_paused = true)]
async fn the_first_job_is_not_the_first_task() {
    let bench = bench(both(&[("1", "Completed")], &[("1", "Running")]));
    let (job, task) = (("Jobs/1".to_owned(), TaskState::Completed), ("1".to_owned(), TaskState::Running));
    assert_eq!(states(&bench).await, [job, task]);
    for (id, source) in [("Jobs/1", TaskSource::JobService), ("1", TaskSource::Task)] {
        let task = TaskRef { id: Some(id.to_owned()), ..TaskRef::default() };
        assert_eq!(bench.client.follow(&task).await.unwrap().source, source, "{id}");
        assert_eq!(bench.client.job(id).await.unwrap().unwrap().id, id);
    }
    bench.client.delete_job("1", soon()).await.unwrap();
    bench.client.delete_job("Jobs/1", soon()).await.unwrap();
    assert_eq!(deleted(&bench), [format!("{TASKS}/1"), format!("{JOBS}/1")]);
}

/// A job service that mirrors the tasks, numbers and all: the two are one where that is certain, and two otherwise.
#[tokio::test(start_paused = true)]
async fn a_task_that_the_job_service_mirrors_is_one_job() {
    let at = "2026-03-01T10:00:00Z";
    let links = |path: String| json!({ "Links": { "Related": [{ "@odata.id": path }] } });
    let work = |name: &str, start: &str| json!({ "Name": name, "StartTime": start });
    let cases = [
        (work("update", at), work("update", at), true),
        (work("update", at), work("script", at), false),
        (work("update", at), work("update", "2026-03-01T10:00:01Z"), false),
        (work("update", ""), work("update", ""), false),
        (json!({ "Name": "update" }), json!({ "Name": "update" }), false),
        (work("update", "1970-01-01T00:00:00Z"), work("update", "1970-01-01T00:00:00Z"), false),
        (links(format!("{TASKS}/7")), json!({}), true),
        (json!({}), links(format!("{JOBS}/7")), true),
        (links(format!("{TASKS}/71")), links(format!("{JOBS}/71")), false),
    ];
    for (job, task, one) in cases {
        let bmc = both(&[("7", "Pending")], &[("7", "Running")]);
        for (queue, word, state, more) in
            [(JOBS, "JobState", "Pending", &job), (TASKS, "TaskState", "Running", &task)]
        {
            let path = format!("{queue}/7");
            let mut document = json!({ "@odata.id": path, "Id": "7", word: state });
            document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            bmc.put(&path, document);
        }
        let found = bench(bmc).client.jobs().await.unwrap().jobs;
        let seen: Vec<_> = found.iter().map(|job| (job.id.as_str(), job.task_id.as_deref())).collect();
        if one {
            assert_eq!(seen, [("Jobs/7", Some("7"))], "{job} {task}");
            assert_eq!(found[0].state, TaskState::Running, "the account that is more alive");
        } else {
            assert_eq!(seen, [("Jobs/7", None), ("7", None)], "{job} {task}");
        }
    }
}

/// A hostile BMC: thousands of jobs and tasks of the same name and time cost no more than the reading of them. Compared
/// pair by pair, ten times as many would take a hundred times as long.
#[tokio::test(start_paused = true)]
async fn long_queues_are_joined_quickly() {
    let mut took = Vec::new();
    for many in [400, 4000] {
        let bmc = both(&[], &[]);
        for (queue, state) in [(JOBS, "JobState"), (TASKS, "TaskState")] {
            let member = |number: usize| {
                json!({ "@odata.id": format!("{queue}/{number}"), "Id": number.to_string(), "Name": "update",
                    "StartTime": "2026-03-01T10:00:00Z", state: "Completed" })
            };
            let members: Vec<_> = (1..=many).map(member).collect();
            bmc.put(queue, json!({ "Members": members, "Members@odata.count": many }));
        }
        let bench = bench(bmc);
        let began = std::time::Instant::now();
        let found = bench.client.jobs().await.unwrap();
        took.push(began.elapsed());
        assert_eq!((found.jobs.len(), found.complete), (many, true));
    }
    assert!(took[1] < took[0] * 40 + std::time::Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_job_is_deleted_in_the_queue_that_shows_it() {
    let bench = bench(both(&[("a", "Scheduled")], &[("b", "Pending")]));
    for id in ["b", "a", "c"] {
        bench.client.delete_job(id, soon()).await.unwrap();
    }
    assert_eq!(deleted(&bench), [format!("{TASKS}/b"), format!("{JOBS}/a")]);
}

/// An iDRAC lists the same work in all three.
#[tokio::test(start_paused = true)]
async fn where_dell_has_its_own_queue_no_other_is_read() {
    let bmc = Bmc::small();
    for queue in [OEM_JOBS, JOBS, TASKS] {
        list(&bmc, queue, &[("JID_1", "Scheduled")]);
    }
    let bench = bench(bmc);
    assert_eq!(states(&bench).await, [("JID_1".to_owned(), TaskState::Scheduled)]);
    bench.client.delete_job("JID_1", soon()).await.unwrap();
    assert_eq!(deleted(&bench), [format!("{OEM_JOBS}/JID_1")]);
    assert_eq!((bench.bmc.count("GET", JOBS), bench.bmc.count("GET", TASKS)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn only_a_queue_that_is_not_declared_is_none() {
    let bmc = both(&[], &[]);
    let bench = bench(bmc.clone());
    let root: Value = serde_json::from_slice(&bmc.document("/redfish/v1").unwrap()).unwrap();
    for (gone, class) in
        [("/redfish/v1/JobService", Class::NotFound), ("/redfish/v1/TaskService", Class::NotFound)]
    {
        let document = bmc.document(gone).unwrap();
        bmc.remove(gone);
        let failed = bench.client.jobs().await.unwrap_err();
        assert_eq!(failed.class(), class, "{gone}");
        assert!(!matches!(failed.problem(), Problem::NoQueue), "{gone}: {failed}");
        bmc.put_raw(gone, document);
    }
    let mut bare = root;
    for name in ["JobService", "Tasks"] {
        bare.as_object_mut().unwrap().remove(name);
    }
    bmc.put("/redfish/v1", bare);
    bench.client.forget_links();
    let failed = bench.client.jobs().await.unwrap_err();
    assert!(matches!(failed.problem(), Problem::NoQueue), "{failed}");
}

/// Of two managers that nothing tells apart none has Dell's queue; of two that cannot be read either may.
#[tokio::test(start_paused = true)]
async fn a_manager_that_cannot_be_read_is_not_one_without_a_queue() {
    let bmc = both(&[], &[("1", "Running")]);
    let link = |path: &str| json!({ "@odata.id": path });
    let other = "/redfish/v1/Managers/other";
    bmc.put("/redfish/v1/Managers", json!({ "Members": [link(MANAGER), link(other)] }));
    let bench = bench(bmc.clone());
    assert_eq!(bench.client.jobs().await.unwrap_err().class(), Class::NotFound);
    bmc.put(other, json!({ "Model": "other" }));
    assert_eq!(states(&bench).await, [("1".to_owned(), TaskState::Running)]);
}

#[tokio::test(start_paused = true)]
async fn only_a_readiness_that_is_not_declared_is_none() {
    let bmc = Bmc::small();
    let bench = bench(bmc.clone());
    assert!(bench.client.readiness().await.unwrap().is_none());
    let service = format!("{MANAGER}/Oem/Dell/DellLCService");
    let link = json!({ "@odata.id": service });
    bmc.put(
        MANAGER,
        json!({ "Model": "14G Monolithic", "Links": { "Oem": { "Dell": { "DellLCService": link } } } }),
    );
    bench.client.forget_links();
    assert_eq!(bench.client.readiness().await.unwrap_err().class(), Class::NotFound);
    bmc.put(&service, json!({ "Actions": {} }));
    assert!(bench.client.readiness().await.unwrap().is_none());
}

/// Huawei's word for a task that has ended.
#[tokio::test(start_paused = true)]
async fn a_task_that_ended_in_success_does_not_run() {
    let bench = bench(both(&[], &[("1", "Success")]));
    assert_eq!(states(&bench).await, [("1".to_owned(), TaskState::Completed)]);
}
