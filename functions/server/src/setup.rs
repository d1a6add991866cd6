//! What the owner does: roles and migrations, and the first admin.

use std::time::Duration;

use rackhand_functions::auth::password;
use sqlx::{Connection as _, Executor as _, PgConnection, migrate::Migrator};

/// Migrations and role bootstrap travel inside the binary.
static MIGRATIONS: Migrator = sqlx::migrate!("../../schema/migrations");
const BOOTSTRAP: &str = include_str!("../../../schema/bootstrap.sql");
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("no connection to the database within {CONNECT_TIMEOUT:?}")]
    NoAnswer,
    #[error("the database refused")]
    Database(#[from] sqlx::Error),
    #[error("a migration failed")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error("no entropy for a salt")]
    Entropy,
    #[error("the password could not be hashed")]
    Hash,
    #[error("a password needs 12 to 1024 characters")]
    ShortPassword,
    #[error("`{0}` is not an e-mail address")]
    Email(String),
}

async fn connect(url: &str) -> Result<PgConnection, SetupError> {
    let connecting = PgConnection::connect(url.trim());
    Ok(tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| SetupError::NoAnswer)??)
}

/// Makes the roles if they are missing and applies the migrations that are not applied yet.
pub async fn migrate(owner_url: &str) -> Result<(), SetupError> {
    let mut connection = connect(owner_url).await?;
    connection.execute(BOOTSTRAP).await?;
    MIGRATIONS.run_direct(None, &mut connection, false).await?;
    connection.close().await?;
    Ok(())
}

/// Makes a fleet admin. If there is a user of that e-mail, the password is set anew, sessions end and the
/// user becomes admin; so this is also the way back in.
pub async fn create_admin(
    owner_url: &str,
    email: &str,
    name: &str,
    password: &str,
) -> Result<(), SetupError> {
    if !(12..=1024).contains(&password.chars().count()) {
        return Err(SetupError::ShortPassword);
    }
    if !email.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host.len() > 2) {
        return Err(SetupError::Email(email.to_owned()));
    }
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|_| SetupError::Entropy)?;
    let hash = password::hash_with_salt(password, &salt).map_err(|_| SetupError::Hash)?;
    let args = serde_json::json!({"email": email, "name": name, "password_hash": hash}).to_string();
    let mut connection = connect(owner_url).await?;
    connection.execute("set role rackhand_owner").await?;
    sqlx::query("select rackhand.admin_create($1::text::jsonb)").bind(args).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}
