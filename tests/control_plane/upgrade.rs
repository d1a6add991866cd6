//! The release before works on the schema of this one
//! (`docs/adr/0028-a-migration-leaves-the-release-before-working.md`).

use std::process::Command;

use rackhand_tests::{TestDatabase, skip::skip};
use tokio_postgres::types::Type;
use xtask::paths;

const NAME: &str = "upgrade::the_last_releases_statements_are_known_to_this_schema";
/// Where statements stand in a release, and how many there are at least.
const STATEMENTS: (&str, usize) = ("functions/core/src", 40);

/// What git prints, if it can.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(paths::root()).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// The last release, or this commit before the first one.
fn last_release() -> Option<String> {
    let tags = git(&["tag", "--list", "v*", "--sort=-version:refname", "--merged", "HEAD"])?;
    Some(tags.lines().next().unwrap_or("HEAD").to_owned())
}

#[tokio::test]
async fn the_last_releases_statements_are_known_to_this_schema() {
    let Some(release) = last_release() else {
        skip(NAME, "this is no git repository");
        return;
    };
    let database = TestDatabase::new().await;
    let files = git(&["ls-tree", "-r", "--name-only", &release, STATEMENTS.0]).unwrap();
    let mut known = 0;
    for file in files.lines().filter(|file| file.ends_with(".sql")) {
        let sql = git(&["show", &format!("{release}:{file}")]).unwrap();
        if let Err(error) = database.api.prepare_typed(&sql, &[Type::JSONB]).await {
            panic!("{file} of {release}: {error:?}");
        }
        known += 1;
    }
    assert!(known >= STATEMENTS.1, "{known} statements in {release}");
    let gone = database.api.prepare_typed("select rackhand.what_a_release_had($1)", &[Type::JSONB]).await;
    assert!(gone.is_err(), "what is not there is noticed");
}
