//! Cipher suites: 17 with a server that nobody here wrote, 3 only where 17 is refused before any
//! authentication, and one attempt for a wrong password.

use rackhand_ipmi::{
    Carrier as _, Error,
    commands::chassis::GetChassisStatus,
    error::Rejection,
    session::{Config, SuitePolicy},
    wire::suite::Suite,
};
use rackhand_ipmi_tests::{Bmc, ForeignBmc, Hardware, hardware::ADMINISTRATOR, pyghmi::Mode};

use crate::ours::{config, connect};

fn foreign() -> Config {
    config(ForeignBmc::USER, ForeignBmc::PASSWORD)
}

#[tokio::test]
async fn suite_17_is_spoken_with_a_server_that_nobody_here_wrote() {
    let bmc = ForeignBmc::start(Mode::Honest).await;
    let client = connect(bmc.address(), foreign()).await.unwrap();
    assert_eq!(client.suite(), Suite::S17);
    for _ in 0..20 {
        assert!(client.run(&GetChassisStatus).await.unwrap().power_on);
    }
    client.close().await;
    assert_eq!((bmc.proposals(), bmc.count("session")), (vec![17], 1));
}

#[tokio::test]
async fn a_named_policy_speaks_suite_3() {
    let bmc = ForeignBmc::start(Mode::Honest).await;
    let config = Config { suites: SuitePolicy::Exactly(Suite::S3), ..foreign() };
    let client = connect(bmc.address(), config).await.unwrap();
    assert_eq!(client.suite(), Suite::S3);
    assert!(client.run(&GetChassisStatus).await.unwrap().power_on);
    client.close().await;
    assert_eq!(bmc.proposals(), [3]);
}

#[tokio::test]
async fn d37_suite_3_follows_a_refusal_of_17_that_came_before_authentication() {
    let bmc = ForeignBmc::start(Mode::Refuse17).await;
    let client = connect(bmc.address(), foreign()).await.unwrap();
    assert_eq!(client.suite(), Suite::S3);
    assert!(client.run(&GetChassisStatus).await.unwrap().power_on);
    let pin = Some(client.suite());
    client.close().await;
    // One attempt to log in; and the next one does not ask for 17 any more.
    assert_eq!((bmc.proposals(), bmc.count("rakp1")), (vec![17, 3], 1));
    let client = connect(bmc.address(), Config { pin, ..foreign() }).await.unwrap();
    client.close().await;
    assert_eq!((bmc.proposals(), bmc.count("rakp1")), (vec![17, 3, 3], 2));
}

/// `ipmi_sim` refuses 17 with another status: "invalid authentication algorithm".
#[tokio::test]
async fn d37_ipmi_sim_refuses_17_and_is_spoken_to_with_3() {
    let bmc = Bmc::start(Hardware::numbered(0)).await;
    let client = connect(bmc.address(), config(ADMINISTRATOR, &bmc.hardware.password)).await.unwrap();
    assert_eq!(client.suite(), Suite::S3);
    client.close().await;
}

#[tokio::test]
async fn d37_a_bmc_pinned_to_17_is_never_spoken_to_with_3() {
    let bmc = ForeignBmc::start(Mode::Refuse17).await;
    let pinned = Config { pin: Some(Suite::S17), ..foreign() };
    let strict = Config { suites: SuitePolicy::Strict, ..foreign() };
    for config in [pinned, strict] {
        let error = connect(bmc.address(), config).await.err().expect("refused");
        assert!(matches!(error, Error::SuiteRefused { suite: Suite::S17, .. }), "{error}");
    }
    assert_eq!((bmc.proposals(), bmc.count("rakp1")), (vec![17, 17], 0));
}

#[tokio::test]
async fn d37_an_answer_with_the_algorithms_of_suite_3_is_a_refusal_of_17() {
    let bmc = ForeignBmc::start(Mode::Downgrade).await;
    let strict = Config { suites: SuitePolicy::Strict, ..foreign() };
    let error = connect(bmc.address(), strict).await.err().expect("refused");
    assert!(matches!(error, Error::Downgraded { asked: Suite::S17, .. }), "{error}");
    // Nothing was proved to it, and 3 was not tried.
    assert_eq!((bmc.proposals(), bmc.count("rakp1"), bmc.count("rakp3")), (vec![17], 0, 0));
    let client = connect(bmc.address(), foreign()).await.unwrap();
    assert_eq!(client.suite(), Suite::S3);
    client.close().await;
    assert_eq!((bmc.proposals(), bmc.count("rakp1"), bmc.count("session")), (vec![17, 17, 3], 1, 1));
}

/// To the client a server that does not know the password and a wrong password are the same.
#[tokio::test]
async fn d37_a_wrong_password_is_tried_once_and_leads_to_no_other_suite() {
    for (mode, password) in [(Mode::Honest, "not it"), (Mode::WrongRakp, ForeignBmc::PASSWORD)] {
        let bmc = ForeignBmc::start(mode).await;
        let error = connect(bmc.address(), config(ForeignBmc::USER, password)).await.err().expect("refused");
        assert_eq!(error, Error::Credentials { by: Rejection::Code }, "{mode:?}");
        assert_eq!((bmc.proposals(), bmc.count("rakp1"), bmc.count("session")), (vec![17], 1, 0), "{mode:?}");
        // The server was told that nothing follows; no proof of ours was given.
        let proofs: Vec<_> = bmc.events().into_iter().filter(|event| event["event"] == "rakp3").collect();
        assert!(proofs.iter().all(|event| event["status"] != 0 && event["right"] == false), "{proofs:?}");
    }
}

#[tokio::test]
async fn d37_ipmi_sim_says_who_may_not_come_in() {
    let bmc = Bmc::start(Hardware::numbered(0)).await;
    let wrong = connect(bmc.address(), config(ADMINISTRATOR, "not it")).await.err().expect("refused");
    assert_eq!(wrong, Error::Credentials { by: Rejection::Code });
    let error =
        connect(bmc.address(), config("nobody", &bmc.hardware.password)).await.err().expect("refused");
    assert!(matches!(error, Error::Credentials { by: Rejection::Status(_) }), "{error}");
}
