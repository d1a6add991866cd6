//! Passwords: argon2id with 19 MiB, two passes, one lane (OWASP's Password Storage Cheat Sheet, 2024).
//!
//! Comparing is as slow for an unknown user as for a known one: there it runs against a hash that nothing
//! fits.

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use zeroize::Zeroizing;

use crate::{
    host::Host,
    problem::{Answer, Refusal},
};

/// A salt of zeros and an output that no password is known to give, with the parameters below.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$\
                      AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn hasher() -> Answer<Argon2<'static>> {
    let params = Params::new(19 * 1024, 2, 1, Some(32))
        .map_err(|error| Refusal::internal(format!("argon2 parameters: {error}")))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// The PHC string to store.
pub async fn hash(host: &Host, password: String) -> Answer<String> {
    let (password, salt) = (Zeroizing::new(password), host.random::<16>()?);
    host.work(move || hash_with_salt(&password, &salt)).await?
}

/// `stored` if `password` fits it; `None` (no such user, or no password chosen yet) takes as long and never fits.
///
/// Comparing takes a while: who acts on it has to see that the stored hash is still this one.
pub async fn fitted(host: &Host, password: String, stored: Option<String>) -> Answer<Option<String>> {
    let password = Zeroizing::new(password);
    host.work(move || {
        let fits = compare(&password, stored.as_deref())?;
        Ok(stored.filter(|_| fits))
    })
    .await?
}

/// The same for hosts' commands, which have no [`Host`].
pub fn hash_with_salt(password: &str, salt: &[u8; 16]) -> Answer<String> {
    let hash: PasswordHash = hasher()?
        .hash_password_with_salt(password.as_bytes(), salt)
        .map_err(|error| Refusal::internal(format!("hashing a password: {error}")))?;
    Ok(hash.to_string())
}

fn compare(password: &str, stored: Option<&str>) -> Answer<bool> {
    let parsed = PasswordHash::new(stored.unwrap_or(NOBODY))
        .map_err(|error| Refusal::internal(format!("a stored password hash: {error}")))?;
    let fits = hasher()?.verify_password(password.as_bytes(), &parsed).is_ok();
    Ok(fits && stored.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_password_fits_and_nothing_fits_nobody() {
        let stored = hash_with_salt("correct horse", &[3; 16]).unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(compare("correct horse", Some(&stored)).unwrap());
        assert!(!compare("wrong horse", Some(&stored)).unwrap());
        assert!(!compare("correct horse", None).unwrap());
        assert!(compare("x", Some("not a hash")).is_err());
    }
}
