//! Signing in and out.

use clap::Args;
use rackhand_schema::{
    identity::{Grant, Login as LoginBody, Logout, Me, SignedIn},
    site::Site,
};

use crate::{
    args::Global,
    client::{Client, origin, parse_server},
    config::Config,
    error::{Failure, Result},
    output::{Output, printable, say, word},
    secret::{self, PasswordSource},
};

#[derive(Debug, Args)]
pub struct Login {
    /// Address of the control plane, e.g. https://rackhand.example.
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// E-mail address to sign in with.
    #[arg(long)]
    email: Option<String>,
    #[command(flatten)]
    password: PasswordSource,
}

pub async fn login(args: Login, global: &Global, out: Output) -> Result<()> {
    let config = Config::locate()?;
    let current = config.sessions()?.current;
    let url = args
        .url
        .or_else(|| global.api.clone())
        .or(current)
        .ok_or_else(|| Failure::Usage("which control plane? `rackhand login https://…`".to_owned()))?;
    let url = origin(&parse_server(&url)?);
    let client = Client::open(config, &global.with_api(url.clone()))?;
    let email = match args.email {
        Some(email) => email,
        None => secret::ask("E-mail:")?
            .filter(|email| !email.is_empty())
            .ok_or_else(|| Failure::Usage("give --email".to_owned()))?,
    };
    let password = args.password.read("Password")?;
    let mut body = LoginBody { email: email.clone(), password: password.to_string() };
    let call = client.post(&["v1", "auth", "login"]).body(&body);
    zeroize::Zeroize::zeroize(&mut body.password);
    let signed_in: SignedIn = call?.anonymous().await?;
    client.adopt(&email, &signed_in)?;
    say(format!("signed in to {url}"));
    show(&signed_in.user, &client, out).await
}

pub async fn logout(client: &Client) -> Result<()> {
    if !client.signed_in() {
        say(format!("not signed in to {}", client.server()));
        return Ok(());
    }
    // The tokens are forgotten here even if the server cannot be told.
    let body = Logout { refresh_token: client.refresh_token() };
    let told = client.post(&["v1", "auth", "logout"]).body(&body)?.anonymous_done().await;
    client.forget()?;
    match told {
        Ok(()) => say(format!("signed out of {}", client.server())),
        Err(failure) => {
            say(format!("tokens forgotten, but {} could not end the session: {failure}", client.server()))
        }
    }
    Ok(())
}

pub async fn whoami(client: &Client, out: Output) -> Result<()> {
    let me: Me = client.get(&["v1", "auth", "me"]).send().await?;
    show(&me, client, out).await
}

async fn show(me: &Me, client: &Client, out: Output) -> Result<()> {
    let sites = sites_of(client, &me.grants).await;
    out.one(me, &me.email, || render(me, &client.server(), &sites))
}

fn render(me: &Me, server: &str, sites: &[Site]) -> String {
    let mut text = format!("{} <{}> at {server}\n", me.name, me.email);
    if me.grants.is_empty() {
        text.push_str("  no role yet; ask an admin\n");
    }
    for grant in &me.grants {
        text.push_str(&format!("  {}\n", printable(&grant_text(grant, sites))));
    }
    text
}

/// The sites that these grants may name. Without the names the ids say it, too.
pub async fn sites_of(client: &Client, grants: impl IntoIterator<Item = &Grant>) -> Vec<Site> {
    match grants.into_iter().any(|grant| grant.site_id.is_some()) {
        true => client.all(&["v1", "sites"], &[], None).await.unwrap_or_default(),
        false => Vec::new(),
    }
}

/// A role and where it applies, in words.
pub fn grant_text(grant: &Grant, sites: &[Site]) -> String {
    match grant.site_id {
        Some(id) => {
            let name = sites.iter().find(|site| site.id == id).map(|site| site.name.clone());
            format!("{} of site {}", word(&grant.role), name.unwrap_or_else(|| id.to_string()))
        }
        None => format!("{} of the whole fleet", word(&grant.role)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whoami_lists_roles() {
        let me: Me = serde_json::from_value(json!({
            "id": "01920000-0000-7000-8000-000000000001", "email": "ada@rackhand.example", "name": "Ada",
            "grants": [
                {"id": "01920000-0000-7000-8000-000000000002", "role": "viewer", "site_id": null},
                {"id": "01920000-0000-7000-8000-000000000003", "role": "operator",
                 "site_id": "01920000-0000-7000-8000-000000000004"},
            ],
        }))
        .unwrap();
        let site: Site = serde_json::from_value(json!({
            "id": "01920000-0000-7000-8000-000000000004", "name": "lab", "config": {}, "public_key": null,
            "servers": 0, "executors_online": 0, "created_at": "2026-01-01T00:00:00Z", "version": 1,
        }))
        .unwrap();
        insta::assert_snapshot!(render(&me, "https://rackhand.example", &[site]), @r"
        Ada <ada@rackhand.example> at https://rackhand.example
          viewer of the whole fleet
          operator of site lab
        ");
        let unnamed = render(&me, "https://rackhand.example", &[]);
        assert!(unnamed.contains("operator of site 01920000-0000-7000-8000-000000000004"), "{unnamed}");
    }
}
