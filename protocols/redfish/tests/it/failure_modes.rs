//! One test for each field failure the client must survive.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use rackhand_redfish::{
    Accepted, ApplyTime, AuthOutcome, BootChange, Class, GateDenied, Generation, MultipartUpdate, NotSent,
    Options, Problem, ResetKind, SessionHandle, SimpleUpdate, TaskRef, TaskSource, TaskState, TransportError,
    compare_firmware,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{
    Act, Bench, Bmc, OEM_JOBS, PASSWORD, SESSIONS, SIMPLE_UPDATE, bench, bench_with, error,
};

const TASK: &str = "/redfish/v1/TaskService/Tasks/JID_7";
const ENTRIES: &str = "/redfish/v1/Managers/iDRAC.Embedded.1/LogServices/Lclog/Entries";
const UPDATE_SERVICE: &str = "/redfish/v1/UpdateService";

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn bios() -> SimpleUpdate {
    SimpleUpdate {
        image_uri: "http://10.0.0.5/BIOS.EXE".to_owned(),
        apply_time: Some(ApplyTime::OnReset),
        ..SimpleUpdate::default()
    }
}

fn task(id: &str) -> TaskRef {
    TaskRef {
        path: Some(format!("/redfish/v1/TaskService/Tasks/{id}")),
        id: Some(id.to_owned()),
        log_mark: None,
    }
}

fn lost() -> Act {
    Act::Fail(TransportError::NoAnswer { why: "connection reset".to_owned() })
}

async fn update(bench: &Bench, act: Act) -> Result<Accepted, rackhand_redfish::Error> {
    bench.bmc.next("POST", SIMPLE_UPDATE, act);
    bench.client.simple_update(&bios(), soon()).await
}

#[tokio::test(start_paused = true)]
async fn d01_full_session_table_falls_back_to_basic_and_never_loops() {
    let bench = bench(Bmc::small());
    for _ in 0..3 {
        bench.bmc.next(
            "POST",
            SESSIONS,
            Act::Answer(503, error("IDRAC.2.7.RAC0218", "maximum number of user sessions")),
        );
    }
    bench.client.system().await.unwrap();
    bench.client.system().await.unwrap();
    assert_eq!(bench.bmc.count("POST", SESSIONS), 1);
    assert!(bench.bmc.seen().iter().any(|seen| seen.proof == "basic"));
    assert_eq!(*bench.gate.outcomes.lock().unwrap(), [AuthOutcome::NotJudged, AuthOutcome::Accepted]);
    // Later a session is tried again.
    tokio::time::sleep(Duration::from_secs(301)).await;
    bench.client.system().await.unwrap();
    assert_eq!(bench.bmc.count("POST", SESSIONS), 2);
}

#[tokio::test(start_paused = true)]
async fn d01_no_session_service_means_basic() {
    let bmc = Bmc::small();
    let link = |path: &str| json!({ "@odata.id": path });
    bmc.put(
        "/redfish/v1",
        json!({ "Systems": link("/redfish/v1/Systems"), "Managers": link("/redfish/v1/Managers") }),
    );
    let bench = bench(bmc);
    bench.client.identity().await.unwrap();
    assert_eq!(bench.bmc.logins(), 0);
    assert_eq!(*bench.gate.asked.lock().unwrap(), 1, "a proven password asks no more");
    bench.client.close().await;
}

/// Reading an identity asks for several parts: none of them presents the password again that another one has found
/// refused.
#[tokio::test(start_paused = true)]
async fn d01_a_refused_password_is_presented_once() {
    for basic in [false, true] {
        let bmc = Bmc::small();
        if basic {
            let link = |path: &str| json!({ "@odata.id": path });
            bmc.put(
                "/redfish/v1",
                json!({ "Systems": link("/redfish/v1/Systems"), "Managers": link("/redfish/v1/Managers") }),
            );
        }
        let bench = bench_with(bmc, "not the password", Options::default());
        let error = bench.client.identity().await.map(|identity| identity.unreadable);
        let presented = || match basic {
            true => bench.bmc.seen().iter().filter(|seen| seen.proof == "basic").count(),
            false => bench.bmc.count("POST", SESSIONS),
        };
        assert_eq!(presented(), 1, "{error:?}");
        assert_eq!(bench.client.system().await.unwrap_err().class(), Class::Auth);
        assert_eq!((presented(), *bench.gate.asked.lock().unwrap()), (1, 1));
        // The account is somebody's again.
        tokio::time::sleep(Options::default().refused_period).await;
        assert_eq!(bench.client.system().await.unwrap_err().class(), Class::Auth);
        assert_eq!(presented(), 2);
    }
}

/// A password that HTTP Basic had proven, and that was changed since. Two readers at once, as a BMC has.
#[tokio::test(start_paused = true)]
async fn d01_a_proven_basic_password_that_is_refused_is_presented_once() {
    let bmc = Bmc::small();
    let full = || Act::Answer(503, error("IDRAC.2.7.RAC0218", "maximum number of user sessions"));
    bmc.next("POST", SESSIONS, full());
    let bench = bench_with(bmc, PASSWORD, Options::default());
    bench.client.identity().await.unwrap();
    let presented = || bench.bmc.seen().iter().filter(|seen| seen.proof == "basic").count();
    let before = presented();
    for path in ["/redfish/v1/Systems/System.Embedded.1", "/redfish/v1/Managers/iDRAC.Embedded.1"] {
        for _ in 0..3 {
            let refusal = Act::Answer(401, error("IDRAC.2.7.SYS415", "invalid username or password"));
            bench.bmc.next("GET", path, refusal);
        }
    }
    bench.bmc.latency(Duration::from_millis(50));
    let (one, two) = tokio::join!(bench.client.identity(), bench.client.identity());
    let outcomes = || bench.gate.outcomes.lock().unwrap().clone();
    let rejected = |outcomes: Vec<AuthOutcome>| {
        outcomes.into_iter().filter(|outcome| *outcome == AuthOutcome::Rejected).count()
    };
    assert_eq!(presented() - before, 2, "one of each reader: {one:?} {two:?}");
    assert_eq!(rejected(outcomes()), 1, "{:?}", outcomes());
    assert_eq!(bench.client.system().await.unwrap_err().class(), Class::Auth);
    assert_eq!((presented() - before, rejected(outcomes())), (2, 1), "not again for a while");
}

/// The budget does not trust any more what HTTP Basic had proven: it is asked, and what it withholds is not presented.
#[tokio::test(start_paused = true)]
async fn d03_a_proven_basic_password_that_is_not_trusted_any_more_is_asked_for() {
    let bmc = Bmc::small();
    let full = || Act::Answer(503, error("IDRAC.2.7.RAC0218", "maximum number of user sessions"));
    bmc.next("POST", SESSIONS, full());
    let bench = bench(bmc);
    bench.client.system().await.unwrap();
    let asked = || *bench.gate.asked.lock().unwrap();
    let before = asked();
    bench.client.system().await.unwrap();
    assert_eq!(asked(), before);
    bench.gate.distrusts.store(true, Ordering::Relaxed);
    bench.client.system().await.unwrap();
    assert_eq!(asked(), before + 1);
    let denied = GateDenied { reason: "suspended".to_owned(), retry_after: None };
    *bench.gate.denies.lock().unwrap() = Some(denied);
    let seen = bench.bmc.seen().len();
    let withheld = bench.client.system().await.unwrap_err();
    assert_eq!(withheld.class(), Class::AuthWithheld { retry_after: None });
    assert_eq!(bench.bmc.seen().len(), seen, "nothing was sent");
}

/// A 401 that is about the resource, or wrong (D04), leaves no session behind that it was answered in.
#[tokio::test(start_paused = true)]
async fn d01_a_session_that_is_given_up_is_deleted() {
    let bench = bench(Bmc::small());
    let path = "/redfish/v1/Systems/System.Embedded.1";
    bench.client.system().await.unwrap();
    for _ in 0..8 {
        bench.bmc.next("GET", path, Act::Answer(401, error("Base.1.12.NoValidSession", "no")));
        bench.client.system().await.unwrap();
        assert_eq!(bench.bmc.open_sessions(), 1);
    }
    bench.client.close().await;
    assert_eq!(bench.bmc.open_sessions(), 0);
}

/// D04 does not choose: the DELETE that follows a spurious 401 at once gets one, too, and ends nothing. It may also
/// get no answer. The next session ends them.
#[tokio::test(start_paused = true)]
async fn d04_a_session_whose_end_is_not_certain_is_ended_in_the_next_one() {
    let path = "/redfish/v1/Systems/System.Embedded.1";
    let spurious = || Act::Answer(401, error("Base.1.12.NoValidSession", "no"));
    for unanswered in [false, true] {
        let bench = bench(Bmc::small());
        bench.client.system().await.unwrap();
        for _ in 0..7 {
            let session = bench.client.session_handle().await.unwrap().uri;
            bench.bmc.next("GET", path, spurious());
            bench.bmc.next("DELETE", &session, if unanswered { Act::Hang } else { spurious() });
            bench.client.system().await.unwrap();
            assert_eq!(bench.bmc.open_sessions(), 1);
            assert_eq!(bench.client.session_handles().await.len(), 1);
        }
        let session = bench.client.session_handle().await.unwrap().uri;
        bench.bmc.next("DELETE", &session, spurious());
        bench.client.end_session().await.unwrap();
        assert_eq!(bench.bmc.open_sessions(), 0);
        assert_eq!(bench.client.session_handles().await.len(), 0);
    }
}

/// It numbers its sessions anew: the number of the one that was given up is that of another one now.
#[tokio::test(start_paused = true)]
async fn d04_after_a_restart_of_the_service_no_other_session_is_ended() {
    for others in [false, true] {
        let bench = bench(Bmc::small());
        bench.client.system().await.unwrap();
        for restarts in 0..3 {
            tokio::time::sleep(Duration::from_secs(61)).await;
            bench.bmc.restart();
            if others {
                bench.bmc.other_signs_in();
            }
            let logins = bench.bmc.logins();
            bench.client.system().await.unwrap();
            bench.client.firmware_inventory().await.unwrap();
            assert_eq!(bench.bmc.logins(), logins + 1);
            // The former one is asked again later: the refusal may be wrong.
            assert_eq!(bench.client.session_handles().await.len(), 2, "{restarts}");
            assert_eq!(bench.bmc.knows("theirs"), others);
        }
        bench.client.end_session().await.unwrap();
        assert_eq!((bench.bmc.open_sessions(), bench.bmc.knows("theirs")), (usize::from(others), others));
    }
}

/// D04 for a while: the session lives on, and its deletion is repeated until it is answered otherwise.
#[tokio::test(start_paused = true)]
async fn d04_a_session_is_not_forgotten_while_wrong_answers_go_on() {
    let bench = bench(Bmc::small());
    let path = "/redfish/v1/Systems/System.Embedded.1";
    let spurious = || Act::Answer(401, error("Base.1.12.NoValidSession", "no"));
    bench.client.system().await.unwrap();
    let session = bench.client.session_handle().await.unwrap().uri;
    bench.bmc.next("GET", path, spurious());
    for _ in 0..2 {
        bench.bmc.next("DELETE", &session, spurious());
    }
    bench.client.system().await.unwrap();
    assert_eq!((bench.bmc.open_sessions(), bench.client.session_handles().await.len()), (2, 2));
    bench.client.end_session().await.unwrap();
    assert_eq!(bench.bmc.open_sessions(), 0);
}

/// What is read before a mutation takes of its time: whoever connects late counts from the beginning.
#[tokio::test(start_paused = true)]
async fn the_time_of_a_mutation_begins_before_what_it_reads() {
    let bench = bench(Bmc::small());
    bench.bmc.latency(Duration::from_secs(2));
    let job = format!("{OEM_JOBS}/JID_1");
    bench.bmc.put(&job, json!({ "Id": "JID_1", "JobState": "Scheduled" }));
    let system = "/redfish/v1/Systems/System.Embedded.1";
    let boot = BootChange { target: "Pxe".to_owned(), enabled: "Once".to_owned(), mode: None };
    bench.bmc.put(
        system,
        json!({ "Id": "System.Embedded.1", "PowerState": "On",
        "Boot": { "BootSourceOverrideTarget": "None", "BootSourceOverrideEnabled": "Disabled" },
        "Actions": { "#ComputerSystem.Reset": { "target": format!("{system}/Actions/Reset") } } }),
    );
    for (number, mutation) in ["reset", "update", "delete", "boot"].into_iter().enumerate() {
        bench.client.forget_links();
        let began = Instant::now();
        match mutation {
            "reset" => drop(bench.client.reset(ResetKind::On, soon()).await),
            "update" => drop(bench.client.simple_update(&bios(), soon()).await),
            "delete" => drop(bench.client.delete_job("JID_1", soon()).await),
            _ => bench.client.set_boot(&boot, soon()).await.unwrap(),
        }
        let told: Vec<_> = bench.bmc.seen().iter().filter_map(|seen| seen.began).collect();
        assert_eq!((told.len(), told.last()), (number + 1, Some(&began)), "{mutation}");
    }
}

/// Where a reset goes is remembered from the look before it. A service that has moved it, or takes other kinds now, is
/// asked anew after the first refusal.
#[tokio::test(start_paused = true)]
async fn a_remembered_reset_target_is_forgotten_with_the_first_refusal() {
    let bench = bench(Bmc::small());
    let system = "/redfish/v1/Systems/System.Embedded.1";
    let tells = |target: &str, kinds: &[&str]| {
        let action = json!({ "target": target, "ResetType@Redfish.AllowableValues": kinds });
        let actions = json!({ "#ComputerSystem.Reset": action });
        bench.bmc.put(system, json!({ "Id": "System.Embedded.1", "PowerState": "On", "Actions": actions }));
    };
    let (former, now) = (format!("{system}/Actions/Former"), format!("{system}/Actions/Now"));
    tells(&former, &["On"]);
    bench.client.system().await.unwrap();
    tells(&now, &["On"]);
    bench.bmc.next("POST", &former, Act::Answer(404, error("Base.1.12.ResourceMissingAtURI", "gone")));
    assert!(bench.client.reset(ResetKind::On, soon()).await.is_err());
    bench.client.reset(ResetKind::On, soon()).await.unwrap();
    assert_eq!([&former, &now].map(|target| bench.bmc.count("POST", target)), [1, 1]);
    bench.client.system().await.unwrap();
    tells(&now, &["On", "ForceOff"]);
    assert!(bench.client.reset(ResetKind::ForceOff, soon()).await.is_err());
    bench.client.reset(ResetKind::ForceOff, soon()).await.unwrap();
}

/// Where sessions cannot be ended, the last ones are remembered, and those alone: to be sealed and kept.
#[tokio::test(start_paused = true)]
async fn d01_no_more_sessions_are_remembered_than_a_table_holds() {
    let bench = bench(Bmc::small());
    let path = "/redfish/v1/Systems/System.Embedded.1";
    bench.client.system().await.unwrap();
    let gone = bench.client.session_handle().await.unwrap();
    for _ in 0..9 {
        for session in bench.client.session_handles().await {
            for _ in 0..2 {
                bench.bmc.next("DELETE", &session.uri, Act::Answer(403, error("Base.1.12.Denied", "no")));
            }
        }
        bench.bmc.next("GET", path, Act::Answer(401, error("Base.1.12.NoValidSession", "no")));
        bench.client.system().await.unwrap();
    }
    let kept = bench.client.session_handles().await;
    assert_eq!(kept.len(), 9);
    assert!(!kept.iter().any(|session| session.is(&gone)));
}

/// Whoever asked has gone while the session was deleted.
#[tokio::test(start_paused = true)]
async fn d01_a_session_that_was_being_deleted_is_not_forgotten() {
    let bench = bench(Bmc::small());
    let path = "/redfish/v1/Systems/System.Embedded.1";
    bench.client.system().await.unwrap();
    let session = bench.client.session_handle().await.unwrap().uri;
    bench.bmc.next("GET", path, Act::Answer(401, error("Base.1.12.NoValidSession", "no")));
    bench.bmc.next("DELETE", &session, Act::Hang);
    tokio::time::timeout(Duration::from_secs(1), bench.client.system()).await.unwrap_err();
    assert_eq!(bench.client.session_handles().await.len(), 1);
    bench.client.close().await;
    assert_eq!(bench.bmc.open_sessions(), 0);
}

/// A service that hangs over the deletion takes at most half of the time of the request behind it.
#[tokio::test(start_paused = true)]
async fn d01_a_deletion_that_is_not_answered_leaves_time_for_the_request() {
    let bench = bench(Bmc::small());
    bench.client.system().await.unwrap();
    let session = bench.client.session_handle().await.unwrap().uri;
    bench.bmc.next("DELETE", &session, Act::Hang);
    let began = tokio::time::Instant::now();
    let answer = Act::Answer(401, error("Base.1.12.NoValidSession", "no"));
    assert_eq!(update(&bench, answer).await.unwrap().status, 204);
    assert!(began.elapsed() <= Duration::from_secs(10), "{:?}", began.elapsed());
}

/// One resource is answered 401 in any session: it costs one login in a while, and the session stays for the others.
#[tokio::test(start_paused = true)]
async fn d02_a_path_that_is_always_answered_401_makes_no_login_loop() {
    let bench = bench(Bmc::small());
    let path = "/redfish/v1/Systems/System.Embedded.1";
    let refuse = |times: usize| {
        for _ in 0..times {
            bench.bmc.next("GET", path, Act::Answer(401, error("Base.1.12.InsufficientPrivilege", "no")));
        }
    };
    bench.client.firmware_inventory().await.unwrap();
    refuse(11);
    for _ in 0..10 {
        assert_eq!(bench.client.system().await.unwrap_err().class(), Class::Forbidden);
        bench.client.firmware_inventory().await.unwrap();
    }
    assert_eq!((bench.bmc.logins(), bench.bmc.open_sessions()), (2, 1));
    // It may be allowed by then.
    tokio::time::sleep(Duration::from_secs(301)).await;
    refuse(1);
    bench.client.system().await.unwrap();
    assert_eq!((bench.bmc.logins(), bench.bmc.open_sessions()), (3, 1));
    // A service that answers 401 to everything: the new session is kept, whatever is asked in it.
    refuse(2);
    bench.bmc.next("GET", UPDATE_SERVICE, Act::Answer(401, error("Base.1.12.NoValidSession", "no")));
    bench.client.system().await.unwrap_err();
    bench.client.firmware_inventory().await.unwrap_err();
    assert_eq!((bench.bmc.logins(), bench.bmc.open_sessions()), (4, 1));
}

/// The connection was closed just when the deletion was sent, before or after it arrived.
#[tokio::test(start_paused = true)]
async fn d01_a_session_whose_deletion_got_no_answer_is_deleted_again() {
    // Carried out already, it is answered 401, which may be wrong.
    for (act, requests) in [(lost(), 2), (Act::LoseAnswer, 3)] {
        let bench = bench(Bmc::small());
        bench.client.system().await.unwrap();
        let session = bench.client.session_handle().await.unwrap().uri;
        bench.bmc.next("DELETE", &session, act);
        bench.client.end_session().await.unwrap();
        assert_eq!(bench.bmc.count("DELETE", &session), requests);
        assert_eq!(bench.bmc.open_sessions(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn d01_sessions_are_exported_adopted_and_deleted() {
    let first = bench(Bmc::small());
    first.client.system().await.unwrap();
    let handle = first.client.session_handle().await.unwrap();
    let kept = (handle.uri.clone(), handle.token().to_string());
    assert!(!format!("{handle:?}").contains("token-1"));

    let second = bench(first.bmc.clone());
    second.client.adopt_session(SessionHandle::new(kept.0, kept.1.into())).await;
    second.client.system().await.unwrap();
    assert_eq!(second.bmc.logins(), 1);
    assert_eq!(*second.gate.asked.lock().unwrap(), 0);
    second.client.close().await;
    assert_eq!(second.bmc.open_sessions(), 0);
    // Gone already: still a success.
    second.client.delete_session(&handle).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn d01_concurrent_requests_share_one_login() {
    let bench = bench(Bmc::small());
    bench.bmc.latency(Duration::from_millis(200));
    let (first, second, third) =
        tokio::join!(bench.client.system(), bench.client.identity(), bench.client.firmware_inventory());
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    assert_eq!(bench.bmc.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn d02_session_dies_in_mid_flow_and_is_renewed_once() {
    let bench = bench(Bmc::small());
    bench.client.system().await.unwrap();
    bench.bmc.end_all_sessions();
    bench.client.system().await.unwrap();
    assert_eq!(bench.bmc.logins(), 2);
    // A service that answers 401 whatever is presented is left alone after the second try.
    let path = "/redfish/v1/Systems/System.Embedded.1";
    for _ in 0..4 {
        bench.bmc.next("GET", path, Act::Answer(401, error("Base.1.12.NoValidSession", "no")));
    }
    let before = bench.bmc.count("GET", path);
    let failed = bench.client.system().await.unwrap_err();
    assert_eq!(failed.class(), Class::Forbidden, "the login itself was accepted");
    assert_eq!(bench.bmc.count("GET", path) - before, 2);
}

#[tokio::test(start_paused = true)]
async fn d02_a_mutation_is_sent_again_after_401_because_it_was_not_acted_upon() {
    let bench = bench(Bmc::small());
    bench.client.system().await.unwrap();
    let answer = Act::Answer(401, error("Base.1.12.NoValidSession", "no"));
    let accepted = update(&bench, answer).await.unwrap();
    assert_eq!(accepted.status, 204);
    assert_eq!(bench.bmc.count("POST", SIMPLE_UPDATE), 2);
}

#[tokio::test(start_paused = true)]
async fn d03_a_wrong_password_is_presented_once_and_a_closed_gate_sends_nothing() {
    let bench = bench_with(Bmc::small(), "wrong", Options::default());
    let failed = bench.client.system().await.unwrap_err();
    assert_eq!(failed.class(), Class::Auth);
    assert_eq!(failed.message_id(), Some("SYS415"));
    assert_eq!(*bench.gate.outcomes.lock().unwrap(), [AuthOutcome::Rejected]);
    assert_eq!(bench.bmc.count("POST", SESSIONS), 1);

    let retry_after = Some(Duration::from_secs(600));
    let denied = GateDenied { reason: "two failures in ten minutes".to_owned(), retry_after };
    *bench.gate.denies.lock().unwrap() = Some(denied);
    tokio::time::sleep(Options::default().refused_period).await;
    let withheld = bench.client.system().await.unwrap_err();
    assert_eq!(withheld.class(), Class::AuthWithheld { retry_after });
    assert!(matches!(withheld.problem(), Problem::Gate(_)));
    assert_eq!(bench.bmc.count("POST", SESSIONS), 1);
}

#[tokio::test(start_paused = true)]
async fn d03_a_lost_login_counts_as_unknown_and_an_unsent_one_as_nothing() {
    let bench = bench(Bmc::small());
    bench.bmc.next("POST", SESSIONS, lost());
    assert!(bench.client.system().await.is_err());
    bench.bmc.next("POST", SESSIONS, Act::Fail(TransportError::NotSent { why: NotSent::Refused }));
    assert_eq!(bench.client.system().await.unwrap_err().class(), Class::NotSent);
    assert_eq!(*bench.gate.outcomes.lock().unwrap(), [AuthOutcome::Unknown, AuthOutcome::NotSent]);
}

#[tokio::test(start_paused = true)]
async fn d09_two_documents_in_one_body_and_the_meant_one_is_read() {
    let bmc = Bmc::small();
    let glued = format!(
        "{}\r\n{}",
        error("IDRAC.2.7.LIC501", "A required license is missing or expired."),
        json!({ "@odata.id": "/redfish/v1/Systems/System.Embedded.1", "PowerState": "Off", "SKU": 7, "Model": null }),
    );
    bmc.put_raw("/redfish/v1/Systems/System.Embedded.1", glued.clone());
    let bench = bench(bmc);
    let system = bench.client.system().await.unwrap();
    assert_eq!(system.power, rackhand_redfish::PowerState::Off);
    assert_eq!(system.evidence.body, glued.as_bytes());
    let identity = bench.client.identity().await.unwrap();
    assert_eq!((identity.model, identity.service_tag.as_deref()), (None, Some("7")));
}

#[tokio::test(start_paused = true)]
async fn d10_a_missing_licence_is_unsupported_not_transient() {
    let bench = bench(Bmc::small());
    let failed = update(&bench, Act::Answer(500, error("IDRAC.2.7.LIC501", "licence"))).await.unwrap_err();
    assert_eq!(failed.class(), Class::Unsupported);
    let failed = update(&bench, Act::Answer(403, error("LIC503", "licence"))).await.unwrap_err();
    assert_eq!(failed.class(), Class::Unsupported);
}

#[tokio::test(start_paused = true)]
async fn d11_not_ready_is_transient_whatever_its_status() {
    let bench = bench(Bmc::small());
    let seconds = |seconds| Class::Transient { retry_after: Some(Duration::from_secs(seconds)) };
    let cases = [
        (
            400,
            "IDRAC.1.6.SWC0700",
            "iDRAC is not ready. The configuration values cannot be accessed.",
            seconds(30),
        ),
        (503, "IDRAC.2.7.SYS518", "data sources are unavailable. Retry after 45 seconds.", seconds(45)),
        (500, "RAC964", "Unable to perform the operation.", seconds(60)),
        // It broke down over the request: what it had done by then is not known.
        (400, "IDRAC.2.7.SYS446", "internal error", Class::Ambiguous),
    ];
    for (status, id, text, class) in cases {
        let failed = update(&bench, Act::Answer(status, error(id, text))).await.unwrap_err();
        assert_eq!(failed.class(), class, "{id}");
        assert_eq!(failed.status(), Some(status));
    }
    let headers = vec![("retry-after", "12".to_owned())];
    let failed = update(&bench, Act::Raw(503, headers, Bytes::from("busy"))).await.unwrap_err();
    assert_eq!(failed.class(), seconds(12));
    for bare in [500, 502, 503, 504] {
        let failed = update(&bench, Act::Raw(bare, Vec::new(), Bytes::new())).await.unwrap_err();
        assert_eq!(failed.class(), Class::Ambiguous, "{bare}");
    }
    bench.bmc.next(
        "GET",
        "/redfish/v1/Systems/System.Embedded.1",
        Act::Answer(500, error("IDRAC.2.7.SYS446", "internal error")),
    );
    assert_eq!(bench.client.system().await.unwrap_err().class(), seconds(120), "reading again is harmless");
}

#[tokio::test(start_paused = true)]
async fn d12_busy_lifecycle_controller_means_wait() {
    let bench = bench(Bmc::small());
    for id in ["IDRAC.2.7.RED023", "IDRAC.2.7.JCP024", "IDRAC.2.7.JCP017", "IDRAC.2.7.SUP0108"] {
        let failed = update(&bench, Act::Answer(400, error(id, "in use"))).await.unwrap_err();
        assert!(matches!(failed.class(), Class::Busy { retry_after: Some(_) }), "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn d13_an_empty_systems_collection_is_transient() {
    let bench = bench(Bmc::small());
    bench.bmc.put("/redfish/v1/Systems", json!({ "Members": [], "Members@odata.count": 0 }));
    let failed = bench.client.system().await.unwrap_err();
    assert!(matches!(failed.class(), Class::Transient { .. }));
}

#[tokio::test(start_paused = true)]
async fn d13_the_queue_is_never_cleared() {
    let bench = bench(Bmc::small());
    for id in ["JID_CLEARALL", "JID_CLEARALL_FORCE", "jid_clearall", "", "../Jobs"] {
        assert_eq!(bench.client.delete_job(id, soon()).await.unwrap_err().class(), Class::Refused);
    }
    bench.client.delete_job("JID_7", soon()).await.unwrap();
    assert_eq!(bench.bmc.count("DELETE", &format!("{OEM_JOBS}/JID_7")), 1);
}

#[tokio::test(start_paused = true)]
async fn d14_task_vanishes() {
    let bench = bench(Bmc::small());
    bench.bmc.put(
        TASK,
        json!({ "@odata.type": "#Task.v1_5_0.Task", "Id": "JID_7", "TaskState": "Running",
        "PercentComplete": 40, "Messages": [] }),
    );
    let running = bench.client.follow(&task("JID_7")).await.unwrap();
    assert_eq!(
        (running.source, running.state, running.percent),
        (TaskSource::Task, TaskState::Running, Some(40))
    );

    // The task is gone, the job service still knows it.
    bench.bmc.remove(TASK);
    let job = "/redfish/v1/JobService/Jobs/JID_7";
    bench.bmc.put(
        job,
        json!({ "Id": "JID_7", "JobState": "Completed", "PercentComplete": 100,
        "Messages": [{ "MessageId": "IDRAC.2.8.PR19", "Message": "Job completed successfully." }] }),
    );
    let progress = bench.client.follow(&task("JID_7")).await.unwrap();
    assert_eq!((progress.source, progress.state), (TaskSource::JobService, TaskState::Completed));

    // Then only Dell's own queue.
    bench.bmc.remove(job);
    let oem = format!("{OEM_JOBS}/JID_7");
    bench.bmc.put(
        &oem,
        json!({ "Id": "JID_7", "JobState": "Completed", "JobType": "FirmwareUpdate",
        "Message": "Job completed successfully.", "MessageId": "PR19" }),
    );
    let progress = bench.client.follow(&task("JID_7")).await.unwrap();
    assert_eq!((progress.source, progress.state), (TaskSource::OemJobs, TaskState::Completed));

    // Then only the log.
    bench.bmc.remove(&oem);
    let record = |number: u64, id: &str, args: Value| {
        json!({
        "@odata.id": format!("{ENTRIES}/{number}"), "Id": number.to_string(), "MessageId": id,
        "Message": "text", "MessageArgs": args })
    };
    bench.bmc.put(
        ENTRIES,
        json!({ "Members": [
        record(12, "IDRAC.2.8.USR0030", json!(["root"])),
        record(11, "IDRAC.2.8.JCP037", json!(["JID_7"])),
        record(10, "IDRAC.2.8.JCP027", json!(["JID_7"])),
    ] }),
    );
    let progress = bench.client.follow(&task("JID_7")).await.unwrap();
    assert_eq!((progress.source, progress.state), (TaskSource::LifecycleLog, TaskState::Completed));
    assert!(!progress.evidence.is_empty());

    // A record from before the request proves nothing, and JID_70 is not JID_7.
    let marked = TaskRef { log_mark: Some(11), ..task("JID_7") };
    let progress = bench.client.follow(&marked).await.unwrap();
    assert_eq!((progress.source, progress.state), (TaskSource::None, TaskState::Vanished));
    let progress = bench.client.follow(&task("JID_70")).await.unwrap();
    assert_eq!(progress.state, TaskState::Vanished);
    assert!(!progress.state.is_final());
}

#[tokio::test(start_paused = true)]
async fn d14_an_unreadable_source_is_no_proof_of_absence() {
    let bench = bench(Bmc::small());
    bench.bmc.next(
        "GET",
        "/redfish/v1/JobService/Jobs/JID_7",
        Act::Answer(503, error("SYS518", "unavailable")),
    );
    let failed = bench.client.follow(&task("JID_7")).await.unwrap_err();
    assert!(matches!(failed.class(), Class::Transient { .. }));
}

#[tokio::test(start_paused = true)]
async fn d15_completed_but_critical_is_a_failure() {
    let bench = bench(Bmc::small());
    bench.bmc.put(TASK, json!({ "Id": "JID_7", "TaskState": "Completed", "TaskStatus": "Critical",
        "PercentComplete": 100, "Messages": [{ "MessageId": "IDRAC.2.8.JCP052", "Message": "no progress" }] }));
    let progress = bench.client.follow(&task("JID_7")).await.unwrap();
    assert_eq!((progress.state, progress.message_id.as_deref()), (TaskState::Failed, Some("JCP052")));
    bench.bmc.put(
        TASK,
        json!({ "Id": "JID_7", "TaskState": "Completed", "TaskStatus": "OK",
        "Messages": [{ "MessageId": "PR21", "Message": "Job failed." }] }),
    );
    assert_eq!(bench.client.follow(&task("JID_7")).await.unwrap().state, TaskState::Failed);
    // A download that failed once and was repeated is history.
    let history =
        [json!({ "MessageId": "RED006", "Message": "x" }), json!({ "MessageId": "PR19", "Message": "y" })];
    bench.bmc.put(
        TASK,
        json!({ "Id": "JID_7", "TaskState": "Completed", "TaskStatus": "OK", "Messages": history }),
    );
    assert_eq!(bench.client.follow(&task("JID_7")).await.unwrap().state, TaskState::Completed);
}

#[tokio::test(start_paused = true)]
async fn d16_completed_with_a_reboot_pending() {
    let bench = bench(Bmc::small());
    bench.bmc.put(TASK, json!({ "Id": "JID_7", "TaskState": "Completed", "TaskStatus": "OK", "PercentComplete": 100,
        "Messages": [{ "MessageId": "IDRAC.2.8.SUP1", "Message": "Job completed, server reboot pending." }] }));
    let progress = bench.client.follow(&task("JID_7")).await.unwrap();
    assert_eq!(progress.state, TaskState::CompletedRebootPending);
    assert!(progress.state.is_final());
}

#[tokio::test(start_paused = true)]
async fn d17_reads_survive_one_lost_answer() {
    let bench = bench(Bmc::small());
    bench.client.system().await.unwrap();
    let path = "/redfish/v1/Systems/System.Embedded.1";
    bench.bmc.next("GET", path, lost());
    bench.client.system().await.unwrap();
    bench.bmc.next("GET", path, lost());
    bench.bmc.next("GET", path, lost());
    let failed = bench.client.system().await.unwrap_err();
    assert_eq!(failed.class(), Class::Transient { retry_after: None });
    assert!(bench.notes.0.lock().unwrap().iter().any(|note| note.ends_with("None #2")));
}

#[tokio::test(start_paused = true)]
async fn d18_a_lost_answer_to_a_mutation_is_ambiguous_and_never_repeated() {
    let bench = bench(Bmc::small());
    let failed = update(&bench, Act::LoseAnswer).await.unwrap_err();
    assert_eq!(failed.class(), Class::Ambiguous);
    assert_eq!(bench.bmc.count("POST", SIMPLE_UPDATE), 1);

    let started = Instant::now();
    let failed = update(&bench, Act::Hang).await.unwrap_err();
    assert_eq!(failed.class(), Class::Ambiguous);
    assert_eq!(started.elapsed(), Duration::from_secs(60), "the deadline ends it");
    assert_eq!(bench.bmc.count("POST", SIMPLE_UPDATE), 2);

    let refused = Act::Fail(TransportError::NotSent { why: NotSent::Refused });
    assert_eq!(update(&bench, refused).await.unwrap_err().class(), Class::NotSent);
}

#[tokio::test(start_paused = true)]
async fn d21_an_unreadable_row_is_not_a_missing_one() {
    let bench = bench(Bmc::small());
    let inventory = "/redfish/v1/UpdateService/FirmwareInventory";
    let bios = format!("{inventory}/Installed-159-2.1.0__BIOS.Setup.1-1");
    let nic = format!("{inventory}/Installed-0-22.0__NIC.Slot.1-1-1");
    bench.bmc.put(
        inventory,
        json!({ "Members": [{ "@odata.id": bios }, { "@odata.id": nic }], "Members@odata.count": 2 }),
    );
    bench.bmc.put(
        &bios,
        json!({ "@odata.id": bios, "Id": "Installed-159-2.1.0__BIOS.Setup.1-1", "Version": "2.1.0" }),
    );
    bench.bmc.next("GET", &nic, Act::Answer(500, error("SYS446", "internal error")));
    let found = bench.client.firmware_inventory().await.unwrap();
    assert_eq!((found.components.len(), found.unreadable.len(), found.complete), (1, 1, false));
    assert_eq!(found.unreadable[0].what, nic);
    // A null version is unknown, too.
    bench
        .bmc
        .put(&nic, json!({ "@odata.id": nic, "Id": "Installed-0-22.0__NIC.Slot.1-1-1", "Version": null }));
    let found = bench.client.firmware_inventory().await.unwrap();
    assert_eq!(found.installed("NIC.Slot.1-1-1").unwrap().version, None);
}

#[tokio::test(start_paused = true)]
async fn d22_already_installed_comes_as_400_and_is_no_failure() {
    let bench = bench(Bmc::small());
    let text = "catalog has either unsupported firmware packages or same version installed";
    let accepted = update(&bench, Act::Answer(400, error("IDRAC.2.7.SUP029", text))).await.unwrap();
    assert!(accepted.up_to_date && accepted.task.is_none());
    assert_eq!(accepted.message.unwrap().short_id(), Some("SUP029"));
    let class = |act| async { update(&bench, act).await.unwrap_err().class() };
    assert_eq!(class(Act::Answer(400, error("IDRAC.2.7.SUP028", "x"))).await, Class::Refused);
    assert_eq!(class(Act::Answer(400, error("IDRAC.2.7.SUP030", "x"))).await, Class::Refused);
    assert!(matches!(class(Act::Answer(400, error("IDRAC.2.7.SUP031", "x"))).await, Class::Busy { .. }));
    assert_eq!(class(Act::Answer(400, error("IDRAC.2.7.PR21", "x"))).await, Class::Permanent);
}

#[tokio::test(start_paused = true)]
async fn d25_one_dead_subsystem_hides_nothing() {
    let bench = bench(Bmc::small());
    bench.bmc.next("GET", UPDATE_SERVICE, Act::Answer(500, error("SYS446", "internal error")));
    bench.bmc.remove("/redfish/v1/Systems/System.Embedded.1");
    let capabilities = bench.client.capabilities().await.unwrap();
    let dead: Vec<&str> = capabilities.unreadable.iter().map(|part| part.what.as_str()).collect();
    assert_eq!(dead, ["update service", "system"]);
    assert_eq!(capabilities.oem_jobs.as_deref(), Some(OEM_JOBS));
    let identity = bench.client.identity().await.unwrap();
    assert_eq!(identity.bmc_version.as_deref(), Some("7.00.00.00"));
    assert_eq!((identity.service_tag.as_deref(), identity.unreadable.len()), (Some("ABC1234"), 1));
    assert_eq!(identity.generation, Generation::Idrac9);
    bench.client.jobs().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn d26_what_is_not_declared_is_not_sent() {
    let bench = bench(Bmc::small());
    let nfs =
        SimpleUpdate { image_uri: "nfs://10.0.0.5/share/BIOS.EXE".to_owned(), ..SimpleUpdate::default() };
    assert_eq!(bench.client.simple_update(&nfs, soon()).await.unwrap_err().class(), Class::Unsupported);
    let later = SimpleUpdate { apply_time: Some(ApplyTime::AtMaintenanceWindowStart), ..bios() };
    assert_eq!(bench.client.simple_update(&later, soon()).await.unwrap_err().class(), Class::Unsupported);
    let failed = bench.client.reset(ResetKind::PowerCycle, soon()).await.unwrap_err();
    assert_eq!(failed.class(), Class::Unsupported);
    assert_eq!(
        bench.bmc.seen().iter().filter(|seen| seen.method == "POST" && seen.path != SESSIONS).count(),
        0
    );
    bench.bmc.put(UPDATE_SERVICE, json!({ "ServiceEnabled": true }));
    assert_eq!(bench.client.simple_update(&bios(), soon()).await.unwrap_err().class(), Class::Unsupported);
}

#[test]
fn d27_generation_decides_before_the_version() {
    let idrac10 = (Generation::Idrac10, "1.30.10.50");
    assert!(compare_firmware(idrac10, (Generation::Idrac9, "7.00.60.00")).is_gt());
    assert!(compare_firmware(idrac10, (Generation::Idrac10, "1.5.0.0")).is_gt());
    assert_eq!(Generation::from_manager_model("17G Monolithic"), Generation::Idrac10);
    assert_eq!(Generation::from_manager_model("13G DCS"), Generation::Idrac8);
    assert_eq!(Generation::from_system_model("PowerEdge R7725"), Generation::Idrac10);
    assert_eq!(Generation::from_system_model("PowerEdge R750xs"), Generation::Idrac9);
    assert_eq!(Generation::from_system_model("PowerEdge T330"), Generation::Idrac8);
    assert_eq!(Generation::from_system_model("ProLiant DL380"), Generation::Other);
}

#[tokio::test(start_paused = true)]
async fn d30_three_ways_to_name_a_task() {
    let bench = bench(Bmc::small());
    let id = |accepted: Accepted| accepted.task.unwrap().id.unwrap();
    let location = vec![("location", "/redfish/v1/TaskService/Tasks/JID_1".to_owned())];
    assert_eq!(id(update(&bench, Act::Raw(202, location, Bytes::new())).await.unwrap()), "JID_1");
    let absolute =
        vec![("location", "https://10.0.0.7/redfish/v1/TaskService/TaskMonitors/JID_2".to_owned())];
    assert_eq!(id(update(&bench, Act::Raw(202, absolute, Bytes::new())).await.unwrap()), "JID_2");
    let body = json!({ "@odata.id": "/redfish/v1/TaskService/Tasks/3", "Id": "3", "TaskState": "New" });
    assert_eq!(id(update(&bench, Act::Answer(202, body)).await.unwrap()), "3");
    let supermicro = json!({ "Accepted": { "code": "Base.v1_4_0.Accepted", "@Message.ExtendedInfo": [
        { "MessageId": "SMC.1.0.OemSimpleupdateAcceptedMessage", "MessageArgs": ["/redfish/v1/TaskService/Tasks/4"] }] } });
    assert_eq!(id(update(&bench, Act::Answer(202, supermicro)).await.unwrap()), "4");
    let text = json!({ "@Message.ExtendedInfo": [{ "MessageId": "IDRAC.2.7.JCP027", "Message": "job JID_55 is created" }] });
    assert_eq!(id(update(&bench, Act::Answer(202, text)).await.unwrap()), "JID_55");
    // Another host's Location is not followed, and nothing at all is no task.
    let evil = vec![("location", "https://evil.example/redfish/v1/TaskService/Tasks/9".to_owned())];
    assert!(update(&bench, Act::Raw(202, evil, Bytes::new())).await.unwrap().task.is_none());
}

#[tokio::test(start_paused = true)]
async fn d36_a_job_that_never_starts_stays_what_it_is() {
    let bench = bench(Bmc::small());
    for (sent, state) in [("New", TaskState::New), ("Scheduled", TaskState::Scheduled)] {
        bench.bmc.put(TASK, json!({ "Id": "JID_7", "JobState": sent, "PercentComplete": 0 }));
        let progress = bench.client.follow(&task("JID_7")).await.unwrap();
        assert_eq!(progress.state, state);
        assert!(!progress.state.is_final());
    }
    bench.bmc.put(TASK, json!({ "Id": "JID_7", "JobState": "Dreaming", "PercentComplete": "lots" }));
    let progress = bench.client.follow(&task("JID_7")).await.unwrap();
    assert_eq!((progress.state, progress.percent), (TaskState::Other("Dreaming".to_owned()), None));
}

#[tokio::test(start_paused = true)]
async fn d45_pages_are_followed_counted_and_never_in_circles() {
    let bench = bench(Bmc::small());
    let job = |id: u32| json!({ "@odata.id": format!("{OEM_JOBS}/JID_{id}"), "Id": format!("JID_{id}"), "JobState": "Completed" });
    let page = |ids: [u32; 2], next: Option<&str>| {
        let mut page = json!({ "Members": ids.map(job), "Members@odata.count": 4 });
        if let Some(next) = next {
            page["Members@odata.nextLink"] = json!(format!("{OEM_JOBS}{next}"));
        }
        page
    };
    bench.bmc.put(OEM_JOBS, page([1, 2], Some("?$skip=2")));
    let second = format!("{OEM_JOBS}?$skip=2");
    bench.bmc.next("GET", &second, Act::Answer(200, page([3, 4], None)));
    let jobs = bench.client.jobs().await.unwrap();
    assert_eq!((jobs.jobs.len(), jobs.complete), (4, true));
    // The second page leads back to the first one.
    bench.bmc.next("GET", &second, Act::Answer(200, page([3, 4], Some(""))));
    let jobs = bench.client.jobs().await.unwrap();
    assert_eq!((jobs.jobs.len(), jobs.complete), (4, false));
    // Fewer members than counted.
    bench.bmc.put(OEM_JOBS, page([1, 2], None));
    assert!(!bench.client.jobs().await.unwrap().complete);
}

#[tokio::test(start_paused = true)]
async fn several_systems_need_a_choice() {
    let bmc = Bmc::small();
    let link = |path: &str| json!({ "@odata.id": path });
    let members = [link("/redfish/v1/Systems/a"), link("/redfish/v1/Systems/b")];
    bmc.put("/redfish/v1/Systems", json!({ "Members": members }));
    bmc.put("/redfish/v1/Systems/b", json!({ "Id": "b", "PowerState": "Off" }));
    let bench = bench(bmc.clone());
    let failed = bench.client.reset(ResetKind::On, soon()).await.unwrap_err();
    assert_eq!(failed.class(), Class::Refused);
    let words = failed.to_string();
    assert!(
        words.ends_with("Name one in the server's address, such as https://HOST/redfish/v1/Systems/a"),
        "{words}"
    );
    let options = Options { system: Some("b".to_owned()), ..Options::default() };
    let chosen = bench_with(bmc, crate::support::PASSWORD, options);
    assert_eq!(chosen.client.system().await.unwrap().path, "/redfish/v1/Systems/b");
}

#[tokio::test(start_paused = true)]
async fn a_package_is_sent_as_two_parts() {
    let bench = bench(Bmc::small());
    let path = "/redfish/v1/UpdateService/MultipartUpload";
    let location = vec![("location", "/redfish/v1/TaskService/Tasks/JID_5".to_owned())];
    bench.bmc.next("POST", path, Act::Raw(202, location, Bytes::new()));
    let update = MultipartUpdate {
        package: Bytes::from(vec![7; 200_000]),
        file_name: "BIOS_1.9.0.EXE".to_owned(),
        apply_time: Some(ApplyTime::OnReset),
        targets: Vec::new(),
    };
    let accepted = bench.client.multipart_update(&update, soon()).await.unwrap();
    assert_eq!(accepted.task.unwrap().id.as_deref(), Some("JID_5"));
    let seen = bench.bmc.seen();
    let sent = &seen.iter().find(|seen| seen.path == path).unwrap().body;
    let text = String::from_utf8_lossy(sent);
    assert!(text.contains("name=\"UpdateParameters\"\r\nContent-Type: application/json"));
    assert!(text.contains("\"@Redfish.OperationApplyTime\":\"OnReset\""));
    assert!(text.contains("name=\"UpdateFile\"; filename=\"BIOS_1.9.0.EXE\""));
    assert!(sent.len() > 200_000);
    let evil = MultipartUpdate { file_name: "a\"\r\nX: y".to_owned(), ..update };
    assert_eq!(bench.client.multipart_update(&evil, soon()).await.unwrap_err().class(), Class::Refused);
}

#[tokio::test(start_paused = true)]
async fn expansion_that_is_declared_but_refused_is_given_up() {
    let bench = bench(Bmc::small());
    let mut root: Value = json!({ "Links": { "Sessions": { "@odata.id": SESSIONS } },
        "Managers": { "@odata.id": "/redfish/v1/Managers" },
        "ProtocolFeaturesSupported": { "ExpandQuery": { "NoLinks": true, "Levels": true } } });
    root["JobService"] = json!({ "@odata.id": "/redfish/v1/JobService" });
    bench.bmc.put("/redfish/v1", root);
    let expanded = format!("{OEM_JOBS}?$expand=.($levels=1)");
    bench.bmc.next("GET", &expanded, Act::Answer(501, error("Base.1.12.QueryNotSupported", "no")));
    assert!(bench.client.jobs().await.unwrap().complete);
    bench.client.jobs().await.unwrap();
    assert_eq!(bench.bmc.count("GET", &expanded), 1);
}

/// A BMC that is not ready says so with 400 or 500; the next collection is asked for expanded again.
#[tokio::test(start_paused = true)]
async fn one_hiccup_does_not_switch_expansion_off() {
    let bench = bench(Bmc::small());
    bench.bmc.put(
        "/redfish/v1",
        json!({ "Links": { "Sessions": { "@odata.id": SESSIONS } },
        "Managers": { "@odata.id": "/redfish/v1/Managers" },
        "ProtocolFeaturesSupported": { "ExpandQuery": { "NoLinks": true, "Levels": true } } }),
    );
    let expanded = format!("{OEM_JOBS}?$expand=.($levels=1)");
    bench.bmc.next("GET", &expanded, Act::Answer(400, error("IDRAC.2.7.SWC0700", "not ready")));
    bench.bmc.next("GET", &expanded, Act::Answer(500, json!({})));
    for _ in 0..3 {
        bench.client.jobs().await.unwrap();
    }
    assert_eq!(bench.bmc.count("GET", &expanded), 3);
}

/// A BMC update moves the job queue: the first 404 makes the client look for it again.
#[tokio::test(start_paused = true)]
async fn a_remembered_path_that_has_moved_is_found_again() {
    let moved = "/redfish/v1/Managers/iDRAC.Embedded.1/Jobs5";
    let bench = bench(Bmc::small());
    bench.client.jobs().await.unwrap();
    bench.bmc.remove(OEM_JOBS);
    bench.bmc.put(moved, json!({ "Members": [] }));
    let manager = "/redfish/v1/Managers/iDRAC.Embedded.1";
    let text = String::from_utf8(bench.bmc.document(manager).unwrap().to_vec()).unwrap();
    bench.bmc.put_raw(manager, text.replace(OEM_JOBS, moved));
    let _told_404 = bench.client.jobs().await;
    bench.client.jobs().await.unwrap();
    assert!(bench.bmc.count("GET", moved) > 0);
}

/// What this account may not do says nothing about its password.
#[tokio::test(start_paused = true)]
async fn a_403_after_an_accepted_login_names_the_path_and_is_no_refused_password() {
    let path = "/redfish/v1/Systems/System.Embedded.1";
    let bench = bench(Bmc::small());
    let answer = error("Base.1.12.InsufficientPrivilege", "not with this account");
    bench.bmc.next("GET", path, Act::Answer(403, answer));
    let failed = bench.client.system().await.unwrap_err();
    assert_eq!(failed.class(), Class::Forbidden);
    assert!(failed.to_string().contains(path), "{failed}");
    assert_eq!(*bench.gate.outcomes.lock().unwrap(), [AuthOutcome::Accepted]);
    let licence = Act::Answer(403, error("SMC.1.0.OemLicenseNotPassed", "no licence"));
    assert_eq!(update(&bench, licence).await.unwrap_err().class(), Class::Forbidden);
    bench.bmc.next("POST", SESSIONS, Act::Answer(403, json!({})));
    bench.bmc.end_all_sessions();
    assert_eq!(bench.client.system().await.unwrap_err().class(), Class::Auth, "at the login it is one");
}

/// A service that refuses the password's form repeats it in the message (DSP8011, PropertyValueFormatError).
#[tokio::test(start_paused = true)]
async fn a_refused_login_tells_its_status_and_message_id_alone() {
    let bench = bench_with(Bmc::small(), "s3cret-p4ss", Options::default());
    let text = "The value 's3cret-p4ss' for the property Password is of a different format";
    bench.bmc.next("POST", SESSIONS, Act::Answer(400, error("Base.1.12.PropertyValueFormatError", text)));
    let failed = bench.client.system().await.unwrap_err();
    let shown = format!("{failed} {failed:?} {} {:?}", failed.text(), failed.evidence());
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(failed.to_string().contains("status 400, PropertyValueFormatError"), "{failed}");
}

#[tokio::test(start_paused = true)]
async fn no_secret_is_ever_shown() {
    let bench = bench_with(Bmc::small(), "s3cret-p4ss", Options::default());
    let failed = bench.client.system().await.unwrap_err();
    let handle = SessionHandle::new("/x", "s3cret-p4ss".to_owned().into());
    let credentials = rackhand_redfish::Credentials::new("root", "s3cret-p4ss".to_owned().into());
    let body = rackhand_redfish::Body::from(Bytes::from("s3cret-p4ss"));
    let shown = format!("{failed} {failed:?} {handle:?} {credentials:?} {body:?}");
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(shown.contains("10.0.0.7") && shown.contains("SYS415"));
}

#[tokio::test(start_paused = true)]
async fn a_mutation_ends_by_its_deadline_even_while_it_reads_or_waits_for_a_login() {
    let bench = bench(Bmc::small());
    bench.bmc.latency(Duration::from_secs(20));
    let started = Instant::now();
    let deadline = started + Duration::from_secs(30);
    let (read, update) = tokio::join!(bench.client.system(), async {
        let update = bios();
        bench
            .client
            .simple_update(&update, deadline)
            .await
            .map(drop)
            .map_err(|error| (error, started.elapsed()))
    });
    assert!(read.is_ok());
    let (failed, elapsed) = update.unwrap_err();
    assert_eq!((failed.class(), elapsed), (Class::NotSent, Duration::from_secs(30)));
    assert_eq!(bench.bmc.count("POST", SIMPLE_UPDATE), 0);
}

#[test]
fn the_clients_futures_can_be_spawned() {
    fn is_send<T: Send>(_: &T) {}
    let Bench { client, .. } = bench(Bmc::small());
    let (update, upload) = (bios(), MultipartUpdate::default());
    is_send(&client.identity());
    is_send(&client.capabilities());
    is_send(&client.firmware_inventory());
    is_send(&client.jobs());
    let nothing = TaskRef::default();
    is_send(&client.follow(&nothing));
    let deadline = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async { soon() });
    is_send(&client.simple_update(&update, deadline));
    is_send(&client.multipart_update(&upload, deadline));
    is_send(&client.reset(ResetKind::On, deadline));
    is_send(&client.delete_job("JID_7", deadline));
    is_send(&client.close());
}
