//! What BMCs do in the field: freeze under load, be busy, refuse commands for good.

use std::time::Duration;

use rackhand_ipmi::{
    Carrier as _, CompletionCode, Error, NetFn, Request,
    client::Client,
    commands::{
        chassis::{ChassisControl, GetChassisStatus},
        device::GetDeviceId,
    },
    session::{Config, Privilege, Timing},
};
use rackhand_ipmi_tests::{
    Bmc, ForeignBmc, Hardware, Relay,
    hardware::{ADMINISTRATOR, READER},
    pyghmi::Mode,
    relay::{Seen, Ways},
};
use tokio::{task::JoinSet, time::Instant};

use crate::ours::{config, connect};

/// Fifty commands asked for at once through a relay that notes each datagram; the notes.
async fn flood(timing: Timing) -> Vec<Seen> {
    let bmc = Bmc::start(Hardware::numbered(0)).await;
    let relay = Relay::start(bmc.address(), 1, Ways::default()).await;
    let config = Config { timing, ..config(ADMINISTRATOR, &bmc.hardware.password) };
    let client: Client = connect(relay.address(), config).await.unwrap();
    relay.record();
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let client = client.clone();
        callers.spawn(async move { client.run(&GetDeviceId).await.unwrap() });
    }
    assert_eq!(callers.join_all().await.len(), 50);
    let seen = relay.record();
    assert!(seen.iter().filter(|seen| seen.to_bmc).count() >= 50);
    client.close().await;
    seen
}

/// The most requests that waited for an answer at one time.
fn most_outstanding(seen: &[Seen]) -> usize {
    let (mut waiting, mut most) = (0_usize, 0);
    for datagram in seen {
        waiting = if datagram.to_bmc { waiting + 1 } else { waiting.saturating_sub(1) };
        most = most.max(waiting);
    }
    most
}

#[tokio::test]
async fn d38_a_bmc_gets_one_command_at_a_time() {
    assert_eq!(most_outstanding(&flood(Timing::default()).await), 1);
}

#[tokio::test]
async fn d38_no_more_commands_are_under_way_than_the_bmc_bears() {
    let seen = flood(Timing { window: 3, ..Timing::default() }).await;
    assert_eq!(most_outstanding(&seen), 3);
}

#[tokio::test]
async fn d38_commands_keep_their_distance() {
    let gap = Duration::from_millis(20);
    let seen = flood(Timing { gap, ..Timing::default() }).await;
    let sent: Vec<Instant> = seen.iter().filter(|seen| seen.to_bmc).map(|seen| seen.at).collect();
    // The relay looks at its clock a little later than the client, and not always as much.
    let early = Duration::from_millis(15);
    let first = sent[0];
    for (sent, number) in sent.iter().zip(0_u32..) {
        assert!(*sent + early >= first + gap * number, "command {number} after {:?}", *sent - first);
    }
}

#[tokio::test]
async fn d38_a_busy_bmc_is_asked_again_after_a_rest() {
    let bmc = ForeignBmc::start(Mode::Busy).await;
    let busy_wait = Duration::from_millis(150);
    let timing = Timing { busy_wait, ..Timing::default() };
    let foreign = config(ForeignBmc::USER, ForeignBmc::PASSWORD);
    let client = connect(bmc.address(), Config { timing, ..foreign }).await.unwrap();
    assert!(client.run(&GetChassisStatus).await.unwrap().power_on);
    client.close().await;
    let arrived = bmc.commands();
    assert!(arrived.len() >= 4, "three refusals and an answer: {arrived:?}");
    let rests: Vec<_> = arrived.windows(2).take(3).map(|pair| pair[1] - pair[0]).collect();
    assert!(rests.iter().all(|rest| *rest >= 0.145), "{rests:?}");
}

#[tokio::test]
async fn d38_a_bmc_that_freezes_for_a_while_is_waited_for() {
    let bmc = Bmc::start(Hardware::numbered(0)).await;
    let client = connect(bmc.address(), config(ADMINISTRATOR, &bmc.hardware.password)).await.unwrap();
    bmc.freeze();
    let wait = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        bmc.resume();
    };
    let (answer, ()) = tokio::join!(client.run(&GetDeviceId), wait);
    assert_eq!(answer.unwrap().product, 0x0f02);
    // The repetitions that it finds when it wakes are answered too; nobody takes them for something else.
    assert!(client.run(&GetChassisStatus).await.unwrap().power_on);
    client.close().await;
}

/// A refusal that will not change is told as it is and not tried again.
#[tokio::test]
async fn d43_refusals_for_good_come_back_at_once_and_are_not_repeated() {
    let bmc = ForeignBmc::start(Mode::Honest).await;
    let client = connect(bmc.address(), config(ForeignBmc::USER, ForeignBmc::PASSWORD)).await.unwrap();
    for (code, name) in [
        (0xc1, "invalid command"),
        (0xd4, "insufficient privilege"),
        (0xd5, "not supported in the present state"),
    ] {
        let before = bmc.commands().len();
        // Dell's fan control, as it is refused since iDRAC9 3.34.
        let request = Request { net_fn: NetFn(0x30), code: 0x30, lun: 0, data: vec![code, 0x01] };
        let (completion, data) = client.carry(request).await.unwrap();
        assert_eq!((completion, data.len()), (CompletionCode(code), 0));
        assert!(completion.is_permanent() && !CompletionCode::NODE_BUSY.is_permanent());
        let error = Error::Refused { completion, net_fn: NetFn(0x30), code: 0x30 };
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(bmc.commands().len(), before + 1, "sent once");
    }
    client.close().await;
}

/// `ipmi_sim` does not know any manufacturer's commands.
#[tokio::test]
async fn d43_an_unknown_command_of_a_manufacturer_is_refused_by_name() {
    let bmc = Bmc::start(Hardware::numbered(0)).await;
    let client = connect(bmc.address(), config(ADMINISTRATOR, &bmc.hardware.password)).await.unwrap();
    let request = Request { net_fn: NetFn(0x30), code: 0x30, lun: 0, data: vec![0x01, 0x00] };
    let (completion, _) = client.carry(request).await.unwrap();
    assert_eq!(completion, CompletionCode::INVALID_COMMAND);
    client.close().await;
}

/// A person who may read may not switch.
#[tokio::test]
async fn d43_what_the_privilege_does_not_allow_is_refused_by_name() {
    let bmc = Bmc::start(Hardware::numbered(0)).await;
    let reader = Config { privilege: Privilege::User, ..config(READER, &bmc.hardware.password) };
    let client = connect(bmc.address(), reader).await.unwrap();
    assert!(client.run(&GetChassisStatus).await.unwrap().power_on);
    let error = client.run(&ChassisControl::PowerDown).await.unwrap_err();
    assert!(matches!(error, Error::Refused { completion: CompletionCode::PRIVILEGE, .. }), "{error}");
    assert_eq!(bmc.file("power"), "1");
    client.close().await;
}
