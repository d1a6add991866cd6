//! Ten thousand datagrams that a BMC would not send, from its address, into a live session.

use rackhand_ipmi::{Carrier as _, commands::device::GetDeviceId};
use rackhand_ipmi_tests::{Bmc, Hardware, Relay, hardware::ADMINISTRATOR, random::Random, relay::Ways};

use crate::{
    ours::{config, connect},
    parity::Read,
};

const ROUNDS: usize = 200;
const IN_A_ROUND: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_bad_datagrams_leave_a_session_as_it_was() {
    let bmc = Bmc::start(Hardware::numbered(3)).await;
    let relay = Relay::start(bmc.address(), 5, Ways::default()).await;
    relay.record();
    let client = connect(relay.address(), config(ADMINISTRATOR, &bmc.hardware.password)).await.unwrap();
    let device = client.run(&GetDeviceId).await.unwrap();
    // Handshake and answers, genuine when they were sent.
    let genuine: Vec<_> = relay.record().into_iter().map(|seen| seen.bytes).collect();
    let mut random = Random::new(0x1b41);
    let before = relay.counts().to_bmc.received;
    for _ in 0..ROUNDS {
        for _ in 0..IN_A_ROUND {
            relay.inject(&bad(&mut random, &genuine)).await;
        }
        assert_eq!(client.run(&GetDeviceId).await.unwrap(), device);
    }
    let asked = relay.counts().to_bmc.received - before;
    assert_eq!(asked, ROUNDS as u64, "a datagram for each command: nothing was answered, nothing repeated");
    Read::from(&client).await.is_what_was_configured(&bmc.hardware);
    client.close().await;
}

/// Also while a session is being opened nothing but the BMC's own answers count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_datagrams_do_not_disturb_a_handshake() {
    let bmc = Bmc::start(Hardware::numbered(3)).await;
    let relay = std::sync::Arc::new(Relay::start(bmc.address(), 5, Ways::default()).await);
    relay.record();
    let config = config(ADMINISTRATOR, &bmc.hardware.password);
    let client = connect(relay.address(), config.clone()).await.unwrap();
    let genuine: Vec<_> = relay.record().into_iter().map(|seen| seen.bytes).collect();
    client.close().await;
    let noisy = std::sync::Arc::clone(&relay);
    let noise = tokio::spawn(async move {
        let mut random = Random::new(0x1b42);
        loop {
            noisy.inject(&bad(&mut random, &genuine)).await;
            tokio::time::sleep(std::time::Duration::from_micros(100)).await;
        }
    });
    for _ in 0..10 {
        let client = connect(relay.address(), config.clone()).await.unwrap();
        client.run(&GetDeviceId).await.unwrap();
        client.close().await;
    }
    noise.abort();
}

/// A genuine datagram replayed, damaged, cut or extended; or pure chance.
fn bad(random: &mut Random, genuine: &[Vec<u8>]) -> Vec<u8> {
    let at = |random: &mut Random, length: usize| usize::try_from(random.below(length as u64)).unwrap();
    let mut bytes = genuine[at(random, genuine.len())].clone();
    match random.below(6) {
        0 => {}
        1 => {
            for _ in 0..=random.below(4) {
                let position = at(random, bytes.len());
                bytes[position] ^= 1 << random.below(8);
            }
        }
        2 => bytes.truncate(at(random, bytes.len())),
        3 => {
            let more = random.below(300);
            bytes.extend((0..more).map(|_| random.byte()));
        }
        4 => {
            // The header stays: a session packet with a chance body.
            let keep = bytes.len().min(16);
            for byte in &mut bytes[keep..] {
                *byte = random.byte();
            }
        }
        _ => {
            let length = random.below(600);
            bytes = (0..length).map(|_| random.byte()).collect();
        }
    }
    bytes
}
