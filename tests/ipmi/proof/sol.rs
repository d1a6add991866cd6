//! Serial-over-LAN with `ipmi_sim`: every byte once and in order through a bad network, clear ends, and
//! respect for other people's consoles.
//!
//! What the network may do is bounded by what `ipmi_sim` and the protocol survive, whatever the client:
//!
//! * `ipmi_sim` gives up what it has to send after the sixth repetition (1 s each) since it last had nothing
//!   to send: where datagrams are lost, bursts towards the client are short and end before the next one
//!   begins.
//! * It takes a late copy of a packet for a new one, for it does not look for replays: copies towards it
//!   arrive one behind the other, and nothing towards it is held back for as long as a repetition takes.
//! * Numbers repeat after 15 packets, here after a millisecond. Where the BMC gets copies it answers twice,
//!   and a late second answer would count for a later packet: copies towards it and delays from it are not
//!   combined.

use std::{net::SocketAddr, time::Duration};

use rackhand_ipmi::{
    client::Client,
    session::{Config, Privilege},
    sol::{OwnSession, SolEnd, SolError, SolOptions, SolStream},
    wire::suite::Suite,
};
use rackhand_ipmi_tests::{
    Bmc, ForeignBmc, Hardware, Relay,
    hardware::{ADMINISTRATOR, OPERATOR},
    pyghmi::Mode,
    reference::Ipmitool,
    relay::{Ways, Weather},
    sim::With,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::ours::{config, connect};

/// Longest time for anything here.
const LONG: Duration = Duration::from_secs(120);
/// `ipmi_sim` repeats after a second, at most five times in a row.
const QUIET: Duration = Duration::from_secs(15);
/// Between bursts.
const REST: Duration = Duration::from_millis(5);
const LINES: usize = 10_000;

pub async fn bmc() -> (Bmc, TcpStream) {
    let bmc = Bmc::start_with(Hardware::numbered(0), With { console: true, ..With::default() }).await;
    let host = bmc.console().await;
    (bmc, host)
}

pub async fn session(address: SocketAddr, user: &str, bmc: &Bmc) -> Client {
    let config = config(user, &bmc.hardware.password);
    let privilege = if user == OPERATOR { Privilege::Operator } else { Privilege::Administrator };
    connect(address, Config { privilege, ..config }).await.unwrap()
}

/// Lines of different lengths, each recognisable.
fn lines(what: &str, count: usize) -> Vec<u8> {
    (0..count).flat_map(|number| format!("{what}{number}{}\n", &"++"[..number % 3]).into_bytes()).collect()
}

/// Reads as much as was sent; fails at the first byte that is not the one sent.
pub async fn expect(mut from: impl AsyncRead + Unpin, sent: &[u8]) {
    let mut buffer = vec![0; 4_096];
    let mut at = 0;
    while at < sent.len() {
        let read = timeout(QUIET, from.read(&mut buffer)).await;
        let read = read.unwrap_or_else(|_| panic!("nothing more after {at} of {} bytes", sent.len()));
        let count = read.unwrap_or_else(|error| panic!("after {at} bytes: {error}"));
        assert!(count > 0, "the end after {at} of {} bytes", sent.len());
        let (found, wanted) = (&buffer[..count], &sent[at..sent.len().min(at + count)]);
        assert_eq!(
            String::from_utf8_lossy(found),
            String::from_utf8_lossy(wanted),
            "after {at} of {} bytes",
            sent.len()
        );
        at += count;
    }
}

/// Writes in bursts of so many bytes, each once the one before has arrived.
async fn bursts(
    to: &mut (impl AsyncWrite + Unpin),
    from: &mut (impl AsyncRead + Unpin),
    sent: &[u8],
    burst: usize,
) {
    for part in sent.chunks(burst) {
        let write = async {
            to.write_all(part).await.unwrap();
            to.flush().await.unwrap();
        };
        tokio::join!(write, expect(&mut *from, part));
        if burst < sent.len() {
            // Until the last answer is through.
            sleep(REST).await;
        }
    }
}

const DELAY: Duration = Duration::from_millis(2);
const LATE: Weather = Weather { dropped: 0, duplicated: 0, delayed: 20, delay: DELAY, apart: false };
const TWICE: Weather = Weather { dropped: 0, duplicated: 20, delayed: 0, delay: DELAY, apart: false };
const LATE_AND_TWICE: Weather = Weather { duplicated: 20, apart: true, ..LATE };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_lines_at_once_both_ways_arrive_once_and_in_order() {
    for weather in
        [Ways { to_bmc: LATE, to_client: LATE_AND_TWICE }, Ways { to_bmc: TWICE, to_client: TWICE }]
    {
        let (mut bmc, host) = bmc().await;
        let relay = Relay::start(bmc.address(), 1, weather).await;
        let ours = session(relay.address(), ADMINISTRATOR, &bmc).await;
        let stream = ours.sol(SolOptions::default()).await.unwrap();
        exchange(&mut bmc, both_ways(stream, host, usize::MAX)).await;
        let Ways { to_bmc, to_client } = relay.counts();
        assert!(to_bmc.delayed + to_bmc.duplicated > 100, "{to_bmc:?}");
        assert!(to_client.duplicated > 100, "{to_client:?}");
        ours.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_lines_through_loss_arrive_once_and_in_order() {
    let (mut bmc, host) = bmc().await;
    let relay = Relay::start(bmc.address(), 2, Ways::default()).await;
    let ours = session(relay.address(), ADMINISTRATOR, &bmc).await;
    let stream = ours.sol(SolOptions::default()).await.unwrap();
    relay.set(Ways {
        to_bmc: Weather { dropped: 2, ..LATE },
        to_client: Weather { dropped: 2, ..LATE_AND_TWICE },
    });
    exchange(&mut bmc, both_ways(stream, host, 512)).await;
    let Ways { to_bmc, to_client } = relay.counts();
    assert!(to_bmc.dropped > 20 && to_client.dropped > 20, "{to_bmc:?}, {to_client:?}");
    relay.set(Ways::default());
    ours.close().await;
}

/// A BMC that ended is told apart from one that failed.
async fn exchange(bmc: &mut Bmc, exchange: impl Future<Output = ()> + Send + 'static) {
    if let Err(error) = tokio::spawn(exchange).await {
        assert!(!bmc.ended(), "ipmi_sim itself ended: {}", bmc.log());
        std::panic::resume_unwind(error.into_panic());
    }
}

async fn both_ways(stream: SolStream, host: TcpStream, burst: usize) {
    let (to_host, to_us) = (lines("t", LINES), lines("h", LINES));
    // Both ends stay whole until both directions are through: half a line is none.
    let (mut from_bmc, mut to_bmc) = tokio::io::split(stream);
    let (mut from_serial, mut to_serial) = host.into_split();
    let down = bursts(&mut to_serial, &mut from_bmc, &to_us, burst.min(to_us.len()));
    let up = bursts(&mut to_bmc, &mut from_serial, &to_host, to_host.len());
    timeout(LONG, async { tokio::join!(down, up) }).await.expect("in time");
}

/// How a stream ends, within `within`.
async fn end(stream: &mut SolStream, within: Duration) -> SolEnd {
    let mut buffer = [0; 256];
    let read = async {
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) => panic!("an end without a reason"),
                Ok(_) => {}
                Err(error) => return SolEnd::of(&error).cloned().unwrap_or_else(|| panic!("{error}")),
            }
        }
    };
    timeout(within, read).await.expect("the console ends in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bmc_that_dies_ends_the_console_while_it_is_typed_at() {
    let (mut bmc, mut host) = bmc().await;
    let ours = session(bmc.address(), ADMINISTRATOR, &bmc).await;
    let mut stream = ours.sol(SolOptions::default()).await.unwrap();
    host.write_all(b"going down").await.unwrap();
    expect(&mut stream, b"going down").await;
    bmc.kill();
    stream.write_all(b"anybody?").await.unwrap();
    let began = Instant::now();
    let end = end(&mut stream, Duration::from_secs(60)).await;
    assert!(matches!(end, SolEnd::SessionLost(_) | SolEnd::TooManyRetries { .. }), "{end:?}");
    assert!(stream.write_all(b"more").await.is_err(), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bmc_that_dies_or_is_reset_ends_a_quiet_console() {
    tokio::join!(quiet_end(false), quiet_end(true));
}

async fn quiet_end(reset: bool) {
    let (mut bmc, mut host) = bmc().await;
    let ours = session(bmc.address(), ADMINISTRATOR, &bmc).await;
    let mut stream = ours.sol(SolOptions::default()).await.unwrap();
    host.write_all(b"quiet").await.unwrap();
    expect(&mut stream, b"quiet").await;
    if reset {
        bmc.restart().await;
    } else {
        bmc.kill();
    }
    let end = end(&mut stream, Duration::from_secs(60)).await;
    assert!(!matches!(end, SolEnd::Closed), "reset {reset}: {end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_console_is_refused_and_told_who_has_the_first() {
    let (bmc, mut host) = bmc().await;
    let first = session(bmc.address(), OPERATOR, &bmc).await;
    let mut stream = first.sol(SolOptions::default()).await.unwrap();
    let second = session(bmc.address(), ADMINISTRATOR, &bmc).await;
    let error = second.sol(SolOptions::default()).await.unwrap_err();
    let SolError::InUse(holder) = &error else { panic!("{error}") };
    // User 2 is the operator.
    assert_eq!((holder.session_id.is_some(), holder.user), (true, Some(2)), "{holder:?}");
    assert!(error.to_string().contains("user 2"), "{error}");
    host.write_all(b"still here").await.unwrap();
    expect(&mut stream, b"still here").await;
    stream.close().await.unwrap();
    // Given back: the next one gets it.
    let stream = second.sol(SolOptions::default()).await.unwrap();
    stream.close().await.unwrap();
    first.close().await;
    second.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d39_our_own_stale_console_is_taken_back() {
    let (bmc, mut host) = bmc().await;
    let relay = Relay::start(bmc.address(), 3, Ways::default()).await;
    let lost = session(relay.address(), ADMINISTRATOR, &bmc).await;
    let stream = lost.sol(SolOptions::default()).await.unwrap();
    let own: OwnSession = stream.activated().own.expect("ipmi_sim tells who holds the console");
    // An executor that dies says nothing.
    relay.cut();
    drop(stream);
    drop(lost);
    let next = session(bmc.address(), ADMINISTRATOR, &bmc).await;
    let forgot = next.sol(SolOptions::default()).await.unwrap_err();
    assert!(matches!(forgot, SolError::InUse(_)), "{forgot}");
    let options = SolOptions { remembered: Some(own), ..SolOptions::default() };
    let mut stream = next.sol(options).await.unwrap();
    assert!(stream.activated().recovered);
    host.write_all(b"back").await.unwrap();
    timeout(LONG, expect(&mut stream, b"back")).await.unwrap();
    stream.close().await.unwrap();
    next.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d39_a_console_of_ipmitool_is_never_taken() {
    let (bmc, mut host) = bmc().await;
    // A session that we had, and remember.
    let ours = session(bmc.address(), ADMINISTRATOR, &bmc).await;
    let stream = ours.sol(SolOptions::default()).await.unwrap();
    let remembered = stream.activated().own;
    stream.close().await.unwrap();
    let ipmitool = Ipmitool::new(bmc.address(), ADMINISTRATOR, &bmc.hardware.password);
    let (theirs, _keyboard) = ipmitool.console();
    until(|| theirs.log().contains("SOL Session operational")).await;
    for remembered in [None, remembered] {
        let options = SolOptions { remembered, ..SolOptions::default() };
        let error = ours.sol(options).await.unwrap_err();
        assert!(matches!(error, SolError::InUse(_)), "{error}");
    }
    host.write_all(b"for ipmitool").await.unwrap();
    until(|| theirs.log().contains("for ipmitool")).await;
    ours.close().await;
}

/// pyghmi's console echoes; unlike `ipmi_sim` it does not tell who holds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_under_suite_17_echoes() {
    let bmc = ForeignBmc::start(Mode::Honest).await;
    let client = connect(bmc.address(), config(ForeignBmc::USER, ForeignBmc::PASSWORD)).await.unwrap();
    assert_eq!(client.suite(), Suite::S17);
    let mut stream = client.sol(SolOptions::default()).await.unwrap();
    for number in 0..50 {
        let line = format!("line {number}\n");
        stream.write_all(line.as_bytes()).await.unwrap();
        expect(&mut stream, line.as_bytes()).await;
    }
    stream.close().await.unwrap();
    client.close().await;
}

async fn until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "never so");
        sleep(Duration::from_millis(50)).await;
    }
}
