//! How to connect to a Postgres, and SQL by `psql` without showing the password to other processes.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    error::{Failure, Result},
    paths,
};

static RUNS: AtomicU64 = AtomicU64::new(0);

/// A connection of one role to one database. No `Debug`: it holds a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: String,
    pub host: String,
    pub port: u16,
    pub database: String,
}

impl Login {
    /// Reads `postgres://user[:password]@host[:port]/database`; parameters after `?` are left out.
    ///
    /// # Errors
    /// Another form.
    pub fn parse(url: &str) -> Result<Self> {
        let bad = || Failure::Other("the URL is not postgres://user:password@host:port/database".to_owned());
        let rest =
            url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")).ok_or_else(bad)?;
        let rest = rest.split('?').next().unwrap_or_default();
        let (who, place) = rest.rsplit_once('@').ok_or_else(bad)?;
        let (user, password) = who.split_once(':').unwrap_or((who, ""));
        let (address, database) = place.split_once('/').ok_or_else(bad)?;
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| bad())?),
            _ => (address, 5432),
        };
        if user.is_empty() || host.is_empty() || database.is_empty() {
            return Err(bad());
        }
        let decoded = |text: &str| decode(text).ok_or_else(bad);
        Ok(Self {
            user: decoded(user)?,
            password: decoded(password)?,
            host: host.to_owned(),
            port,
            database: decoded(database)?,
        })
    }

    /// The same place as another role.
    #[must_use]
    pub fn of(&self, user: &str, password: &str) -> Self {
        Self { user: user.to_owned(), password: password.to_owned(), ..self.clone() }
    }

    pub fn url(&self) -> String {
        let Self { user, password, host, port, database } = self;
        format!("postgres://{}:{}@{host}:{port}/{}", encode(user), encode(password), encode(database))
    }

    /// Runs SQL, statement by statement. The password goes through a file in `folder`, the SQL through stdin.
    ///
    /// # Errors
    /// The server's own words.
    pub fn run(&self, folder: &Path, sql: &str) -> Result<()> {
        // A file for each: several may run at once in one folder.
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let service = folder.join(format!("psql-service-{}-{number}", std::process::id()));
        let Self { user, password, host, port, database } = self;
        let host = host.trim_matches(['[', ']']);
        let text = format!(
            "[rackhand]\nhost={host}\nport={port}\nuser={user}\npassword={password}\ndbname={database}\nconnect_timeout=10\n"
        );
        paths::write_secret(&service, &text)?;
        let mut child = Command::new("psql")
            .args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--file", "-", "service=rackhand"])
            .env("PGSERVICEFILE", &service)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| Failure::io("cannot run psql (apt-get install postgresql-client)", source))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(sql.as_bytes()).map_err(|source| Failure::io("cannot speak to psql", source))?;
        }
        let output =
            child.wait_with_output().map_err(|source| Failure::io("cannot wait for psql", source))?;
        // The password need not lie about any longer.
        let _ = std::fs::remove_file(&service);
        if output.status.success() {
            return Ok(());
        }
        Err(Failure::Other(format!("psql: {}", String::from_utf8_lossy(&output.stderr).trim())))
    }
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        let login =
            Login::parse("postgresql://me:p%40ss@db.example:6543/rack%2Fhand?sslmode=require").unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("me", "p@ss"));
        assert_eq!(
            (login.host.as_str(), login.port, login.database.as_str()),
            ("db.example", 6543, "rack/hand")
        );
        assert!(Login::parse(&login.url()).unwrap() == login);
        assert_eq!(Login::parse("postgres://me@[::1]/x").unwrap().port, 5432);
        for bad in ["", "mysql://a@b/c", "postgres://a/b", "postgres://a@b", "postgres://a@b:x/c"] {
            assert!(Login::parse(bad).is_err(), "{bad}");
        }
    }
}
