//! The same request in the ways that HTTP/1.1 allows to send it (RFC 9112), byte by byte, and ones it does
//! not.

use std::time::Duration;

use rackhand_tests::host::HostProcess;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Parts are sent so far apart.
const PAUSE: Duration = Duration::from_millis(30);
const PATIENCE: Duration = Duration::from_secs(5);

const JSON: &str = "POST /v1/auth/refresh HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n";
const BODY: &str = r#"{"refresh_token":"none"}"#;

/// What was answered otherwise than expected.
pub async fn wrong(host: &HostProcess) -> Vec<String> {
    let whole = format!("{JSON}Content-Length: {}\r\n\r\n{BODY}", BODY.len());
    let (first, second) = BODY.split_at(9);
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let chunked = format!("{JSON}Transfer-Encoding: chunked\r\n\r\n");
    let slow = format!("{JSON}Content-Length: {}\r\n\r\n", BODY.len());
    let patient = format!("{JSON}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", BODY.len());
    // One byte beyond ASCII, and two.
    let beyond = format!(
        "{JSON}X-Name: Zo\u{eb}\r\nX-Other: Zo\u{c3}\u{ab}\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let unasked = "GET /v1/version HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}";
    let ended = "session-ended";
    let ways = [
        ("at once", vec![whole.clone()], vec![ended]),
        ("in chunks", vec![chunked, chunk(first), chunk(second), "0\r\n\r\n".to_owned()], vec![ended]),
        ("slowly", vec![slow, first.to_owned(), second.to_owned()], vec![ended]),
        ("after being asked", vec![patient, BODY.to_owned()], vec![ended]),
        ("two in a row", vec![whole.repeat(2)], vec![ended, ended]),
        ("with headers beyond ASCII", vec![beyond], vec![ended]),
        ("a body where none is", vec![unasked.to_owned(), whole], vec!["\"version\"", ended]),
    ];
    let mut wrong = Vec::new();
    for (way, parts, expected) in ways {
        let text = exchange(host, &parts, &expected).await;
        let found: Vec<_> = expected.iter().map(|mark| text.matches(*mark).count()).collect();
        if found.contains(&0) || expected.len() != text.matches("x-trace-id").count() {
            wrong.push(format!("{:?}, sent {way}: {text}", host.kind));
        }
    }
    // Breaks off in the middle; what matters is that the host is there for the next one.
    let broken = [format!("{JSON}Content-Length: 1000\r\n\r\n{BODY}")];
    exchange(host, &broken, &[]).await;
    let text =
        exchange(host, &["GET /v1/version HTTP/1.1\r\nHost: h\r\n\r\n".to_owned()], &["version"]).await;
    if !text.contains("\"version\"") {
        wrong.push(format!("{:?}, after a request that broke off: {text}", host.kind));
    }
    wrong
}

/// Sends the parts over one connection and reads until as many answers as expected have come.
async fn exchange(host: &HostProcess, parts: &[String], expected: &[&str]) -> String {
    let mut stream = TcpStream::connect(host.url.trim_start_matches("http://")).await.unwrap();
    for part in parts {
        // Each character is a byte.
        let bytes: Vec<_> = part.chars().map(|byte| u8::try_from(byte).unwrap()).collect();
        stream.write_all(&bytes).await.unwrap();
        tokio::time::sleep(PAUSE).await;
    }
    let mut read = Vec::new();
    let answers = async {
        let mut buffer = [0; 4096];
        loop {
            let text = String::from_utf8_lossy(&read).to_ascii_lowercase();
            let ended = text.matches("trace_id\":").count() + text.matches("\"version\":").count();
            if ended >= expected.len() {
                return;
            }
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(length) => read.extend_from_slice(&buffer[..length]),
            }
        }
    };
    let _ = tokio::time::timeout(PATIENCE, answers).await;
    String::from_utf8_lossy(&read).to_ascii_lowercase()
}
