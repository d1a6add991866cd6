//! A TCP relay that a test may cut or slow down: a network partition, a thin line.
//!
//! Its sockets take little in advance: of a slow upload most is still with its sender, as over a long line,
//! so that it really ends in the middle when the sender gives up.

use std::{net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Segment size and receive buffer of the listener, bytes: they bound what a sender's kernel takes in
/// advance.
const SEGMENT: u32 = 1_000;
const BUFFER: usize = 16 * 1024;

pub struct Relay {
    address: SocketAddr,
    line: Arc<watch::Sender<Line>>,
}

#[derive(Clone, Copy)]
struct Line {
    open: bool,
    /// Bytes each second from the side that dialled; none: no limit.
    rate: Option<NonZeroU32>,
}

impl Relay {
    pub async fn start(target: SocketAddr) -> Self {
        let listener = listen().unwrap();
        let address = listener.local_addr().unwrap();
        let line = Arc::new(watch::Sender::new(Line { open: true, rate: None }));
        let gate = Arc::clone(&line);
        tokio::spawn(async move {
            while let Ok((inside, _)) = listener.accept().await {
                let gate = gate.subscribe();
                // Dropped while cut: the peer sees its connection end.
                if gate.borrow().open {
                    tokio::spawn(carry(inside, target, gate));
                }
            }
        });
        Self { address, line }
    }

    /// A relay to a database's server, and the database's URL through it.
    pub async fn before(url: &str) -> (Self, String) {
        let (login, place) = url.rsplit_once('@').unwrap();
        let (target, name) = place.split_once('/').unwrap();
        let relay = Self::start(target.parse().unwrap()).await;
        let through = format!("{login}@{}/{name}", relay.address);
        (relay, through)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts every connection and takes no new one.
    pub fn cut(&self) {
        self.line.send_modify(|line| line.open = false);
    }

    pub fn mend(&self) {
        self.line.send_modify(|line| line.open = true);
    }

    /// Passes on so many bytes each second of what the dialling side sends; 0: as fast as it comes.
    pub fn throttle(&self, bytes_per_second: u32) {
        self.line.send_modify(|line| line.rate = NonZeroU32::new(bytes_per_second));
    }
}

fn listen() -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_mss(SEGMENT)?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

async fn carry(mut inside: TcpStream, target: SocketAddr, mut gate: watch::Receiver<Line>) {
    let Ok(mut outside) = TcpStream::connect(target).await else { return };
    let _ = (inside.set_nodelay(true), outside.set_nodelay(true));
    let ((questions, mut answers), (mut from, to)) = (inside.split(), outside.split());
    let there = forward(questions, to, gate.clone());
    let back = async {
        copy(&mut from, &mut answers).await?;
        answers.shutdown().await
    };
    tokio::select! {
        _ = async { tokio::try_join!(there, back) } => {}
        _ = gate.wait_for(|line| !line.open) => {}
    }
}

async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut line: watch::Receiver<Line>,
) -> std::io::Result<()> {
    let mut buffer = [0; SEGMENT as usize];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        let rate = line.borrow_and_update().rate;
        if let Some(rate) = rate {
            let share = u32::try_from(length).unwrap_or(SEGMENT);
            let pause = Duration::from_secs(1) * share / rate.get();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = line.changed() => {}
            }
        }
        to.write_all(&buffer[..length]).await?;
    }
}
