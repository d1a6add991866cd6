//! sushy-tools' Redfish emulator, from the Python package registry: a service that nobody here wrote.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rackhand_ipmi_tests::venv;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PublicKeyData as _,
};
use sha2::{Digest as _, Sha256};

use crate::stack::ForeignBmc;

/// Over HTTPS with Basic authentication: one service, one or more systems. It ends with
/// this value, however the test ends.
pub struct SushyEmulator {
    child: Child,
    port: u16,
    spki_sha256: String,
    log: PathBuf,
    _directory: tempfile::TempDir,
}

impl SushyEmulator {
    pub const USERNAME: &str = "operator";

    /// Systems that are on, by name; the emulator changes their power 1 to 11 seconds after it was asked to.
    pub async fn start(systems: &[&str], password: &str) -> Self {
        let bin = venv::environment("venv", &["sushy-tools", "bcrypt"]);
        let directory = tempfile::Builder::new().prefix("rackhand-test-sushy-").tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let spki_sha256 = certificate(&path("cert.pem"), &path("key.pem"));
        let hash = bcrypt(&bin, password);
        fs::write(path("htpasswd"), format!("{}:{hash}\n", Self::USERNAME)).unwrap();
        fs::create_dir(path("state")).unwrap();
        let port = free_port();
        let fakes: Vec<_> = systems
            .iter()
            .map(|name| {
                let uuid = uuid::Uuid::now_v7();
                format!(
                    "{{'uuid': '{uuid}', 'name': '{name}', 'power_state': 'On', 'external_notifier': False, \
                     'nics': []}}"
                )
            })
            .collect();
        let at = |name: &str| path(name).display().to_string();
        fs::write(
            path("emulator.conf"),
            format!(
                "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\nSUSHY_EMULATOR_LISTEN_PORT = {port}\n\
                 SUSHY_EMULATOR_SSL_CERT = '{}'\nSUSHY_EMULATOR_SSL_KEY = '{}'\n\
                 SUSHY_EMULATOR_AUTH_FILE = '{}'\nSUSHY_EMULATOR_STATE_DIR = '{}'\n\
                 SUSHY_EMULATOR_FAKE_DRIVER = True\nSUSHY_EMULATOR_FAKE_SYSTEMS = [{}]\n",
                at("cert.pem"),
                at("key.pem"),
                at("htpasswd"),
                at("state"),
                fakes.join(", ")
            ),
        )
        .unwrap();
        let log = path("log");
        let child = Command::new("setpriv")
            .args(["--pdeathsig=KILL", "--"])
            .arg(bin.join("sushy-emulator"))
            .arg("--config")
            .arg(path("emulator.conf"))
            .env("TMPDIR", directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .expect("setpriv starts the emulator");
        let mut emulator = Self { child, port, spki_sha256, log, _directory: directory };
        emulator.answers().await;
        emulator
    }

    async fn answers(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "no emulator: {ended:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub fn as_bmc(&self, name: &str) -> ForeignBmc {
        ForeignBmc {
            name: name.to_owned(),
            url: self.url(),
            spki_sha256: self.spki_sha256.clone(),
            ipmi: None,
        }
    }

    /// Its access log: one line for each request.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Requests that it answered, of a method to paths that contain `part`.
    pub fn requests(&self, method: &str, part: &str) -> usize {
        // Its log colours what is not a plain success.
        let request = format!("{method} /");
        self.log().lines().filter(|line| line.contains(&request) && line.contains(part)).count()
    }
}

impl Drop for SushyEmulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes a certificate that a private CA has issued, the CA's behind it, and its key; the SHA-256 of the
/// public key, hex.
fn certificate(cert: &Path, key: &Path) -> String {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "a private CA");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let pair = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "a Redfish service");
    let issued = params.signed_by(&pair, &authority).unwrap();
    fs::write(cert, format!("{}{}", issued.pem(), authority.pem())).unwrap();
    fs::write(key, pair.serialize_pem()).unwrap();
    hex::encode(Sha256::digest(pair.subject_public_key_info()))
}

fn bcrypt(bin: &Path, password: &str) -> String {
    let program = "import bcrypt, sys\n\
        print(bcrypt.hashpw(sys.stdin.buffer.read(), bcrypt.gensalt(4)).decode())";
    let mut child = Command::new(bin.join("python"))
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "bcrypt: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
