//! Tests: the stream between a scripted session and its user, in simulated time.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    Activated, OwnSession, Packet, Payload, Settings, SolChannel, SolEnd, SolStream, ack_only,
    packet::{operation, status},
};
use crate::{Carrier, CompletionCode, Error, Request};

const ME: u32 = 0x11;

/// A session whose console is held by `holder`.
#[derive(Clone)]
struct Session {
    holder: Arc<AtomicU32>,
    log: Arc<Mutex<Vec<u8>>>,
}

impl Carrier for Session {
    async fn carry(&self, request: Request) -> Result<(CompletionCode, Vec<u8>), Error> {
        self.log.lock().unwrap().push(request.code);
        let id = self.holder.load(Ordering::SeqCst);
        Ok((CompletionCode::OK, [id.to_le_bytes().to_vec(), vec![0; 8]].concat()))
    }
}

struct Pipe {
    to_bmc: mpsc::UnboundedSender<Packet>,
    from_bmc: mpsc::UnboundedReceiver<Packet>,
}

const LOST: Error =
    Error::Refused { completion: CompletionCode::UNSPECIFIED, net_fn: crate::NetFn::APP, code: 0 };

impl SolChannel for Pipe {
    async fn send(&mut self, payload: Vec<u8>) -> Result<(), Error> {
        self.to_bmc.send(Packet::parse(&payload).unwrap()).map_err(|_| LOST)
    }

    async fn recv(&mut self) -> Result<Vec<u8>, Error> {
        self.from_bmc.recv().await.map(|packet| packet.encode()).ok_or(LOST)
    }
}

struct Bmc {
    session: Session,
    from_console: mpsc::UnboundedReceiver<Packet>,
    to_console: mpsc::UnboundedSender<Packet>,
}

fn start() -> (SolStream, Bmc) {
    let session = Session { holder: Arc::new(AtomicU32::new(ME)), log: Arc::default() };
    let (to_bmc, from_console) = mpsc::unbounded_channel();
    let (to_console, from_bmc) = mpsc::unbounded_channel();
    let activated = Activated {
        instance: 1,
        payload: Payload { inbound_size: 259, outbound_size: 259, port: 623 },
        own: Some(OwnSession { session_id: ME, user: None, console: None }),
        recovered: false,
        settings: Settings { receive_buffer: 400, send_buffer: 4, ..Settings::default() },
    };
    let stream = SolStream::start(session.clone(), Pipe { to_bmc, from_bmc }, activated);
    (stream, Bmc { session, from_console, to_console })
}

impl Bmc {
    fn say(&self, sequence: u8, text: &[u8]) {
        self.to_console.send(Packet { sequence, characters: text.to_vec(), ..Packet::default() }).unwrap();
    }

    /// Answers the first packet, which has no characters.
    async fn opens(&mut self) {
        let first = self.from_console.recv().await.unwrap();
        assert_eq!(first, Packet { sequence: 1, ..Packet::default() });
        self.to_console.send(ack_only(1, 0, false)).unwrap();
    }

    fn deactivated(&self) -> bool {
        self.session.log.lock().unwrap().contains(&0x49)
    }
}

async fn end_of(stream: &mut SolStream) -> SolEnd {
    let error = timeout(Duration::from_secs(120), stream.read(&mut [0; 9])).await.unwrap().unwrap_err();
    assert!(stream.write(b"x").await.is_err(), "writing says so too");
    SolEnd::of(&error).unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn bytes_go_both_ways_and_breaks_stay_in_order() {
    let (mut stream, mut bmc) = start();
    bmc.opens().await;
    bmc.say(1, b"login: ");
    let mut buffer = [0; 32];
    let count = stream.read(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..count], b"login: ");
    assert_eq!(bmc.from_console.recv().await.unwrap(), ack_only(1, 7, false));

    let to_console = bmc.to_console.clone();
    let host = tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.len() < 3 {
            let packet = bmc.from_console.recv().await.unwrap();
            to_console.send(ack_only(packet.sequence, packet.characters.len(), false)).unwrap();
            seen.push((packet.characters, packet.flags & operation::BREAK != 0));
        }
        (bmc, seen)
    });
    // The buffer holds four bytes: the rest waits for the BMC.
    stream.write_all(b"root").await.unwrap();
    stream.control().send_break();
    stream.write_all(b"more").await.unwrap();
    stream.flush().await.unwrap();
    let (bmc, seen) = host.await.unwrap();
    assert_eq!(seen, [(b"root".to_vec(), false), (vec![], true), (b"more".to_vec(), false)]);
    stream.close().await.unwrap();
    assert!(bmc.deactivated());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_stream_gives_the_console_back() {
    let (stream, bmc) = start();
    drop(stream);
    sleep(Duration::from_millis(10)).await;
    assert!(bmc.deactivated());
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_loses_nothing() {
    let (mut stream, mut bmc) = start();
    bmc.opens().await;
    bmc.say(1, &[b'a'; 250]);
    bmc.say(2, &[b'b'; 250]);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(bmc.from_console.recv().await.unwrap(), ack_only(1, 250, false));
    assert!(bmc.from_console.recv().await.unwrap().nack);
    stream.read_exact(&mut [0; 250]).await.unwrap();
    assert_eq!(bmc.from_console.recv().await.unwrap(), Packet::default(), "go on");
    bmc.say(2, &[b'b'; 250]);
    stream.read_exact(&mut [0; 250]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn d39_the_end_says_why() {
    // The BMC ends it, with last words; then somebody else has it.
    for (holder, expected) in [(0, SolEnd::Deactivated), (0x22, SolEnd::TakenOver { session: 0x22 })] {
        let (mut stream, bmc) = start();
        bmc.session.holder.store(holder, Ordering::SeqCst);
        let flags = status::DEACTIVATING;
        let last = Packet { sequence: 1, flags, characters: b"bye".to_vec(), ..Packet::default() };
        bmc.to_console.send(last).unwrap();
        let mut words = [0; 3];
        stream.read_exact(&mut words).await.unwrap();
        assert_eq!(end_of(&mut stream).await, expected);
        stream.close().await.unwrap();
        assert!(!bmc.deactivated(), "there is nothing of ours to end");
    }
    // It is gone without a word.
    for (holder, expected) in [(0, SolEnd::Deactivated), (0x22, SolEnd::TakenOver { session: 0x22 })] {
        let (mut stream, bmc) = start();
        bmc.session.holder.store(holder, Ordering::SeqCst);
        assert_eq!(end_of(&mut stream).await, expected);
    }
    // The session is lost.
    let (mut stream, bmc) = start();
    let Bmc { to_console, from_console, .. } = bmc;
    drop((to_console, from_console));
    assert!(matches!(end_of(&mut stream).await, SolEnd::SessionLost(_)));
}

#[tokio::test(start_paused = true)]
async fn a_bmc_that_stops_answering_ends_it_and_a_console_of_others_stays() {
    let (mut stream, bmc) = start();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(end_of(&mut stream).await, SolEnd::TooManyRetries { unacknowledged: 1 });
    stream.close().await.unwrap();
    assert!(bmc.deactivated());

    let (stream, bmc) = start();
    bmc.session.holder.store(0x22, Ordering::SeqCst);
    stream.close().await.unwrap();
    assert!(!bmc.deactivated(), "somebody else has it by now");
}
