//! `rackhand bmc console` on a pseudo terminal: what is typed arrives as it is, and the terminal is as it was
//! after every end.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use rackhand_ipmi::sol::SolOptions;
use rackhand_ipmi_tests::{Bmc, Hardware, hardware::ADMINISTRATOR, hardware::OPERATOR, sim::With};
use rustix::{
    fs::{Mode, OFlags, open},
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, tcgetattr},
};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::{
    command::{Person, binary, text, url},
    secrets::{holds_none, processes_hold_none},
    sol::{expect, session},
};

/// A terminal with a command on it.
struct Window {
    keyboard: File,
    /// Held, so that the terminal outlives the command.
    terminal: OwnedFd,
    before: String,
    shown: Arc<Mutex<Vec<u8>>>,
    child: Child,
}

impl Window {
    fn console(person: &Person, bmc: &Bmc) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let terminal = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let before = settings(&terminal);
        let end = || Stdio::from(terminal.try_clone().unwrap());
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig=KILL", "--"]).arg(binary());
        command.args(["bmc", "console", &url(bmc.address()), "--user", ADMINISTRATOR, "--password-file"]);
        command.arg(person.secret(&bmc.hardware.password));
        person.equip(&mut command).stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().expect("setpriv (Debian: util-linux)");
        // It keeps copies of the terminal, which would hide the end from the reader below.
        drop(command);
        let keyboard = File::from(master);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, pixels) = (keyboard.try_clone().unwrap(), shown.clone());
        // Ends when the last copy of the terminal is closed.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count) = screen.read(&mut buffer) {
                pixels.lock().unwrap().extend(&buffer[..count]);
            }
        });
        Self { keyboard, terminal, before, shown, child }
    }

    /// The same, once it is connected.
    async fn connected(person: &Person, bmc: &Bmc) -> Self {
        let window = Self::console(person, bmc);
        window.shows("console; ~. ends it, ~? helps").await;
        let deadline = Instant::now() + Duration::from_secs(10);
        while tcgetattr(&window.terminal).unwrap().local_modes.contains(LocalModes::ECHO) {
            assert!(Instant::now() < deadline, "never raw");
            sleep(Duration::from_millis(10)).await;
        }
        window
    }

    fn types(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    fn screen(&self) -> String {
        text(&self.shown.lock().unwrap())
    }

    async fn shows(&self, what: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.screen().contains(what) {
            assert!(Instant::now() < deadline, "no {what}: {}", self.screen());
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn send(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    async fn ends(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end: {}", self.screen());
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn is_as_before(&self) {
        assert_eq!(settings(&self.terminal), self.before, "{}", self.screen());
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings(terminal: &OwnedFd) -> String {
    format!("{:?}", tcgetattr(terminal).unwrap())
}

const SOON: Duration = Duration::from_secs(20);

async fn start() -> (Bmc, TcpStream) {
    let bmc = Bmc::start_with(Hardware::numbered(0), With { console: true, ..With::default() }).await;
    let host = bmc.console().await;
    (bmc, host)
}

/// Somebody else gets the console: it was given back.
async fn is_free(bmc: &Bmc) {
    let other = session(bmc.address(), OPERATOR, bmc).await;
    other.sol(SolOptions::default()).await.expect("given back").close().await.unwrap();
    other.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_typed_arrives_as_it_is_and_orders_do_not() {
    let (bmc, mut host) = start().await;
    let person = Person::new();
    let mut window = Window::connected(&person, &bmc).await;
    processes_hold_none(&[&bmc.hardware.password]);
    // All there are; 7eh is not at the start of a line.
    let all: Vec<u8> = (0..=255).collect();
    window.types(&all);
    expect(&mut host, &all).await;
    window.types(b"\r~?~~x\r");
    expect(&mut host, b"\r~x\r").await;
    window.shows("~. end   ~B break   ~~ one ~").await;
    window.types(b"~By");
    // ipmi_sim breaks its line as telnet does, and sends that with the next character.
    expect(&mut host, &[0xff, 0xf3, b'y']).await;
    window.shows("[break]").await;
    host.write_all(b"login: \x1b[1mroot\x1b[0m\n").await.unwrap();
    window.shows("login: \u{1b}[1mroot\u{1b}[0m\n").await;
    window.types(b"last words\r~.");
    assert_eq!(window.ends(SOON).await.code(), Some(0), "{}", window.screen());
    expect(&mut host, b"last words\r").await;
    window.is_as_before();
    window.shows("console closed").await;
    holds_none("the screen", &window.screen(), &[&bmc.hardware.password]);
    is_free(&bmc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_give_the_terminal_and_the_console_back() {
    let (bmc, _host) = start().await;
    let person = Person::new();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut window = Window::connected(&person, &bmc).await;
        window.send(signal);
        assert_eq!(window.ends(SOON).await.code(), Some(130), "{signal:?}: {}", window.screen());
        window.is_as_before();
        is_free(&bmc).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bmc_that_dies_gives_the_terminal_back_and_says_so() {
    let (mut bmc, mut host) = start().await;
    let person = Person::new();
    let mut window = Window::connected(&person, &bmc).await;
    window.types(b"x");
    expect(&mut host, b"x").await;
    bmc.kill();
    window.types(b"anybody?");
    let status = window.ends(Duration::from_secs(75)).await;
    assert_eq!(status.code(), Some(1), "{}", window.screen());
    window.is_as_before();
    let screen = window.screen();
    assert!(
        screen.contains("the last 8 bytes may or may not have reached the host")
            || screen.contains("the session with the BMC is lost"),
        "{screen}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_terminal_stdin_goes_to_the_host_as_it_is() {
    let (bmc, mut host) = start().await;
    let person = Person::new();
    let address = url(bmc.address());
    let input = format!("{}\nuptime\n~.\n", bmc.hardware.password);
    let arguments = ["console", &address, "--user", ADMINISTRATOR, "--password-stdin"];
    let talk = async {
        expect(&mut host, b"uptime\n~.\n").await;
        host.write_all(b"up 7 days\r\n").await.unwrap();
    };
    let (output, ()) = tokio::join!(person.bmc(&arguments, &input), talk);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(output.stdout, b"up 7 days\r\n");
    assert!(said.contains("console closed"), "{said}");
    is_free(&bmc).await;
}

/// What is remembered of consoles; empty files are of consoles that were given back.
fn remembered(person: &Person) -> Vec<String> {
    let folder = person.home.path().join("rackhand/consoles");
    let files = fs::read_dir(folder).unwrap().map(Result::unwrap);
    files
        .map(|file| {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            fs::read_to_string(file.path()).unwrap()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d39_a_console_that_a_killed_command_left_is_taken_back_by_the_same_person_only() {
    let (bmc, mut host) = start().await;
    let (person, other) = (Person::new(), Person::new());
    let mut killed = Window::connected(&person, &bmc).await;
    // While it lives, not even the same person puts it out.
    for someone in [&person, &other] {
        let mut second = Window::console(someone, &bmc);
        assert_eq!(second.ends(SOON).await.code(), Some(6), "{}", second.screen());
        second.is_as_before();
        second.shows("the console is in use by session").await;
    }
    killed.types(b"k");
    expect(&mut host, b"k").await;
    killed.send(Signal::KILL);
    killed.ends(SOON).await;
    let known = remembered(&person);
    assert!(known.len() == 1 && known[0].contains("session_id"), "{known:?}");
    holds_none("what is remembered", &known[0], &[&bmc.hardware.password]);

    let mut stranger = Window::console(&other, &bmc);
    assert_eq!(stranger.ends(SOON).await.code(), Some(6), "{}", stranger.screen());

    let mut next = Window::connected(&person, &bmc).await;
    next.shows("closed a console that an earlier command of yours had left open").await;
    next.types(b"n");
    expect(&mut host, b"n").await;
    next.types(b"\r~.");
    assert_eq!(next.ends(SOON).await.code(), Some(0), "{}", next.screen());
    next.is_as_before();
    assert_eq!(remembered(&person), [""], "given back, forgotten");
    expect(&mut host, b"\r").await;
    is_free(&bmc).await;
}
