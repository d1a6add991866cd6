//! Which session of ours has a BMC's console, on disk for as long as it has it.
//!
//! A command that is killed cannot give its console back, and the BMC keeps it for the lost session. The next command
//! of the same person, on the same machine, for the same account, finds here which session that was and may end it.
//! The file is locked while its command lives, so that a console in use, here in another window, is never mistaken for
//! a lost one. Whether the holder really is that session is decided by what the BMC says (`rackhand_ipmi::sol`).
//!
//! How it fails: without a place to remember, the console works all the same and a lost one stays until the BMC ends
//! its session.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    net::SocketAddrV4,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use rackhand_ipmi::sol::OwnSession;
use serde::{Deserialize, Serialize};

/// The memory of one BMC's console, held by this process.
pub struct Memory {
    file: File,
    lost: Option<OwnSession>,
}

/// What is in the file; it is empty while no console is out.
#[derive(Serialize, Deserialize)]
struct Stored {
    session_id: u32,
    user: Option<u8>,
    console: Option<SocketAddrV4>,
}

impl Memory {
    /// Opens what is known in `folder` about the console of `bmc` for `account`. `None`: another command that still
    /// runs holds it.
    pub fn open(folder: &Path, bmc: &str, account: &str) -> io::Result<Option<Self>> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let machine = rustix::system::uname();
        let machine = machine.nodename().to_string_lossy();
        let name = [&machine, account, bmc].map(plain).join("_");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(folder.join(name))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        file.set_permissions(Permissions::from_mode(0o600))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // What was cut short by a crash names nobody.
        let lost = serde_json::from_str(&text).ok().map(|Stored { session_id, user, console }| OwnSession {
            session_id,
            user,
            console,
        });
        Ok(Some(Self { file, lost }))
    }

    /// The session that an earlier command lost.
    pub fn lost(&self) -> Option<OwnSession> {
        self.lost
    }

    /// Remembers who has the console now; `None` for none of us.
    pub fn keep(&mut self, own: Option<OwnSession>) -> io::Result<()> {
        let text = match own {
            Some(OwnSession { session_id, user, console }) => {
                serde_json::to_string(&Stored { session_id, user, console })?
            }
            None => String::new(),
        };
        self.lost = None;
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())?;
        self.file.sync_data()
    }
}

/// A part of a file name that no two texts share.
fn plain(text: &str) -> String {
    let mut name = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_lost_session_is_found_again_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("consoles");
        let own =
            OwnSession { session_id: 7, user: Some(2), console: Some("10.0.0.1:4000".parse().unwrap()) };
        let open = |bmc: &str, account: &str| Memory::open(&folder, bmc, account).unwrap();
        let mut first = open("bmc-7:623", "root").unwrap();
        assert_eq!(first.lost(), None);
        first.keep(Some(own)).unwrap();
        assert!(open("bmc-7:623", "root").is_none(), "its command lives");
        // As when the process is killed.
        drop(first);
        assert_eq!(open("bmc-7:623", "other").unwrap().lost(), None);
        assert_eq!(open("bmc-8:623", "root").unwrap().lost(), None);
        let mut next = open("bmc-7:623", "root").unwrap();
        assert_eq!(next.lost(), Some(own));
        next.keep(None).unwrap();
        drop(next);
        assert_eq!(open("bmc-7:623", "root").unwrap().lost(), None);
        for file in fs::read_dir(&folder).unwrap() {
            let file = file.unwrap();
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            fs::write(file.path(), "{\"session_id\": 7").unwrap();
        }
        assert_eq!(open("bmc-7:623", "root").unwrap().lost(), None, "cut short");
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn names_of_files_are_plain_and_differ() {
        assert_eq!(plain("[fd00::7]:623"), "%5bfd00%3a%3a7%5d%3a623");
        assert_ne!(plain("a_b"), plain("a%5fb"));
    }
}
