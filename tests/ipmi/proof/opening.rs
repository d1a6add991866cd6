//! The first characters of a console, and breaks, with `ipmi_sim`, whose numbers outlive a console.

use std::time::Duration;

use rackhand_ipmi::sol::SolOptions;
use rackhand_ipmi_tests::hardware::ADMINISTRATOR;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::sol::{bmc, expect, session};

/// Consoles one after the other that end with each number, once around; each begins with one character, as a
/// person does. Nothing is lost and nothing comes twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_character_arrives_whatever_number_the_last_console_ended_with() {
    let (bmc, mut host) = bmc().await;
    let ours = session(bmc.address(), ADMINISTRATOR, &bmc).await;
    for count in (1..=4).chain(14..=17) {
        for _ in 0..2 {
            let mut stream = ours.sol(SolOptions::default()).await.unwrap();
            for number in 0..count {
                // One packet each: the next waits for the answer.
                let key = [b'a' + number];
                stream.write_all(&key).await.unwrap();
                stream.flush().await.unwrap();
                expect(&mut host, &key).await;
            }
            stream.close().await.unwrap();
        }
    }
    let more = timeout(Duration::from_millis(500), host.read(&mut [0; 1])).await;
    assert!(more.is_err(), "nothing comes twice");
    ours.close().await;
}

/// It breaks its line as telnet does (IAC BREAK), between what is written before and after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_break_reaches_the_host_in_its_place() {
    let (bmc, mut host) = bmc().await;
    let ours = session(bmc.address(), ADMINISTRATOR, &bmc).await;
    let mut stream = ours.sol(SolOptions::default()).await.unwrap();
    stream.write_all(b"before").await.unwrap();
    expect(&mut host, b"before").await;
    let control = stream.control();
    control.send_break();
    stream.write_all(b"after").await.unwrap();
    expect(&mut host, b"\xff\xf3after").await;
    assert_eq!((control.status().borrow().breaks_unanswered, control.end()), (0, None));
    stream.close().await.unwrap();
    ours.close().await;
}
