//! What the command remembers between two calls: sessions and site keys, under the XDG configuration folder.
//! Beside them `consoles` holds what `bmc::memory` says.
//!
//! `sessions.json` (mode 0600) holds the tokens of each control plane; `site-keys.json` holds the public key each
//! site had when it was first used, so that a control plane cannot swap it later; `sites.json` holds the site that
//! `rackhand sites use` chose at each control plane. All are written to a new file and renamed. Refresh tokens
//! rotate: a lock file keeps two commands from spending the same one.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::{Failure, Result};

/// Tokens of one control plane. There is no `Debug`: they are secrets.
#[derive(Clone, Serialize, Deserialize)]
pub struct StoredSession {
    pub email: String,
    pub access_token: String,
    pub refresh_token: String,
}

/// All sessions, by the address of their control plane.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sessions {
    /// The control plane that is used when none is named.
    pub current: Option<String>,
    pub sessions: BTreeMap<String, StoredSession>,
}

pub struct Config {
    folder: PathBuf,
}

/// Held while a refresh token is spent and its successor stored.
pub struct RefreshLock {
    _file: File,
}

impl Config {
    /// `$XDG_CONFIG_HOME/rackhand`, else `~/.config/rackhand`.
    pub fn locate() -> Result<Self> {
        let base = match env::var_os("XDG_CONFIG_HOME").filter(|value| Path::new(value).is_absolute()) {
            Some(base) => PathBuf::from(base),
            None => env::home_dir()
                .filter(|home| !home.as_os_str().is_empty())
                .ok_or_else(|| Failure::Other("no home folder; set XDG_CONFIG_HOME".to_owned()))?
                .join(".config"),
        };
        Ok(Self { folder: base.join("rackhand") })
    }

    pub fn sessions(&self) -> Result<Sessions> {
        self.read("sessions.json")
    }

    pub fn save_sessions(&self, sessions: &Sessions) -> Result<()> {
        self.write("sessions.json", sessions)
    }

    /// Site id → public key (base64) as first seen or confirmed by a person.
    pub fn site_keys(&self) -> Result<BTreeMap<String, String>> {
        self.read("site-keys.json")
    }

    pub fn save_site_keys(&self, keys: &BTreeMap<String, String>) -> Result<()> {
        self.write("site-keys.json", keys)
    }

    /// Control plane → id of the site that is meant where none is named.
    pub fn chosen_sites(&self) -> Result<BTreeMap<String, String>> {
        self.read("sites.json")
    }

    pub fn save_chosen_sites(&self, sites: &BTreeMap<String, String>) -> Result<()> {
        self.write("sites.json", sites)
    }

    /// Where the consoles that commands have open are remembered.
    pub fn consoles(&self) -> PathBuf {
        self.folder.join("consoles")
    }

    /// Waits until no other command is refreshing or signing in.
    pub fn lock(&self) -> Result<RefreshLock> {
        self.make_folder()?;
        let path = self.folder.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| Failure::file(format!("cannot open {}", path.display()), source))?;
        file.lock().map_err(|source| Failure::file(format!("cannot lock {}", path.display()), source))?;
        Ok(RefreshLock { _file: file })
    }

    /// Says what is wrong with the permissions of the stored tokens, if anything.
    pub fn loose_permissions(&self) -> Option<String> {
        let path = self.folder.join("sessions.json");
        let mode = fs::metadata(&path).ok()?.permissions().mode() & 0o777;
        (mode & 0o077 != 0).then(|| {
            let path = crate::doctor::quoted(&path.to_string_lossy());
            format!("{path} has mode {mode:o}, so others may read them: run `chmod 600 {path}`")
        })
    }

    fn make_folder(&self) -> Result<()> {
        fs::create_dir_all(&self.folder)
            .map_err(|source| Failure::file(format!("cannot create {}", self.folder.display()), source))
    }

    fn read<T: DeserializeOwned + Default>(&self, name: &str) -> Result<T> {
        let path = self.folder.join(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(T::default()),
            Err(source) => return Err(Failure::file(format!("cannot read {}", path.display()), source)),
        };
        serde_json::from_str(&text).map_err(|error| {
            Failure::Other(format!("{} is damaged ({error}); remove it and sign in again", path.display()))
        })
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        self.make_folder()?;
        let path = self.folder.join(name);
        let fresh = self.folder.join(format!("{name}.{}", std::process::id()));
        let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Other(error.to_string()))?;
        let store = || {
            let mut file =
                OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&fresh, &path)
        };
        store().map_err(|source| Failure::file(format!("cannot write {}", path.display()), source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_private_and_survive() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { folder: folder.path().join("rackhand") };
        assert!(config.sessions().unwrap().current.is_none());
        let mut sessions = Sessions { current: Some("https://a.example".to_owned()), ..Sessions::default() };
        sessions.sessions.insert(
            "https://a.example".to_owned(),
            StoredSession { email: "a@b.c".into(), access_token: "x".into(), refresh_token: "y".into() },
        );
        config.save_sessions(&sessions).unwrap();
        let mode = fs::metadata(config.folder.join("sessions.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(config.loose_permissions().is_none());
        assert_eq!(config.sessions().unwrap().sessions.len(), 1);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { folder: folder.path().to_owned() };
        fs::write(folder.path().join("sessions.json"), "{").unwrap();
        let error = config.sessions().err().unwrap().to_string();
        assert!(error.contains("sessions.json is damaged"), "{error}");
    }
}
